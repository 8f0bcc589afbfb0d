"""Filling a library: what is found, added, skipped, changed, removed, interrupted."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest
import soundfile
from conftest import BAD_SOUNDS, GOOD_SOUNDS, write_packed
from library_fixtures import (
    InProcessPool,
    contents,
    counts,
    make_readonly,
    rescored,
    run_without_override,
    sound_scores,
    write_sounds,
)

import audiosearch as aus
from audiosearch.errors import (
    AudioNotFoundError,
    DataError,
    InvalidArgumentError,
    LibraryBusyError,
    LibraryError,
    LibraryMismatchError,
    StorageError,
)
from audiosearch.jobs import Progress
from audiosearch.labels import load_labels
from audiosearch.library import indexing
from audiosearch.library.library import Library

GOOD, BAD = len(GOOD_SOUNDS), len(BAD_SOUNDS)


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Analyse without worker processes; gives the names of the files that were."""
    monkeypatch.setattr(indexing, "WorkerPool", InProcessPool)
    monkeypatch.setattr(InProcessPool, "seen", [], raising=False)
    return InProcessPool.seen


def names(library: Path) -> set[str]:
    return {Path(name).name for name in contents(library)}


# what is found


def test_a_folder_is_indexed_and_what_could_not_be_used_is_listed(
    sound_folder: Path, tmp_path: Path
) -> None:
    summary = aus.index(sound_folder, tmp_path / "lib")
    assert counts(summary) == {"added": GOOD, "skipped": BAD}
    assert summary.seconds == pytest.approx(sum(s for _, _, s in GOOD_SOUNDS.values()), abs=0.01)
    assert {skipped.path for skipped in summary.skipped} == {
        str(sound_folder / name) for name in BAD_SOUNDS
    }
    assert all(skipped.reason.endswith(".") for skipped in summary.skipped)
    with aus.open_library(tmp_path / "lib") as library:
        assert library.skipped() == sorted(summary.skipped, key=lambda s: s.path)
        clips = [library.clip(number) for number in range(library.info().clips)]
    # Rows follow the sorted paths.
    found = list(dict.fromkeys(clip.recording for clip in clips))
    assert found == sorted(str(sound_folder / name) for name in GOOD_SOUNDS)
    assert {clip.recording: clip.duration for clip in clips} == pytest.approx(
        {str(sound_folder / name): seconds for name, (_, _, seconds) in GOOD_SOUNDS.items()},
        abs=0.001,
    )


def test_what_is_stored_is_what_the_models_say(good_folder: Path, tmp_path: Path) -> None:
    from audiosearch.library.columns import encode_scores

    aus.index(good_folder, tmp_path / "lib")
    for name, (scores, _, frames) in contents(tmp_path / "lib").items():
        embedded = aus.embed(name)
        assert frames == embedded.tobytes()
        assert scores == encode_scores(sound_scores(embedded)).tobytes()


def test_names_that_are_not_text(tmp_path: Path, analysed: list[str]) -> None:
    source = tmp_path / os.fsdecode(b"f\xfflder")
    source.mkdir()
    sound = source / os.fsdecode(b"kl\xe4nge.wav")
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    (tmp_path / "a.wav").rename(sound)
    (source / os.fsdecode(b"bro\xffken.wav")).write_bytes(b"no sound")
    summary = aus.index(source, tmp_path / "lib")
    assert counts(summary) == {"added": 1, "skipped": 1}
    assert counts(aus.index(source, tmp_path / "lib")) == {"unchanged": 1, "skipped": 1}
    with aus.open_library(tmp_path / "lib") as library:
        hit = library.similar(0).to_dict()
        clip = library.clip(0)
        path = library.audio_path(clip.recording_id)
        skipped = library.skipped()
    assert hit["hits"] == []
    assert clip.recording.endswith(r"f\udcfflder/kl\udce4nge.wav")
    assert skipped[0].path.endswith(r"bro\udcffken.wav")
    for text in (clip.recording, skipped[0].path, skipped[0].reason, summary.skipped[0].reason):
        text.encode("utf-8")
    assert path == sound  # the file itself, byte for byte


def test_a_library_in_a_folder_whose_name_is_not_text(
    tmp_path: Path, sound_master: Path, analysed: list[str]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xffb"))
    aus.index(sound_master / "tone.wav", folder)
    with aus.open_library(folder) as library:
        assert library.info().folder.endswith(r"l\udcffb")
        assert library.info().clips == 1


def test_files_and_several_sources_and_relative_paths(
    sound_folder: Path,
    tmp_path: Path,
    analysed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(sound_folder)
    sources = ["tone.wav", Path("nested", "deep"), sound_folder / "tone.wav", "./nested/deep"]
    assert counts(aus.index(sources, tmp_path / "lib")) == {"added": 2}
    assert analysed == ["Büro 音.ogg", "tone.wav"]
    # A file that is named is tried, whatever its ending.
    shutil.copy("tone.wav", "tone.bin")
    assert counts(aus.index("tone.bin", tmp_path / "lib")) == {"added": 1}
    assert counts(aus.index(".", tmp_path / "lib")) == {
        "added": GOOD - 2,
        "unchanged": 2,
        "removed": 1,  # a folder's files count by their ending
        "skipped": BAD,
    }


@pytest.mark.parametrize(
    "order", [("nested", "."), (".", "nested"), ("nested/deep", "nested", ".")]
)
def test_a_folder_and_its_parent_hold_each_file_once(
    good_folder: Path, tmp_path: Path, analysed: list[str], order: tuple[str, ...]
) -> None:
    for source in order:
        aus.index(good_folder / source, tmp_path / "lib")
    assert sorted(analysed) == sorted(Path(name).name for name in GOOD_SOUNDS)
    assert set(contents(tmp_path / "lib")) == {str(good_folder / name) for name in GOOD_SOUNDS}
    (good_folder / "nested" / "noise.flac").unlink()
    shutil.copy(good_folder / "tone.wav", good_folder / "nested" / "deep" / "new.wav")
    assert counts(aus.index(good_folder, tmp_path / "lib")) == {
        "added": 1,
        "removed": 1,
        "unchanged": GOOD - 1,
    }
    shutil.copy(good_folder / "click.wav", good_folder / "nested" / "deep" / "new.wav")
    assert counts(aus.index(good_folder / "nested", tmp_path / "lib")) == {
        "updated": 1,
        "unchanged": 1,
    }
    assert len(contents(tmp_path / "lib")) == GOOD


def test_a_neighbour_whose_name_begins_alike_is_another_folder(
    tmp_path: Path, analysed: list[str]
) -> None:
    write_sounds(tmp_path / "a", 1, seconds=1)
    write_sounds(tmp_path / "ab", 1, seconds=1)
    aus.index([tmp_path / "a", tmp_path / "ab"], tmp_path / "lib")
    (tmp_path / "a" / "000.wav").rename(tmp_path / "a" / "001.wav")
    assert counts(aus.index(tmp_path / "a", tmp_path / "lib")) == {"added": 1, "removed": 1}
    assert set(contents(tmp_path / "lib")) == {
        str(tmp_path / "a" / "001.wav"),
        str(tmp_path / "ab" / "000.wav"),
    }


# again


def test_only_what_is_new_or_changed_is_done_again(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    library = tmp_path / "lib"
    aus.index(good_folder, library)
    analysed.clear()
    assert counts(aus.index(good_folder, library)) == {"unchanged": GOOD}
    assert analysed == []
    # Another size, another time, a new file, one that is gone.
    shutil.copy(good_folder / "click.wav", good_folder / "tone.wav")
    os.utime(good_folder / "silence.wav", ns=(1, 1))
    soundfile.write(good_folder / "nested" / "new.wav", np.zeros(4000), 16000)
    (good_folder / "nested" / "noise.flac").unlink()
    before = contents(library)
    assert counts(aus.index(good_folder, library)) == {
        "added": 1,
        "updated": 2,
        "unchanged": GOOD - 3,
        "removed": 1,
    }
    assert analysed == ["new.wav", "silence.wav", "tone.wav"]
    after = contents(library)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed == {str(good_folder / "tone.wav")}
    with aus.open_library(library) as opened:
        assert opened.info().recordings == GOOD
        assert opened.info().clips == GOOD


def test_what_is_gone_is_kept_where_asked(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    aus.index(good_folder, tmp_path / "lib")
    (good_folder / "tone.wav").unlink()
    kept = aus.index(good_folder, tmp_path / "lib", keep_missing=True)
    assert counts(kept) == {"unchanged": GOOD - 1}
    assert "tone.wav" in names(tmp_path / "lib")
    assert counts(aus.index(good_folder, tmp_path / "lib")) == {
        "unchanged": GOOD - 1,
        "removed": 1,
    }
    assert "tone.wav" not in names(tmp_path / "lib")


def test_indexing_one_folder_leaves_another_alone(tmp_path: Path, analysed: list[str]) -> None:
    write_sounds(tmp_path / "one", 2, seconds=1)
    write_sounds(tmp_path / "two", 2, seconds=1)
    aus.index([tmp_path / "one", tmp_path / "two"], tmp_path / "lib")
    shutil.rmtree(tmp_path / "two")
    assert counts(aus.index(tmp_path / "one", tmp_path / "lib")) == {"unchanged": 2}
    assert len(contents(tmp_path / "lib")) == 4


def test_skipped_files_are_tried_again_when_they_change_or_on_request(
    sound_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    library = tmp_path / "lib"
    first = aus.index(sound_folder, library)
    analysed.clear()
    again = aus.index(sound_folder, library)
    assert counts(again) == {"unchanged": GOOD, "skipped": BAD}
    assert sorted(again.skipped, key=str) == sorted(first.skipped, key=str)
    assert analysed == []
    assert counts(aus.index(sound_folder, library, retry_skipped=True)) == counts(again)
    assert sorted(analysed) == sorted(Path(name).name for name in BAD_SOUNDS)
    analysed.clear()
    shutil.copy(sound_folder / "tone.wav", sound_folder / "broken.wav")
    assert counts(aus.index(sound_folder, library)) == {
        "added": 1,
        "unchanged": GOOD,
        "skipped": BAD - 1,
    }
    assert analysed == ["broken.wav"]
    (sound_folder / "empty.wav").unlink()
    aus.index(sound_folder, library)
    with aus.open_library(library) as opened:
        assert [Path(s.path).name for s in opened.skipped()] == ["no_samples.wav"]
        assert opened.info().skipped == 1


def test_a_sound_that_broke_is_no_longer_found(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    aus.index(good_folder, tmp_path / "lib")
    (good_folder / "tone.wav").write_bytes(b"overwritten")
    assert counts(aus.index(good_folder, tmp_path / "lib")) == {
        "unchanged": GOOD - 1,
        "skipped": 1,
    }
    assert "tone.wav" not in names(tmp_path / "lib")


# what could lose something


def test_an_empty_folder_may_be_a_drive_that_is_not_mounted(
    tmp_path: Path, analysed: list[str]
) -> None:
    write_sounds(tmp_path / "drive", 3, seconds=1)
    aus.index(tmp_path / "drive", tmp_path / "lib")
    shutil.rmtree(tmp_path / "drive")
    (tmp_path / "drive").mkdir()
    with pytest.raises(AudioNotFoundError, match="3 recordings"):
        aus.index(tmp_path / "drive", tmp_path / "lib")
    assert len(contents(tmp_path / "lib")) == 3
    (tmp_path / "drive").rmdir()
    write_sounds(tmp_path / "other", 1, seconds=1)
    done = aus.index(tmp_path, tmp_path.parent / f"{tmp_path.name}-lib2")
    assert counts(done) == {"added": 1}
    assert counts(aus.index(tmp_path, tmp_path / "lib")) == {"added": 1, "removed": 3}


UNREADABLE = (
    "import json, sys, audiosearch as aus\n"
    "summary = aus.index(sys.argv[1], sys.argv[2])\n"
    "print(json.dumps(summary.to_dict()))"
)


def test_what_lies_in_a_folder_that_may_not_be_read_is_not_removed(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    import json

    aus.index(good_folder, tmp_path / "lib")
    (good_folder / "nested").chmod(0)
    try:
        done = run_without_override(UNREADABLE, good_folder, tmp_path / "lib")
    finally:
        (good_folder / "nested").chmod(0o755)
    summary = json.loads(done.stdout)
    assert summary["removed"] == 0, done.stderr
    assert summary["unchanged"] == GOOD - 2
    assert summary["skipped"] == [
        {"path": str(good_folder / "nested"), "reason": "Permission denied."}
    ]
    assert len(contents(tmp_path / "lib")) == GOOD


def test_a_read_only_library_is_not_written_to(library_folder: Path, sound_master: Path) -> None:
    make_readonly(library_folder)
    done = run_without_override(
        "import sys, audiosearch as aus\n"
        "try: aus.index(sys.argv[1], sys.argv[2])\n"
        "except aus.AudioSearchError as error: print(type(error).__name__, error)",
        sound_master / "tone.wav",
        library_folder,
    )
    assert done.stdout.startswith("StorageError"), done.stderr
    assert "permission" in done.stdout.lower()


# refusals


def test_nothing_to_index_makes_no_library(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no sound")
    for source in (tmp_path / "empty", tmp_path / "nowhere", tmp_path / ("x" * 300), "a\0b"):
        with pytest.raises(AudioNotFoundError):
            aus.index(source, tmp_path / "lib")
    with pytest.raises(InvalidArgumentError):
        aus.index([], tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": -1}, {"embedder": "nonsense"}])
def test_invalid_arguments_are_refused(
    good_folder: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgumentError):
        aus.index(good_folder, tmp_path / "lib", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "lib").exists()


def test_a_folder_of_other_things_is_left_alone(good_folder: Path, tmp_path: Path) -> None:
    for library in (good_folder, good_folder / "notes.txt"):
        before = sorted(good_folder.rglob("*"))
        with pytest.raises((LibraryError, StorageError), match=good_folder.name):
            aus.index(good_folder, library)
        assert sorted(good_folder.rglob("*")) == before


def test_a_packed_file_that_is_none_is_refused_before_anything_is_made(
    good_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "no.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"no\.h5"):
        aus.index([good_folder, tmp_path / "no.h5"], tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


def test_embedders_are_mixed_only_on_request(
    packed_h5: Path, good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    library = tmp_path / "lib"
    aus.index(packed_h5, library)
    with pytest.raises(LibraryMismatchError, match="--mix-embedders"):
        aus.index(good_folder, library)
    assert len(contents(library)) == 40
    assert counts(aus.index(good_folder, library, mix_embedders=True)) == {"added": GOOD}
    # Agreed once, agreed for good.
    assert counts(aus.index([good_folder, packed_h5], library)) == {"unchanged": GOOD + 40}
    with pytest.raises(LibraryMismatchError):
        aus.index([good_folder, packed_h5], tmp_path / "other")


def test_a_packed_file_of_our_own_embedder_goes_with_our_sounds(
    good_folder: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed.h5"
    aus.pack(good_folder, packed)
    assert (
        counts(aus.index([good_folder, packed], tmp_path / "lib"))["added"] == 2 * GOOD + 1
    )  # one sound has two clips
    with Library(tmp_path / "lib") as library:
        assert library.info().embedder == "lite"
        assert library.info().mixed_with == []


def test_weights_of_another_version_are_another_embedder(
    library_folder: Path, good_folder: Path
) -> None:
    manifest = library_folder / "manifest.json"
    from audiosearch.models import bundled_model

    known = bundled_model("lite").sha256
    manifest.write_text(manifest.read_text().replace(known, "f" * 64))
    with pytest.raises(LibraryMismatchError, match=f"other weights .*ffff.*{known[:12]}"):
        aus.index(good_folder, library_folder)


def test_a_library_of_another_classifier_is_refused(
    library_folder: Path, good_folder: Path
) -> None:
    manifest = library_folder / "manifest.json"
    known = json.loads(manifest.read_text())["classifier"]["sha256"]
    manifest.write_text(manifest.read_text().replace(known, "e" * 64))
    with pytest.raises(LibraryMismatchError, match="another classifier"):
        aus.index(good_folder, library_folder, mix_embedders=True)
    with Library(library_folder) as library:  # it can still be searched
        assert library.search("speech").total


def test_one_writer_at_a_time(library_folder: Path, good_folder: Path) -> None:
    with filelock.FileLock(library_folder / "writer.lock"):
        with pytest.raises(LibraryBusyError, match="Another process is writing"):
            aus.index(good_folder, library_folder)
        with Library(library_folder) as library:
            assert library.search("speech").total


def test_two_that_make_one_library_at_once(tmp_path: Path, analysed: list[str]) -> None:
    """Of several first runs one makes the library, and the others are told or come after it."""
    write_sounds(tmp_path / "sounds", 2, seconds=1)
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(counts(aus.index(tmp_path / "sounds", tmp_path / "lib")))
        except Exception as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count({"added": 2}) == 1
    assert all(o in ({"added": 2}, {"unchanged": 2}, LibraryBusyError) for o in outcomes)
    assert len(contents(tmp_path / "lib")) == 2


# packed files


def test_rows_of_a_packed_file_keep_their_number(packed_h5: Path, tmp_path: Path) -> None:
    summary = aus.index(packed_h5, tmp_path / "lib")
    assert counts(summary) == {"added": 40}
    assert summary.seconds == 400
    with aus.open_library(tmp_path / "lib") as library:
        for row in range(40):
            clip = library.clip(row)
            assert clip.recording == f"clip-{row:06d}"
            tagged = aus.tag_packed(packed_h5, row)
            assert clip.labels == tagged.labels
            expected = rescored(packed_h5, row)
            assert [tag.score for tag in clip.tags] == pytest.approx(
                np.sort(expected)[: -len(clip.tags) - 1 : -1].tolist(), abs=0.008
            )
            for tag in clip.tags:
                assert tag.score == pytest.approx(
                    expected[load_labels().by_name(tag.label).index], abs=0.008
                )
            assert (clip.start, clip.end) == (tagged.start, tagged.end)
        assert library.audio_path(library.clip(3).recording_id) is None
    assert counts(aus.index(packed_h5, tmp_path / "lib")) == {"unchanged": 40}


def test_a_packed_file_without_labels_and_times(tmp_path: Path) -> None:
    write_packed(tmp_path / "bare.h5", clips=3, extras=False, labels=False)
    aus.index(tmp_path / "bare.h5", tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        clip = library.clip(2)
        assert (clip.start, clip.end, clip.labels) == (0.0, 10.0, None)


def test_a_changed_packed_file_is_replaced(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "a.h5", clips=30, seed=1)
    write_packed(tmp_path / "b.h5", clips=5, seed=9)
    aus.index([path, tmp_path / "b.h5"], tmp_path / "lib")
    write_packed(path, clips=34, seed=2)
    assert counts(aus.index(path, tmp_path / "lib")) == {"updated": 30, "added": 4}
    write_packed(path, clips=10, seed=3)
    assert counts(aus.index(path, tmp_path / "lib")) == {"updated": 10, "removed": 24}
    with aus.open_library(tmp_path / "lib") as library:
        assert library.info().recordings == 15
        ids = library.catalogue.recordings(range(1, 200))
        rows = sorted((r.packed_row, r.name) for r in ids.values())
    fresh = [(row, f"clip-{row:06d}") for row in range(10)]
    assert rows == sorted(fresh + fresh[:5])


def test_a_packed_file_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiosearch.library import packed_source

    path = write_packed(tmp_path / "a.h5", clips=100)
    aus.index(path, tmp_path / "whole")
    monkeypatch.setattr(packed_source, "_ROWS", 7)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aus.index(path, tmp_path / "lib", on_progress=stop)
    assert [(p.done, p.total) for p in seen] == [(7 * n, 100) for n in range(5)]
    assert counts(aus.index(path, tmp_path / "lib")) == {"unchanged": 28, "added": 72}
    files = (tmp_path / lib / "tail-0000000000.rows" for lib in ("whole", "lib"))
    whole, resumed = (path.read_bytes() for path in files)
    assert whole == resumed


# progress


def test_progress_counts_what_is_safe(
    sound_folder: Path, tmp_path: Path, analysed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiosearch.jobs import groups

    monkeypatch.setattr(groups, "GROUP_FILES", 1)
    aus.index(sound_folder / "nested", tmp_path / "lib")  # its bad file is skipped here already
    seen: list[tuple[Progress, int]] = []

    def note(progress: Progress) -> None:
        with aus.open_library(tmp_path / "lib") as library:
            seen.append((progress, library.info().recordings))

    aus.index(sound_folder, tmp_path / "lib", on_progress=note)
    steps = [progress for progress, _ in seen]
    total = GOOD + BAD
    assert [(p.done, p.total, p.earlier) for p in steps] == [
        (done, total, 3) for done in range(3, total + 1)
    ]
    assert (steps[0].skipped, steps[0].seconds, steps[0].share) == (1, 0, 0)
    assert (steps[-1].skipped, steps[-1].share) == (BAD, 1)
    assert steps[-1].seconds == pytest.approx(3.01)
    for progress, recordings in seen:
        assert recordings == progress.done - progress.skipped


# stopped in the middle


INDEX = """
import sys
import audiosearch as aus
from audiosearch.jobs import groups
groups.GROUP_SECONDS = 0.05
aus.index(sys.argv[1:-1], sys.argv[-1], workers=1)
"""


def start_indexing(*args: Path, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", INDEX, *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def committed(library: Path) -> int:
    try:
        with Library(library) as opened:
            return opened.info().recordings
    except LibraryError:
        return 0


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sounds(tmp_path_factory.mktemp("noises") / "sounds", 80)
    for number in (3, 40):
        (folder / f"{number:03}.wav").write_bytes(b"broken" * 100)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(noises: Path) -> Path:
    library = noises.parent / "uninterrupted"
    aus.index(noises, library)
    return library


def assert_same_library(library: Path, expected: Path) -> None:
    for name in ("tail-0000000000.rows", "tail-0000000000.frames"):
        assert (library / name).read_bytes() == (expected / name).read_bytes()
    with Library(library) as ours, Library(expected) as theirs:
        assert ours.skipped() == theirs.skipped()
        for query in ("speech", "music OR animal", "vehicle -car"):
            found, expect = (lib.search(query, limit=99) for lib in (ours, theirs))
            assert found.to_dict() == expect.to_dict()
        assert ours.similar(7, limit=99).to_dict() == theirs.similar(7, limit=99).to_dict()


def test_killing_again_and_again_loses_nothing(
    noises: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    library = tmp_path / "lib"
    draw = np.random.default_rng(6)
    done, kills = 0, 0
    while kills < 5:
        process = start_indexing(noises, library)
        # Somewhere behind the first new commit.
        while committed(library) <= done and process.poll() is None:
            time.sleep(0.01)
        time.sleep(float(draw.uniform(0, 0.15)))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        assert committed(library) > done
        done = committed(library)
    assert kills >= 2
    summary = aus.index(noises, library)
    assert summary.unchanged == done
    assert summary.added + done == 78
    assert_same_library(library, uninterrupted)


def test_ctrl_c_keeps_what_was_done(noises: Path, uninterrupted: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    process = start_indexing(noises, library)
    while not committed(library) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    done = committed(library)
    assert 0 < done < 78
    assert aus.index(noises, library).unchanged == done
    assert_same_library(library, uninterrupted)


def test_what_was_analysed_before_ctrl_c_is_committed(
    good_folder: Path, tmp_path: Path, analysed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: InProcessPool, paths: Iterator[str]) -> Iterator[object]:
        for number, result in enumerate(original(self, paths)):
            if number == 3:
                raise KeyboardInterrupt
            yield result

    original = InProcessPool.map
    monkeypatch.setattr(InProcessPool, "map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        aus.index(good_folder, tmp_path / "lib")
    assert len(contents(tmp_path / "lib")) == 3


def limited(size: int) -> Callable[[], None]:
    """Let no file of a process grow beyond `size` bytes, as a full disk would."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_loses_nothing(noises: Path, uninterrupted: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    # The rows of 78 files of 2 clips would take 103 kB, the frames 110 kB.
    process = start_indexing(noises, library, preexec_fn=limited(80_000))
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("audiosearch.errors.StorageError: The disk is full")
    assert str(library) in last
    done = committed(library)
    assert 0 < done < 60
    with Library(library) as opened:
        assert opened.search("speech OR music OR animal OR noise").total <= done
    assert aus.index(noises, library).unchanged == done
    assert_same_library(library, uninterrupted)


def test_a_disk_too_full_for_the_catalogue(sound_master: Path, tmp_path: Path) -> None:
    folder, library = tmp_path / "sounds", tmp_path / "lib"
    folder.mkdir()
    shutil.copy(sound_master / "tone.wav", folder)
    aus.index(folder, library)
    for number in range(400):
        (folder / f"{'long name ' * 15}{number}.wav").write_bytes(b"")
    process = start_indexing(folder, library, preexec_fn=limited(60_000))
    said = process.communicate(timeout=60)[1].decode().strip().splitlines()[-1]
    assert said.startswith("audiosearch.errors.StorageError: The disk is full"), said
    assert "catalogue.sqlite" in said
    assert committed(library) == 1
    assert counts(aus.index(folder, library)) == {"unchanged": 1, "skipped": 400}


# large


def resident(process: int) -> int:
    """Bytes of memory of a process and of all below it."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            values = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)] = int(values[1])
        sizes[int(folder.name)] = int(values[21]) * resource.getpagesize()
    tree = {process}
    while below := {number for number, parent in parents.items() if parent in tree} - tree:
        tree |= below
    return sum(sizes.get(number, 0) for number in tree)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_three_hours_are_indexed_in_little_memory(tmp_path: Path) -> None:
    rate, hours = 8000, 3
    tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype("<i2").tobytes()
    silence = bytes(2 * rate)
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for minute in range(60 * hours):
            file.writeframes((tone if minute % 3 else silence) * 60)
    process = start_indexing(tmp_path / "long.wav", tmp_path / "lib")
    largest = 0
    while process.poll() is None:
        largest = max(largest, resident(process.pid))
        time.sleep(0.05)
    process.communicate()
    assert process.returncode == 0
    with Library(tmp_path / "lib") as library:
        assert library.info().clips == 10800 / 9.6
        assert library.info().seconds == 10800
        hit = library.similar(0, limit=1).hits[0]
        assert 1 + len(hit.moments) <= 1124
    print(f"{largest / 2**20:.0f} MiB")
    assert largest < 600e6
