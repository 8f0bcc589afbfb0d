"""Schemas of batch tagging's outputs: golden files, written by hand from docs/tagging.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiosearch.errors import InvalidArgumentError, JobError
from audiosearch.jobs import Entry, Item
from audiosearch.labels import load_labels
from audiosearch.tagging.events import Event, EventFinder, EventRules
from audiosearch.tagging.exports import EXPORTS
from audiosearch.tagging.formats import FORMATS, decode_rows, encode_rows, format_of
from audiosearch.tagging.rules import TagRules

DOG, SIREN, RACE = (
    load_labels().by_name(n).index for n in ("Dog", "Siren", "Race car, auto racing")
)


def entries() -> Iterator[Entry]:
    one = [(0.0, 9.6, [(DOG, 0.93214), (RACE, 0.5)]), (9.6, 12.0004, [])]
    yield Entry(Item("/s/a, b.wav"), 12.0, encode_rows(one))
    yield Entry(
        Item("/s/n/Büro 音.ogg"), 3.0, encode_rows([(0.0, 3.0, [(SIREN, 0.25), (DOG, 0.2)])])
    )


def written(kind: str) -> bytes:
    render = FORMATS[kind].render
    assert render is not None
    return FORMATS[kind].head + b"".join(map(render, entries()))


def test_csv() -> None:
    assert written("csv").decode() == (
        "path,start,end,rank,label,mid,score\n"
        '"/s/a, b.wav",0.0,9.6,1,Dog,/m/0bt9lr,0.9321\n'
        '"/s/a, b.wav",0.0,9.6,2,"Race car, auto racing",/m/0ltv,0.5\n'
        '"/s/a, b.wav",9.6,12.0,,,,\n'
        "/s/n/Büro 音.ogg,0.0,3.0,1,Siren,/m/03kmc9,0.25\n"
        "/s/n/Büro 音.ogg,0.0,3.0,2,Dog,/m/0bt9lr,0.2\n"
    )


def test_json_lines() -> None:
    assert written("jsonl").decode() == (
        '{"path": "/s/a, b.wav", "start": 0.0, "end": 9.6, "tags": [{"label": "Dog", "mid": '
        '"/m/0bt9lr", "score": 0.9321}, {"label": "Race car, auto racing", "mid": "/m/0ltv", '
        '"score": 0.5}]}\n'
        '{"path": "/s/a, b.wav", "start": 9.6, "end": 12.0, "tags": []}\n'
        '{"path": "/s/n/Büro 音.ogg", "start": 0.0, "end": 3.0, "tags": [{"label": "Siren", "mid": '
        '"/m/03kmc9", "score": 0.25}, {"label": "Dog", "mid": "/m/0bt9lr", "score": 0.2}]}\n'
    )


def test_a_name_that_is_no_text_in_json_and_csv() -> None:
    name = os.fsdecode(b"/s/kl\xe4nge.wav")
    entry = Entry(Item(name), 1.0, encode_rows([(0.0, 1.0, [(DOG, 0.5)])]))
    assert json.loads(FORMATS["jsonl"].render(entry))["path"] == name  # type: ignore[misc]
    assert b"kl\\udce4nge" in FORMATS["csv"].render(entry)  # type: ignore[misc]


def test_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    EXPORTS["parquet"](entries, tmp_path / "tags.parquet")
    table = pq.read_table(tmp_path / "tags.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("path", "string"),
        ("start", "double"),
        ("end", "double"),
        ("rank", "int16"),
        ("label", "string"),
        ("mid", "string"),
        ("score", "float"),
    ]
    assert table.schema.metadata[b"audiosearch.schema"] == b"tags/1"
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == ["Dog", "Race car, auto racing", None, "Siren", "Dog"]
    assert rows[2] == {"path": "/s/a, b.wav", "start": 9.6, "end": 12.0, "rank": None,
                       "label": None, "mid": None, "score": None}  # fmt: skip
    assert rows[0]["score"] == pytest.approx(0.9321)
    EXPORTS["parquet"](lambda: iter(()), tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").schema.equals(table.schema)


def test_raven(tmp_path: Path) -> None:
    EXPORTS["raven"](entries, tmp_path / "t.selections.txt")
    head = (
        "Selection View Channel Begin_Time_(s) End_Time_(s) Low_Freq_(Hz) High_Freq_(Hz) "
        "Begin_Path File_Offset_(s) Class Mid Score"
    )
    expected = [
        head.replace(" ", "\t").replace("_", " "),
        "1\tSpectrogram 1\t1\t0.000\t9.600\t125\t7500\t/s/a, b.wav\t0.000\tDog\t/m/0bt9lr\t0.9321",
        (
            "2\tSpectrogram 1\t1\t0.000\t9.600\t125\t7500\t/s/a, b.wav\t0.000"
            "\tRace car, auto racing\t/m/0ltv\t0.5000"
        ),
        (
            "3\tSpectrogram 1\t1\t12.000\t15.000\t125\t7500\t/s/n/Büro 音.ogg\t0.000\tSiren"
            "\t/m/03kmc9\t0.2500"
        ),
        (
            "4\tSpectrogram 1\t1\t12.000\t15.000\t125\t7500\t/s/n/Büro 音.ogg\t0.000\tDog"
            "\t/m/0bt9lr\t0.2000"
        ),
    ]
    found = (tmp_path / "t.selections.txt").read_text(encoding="utf-8")
    assert found == "\n".join(expected) + "\n"


def test_audacity(tmp_path: Path) -> None:
    out = tmp_path / "labels"
    EXPORTS["audacity"](entries, out)
    assert (out / "a, b.wav.txt").read_text() == (
        "0.000000\t9.600000\tDog 0.93\n0.000000\t9.600000\tRace car, auto racing 0.50\n"
    )
    assert (out / "n" / "Büro 音.ogg.txt").read_text() == (
        "0.000000\t3.000000\tSiren 0.25\n0.000000\t3.000000\tDog 0.20\n"
    )
    # What is no longer wanted goes, what is somebody else's stays.
    (out / "mine.txt").write_text("mine")
    EXPORTS["audacity"](lambda: iter([next(entries())]), out)
    assert sorted(path.name for path in out.rglob("*.*")) == [
        "a, b.wav.txt",
        "manifest.json",
        "mine.txt",
    ]
    with pytest.raises(JobError):
        EXPORTS["m3u"](entries, out)


def test_playlists(tmp_path: Path) -> None:
    out = tmp_path / "lists"
    EXPORTS["m3u"](entries, out)
    assert sorted(path.name for path in out.glob("*.m3u8")) == [
        "Dog.m3u8",
        "Race car, auto racing.m3u8",
        "Siren.m3u8",
    ]
    up = os.path.relpath("/s", out)
    assert (out / "Dog.m3u8").read_text(encoding="utf-8") == (
        "#EXTM3U\n"
        "#EXTINF:10,Dog 0.93, a, b.wav\n"
        "#EXTVLCOPT:start-time=0\n"
        "#EXTVLCOPT:stop-time=9.6\n"
        f"{up}/a, b.wav\n"
        "#EXTINF:3,Dog 0.20, Büro 音.ogg\n"
        f"{up}/n/Büro 音.ogg\n"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("A.CSV", "csv"), ("a.jsonl", "jsonl"), ("a.selections.txt", "raven")],
)
def test_the_format_follows_the_ending(name: str, kind: str) -> None:
    assert format_of(name).name == kind
    assert format_of(name, "m3u").name == "m3u"


@pytest.mark.parametrize("name", ["tags", "tags.xlsx", "tags.txt"])
def test_an_ending_that_says_nothing(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--format"):
        format_of(name)


def test_rows_come_back() -> None:
    rows = [(0.0, 1.25, [(3, 0.5)]), (1.25, 2.0, [])]
    assert decode_rows(encode_rows(rows)) == rows


# events


def events(scores: list[float], **rules: float) -> list[tuple[float, float, float]]:
    finder = EventFinder(EventRules(**({"median": 1} | rules)), 0.5, 1, 1.0)  # type: ignore[arg-type]
    for score in scores:
        finder.add(np.array([[score]], np.float32))
    found = finder.finish(float(len(scores)))
    return [(event.start, event.end, round(event.score, 3)) for event in found]


def test_an_event_begins_at_the_threshold_and_lasts_above_the_lower_one() -> None:
    scores = [0.4, 0.6, 0.4, 0.36, 0.3, 0.4]
    assert events(scores, merge_gap=0) == [(1.0, 4.0, 0.6)]
    assert events(scores, merge_gap=0, low=1) == [(1.0, 2.0, 0.6)]


def test_short_gaps_are_closed_before_short_events_go() -> None:
    scores = [0.9, 0, 0.8, 0, 0, 0, 0.7]
    assert events(scores, merge_gap=1, min_length=2) == [(0.0, 3.0, 0.9)]
    assert events(scores, merge_gap=0) == [(0.0, 1.0, 0.9), (2.0, 3.0, 0.8), (6.0, 7.0, 0.7)]
    assert events(scores, merge_gap=3) == [(0.0, 7.0, 0.9)]


@pytest.mark.parametrize("first", range(1, 12))
def test_an_event_as_long_as_the_shortest_stays(first: int) -> None:
    finder = EventFinder(EventRules(median=1, min_length=9.6), 0.5, 1, 0.96)
    finder.add(np.array([[0]] * first + [[1]] * 10 + [[0]], np.float32))
    assert len(finder.finish(100.0)) == 1


def test_the_median_takes_single_frames_out() -> None:
    assert events([0, 0.9, 0, 0, 0.9, 0.8, 0], median=3, merge_gap=0) == [(4.0, 6.0, 0.8)]
    # The frames at the ends stand for those beyond.
    assert events([0.9, 0, 0, 0, 0], median=3) == [(0.0, 1.0, 0.9)]
    assert events([0.9], median=5) == [(0.0, 1.0, 0.9)]


def slow_events(scores: np.ndarray, rules: EventRules, threshold: float) -> list[Event]:
    """The same, frame by frame and column by column, from the definition."""
    half, found = rules.median // 2, []
    padded = np.pad(scores, ((half, half), (0, 0)), mode="edge")
    for column in range(scores.shape[1]):
        smooth = [np.median(padded[i : i + rules.median, column]) for i in range(len(scores))]
        runs: list[list[float]] = []
        on = False
        for i, value in enumerate(smooth):
            on = value >= threshold or (on and value >= threshold * rules.low)
            if on and runs and i - runs[-1][1] <= rules.merge_gap:
                runs[-1] = [runs[-1][0], i + 1, max(runs[-1][2], value)]
            elif on:
                runs.append([i, i + 1, value])
        found += [Event(a, b, column, s) for a, b, s in runs if b - a >= rules.min_length]
    return sorted(found, key=lambda event: (event.start, event.column))


@settings(deadline=None)
@given(
    scores=st.lists(st.lists(st.integers(0, 10), min_size=2, max_size=2), min_size=1, max_size=40),
    low=st.sampled_from([0.5, 0.7, 1.0]),
    median=st.sampled_from([1, 3, 5]),
    min_length=st.integers(0, 3),
    merge_gap=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_events_are_those_of_the_definition_however_the_frames_come(
    scores: list[list[int]], low: float, median: int, min_length: int, merge_gap: int,
    cuts: list[int],
) -> None:  # fmt: skip
    values = np.array(scores, np.float64) / 10
    rules = EventRules(low, median, min_length, merge_gap)
    finder = EventFinder(rules, 0.6, 2, 1.0)
    for piece in np.split(values, sorted(min(cut, len(values)) for cut in cuts)):
        finder.add(piece)
    assert finder.finish(float(len(values))) == slow_events(values, rules, 0.6)


# rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"per": "minute"}, {"top": 0}, {"top": 528}, {"threshold": 1.5}, {"classes": ()},
        {"hop": 1.0}, {"hop": 0.0}, {"hop": 10.56}, {"hop": float("nan")},
    ],
)  # fmt: skip
def test_rules_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(InvalidArgumentError):
        TagRules(**wrong)


@pytest.mark.parametrize("wrong", [{"low": 0}, {"median": 2}, {"min_length": -1}])
def test_event_rules_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(InvalidArgumentError):
        EventRules(**wrong)


def test_the_fingerprint_knows_what_changes_results() -> None:
    base = TagRules().fingerprint("model")
    changes = [TagRules(top=4), TagRules(threshold=0.1), TagRules(hop=4.8), TagRules(per="clip")]
    prints = {rules.fingerprint("model") for rules in changes}
    assert len(prints | {base, TagRules().fingerprint("other")}) == 6
    assert TagRules(events=EventRules(median=5)).fingerprint("model") == base
