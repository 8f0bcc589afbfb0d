"""Files that are missing, no sound, cut or damaged: errors that name them, or what is left."""

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
from audio_fixtures import pitch, tone, write, write_libav
from conftest import REPOSITORY
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
