"""A library as it is opened, searched, read by others, moved and damaged."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import GOOD_SOUNDS, write_packed
from hypothesis import given
from hypothesis import strategies as st
from library_fixtures import append, make_library, make_readonly, remove, run_without_override

import audiosearch as aus
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import (
    AudioNotFoundError,
    AudioSearchError,
    InvalidArgumentError,
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryVersionError,
)
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
from audiosearch.library.scoring import library_scorer

ROWS, FRAMES = "tail-0000000000.rows", "tail-0000000000.frames"


def index_of(name: str) -> int:
    return load_labels().by_name(name).index


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


def random_codes(clips: int, *, seed: int, share: float = 0.02) -> np.ndarray:
    """Codes of which a share is above the score from which on a clip matches."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 70, (clips, 527))
    high = draw.random((clips, 527)) < share
    codes[high] = draw.integers(83, 256, int(high.sum()))
    return codes.astype(np.uint8)


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


# clips, files, facts


def test_a_clip_says_what_is_heard_in_it(library_folder: Path, packed_h5: Path) -> None:
    import h5py

    with h5py.File(packed_h5) as file:
        truth = {f"clip-{row:06d}": np.flatnonzero(file["y"][row]) for row in range(40)}
        starts = dict(zip(truth, file["start_time_seconds"][:], strict=True))
    with Library(library_folder) as library:
        clips = [library.clip(number, top=3) for number in range(library.info().clips)]
    audioset = {clip.recording: clip for clip in clips if clip.source == "audioset"}
    assert set(audioset) == set(truth)
    for name, clip in audioset.items():
        assert clip.labels == [load_labels()[int(i)].name for i in truth[name]]
        assert (clip.start, clip.end) == (starts[name], starts[name] + 10)
        assert clip.duration is None
        assert len(clip.tags) == 3
        assert [tag.score for tag in clip.tags] == sorted(
            (tag.score for tag in clip.tags), reverse=True
        )
    noise = [clip for clip in clips if clip.recording.endswith("noise.flac")]
    assert [(clip.start, clip.end) for clip in noise] == [(0.0, 9.6), (9.6, 12.0)]
    assert {clip.duration for clip in noise} == {12.0}
    click = next(clip for clip in clips if clip.recording.endswith("click.wav"))
    assert (click.start, click.end) == (0.0, 0.01)
    assert click.labels is None


def test_audio_path(library_folder: Path, sound_master: Path) -> None:
    with Library(library_folder) as library:
        clips = [library.clip(number) for number in range(library.info().clips)]
        for clip in clips:
            path = library.audio_path(clip.recording_id)
            assert path == (Path(clip.recording) if clip.source == "file" else None)
        assert sound_master / "tone.wav" in {library.audio_path(c.recording_id) for c in clips}
        for number in (0, -1, 10**6, 2**63, 10**40):
            with pytest.raises(LibraryError, match="no recording"):
                library.audio_path(number)


def test_info_says_what_is_there_and_what_made_it(library_folder: Path) -> None:
    with Library(library_folder) as library:
        info = library.info().to_dict()
    assert set(info) == {
        *("folder", "format", "clips", "recordings", "seconds", "embedder", "embedder_hash"),
        "mixed_with",
        *("classifier", "classifier_hash", "created", "updated", "bytes", "skipped", "version"),
        *("segments", "vector_index", "recall_at_10", "own_classifiers", "own_classes"),
        *("own_classifier_hashes", "scores_only", "unheard_clips"),
    }
    assert info["recordings"] == len(GOOD_SOUNDS) + 40
    assert info["clips"] == len(GOOD_SOUNDS) + 1 + 40  # one sound is longer than a clip
    assert info["seconds"] == pytest.approx(sum(s for _, _, s in GOOD_SOUNDS.values()) + 400)
    assert info["skipped"] == 3
    assert info["version"] == aus.__version__
    assert info["classifier_hash"] == library_scorer(("lite", info["embedder_hash"]))[1]
    assert info["bytes"] == sum(path.stat().st_size for path in library_folder.iterdir())
    assert info["created"] <= info["updated"]


def test_a_closed_library_says_so(library_folder: Path) -> None:
    library = Library(library_folder)
    library.close()
    with pytest.raises(LibraryError, match="closed"):
        library.search("car")
    with pytest.raises(LibraryError, match="closed"):
        library.info()


def test_threads_may_search_at_once(library_folder: Path) -> None:
    problems: list[BaseException] = []

    def work(library: Library) -> None:
        try:
            for _ in range(10):
                assert library.search("speech").total == expected
                library.similar(3)
        except BaseException as error:
            problems.append(error)

    with Library(library_folder) as library:
        expected = library.search("speech").total
        threads = [threading.Thread(target=work, args=(library,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []


# other processes, other places


def test_a_reader_sees_what_another_process_commits(tmp_path: Path) -> None:
    folder = make_library(tmp_path / "lib", [1], random_codes(1, seed=1))
    codes = np.zeros((2, 527), np.uint8)
    codes[:, index_of("Dog")] = 255
    with Library(folder) as library:
        before = library.search("dog").total_clips
        library.similar(0)
        append(folder, [2], codes)
        assert library.search("dog").total_clips == before + 2
        assert library.similar(0).total_clips == 2
        assert library.info().clips == 3
        remove(folder, "1.wav")
        assert library.search("dog").total_clips == before


def test_the_number_of_a_removed_recording_is_not_given_again(tmp_path: Path) -> None:
    folder = make_library(tmp_path / "lib", [1, 1], random_codes(2, seed=1))
    with Library(folder) as library:
        old = library.clip(1).recording_id
        remove(folder, "1.wav")
        append(folder, [1], random_codes(1, seed=2))
        assert library.clip(2).recording_id != old
        with pytest.raises(LibraryError, match="no recording"):
            library.audio_path(old)


def test_a_moved_library_opens_and_searches(library_folder: Path, tmp_path: Path) -> None:
    with Library(library_folder) as library:
        expected = library.search("speech", limit=50).to_dict()
    moved = tmp_path / "an öther place" / "lib?x=1#y"
    moved.parent.mkdir()
    library_folder.rename(moved)
    with aus.open_library(moved) as library:
        assert library.search("speech", limit=50).to_dict() == expected
        assert library.info().folder == str(moved)


SEARCH = (
    "import sys, audiosearch as aus\n"
    "with aus.open_library(sys.argv[1]) as lib: print(lib.search('speech').total, lib.info().clips)"
)


def test_a_library_in_a_folder_without_write_permission_is_searched(
    library_folder: Path, tmp_path: Path
) -> None:
    folder = library_folder
    with Library(folder) as library:
        expected = f"{library.search('speech').total} {library.info().clips}\n"
    make_readonly(folder)
    done = run_without_override(SEARCH, folder)
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


def test_indexing_into_a_folder_without_write_permission_says_so(
    library_folder: Path, tmp_path: Path
) -> None:
    write_packed(tmp_path / "more.h5")
    make_readonly(library_folder)
    done = run_without_override(
        "import sys, audiosearch as aus\n"
        "try: aus.index(sys.argv[1], sys.argv[2], mix_embedders=True)\n"
        "except aus.AudioSearchError as error: print(type(error).__name__, error)",
        tmp_path / "more.h5",
        library_folder,
    )
    assert done.stdout.startswith("StorageError No permission to write"), done.stderr


# damage


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage\xff" * 500)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (lambda f: (f / "manifest.json").write_text("{nonsense"), LibraryDamagedError),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), LibraryDamagedError),
        (lambda f: (f / "manifest.json").write_text('"a text"'), LibraryNotFoundError),
        (lambda f: (f / "manifest.json").unlink(), LibraryNotFoundError),
        (
            lambda f: (f / "manifest.json").write_text(
                '{"kind": "audiosearch library", "format_version": 2}'
            ),
            LibraryDamagedError,
        ),
        (
            lambda f: (f / "manifest.json").write_text(
                '{"kind": "audiosearch library", "format_version": 3, "audiosearch": "9.9"}'
            ),
            LibraryVersionError,
        ),
        (lambda f: garbage(f / "catalogue.sqlite"), LibraryDamagedError),
        (lambda f: (f / "catalogue.sqlite").write_bytes(b""), LibraryDamagedError),
        (lambda f: (f / "catalogue.sqlite").unlink(), LibraryDamagedError),
        (lambda f: os.truncate(f / "catalogue.sqlite", 9000), LibraryDamagedError),
        (lambda f: os.truncate(f / ROWS, 660 * 20), LibraryDamagedError),
        (lambda f: os.truncate(f / ROWS, 0), LibraryDamagedError),
        (lambda f: (f / ROWS).unlink(), LibraryDamagedError),
    ],
)
def test_a_damaged_library_is_told_at_once(
    library_folder: Path,
    sound_master: Path,
    what: Callable[[Path], object],
    error: type[Exception],
) -> None:
    what(library_folder)
    before = {path: path.read_bytes() for path in library_folder.iterdir()}
    with pytest.raises(error, match=library_folder.name):
        aus.open_library(library_folder)
    with pytest.raises(LibraryError, match=library_folder.name):
        aus.index(sound_master, library_folder)
    after = {path: path.read_bytes() for path in library_folder.iterdir()}
    # Nothing is repaired by guessing, and nothing is deleted.
    assert {path.name for path in after} - {path.name for path in before} <= {"writer.lock"}
    assert all(after[path] == before[path] for path in before)


def test_lost_frames_are_not_filled_with_zeros(library_folder: Path, tmp_path: Path) -> None:
    import soundfile

    os.truncate(library_folder / FRAMES, 128 * 3)
    with Library(library_folder) as library:
        assert library.search("speech").total  # searching does not need them
    soundfile.write(tmp_path / "new.wav", np.zeros(16000), 16000)
    with pytest.raises(LibraryDamagedError, match=r"tail-0000000000\.frames"):
        aus.index(tmp_path / "new.wav", library_folder)
    assert (library_folder / FRAMES).stat().st_size == 128 * 3


def test_a_partly_overwritten_catalogue_never_shows_a_traceback(library_folder: Path) -> None:
    """Whatever the bytes, a library works or says in its own words what is wrong."""
    catalogue = library_folder / "catalogue.sqlite"
    whole = catalogue.read_bytes()
    draw = random.Random(5)
    told = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 20])):
            at = draw.randrange(len(data))
            data[at : at + draw.choice([1, 8, 300])] = draw.randbytes(1)
        catalogue.write_bytes(bytes(data[: len(whole)]))
        try:
            with Library(library_folder) as library:
                library.search("speech OR music")
                library.info()
                library.skipped()
                for clip in range(0, 40, 7):
                    library.clip(clip)
        except AudioSearchError:
            told += 1
    assert told > 10


def test_what_a_killed_writer_left_behind_is_not_seen_and_overwritten(
    tmp_path: Path,
) -> None:
    codes = random_codes(4, seed=9)
    folder = make_library(tmp_path / "lib", [2, 2], codes)
    for name in (ROWS, FRAMES):
        with (folder / name).open("ab") as file:
            file.write(b"\xff" * 12345)
    with Library(folder) as library:
        assert library.info().clips == 4
        assert all(hit.clip < 4 for hit in library.search("speech OR music OR dog").hits)
    more = random_codes(1, seed=10)
    append(folder, [1], more)
    with Library(folder) as library:
        (part,) = library.snapshot().parts
        kept = np.stack([part.block.column(number) for number in range(527)], axis=1)
        assert (kept == np.concatenate([codes, more])).all()
    assert (folder / ROWS).stat().st_size == 5 * 660


HALF_COMMIT = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 2")  # so that changed pages are written before the commit
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE recordings SET duration = 1e6, labels = printf('%9000s', '')")
os._exit(9)
"""


@pytest.mark.parametrize("open_before", [False, True])
def test_a_writer_killed_in_a_commit_leaves_a_library_that_opens(
    library_folder: Path, open_before: bool
) -> None:
    with Library(library_folder) as library:
        expected = (library.search("speech").to_dict(), library.info().seconds)
    open_library = Library(library_folder) if open_before else None
    catalogue = library_folder / "catalogue.sqlite"
    subprocess.run([sys.executable, "-c", HALF_COMMIT, catalogue], check=False)
    assert catalogue.with_name("catalogue.sqlite-journal").stat().st_size > 4096
    with open_library or Library(library_folder) as library:
        assert (library.search("speech").to_dict(), library.info().seconds) == expected


def test_a_half_committed_library_that_may_not_be_put_in_order_says_so(
    library_folder: Path, tmp_path: Path
) -> None:
    folder = library_folder
    subprocess.run([sys.executable, "-c", HALF_COMMIT, folder / "catalogue.sqlite"], check=False)
    make_readonly(folder)
    done = run_without_override(
        "import sys, audiosearch as aus\n"
        "try: aus.open_library(sys.argv[1])\n"
        "except aus.AudioSearchError as error: print(error)",
        folder,
    )
    assert "Open the library once as a user who may write to it" in done.stdout, done.stderr


# Frames, and pages beyond the end


def test_frames_of_a_packed_file_are_read_from_it(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "packed.h5")
    aus.index(path, tmp_path / "lib")
    with PackedFile(path) as file, Library(tmp_path / "lib") as library:
        rows = file.read(0, 40)
        for row in (0, 7, 39):
            frames = library.frames(row)
            assert (frames == rows.x[row][: rows.n_frames[row]]).all()
            assert len(frames) == rows.n_frames[row]
    os.utime(path, (1, 1))
    with Library(tmp_path / "lib") as library:
        assert library.frames(7).shape == (0, 128)
        path.unlink()
        assert library.frames(7).shape == (0, 128)


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
