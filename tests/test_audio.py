"""Decoding: every container, the same samples in blocks as whole, and errors that name the file."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from audio_fixtures import tone, write, write_libav
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from audiosearch import audio
from audiosearch.errors import (
    AudioDecodeError,
    AudioError,
    AudioNotFoundError,
    EmptyAudioError,
    InvalidArgumentError,
)

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLES = {".wav": "FLOAT", ".flac": "PCM_24", ".ogg": "VORBIS", ".aiff": "PCM_24", ".w64": "FLOAT"}


def pitch(samples: np.ndarray) -> float:
    middle = samples[len(samples) // 4 :][: len(samples) // 2] * np.hanning(len(samples) // 2)
    return float(np.argmax(np.abs(np.fft.rfft(middle))) * audio.SAMPLE_RATE / len(middle))


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


def test_a_missing_file_and_a_folder_are_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "no.wav", tmp_path, tmp_path / "no" / "no.wav", "nul\0.wav"):
        with pytest.raises(AudioNotFoundError):
            audio.stream(path)  # at once, not when it is read


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello\n" * 1000, b"RIFF\x24\0\0\0WAVE", bytes(range(256)) * 40]
)
@pytest.mark.parametrize("ending", [".wav", ".mp3", ".m4a", ".flac", ".raw"])
def test_what_is_not_audio_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"bad{ending}"
    path.write_bytes(content)
    with pytest.raises(AudioDecodeError) as caught:
        audio.load(path)
    assert str(path) in str(caught.value)
    if not content:
        assert "empty" in caught.value.reason


def test_a_picture_has_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "cover.m4a"
    with av.open(str(path), "w", format="mjpeg") as container:
        track = container.add_stream("mjpeg", rate=1)
        track.width, track.height, track.pix_fmt = 32, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    with pytest.raises(AudioDecodeError, match="no sound track"):
        audio.load(path)


def test_zero_samples_are_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "zero.wav", np.zeros(0, "f4"), 16000)
    with pytest.raises(EmptyAudioError):
        audio.load(path)
    second = write(tmp_path / "second.wav", np.zeros(16000, "f4"), 16000)
    with pytest.raises(EmptyAudioError, match="after 1 s"):
        audio.load(second, start=1.0)
    assert len(audio.load(second, start=0.5, end=9)) == 8000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioDecodeError, match="regular"):
        audio.load(tmp_path / "pipe.wav")


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "secret.wav", tone(1, 16000), 16000)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Chmod would not stop a test that runs as root.
    monkeypatch.setattr(audio, "open", refuse, raising=False)
    with pytest.raises(AudioDecodeError, match="permission"):
        audio.load(path)


@pytest.mark.parametrize(
    "window",
    [
        {"start": -0.1},
        {"start": float("nan")},
        {"start": float("inf")},
        {"end": 0.0},
        {"start": 2.0, "end": 2.0},
        {"start": 2.0, "end": 1.0},
        {"end": float("inf")},
        {"rate": 0},
        {"rate": -16000},
        {"rate": 16000.5},
        {"rate": float("nan")},
    ],
)
def test_impossible_windows_are_refused(tmp_path: Path, window: dict[str, float]) -> None:
    path = write(tmp_path / "a.wav", tone(3, 16000), 16000)
    with pytest.raises(InvalidArgumentError):
        audio.stream(path, **window)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3", ".mka"])
def test_a_file_cut_in_half_gives_about_half(tmp_path: Path, ending: str) -> None:
    sound = np.random.default_rng(3).normal(0, 0.1, 44100 * 30).astype("f4")
    path = tmp_path / f"cut{ending}"
    if ending in (".mp3", ".mka"):
        codec = "flac" if ending == ".mka" else "libmp3lame"
        write_libav(path, sound[None], 44100, codec, "mono")
    else:
        write(path, sound, 44100)
    whole = audio.load(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    part = audio.load(path)
    assert len(part) / len(whole) == pytest.approx(0.5, abs=0.05)
    same = part[: len(part) - 4000]
    np.testing.assert_allclose(same, whole[: len(same)], atol=1e-3)


def test_damage_in_the_middle_does_not_lose_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "scratched.flac", tone(30, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    path.write_bytes(content)
    got = audio.load(path)
    assert len(got) / 16000 == pytest.approx(30, abs=1.5)
    assert pitch(got[-4 * 16000 :]) == pytest.approx(440, abs=1)


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


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    sound = np.random.default_rng(4).normal(0, 0.1, 4000).astype("f4")
    files = {e: write(folder / f"a.{e}", sound, 8000) for e in ("wav", "flac", "ogg", "aiff")}
    long = np.tile(sound, 6)[None]
    files["mp3"] = write_libav(folder / "a.mp3", long, 48000, "libmp3lame", "mono")
    files["m4a"] = write_libav(folder / "a.m4a", long, 48000, "aac", "mono")
    files["webm"] = write_libav(folder / "a.webm", long, 48000, "libopus", "mono")
    return {ending: path.read_bytes() for ending, path in files.items()}


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ending=st.sampled_from(["wav", "flac", "ogg", "aiff", "mp3", "m4a", "webm"]),
    keep=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    tail=st.binary(max_size=100),
)
@example(ending="m4a", keep=1.0, changes=[], tail=b"")
def test_foreign_bytes_raise_audio_errors_only(
    seeds: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    ending: str,
    keep: float,
    changes: list[tuple[float, int]],
    tail: bytes,
) -> None:
    content = bytearray(seeds[ending])
    content = content[: round(keep * len(content))]
    for place, value in changes:
        if content:
            # Squared, so that headers get more than their share.
            content[int(place**2 * (len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / f"fuzz.{ending}"
    path.write_bytes(bytes(content) + tail)
    with contextlib.suppress(AudioError):
        got = audio.load(path, end=60)
        assert len(got)
        assert np.isfinite(got).all()


def test_decoders_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sound = np.random.default_rng(5).normal(0, 0.1, 48000 * 4).astype("f4")
    for name, codec in (("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.mka", "flac")):
        path = write_libav(tmp_path / name, sound[None], 48000, codec, "mono")
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 999] = b"\xff" * 999
        path.write_bytes(content)
        audio.load(path)
        path.write_bytes(content[100:])
        with contextlib.suppress(AudioError):
            audio.load(path)
    assert capfd.readouterr() == ("", "")


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


ODD = """
import json, sys
import numpy as np
from audiosearch import audio
from audiosearch.errors import AudioError
for line in sys.stdin:
    name = json.loads(line)
    try:
        got = audio.load(name)
        result = len(got) if np.isfinite(got).all() else "not finite"
    except AudioError as error:
        result = type(error).__name__
    print(json.dumps([name, result]), flush=True)
"""


@pytest.mark.data
def test_odd_files_decode_or_raise_audio_errors(data_dir: Path) -> None:
    folder = data_dir / "odd"
    with (folder / "INDEX.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    names = [name for name in rows if (folder / name).is_file()]
    assert len(names) > 150
    path = os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-c", ODD],
        input="".join(json.dumps(str(folder / name)) + "\n" for name in names),
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep + path if path else ''}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    results = {
        Path(name).name: result for name, result in map(json.loads, done.stdout.splitlines())
    }
    assert list(results) == names
    for name, result in results.items():
        row = rows[name]
        if "zero-frames" in row["tags"]:
            assert result == "EmptyAudioError", name
        elif row["libsndfile_decodes"] == "yes" or name.startswith("valid_opus"):
            assert isinstance(result, int), (name, result)
            assert result > 0, name
        else:
            assert isinstance(result, int) or result in ("AudioDecodeError", "EmptyAudioError"), (
                name
            )
    decoded = [name for name, row in rows.items() if "ffmpeg-ok" in row["tags"]]
    # Tracker modules need a library that PyAV is not built with.
    missing = [n for n in decoded if n in results and not isinstance(results[n], int)]
    assert all(name.endswith((".mod", ".xm")) for name in missing), missing
