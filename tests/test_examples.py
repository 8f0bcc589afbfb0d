"""Search by example: parts, several examples, weights, what is not wanted, a query, refinement."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import write_packed
from hypothesis import given, settings
from hypothesis import strategies as st
from library_fixtures import likeness, make_library, write_sounds

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError, LibraryError, QueryError
from audiosearch.library.examples import Example
from audiosearch.library.library import Library
from audiosearch.library.likeness import SIZE, combined_probe, probe_of
from audiosearch.library.refinement import stretch


def sparse_codes(count: int, seed: int) -> np.ndarray:
    """Score codes of which a few classes of each clip are heard."""
    draw = np.random.default_rng(seed)
    codes = np.zeros((count, 527), np.uint8)
    for row in codes:
        row[draw.choice(60, 6, replace=False)] = draw.integers(70, 250, 6)
    return codes


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    return make_library(tmp_path / "lib", [1, 3, 2] * 20, sparse_codes(120, 3))


# Likeness


def test_likeness_is_what_its_definition_says(mixed: Path) -> None:
    with Library(mixed) as library:
        alike = likeness(library)
        for clip in (0, 17, 119):
            found = library.similar(clip, limit=200, grouped=False)
            assert (found.total_clips, len(found.hits)) == (119, 119)
            expected = [n for n in np.argsort(-alike[clip], kind="stable").tolist() if n != clip]
            scores = [hit.score for hit in found.hits]
            np.testing.assert_allclose(scores, np.maximum(alike[clip][expected], 0), atol=1e-5)
            assert [hit.clip for hit in found.hits][:20] == expected[:20]


def test_a_clip_is_fully_like_itself() -> None:
    draw = np.random.default_rng(1)
    scores = draw.random((1, 527)).astype(np.float32) ** 4
    frames = draw.integers(0, 256, (10, 128), dtype=np.uint8)
    probe = probe_of(scores, frames)
    assert probe.shape == (SIZE,)
    parts = np.linalg.norm(probe[:527]), np.linalg.norm(probe[527:])
    assert parts == pytest.approx((2 / 3, 1 / 3), abs=1e-6)
    # Where no class is heard the embedding decides alone.
    silent = probe_of(np.zeros((1, 527)), frames)
    assert not silent[:527].any()
    assert np.linalg.norm(silent[527:]) == pytest.approx(1, abs=1e-6)


# Several examples


def test_examples_are_averaged_by_their_weights(mixed: Path) -> None:
    with Library(mixed) as library:

        def order(examples: Any, **options: Any) -> list[int]:
            found = library.similar(examples, limit=200, grouped=False, **options)
            return [hit.clip for hit in found.hits]

        one, both = order(3), order([3, 50])
        assert set(both) == set(range(120)) - {3, 50}
        assert both != [clip for clip in one if clip != 50]
        assert order([Example(3, weight=2), Example(50, weight=2)]) == both
        assert order([Example(3, weight=1e6), 50])[:10] == [c for c in one if c != 50][:10]
        assert order((3,)) == one


def test_what_is_not_wanted_moves_down(mixed: Path) -> None:
    with Library(mixed) as library:
        alike = likeness(library)
        plain = library.similar(3, limit=200, grouped=False)
        nearest = plain.hits[0].clip
        found = library.similar(3, unlike=nearest, limit=200, grouped=False)
        # Neither example is among the hits, and what is like the second has lost.
        assert {3, nearest}.isdisjoint(hit.clip for hit in found.hits)
        expected = alike[3] - 0.75 * alike[nearest]
        order = [n for n in np.argsort(-expected, kind="stable").tolist() if n not in (3, nearest)]
        assert [hit.clip for hit in found.hits][:10] == order[:10]
        assert found.hits[0].score == pytest.approx(max(expected[order[0]], 0), abs=1e-5)
        assert all(0 <= hit.score <= 1 for hit in found.hits)


def test_hits_moments_and_clips_are_examples(mixed: Path) -> None:
    with Library(mixed) as library:
        hit = next(hit for hit in library.similar(0, limit=50).hits if hit.moments)
        for example, clip in ((hit, hit.clip), (hit.moments[0], hit.moments[0].clip)):
            assert library.similar(example).to_dict() == library.similar(clip).to_dict()
        assert library.similar(library.clip(7)).to_dict() == library.similar(7).to_dict()
        assert library.similar(np.int64(7)).to_dict() == library.similar(7).to_dict()


@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    against=st.lists(st.floats(1e-3, 1e3), max_size=3),
)
def test_a_combined_probe_never_exceeds_its_bounds(
    weights: list[float], against: list[float]
) -> None:
    draw = np.random.default_rng(len(weights) + 7 * len(against))

    def probe() -> np.ndarray:
        frames = draw.integers(0, 256, (3, 128), dtype=np.uint8)
        return probe_of(draw.random((1, 527)) ** 3, frames)

    wanted, unwanted = [(probe(), w) for w in weights], [(probe(), w) for w in against]
    combined = combined_probe(wanted, unwanted)
    assert np.isfinite(combined).all()
    limit = 1.0 if not unwanted else 1.75
    assert np.linalg.norm(combined[:527]) + np.linalg.norm(combined[527:]) <= limit + 1e-5
    scaled = combined_probe([(p, 2 * w) for p, w in wanted], [(p, 2 * w) for p, w in unwanted])
    np.testing.assert_allclose(scaled, combined, atol=1e-6)


def test_without_an_example_there_is_nothing_to_compare(mixed: Path) -> None:
    with Library(mixed) as library:
        with pytest.raises(InvalidArgumentError, match="at least one example"):
            library.similar([])
        with pytest.raises(LibraryError, match="no clip"):
            library.similar(1, unlike=10**9)
        with pytest.raises(InvalidArgumentError):
            library.similar(True)


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_weight_is_above_zero(weight: float) -> None:
    with pytest.raises(InvalidArgumentError, match="above 0"):
        Example(1, weight=weight)


# With a query


def test_a_query_narrows_and_the_example_orders(mixed: Path) -> None:
    with Library(mixed) as library:
        query = "music OR speech"
        matching = {hit.clip for hit in library.search(query, limit=500, grouped=False).hits}
        found = library.similar(4, query=query, limit=500, grouped=False)
        everything = library.similar(4, limit=500, grouped=False)
        assert 0 < len(matching) < 119
        assert found.query == query
        assert [hit.clip for hit in found.hits] == [
            hit.clip for hit in everything.hits if hit.clip in matching
        ]
        assert found.total_clips == len(matching - {4})
        grouped = library.similar(4, query=query, limit=500)
        assert grouped.total == len(grouped.hits) == len({hit.recording_id for hit in found.hits})
        path = library.similar(4, query="path:7.wav", limit=500)
        assert {hit.recording for hit in path.hits} == {
            f"/sounds/{n}.wav" for n in range(60) if str(n).endswith("7")
        }


def test_score_in_a_query_is_about_the_likeness(mixed: Path) -> None:
    with Library(mixed) as library:
        everything = library.similar(4, query="path:wav", limit=500, grouped=False)
        middle = round(everything.hits[30].score, 3)
        found = library.similar(4, query=f"path:wav score:>{middle}", limit=5, grouped=False)
        wanted = [hit for hit in everything.hits if hit.score > middle]
        assert found.total_clips == len(wanted)
        assert [hit.clip for hit in found.hits] == [hit.clip for hit in wanted[:5]]
        assert found.total == len({hit.recording_id for hit in wanted})


def test_a_query_may_do_nothing_but_leave_out(mixed: Path) -> None:
    with Library(mixed) as library:
        everything = library.similar(4, limit=500, grouped=False)
        music = {hit.clip for hit in library.search("music", limit=500, grouped=False).hits}
        found = library.similar(4, query="-music", limit=500, grouped=False)
        left = {hit.clip for hit in found.hits}
        assert left < set(range(120)) - {4}
        assert set(range(120)) - {4} - left <= music
        (least,) = {round(hit.score, 3) for hit in everything.hits[20:21]}
        near = library.similar(4, query=f"score:>{least}", limit=500, grouped=False)
        assert [h.clip for h in near.hits] == [
            hit.clip for hit in everything.hits if hit.score > least
        ]
        assert near.total_clips == len(near.hits) > 0


def test_a_query_that_cannot_be_understood_is_told(mixed: Path) -> None:
    with Library(mixed) as library, pytest.raises(QueryError):
        library.similar(4, query="(dog")


# Clips instead of recordings


@pytest.mark.parametrize("query", ["music", "music OR speech", "path:wav -music"])
def test_ungrouped_pages_hold_every_clip_once(mixed: Path, query: str) -> None:
    with Library(mixed) as library:
        grouped = library.search(query, limit=500)
        whole = library.search(query, limit=500, grouped=False)
        assert (whole.total, whole.total_clips) == (grouped.total, grouped.total_clips)
        assert whole.count == len(whole.hits) == whole.total_clips
        assert grouped.count == len(grouped.hits) == grouped.total
        clips = {hit.clip: hit.score for hit in grouped.hits}
        clips |= {m.clip: m.score for hit in grouped.hits for m in hit.moments}
        assert {hit.clip: hit.score for hit in whole.hits} == clips
        scores = [hit.score for hit in whole.hits]
        assert scores == sorted(scores, reverse=True)
        assert not any(hit.moments for hit in whole.hits)
        pages = [
            hit.clip
            for offset in range(0, whole.count + 7, 7)
            for hit in library.search(query, limit=7, offset=offset, grouped=False).hits
        ]
        assert pages == [hit.clip for hit in whole.hits]


# Parts


@pytest.fixture(scope="module")
def three_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of noise, tone and clicks, and a file ``both.wav`` of tone within noise."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "sounds").mkdir()
    draw = np.random.default_rng(2)
    time = np.arange(16_000 * 10) / 16_000
    tone = 0.4 * np.sin(2 * np.pi * 880 * time)
    noise = draw.normal(0, 0.2, len(time))
    clicks = np.zeros(len(time))
    clicks[::4000] = 0.9
    for name, sound in (("tone", tone), ("noise", noise), ("clicks", clicks)):
        soundfile.write(folder / "sounds" / f"{name}.wav", sound, 16_000)
    inside = (time >= 3.84) & (time < 6.72)
    soundfile.write(folder / "both.wav", np.where(inside, tone, noise), 16_000)
    aus.index(folder / "sounds", folder / "lib")
    return folder


def test_a_part_of_a_file_finds_what_it_holds(three_sounds: Path) -> None:
    with Library(three_sounds / "lib") as library:
        both = three_sounds / "both.wav"
        tone = library.similar(Example(both, start=3.84, end=6.72))
        noise = library.similar(Example(both, end=3.84))
        assert Path(tone.hits[0].recording).name == "tone.wav"
        assert Path(noise.hits[0].recording).name == "noise.wav"
        frames = aus.embed(both)
        again = library.similar(Example(frames, start=3.84, end=6.72))
        assert [hit.clip for hit in again.hits] == [hit.clip for hit in tone.hits]
        with pytest.raises(aus.AudioSearchError):
            library.similar(Example(both, start=100))


def test_the_match_says_where_in_the_hit_it_is(three_sounds: Path, tmp_path: Path) -> None:
    aus.index(three_sounds / "both.wav", tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        (hit,) = library.similar(three_sounds / "sounds" / "tone.wav").hits
        assert hit.match == aus.Span(3.84, 6.72)
        (clip,) = library.similar(np.full((3, 128), 128, np.uint8)).hits
        assert clip.match == aus.Span(clip.start, clip.end)


def test_a_part_of_a_clip_is_an_example(three_sounds: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    aus.index([three_sounds / "both.wav", three_sounds / "sounds"], folder)
    with Library(folder) as library:
        names = {
            Path(library.clip(number).recording).name: number
            for number in range(library.info().clips)
            if library.clip(number).start == 0
        }
        clip = names["both.wav"]
        found = library.similar(Example(clip, start=3.84, end=6.72))
        assert Path(found.hits[0].recording).name == "tone.wav"
        assert clip not in [hit.clip for hit in found.hits]
        for start, end in ((0, 11), (10.5, None), (12, 13)):
            with pytest.raises(InvalidArgumentError, match="runs from 0 to 10 s"):
                library.similar(Example(clip, start=start, end=end))


def test_a_part_leaves_the_other_clips_of_its_recording_to_be_found(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", 1, seconds=25)
    aus.index(tmp_path / "sounds", tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        for start, end, left in ((9.7, 12, [0, 2]), (9, 10, [2]), (0, 25, [])):
            found = library.similar(Example(0, start, end), grouped=False)
            assert sorted(hit.clip for hit in found.hits) == left
            assert found.total_clips == len(left)
            assert found.total == bool(left)


@pytest.mark.parametrize(
    ("start", "end"), [(-1, None), (3, 3), (4, 2), (math.nan, None), (0, math.inf), (None, 0)]
)
def test_a_part_must_have_a_length(start: float | None, end: float | None) -> None:
    with pytest.raises(InvalidArgumentError, match="ends after its beginning"):
        Example(1, start, end)


def test_rows_of_a_packed_file_are_refined_while_the_file_is_there(tmp_path: Path) -> None:
    packed = write_packed(tmp_path / "some.h5", clips=12)
    aus.index(packed, tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        clip = library.clip(1)
        part = Example(1, start=clip.start + 1, end=clip.start + 3)
        assert all(hit.match is not None for hit in library.similar(0).hits)
        assert library.similar(part).hits
        whole = library.similar(Example(1, start=clip.start, end=clip.end))
        np.testing.assert_allclose(
            [hit.score for hit in whole.hits],
            [hit.score for hit in library.similar(1).hits],
            atol=0.01,  # stored scores and vectors are rounded
        )
        packed.rename(tmp_path / "elsewhere.h5")
        assert all(hit.match is None for hit in library.similar(0).hits)
        with pytest.raises(LibraryError, match="not at hand"):
            library.similar(part)


# Refinement


@given(st.integers(0, 8), st.integers(1, 5), st.integers(0, 1000))
def test_the_stretch_is_the_inserted_one(start: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.integers(0, 256, (2, 128))
    stop = min(start + count, 9)
    frames = np.tile(other, (10, 1))
    frames[start:stop] = one
    noisy = np.clip(frames + draw.integers(-20, 21, frames.shape), 0, 255).astype(np.uint8)
    direction = (one - 128) / 128
    assert stretch(noisy, direction) == (start, stop)


def test_a_clip_that_is_alike_all_through_is_one_stretch() -> None:
    draw = np.random.default_rng(0)
    frames = np.clip(draw.integers(0, 256, 128) + draw.integers(-9, 10, (10, 128)), 0, 255)
    frames = frames.astype(np.uint8)
    assert stretch(frames, ((frames.astype(float) - 128) / 128).mean(axis=0)) == (0, 10)
    assert stretch(frames[:1], np.ones(128)) == (0, 1)
    assert stretch(np.full((4, 128), 128, np.uint8), np.ones(128)) == (0, 4)


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give an example"),
        (["a.wav", "b.wav", "--from", "1"], "--from and --to are for one example"),
        (["a.wav", "--clip", "3", "--to", "1"], "--from and --to are for one example"),
        (["a.wav", "--from", "5", "--to", "3"], "does not lie after"),
        (["a.wav", "--weight", "1", "--weight", "2"], "--weight is given 2 times for 1"),
        (["a.wav", "--weight", "0"], "0"),
        (["a.wav", "--from", "-1"], "-1"),
        (["--unlike", "a.wav"], "Give an example"),
    ],
)
def test_what_does_not_go_together_is_refused(
    invoke: Callable[..., Any], arguments: list[str], message: str
) -> None:
    done = invoke("similar", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not done.out


def test_the_command_asks_what_its_options_say(
    invoke: Callable[..., Any], three_sounds: Path
) -> None:
    both, clicks = three_sounds / "both.wav", three_sounds / "sounds" / "clicks.wav"
    library = three_sounds / "lib"
    done = invoke("similar", both, "--from", 3.84, "--to", 6.72, "--library", library, "--json")
    with Library(library) as opened:
        expected = opened.similar(Example(both, 3.84, 6.72)).to_dict()
        weighted = opened.similar(
            [Example(both), Example(clicks, weight=3.0)], unlike=three_sounds / "sounds/noise.wav"
        )
    assert json.loads(done.out) == expected
    done = invoke(
        *("similar", both, clicks, "--weight", 1, "--weight", 3, "--json", "--library", library),
        *("--unlike", three_sounds / "sounds" / "noise.wav"),
    )
    assert json.loads(done.out) == weighted.to_dict()
    text = invoke("similar", both, "--unlike", clicks, "--query", "path:wav", "--library", library)
    assert "both.wav, unlike " in text.out
    assert 'with "path:wav"' in text.out


def test_the_command_says_where_it_is_alike(
    invoke: Callable[..., Any], three_sounds: Path, tmp_path: Path
) -> None:
    aus.index(three_sounds / "both.wav", tmp_path / "lib")
    tone = three_sounds / "sounds" / "tone.wav"
    assert "alike at 0:03.8-0:06.7" in invoke("similar", tone, "--library", tmp_path / "lib").out


def test_a_long_recording_does_not_fill_the_page(tmp_path: Path) -> None:
    write_sounds(tmp_path / "sounds", 3, seconds=40)
    aus.index(tmp_path / "sounds", tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        found = library.similar(0, limit=3)
        assert len({hit.recording for hit in found.hits}) == 3
        clips = library.similar(0, limit=50, grouped=False).hits
        assert len(clips) == found.total_clips == sum(1 + len(hit.moments) for hit in found.hits)
