"""`audiosearch duplicates`: copies are found, by their bytes and by how they sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Outcome
from library_fixtures import append, make_library

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError
from audiosearch.library import duplicates
from audiosearch.library.columns import encode_vectors
from audiosearch.library.library import Library

Invoke = Callable[..., Outcome]


def random_library(folder: Path, clips: list[int], vectors: np.ndarray) -> Path:
    make_library(folder, [], np.zeros((0, 527), np.uint8))
    append(folder, clips, np.zeros((sum(clips), 527), np.uint8), encode_vectors(vectors))
    return folder


def test_copies_and_other_formats_are_found(tmp_path: Path, invoke: Invoke) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    draw = np.random.default_rng(3)
    times = np.arange(16000 * 12) / 16000
    chirp = 0.3 * np.sin(2 * np.pi * (200 + 150 * times) * times) * (times % 2 < 1)
    # Formats round alike only what needs no rounding.
    chirp = np.rint(32767 * chirp).astype(np.int16)
    soundfile.write(sounds / "a.wav", chirp, 16000)
    soundfile.write(sounds / "other.wav", draw.normal(0, 0.1, len(times)), 16000)
    shutil.copy(sounds / "a.wav", sounds / "b.wav")
    soundfile.write(sounds / "c.flac", chirp, 16000)
    aus.index(sounds, tmp_path / "lib", workers=1)
    a, b, c = (str(sounds / name) for name in ("a.wav", "b.wav", "c.flac"))
    exact, near = aus.duplicates(tmp_path / "lib")
    size = (sounds / "b.wav").stat().st_size
    assert exact.to_dict() == {
        "kind": "exact",
        "recordings": [a, b],
        "similarity": 1.0,
        "bytes": size,
        "clips": [0, 2],
    }
    assert (near.kind, near.recordings, near.similarity) == ("near", [a, c], 1.0)
    done = invoke("duplicates", "--library", tmp_path / "lib", "--exact", "--json")
    assert [group["recordings"] for group in json.loads(done.out)] == [[a, b]]
    done = invoke("duplicates", "--library", tmp_path / "lib")
    assert done.code == 0
    assert done.out.startswith("2 groups of duplicates")
    # A file of the same size and other bytes is no exact copy, and one that is gone is left out.
    (sounds / "b.wav").write_bytes((sounds / "a.wav").read_bytes()[:-1] + b"\x55")
    assert aus.duplicates(tmp_path / "lib", near=False) == []
    (sounds / "b.wav").unlink()
    assert aus.duplicates(tmp_path / "lib", near=False) == []


@pytest.mark.parametrize("many", [20_000, 100], ids=["each with each", "in cells"])
@pytest.mark.parametrize("similarity", [0.9, 0.99])
def test_near_ones_are_those_of_which_every_clip_is_near(
    tmp_path: Path, similarity: float, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a comparison of every pair, more of them than are looked at at once."""
    monkeypatch.setattr(duplicates, "_EACH_WITH_EACH", many)
    monkeypatch.setattr(duplicates, "_QUERIES", 70)
    draw = np.random.default_rng(8)
    clips = [1, 2, 3] * 220
    vectors = draw.normal(size=(sum(clips), 128))
    starts = np.concatenate(([0], np.cumsum(clips)))
    copies = {}
    for copy, original in ((600, 0), (3, 603), (400, 7), (8, 5), (650, 641)):
        assert clips[copy] == clips[original]
        here = slice(starts[copy], starts[copy + 1])
        vectors[here] = vectors[starts[original] : starts[original + 1]]
        vectors[here] += draw.normal(0, 0.15, vectors[here].shape)
        copies[copy] = original
    vectors[starts[650]] *= -1  # one of its clips is another sound
    folder = random_library(tmp_path / "lib", clips, vectors)
    unit = encode_vectors(vectors).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = []
    for one in range(len(clips)):
        for other in range(one):
            if clips[one] == clips[other]:
                pair = [unit[starts[n] : starts[n + 1]] for n in (one, other)]
                if (pair[0] * pair[1]).sum(axis=1).min() >= similarity:
                    expected.append((f"/sounds/{other}.wav", f"/sounds/{one}.wav"))
    found = aus.duplicates(folder, similarity=similarity)
    assert sorted(tuple(group.recordings) for group in found) == sorted(expected)
    assert (len(expected) == 4) == (similarity == 0.9)
    assert [group.bytes for group in found] == len(found) * [1]


def test_many_equal_recordings_are_one_group(tmp_path: Path) -> None:
    """As silence is; one without any direction is like nothing."""
    vectors = np.random.default_rng(2).normal(size=(3000, 128))
    vectors[100:2900] = vectors[0]
    vectors[5] = vectors[7] = 0
    folder = random_library(tmp_path / "lib", [1] * 3000, vectors)
    (group,) = aus.duplicates(folder)
    same = [0, *range(100, 2900)]
    assert group.recordings == [f"/sounds/{number}.wav" for number in same]
    assert group.similarity == 1.0


def test_lengths_of_near_ones_agree(tmp_path: Path) -> None:
    """A chain of lengths leads from each to the next, and none to one that is too far."""
    folder = random_library(tmp_path / "lib", [1] * 6, np.ones((6, 128)))
    with Library(folder, writable=True) as library, library.catalogue.transaction():
        for number, seconds in enumerate([3.0, 4.0, 3.4, 5.0, 3.8, 5.3], start=1):
            library.catalogue._db.execute(
                "UPDATE recordings SET duration = ? WHERE id = ?", seconds, number
            )
    groups = [[Path(name).stem for name in g.recordings] for g in aus.duplicates(folder)]
    assert groups == [["0", "1", "2", "4"], ["3", "5"]]


def test_files_of_one_size_and_beginning_are_compared_whole(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    samples = draw.normal(0, 0.1, 16000 * 8)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "a.wav", samples, 16000)
    soundfile.write(sounds / "b.wav", samples, 16000)
    samples[-1] = -samples[-1]
    soundfile.write(sounds / "c.wav", samples, 16000)
    aus.index(sounds, tmp_path / "lib", workers=1)
    (exact,) = aus.duplicates(tmp_path / "lib", near=False)
    assert [Path(name).name for name in exact.recordings] == ["a.wav", "b.wav"]


def test_a_similarity_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    folder = random_library(tmp_path / "lib", [1], np.ones((1, 128)))
    for similarity in (0, 1.1, float("nan")):
        with pytest.raises(InvalidArgumentError, match="similarity"):
            aus.duplicates(folder, similarity=similarity)
