"""What tests of the user's labels share: a library with dogs and cats, and its search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from library_fixtures import make_library

from audiosearch.labels import load_labels
from audiosearch.library.library import Library

LABELS = load_labels()
DOG, BARK, CAT, MUSIC = (LABELS.by_name(name).index for name in ("Dog", "Bark", "Cat", "Music"))


def codes() -> np.ndarray:
    """Clips 0 to 8; dogs in 0, 1, 3 and 4, a bark in 0, cats in 4 to 6."""
    values = np.zeros((9, 527), np.uint8)
    values[[0, 1, 3, 4], DOG] = 250, 120, 180, 200
    values[0, BARK] = 220
    values[[4, 5, 6], CAT] = 210, 190, 160
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_library(tmp_path / "lib", [1, 2, 1, 1, 3, 1], codes())


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    with Library(folder) as library:
        yield library


def clips(library: Library, query: str) -> list[int]:
    result = library.search(query, limit=100, grouped=False)
    assert result.total_clips == len(result.hits)
    assert library.search(query, limit=0).total == len({hit.recording_id for hit in result.hits})
    return [hit.clip for hit in result.hits]
