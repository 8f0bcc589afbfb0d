"""The same sound gives the same bytes: in any process, container and place in a file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import chirp

import audiosearch as aus

RATE = 16000
FRAME = 15360  # samples of 0.96 s


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Six frames that differ, 16-bit: tones, sweeps and noise."""
    random = np.random.default_rng(5)
    times = np.arange(2 * FRAME) / RATE
    parts = [
        0.4 * chirp(times, 200, times[-1], 4000),
        0.2 * random.standard_normal(2 * FRAME),
        0.4 * np.sin(2 * np.pi * 440 * times) * (np.sin(2 * np.pi * 4 * times) > 0),
    ]
    return np.rint(np.clip(np.concatenate(parts), -1, 1) * 32767).astype(np.int16)


def write(path: Path, samples: np.ndarray, **options: str) -> Path:
    soundfile.write(path, samples, RATE, **options)
    return path


def test_another_process_gives_the_same_bytes(sound: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound)
    here = hashlib.sha256(aus.embed(path).tobytes()).hexdigest()
    code = (
        "import hashlib, sys, audiosearch as aus;"
        "print(hashlib.sha256(aus.embed(sys.argv[1]).tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_wav_and_flac_of_the_same_samples_agree_to_the_bit(
    sound: np.ndarray, tmp_path: Path
) -> None:
    wav = aus.embed(write(tmp_path / "a.wav", sound))
    flac = aus.embed(write(tmp_path / "a.flac", sound))
    wider = aus.embed(write(tmp_path / "b.wav", sound, subtype="PCM_24"))
    np.testing.assert_array_equal(flac, wav)
    np.testing.assert_array_equal(wider, wav)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_shift_by_whole_frames_shifts_the_result(
    frames: int, sound: np.ndarray, tmp_path: Path
) -> None:
    whole = aus.embed(write(tmp_path / "a.wav", sound))
    cut = aus.embed(write(tmp_path / "b.wav", sound[frames * FRAME :]))
    assert len({row.tobytes() for row in whole}) == 6
    np.testing.assert_array_equal(cut, whole[frames:])


def overlap(first: Path, second: Path) -> float:
    """Share of the five best classes that two files have in common."""
    names = [{tag.label for tag in aus.tag(path).tags} for path in (first, second)]
    return len(names[0] & names[1]) / 5


@pytest.mark.data
def test_other_rates_and_mp3_keep_most_of_the_top_5(data_dir: Path, tmp_path: Path) -> None:
    import soxr

    shares: dict[str, list[float]] = {"44.1 kHz": [], "mp3": []}
    for path in sorted((data_dir / "samples").glob("*.*")):
        if path.suffix not in (".wav", ".flac", ".ogg"):
            continue
        samples, rate = soundfile.read(path, frames=20 * 48000, always_2d=True)
        mono = samples.mean(axis=1).astype(np.float32)
        original = tmp_path / f"{path.stem}.wav"
        soundfile.write(original, mono, rate, subtype="PCM_16")
        other = 44100 if rate != 44100 else 48000
        resampled = tmp_path / f"{path.stem}-resampled.wav"
        soundfile.write(resampled, soxr.resample(mono, rate, other), other, subtype="PCM_16")
        shares["44.1 kHz"].append(overlap(original, resampled))
        if rate in (16000, 22050, 24000, 32000, 44100, 48000):
            packed = tmp_path / f"{path.stem}.mp3"
            soundfile.write(packed, mono, rate, format="MP3")
            shares["mp3"].append(overlap(original, packed))
    assert len(shares["44.1 kHz"]) >= 10
    assert len(shares["mp3"]) >= 5
    assert np.mean(shares["44.1 kHz"]) >= 0.9
    assert np.mean(shares["mp3"]) >= 0.7
