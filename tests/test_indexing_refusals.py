"""Indexing that could lose or mix something is refused, and what was there stays."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import filelock
import pytest
from library_fixtures import (
    GOOD,
    analysed,
    contents,
    counts,
    make_readonly,
    run_without_override,
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
from audiosearch.library.library import Library

__all__ = ["analysed"]


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
