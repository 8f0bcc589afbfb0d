"""Confirming, rejecting and labelling in the web app, and the list of it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Outcome
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import audiosearch as aus
from audiosearch.server import create_app

Invoke = Callable[..., Outcome]


@pytest.fixture
def library(library_folder: Path) -> Iterator[aus.Library]:
    with aus.open_library(library_folder) as opened:
        yield opened


@pytest.fixture
def client(library: aus.Library) -> FlaskClient:
    return create_app(library).test_client()


def page(client: FlaskClient, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, path
    return response.get_data(as_text=True)


def say(client: FlaskClient, **fields: str) -> TestResponse:
    return client.post("/labels.json", data=fields)


def test_a_confirmed_tag_is_found_at_once(client: FlaskClient, library: aus.Library) -> None:
    clip = library.clip(3)
    mid = "/m/0k4j"  # Car
    answer = say(client, confirm=f"3:::{mid}")
    assert answer.status_code == 200
    assert answer.json["changed"] is True
    assert answer.json["clip"]["corrections"][0]["verdict"] == "confirmed"
    found = client.get("/search.json", query_string={"q": "confirmed:Car"}).json
    assert [hit["clip"] for hit in found["hits"]] == [3]
    assert found["hits"][0]["recording"] == clip.recording
    shown = page(client, "/?q=confirmed:Car")
    assert re.search(r'name="remove" value="3:::/m/0k4j" aria-pressed="true"', shown)
    # The same once more takes it back.
    assert say(client, remove=f"3:::{mid}").json["changed"] is True
    assert client.get("/search.json", query_string={"q": "confirmed:Car"}).json["total"] == 0


def test_a_rejected_tag_is_no_longer_found(client: FlaskClient, library: aus.Library) -> None:
    tag = library.clip(5).tags[0]
    assert say(client, reject=f"5:::{tag.mid}").json["changed"] is True
    assert tag.mid not in [each.mid for each in library.clip(5).tags]
    shown = page(client, "/clip/5")
    assert re.search(rf'class="rejected"><span>{re.escape(tag.label)} ', shown)
    values = re.findall(r'name="remove" value="([^"]+)"', shown)
    assert values
    assert say(client, remove=values[0]).json["clip"]["corrections"] == []
    assert library.clip(5).tags[0] == tag


def test_the_form_leads_back_to_where_it_was(client: FlaskClient) -> None:
    answer = client.post("/labels", data={"confirm": "2:::Car", "next": "/?q=Dog&offset=20"})
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/?q=Dog&offset=20#clip-2"
    # Never to another server.
    for target in ("https://example.org/", "//example.org", "/\\example.org"):
        answer = client.post("/labels", data={"confirm": "2:::Car", "next": target})
        assert answer.headers["Location"].startswith("/#clip-2")


def test_a_label_of_ones_own_is_added_and_found(client: FlaskClient) -> None:
    answer = say(client, add="4:::", label="  Grandma's clock ")
    assert answer.json["changed"] is True
    said = answer.json["clip"]["corrections"][0]
    assert (said["label"], said["mid"]) == ("Grandma's clock", None)
    query = 'label:"Grandma\'s clock"'
    assert [
        hit["clip"] for hit in client.get("/search.json", query_string={"q": query}).json["hits"]
    ] == [4]
    shown = page(client, "/clip/4")
    value = re.search(r'name="remove" value="(4:[^"]+)"', shown)
    assert value
    assert "Grandma&#39;s clock" in shown
    answer = say(client, remove=value[1].replace("&#39;", "'"))
    assert answer.json["clip"]["corrections"] == []


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "Give one of"),
        ({"confirm": "1:::Car", "reject": "1:::Car"}, 400, "Give one of"),
        ({"confirm": "Car"}, 400, "CLIP:START:END:LABEL"),
        ({"confirm": "1:x::Car"}, 400, "CLIP:START:END:LABEL"),
        ({"confirm": "1:::"}, 400, "name"),
        ({"confirm": "1:::Crar"}, 400, "Nearest"),
        ({"add": "1:::", "label": 'with "quotes"'}, 400, "quotation mark"),
        ({"add": "1:::"}, 400, "name"),
        ({"confirm": "1:5000:6000:Car"}, 400, "does not lie"),
        ({"confirm": "999999:::Car"}, 404, "999999"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    client: FlaskClient, fields: dict[str, str], status: int, says: str
) -> None:
    answer = say(client, **fields)
    assert answer.status_code == status
    assert says in answer.json["error"]
    assert client.get("/corrections.json").json["total"] == 0


def test_the_shipped_library_takes_none_and_shows_no_buttons() -> None:
    with aus.open_library(aus.shipped_library()) as library:
        client = create_app(library).test_client()
        assert "verdicts" not in page(client, "/?q=Car")
        answer = say(client, confirm="1:::Car")
        assert answer.status_code == 403
        assert "takes no labels" in answer.json["error"]
        assert "takes no labels" in page(client, "/corrections")


def test_another_site_cannot_say_anything(client: FlaskClient) -> None:
    answer = client.post(
        "/labels", data={"confirm": "1:::Car"}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    answer = client.post(
        "/labels",
        data={"confirm": "1:::Car"},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status_code == 403  # without the page's token
    assert client.get("/corrections.json").json["total"] == 0


def test_the_forms_of_a_page_carry_its_token(client: FlaskClient) -> None:
    shown = page(client, "/clip/6")
    form = shown[shown.index('id="say"') :]
    token = re.search(r'name="csrf_token" type="hidden" value="([^"]+)"', form)
    assert token
    value = re.search(r'name="confirm" value="([^"]+)"', shown)
    assert value
    answer = client.post(
        "/labels",
        data={"confirm": value[1], "csrf_token": token[1], "next": "/clip/6"},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status_code == 303
    assert client.get("/corrections.json").json["total"] == 1


def test_all_corrections_are_listed_filtered_and_undone(client: FlaskClient) -> None:
    say(client, confirm="1:::Car")
    say(client, reject="2:::Dog")
    say(client, add="3:::", label="my hum")
    listed = client.get("/corrections.json").json
    assert [(one["label"], one["verdict"]) for one in listed["labels"]] == [
        ("Car", "confirmed"),
        ("Dog", "rejected"),
        ("my hum", "confirmed"),
    ]
    rejected = client.get("/corrections.json?verdict=rejected").json
    assert [one["label"] for one in rejected["labels"]] == ["Dog"]
    assert client.get("/corrections.json?label=MY%20HUM").json["total"] == 1
    assert client.get("/corrections?verdict=maybe").status_code == 400
    shown = page(client, "/corrections")
    values = re.findall(r'name="remove" value="([^"]+)" aria-label="Undo', shown)
    assert len(values) == 3
    for value in values:
        answer = client.post("/labels", data={"remove": value, "next": "/corrections"})
        assert answer.status_code == 303
    assert client.get("/corrections.json").json["total"] == 0
    assert "Nothing yet" in page(client, "/corrections")


def test_the_download_is_the_training_set(
    client: FlaskClient, library: aus.Library, tmp_path: Path
) -> None:
    say(client, confirm="1:::Car")
    say(client, add="3:::", label="my hum")
    answer = client.get("/corrections.csv")
    assert answer.mimetype == "text/csv"
    assert 'filename="labels.csv"' in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))
    assert [(row["label"], row["verdict"]) for row in rows] == [
        ("Car", "confirmed"),
        ("my hum", "confirmed"),
    ]
    assert Path(rows[0]["path"]).name == Path(library.clip(1).recording).name
    (tmp_path / "back.csv").write_bytes(answer.data)
    assert aus.import_labels(tmp_path / "back.csv", library).unchanged == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Referer": "http://localhost/clip/1"},
    ],
)
def test_a_label_needs_a_page_of_this_server(
    client: FlaskClient, library: aus.Library, headers: dict[str, str]
) -> None:
    for path in ("/labels", "/labels.json"):
        answer = client.post(path, data={"confirm": "1:::Car"}, headers=headers)
        assert answer.status_code == 403, path
    body = {"clip": 1, "label": "Car", "action": "confirm"}
    assert client.post("/api/v1/labels", json=body, headers=headers).status_code == 403
    assert library.labels() == []


def test_a_label_is_short_and_its_clip_there(client: FlaskClient, library: aus.Library) -> None:
    assert say(client, add="1:::", label="x" * 100).status_code == 200
    too_long = say(client, add="1:::", label="x" * 101)
    assert too_long.status_code == 400
    assert "1 to 100 characters" in too_long.json["error"]
    assert say(client, add="1:::", label="x" * 300_000).status_code == 413
    assert say(client, add=f"{10**17}:::", label="x").status_code == 404
    assert len(library.labels()) == 1


def test_the_download_is_a_training_set_for_the_lab(invoke: Invoke, tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    time = np.arange(16_000 * 2) / 16_000
    for number in range(4):
        tone = 0.3 * np.sin(2 * np.pi * (300 + 40 * number) * time)
        soundfile.write(tmp_path / f"tone {number}.wav", tone, 16_000)
        soundfile.write(tmp_path / f"noise {number}.wav", random.normal(0, 0.1, len(time)), 16_000)
    aus.index(sorted(tmp_path.glob("*.wav")), tmp_path / "library")
    with aus.open_library(tmp_path / "library") as library:
        client = create_app(library).test_client()
        for hit in library.search("duration:>0", order="path").hits:
            label = "my beep" if "tone" in hit.recording else "my whirr"
            assert say(client, add=f"{hit.clip}:::", label=label).status_code == 200
        answer = client.get("/corrections.csv")
    assert "labels.csv" in answer.headers["Content-Disposition"]
    (tmp_path / "labels.csv").write_bytes(answer.data)
    inspected = invoke("lab", "inspect", tmp_path / "labels.csv", "--json")
    assert inspected.code == 0, inspected.err
    assert json.loads(inspected.out)["classes"] == {"my beep": 4, "my whirr": 4}
    options = ("--validation", "0", "--cache", tmp_path / "cache", "--out", tmp_path / "own")
    trained = invoke("lab", "train", tmp_path / "labels.csv", *options)
    assert trained.code == 0, trained.err
    tone = 0.3 * np.sin(2 * np.pi * 380 * time)
    soundfile.write(tmp_path / "new.wav", tone, 16_000)
    done = invoke("lab", "predict", tmp_path / "own", tmp_path / "new.wav", "--json")
    assert json.loads(done.out)["labels"][0]["label"] == "my beep"
