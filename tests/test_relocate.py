"""`audiosearch relocate`: sounds that were moved are found at their new place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, write_packed

import audiosearch as aus
from audiosearch.errors import AudioNotFoundError, LibraryError
from audiosearch.library.library import Library

Invoke = Callable[..., Outcome]


@pytest.fixture
def place(tmp_path: Path, sound_folder: Path) -> Path:
    """A folder of sounds (one cannot be read) and a packed file, and a library of both."""
    for path in sound_folder.iterdir():
        if path.name not in ("tone.wav", "broken.wav", "nested"):
            path.unlink()
    (sound_folder / "nested" / "no_samples.wav").unlink()
    write_packed(sound_folder / "eval.h5", clips=3)
    sources = [sound_folder, sound_folder / "eval.h5"]
    aus.index(sources, tmp_path / "lib", mix_embedders=True, workers=1)
    return tmp_path


def missing(library: Path) -> list[str]:
    return [finding.path for finding in aus.verify(library).findings]


def check_unchanged(library: Path, sounds: Path) -> None:
    assert missing(library) == []
    sources = [sounds, sounds / "eval.h5"]
    again = aus.index(sources, library, mix_embedders=True, workers=1)
    assert (again.added, again.updated, again.removed, again.unchanged) == (0, 0, 0, 6)
    assert len(again.skipped) == 1


def test_a_moved_folder_is_found_again(place: Path, invoke: Invoke) -> None:
    old, new = place / "sounds", place / "elsewhere" / "music"
    shutil.copytree(old, new)
    shutil.rmtree(old)
    assert len(missing(place / "lib")) == 4
    done = invoke("relocate", old, new, "--library", place / "lib", "--json")
    assert done.code == 0
    values = json.loads(done.out)
    assert (values["moved"], values["found"]) == (5, 5)
    with Library(place / "lib") as library:
        files = {str(path) for path in map(library.audio_path, range(1, 7)) if path}
    assert str(new / "tone.wav") in files
    # Copying changed the times of the files; that is what index sees.
    assert {finding.kind for finding in aus.verify(place / "lib").findings} <= {"changed sound"}


@pytest.mark.parametrize("new", ["sounds/deeper", "other"])
def test_a_renamed_folder_needs_no_analysis(place: Path, new: str) -> None:
    old = place / "sounds"
    old.rename(place / "aside")
    (place / new).parent.mkdir(exist_ok=True)
    (place / "aside").rename(place / new)
    aus.relocate(place / "lib", old, place / new)
    check_unchanged(place / "lib", place / new)
    # And back again.
    (place / new).rename(place / "aside")
    if old.exists():
        old.rmdir()
    (place / "aside").rename(old)
    aus.relocate(place / "lib", place / new, old)
    check_unchanged(place / "lib", old)


def test_a_part_and_a_single_file_can_move(place: Path) -> None:
    sounds = place / "sounds"
    (sounds / "nested").rename(place / "moved")
    assert aus.relocate(place / "lib", sounds / "nested", place / "moved").found == 2
    (sounds / "tone.wav").rename(place / "other.wav")
    assert aus.relocate(place / "lib", sounds / "tone.wav", place / "other.wav").moved == 1
    assert missing(place / "lib") == []
    with Library(place / "lib") as library:
        files = {str(path) for path in map(library.audio_path, range(1, 7)) if path}
    assert str(place / "other.wav") in files
    assert str(place / "moved" / "noise.flac") in files


def test_what_makes_no_sense_changes_nothing(place: Path) -> None:
    library, sounds = place / "lib", place / "sounds"
    with pytest.raises(LibraryError, match="Nothing in the library"):
        aus.relocate(library, place / "nowhere", place / "other")
    with pytest.raises(AudioNotFoundError, match="Nothing was changed"):
        aus.relocate(library, sounds, place / "other")
    with pytest.raises(LibraryError, match="indexed as well"):
        aus.relocate(library, sounds / "tone.wav", sounds / "nested" / "noise.flac")
    check_unchanged(library, sounds)
    assert aus.relocate(library, sounds, place / "other", force=True).found == 0
