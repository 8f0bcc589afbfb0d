"""The names of the package, and which library they open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import audiosearch as aus
from audiosearch import api
from audiosearch.errors import (
    AudioDecodeError,
    AudioNotFoundError,
    EmptyAudioError,
    LibraryNotFoundError,
)


def test_every_name_is_there() -> None:
    for name in aus.__all__:
        assert getattr(aus, name) is not None
    assert set(aus.__all__) <= set(dir(aus))
    with pytest.raises(AttributeError, match="nonsense"):
        aus.nonsense  # noqa: B018


def test_importing_it_is_light() -> None:
    code = "import sys, audiosearch; print(*sys.modules)"
    path = os.pathsep.join(place for place in sys.path if place)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"numpy", "onnxruntime", "faiss", "h5py", "flask", "tensorflow", "soundfile", "sqlite3"}
    assert not heavy & set(done.stdout.split())


def test_the_users_library_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    assert aus.default_library().is_relative_to(own_home)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "mine"))
    assert aus.default_library() == tmp_path / "mine"
    with pytest.raises(LibraryNotFoundError, match="mine"):
        aus.open_library()


def test_without_an_own_library_the_shipped_one_is_opened(
    library_master: Path, sound_master: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "shipped_library", lambda: library_master)
    with aus.open_library() as library:
        assert library.shipped
        assert library.folder == library_master
        assert not library.writable
    aus.index(sound_master / "tone.wav", aus.default_library())
    with aus.open_library() as library:
        assert not library.shipped
        assert library.info().recordings == 1
    with aus.open_library(library_master) as library:
        assert library.shipped


def test_a_missing_shipped_library_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "shipped_library", lambda: tmp_path / "none")
    with pytest.raises(aus.AudioSearchError, match="Install audiosearch again"):
        aus.open_library()


@pytest.mark.parametrize("name", ["nowhere", "a file", "a folder"])
def test_no_library_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("no folder")
    (tmp_path / "a folder").mkdir()
    with pytest.raises(LibraryNotFoundError, match=f"{name}.*audiosearch index"):
        aus.open_library(tmp_path / name)


def test_embed(sound_master: Path) -> None:
    frames = aus.embed(sound_master / "nested" / "noise.flac")
    assert (frames.shape, frames.dtype) == ((12, 128), np.uint8)  # a last half second is kept
    assert aus.embed(str(sound_master / "click.wav")).shape == (1, 128)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.wav", AudioNotFoundError),
        ("nested", AudioNotFoundError),
        ("broken.wav", AudioDecodeError),
        ("empty.wav", AudioDecodeError),
        ("nested/no_samples.wav", EmptyAudioError),
    ],
)
def test_embed_of_a_bad_file(sound_master: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=Path(name).name):
        aus.embed(sound_master / name)
