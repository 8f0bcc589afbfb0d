"""Copies stand once on a page, where a search asks for that; totals and pages stay right."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Outcome, write_packed
from library_fixtures import append, make_library, remove

import audiosearch as aus
from audiosearch.library import compaction
from audiosearch.library.compaction import tidy
from audiosearch.library.library import Library

QUERIES = ("car", "vehicle", "music OR dog", "speech -music", "dog cat OR (rain -wind)")


def codes_of(clips: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 70, (clips, 527))
    high = draw.random((clips, 527)) < 0.05
    codes[high] = draw.integers(83, 256, int(high.sum()))
    return codes.astype(np.uint8)


def unfolded(library: Library, query: str) -> list[dict[str, object]]:
    return [hit.to_dict() for hit in library.search(query, limit=10_000).hits]


@pytest.mark.parametrize("seed", range(3))
def test_folding_leaves_out_what_is_a_copy_of_something_before(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all hits, folded one by one; in segments, the tail and after removals."""
    monkeypatch.setattr(compaction, "SEAL_CLIPS", 40)
    draw = random.Random(seed)
    folder = make_library(tmp_path / "lib", [], np.zeros((0, 527), np.uint8))
    kinds = [
        (
            codes_of(count, 100 * seed + n),
            np.random.default_rng(n).integers(-127, 128, (count, 128)),
        )
        for n, count in enumerate([1, 1, 2, 2, 3, 1, 5, 1, 1, 2, 1, 1])
    ]
    kinds.append((kinds[2][0], kinds[3][1]))  # the scores of one, the vectors of another
    kinds.append((kinds[4][0][::-1], kinds[4][1][::-1]))  # the same clips in another order
    of: dict[str, int] = {}
    with Library(folder) as library:
        for step in range(4):
            chosen = [draw.randrange(len(kinds)) for _ in range(20)]
            for kind in chosen:
                of[f"/sounds/{len(of)}.wav"] = kind
            append(
                folder,
                [len(kinds[kind][0]) for kind in chosen],
                np.concatenate([kinds[kind][0] for kind in chosen]),
                np.concatenate([kinds[kind][1] for kind in chosen]),
            )
            if step == 2:
                remove(folder, *[f"{n}.wav" for n in draw.sample(range(len(of)), 15)])
            if step:
                with Library(folder, writable=True) as writer:
                    tidy(writer)
            for query in (*QUERIES, "car path:*3.wav", "path:1", "dog duration:>7"):
                expected: list[dict[str, object]] = []
                shown: dict[int, dict[str, object]] = {}
                clips = 0
                for hit in unfolded(library, query):
                    kind = of[str(hit["recording"])]
                    if kind in shown:
                        copies = shown[kind]["copies"]
                        assert isinstance(copies, list)
                        copies.append(hit["recording"])
                    else:
                        shown[kind] = hit
                        expected.append(hit)
                        moments = hit["moments"]
                        assert isinstance(moments, list)
                        clips += 1 + len(moments)
                result = library.search(query, limit=1000, fold=True)
                assert [hit.to_dict() for hit in result.hits] == expected
                assert (result.total, result.total_clips) == (len(expected), clips)
                pages = [
                    hit.to_dict()
                    for offset in range(0, len(expected) + 3, 3)
                    for hit in library.search(query, limit=3, offset=offset, fold=True).hits
                ]
                assert pages == expected
    assert any(hit["copies"] for hit in expected)


def test_copies_of_files_are_folded_and_named(
    tmp_path: Path, invoke: Callable[..., Outcome]
) -> None:
    sounds = tmp_path / "sounds"
    (sounds / "backup").mkdir(parents=True)
    draw = np.random.default_rng(3)
    for name in ("a", "b"):
        soundfile.write(sounds / f"{name}.wav", draw.normal(0, 0.1, 16000 * 12), 16000)
        shutil.copy(sounds / f"{name}.wav", sounds / "backup")
    soundfile.write(sounds / "c.wav", soundfile.read(sounds / "a.wav")[0], 16000, subtype="PCM_24")
    aus.index(sounds, tmp_path / "lib", workers=1)
    a, b, c = (str(sounds / f"{name}.wav") for name in "abc")
    with Library(tmp_path / "lib") as library:
        result = library.search("path:wav", fold=True)
        plain = library.search("path:wav")
    # The other format has another size, so it is no exact copy.
    copies = {hit.recording: hit.copies for hit in result.hits}
    assert copies == {
        c: [],
        a: [str(sounds / "backup" / "a.wav")],
        b: [str(sounds / "backup" / "b.wav")],
    }
    assert (result.total, plain.total) == (3, 5)
    assert not any(hit.copies for hit in plain.hits)
    found = invoke("search", "path:wav", "--library", tmp_path / "lib", "--fold", "--json")
    assert json.loads(found.out) == result.to_dict()
    text = invoke("search", "path:wav", "--library", tmp_path / "lib", "--fold").out
    assert text.startswith("3 recordings")
    assert f"1 copy: {sounds / 'backup' / 'a.wav'}" in text


def test_rows_of_two_packed_files_are_folded(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        write_packed(tmp_path / f"{name}.h5", seed=seed)
    aus.index([tmp_path / f"{name}.h5" for name in ("one", "two", "three")], tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        result = library.search("path:clip", limit=200, fold=True)
    assert result.total == len(result.hits) == 80
    assert sorted(len(hit.copies) for hit in result.hits) == 40 * [0] + 40 * [1]
    assert all(hit.copies in ([], [hit.recording]) for hit in result.hits)
