"""What tests of segments share: libraries that are sealed early, and everything they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from library_fixtures import append, make_library

from audiosearch.library import compaction, index_building, writer
from audiosearch.library.compaction import tidy
from audiosearch.library.library import Library

QUERIES = ("car", "vehicle", "music OR dog", "speech -music", "dog cat OR (rain -wind)", "siren")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal after 40 clips, merge 3 segments, and compare no more than 60 vectors one by one."""
    for module in (compaction, writer):
        monkeypatch.setattr(module, "SEAL_CLIPS", 40)
    monkeypatch.setattr(compaction, "MERGE_COUNT", 3)
    for module in (compaction, index_building):
        monkeypatch.setattr(module, "EXACT_CLIPS", 60)


def codes_of(clips: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 70, (clips, 527))
    high = draw.random((clips, 527)) < 0.03
    codes[high] = draw.integers(83, 256, int(high.sum()))
    return codes.astype(np.uint8)


def vectors_of(clips: int, seed: int) -> np.ndarray:
    """Vectors in clusters, as sounds are."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(0, 60, (12, 128))
    return np.clip(
        centres[draw.integers(0, 12, clips)] + draw.normal(0, 20, (clips, 128)), -127, 127
    )


def add(folder: Path, clips: list[int], seed: int) -> None:
    append(folder, clips, codes_of(sum(clips), seed), vectors_of(sum(clips), seed))


def compact(folder: Path) -> None:
    with Library(folder, writable=True) as library:
        tidy(library)


def answers(folder: Path) -> list[object]:
    """Everything that a search says, page by page."""
    with Library(folder) as library:
        found: list[object] = []
        for query in QUERIES:
            found.append(library.search(query, limit=1000).to_dict())
            found.extend(library.search(query, limit=3, offset=n).to_dict() for n in (0, 3, 50))
        found.extend(library.similar(clip, limit=1000).to_dict() for clip in live(library)[::17])
        return found


def live(library: Library) -> list[int]:
    return [
        int(clip)
        for part in library.snapshot().parts
        for row, clip in enumerate(part.block.clip_ids(np.arange(part.block.rows)))
        if part.is_live(row)
    ]


def files(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(suffix))


@pytest.fixture
def damaged(tmp_path: Path, small: None) -> Path:
    folder = tmp_path / "lib"
    make_library(folder, [1] * 90, codes_of(90, 13), vectors_of(90, 13))
    compact(folder)
    assert len(files(folder, ".seg")) == 2
    return folder
