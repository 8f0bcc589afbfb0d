"""The index of vectors: its recall, its loss, its choice and its growth."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_packed
from library_fixtures import append, likeness, make_library
from segment_fixtures import add, codes_of, compact, damaged, files, small, vectors_of

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError
from audiosearch.library import index_building, neighbours
from audiosearch.library.corrected_block import stored_codes
from audiosearch.library.library import Library

__all__ = ["damaged", "small"]


# The index of vectors


def test_recall_is_measured_and_said(damaged: Path) -> None:
    (name,) = files(damaged, ".faiss")
    facts = json.loads((damaged / name).with_suffix(".json").read_text())
    assert facts["factory"].startswith("IVF")
    assert facts["nprobe"] >= 1
    assert facts["vectors"] == 90
    assert facts["recall_at_10"] >= 0.99
    with Library(damaged) as library:
        info = library.info()
        assert (info.vector_index, info.recall_at_10) == (facts["factory"], facts["recall_at_10"])
        # Counted here, by hand.
        alike = likeness(library)
        found = total = 0
        for clip in range(0, 90, 3):
            cosines = alike[clip].copy()
            cosines[clip] = -2
            least = np.sort(cosines)[-10]
            hits = library.similar(clip, limit=10).hits
            found += sum(cosines[hit.clip] >= least - 1e-6 for hit in hits)
            total += 10
    assert found / total >= 0.97


@pytest.mark.parametrize(
    "spoil",
    [
        lambda faiss, facts: faiss.unlink(),
        lambda faiss, facts: facts.unlink(),
        lambda faiss, facts: os.truncate(faiss, 1000),
        lambda faiss, facts: faiss.write_bytes(faiss.read_bytes()[:-300] + bytes(300)),
        lambda faiss, facts: facts.write_text("{"),
        lambda faiss, facts: facts.write_text("[]"),
    ],
)
def test_a_lost_or_broken_index_is_searched_without_and_made_again(
    damaged: Path, spoil: Callable[[Path, Path], object]
) -> None:
    with Library(damaged) as library:
        expected = library.similar(5, limit=90).to_dict()
    (name,) = files(damaged, ".faiss")
    spoil(damaged / name, (damaged / name).with_suffix(".json"))
    with Library(damaged) as library:
        assert library.similar(5, limit=90).to_dict() == expected
    compact(damaged)
    (made,) = files(damaged, ".faiss")
    assert made != name
    with Library(damaged) as library:
        assert library.info().recall_at_10 is not None
        assert library.similar(5, limit=90).to_dict() == expected


def test_very_many_clips_that_no_index_holds_are_found(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_MOST_IN_MEMORY", 20)
    with Library(damaged) as library:
        vectors = library.snapshot().parts[0].block.vectors[:1]
        codes = stored_codes(library.snapshot().parts[0].block, np.array([0]))
    append(damaged, [1] * 30, np.repeat(codes, 30, axis=0), np.repeat(vectors, 30, axis=0))
    with Library(damaged) as library:
        assert library.neighbours(library.snapshot()).facts is not None
        found = library.similar(0, limit=30)
    assert {hit.clip for hit in found.hits} == set(range(90, 120))
    assert min(hit.score for hit in found.hits) == pytest.approx(1.0)


def test_the_user_may_choose_the_index(damaged: Path, tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "few.h5", clips=3)
    aus.index(packed, damaged, mix_embedders=True, vector_index="HNSW16")
    with Library(damaged) as library:
        assert library.info().vector_index == "HNSW16"
        assert library.info().recall_at_10 >= 0.99
        assert library.similar(0, limit=5).hits
    aus.index(packed, damaged)  # kept
    with Library(damaged) as library:
        assert library.info().vector_index == "HNSW16"
    aus.index(packed, damaged, vector_index="auto")
    with Library(damaged) as library:
        assert library.info().vector_index.startswith("IVF")
    for wrong in ("nonsense", "IVFx,Flat", "", "PQ7"):
        with pytest.raises(InvalidArgumentError, match="Try: "):
            aus.index(packed, damaged, vector_index=wrong)


def test_an_index_that_cannot_be_trained_yet_leaves_the_search_exact(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "few.h5", clips=30)
    aus.index(packed, tmp_path / "lib", vector_index="PQ16")
    with Library(tmp_path / "lib") as library:
        assert library.info().vector_index == "Flat"
        assert library.similar(0, limit=30).total == 29


def test_an_index_is_extended_and_trained_again_when_outgrown(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    original = index_building._train
    monkeypatch.setattr(
        index_building,
        "_train",
        lambda index, basis, now: (trained.append(now.live_clips), original(index, basis, now)),
    )
    folder = tmp_path / "lib"
    make_library(folder, [1] * 80, codes_of(80, 14), vectors_of(80, 14))
    compact(folder)
    for step in range(5):
        add(folder, [1] * 80, 40 + step)
        compact(folder)
    assert trained == [80, 400]
    with Library(folder) as library:
        facts = library.neighbours(library.snapshot()).facts
        assert facts is not None
        assert facts.vectors == 480
        assert facts.recall_at_10 >= 0.99


def test_a_probe_must_be_one(damaged: Path) -> None:
    with Library(damaged) as library:
        search = library.neighbours(library.snapshot())
        for wrong in (
            np.zeros(654),
            np.zeros((1, 655)),
            np.full(655, np.nan),
            np.full(655, np.inf),
        ):
            with pytest.raises(InvalidArgumentError, match="655 finite values"):
                search.search(wrong, 3)
        with pytest.raises(InvalidArgumentError, match="at least 1"):
            search.search(np.zeros(655), 0)
