"""``audiosearch evaluate --search``: how good the order of hits is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Outcome, write_packed

import audiosearch as aus
from audiosearch.errors import DataError
from audiosearch.labels import load_labels
from audiosearch.library import search_evaluation
from audiosearch.library.columns import encode_scores
from audiosearch.library.search_evaluation import SearchMeasure, measure, measures_of

Invoke = Callable[..., Outcome]


def index_of(name: str) -> int:
    return load_labels().by_name(name).index


def by_kind(rows: list[SearchMeasure]) -> dict[tuple[str, str], SearchMeasure]:
    return {(row.kind, row.method): row for row in rows}


def test_the_measures_of_a_list_computed_by_hand() -> None:
    relevant = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1], bool)
    precision, at_10, gain = measures_of(relevant, 4)  # one more was not returned
    assert precision == pytest.approx((1 + 2 / 3 + 3 / 12) / 4)
    assert at_10 == pytest.approx(0.2)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)
    assert gain == pytest.approx((1 + 1 / math.log2(4)) / ideal)
    assert measures_of(np.ones(3, bool), 3) == pytest.approx((1, 0.3, 1))
    assert measures_of(np.zeros(0, bool), 7) == (0, 0, 0)
    assert measures_of(np.ones(30, bool), 30) == pytest.approx((1, 1, 1))


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Scores of 60 clips; clips 0 to 9 are cars, labelled so, and 10 to 19 trucks."""
    raw = np.random.default_rng(3).uniform(0.001, 0.01, (60, 527)).astype(np.float32)
    truth = np.zeros((60, 527), bool)
    raw[:10, index_of("Car")], raw[10:20, index_of("Truck")] = 0.9, 0.8
    truth[:10, index_of("Car")], truth[10:20, index_of("Truck")] = True, True
    return raw, truth


def test_a_bare_name_counts_what_is_labelled_with_a_kind_of_it(
    scored: tuple[np.ndarray, np.ndarray],
) -> None:
    raw, truth = scored
    found = measure(raw, encode_scores(raw), truth)
    assert (found.clips, found.classes) == (60, 2)
    exact, closed = by_kind(found.exact), by_kind(found.closed)
    # Car and Truck.
    assert exact["class", "search"].queries == 2
    for method in ("search", "all", "top5"):
        assert exact["class", method].precision_at_10 == 1
    # Car, Truck, and the classes above them; their own scores say nothing.
    parents = closed["parent", "search"]
    assert parents.queries > 2
    assert closed["class", "search"].queries == parents.queries
    assert (parents.average_precision, parents.ndcg_at_10) == pytest.approx((1, 1))
    assert closed["parent", "all"].precision_at_10 < 0.8


def test_pairs_are_classes_that_occur_together_and_are_not_of_one_kind(
    scored: tuple[np.ndarray, np.ndarray],
) -> None:
    raw, truth = scored
    for name in ("Vehicle", "Rain"):
        truth[:10, index_of(name)] = True
        raw[:10, index_of(name)] = 0.7
    found = by_kind(measure(raw, encode_scores(raw), truth).exact)
    # Car and Rain, Vehicle and Rain; but not Car and Vehicle.
    assert found["and", "search"].queries == 2
    for method in ("search", "all", "top5"):
        row = found["and", method]
        assert (row.average_precision, row.ndcg_at_10) == pytest.approx((1, 1))
    # It rains on every car, so nothing is left to find.
    assert ("and not", "search") not in found


def test_clips_outside_the_best_five_are_lost_to_ibms_method(
    scored: tuple[np.ndarray, np.ndarray],
) -> None:
    raw, truth = scored
    raw[:5, :6] = 0.95  # six classes before the car
    found = by_kind(measure(raw, encode_scores(raw), truth).exact)
    assert found["class", "top5"].average_precision == pytest.approx(0.75)
    assert found["class", "search"].average_precision == pytest.approx(1)


def test_the_same_pairs_are_drawn_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    truth = draw.random((300, 527)) < 0.2
    below = [(index, *load_labels().descendants(index)) for index in range(527)]
    one, two = (search_evaluation._pairs(truth, below) for _ in range(2))
    assert one == two
    assert len(one) == len(set(one)) == 200
    for first, second in one:
        assert not set(below[first]) & set(below[second])


def test_the_command_prints_both_tables(tmp_path: Path, invoke: Invoke) -> None:
    path = write_packed(tmp_path / "clips.h5", clips=40)
    done = invoke("evaluate", path, "--search")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("40 clips, ")
    assert sum("nDCG@10" in line for line in lines) == 2
    assert sum("by score, all clips" in line for line in lines) >= 2
    shown = json.loads(invoke("evaluate", path, "--search", "--json").out)
    assert shown == json.loads(json.dumps(aus.evaluate_search(path).to_dict()))
    assert {row["method"] for row in shown["exact"]} == {"search", "all", "top5"}


@pytest.mark.parametrize("option", [["--intervals", "5"], ["--per-class", "a.csv"]])
def test_search_goes_with_no_other_measure(
    tmp_path: Path, invoke: Invoke, option: list[str]
) -> None:
    path = write_packed(tmp_path / "clips.h5", clips=4)
    done = invoke("evaluate", path, "--search", *option)
    assert done.code == 2
    assert "--search goes with --json only" in done.err


def test_a_file_without_a_label_is_refused(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "clips.h5", clips=4)
    with h5py.File(path, "r+") as file:
        file["y"][:] = False
    with pytest.raises(DataError, match="no clip has a label"):
        aus.evaluate_search(path)


@pytest.mark.data
def test_the_search_is_better_than_what_stands_beside_it(data_dir: Path) -> None:
    """The bars that ranking is held to; the evaluation half only reports."""
    found = aus.evaluate_search(data_dir / "audioset" / "eval.h5")
    exact, closed = by_kind(found.exact), by_kind(found.closed)
    assert exact["class", "search"].ndcg_at_10 >= 1.05 * exact["class", "all"].ndcg_at_10
    for measure_name in ("average_precision", "precision_at_10", "ndcg_at_10"):
        for other in ("all", "top5"):
            ours = getattr(closed["class", "search"], measure_name)
            assert ours > getattr(closed["class", other], measure_name)
    assert (
        closed["parent", "search"].precision_at_10 >= closed["parent", "all"].precision_at_10 + 0.08
    )
