"""Segments that are damaged or of a format of before are told, numbers that are none too."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_packed
from library_fixtures import make_library
from segment_fixtures import codes_of, damaged, files, small

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError, LibraryDamagedError
from audiosearch.library import writer
from audiosearch.library.library import Library
from audiosearch.library.segments import Segment

__all__ = ["damaged", "small"]


@pytest.mark.parametrize("what", ["scores", "vectors", "size", "frames"])
def test_numbers_that_are_none_are_not_stored(damaged: Path, what: str) -> None:
    scores, vectors = np.zeros((2, 527), np.float32), np.ones((2, 128), np.float32)
    frames = np.zeros((20, 128), np.uint8)
    if what == "scores":
        scores[1, 5] = np.nan
    elif what == "vectors":
        vectors[0, 0] = np.inf
    elif what == "size":
        vectors = vectors[:, :127]
    else:
        frames = frames[:19]
    before = {path.name: path.stat().st_size for path in damaged.iterdir()}
    with (
        Library(damaged, writable=True) as library,
        pytest.raises(InvalidArgumentError),
    ):
        writer.append_clips(
            library, [1, 1], scores, vectors, frame_counts=np.full(2, 10, np.uint8), frames=frames
        )
    assert {path.name: path.stat().st_size for path in damaged.iterdir()} == before


def test_a_library_of_the_format_before_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = make_library(tmp_path / "lib", [1], codes_of(1, 1))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(aus.AudioSearchError, match="index the sounds again"):
        Library(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# Damage


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: path.write_bytes(b"\0garbage" * 5000),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"postings"', b'"postinks"')),
    ],
)
def test_a_damaged_segment_is_told_at_once(damaged: Path, spoil: Callable[[Path], object]) -> None:
    path = damaged / files(damaged, ".seg")[0]
    spoil(path)
    with pytest.raises(LibraryDamagedError, match=rf"{path.name}.*index the sounds again"):
        Library(damaged)
    with pytest.raises(LibraryDamagedError):
        aus.index(write_packed(damaged.parent / "more.h5", clips=2), damaged, mix_embedders=True)


def test_a_segment_of_another_library_is_told(damaged: Path, tmp_path: Path) -> None:
    first, second = (damaged / name for name in files(damaged, ".seg"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(LibraryDamagedError, match="contradicts"):
        Library(damaged)


def test_a_flipped_bit_is_found_by_the_checksums(damaged: Path) -> None:
    path = damaged / files(damaged, ".seg")[0]
    assert Segment(path).check() == []
    data = bytearray(path.read_bytes())
    at = data.index(Segment(path).column(100).tobytes())
    data[at + 5] ^= 4
    path.write_bytes(data)
    assert Segment(path).check() == ["scores"]


def test_random_bytes_in_a_segment_never_show_a_traceback(damaged: Path) -> None:
    path = damaged / files(damaged, ".seg")[0]
    whole, draw, told = path.read_bytes(), random.Random(3), 0
    footer = whole.rindex(b'{"kind"')
    for _ in range(60):
        data = bytearray(whole)
        at = draw.randrange(footer, len(data))
        data[at] = draw.randrange(256)
        path.write_bytes(data)
        try:
            with Library(damaged) as library:
                library.search("music")
        except LibraryDamagedError:
            told += 1
    assert told > 50
