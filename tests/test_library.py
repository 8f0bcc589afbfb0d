"""A library as it is opened, read by others and moved: its clips, files, frames and facts."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import GOOD_SOUNDS, write_packed
from library_fixtures import (
    append,
    index_of,
    make_library,
    make_readonly,
    random_codes,
    remove,
    run_without_override,
)

import audiosearch as aus
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import LibraryError
from audiosearch.labels import load_labels
from audiosearch.library.library import Library
from audiosearch.library.scoring import library_scorer

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
