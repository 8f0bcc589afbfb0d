"""Decoding to left and right: each side what its own channel holds, in blocks as whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from audio_fixtures import tone, write, write_libav

from audiosearch import audio
from audiosearch.errors import EmptyAudioError, InvalidArgumentError

REPOSITORY = Path(__file__).resolve().parent.parent


def noise(frames: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (frames, channels)).astype("f4")


def written(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Write samples (n, channels) as the file's ending says."""
    encoders = {
        ".mp3": ("libmp3lame", "stereo"),
        ".m4a": ("aac", "stereo"),
        ".webm": ("libopus", "stereo"),
        ".mka": ("pcm_f32le", {1: "mono", 2: "stereo", 6: "5.1"}.get(samples.shape[1], "")),
    }
    if path.suffix in encoders:
        return write_libav(path, np.ascontiguousarray(samples.T), rate, *encoders[path.suffix])
    subtypes = {".wav": "FLOAT", ".flac": "PCM_24", ".ogg": "VORBIS"}
    return write(path, samples, rate, subtype=subtypes[path.suffix])


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("ending", [".wav", ".flac", ".mka"])
def test_left_and_right_are_what_the_file_holds(tmp_path: Path, ending: str, rate: int) -> None:
    sound = noise(2 * rate, 2)
    got = audio.load(written(tmp_path / f"a{ending}", sound, rate), channels=2)
    assert got.dtype == np.float32
    assert got.shape == (32000, 2)
    for side in (0, 1):
        alone = sound[:, side] if rate == 16000 else soxr.resample(sound[:, side], rate, 16000)
        np.testing.assert_allclose(got[:, side], alone, atol=1e-6)


@pytest.mark.parametrize("ending", [".mp3", ".m4a", ".webm", ".ogg"])
def test_sides_are_not_mixed_up_where_coding_is_lossy(tmp_path: Path, ending: str) -> None:
    rate = 48000
    sound = np.stack([tone(3, rate, 440), tone(3, rate, 3000)], axis=1)
    got = audio.load(written(tmp_path / f"a{ending}", sound, rate), channels=2)[8000:40000]
    power = np.square(np.abs(np.fft.rfft(got, axis=0)))
    low, high = power[860:900].sum(axis=0), power[5980:6020].sum(axis=0)
    assert low[0] > 1000 * low[1]
    assert high[1] > 1000 * high[0]


@pytest.mark.parametrize("ending", [".wav", ".mka"])
def test_mono_is_heard_on_both_sides(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"a{ending}", noise(44100, 1), 44100)
    mono, stereo = audio.load(path), audio.load(path, channels=2)
    np.testing.assert_array_equal(stereo, np.stack([mono, mono], axis=1))


def test_what_mono_cancels_is_heard(tmp_path: Path) -> None:
    wave = noise(16000, 1)
    path = written(tmp_path / "a.wav", np.concatenate([wave, -wave], axis=1), 16000)
    assert not audio.load(path).any()
    np.testing.assert_array_equal(audio.load(path, channels=2)[:, :1], wave)


@pytest.mark.parametrize(("ending", "channels"), [(".wav", 3), (".wav", 6), (".mka", 6)])
def test_further_channels_go_to_both_sides(tmp_path: Path, ending: str, channels: int) -> None:
    sound = noise(5000, channels)
    path = written(tmp_path / f"a{ending}", sound, 16000)
    got = audio.load(path, channels=2)
    further = sound[:, 2:].astype("f8").sum(axis=1)
    for side in (0, 1):
        expected = (2 * sound[:, side] + further) / channels
        np.testing.assert_allclose(got[:, side], expected, atol=1e-6)
    np.testing.assert_allclose(got.mean(axis=1), audio.load(path), atol=1e-6)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3", ".mka"])
@pytest.mark.parametrize("part", [{}, {"start": 3.25, "end": 31.5}])
def test_blocks_are_to_the_bit_the_whole_and_each_side_alone(
    tmp_path: Path, ending: str, part: dict[str, float]
) -> None:
    rate = 44100
    path = written(tmp_path / f"a{ending}", noise(35 * rate, 2, seed=1), rate)
    blocks = list(audio.stream(path, channels=2, **part))
    assert len(blocks) > 2
    assert all(block.dtype == np.float32 and block.shape[1:] == (2,) for block in blocks)
    assert max(map(len, blocks)) <= 11 * audio.SAMPLE_RATE
    whole = np.concatenate(blocks)
    np.testing.assert_array_equal(audio.load(path, channels=2, **part), whole)
    at_source = audio.load(path, channels=2, rate=rate, **part)
    for side in (0, 1):
        alone = np.ascontiguousarray(at_source[:, side])
        np.testing.assert_array_equal(whole[:, side], soxr.resample(alone, rate, 16000))
    # Both at once are what each is.
    monos, stereos = zip(*audio.stream_both(path, **part), strict=True)
    assert list(map(len, monos)) == list(map(len, blocks))
    np.testing.assert_array_equal(np.concatenate(monos), audio.load(path, **part))
    np.testing.assert_array_equal(np.concatenate(stereos), whole)


def test_damage_in_the_middle_keeps_the_sides(tmp_path: Path) -> None:
    # FFmpeg takes over from libsndfile where a FLAC file is damaged.
    rate = 44100
    sound = np.stack([tone(40, rate, 440), tone(40, rate, 3000)], axis=1)
    path = written(tmp_path / "a.flac", sound, rate)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(path)
    got = audio.load(path, channels=2)
    assert len(got) > 38 * 16000
    for part in (got[:16000], got[-16000:]):
        peaks = np.abs(np.fft.rfft(part, axis=0)).argmax(axis=0)
        assert peaks.tolist() == pytest.approx([440, 3000], abs=2)


def test_what_is_no_sound_is_silence_in_its_channel_alone(tmp_path: Path) -> None:
    left = np.array([0.5, np.nan, np.inf, 3.5, -2e10, 0.25, 2e10], "f4")
    right = np.array([1, 1, 1, 1, 1, -np.inf, -2e10], "f4")
    path = written(tmp_path / "odd.wav", np.stack([left, right], axis=1), 16000)
    expected = [[0.5, 1], [0, 1], [0, 1], [3.5, 1], [0, 1], [0.25, 0], [0, 0]]
    np.testing.assert_array_equal(audio.load(path, channels=2), expected)
    (pair,) = audio.stream_both(path)
    np.testing.assert_array_equal(pair[0], audio.load(path))


def test_less_than_a_sample_is_a_sound_of_two_sides(tmp_path: Path) -> None:
    path = written(tmp_path / "one.wav", np.array([[0.5, -0.25]], "f4"), 192000)
    got = audio.load(path, channels=2, rate=100)
    assert got.shape == (1, 2)
    np.testing.assert_allclose(got, [[0.5, -0.25]], atol=1e-6)


def test_other_numbers_of_channels_are_refused_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(100, 2), 16000)
    for channels in (0, 3, -1):
        with pytest.raises(InvalidArgumentError, match=f"1 or 2, not {channels}"):
            audio.stream(path, channels=channels)
    with pytest.raises(InvalidArgumentError, match="later than start"):
        audio.stream_both(path, start=2, end=1)
    with pytest.raises(EmptyAudioError, match="after 5 s"):
        next(audio.stream_both(path, start=5))


MEMORY = """
import resource, sys
from audiosearch import audio
blocks = audio.stream_both(sys.argv[1])
count = len(next(blocks)[0])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count += sum(len(stereo) for _, stereo in blocks)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, after - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    path, minutes = tmp_path / "hour.wav", 60
    with soundfile.SoundFile(path, "w", 4000, 2, subtype="PCM_U8") as file:
        for _ in range(minutes):
            file.write(np.zeros((4000 * 60, 2), "f4"))
    before = os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)],
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep + before if before else ''}"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    samples, grown = map(int, done.stdout.split())
    assert samples == minutes * 60 * 16000  # 691 MB in one piece
    assert grown < 40_000
