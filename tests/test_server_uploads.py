"""What is taken from a client and what is given: limits of uploads, and files by number only."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from flask import Flask
from flask.testing import FlaskClient
from server_fixtures import make_own_library

import audiosearch as aus
from audiosearch.server import create_app
from audiosearch.server.limits import Limits
from audiosearch.server.state import state_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_library(tmp_path_factory.mktemp("uploads"))


@pytest.fixture
def library(folder: Path) -> Iterator[aus.Library]:
    with aus.open_library(folder / "library") as library:
        yield library


UPLOADS = ("/api/v1/tag", "/api/v1/similar", "/examples.json", "/examples/peaks.json",
           "/examples/add.json")  # fmt: skip


def upload(client: FlaskClient, content: bytes, to: str, **options: object):
    return client.post(to, data={"file": (io.BytesIO(content), "a.wav")}, **options)


# --- Limits of uploads ------------------------------------------------------------------------


def test_sound_longer_than_the_limit_is_refused(library: aus.Library, folder: Path) -> None:
    app = create_app(library, limits=Limits(upload_seconds=20.0))
    client = app.test_client()
    try:
        long = (folder / "sounds" / "noise.wav").read_bytes()  # 25 s
        for to in UPLOADS:
            answer = upload(client, long, to)
            assert answer.status_code == 422
            assert "longer than 20 s" in answer.text
        short = (folder / "sounds" / "Büro 音.wav").read_bytes()  # 4 s
        whole = upload(client, short, "/api/v1/tag")
        assert whole.status_code == 200
        assert whole.json["end"] == 4.0
    finally:
        state_of(app).close()


def test_uploads_of_a_client_are_limited_and_told_when_to_come_again(
    library: aus.Library,
) -> None:
    client = create_app(library, limits=Limits(uploads_a_minute=3)).test_client()
    for to in ("/api/v1/tag", "/api/v1/similar", "/examples"):
        assert client.post(to).status_code == 400
    for to in (*UPLOADS, "/examples/add"):
        answer = upload(client, b"x" * 100, to)
        assert answer.status_code == 429, to
        assert 1 <= int(answer.headers["Retry-After"]) <= 20
    # Another client, and everything that is no upload, goes on.
    other = {"REMOTE_ADDR": "192.0.2.9"}
    assert client.post("/api/v1/tag", environ_overrides=other).status_code == 400
    assert client.get("/api/v1/search?q=noise").status_code == 200


def test_only_uploads_may_be_long(library: aus.Library) -> None:
    client = create_app(library, token="secret").test_client()
    long = {"token": "x" * 300_000}
    assert client.post("/sign-in", data=long).status_code == 413
    headers = {"Authorization": "Bearer secret"}
    body = b"x" * 300_000
    assert client.post("/api/v1/labels", data=body, headers=headers).status_code in (413, 415)
    assert client.post("/labels.json", data=long, headers=headers).status_code == 413
    assert client.post("/health", data=body, headers=headers).status_code == 405


def test_unknown_visitor_cannot_upload(library: aus.Library) -> None:
    client = create_app(library, token="secret").test_client()
    for to in (*UPLOADS, "/examples/add"):
        assert upload(client, b"x" * 300_000, to).status_code == 401
    for to in ("/labels", "/labels.json"):
        assert client.post(to, data={"confirm": "0:::Car"}).status_code == 401
    assert library.labels() == []


def test_file_larger_than_the_limit_is_a_problem(library: aus.Library) -> None:
    client = create_app(library, limits=Limits(upload_bytes=100_000)).test_client()
    answer = upload(client, b"x" * 200_000, "/api/v1/tag")
    assert (answer.status_code, answer.mimetype) == (413, "application/problem+json")
    for to in UPLOADS:
        assert upload(client, b"x" * 200_000, to).status_code == 413, to
    assert not (Path(library.folder) / "added").exists()


def test_every_upload_takes_one_of_the_places_of_the_server(library: aus.Library) -> None:
    app = create_app(library, limits=Limits(uploads_at_once=1))
    client = app.test_client()
    with state_of(app).uploads:
        for to in UPLOADS:
            answer = upload(client, b"x" * 100, to)
            assert answer.status_code == 503, to
            assert int(answer.headers["Retry-After"]) > 0


# --- Files by number only ---------------------------------------------------------------------


@pytest.fixture
def linked(good_folder: Path, tmp_path: Path) -> Iterator[tuple[Flask, aus.Library, Path]]:
    """A library of a folder that holds a link to a sound outside of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (good_folder / "tone.wav").rename(outside / "tone.wav")
    (good_folder / "linked.wav").symlink_to(outside / "tone.wav")
    aus.index(good_folder, tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        yield create_app(library), library, good_folder


def recording(library: aus.Library, name: str) -> int:
    clips = range(library.info().clips)
    found = [library.clip(number) for number in clips]
    return next(clip.recording_id for clip in found if clip.recording.endswith(name))


def test_link_that_was_indexed_is_followed(linked: tuple[Flask, aus.Library, Path]) -> None:
    app, library, sounds = linked
    number = recording(library, "linked.wav")
    answer = app.test_client().get(f"/recordings/{number}/audio")
    assert answer.status_code == 200
    assert answer.data == (sounds / "linked.wav").read_bytes()


def test_link_that_leads_elsewhere_now_is_not_served(
    linked: tuple[Flask, aus.Library, Path], tmp_path: Path
) -> None:
    app, library, sounds = linked
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret of this machine")
    plain = recording(library, "silence.wav")
    for name, number in (("linked.wav", recording(library, "linked.wav")), ("silence.wav", plain)):
        (sounds / name).unlink()
        (sounds / name).symlink_to(secret)
        for path in (f"/recordings/{number}/audio", f"/api/v1/recordings/{number}/audio"):
            answer = app.test_client().get(path)
            assert answer.status_code == 404
            assert "secret of this machine" not in answer.text
    # The same with a folder on the way.
    number = recording(library, "noise.flac")
    other = tmp_path / "other"
    other.mkdir()
    (other / "noise.flac").write_text("the secret of this machine")
    (sounds / "nested").rename(sounds / "before")
    (sounds / "nested").symlink_to(other)
    answer = app.test_client().get(f"/recordings/{number}/audio")
    assert answer.status_code == 404
    assert "secret of this machine" not in answer.text


def test_file_that_was_changed_in_its_place_is_served(
    linked: tuple[Flask, aus.Library, Path],
) -> None:
    app, library, sounds = linked
    path = sounds / "silence.wav"
    path.write_bytes(path.read_bytes() + b"tags")
    number = recording(library, "silence.wav")
    assert app.test_client().get(f"/recordings/{number}/audio").data == path.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/recordings/../../../../etc/passwd",
        "/recordings/..%2f..%2f..%2fetc%2fpasswd/audio",
        "/api/v1/recordings/%2e%2e%2f%2e%2e%2fetc%2fpasswd/audio",
        "/api/v1/clips/1%00/audio",
        "/api/v1/recordings/1/audio/..%2f..%2fsecret",
        "/static/..%2f..%2fpyproject.toml",
        "/static/%2e%2e/templates/base.html",
        "/static//etc/passwd",
    ],
)
def test_no_path_reaches_a_file(library: aus.Library, path: str) -> None:
    answer = create_app(library).test_client().get(path)
    assert answer.status_code in (308, 404)
    assert b"root:" not in answer.data
    assert b"[project]" not in answer.data
    assert b"{%" not in answer.data


def test_skipped_file_has_no_number_to_ask_for(library: aus.Library) -> None:
    assert any(each.path.endswith("broken.wav") for each in map(_shown, library.skipped()))
    client = create_app(library).test_client()
    served = set()
    for number in range(library.info().recordings + 20):
        answer = client.get(f"/recordings/{number}/audio")
        if answer.status_code == 200:
            served.add(answer.data[:15])
    assert served
    assert b"no sound at all" not in served


def _shown(skipped: object) -> object:
    class Shown:
        path = str(skipped.path)  # type: ignore[attr-defined]

    return Shown


# --- The document of all this -----------------------------------------------------------------


def test_every_claim_of_the_security_document_names_its_tests() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`test_" in line]
    claims = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not re.match(r"\| (claim|option|what) ", line)
    ]
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").glob("test_*.py")
    )
    assert len(rows) >= 20
    for row in rows:
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in tests, name
    in_claims = text.partition("## Claims and their tests")[2].partition("\n## ")[0]
    for line in claims:
        if line in in_claims:
            assert "`test_" in line, line
