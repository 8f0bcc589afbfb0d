"""One serializer and one schema: `to_dict`, `--json`, the `.json` pages and `/api/v1`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from server_fixtures import make_own_library

import audiosearch as aus
from audiosearch.server import create_app
from audiosearch.server.state import state_of

NUMBER = (int, float)
TAG = {"label": str, "mid": str, "score": NUMBER}
SPAN = {"start": NUMBER, "end": NUMBER}
MOMENT = {"clip": int, "start": NUMBER, "end": NUMBER, "score": NUMBER, "label": str}
CORRECTION = {
    "label": str,
    "mid": (str, None),
    "verdict": str,
    "start": NUMBER,
    "end": NUMBER,
}
REASON = {"term": str, "score": NUMBER, "excluded": bool, "classes": [TAG]}
HIT = {
    "recording": str,
    "source": str,
    "recording_id": int,
    "clip": int,
    "start": NUMBER,
    "end": NUMBER,
    "score": NUMBER,
    "label": str,
    "tags": [TAG],
    "labels": ([str], None),
    "moments": [MOMENT],
    "copies": [str],
    "why": [REASON],
    "match": (SPAN, None),
    "corrections": [CORRECTION],
}
RESULT = {
    "query": (str, None),
    "total": int,
    "total_clips": int,
    "grouped": bool,
    "offset": int,
    "limit": int,
    "hits": [HIT],
}
CLIP = {
    "recording": str,
    "source": str,
    "recording_id": int,
    "clip": int,
    "start": NUMBER,
    "end": NUMBER,
    "duration": (int, float, None),
    "tags": [TAG],
    "labels": ([str], None),
    "corrections": [CORRECTION],
}


def check(value: Any, schema: Any, place: str = "result") -> None:
    """Compare a JSON value with a schema: exactly these keys, each of its type."""
    if isinstance(schema, tuple):
        errors = []
        for choice in schema:
            try:
                return check(value, choice, place)
            except AssertionError as error:
                errors.append(error)
        raise AssertionError(f"{place}: {value!r} fits none of {schema}: {errors}")
    if isinstance(schema, dict):
        assert isinstance(value, dict), place
        assert list(value) == list(schema), place
        for key, part in schema.items():
            check(value[key], part, f"{place}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), place
        for number, item in enumerate(value):
            check(item, schema[0], f"{place}[{number}]")
    elif schema is None:
        assert value is None, place
    else:
        assert type(value) is schema, f"{place}: {value!r}"
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_library(tmp_path_factory.mktemp("serializer"))


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[aus.Library]:
    with aus.open_library(folder / "library") as library:
        yield library


@pytest.fixture(scope="module")
def client(library: aus.Library) -> Iterator[FlaskClient]:
    app = create_app(library)
    yield app.test_client()
    state_of(app).close()


def plain(result: aus.SearchResult) -> Any:
    return json.loads(json.dumps(result.to_dict()))


@pytest.mark.parametrize("ungrouped", [False, True])
def test_a_search_is_the_same_everywhere(
    client: FlaskClient,
    library: aus.Library,
    folder: Path,
    invoke: Callable[..., Any],
    ungrouped: bool,
) -> None:
    query = "speech OR music"
    expected = plain(library.search(query, limit=7, offset=1, grouped=not ungrouped))
    check(expected, RESULT)
    assert len(expected["hits"]) == 7
    flag = ["--ungrouped"] if ungrouped else []
    done = invoke(
        *("search", query, "--library", folder / "library", "--json"),
        *("--limit", 7, "--offset", 1, *flag),
    )
    assert json.loads(done.out) == expected
    asked = {"q": query, "limit": 7, "offset": 1, "ungrouped": int(ungrouped)}
    assert client.get("/search.json", query_string=asked).json == expected
    assert client.get("/api/v1/search", query_string=asked).json == expected


@pytest.mark.parametrize("ungrouped", [False, True])
def test_a_search_by_example_is_the_same_everywhere(
    client: FlaskClient,
    library: aus.Library,
    folder: Path,
    invoke: Callable[..., Any],
    ungrouped: bool,
) -> None:
    options: dict[str, Any] = {"unlike": 9, "query": "-music speech", "limit": 5}
    expected = plain(library.similar([3, 5], grouped=not ungrouped, **options))
    check(expected, RESULT)
    assert expected["hits"]
    assert expected["query"] == "-music speech"
    flag = ["--ungrouped"] if ungrouped else []
    done = invoke(
        *("similar", "--clip", 3, "--clip", 5, "--unlike-clip", 9, "--query", "-music speech"),
        *("--limit", 5, "--json", "--library", folder / "library", *flag),
    )
    assert json.loads(done.out) == expected
    asked = {"unlike": 9, "q": "-music speech", "limit": 5, "ungrouped": int(ungrouped)}
    assert client.get("/similar/3.json", query_string=asked | {"also": 5}).json == expected
    assert client.get("/api/v1/similar", query_string=asked | {"clip": [3, 5]}).json == expected


def test_a_file_is_searched_by_the_same_everywhere(
    client: FlaskClient, library: aus.Library, folder: Path, invoke: Callable[..., Any]
) -> None:
    path = folder / "sounds" / "noise.wav"
    expected = plain(library.similar(aus.Example(path), limit=20))
    check(expected, RESULT)
    done = invoke("similar", path, "--library", folder / "library", "--json")
    assert json.loads(done.out) == expected
    with path.open("rb") as file:
        answer = client.post("/api/v1/similar", data={"file": (file, "noise.wav")})
    assert answer.json == expected
    with path.open("rb") as file:
        page = client.post("/examples.json", data={"file": (file, "noise.wav")}).json
    page.pop("example")
    assert page == expected


def test_a_clip_is_the_same_everywhere(client: FlaskClient, library: aus.Library) -> None:
    for number in (0, 43):
        expected = library.clip(number).to_dict()
        check(expected, CLIP, "clip")
        assert client.get(f"/clip/{number}.json").json == expected
        assert client.get(f"/api/v1/clips/{number}").json == expected


def test_what_only_some_hits_have_is_there(library: aus.Library) -> None:
    by_words = library.search("music OR speech OR sine wave OR noise", limit=100)
    by_example = library.similar(0, limit=100)
    check(by_words.to_dict(), RESULT)
    check(by_example.to_dict(), RESULT)
    assert {hit.source for hit in by_example.hits} == {"file", "audioset"}
    assert any(hit.moments for hit in by_example.hits)
    assert any(hit.labels for hit in by_example.hits)
    assert all(hit.why for hit in by_words.hits)
    assert all(hit.match is None for hit in by_words.hits)
    assert all(hit.match is not None and not hit.why for hit in by_example.hits)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/search", 400),
        ("/api/v1/search?q=trumpett", 400),
        ("/api/v1/search?q=Car&limit=0", 400),
        ("/api/v1/search?q=Car&ungrouped=yes", 400),
        ("/api/v1/similar", 400),
        ("/api/v1/similar?clip=x", 400),
        ("/api/v1/similar?clip=-1", 400),
        ("/api/v1/similar?clip=999999", 404),
        ("/api/v1/similar?clip=0&unlike=999999", 404),
        ("/api/v1/similar?clip=0&clip=1&from=1", 400),
        ("/api/v1/similar?clip=0&from=5&to=3", 400),
        ("/api/v1/similar?clip=0&from=nan", 400),
        ("/api/v1/similar?clip=0&from=5000", 400),
        ("/api/v1/similar?clip=0&q=(dog", 400),
        ("/api/v1/clips/999999", 404),
        ("/api/v1/nothing", 404),
    ],
)
def test_every_error_of_the_api_is_a_problem(client: FlaskClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"]
    assert answer.json["detail"]


def test_an_unknown_word_says_where_and_what_else(client: FlaskClient) -> None:
    answer = client.get("/api/v1/search?q=dog+trumpett").json
    assert answer["query"] == "dog trumpett"
    assert answer["position"] == 4
    assert "Trumpet" in answer["suggestions"]
    twin = client.get("/similar/0.json?q=dog+trumpett").json
    assert list(twin) == ["error", "status", "query", "position", "suggestions"]
    assert {name: answer[name] for name in list(twin)[1:]} == dict(list(twin.items())[1:])
    assert twin["error"] == answer["detail"]


def test_posting_no_sound_to_the_api_is_refused(client: FlaskClient) -> None:
    assert client.post("/api/v1/similar").status_code == 400
    bad = client.post("/api/v1/similar", data={"file": (io.BytesIO(b"no sound" * 9), "a.wav")})
    assert (bad.status_code, bad.json["status"]) == (422, 422)
    assert bad.json["detail"].startswith("a.wav: ")
