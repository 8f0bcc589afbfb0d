"""How scores are combined, and why a hit was found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library_fixtures import make_library

from audiosearch.labels import load_labels
from audiosearch.library import compaction, segment_writer, tail, writer
from audiosearch.library.library import Library
from audiosearch.library.matching import EXCLUDE_SCORE
from audiosearch.library.rollup import LEAST_CODE, roll_up
from audiosearch.library.score_columns import current_columns


def index_of(name: str) -> int:
    return load_labels().by_name(name).index


def code_of(score: float) -> int:
    return round((math.log(score / (1 - score)) + 9) * 16)


def score_of(code: int) -> float:
    return 1 / (1 + math.exp(9 - code / 16))


def library_of(folder: Path, *clips: dict[str, float]) -> Library:
    codes = np.zeros((len(clips), 527), np.uint8)
    for row, scores in enumerate(clips):
        for name, score in scores.items():
            codes[row, index_of(name)] = code_of(score)
    return Library(make_library(folder / "lib", [1] * len(clips), codes))


# Noisy-or


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_a_group_is_wrong_only_where_all_its_classes_are(codes: list[int]) -> None:
    found = int(roll_up([np.array([code], np.uint8) for code in codes])[0])
    witnesses = [code for code in codes if code >= LEAST_CODE]
    if not witnesses:
        assert found == 0
        return
    doubt = math.prod(1 / (1 + math.exp(code / 16 - 9)) for code in witnesses)
    exact = (math.log((1 - doubt) / doubt) + 9) * 16 if doubt > 1e-12 else 1e9
    assert abs(found - min(exact, 255)) <= 0.51
    assert found >= max(witnesses)


@given(st.permutations(range(100, 250, 7)))
def test_a_group_does_not_depend_on_the_order_of_its_classes(codes: list[int]) -> None:
    ordered = [np.array([code], np.uint8) for code in sorted(codes)]
    assert roll_up([np.array([code], np.uint8) for code in codes]) == roll_up(ordered)


def test_several_kinds_that_are_unsure_make_a_surer_parent(tmp_path: Path) -> None:
    with library_of(
        tmp_path, {"Car": 0.5, "Truck": 0.5}, {"Bus": 0.6}, {"Car": 0.004, "Truck": 0.006}
    ) as library:
        found = library.search("vehicle")
    assert [hit.clip for hit in found.hits] == [0, 1]
    assert [hit.score for hit in found.hits] == pytest.approx([0.75, 0.6], abs=0.01)


def test_segments_of_an_earlier_version_are_rolled_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their groups hold the largest score; answers are those of noisy-or all the same."""
    draw = np.random.default_rng(2)
    codes = np.where(draw.random((90, 527)) < 0.03, draw.integers(70, 256, (90, 527)), 0)
    for module in (compaction, writer):
        monkeypatch.setattr(module, "SEAL_CLIPS", 40)
    folder = make_library(tmp_path / "lib", [1] * 90, codes.astype(np.uint8))
    with Library(folder) as library:
        expected = library.search("vehicle", limit=90).hits
    with monkeypatch.context() as earlier:
        earlier.setattr(segment_writer, "ROLLUP", "largest")
        earlier.setattr(segment_writer, "roll_up", np.maximum.reduce)
        earlier.setattr(tail, "roll_up", lambda columns: np.maximum.reduce(list(columns)))
        with Library(folder, writable=True) as library:
            compaction.seal(library)
    files = {path.name for path in folder.glob("*.seg")}
    assert len(files) == 2
    with Library(folder) as library:
        assert library.search("vehicle", limit=90).hits == expected
    with Library(folder, writable=True) as library:
        compaction.tidy(library)
        assert library.search("vehicle", limit=90).hits == expected
        blocks = [part.block for part in library.snapshot().parts]
        assert all(block.columns is current_columns() for block in blocks)
    assert not files & {path.name for path in folder.glob("*.seg")}


def test_or_is_the_noisy_or_of_what_matches(tmp_path: Path) -> None:
    with library_of(tmp_path, {"Cough": 0.5, "Sneeze": 0.4}, {"Cough": 0.6}) as library:
        hits = library.search('label:"Cough" OR label:"Sneeze"').hits
    assert [hit.score for hit in hits] == pytest.approx([0.7, 0.6], abs=0.01)
    assert hits[0].label == "Cough"


def test_not_leaves_out_what_is_heard_more_surely_than_not(tmp_path: Path) -> None:
    below, above = EXCLUDE_SCORE - 0.05, EXCLUDE_SCORE + 0.05
    with library_of(
        tmp_path,
        {"Car": 0.9, "Music": below},
        {"Car": 0.9, "Music": above},
        # Two instruments that are unsure are music together.
        {"Car": 0.9, "Guitar": below, "Piano": below},
    ) as library:
        assert [hit.clip for hit in library.search("car -music").hits] == [0]


# Explanations


def test_a_hit_says_why_it_was_found(tmp_path: Path) -> None:
    with library_of(
        tmp_path, {"Car": 0.93, "Vehicle": 0.97, "Bus": 0.1, "Truck": 0.31, "Music": 0.02}
    ) as library:
        (hit,) = library.search("vehicle -music").hits
    assert hit.explanation == "Vehicle 0.97, Car 0.93, Truck 0.31; not music 0.02"
    wanted, unwanted = hit.why
    assert (wanted.term, wanted.excluded) == ("vehicle", False)
    assert wanted.score == pytest.approx(hit.score)
    assert (unwanted.term, unwanted.excluded) == ("music", True)
    assert [tag.label for tag in unwanted.classes] == ["Music"]
    shown = hit.to_dict()["why"]
    assert json.loads(json.dumps(shown)) == shown
    assert shown[0]["classes"][1] == {"label": "Car", "mid": "/m/0k4j", "score": 0.9284}


def test_every_term_that_is_heard_is_explained_and_no_filter(tmp_path: Path) -> None:
    with library_of(tmp_path, {"Dog": 0.9, "Rain": 0.5}, {"Cat": 0.8, "Rain": 0.41}) as library:
        hits = library.search("(dog OR cat) rain path:wav duration:>1").hits
    assert [hit.explanation for hit in hits] == ["Dog 0.90; Rain 0.50", "Cat 0.80; Rain 0.41"]
    with library_of(tmp_path / "other", {"Dog": 0.9}) as library:
        assert library.search("path:wav").hits[0].why == []
        assert library.similar(0).hits == []


def test_the_scores_of_an_explanation_multiply_to_that_of_the_hit(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    codes = np.where(draw.random((200, 527)) < 0.1, draw.integers(83, 256, (200, 527)), 0)
    make_library(tmp_path / "lib", [1] * 200, codes.astype(np.uint8))
    with Library(tmp_path / "lib") as library:
        for hit in library.search("dog rain -speech", limit=200).hits:
            scores = [reason.score for reason in hit.why if not reason.excluded]
            assert math.prod(scores) == pytest.approx(hit.score, rel=1e-5)
            assert hit.why[-1].excluded
            assert hit.why[-1].score < EXCLUDE_SCORE


def test_the_least_hit_is_explained_too(tmp_path: Path) -> None:
    codes = np.zeros((1, 527), np.uint8)
    codes[0, index_of("Car")], codes[0, index_of("Bus")] = LEAST_CODE, LEAST_CODE - 1
    make_library(tmp_path / "lib", [1], codes)
    with Library(tmp_path / "lib") as library:
        assert [hit.explanation for hit in library.search("vehicle").hits] == ["Car 0.01"]
