"""The lab's preview of augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab_fixtures import class_folders

from audiosearch.errors import DataError, InvalidArgumentError, StorageError
from audiosearch.lab import preview, read_sounds


def test_a_preview_holds_sounds_and_pictures_of_each_class(tmp_path, invoke):
    class_folders(tmp_path / "data", n=3)
    (tmp_path / "data" / "low").rename(tmp_path / "data" / "$l\\o{w")
    options = ["--out", tmp_path / "out", "--variants", 2]
    done = invoke("lab", "preview", tmp_path / "data", *options)
    assert done.code == 0
    assert "12 files" in done.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{n}{end}" for n in (1, 2, 3) for end in (".wav", "-1.wav", "-2.wav", ".png")}
    waves = [soundfile.read(tmp_path / "out" / f"1{end}.wav")[0] for end in ("", "-1", "-2")]
    assert [len(wave) for wave in waves] == [8000] * 3
    assert not np.array_equal(waves[0], waves[1])
    assert not np.array_equal(waves[1], waves[2])
    assert (tmp_path / "out" / "1.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StorageError, match="exists already"):
        preview(read_sounds(tmp_path / "data"), tmp_path / "out")


def test_a_preview_shows_the_augmentations_that_are_asked_for(tmp_path, invoke):
    class_folders(tmp_path / "data", kinds=("high", "noise"), n=1)
    options = ["--out", tmp_path / "out", "--augmentations", "pitch", "--variants", 3]
    assert invoke("lab", "preview", tmp_path / "data", *options).code == 0
    waves = [soundfile.read(tmp_path / "out" / f"1{end}.wav")[0] for end in ("", "-1", "-2", "-3")]
    peaks = [int(np.abs(np.fft.rfft(wave)).argmax()) for wave in waves]
    assert len(set(peaks)) == 4, "each variant at a pitch of its own"
    done = invoke(
        "lab", "preview", tmp_path / "data", "--out", tmp_path / "x", "--augmentations", "a"
    )
    assert done.code != 0
    assert "pitch, stretch, background" in done.err


def test_what_cannot_be_shown_is_refused(tmp_path):
    sounds = read_sounds(class_folders(tmp_path / "data", n=1))
    with pytest.raises(InvalidArgumentError):
        preview(sounds, tmp_path / "out", each=0)
    for sound in sounds.sounds:
        Path(sound.path).write_bytes(b"")
    with pytest.raises(DataError, match="none of its sounds"):
        preview(sounds, tmp_path / "out")
