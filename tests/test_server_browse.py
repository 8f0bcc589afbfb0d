"""Looking around: classes, the map, random and new clips, duplicates, numbers."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import audiosearch as aus
from audiosearch.labels import load_labels
from audiosearch.server import create_app
from audiosearch.server.background import Background

PAGES = ("", "/map", "/random?seed=1", "/recent", "/duplicates", "/statistics")


@pytest.fixture
def library(library_folder: Path) -> Iterator[aus.Library]:
    with aus.open_library(library_folder) as opened:
        yield opened


@pytest.fixture
def client(library: aus.Library) -> FlaskClient:
    return create_app(library).test_client()


def made(client: FlaskClient, path: str) -> TestResponse:
    """Ask until the answer is no longer being made."""
    stop = time.monotonic() + 120
    while (response := client.get(path)).status_code == 202 and time.monotonic() < stop:
        assert response.headers.get("Retry-After") or b"Look again" in response.data
        time.sleep(0.1)
    return response


@pytest.mark.parametrize("page", PAGES)
def test_every_page_and_its_twin_answer(client: FlaskClient, page: str) -> None:
    response = made(client, f"/browse{page}")
    assert response.status_code == 200
    text = response.get_data(as_text=True)
    assert text.count("<h1") == 1
    # The policy allows no script or style within a page.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", text)
    path, _, query = page.partition("?")
    twin = made(client, f"/browse{path}.json?{query}")
    assert twin.status_code == 200
    assert twin.mimetype == "application/json"
    linked = re.search(r'rel="alternate" type="application/json" href="([^"]+)"', text)
    assert linked
    assert client.get(linked[1]).status_code in (200, 202)


def test_the_tree_counts_what_a_search_finds(client: FlaskClient, library: aus.Library) -> None:
    text = client.get("/browse").get_data(as_text=True)
    shown = dict(re.findall(r'<a href="/\?q=[^"]+">([^<]+)</a> <span class="count">([\d,]+)', text))
    assert len(shown) > 20
    for name in list(shown)[:25]:
        name = name.replace("&amp;", "&").replace("&#39;", "'")
        assert library.search(f'"{name}"', limit=1).total == int(shown[name].replace(",", ""))
    # Classes that are not heard are left out, and shown when asked for.
    labels = [label.name for label in load_labels()]
    every = client.get("/browse?all=1").get_data(as_text=True)
    assert every.count("<li>") > text.count("<li>")
    assert all(name.replace("&", "&amp;").replace("'", "&#39;") in every for name in labels)
    assert client.get("/browse?all=yes").status_code == 400


def test_a_correction_changes_the_tree_at_once(client: FlaskClient, library: aus.Library) -> None:
    def count() -> int:
        classes = client.get("/browse.json").json["classes"]
        return next(each["recordings"] for each in classes if each["label"] == "Zither")

    before, clip = count(), 0
    while "Zither" in [tag.label for tag in library.clip(clip, top=40).tags]:
        clip += 1
    assert library.confirm(clip, "Zither")
    assert count() == before + 1


def test_the_map_places_every_clip(client: FlaskClient, library: aus.Library) -> None:
    data = made(client, "/browse/map.json").json
    clips = library.info().clips
    assert data["state"] == "ready"
    assert data["total"] == clips == len(data["clips"]) == len(data["x"]) == len(data["y"])
    assert max(map(abs, data["x"] + data["y"])) == 10_000
    for place in range(0, clips, 7):
        name = data["labels"][data["label"][place]]
        assert library.clip(data["clips"][place]).tags[0].label == name
        group = data["groups"][data["group"][data["label"][place]]]
        below = load_labels().below(load_labels().node(group) or "")
        assert load_labels().by_name(name).index in below
    # The list tells the same to those who cannot see it.
    text = client.get("/browse/map").get_data(as_text=True)
    regions = text[text.index('<div class="regions">') :]
    counts = re.findall(r'<li><a href="[^"]+">[^<]+</a> <span class="count">([\d,]+)', regions)
    assert sum(int(count.replace(",", "")) for count in counts) == clips


def test_random_clips_are_the_same_for_the_same_address(client: FlaskClient) -> None:
    first = client.get("/browse/random")
    assert first.status_code == 303
    assert re.search(r"seed=\d+", first.headers["Location"])
    one = client.get("/browse/random.json?seed=7&limit=10").json
    assert one == client.get("/browse/random.json?seed=7&limit=10").json
    numbers = [clip["clip"] for clip in one["clips"]]
    assert len(set(numbers)) == 10
    other = client.get("/browse/random.json?seed=8&limit=10").json
    assert numbers != [clip["clip"] for clip in other["clips"]]
    everything = client.get("/browse/random.json?seed=7&limit=100").json["clips"]
    assert len({clip["clip"] for clip in everything}) == len(everything)
    assert client.get("/browse/random?seed=x").status_code == 400


def test_random_clips_are_drawn_from_all(library: aus.Library) -> None:
    clips = library.info().clips
    every = library.random_clips(clips + 5, seed=3)
    assert sorted(clip.clip for clip in every) == list(range(clips))
    assert [clip.clip for clip in every] != list(range(clips))
    assert library.random_clips(3, seed=3) == library.random_clips(3, seed=3)
    assert library.random_clips(0, seed=3) == []
    with pytest.raises(aus.AudioSearchError, match="negative"):
        library.random_clips(-1, seed=3)


def test_random_clips_do_not_include_what_was_removed(
    library_folder: Path, sound_master: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    shutil.copytree(sound_master / "nested", more)
    aus.index(more, library_folder)
    with aus.open_library(library_folder) as library:
        total = library.info().clips
    shutil.rmtree(more / "deep")
    aus.index(more, library_folder)
    with aus.open_library(library_folder) as library:
        client = create_app(library).test_client()
        found = client.get("/browse/random.json?seed=1&limit=100").json["clips"]
        assert len(found) == library.info().clips < total
        assert not [clip for clip in found if "more/deep" in clip["recording"]]


def test_what_was_added_last_comes_first(
    client: FlaskClient, library_folder: Path, sound_master: Path, tmp_path: Path
) -> None:
    new = tmp_path / "newest.wav"
    shutil.copy(sound_master / "tone.wav", new)
    aus.index(new, library_folder)
    found = client.get("/browse/recent.json?limit=5").json
    assert found["clips"][0]["recording"].endswith("newest.wav")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["clips"][0]["added"])
    page = client.get("/browse/recent?limit=5").get_data(as_text=True)
    assert "newest.wav" in page
    older = re.search(r'rel="next" href="([^"]+)"', page)
    assert older
    second = client.get(older[1].replace("&amp;", "&")).get_data(as_text=True)
    assert "newest.wav" not in second
    assert 'rel="prev"' in second
    rest = client.get("/browse/recent.json?limit=5&offset=5").json["clips"]
    assert not {c["clip"] for c in rest} & {c["clip"] for c in found["clips"]}


def test_equal_files_are_listed_first(
    client: FlaskClient, library_folder: Path, sound_master: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    shutil.copy(sound_master / "nested" / "noise.flac", copies / "the copy.flac")
    aus.index(copies, library_folder)
    groups = made(client, "/browse/duplicates.json").json["groups"]
    assert groups[0]["kind"] == "exact"
    assert [Path(name).name for name in groups[0]["recordings"]] == ["noise.flac", "the copy.flac"]
    for clip, name in zip(groups[0]["clips"], groups[0]["recordings"], strict=True):
        assert client.get(f"/clip/{clip}.json").json["recording"] == name
    page = made(client, "/browse/duplicates").get_data(as_text=True)
    assert page.index("Equal files") < page.index("the copy.flac")
    kinds = re.findall(r"<h2>(Equal files|Sound the same)", page)
    assert kinds == sorted(kinds)


def test_numbers_are_those_of_the_library(client: FlaskClient, library: aus.Library) -> None:
    found = made(client, "/browse/statistics.json").json
    info = library.info()
    assert (found["recordings"], found["clips"]) == (info.recordings, info.clips)
    page = client.get("/browse/statistics").get_data(as_text=True)
    assert f"<dd>{info.recordings}</dd>" in page
    best = found["classes"][0]
    row = page[page.index("Heard in most") :]
    assert f">{best['name']}</a>" in row
    assert f"<td>{best['recordings']}</td>" in row


def test_while_a_newer_answer_is_made_the_last_one_is_shown() -> None:
    go, made = threading.Event(), []

    def make() -> str:
        if made:
            assert go.wait(20)
        made.append(len(made))
        return f"answer {len(made)}"

    background: Background[str] = Background(make)
    assert background.get("one", wait=20) == "answer 1"
    for key in ("two", "three", "four"):  # a library that changes all the time
        assert background.get(key) == "answer 1"
    go.set()
    assert background.get("four", wait=20) == f"answer {len(made)}"
    assert len(made) in (2, 3)  # one for each key that was begun


def test_what_cannot_be_made_is_said_once_and_tried_again() -> None:
    tries = []

    def make() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("not now")
        return "made"

    background: Background[str] = Background(make)
    with pytest.raises(RuntimeError, match="not now"):
        background.get("key", wait=20)
    assert background.get("key", wait=20) == "made"
