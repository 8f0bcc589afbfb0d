"""Spectrograms of sound files, and the pictures that are kept of them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiosearch import pictures
from audiosearch.errors import AudioNotFoundError, EmptyAudioError, InvalidArgumentError
from audiosearch.picture_cache import PICTURES_VARIABLE, PictureCache, picture_folder


def tone(path: Path, hertz: float, *, seconds: float = 4.0, level: float = 0.5) -> Path:
    time = np.arange(round(22_050 * seconds)) / 22_050
    soundfile.write(path, level * np.sin(2 * np.pi * hertz * time), 22_050)
    return path


def decoded(data: bytes) -> np.ndarray:
    """The colours of a PNG picture without filters, uint8 (height, width, 3)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            name + body
        )
        chunks[name] = body
        at += 12 + length
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert kind == 3
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    codes = rows[:, 1:]
    if depth == 4:
        codes = np.stack([codes >> 4, codes & 15], axis=2).reshape(height, -1)[:, :width]
    return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[codes]


@pytest.mark.parametrize("hertz", [100.0, 440.0, 2000.0, 8000.0])
def test_tone_is_a_line_at_its_pitch(tmp_path: Path, hertz: float) -> None:
    shown = pictures.spectrogram(tone(tmp_path / "a.wav", hertz), end=4.0, width=200)
    assert shown.shape == (128, 200)
    assert shown.min() >= 0
    assert shown.max() <= 1
    brightest = 127 - shown[:, 20:180].argmax(axis=0)
    # The band of the tone, from the definition of the mel scale (HTK), 128 bands, 40 Hz to 11 kHz.
    low, high, own = (2595 * np.log10(1 + f / 700) for f in (40.0, 11_000.0, hertz))
    expected = (own - low) / (high - low) * 129 - 1
    assert np.abs(brightest - expected).max() <= 1.5


def test_loud_is_light_and_quiet_is_dark_in_time(tmp_path: Path) -> None:
    samples = np.zeros(22_050 * 4)
    samples[22_050 : 2 * 22_050] = np.random.default_rng(0).normal(0, 0.2, 22_050)
    soundfile.write(tmp_path / "a.wav", samples, 22_050)
    shown = pictures.spectrogram(tmp_path / "a.wav", end=4.0, width=400, height=32)
    assert shown[:, 110:190].mean() > 0.6
    assert shown[:, :90].max() == 0
    assert shown[:, 210:].max() == 0


def test_part_is_the_same_as_in_the_whole(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 24_000 * 8)
    soundfile.write(tmp_path / "a.wav", samples, 24_000, subtype="FLOAT")
    whole = pictures.spectrogram(tmp_path / "a.wav", end=8.0, width=400, top=-30)
    part = pictures.spectrogram(tmp_path / "a.wav", start=4.0, end=8.0, width=200, top=-30)
    # Frames at the cut hear silence before it.
    assert np.abs(whole[:, 202:] - part[:, 2:]).max() < 1e-3


def test_what_lies_beyond_the_end_is_silence(tmp_path: Path) -> None:
    shown = pictures.spectrogram(tone(tmp_path / "a.wav", 440.0, seconds=1.0), end=4.0, width=200)
    assert shown[:, :48].max() == 1
    assert shown[:, 55:].max() == 0
    with pytest.raises(EmptyAudioError):
        pictures.spectrogram(tmp_path / "a.wav", start=2.0, end=4.0)


def test_level_of_a_recording_lets_its_parts_fit_together(tmp_path: Path) -> None:
    samples = np.concatenate(
        [np.random.default_rng(2).normal(0, level, 24_000 * 4) for level in (0.2, 0.002)]
    )
    soundfile.write(tmp_path / "a.wav", samples, 24_000, subtype="FLOAT")
    level = pictures.level(tmp_path / "a.wav", duration=8.0)
    loud = pictures.spectrogram(tmp_path / "a.wav", end=4.0, top=level)
    quiet = pictures.spectrogram(tmp_path / "a.wav", start=4.0, end=8.0, top=level)
    # 40 dB are 40 of the 62 dB that the colours show.
    assert loud.mean() - quiet.mean() == pytest.approx(40 / 62, abs=0.06)
    alone = pictures.spectrogram(tmp_path / "a.wav", start=4.0, end=8.0)
    assert alone.mean() == pytest.approx(loud.mean(), abs=0.06)


def test_silence_is_dark(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(24_000), 24_000)
    assert pictures.spectrogram(tmp_path / "a.wav", end=1.0).max() == 0
    assert np.isfinite(pictures.level(tmp_path / "a.wav", duration=1.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": 2.0, "end": 1.0},
        {"start": -1.0, "end": 1.0},
        {"end": float("nan")},
        {"end": 601.0},
        {"end": 1.0, "width": 0},
        {"end": 1.0, "height": 129},
    ],
)
def test_pictures_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError):
        pictures.spectrogram(tone(tmp_path / "a.wav", 440), **wrong)


def test_colours_go_evenly_from_dark_to_light() -> None:
    linear = (pictures.palette(256) / 255.0) ** 2.2
    lightness = (linear @ [0.2126, 0.7152, 0.0722]) ** (1 / 3)
    assert (np.diff(lightness) > -1e-9).all()
    assert lightness[0] < 0.3
    assert lightness[-1] > 0.9


@pytest.mark.parametrize("colours", [2, 16, 32, 256])
def test_png_holds_the_values(colours: int) -> None:
    values = np.linspace(0, 1, 7 * 13).reshape(7, 13)
    shown = decoded(pictures.png(values, colours=colours))
    expected = pictures.palette(colours)[np.rint(values * (colours - 1)).astype(int)]
    np.testing.assert_array_equal(shown, expected)
    with pytest.raises(InvalidArgumentError, match="between 0 and 1"):
        pictures.png(values + 1)
    with pytest.raises(InvalidArgumentError):
        pictures.png(values, colours=1)


def drawn(cache: PictureCache, path: Path, *, start: float = 0.0) -> bytes:
    return cache.spectrogram(path, start=start, end=start + 1, duration=4, width=50, height=20)


def test_picture_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tone(tmp_path / "a.wav", 440.0)
    first = drawn(PictureCache(tmp_path / "kept"), path)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "spectrogram", None)
        assert drawn(PictureCache(tmp_path / "kept"), path) == first
    # Another sound under the same name is another picture.
    tone(path, 3000.0)
    os.utime(path, (1, 1))
    assert drawn(PictureCache(tmp_path / "kept"), path) != first


def test_cache_is_bounded_and_lets_go_of_what_was_not_looked_at(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav", 440.0)
    size = len(drawn(PictureCache(tmp_path / "probe"), path))
    cache = PictureCache(tmp_path / "kept", limit=10 * size)
    first = drawn(cache, path)
    (kept,) = (tmp_path / "kept").glob("??/*.png")
    for number in range(1, 30):
        drawn(cache, path, start=number / 10)
        assert drawn(cache, path) == first
        os.utime(kept, (2**33, 2**33))  # far from what was only just made
        held = sum(file.stat().st_size for file in (tmp_path / "kept").glob("??/*.png"))
        assert held <= 12 * size
    assert kept.exists()
    with pytest.raises(InvalidArgumentError):
        PictureCache(tmp_path, limit=0)


def test_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tone(tmp_path / "a.wav", 440.0)
    assert drawn(PictureCache(tmp_path / "file"), path)[:4] == b"\x89PNG"
    with pytest.raises(AudioNotFoundError):
        drawn(PictureCache(tmp_path / "kept"), tmp_path / "none.wav")


def test_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PICTURES_VARIABLE, "/somewhere/pictures")
    assert picture_folder() == Path("/somewhere/pictures")
    monkeypatch.delenv(PICTURES_VARIABLE)
    assert picture_folder().name == "pictures"
