"""What narrows a query, completes it, or puts its hits in another order; and scores over time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from library_fixtures import append, frame_scores, make_library, write_sounds

import audiosearch
from audiosearch.errors import InvalidArgumentError, LibraryError, QueryError
from audiosearch.labels import load_labels
from audiosearch.library import facets as facets_module
from audiosearch.library.library import Library

QUERIES = ("Dog", "vehicle", "dog OR cat", "speech -whistle", "Dog score:>0.2", "Whack, thwack",
           "dog rain", "path:sounds", "duration:>7", "puppy", '"police car"')  # fmt: skip


@pytest.fixture(scope="module")
def random_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """300 recordings of one to three clips with random scores, in two blocks."""
    random = np.random.default_rng(7)
    clips = random.integers(1, 4, 300).tolist()
    codes = random.integers(0, 200, (sum(clips), 527)).astype(np.uint8)
    codes[random.random(codes.shape) < 0.85] = 0
    codes[:, 0] = np.maximum(codes[:, 0], 1)
    codes[:, load_labels().by_name("Whack, thwack").index] = 90
    cut = sum(clips[:200])
    folder = make_library(tmp_path_factory.mktemp("facets") / "library", clips[:200], codes[:cut])
    append(folder, clips[200:], codes[cut:])
    with Library(folder) as library:
        yield library


@pytest.mark.parametrize("query", QUERIES)
def test_every_facet_counts_what_its_query_finds(random_library: Library, query: str) -> None:
    total = random_library.search(query, limit=0).total
    found = random_library.facets(query)
    assert not found.estimated
    groups = (found.scores, found.classes, found.folders, found.lengths, found.years)
    assert found.classes
    for facet in (facet for group in groups for facet in group):
        narrowed = random_library.search(facet.query, limit=0)
        assert narrowed.total == facet.count, facet
        assert 0 < facet.count <= total
    assert [each.count for each in found.classes] == sorted(
        (each.count for each in found.classes), reverse=True
    )


def test_facets_leave_out_what_is_asked_for_already(random_library: Library) -> None:
    assert "Dog" not in [each.text for each in random_library.facets("dog rain").classes]
    assert random_library.facets("dog").lengths
    assert random_library.facets("dog duration:>1").lengths == []
    with pytest.raises(QueryError):
        random_library.facets("dgo")


def test_scores_narrow_a_query_that_finds_weak_evidence_too(random_library: Library) -> None:
    total = random_library.search("vehicle", limit=0).total
    found = random_library.facets("vehicle").scores
    assert [each.text for each in found] == ["above 0.5", "above 0.1"]
    assert 0 < found[0].count < found[1].count < total
    surest = random_library.facets(found[0].query)
    assert surest.scores == [], "the query says it already"
    either = random_library.facets("vehicle OR rain").scores
    assert either[0].query == "(vehicle OR rain) score:>0.5"


def test_lengths_of_all_hits_add_up(random_library: Library) -> None:
    total = random_library.search("vehicle", limit=0).total
    assert sum(each.count for each in random_library.facets("vehicle").lengths) == total


def test_very_many_clips_are_counted_by_a_sample(
    random_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = {each.text: each.count for each in random_library.facets("vehicle ").classes}
    monkeypatch.setattr(facets_module, "FACET_CLIPS", 200)
    found = random_library.facets("vehicle  ")
    assert found.estimated
    for each in found.classes:
        if each.text in exact:
            assert each.count == pytest.approx(exact[each.text], rel=0.5)


def test_an_estimate_is_of_recordings_and_no_more_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = np.zeros((1000, 527), np.uint8)
    codes[:, [0, 74]] = 200  # Speech and another class
    folder = make_library(tmp_path / "lib", [100] * 10, codes)
    monkeypatch.setattr(facets_module, "FACET_CLIPS", 100)
    with Library(folder) as library:
        found = library.facets("speech")
    assert found.estimated
    assert [(each.text, each.count) for each in found.classes] == [(load_labels()[74].name, 10)]


def test_folded_copies_are_counted_once_whichever_is_asked_first(tmp_path: Path) -> None:
    codes = np.zeros((4, 527), np.uint8)
    codes[:3, [0, 74]] = 200
    codes[3, 0] = 180
    vectors = np.ones((4, 128), np.int8)
    for first in (True, False):
        folder = make_library(tmp_path / f"lib{first}", [1] * 4, codes, vectors)
        with Library(folder) as library:
            counts = {}
            for fold in (first, not first):
                (found,) = library.facets("speech", fold=fold).classes
                counts[fold] = found.count
        assert counts == {True: 1, False: 3}


def test_folders_that_differ_in_case_are_one_as_a_query_sees_them(tmp_path: Path) -> None:
    for name, count in (("Dog", 2), ("dog", 1), ("cat", 1)):
        write_sounds(tmp_path / "sounds" / name, count, seconds=1.0)
    audiosearch.index([tmp_path / "sounds"], tmp_path / "library")
    with Library(tmp_path / "library") as library:
        folders = library.facets("duration:>0").folders
        assert sorted(each.count for each in folders) == [1, 3]
        for each in folders:
            assert library.search(each.query).total == each.count


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Library]:
    """Real sounds in folders of their own, of three years."""
    sounds = tmp_path / "sounds"
    for name, count, year in (("dogs", 3, 2019), ("dogs/small", 1, 2021), ("cats [x]", 2, 2024)):
        write_sounds(sounds / name, count, seconds=12.0 if name == "dogs" else 1.0, seed=year)
        for file in (sounds / name).glob("*.wav"):
            time = (year - 1970) * 31_556_952 + 15_000_000
            os.utime(file, (time, time))
    audiosearch.index([sounds], tmp_path / "library")
    with Library(tmp_path / "library") as library:
        yield library


def test_folders_and_years_narrow(own: Library) -> None:
    found = own.facets("path:wav OR duration:>0")
    assert found.folders == []  # the query is about paths already
    found = own.facets("duration:>0")
    assert [(each.text, each.count) for each in found.folders] == [("dogs", 4), ("cats [x]", 2)]
    assert [(each.text, each.count) for each in found.years] == [
        ("2024", 2),
        ("2021", 1),
        ("2019", 3),
    ]
    for each in (*found.folders, *found.years):
        assert own.search(each.query).total == each.count
    (folder,) = [each for each in found.folders if each.text == "dogs"]
    below = own.facets(f"{folder.query} duration:>0")
    assert [(each.text, each.count) for each in below.years] == [("2021", 1), ("2019", 3)]


def test_year_is_a_field(own: Library) -> None:
    def names(query: str) -> set[str]:
        return {Path(hit.recording).parent.name for hit in own.search(query).hits}

    assert names("year:2019") == {"dogs"}
    assert names("year:2020..2024") == {"small", "cats [x]"}
    assert names("year:>=2024") == {"cats [x]"}
    assert names("-year:2019 duration:>0") == {"small", "cats [x]"}
    assert own.search("year:1999").total == 0
    with pytest.raises(QueryError, match="no range for year"):
        own.search("year:soon")


def test_year_of_packed_rows_is_unknown() -> None:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        assert library.search("Car year:>1900").total == 0
        assert library.facets("Car").years == []


def test_hits_in_other_orders(own: Library) -> None:
    def found(order: str, **options: object) -> list[Path]:
        result = own.search("duration:>0", order=order, **options)
        assert result.total == 6
        return [Path(hit.recording) for hit in result.hits]

    newest = found("newest")
    times = [path.stat().st_mtime for path in newest]
    assert times == sorted(times, reverse=True)
    assert found("path") == sorted(newest, key=lambda path: str(path).casefold())
    seconds = [12.0 if path.parent.name == "dogs" else 1.0 for path in found("longest")]
    assert seconds == [12.0] * 3 + [1.0] * 3
    assert [path.parent.name for path in found("shortest")][:3].count("dogs") == 0
    # Pages are parts of one list, and clips stand in the order of their recordings.
    pages = [found("path", offset=start, limit=2) for start in range(0, 6, 2)]
    assert [path for page in pages for path in page] == found("path")
    clips = own.search("duration:>0", order="longest", grouped=False)
    assert [hit.clip for hit in clips.hits][:6] == sorted(hit.clip for hit in clips.hits[:6])
    assert clips.total_clips == 9
    with pytest.raises(InvalidArgumentError, match="newest"):
        own.search("duration:>0", order="loudest")


def test_order_keeps_to_a_range_of_scores(random_library: Library) -> None:
    by_score = random_library.search("dog score:>0.3", limit=1000)
    by_path = random_library.search("dog score:>0.3", limit=1000, order="path")
    assert by_path.total == by_score.total > 0
    assert {hit.recording for hit in by_path.hits} == {hit.recording for hit in by_score.hits}
    assert [hit.recording for hit in by_path.hits] == sorted(hit.recording for hit in by_path.hits)


# --- Completion -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Iterator[Library]:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        yield library


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("ca", "Car"),
        ("CAR", "Car"),
        ("dog bar", '"dog bark"'),
        ("police c", '"Police car (siren)"'),
        ("rain do", "rain Dog"),
        ("car -mus", "car -Music"),
        ("(rain OR thunde", "(rain OR Thunder"),
        ("dog NOT mus", "dog NOT Music"),
        ('"police c', '"Police car (siren)"'),
        ('"police car" mus', '"police car" Music'),
        ("path:holiday do", "path:holiday Dog"),
        ("pupp", "puppy"),
        ("perr", "perro"),
    ],
)
def test_last_words_are_completed(shipped: Library, typed: str, first: str) -> None:
    found = shipped.complete(typed)
    assert found
    assert found[0].query == first or first in [each.query for each in found]
    for each in found:
        if not typed.count("("):
            shipped.search(each.query, limit=0)  # understood


def test_completion_counts_what_it_finds_alone(shipped: Library) -> None:
    for typed in ("dog", "roc", "chien", "veh"):
        for each in shipped.complete(typed):
            alone = each.query
            assert shipped.search(alone, limit=0).total == each.count


@pytest.mark.parametrize(
    "typed", ["", " ", "path:ho", "duration:", "label:Ca", 'label:"Ca', "qqqq"]
)
def test_nothing_is_completed_where_nothing_can_be(shipped: Library, typed: str) -> None:
    assert shipped.complete(typed) == []


def test_completions_are_few_and_each_means_something_else(shipped: Library) -> None:
    found = shipped.complete("dog", limit=5)
    assert len(found) == 5
    assert found[0].text == "Dog"
    assert "dogs" not in [each.text for each in found]
    # Accents tell words apart, and what finds nothing comes last.
    found = shipped.complete("ra")
    assert found[0].text.startswith("Ra")
    assert [each.count > 0 for each in found] == sorted(each.count > 0 for each in found)[::-1]
    with pytest.raises(InvalidArgumentError):
        shipped.complete("dog", limit=0)


# --- Scores over time -------------------------------------------------------------------------


def test_timeline_scores_each_frame_by_itself(own: Library) -> None:
    hit = own.search("duration:>10", limit=1).hits[0]
    (before, after) = own.beside(hit.clip)
    clips = sorted([hit.clip, *(each.clip for each in (*before, *after))])
    frames = np.concatenate([own.frames(clip) for clip in clips])
    timeline = own.timeline(hit.clip, top=527)
    assert (timeline.start, timeline.step) == (0.0, 0.96)
    assert timeline.end == pytest.approx(12.0, abs=0.5)
    x = np.zeros((len(frames), 10, 128), np.uint8)
    x[:, 0] = frames
    expected = frame_scores(x, np.ones(len(frames), int))
    columns = [load_labels().by_name(curve.label).index for curve in timeline.curves]
    shown = np.array([curve.scores for curve in timeline.curves]).T
    np.testing.assert_allclose(shown, expected[:, columns], atol=1e-6)
    few = own.timeline(hit.clip, top=3)
    assert [curve.label for curve in few.curves] == [c.label for c in timeline.curves[:3]]


def test_part_of_a_timeline_is_a_part(own: Library) -> None:
    hit = own.search("duration:>10", limit=1).hits[0]
    whole, part = own.timeline(hit.clip, top=527), own.timeline(hit.clip, start=8, end=11, top=527)
    assert part.start == pytest.approx(8 * 0.96)
    scores = {curve.label: curve.scores for curve in whole.curves}
    for curve in part.curves:
        assert curve.scores == pytest.approx(scores[curve.label][8:12], abs=1e-6)
    for start, end in ((-1, 3), (5, 5), (5, 99), (50, 60)):
        with pytest.raises(InvalidArgumentError, match="does not lie"):
            own.timeline(hit.clip, start=start, end=end)
    with pytest.raises(InvalidArgumentError, match="top"):
        own.timeline(hit.clip, top=0)
    with pytest.raises(LibraryError):
        own.timeline(10**6)


def test_timeline_without_frames_is_empty(shipped: Library) -> None:
    timeline = shipped.timeline(5)
    assert timeline.curves == []
    assert timeline.to_dict()["curves"] == []


def test_outline_has_the_stored_scores(random_library: Library) -> None:
    hit = next(h for h in random_library.search("path:wav", limit=50).hits if len(h.moments) == 2)
    clips = sorted([hit.clip, *(moment.clip for moment in hit.moments)])
    outline = random_library.outline(hit.clip, top=5)
    assert outline.step == pytest.approx(9.6)
    assert len(outline.curves) == 5
    for curve in outline.curves:
        stored = [
            next(t.score for t in random_library.clip(c, top=527).tags if t.label == curve.label)
            for c in clips
        ]
        assert curve.scores == pytest.approx(stored, abs=1e-6)
    short = random_library.outline(hit.clip, top=5, most=1)
    assert short.step == pytest.approx(28.8)
    assert short.curves[0].scores == [max(outline.curves[0].scores)]


def test_clips_beside_one_are_of_its_recording(random_library: Library) -> None:
    for clip in range(40):
        recording = random_library.clip(clip)
        before, after = random_library.beside(clip, count=1)
        for other, step in ((before, -1), (after, 1)):
            expected = clip + step
            mine = expected >= 0 and random_library.clip(expected).recording_id
            assert [each.clip for each in other] == (
                [expected] if mine == recording.recording_id else []
            )
    with pytest.raises(InvalidArgumentError):
        random_library.beside(0, count=-1)
