"""Decoding: every container, the same samples in blocks as whole; and which files a folder has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from audio_fixtures import pitch, tone, write, write_libav
from conftest import REPOSITORY

from audiosearch import audio
from audiosearch.errors import AudioDecodeError, AudioNotFoundError

SAMPLES = {".wav": "FLOAT", ".flac": "PCM_24", ".ogg": "VORBIS", ".aiff": "PCM_24", ".w64": "FLOAT"}


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("ending", SAMPLES)
def test_gives_what_the_file_holds_at_16_khz(tmp_path: Path, ending: str, rate: int) -> None:
    sound = tone(2.5, rate)
    path = write(tmp_path / f"tone{ending}", sound, rate, subtype=SAMPLES[ending])
    got = audio.load(path)
    assert got.dtype == np.float32
    assert got.shape == (40000,)
    expected = sound if rate == 16000 else soxr.resample(sound, rate, 16000)
    tolerance = 0.04 if ending == ".ogg" else 1e-6
    np.testing.assert_allclose(got, expected, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.m4a", "aac", "mono"),
        ("a.mp4", "aac", "stereo"),
        ("a.webm", "libopus", "stereo"),
        ("a.mka", "flac", "stereo"),
        ("a.mp3", "libmp3lame", "stereo"),
        ("a.wma", "wmav2", "stereo"),
        ("a.mov", "pcm_s16le", "mono"),
        ("a.mkv", "pcm_s32le", "mono"),
        ("a.avi", "pcm_u8", "mono"),
        ("eight.m4a", "aac", "7.1"),
        ("eight.mka", "pcm_f32le", "7.1"),
    ],
)
def test_reads_what_only_ffmpeg_can(tmp_path: Path, name: str, codec: str, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    path = write_libav(
        tmp_path / name, np.tile(tone(3, 48000), (channels, 1)), 48000, codec, layout
    )
    got = audio.load(path)
    assert len(got) == pytest.approx(48000, abs=2000)  # encoders pad to whole packets
    assert pitch(got) == pytest.approx(440, abs=1)
    assert np.sqrt(np.square(got[8000:40000]).mean()) == pytest.approx(0.3536, rel=0.1)


def test_takes_the_first_sound_track_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        first = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        second = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
        for track, hertz in ((first, 500), (second, 2000)):
            frame = av.AudioFrame.from_ndarray(tone(1, 16000, hertz)[None], "flt", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(track.encode(frame))
        for track in (video, first, second):
            container.mux(track.encode(None))
    assert pitch(audio.load(path)) == pytest.approx(500, abs=2)


def test_averages_channels_with_equal_weights(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sound = random.uniform(-1, 1, (5000, 7)).astype("f4")
    path = write(tmp_path / "seven.wav", sound, 16000, subtype="FLOAT")
    np.testing.assert_allclose(audio.load(path), sound.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("name", ["long.wav", "long.flac", "long.ogg", "long.mp3", "long.mka"])
def test_blocks_are_short_and_equal_one_resampling_of_the_whole(tmp_path: Path, name: str) -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, (44100 * 41, 2)).astype("f4")
    if name.endswith(("mp3", "mka")):
        codec = "libmp3lame" if name.endswith("mp3") else "flac"
        path = write_libav(tmp_path / name, np.ascontiguousarray(sound.T), 44100, codec, "stereo")
    else:
        path = write(tmp_path / name, sound, 44100)
    blocks = list(audio.stream(path))
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    assert max(map(len, blocks)) <= 11 * audio.SAMPLE_RATE
    assert len(blocks) > 3
    whole = audio.load(path)
    at_source = audio.load(path, rate=44100)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    np.testing.assert_array_equal(whole, soxr.resample(at_source, 44100, 16000))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("s.wav", None),
        ("s.flac", None),
        ("s.ogg", None),
        ("s.mp3", "libmp3lame"),
        ("s.m4a", "aac"),
        ("s.mka", "flac"),
        ("s.webm", "libopus"),
    ],
)
@pytest.mark.parametrize(("start", "end"), [(0, 2.5), (3.25, 4.75), (17.125, 19.5), (24.0, None)])
def test_a_part_is_that_part(
    tmp_path: Path, name: str, codec: str | None, start: float, end: float | None
) -> None:
    # A rising sweep: every moment differs from every other.
    time = np.arange(26 * 48000) / 48000
    sound = (0.4 * np.sin(2 * np.pi * (200 * time + 40 * time**2))).astype("f4")
    if codec is None:
        path = write(tmp_path / name, sound, 48000)
    else:
        path = write_libav(tmp_path / name, sound[None], 48000, codec, "mono")
    whole = audio.load(path, rate=48000)
    part = audio.load(path, start=start, end=end, rate=48000)
    first = round(start * 48000)
    expected = whole[first : None if end is None else round(end * 48000)]
    # WebM stores milliseconds: up to 24 samples at 48 kHz.
    slack = 26 if name.endswith("webm") else 0
    assert abs(len(part) - len(expected)) <= slack
    middle = part[1000 : len(part) - 1000]
    nearest = min(
        np.abs(middle - whole[first + 1000 + shift :][: len(middle)]).max()
        for shift in range(-slack, slack + 1)
    )
    assert nearest < (0.02 if name.endswith(("webm", "mp3", "m4a", "ogg")) else 1e-6)


def test_a_part_of_a_long_file_costs_a_part_of_the_work(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", np.zeros(16000 * 600, "f4"), 16000)
    assert sum(map(len, audio.stream(path, start=500, end=501))) == 16000
    assert len(list(audio.stream(path, start=500, end=501))) == 1


def test_what_is_no_sound_becomes_silence_and_loud_stays(tmp_path: Path) -> None:
    sound = np.array([0.5, np.nan, np.inf, -np.inf, 3.5, -2.0, 1e38, 0.25], "f4")
    path = write(tmp_path / "odd.wav", sound, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.load(path), [0.5, 0, 0, 0, 3.5, -2, 0, 0.25])
    stereo = write(tmp_path / "odd2.wav", np.stack([sound, np.ones(8, "f4")], 1), 16000,
                   subtype="FLOAT")  # fmt: skip
    np.testing.assert_array_equal(audio.load(stereo), [0.75, 0.5, 0.5, 0.5, 2.25, -0.5, 0.5, 0.625])


@pytest.mark.parametrize("rate", [16000, 8000, 48000, 44100])
def test_one_sample_is_a_sound(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "one.wav", np.array([0.5], "f4"), rate, subtype="FLOAT")
    assert len(audio.load(path)) >= 1


@pytest.mark.parametrize("name", ["tone.wav", "Büro 音 🔔.flac", "new\nline.ogg", "-dash.wav"])
def test_any_name_works(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "plain.wav", tone(0.5, 16000), 16000)
    named = tmp_path / name
    path.rename(named)
    assert len(audio.load(named)) == 8000
    assert len(audio.load(str(named))) == 8000


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not text exist on Linux only")
@pytest.mark.parametrize(("ending", "codec"), [(".wav", None), (".m4a", "aac")])
def test_a_name_that_is_not_text_works(tmp_path: Path, ending: str, codec: str | None) -> None:
    plain = tmp_path / f"plain{ending}"
    if codec is None:
        write(plain, tone(1, 16000), 16000)
    else:
        write_libav(plain, tone(1, 16000)[None], 16000, codec, "mono")
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9" + ending.encode()))
    plain.rename(named)
    assert len(audio.load(named)) >= 16000
    assert audio.find_audio(tmp_path) == [named]
    named.write_bytes(b"no sound")
    with pytest.raises(AudioDecodeError, match=r"udce9") as caught:
        audio.load(named)
    str(caught.value).encode("utf-8")


def test_find_audio_is_sorted_and_survives_what_folders_hold(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.mp3", "sub/c.Mp4", "sub/deep/d.webm", "sub.wav/e.flac",
                 ".hidden.wav", ".git/f.wav", "sub/.x/g.wav", "notes.txt", "wav"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "h.ogg").touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again").symlink_to(tmp_path / "sub", target_is_directory=True)
    (tmp_path / "link").symlink_to(outside, target_is_directory=True)
    (tmp_path / "outside2").symlink_to(outside, target_is_directory=True)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    found = [path.relative_to(tmp_path).as_posix() for path in audio.find_audio(tmp_path)]
    assert found == [
        "a.mp3", "b.WAV", "link/h.ogg", "sub/c.Mp4", "sub/deep/d.webm", "sub.wav/e.flac",
    ]  # fmt: skip


def test_find_audio_reports_folders_that_it_cannot_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.wav").touch()
    scandir = os.scandir

    def refuse(place: Path) -> object:
        if Path(place).name == "locked":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    errors: list[OSError] = []
    assert audio.find_audio(tmp_path, on_error=errors.append) == [tmp_path / "a.wav"]
    assert [Path(error.filename).name for error in errors] == ["locked"]
    assert audio.find_audio(tmp_path) == [tmp_path / "a.wav"]


def test_find_audio_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    for path in (tmp_path / "none", tmp_path / "a.wav"):
        with pytest.raises(AudioNotFoundError):
            audio.find_audio(path)


def test_extensions_are_lower_case_with_a_dot() -> None:
    assert all(name == name.lower() and name.startswith(".") for name in audio.AUDIO_EXTENSIONS)
    assert {".wav", ".mp3", ".m4a", ".mkv", ".webm", ".avi", ".mov"} <= audio.AUDIO_EXTENSIONS


MEMORY = """
import resource, sys
from audiosearch import audio
first = next(blocks := audio.stream(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = len(first) + sum(map(len, blocks))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, after - before)
"""


def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    path = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep + path if path else ''}"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux only")
@pytest.mark.parametrize("ending", [".wav", ".mka"])
def test_memory_does_not_grow_with_length(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"hours{ending}"
    hours = 3
    if ending == ".wav":
        with soundfile.SoundFile(path, "w", 4000, 1, subtype="PCM_U8") as file:
            for _ in range(hours * 60):
                file.write(np.zeros(4000 * 60, "f4"))
    else:
        write_libav(path, np.zeros((1, 4000 * 3600 * hours), "f4"), 4000, "pcm_s16le", "mono")
    done = run(MEMORY, path)
    assert done.returncode == 0, done.stderr
    samples, grown = map(int, done.stdout.split())
    assert samples == hours * 3600 * 16000  # 691 MB in one piece
    assert grown < 40_000
