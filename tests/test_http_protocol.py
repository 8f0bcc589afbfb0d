"""The HTTP API as a server: problems, methods, what need not be sent, ranges, and figures."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
import soundfile
from flask.testing import FlaskClient
from server_fixtures import (
    PROBLEM,
    ScriptedLibrary,
    a_clip_of,
    app,
    client,
    folder,
    library,
    upload,
    valid,
    video,
)

import audiosearch as aus
from audiosearch.server import create_app
from audiosearch.server.limits import Limits
from audiosearch.server.state import state_of

__all__ = ["app", "client", "folder", "library"]


# --- Errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/search", 400),
        ("GET", "/api/v1/search?q=", 400),
        ("GET", "/api/v1/search?q=dog&limt=3", 400),
        ("GET", "/api/v1/search?q=dog&q=cat", 400),
        ("GET", "/api/v1/search?q=dog&limit=", 400),
        ("GET", "/api/v1/search?q=dog&fold=2", 400),
        ("GET", "/api/v1/similar?clip=1:0", 400),
        ("GET", "/api/v1/similar?" + "clip=1&" * 51, 400),
        ("GET", "/api/v1/clips/999999999", 404),
        ("GET", "/api/v1/clips/99999999999999999999", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v2/search", 404),
        ("POST", "/api/v1/tag", 400),
        ("DELETE", "/api/v1/labels", 405),
    ],
)
def test_errors_are_problems(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.mimetype) == (status, PROBLEM)
    valid(answer.json, "Problem")
    assert answer.json["status"] == status
    assert answer.json["type"] == "about:blank"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"clip": "0", "label": "Dog", "action": "confirm"}', "application/json", 400),
        (
            b'{"clip": 1' + b"0" * 400 + b', "label": "Dog", "action": "confirm"}',
            "application/json",
            400,
        ),
        (
            b'{"clip": 0, "label": "Dog", "action": "confirm", "start": 1' + b"0" * 400 + b"}",
            "application/json",
            400,
        ),
        (b'{"clip": true, "label": "Dog", "action": "confirm"}', "application/json", 400),
        (b'{"clip": 0, "label": "Dog", "action": "shout"}', "application/json", 400),
        (b'{"clip": 0, "label": "Dog", "action": "confirm", "x": 1}', "application/json", 400),
        (
            b'{"clip": 0, "label": "Dog", "action": "confirm", "start": NaN}',
            "application/json",
            400,
        ),
        (b'{"clip": 0, "label": "Dog", "action": "confirm"}', "text/plain", 415),
        (b" " * 300_000, "application/json", 413),
    ],
)
def test_bodies_that_cannot_be_are_refused(
    client: FlaskClient, body: bytes, kind: str, status: int
) -> None:
    answer = client.post("/api/v1/labels", data=body, content_type=kind)
    assert (answer.status_code, answer.mimetype) == (status, PROBLEM)
    valid(answer.json, "Problem")


def test_query_error_says_where_and_what_was_meant(client: FlaskClient) -> None:
    answer = client.get("/api/v1/search?q=dog+trumpett")
    assert answer.mimetype == PROBLEM
    valid(answer.json, "Problem")
    assert answer.json["position"] == 4
    assert "Trumpet" in answer.json["suggestions"]
    # Its type leads to the words that explain it.
    path, _, anchor = answer.json["type"].partition("#")
    assert f'id="{anchor}"' in client.get(path).text


def test_mistake_of_ours_is_a_problem_without_internals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = ScriptedLibrary([video(1)])

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(scripted, "search", broken)
    answer = create_app(scripted).test_client().get("/api/v1/search?q=Car")
    assert (answer.status_code, answer.mimetype) == (500, PROBLEM)
    assert "secret detail" not in answer.text


def test_wrong_method_says_which_are_right(client: FlaskClient) -> None:
    answer = client.delete("/api/v1/search")
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    both = client.delete("/api/v1/similar").headers["Allow"]
    assert set(both.split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


def test_options_and_head_are_answered(client: FlaskClient) -> None:
    options = client.options("/api/v1/labels")
    assert options.status_code == 200
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    get = client.get("/api/v1/clips/0")
    head = client.head("/api/v1/clips/0")
    assert head.status_code == 200
    assert head.data == b""
    for name in ("Content-Length", "Content-Type", "ETag"):
        assert head.headers[name] == get.headers[name]


# --- What need not be sent --------------------------------------------------------------------


def test_unchanged_answer_is_not_searched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = ScriptedLibrary([video(1), video(2)])
    client = create_app(scripted).test_client()
    tag = client.get("/api/v1/search?q=Car").headers["ETag"]
    again = {"If-None-Match": tag}

    def broken(*args: object, **options: object) -> None:
        raise AssertionError("it was searched")

    with monkeypatch.context() as patch:
        patch.setattr(scripted, "search", broken)
        unchanged = client.get("/api/v1/search?q=Car", headers=again)
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert unchanged.headers["ETag"] == tag
    assert client.get("/api/v1/search?q=Car&limit=1", headers=again).status_code == 200
    assert client.get("/api/v1/search?q=Car", headers={"If-None-Match": '"x"'}).status_code == 200
    # Another revision of the library has another answer.
    scripted.hits.append(video(3))
    changed = client.get("/api/v1/search?q=Car", headers=again)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_errors_have_no_tag(client: FlaskClient) -> None:
    assert "ETag" not in client.get("/api/v1/search?q=trumpett").headers
    refused = client.get("/api/v1/search?q=trumpett", headers={"If-None-Match": "*"})
    assert refused.status_code == 400


def test_label_changes_the_tag(good_folder: Path, tmp_path: Path) -> None:
    aus.index(good_folder, tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        client = create_app(library).test_client()
        tag = client.get("/api/v1/clips/0").headers["ETag"]
        client.post("/api/v1/labels", json={"clip": 0, "label": "Dog", "action": "confirm"})
        after = client.get("/api/v1/clips/0", headers={"If-None-Match": tag})
        assert after.status_code == 200
        assert after.json["corrections"]


def test_texts_are_compressed_where_the_client_takes_it(client: FlaskClient) -> None:
    for path in ("/api/v1/search?q=noise+OR+music", "/?q=noise+OR+music", "/api/v1/openapi.json"):
        plain = client.get(path)
        packed = client.get(path, headers={"Accept-Encoding": "gzip, br"})
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert len(packed.data) < len(plain.data) / 2
        assert "Accept-Encoding" in packed.headers["Vary"]
        assert "Accept-Encoding" in plain.headers["Vary"]
        assert int(packed.headers["Content-Length"]) == len(packed.data)
        if path.startswith("/api"):
            assert gzip.decompress(packed.data) == plain.data
        assert (
            "Content-Encoding"
            not in client.get(path, headers={"Accept-Encoding": "gzip;q=0, identity"}).headers
        )


def test_static_files_are_compressed_and_known_again(client: FlaskClient) -> None:
    plain = client.get("/static/app.css")
    packed = client.get("/static/app.css", headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.data) == plain.data
    tag = packed.headers["ETag"]
    assert tag.startswith("W/")
    again = {"Accept-Encoding": "gzip", "If-None-Match": tag}
    assert client.get("/static/app.css", headers=again).status_code == 304


def test_sound_is_sent_as_it_is_and_in_ranges(client: FlaskClient, library: aus.Library) -> None:
    clip = library.clip(a_clip_of(library, "noise.wav"))
    headers = {"Accept-Encoding": "gzip"}
    for path in (f"recordings/{clip.recording_id}", f"clips/{clip.clip}"):
        whole = client.get(f"/api/v1/{path}/audio", headers=headers)
        assert whole.status_code == 200
        assert "Content-Encoding" not in whole.headers
        with soundfile.SoundFile(io.BytesIO(whole.data)) as file:
            assert file.frames > 0
        part = client.get(f"/api/v1/{path}/audio", headers={**headers, "Range": "bytes=100-199"})
        assert part.status_code == 206
        assert part.data == whole.data[100:200]
        assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole.data)}"
        beyond = client.get(f"/api/v1/{path}/audio", headers={"Range": "bytes=99999999-"})
        assert (beyond.status_code, beyond.mimetype) == (416, PROBLEM)


# --- Figures ----------------------------------------------------------------------------------


def figures(client: FlaskClient) -> dict[str, float]:
    text = client.get("/api/v1/metrics").text
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def test_metrics_count_requests_uploads_and_the_library(library: aus.Library, folder: Path) -> None:
    app = create_app(library, limits=Limits(uploads_a_minute=2))
    client = app.test_client()
    assert client.get("/api/v1/metrics").mimetype == "text/plain"
    for _ in range(3):
        client.get("/api/v1/search?q=noise+OR+music")
    client.get("/api/v1/clips/999999")
    client.get("/no/such/page")
    client.open("/", method="BREW")
    good, bad = folder / "sounds" / "noise.wav", folder / "sounds" / "broken.wav"
    assert upload(client, good, "/api/v1/tag").status_code == 200
    assert upload(client, bad, "/api/v1/tag").status_code == 422
    assert upload(client, good, "/api/v1/tag").status_code == 429
    state_of(app).close()
    found = figures(client)

    def requests(method: str, route: str, status: int) -> float:
        labels = f'method="{method}",route="{route}",status="{status}"'
        return found["audiosearch_http_requests_total{" + labels + "}"]

    assert requests("GET", "/api/v1/search", 200) == 3
    assert requests("GET", "none", 404) == 1
    assert requests("other", "none", 405) == 1
    route = "/api/v1/clips/<int(max=9223372036854775807):clip>"
    assert requests("GET", route, 404) == 1
    assert found['audiosearch_http_request_seconds_count{route="/api/v1/search"}'] == 3
    assert found['audiosearch_http_request_seconds_bucket{le="+Inf",route="/api/v1/search"}'] == 3
    for outcome in ("analysed", "unusable", "too_often"):
        assert found[f'audiosearch_uploads_total{{outcome="{outcome}"}}'] == 1
    info = library.info()
    assert found["audiosearch_library_clips"] == info.clips
    assert found["audiosearch_library_recordings"] == info.recordings
    assert found["audiosearch_library_bytes"] == info.bytes
