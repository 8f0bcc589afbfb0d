"""A page of a query with several terms is exact, though few of its clips are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library_fixtures import make_library, remove

from audiosearch.labels import load_labels
from audiosearch.library import compaction, contenders
from audiosearch.library.compaction import tidy
from audiosearch.library.filters import Filters
from audiosearch.library.library import Library
from audiosearch.library.ranking import all_matches, rank
from audiosearch.library.runs import Runs
from audiosearch.query import parse

QUERIES = (
    "speech music -singing",
    "dog (rain OR wind)",
    "vehicle speech -music",
    "music OR speech",
    "(dog OR music) (speech OR cat) -rain",
    "police -speech",  # a word with a weaker meaning
    "dog OR (path:sounds speech)",
    "music path:1",
    "-dog path:wav",
    "dog -path:2",
)


def codes_of(clips: int, seed: int) -> np.ndarray:
    """Return scores as they are: mostly low, some high, and many equal."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 90, (clips, 527))
    high = draw.random((clips, 527)) < 0.04
    codes[high] = draw.integers(8, 25, int(high.sum())) * 10
    return codes.astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library of segments and a tail, in which recordings of many lengths are gone."""
    folder = tmp_path_factory.mktemp("contenders") / "lib"
    lengths = [1, 1, 3, 1, 40, 2, 1, 1] * 40
    make_library(folder, lengths, codes_of(sum(lengths), 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SEAL_CLIPS", 700)
        with Library(folder, writable=True) as library:
            tidy(library)
    remove(folder, "7.wav", "12.wav", "100.wav", "319.wav")
    return folder


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("rare", [1, 10**6])  # by posting lists as far as there are, or never
def test_a_page_is_that_of_scoring_every_clip(
    folder: Path, query: str, grouped: bool, rare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contenders, "FEW", 10)
    monkeypatch.setattr(contenders, "_RARE", rare)
    with Library(folder) as library:
        now = library.snapshot()
        node = parse(query, vocabulary=library.vocabulary())
        masks = Filters(library.facts, now, library.labelled(now)[1])
        best: dict[int, float] = {}
        clips = 0
        for part, (rows, scores) in zip(
            now.parts, all_matches(node, now.parts, masks=masks), strict=True
        ):
            clips += len(rows)
            ids = part.block.recordings[rows] if grouped else part.block.clip_ids(rows)
            for number, score in zip(ids.tolist(), scores.tolist(), strict=True):
                best[number] = max(best.get(number, 0.0), score)
        expected = sorted(best, key=lambda number: (-best[number], number))
        for offset, limit in ((0, 5), (3, 50), (90, 20), (0, 5000), (len(expected), 5)):
            page = rank(node, now.parts, offset=offset, limit=limit, masks=masks, grouped=grouped)
            assert page.recordings.tolist() == expected[offset : offset + limit]
            assert page.total_clips == clips
            if grouped:
                assert page.total == len(expected)


def test_an_or_of_many_terms_that_are_nearly_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rounding decides, equal scores keep the order of the clips."""
    codes = np.zeros((3000, 527), np.uint8)
    codes[:, :10] = np.random.default_rng(2).integers(150, 256, (3000, 10))
    folder = make_library(tmp_path / "lib", [1] * 3000, codes)
    names = [label.name for label in list(load_labels())[:10]]
    query = " OR ".join(f'label:"{name}"' for name in names)
    with Library(folder) as library:
        whole = [hit.clip for hit in library.search(query, limit=200).hits]
        monkeypatch.setattr(contenders, "FEW", 10)
        assert [hit.clip for hit in library.search(query, limit=200).hits] == whole


def test_few_clips_are_scored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "FEW", 10)
    scored = []

    def counting(*arguments: object, **options: object) -> object:
        scored.append(len(arguments[2]))  # type: ignore[arg-type]
        return evaluate(*arguments, **options)  # type: ignore[arg-type]

    evaluate = contenders.evaluate
    monkeypatch.setattr(contenders, "evaluate", counting)
    with Library(folder) as library:
        found = library.search("speech (dog OR rain)", limit=5)
    assert found.total_clips > 300
    assert 5 <= sum(scored) < found.total_clips / 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 70), st.integers(0, 2**70))))
def test_runs_are_counted(runs: list[tuple[int, int]]) -> None:
    values = np.repeat(np.arange(len(runs)), [length for length, _ in runs]).astype(np.uint32)
    places = [(bits >> place) & 1 for length, bits in runs for place in range(length)]
    mask = np.array(places, np.bool_)
    assert Runs(values).count(mask) == len(set(values[mask].tolist()))
