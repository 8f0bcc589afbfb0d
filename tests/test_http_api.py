"""The HTTP API: its document, its answers, and the page of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
from flask import Flask
from flask.testing import FlaskClient
from server_fixtures import PROBLEM, a_clip_of, app, client, folder, library, upload, valid

import audiosearch as aus
from audiosearch.labels import load_labels
from audiosearch.server import create_app, serve
from audiosearch.server.api import OPERATIONS, PREFIX
from audiosearch.server.limits import Limits
from audiosearch.server.samples import SEARCH, TAGS
from audiosearch.server.schemas import SCHEMAS

__all__ = ["app", "client", "folder", "library"]


@pytest.fixture(scope="module")
def document(app: Flask) -> dict[str, Any]:
    answer = app.test_client().get("/api/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json


# --- The document -----------------------------------------------------------------------------


def test_every_route_is_in_the_document_and_the_other_way_round(
    app: Flask, document: dict[str, Any]
) -> None:
    routed = {
        (re.sub(r"<[^>]*:(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(PREFIX)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }
    assert routed == described
    assert len(routed) >= 14


def test_document_is_openapi_3_1_and_its_schemas_are_json_schema(
    document: dict[str, Any],
) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == aus.__version__
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(set(names)) == len(names)
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in SCHEMAS


def test_examples_of_the_document_fit_their_schemas(document: dict[str, Any]) -> None:
    valid(SEARCH, "SearchResult")
    valid(TAGS, "TagResult")
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if "example" in parameter:
                    jsonschema.validate(parameter["example"], parameter["schema"])
            for body in operation.get("requestBody", {}).get("content", {}).values():
                if "example" in body:
                    jsonschema.validate(body["example"], body["schema"])


def test_document_names_the_token_where_there_is_one(library: aus.Library) -> None:
    guarded = create_app(library, token="secret").test_client()
    headers = {"Authorization": "Bearer secret"}
    found = guarded.get("/api/v1/openapi.json", headers=headers).json
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert found["paths"]["/api/v1/health"]["get"]["security"] == []
    assert found["paths"]["/api/v1/search"]["get"]["security"] == [{"token": []}]
    assert "401" in found["paths"]["/api/v1/search"]["get"]["responses"]


def test_no_generated_request_gets_a_mistake_or_an_undocumented_answer(
    library: aus.Library, tmp_path: Path
) -> None:
    ready = threading.Event()
    urls: list[str] = []

    def announce(url: str) -> None:
        urls.append(url)
        ready.set()

    limits = Limits(uploads_a_minute=100_000)
    options: dict[str, Any] = {"port": 0, "limits": limits, "announce": announce}
    threading.Thread(target=serve, args=(library,), kwargs=options, daemon=True).start()
    assert ready.wait(20)
    # A query of random letters is refused by design, with a documented 400: that valid values are
    # accepted is not asked of every operation.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{urls[0]}api/v1/openapi.json"),
            *("--max-examples", "10", "--seed", "7", "--phases", "examples,coverage,fuzzing"),
            *("--exclude-checks", "positive_data_acceptance", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    found = re.search(r"Tested: (\d+)", done.stdout)
    assert found
    assert int(found[1]) == len(OPERATIONS.all) - 1  # it leaves out the document itself
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert cases
    assert int(cases[1]) > 300
    assert cases[1] == cases[2]


# --- Answers ----------------------------------------------------------------------------------

ANSWERS = [
    ("/search?q=noise+OR+music", "SearchResult"),
    ("/search?q=speech+-music&limit=3&offset=1&fold=1", "SearchResult"),
    ("/search?q=speech&ungrouped=1", "SearchResult"),
    ("/similar?clip=0", "SearchResult"),
    ("/similar?clip=3:2&clip=5:0.5&unlike=9&q=-music+speech", "SearchResult"),
    ("/search?q=speech&order=longest", "SearchResult"),
    ("/facets?q=speech+OR+music", "Facets"),
    ("/complete?q=ra", "CompletionList"),
    ("/clips/0/timeline", "Timeline"),
    ("/clips/0", "Clip"),
    ("/clips/43?top=20", "Clip"),
    ("/classes", "ClassList"),
    ("/library", "LibraryInfo"),
    ("/labels", "LabelList"),
    ("/health", "Health"),
]


@pytest.mark.parametrize(("path", "schema"), ANSWERS)
def test_answers_fit_the_schemas_of_the_document(
    client: FlaskClient, document: dict[str, Any], path: str, schema: str
) -> None:
    answer = client.get(PREFIX + path)
    assert answer.status_code == 200
    valid(answer.json, schema)
    route = re.sub(r"/\d+", "/{clip}", path.partition("?")[0])
    described = document["paths"][PREFIX + route]["get"]["responses"]["200"]["content"]
    assert described["application/json"]["schema"]["$ref"].endswith(f"/{schema}")


def test_weights_count(client: FlaskClient, library: aus.Library) -> None:
    answer = client.get("/api/v1/similar?clip=3:2&clip=5:0.5&unlike=9:1.5&limit=5").json
    examples = [aus.Example(3, weight=2.0), aus.Example(5, weight=0.5)]
    expected = library.similar(examples, unlike=aus.Example(9, weight=1.5), limit=5).to_dict()
    assert answer == expected
    assert (
        answer["hits"] != client.get("/api/v1/similar?clip=3&clip=5&unlike=9&limit=5").json["hits"]
    )


def test_a_part_of_a_clip_is_searched_by(client: FlaskClient, library: aus.Library) -> None:
    clip = a_clip_of(library, "noise.wav")
    answer = client.get(f"/api/v1/similar?clip={clip}&from=1&to=3&limit=5").json
    assert answer == library.similar(aus.Example(clip, 1.0, 3.0), limit=5).to_dict()
    assert client.get(f"/api/v1/similar?clip={clip}&from=100&to=103").status_code == 400


def test_classes_are_listed_with_counts(client: FlaskClient) -> None:
    found = {each["label"]: each for each in client.get("/api/v1/classes").json["classes"]}
    assert {label.name for label in load_labels()} <= set(found)
    total = client.get('/api/v1/search?q="Speech"&limit=1').json
    assert found["Speech"]["recordings"] == total["total"]
    assert found["Speech"]["clips"] == total["total_clips"]


def test_file_is_tagged_by_file_clip_and_frame(client: FlaskClient, folder: Path) -> None:
    path = folder / "sounds" / "noise.wav"
    plain = upload(client, path, "/api/v1/tag").json
    valid(plain, "TagResult")
    assert plain == aus.tag(path).to_dict() | {"path": "noise.wav"}
    full = upload(client, path, "/api/v1/tag", top="3", clips="1", frames="1").json
    valid(full, "TagResult")
    # 25 s: two clips of 9.6 s and the rest, and a frame each 0.96 s.
    assert [(clip["start"], clip["end"]) for clip in full["clips"]] == [
        (0.0, 9.6),
        (9.6, 19.2),
        (19.2, 25.0),
    ]
    for tag in full["tags"]:
        best = max(
            each["score"]
            for clip in upload(client, path, "/api/v1/tag", top="527", clips="1").json["clips"]
            for each in clip["tags"]
            if each["mid"] == tag["mid"]
        )
        assert tag["score"] == best
    assert full["frames"]["step"] == 0.96
    assert len(full["frames"]["classes"]) == 3
    lengths = {len(each["scores"]) for each in full["frames"]["classes"]}
    assert lengths == {len(aus.embed(path))}
    assert all(each["score"] == max(each["scores"]) for each in full["frames"]["classes"])


def test_frames_tell_silence_from_noise(client: FlaskClient, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    samples = np.concatenate([np.zeros(16_000 * 10), random.normal(0, 0.2, 16_000 * 10)])
    soundfile.write(tmp_path / "half.wav", samples, 16_000)
    answer = upload(client, tmp_path / "half.wav", "/api/v1/tag", frames="1", top="527").json
    scores = {each["label"]: each["scores"] for each in answer["frames"]["classes"]}
    silence = np.array(scores["Silence"])
    assert silence[:8].mean() > 2 * silence[12:].mean()


def test_labels_are_said_listed_and_taken_back(good_folder: Path, tmp_path: Path) -> None:
    aus.index(good_folder, tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        client = create_app(library).test_client()
        clip = a_clip_of(library, "noise.flac")
        say = {"clip": clip, "label": "Zither", "action": "confirm"}
        answer = client.post("/api/v1/labels", json=say)
        assert answer.status_code == 200
        valid(answer.json, "LabelChange")
        assert answer.json["changed"] is True
        assert [each["verdict"] for each in answer.json["corrections"]] == ["confirmed"]
        assert client.post("/api/v1/labels", json=say).json["changed"] is False
        assert client.get("/api/v1/search?q=confirmed:Zither").json["total"] == 1
        own = {"clip": clip, "label": "my creaking door", "action": "reject"}
        unknown = client.post("/api/v1/labels", json=own)
        assert unknown.status_code == 400
        assert unknown.mimetype == PROBLEM
        assert "must be added" in unknown.json["detail"]
        own |= {"action": "add", "start": 0.1, "end": 0.9}
        assert client.post("/api/v1/labels", json=own).status_code == 200
        listed = client.get("/api/v1/labels").json
        valid(listed, "LabelList")
        assert {each["label"] for each in listed["labels"]} == {"Zither", "my creaking door"}
        assert client.get("/api/v1/labels?label=Zither").json["total"] == 1
        page = client.get("/api/v1/labels?limit=1&offset=1").json
        assert page["labels"] == listed["labels"][1:]
        own["action"] = "remove"
        assert client.post("/api/v1/labels", json=own).json["changed"] is True
        assert client.get("/api/v1/labels").json["total"] == 1
        beyond = {"clip": clip, "label": "Zither", "action": "confirm", "start": 500, "end": 501}
        assert client.post("/api/v1/labels", json=beyond).status_code == 400
        missing = {"clip": 10**6, "label": "Zither", "action": "confirm"}
        assert client.post("/api/v1/labels", json=missing).status_code == 404


def test_shipped_library_takes_no_labels() -> None:
    with aus.open_library(aus.shipped_library()) as library:
        client = create_app(library).test_client()
        say = {"clip": 0, "label": "Dog", "action": "confirm"}
        answer = client.post("/api/v1/labels", json=say)
        assert (answer.status_code, answer.mimetype) == (403, PROBLEM)


# --- The page ---------------------------------------------------------------------------------


def test_page_of_the_api_shows_every_operation(client: FlaskClient) -> None:
    page = client.get("/api").text
    for operation in OPERATIONS.all:
        assert f'id="{operation.name}"' in page
        for parameter in (*operation.ids, *operation.query, *operation.form, *operation.body):
            assert f'id="{operation.name}-{parameter.name}"' in page
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert all(src.startswith("/static/") for src in re.findall(r'<script src="([^"]*)"', page))


def test_page_of_the_api_leads_to_a_sign_in_first(library: aus.Library) -> None:
    guarded = create_app(library, token="secret").test_client()
    assert guarded.get("/api").status_code == 401
