"""The web app on a real library of small sounds: uploads, players, twins."""

from __future__ import annotations

import html
import io
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from flask.testing import FlaskClient
from server_fixtures import make_own_library

import audiosearch
from audiosearch.labels import load_labels
from audiosearch.server import create_app
from audiosearch.server.limits import Limits
from audiosearch.server.present import query_of
from audiosearch.server.state import state_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_library(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[audiosearch.Library]:
    with audiosearch.open_library(folder / "library") as library:
        yield library


@pytest.fixture(scope="module")
def client(library: audiosearch.Library) -> Iterator[FlaskClient]:
    """One application for all tests: its worker processes start once."""
    app = create_app(library)
    yield app.test_client()
    state_of(app).close()


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files are made in."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    return spool


def upload(client: FlaskClient, content: bytes, name: str, path: str = "/examples", **options):
    return client.post(path, data={"file": (io.BytesIO(content), name)}, **options)


# --- Uploads ----------------------------------------------------------------------------------


def test_upload_is_tagged_and_its_nearest_clips_are_listed(
    client: FlaskClient, folder: Path, spool: Path
) -> None:
    content = (folder / "sounds" / "Büro 音.wav").read_bytes()
    response = upload(client, content, "Büro 音.wav")
    assert response.status_code == 200
    page = response.text
    assert "<h1>Büro 音.wav</h1>" in page
    assert "4 seconds" in page
    card, nearest = page.split("Nearest clips")
    assert card.count('<span class="score">') == 5
    # The same sound is in the library, so it is the nearest.
    first = nearest.split('<li class="hit"')[1]
    assert "Büro 音.wav" in first
    assert '<b class="score">1.00</b>' in first
    assert list(spool.iterdir()) == []


def test_upload_as_json_prints_the_one_serializer(
    client: FlaskClient, library: audiosearch.Library, folder: Path, spool: Path
) -> None:
    path = folder / "sounds" / "noise.wav"
    expected = library.similar(path, limit=20).to_dict()
    tags = audiosearch.tag(path).to_dict() | {"path": "noise.wav"}
    for answer in (
        upload(client, path.read_bytes(), "noise.wav", "/examples.json"),
        upload(client, path.read_bytes(), "noise.wav", headers={"Accept": "application/json"}),
    ):
        assert answer.status_code == 200
        assert answer.json == {**expected, "example": tags}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"this is no sound at all" * 100, "letter.wav"),
        (b"", "empty.wav"),
        (b"\x00" * 4096, "zeros"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00", "cut.wav"),
    ],
)
def test_file_that_is_no_sound_is_refused_with_the_reason(
    client: FlaskClient, spool: Path, content: bytes, name: str
) -> None:
    response = upload(client, content, name)
    assert response.status_code == 422
    assert name in response.text
    assert str(spool) not in response.text
    answer = upload(client, content, name, "/examples.json")
    assert answer.status_code == 422
    assert answer.json["error"].startswith(f"{name}: ")
    assert list(spool.iterdir()) == []


def test_request_without_a_file_is_refused(client: FlaskClient) -> None:
    assert client.post("/examples").status_code == 400
    assert client.post("/examples", data={"file": "text"}).status_code == 400
    assert upload(client, b"", "").status_code == 400


def test_file_beyond_the_limit_is_refused(
    library: audiosearch.Library, folder: Path, spool: Path
) -> None:
    client = create_app(library, limits=Limits(upload_bytes=100_000)).test_client()
    content = (folder / "sounds" / "noise.wav").read_bytes()
    response = upload(client, content, "noise.wav")
    assert response.status_code == 413
    assert "larger than 0.1 MB" in response.text
    assert upload(client, content, "noise.wav", "/examples.json").json["status"] == 413
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.wav", "passwd.wav"),
        ("<script>alert(1).wav", "&lt;script&gt;alert(1).wav"),
        ("x" * 300 + ".wav", "x" * 119 + "…"),
        ("dog.$(reboot)", "dog.$(reboot)"),
    ],
)
def test_name_of_an_upload_is_only_shown(
    client: FlaskClient, folder: Path, spool: Path, name: str, shown: str
) -> None:
    response = upload(client, (folder / "sounds" / "Büro 音.wav").read_bytes(), name)
    assert response.status_code == 200
    assert f"<h1>{shown}</h1>" in response.text
    assert list(spool.iterdir()) == []


def test_more_uploads_than_the_server_takes_are_turned_away(
    client: FlaskClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (folder / "sounds" / "Büro 音.wav").read_bytes()
    slots = threading.BoundedSemaphore(1)
    monkeypatch.setattr(state_of(client.application), "uploads", slots)
    with slots:
        response = upload(client, content, "a.wav")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "5"
        # Searching goes on.
        assert client.get("/search.json?q=Car").status_code == 200
    assert upload(client, content, "a.wav").status_code == 200


def test_slot_is_given_back_after_a_bad_file(client: FlaskClient) -> None:
    for _ in range(10):
        assert upload(client, b"no sound", "a.wav").status_code == 422


def test_reload_of_an_example_leads_to_the_front_page(client: FlaskClient) -> None:
    response = client.get("/examples")
    assert response.status_code == 303
    assert response.headers["Location"] == "/"


# --- Pages on a real library ------------------------------------------------------------------


def test_twins_equal_the_python_api(client: FlaskClient, library: audiosearch.Library) -> None:
    for query in ("Car", "vehicle -car", 'speech OR "police car"'):
        answer = client.get("/search.json", query_string={"q": query, "limit": 7, "offset": 2})
        expected = library.search(query, limit=7, offset=2).to_dict()
        assert answer.json == json.loads(json.dumps(expected))
    assert client.get("/similar/3.json").json == library.similar(3, limit=20).to_dict()
    assert client.get("/clip/3.json").json == library.clip(3).to_dict()


def test_every_class_has_a_link_that_finds_it(library: audiosearch.Library) -> None:
    for label in load_labels():
        found = library.search(query_of(label.name), limit=1)
        assert found.total >= 0
        if found.hits:
            assert found.hits[0].label


def test_every_indexed_sound_plays(client: FlaskClient, library: audiosearch.Library) -> None:
    played = set()
    for clip_id in range(library.info().clips):
        clip = library.clip(clip_id)
        if clip.source != "file":
            continue
        name = Path(clip.recording).name
        page = client.get(f"/clip/{clip_id}").text
        source = page.split('<audio id="sound" controls preload="metadata" src="')[1].split('"')[0]
        content = client.get(source.split("#")[0])
        assert content.status_code == 200
        with soundfile.SoundFile(io.BytesIO(content.data)) as file:
            assert file.frames > 0
        rendered = client.get(f"/clips/{clip_id}/audio.wav")
        with soundfile.SoundFile(io.BytesIO(rendered.data)) as file:
            seconds = file.frames / file.samplerate
        assert seconds == pytest.approx(clip.end - clip.start, abs=0.01)
        played.add(name)
    assert played == {"noise.wav", "<b>tone<b>.flac", "old.aiff", "Büro 音.wav"}


def test_packed_clips_show_their_true_labels(
    client: FlaskClient, library: audiosearch.Library
) -> None:
    hits = library.search("Speech", limit=100).hits
    packed = next(hit for hit in hits if hit.source == "audioset")
    assert packed.labels
    page = client.get(f"/clip/{packed.clip}").text
    assert " · ".join(packed.labels) in page
    assert f"youtube-nocookie.com/embed/{packed.recording}?start={int(packed.start)}" in page


def test_library_page_tells_what_was_skipped(client: FlaskClient) -> None:
    page = client.get("/about").text
    assert "broken.wav" in page
    assert "Skipped files" in page


@pytest.mark.parametrize("path", ["/?q=Car", "/similar/1", "/similar/1.json", "/search.json?q=Car"])
def test_far_offsets_are_cheap(client: FlaskClient, path: str) -> None:
    joint = "&" if "?" in path else "?"
    assert client.get(f"{path}{joint}offset=1000000000").status_code == 200


# --- The shipped library ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Iterator[FlaskClient]:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        app = create_app(library)
        yield app.test_client()
        state_of(app).close()


def test_shipped_library_is_announced_as_the_demo(shipped: FlaskClient) -> None:
    assert "10,148 clips of 10,148 recordings" in shipped.get("/").text
    assert "the demo library" in shipped.get("/").text


def test_every_hit_of_the_shipped_library_has_a_player_tags_and_labels(
    shipped: FlaskClient,
) -> None:
    page = shipped.get("/?q=Car").text
    assert len(page) < 100_000
    hits = page.split('<li class="hit"')[1:]
    assert len(hits) == 20
    for hit in hits:
        assert "youtube-nocookie.com/embed/" in hit
        assert "True labels" in hit
        assert hit.count("<li") == 5


def test_row_350_of_the_shipped_library(shipped: FlaskClient) -> None:
    row = shipped.get("/clip/350.json").json
    assert row["clip"] == 350
    assert row["source"] == "audioset"
    page = shipped.get("/clip/350").text
    assert row["recording"] in page
    assert " · ".join(row["labels"]) in html.unescape(page)


def test_upload_finds_its_like_in_the_shipped_library(
    shipped: FlaskClient, folder: Path, spool: Path
) -> None:
    content = (folder / "sounds" / "noise.wav").read_bytes()
    answer = upload(shipped, content, "noise.wav", "/examples.json")
    assert answer.status_code == 200
    assert len(answer.json["hits"]) == 20
    assert len(answer.json["example"]["tags"]) == 5
    assert list(spool.iterdir()) == []
