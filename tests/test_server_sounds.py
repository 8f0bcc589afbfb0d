"""Sounds as the web app sends them: files, ranges of them, rendered clips."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from page_fixtures import client, library
from server_fixtures import ScriptedLibrary

from audiosearch.server.media import RANGE_BYTES

__all__ = ["client", "library"]


# --- Sound ------------------------------------------------------------------------------------


def test_indexed_file_is_sent_whole(client: FlaskClient, library: ScriptedLibrary) -> None:
    response = client.get("/recordings/2/audio")
    assert response.status_code == 200
    assert response.mimetype == "audio/wav"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.data == library.files[2].read_bytes()


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("0-1", 0, 2), ("100-199", 100, 200), ("1000-", 1000, None), ("-44", -44, None)],
)
def test_ranges_are_sent_as_asked(
    client: FlaskClient, library: ScriptedLibrary, asked: str, first: int, last: int | None
) -> None:
    whole = library.files[2].read_bytes()
    response = client.get("/recordings/2/audio", headers={"Range": f"bytes={asked}"})
    assert response.status_code == 206
    assert response.data == whole[first:last]
    start = first % len(whole)
    expected = f"bytes {start}-{start + len(response.data) - 1}/{len(whole)}"
    assert response.headers["Content-Range"] == expected


def test_range_beyond_the_file_is_refused(client: FlaskClient, library: ScriptedLibrary) -> None:
    size = library.files[2].stat().st_size
    response = client.get("/recordings/2/audio", headers={"Range": f"bytes={size}-"})
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{size}"


def test_long_ranges_come_in_parts_that_join_to_the_whole(
    client: FlaskClient, library: ScriptedLibrary, tmp_path: Path
) -> None:
    content = np.random.default_rng(0).bytes(2 * RANGE_BYTES + 12_345)
    library.files[2] = tmp_path / "long.mp3"
    library.files[2].write_bytes(content)
    received = b""
    while len(received) < len(content):
        response = client.get("/recordings/2/audio", headers={"Range": f"bytes={len(received)}-"})
        assert response.status_code == 206
        assert len(response.data) <= RANGE_BYTES
        received += response.data
    assert received == content


def test_unchanged_file_is_not_sent_again(client: FlaskClient) -> None:
    tag = client.get("/recordings/2/audio").headers["ETag"]
    again = client.get("/recordings/2/audio", headers={"If-None-Match": tag})
    assert again.status_code == 304


def test_file_that_is_gone_is_said_to_be_gone(
    client: FlaskClient, library: ScriptedLibrary
) -> None:
    library.files[2].unlink()
    library.files[3].unlink()
    for path in ("/recordings/2/audio", "/clips/3/audio.wav"):
        response = client.get(path)
        assert response.status_code == 404
        assert "is gone" in response.text
        assert "Index its folder again" in response.text


def test_clip_of_a_video_has_no_sound_here(client: FlaskClient) -> None:
    for path in ("/recordings/1/audio", "/clips/1/audio.wav"):
        response = client.get(path)
        assert response.status_code == 404
        assert "no sound file" in response.text


def test_rendered_clip_is_the_right_part_of_the_file(client: FlaskClient) -> None:
    response = client.get("/clips/3/audio.wav")
    assert response.mimetype == "audio/wav"
    with wave.open(io.BytesIO(response.data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        rate, frames = file.getframerate(), file.getnframes()
        samples = np.frombuffer(file.readframes(frames), "<i2") / 32767
    assert frames == pytest.approx(9.6 * rate, abs=2)
    # The same 440 Hz tone as in the file, at its level and in phase with its start at 9.6 s.
    time = 9.6 + np.arange(frames) / rate
    assert np.abs(samples - 0.5 * np.sin(2 * np.pi * 440 * time))[rate // 10 :].max() < 0.01
    part = client.get("/clips/3/audio.wav", headers={"Range": "bytes=44-143"})
    assert part.status_code == 206
    assert part.data == response.data[44:144]


def test_no_path_of_a_client_reaches_the_file_system(client: FlaskClient) -> None:
    for path in (
        "/recordings/..%2f..%2fetc%2fpasswd/audio",
        "/static/..%2fapp.py",
        "/static/../templates/base.html",
        "/recordings/2/audio/../../../etc/passwd",
    ):
        assert client.get(path).status_code == 404
