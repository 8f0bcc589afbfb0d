"""Search of a library: score codes, queries, pages, and search by example."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library_fixtures import index_of, make_library, random_codes, remove

import audiosearch as aus
from audiosearch.errors import AudioNotFoundError, InvalidArgumentError, LibraryError
from audiosearch.labels import load_labels
from audiosearch.library.columns import (
    decode_scores,
    encode_scores,
    encode_vectors,
    score_codes,
    search_vector,
)
from audiosearch.library.library import Library
from audiosearch.library.matching import EXCLUDE_SCORE, MATCH_SCORE
from audiosearch.library.ranking import first_of_each


def code(score: float) -> int:
    return int(encode_scores(np.array([score]))[0])


def logit(score: float) -> float:
    return math.log(score / (1 - score))


# score codes


@given(st.floats(0.0002, 0.998))
def test_a_score_survives_its_code_to_a_32nd_of_a_logit(score: float) -> None:
    decoded = float(decode_scores(encode_scores(np.array([score])))[0])
    assert abs(logit(decoded) - logit(score)) <= 1 / 32 + 1e-4


def test_codes_mean_logits_in_steps_of_a_16th_from_minus_nine() -> None:
    expected = [1 / (1 + math.exp(9 - number / 16)) for number in range(256)]
    np.testing.assert_allclose(score_codes(), expected, rtol=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2))
def test_a_larger_score_never_has_a_smaller_code(scores: list[float]) -> None:
    codes = encode_scores(np.array(sorted(scores)))
    assert (np.diff(codes.astype(int)) >= 0).all()


def test_scores_that_no_code_reaches_take_the_nearest() -> None:
    assert encode_scores(np.array([0.0, 1e-12, 1.0])).tolist() == [0, 0, 255]


def test_search_vectors_are_directions() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 128), dtype=np.uint8)
    mean = [(sum(int(frame[d]) for frame in frames) / 7 - 128) / 128 for d in range(128)]
    length = math.sqrt(sum(value * value for value in mean))
    np.testing.assert_allclose(search_vector(frames), np.array(mean) / length, atol=1e-6)
    coded = encode_vectors(search_vector(frames)[None])[0].astype(float)
    cosine = coded @ mean / np.linalg.norm(coded) / length
    assert cosine > 0.9999


def test_the_search_vector_of_nothing_is_nothing() -> None:
    assert not encode_vectors(search_vector(np.full((3, 128), 128, np.uint8))[None]).any()


# keyword search


def test_search_gives_one_hit_a_recording_with_its_other_clips_as_moments(tmp_path: Path) -> None:
    car, bus = index_of("Car"), index_of("Car alarm")
    codes = np.zeros((6, 527), np.uint8)
    codes[0, car], codes[1, car], codes[2, bus] = code(0.5), code(0.9), code(0.7)
    codes[3, car] = code(0.8)  # the second recording
    codes[5, car] = code(0.005)  # the third: below what counts
    make_library(tmp_path / "lib", [3, 2, 1], codes)
    with aus.open_library(tmp_path / "lib") as library:
        found = library.search("Car")
    assert (found.total, found.total_clips) == (2, 4)
    first, second = found.hits
    assert (first.recording, first.clip, first.label) == ("/sounds/0.wav", 1, "Car")
    assert (first.start, first.end) == (9.6, 19.2)
    assert first.score == pytest.approx(0.9, abs=0.01)
    assert [(m.clip, m.label) for m in first.moments] == [(2, "Car alarm"), (0, "Car")]
    # The last clip of a recording ends where the recording ends: 3 * 9.6 - 3 s.
    assert (first.moments[0].start, first.moments[0].end) == pytest.approx((19.2, 25.8))
    assert (second.recording, second.clip, second.moments) == ("/sounds/1.wav", 3, [])
    assert first.tags[0].label == "Car"
    assert first.tags[0].mid == "/m/0k4j"
    assert len(first.tags) == 5


def test_equal_scores_keep_the_order_of_the_clips(tmp_path: Path) -> None:
    codes = np.zeros((30, 527), np.uint8)
    codes[:, index_of("Dog")] = 200
    make_library(tmp_path / "lib", [1] * 30, codes)
    with Library(tmp_path / "lib") as library:
        assert [hit.clip for hit in library.search("Dog", limit=30).hits] == list(range(30))


@pytest.mark.parametrize("query", ["speech", "dog OR rain", "music -guitar"])
def test_pages_make_the_whole(tmp_path: Path, query: str) -> None:
    clips = [3, 1, 2, 5, 1, 1, 4, 3] * 8
    make_library(tmp_path / "lib", clips, random_codes(sum(clips), seed=3, share=0.05))
    with Library(tmp_path / "lib") as library:
        whole = library.search(query, limit=10_000)
        pages = [library.search(query, limit=7, offset=start) for start in range(0, 70, 7)]
        beyond = library.search(query, limit=7, offset=10_000)
    assert len(whole.hits) == whole.total > 20
    assert [hit for page in pages for hit in page.hits] == whole.hits
    for page in [*pages, beyond]:
        assert (page.total, page.total_clips) == (whole.total, whole.total_clips)
    assert whole.total_clips == sum(1 + len(hit.moments) for hit in whole.hits)
    assert beyond.hits == []


# An independent reading of the query language: for each clip (match, score) of nested tuples.
def expected_match(
    query: object, scores: dict[int, float], least: float = MATCH_SCORE
) -> tuple[bool, float]:
    if isinstance(query, str):
        # Classes that score less than a match needs are no witnesses.
        own = [scores[number] for number in load_labels().resolve(query)]
        score = 1 - math.prod(1 - value for value in own if value >= MATCH_SCORE * 0.97)
        return score >= least * 0.97, score
    kind, *parts = query  # type: ignore[misc]
    if kind == "not":
        return not expected_match(parts[0], scores, EXCLUDE_SCORE)[0], 1.0
    results = [expected_match(part, scores, least) for part in parts]
    if kind == "and":
        return all(found for found, _ in results), math.prod(score for _, score in results)
    return any(found for found, _ in results), 1 - math.prod(
        1 - score for found, score in results if found
    )


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("dog", "dog"),
        ("speech music", ("and", "speech", "music")),
        ("speech AND music", ("and", "speech", "music")),
        ("dog OR rain", ("or", "dog", "rain")),
        ("speech -dog", ("and", "speech", ("not", "dog"))),
        ("speech NOT (rain OR dog)", ("and", "speech", ("not", ("or", "rain", "dog")))),
        ("(dog OR cat) (rain OR wind)", ("and", ("or", "dog", "cat"), ("or", "rain", "wind"))),
        ("dog rain OR cat wind", ("or", ("and", "dog", "rain"), ("and", "cat", "wind"))),
        ("vehicle -(car rain)", ("and", "vehicle", ("not", ("and", "car", "rain")))),
        ("dog -(rain -wind)", ("and", "dog", ("not", ("and", "rain", ("not", "wind"))))),
    ],
)
def test_and_or_and_not_mean_what_they_say(tmp_path: Path, text: str, query: object) -> None:
    codes = random_codes(400, seed=11, share=0.06)
    make_library(tmp_path / "lib", [1] * 400, codes)
    with Library(tmp_path / "lib") as library:
        found = library.search(text, limit=400)
    expected = {}
    for clip in range(400):
        scores = {i: 1 / (1 + math.exp(9 - int(codes[clip, i]) / 16)) for i in range(527)}
        matches, score = expected_match(query, scores)
        if matches:
            expected[clip] = score
    assert expected
    got = {hit.clip: hit.score for hit in found.hits}
    assert set(got) == set(expected)
    for clip, score in expected.items():
        # A stored score of several classes is exact to 1/32 of its logit, and ends at 0.999.
        assert got[clip] == pytest.approx(score, rel=0.04, abs=0.001)
    assert [hit.score for hit in found.hits] == sorted(got.values(), reverse=True)


def test_the_label_of_a_hit_is_the_class_that_matched_best(tmp_path: Path) -> None:
    codes = np.zeros((3, 527), np.uint8)
    codes[0, index_of("Bus")] = 250
    codes[1, index_of("Bus")], codes[1, index_of("Vehicle")] = 150, 150
    codes[2, index_of("Dog")], codes[2, index_of("Bus")] = 200, 140
    make_library(tmp_path / "lib", [1, 1, 1], codes)
    with Library(tmp_path / "lib") as library:
        assert [hit.label for hit in library.search("vehicle").hits] == ["Bus", "Vehicle", "Bus"]
        assert library.search("-dog vehicle").hits[0].label == "Bus"
        assert library.search("bus OR dog").hits[1].label == "Dog"


@pytest.mark.parametrize(("limit", "offset"), [(-1, 0), (5, -1)])
def test_negative_pages_are_refused(library_folder: Path, limit: int, offset: int) -> None:
    with Library(library_folder) as library:
        with pytest.raises(InvalidArgumentError):
            library.search("car", limit=limit, offset=offset)
        with pytest.raises(InvalidArgumentError):
            library.similar(0, limit=limit, offset=offset)


def test_a_page_of_nothing_still_counts(library_folder: Path) -> None:
    with Library(library_folder) as library:
        assert library.search("speech", limit=0).total == library.search("speech").total > 0
        assert library.search("speech", limit=0).hits == []
        assert library.similar(0, limit=0).hits == []


@pytest.mark.parametrize("offset", [40, 10**9, 10**30])
@pytest.mark.parametrize("query", ["speech", "speech OR music", "path:clip", "speech path:clip"])
def test_an_offset_beyond_the_end_gives_an_empty_page(
    library_folder: Path, query: str, offset: int
) -> None:
    with Library(library_folder) as library:
        whole = library.search(query, limit=100)
        for fold in (False, True):
            page = library.search(query, offset=offset + len(whole.hits), fold=fold)
            assert (page.hits, page.total) == ([], whole.total)
        assert library.similar(0, offset=offset + 100).hits == []


@given(st.lists(st.integers(0, 12), max_size=60))
def test_grouping_follows_the_best_clip(recordings: list[int]) -> None:
    values = np.array(recordings, np.int64)
    assert values[first_of_each(values)].tolist() == list(dict.fromkeys(recordings))


# search by example


def brute_force(vectors: np.ndarray, query: np.ndarray, skip: set[int]) -> list[int]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ (query / np.linalg.norm(query))
    return [clip for clip in np.argsort(-cosines, kind="stable").tolist() if clip not in skip]


@pytest.fixture
def vector_library(tmp_path: Path) -> tuple[Path, np.ndarray]:
    draw = np.random.default_rng(8)
    vectors = draw.integers(-127, 128, (300, 128)).astype(np.int8)
    make_library(tmp_path / "lib", [3] * 100, np.zeros((300, 527), np.uint8), vectors)
    return tmp_path / "lib", vectors.astype(float)


def test_similar_finds_the_nearest_clips_but_not_the_clip_itself(
    vector_library: tuple[Path, np.ndarray],
) -> None:
    folder, vectors = vector_library
    ranked = brute_force(vectors, vectors[17], skip={17})
    recordings = list(dict.fromkeys(clip // 3 for clip in ranked))
    with Library(folder) as library:
        found = library.similar(17, limit=100)
        pages = [library.similar(17, limit=9, offset=start) for start in range(0, 100, 9)]
    assert [hit.recording for hit in found.hits] == [f"/sounds/{n}.wav" for n in recordings]
    assert [hit.clip for hit in found.hits][:10] == [
        next(clip for clip in ranked if clip // 3 == recording) for recording in recordings[:10]
    ]
    assert (found.total, found.total_clips) == (100, 299)
    clips = [hit.clip for hit in found.hits] + [m.clip for hit in found.hits for m in hit.moments]
    assert sorted(clips) == [clip for clip in range(300) if clip != 17]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert found.hits[0].score == pytest.approx(unit[17] @ unit[ranked[0]], abs=1e-5)
    assert [hit.clip for page in pages for hit in page.hits] == [hit.clip for hit in found.hits]


def test_similar_does_not_count_a_recording_of_which_nothing_is_left(tmp_path: Path) -> None:
    make_library(tmp_path / "lib", [1, 2], np.zeros((3, 527), np.uint8))
    with Library(tmp_path / "lib") as library:
        alone, beside = library.similar(0), library.similar(1)
    assert (alone.total, alone.total_clips, len(alone.hits)) == (1, 2, 1)
    assert (beside.total, beside.total_clips, len(beside.hits)) == (2, 2, 2)


def test_similar_never_finds_what_was_removed(vector_library: tuple[Path, np.ndarray]) -> None:
    folder, vectors = vector_library
    ranked = brute_force(vectors, vectors[17], skip={17})
    gone = {recording: f"{recording}.wav" for recording in {clip // 3 for clip in ranked[:6]}}
    with Library(folder) as library:
        assert library.similar(17).hits[0].clip == ranked[0]
        remove(folder, *gone.values())
        found = library.similar(17, limit=100)
        with pytest.raises(LibraryError, match="no clip"):
            library.similar(ranked[0])
        with pytest.raises(LibraryError, match="no clip"):
            library.clip(ranked[0])
    assert found.hits[0].clip == next(clip for clip in ranked if clip // 3 not in gone)
    assert found.total == 100 - len(gone)


def test_pages_of_equally_near_clips_make_the_whole(tmp_path: Path) -> None:
    vectors = np.ones((200, 128))
    vectors[::3, 0] = 5
    make_library(tmp_path / "lib", [1] * 200, np.zeros((200, 527), np.uint8), vectors)
    with Library(tmp_path / "lib") as library:
        pages = [library.similar(0, limit=7, offset=start) for start in range(0, 203, 7)]
    clips = [hit.clip for page in pages for hit in page.hits]
    assert clips == [*range(3, 200, 3), *(clip for clip in range(200) if clip % 3)]


def test_similar_takes_frames(vector_library: tuple[Path, np.ndarray]) -> None:
    folder, vectors = vector_library
    frames = np.random.default_rng(3).integers(0, 256, (25, 128), dtype=np.uint8)
    ranked = brute_force(vectors, (frames.astype(float) - 128).mean(axis=0), skip=set())
    with Library(folder) as library:
        found = library.similar(frames, limit=5)
        assert found.total_clips == 300
        assert found.hits[0].clip == ranked[0]
        for wrong in (
            frames.astype(np.float32),
            frames[:0],
            frames[:, :100],
            frames[0],
        ):
            with pytest.raises(InvalidArgumentError):
                library.similar(wrong)


@pytest.mark.parametrize("clip", [-1, 300, 10**30])
def test_an_example_that_is_not_there(vector_library: tuple[Path, np.ndarray], clip: int) -> None:
    with Library(vector_library[0]) as library:
        with pytest.raises(LibraryError, match="no clip"):
            library.similar(clip)
        with pytest.raises(LibraryError, match="no clip"):
            library.clip(clip)


def test_a_file_is_nearest_to_itself(library_folder: Path, sound_master: Path) -> None:
    with Library(library_folder) as library:
        hits = library.similar(sound_master / "tone.wav").hits
        assert hits[0].recording == str(sound_master / "tone.wav")
        assert hits[0].score > 0.999
        with pytest.raises(AudioNotFoundError):
            library.similar(sound_master / "nothing.wav")


def test_a_library_of_released_embeddings_takes_a_file_as_example(
    tmp_path: Path, packed_h5: Path, sound_master: Path
) -> None:
    aus.index(packed_h5, tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        assert library.similar(sound_master / "tone.wav").total == 40


def test_an_empty_library_finds_nothing(tmp_path: Path) -> None:
    make_library(tmp_path / "lib", [], np.zeros((0, 527), np.uint8))
    with Library(tmp_path / "lib") as library:
        assert library.search("car").to_dict()["total"] == 0
        assert library.similar(np.ones((2, 128), np.uint8)).hits == []
        assert library.info().clips == 0
