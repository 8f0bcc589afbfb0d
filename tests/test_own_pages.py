"""Own classes wherever AudioSet's are shown: browsing, completion, facets, over time, commands."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write_packed
from lab_fixtures import own_recordings, sound
from own_fixtures import KINDS, classifier
from PIL import Image

import audiosearch as aus
from audiosearch.labels import load_labels
from audiosearch.library.hits import Tag
from audiosearch.library.library import Library
from audiosearch.library.statistics import statistics
from audiosearch.own.classifier import LabClassifier
from audiosearch.query import Vocabulary, label_query, parse
from audiosearch.server import create_app
from audiosearch.server.present import matched_tags

__all__ = ["classifier"]

OWN_MARK = '<abbr class="mine" title="A class of your own">own</abbr>'


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two short sounds, and 12 s of a low tone and 108 s of a high one."""
    folder = tmp_path_factory.mktemp("recordings")
    return own_recordings(folder, {"a-low": "low", "c-hiss": "noise"}, low=12.0, high=108.0)


@pytest.fixture(scope="module")
def master(tmp_path_factory, recordings, classifier):
    folder = tmp_path_factory.mktemp("library") / "lib"
    aus.index(recordings, folder, classifier=classifier, workers=1)
    return folder


@pytest.fixture
def library(master, tmp_path):
    with Library(shutil.copytree(master, tmp_path / "lib")) as opened:
        yield opened


@pytest.fixture
def client(library):
    app = create_app(library)
    yield app.test_client()
    app.extensions["audiosearch"].close()


def page(client, path, **query):
    for _ in range(200):
        answer = client.get(path, query_string=query or None)
        if answer.status_code != 202:
            break
        time.sleep(0.1)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer


def first_of(library, name):
    return library.search(f"path:{name}").hits[0]


def test_own_classes_are_counted_as_a_search_finds_them(library, client):
    own = [each for each in library.class_counts() if each.own_classifier is not None]
    assert [(each.label, each.mid, each.index) for each in own] == [
        ("Noise", "", 527),
        ("my machine", "", 528),
        ("the whistle", "", 529),
    ]
    for each in own:
        found = library.search(f'label:"{each.label}"')
        assert (each.recordings, each.clips) == (found.total, found.total_clips)
        assert each.own_classifier == "machines"
    listed = page(client, "/api/v1/classes").get_json()["classes"]
    assert listed[-3:] == [each.to_dict() for each in own]
    assert {each["own_classifier"] for each in listed[:-3]} == {None}


def test_browsing_shows_them_beside_audiosets(library, client):
    text = page(client, "/browse").get_data(as_text=True)
    part = text[text.index("Your own") : text.index('<ul class="tree">')]
    links = re.findall(r'href="([^"]+)">([^<]+)</a> <span class="count">(\d+)', part)
    assert {label for _, label, _ in links} == set(KINDS)
    for address, _, count in links:
        assert f"{count} recording" in page(client, address).get_data(as_text=True)
    tree = page(client, "/browse.json").get_json()
    assert len(tree["classes"]) == len(load_labels().nodes()) + 3
    assert "" not in tree["roots"]
    with Library(aus.shipped_library(), shipped=True) as other:
        plain = create_app(other).test_client().get("/browse").get_data(as_text=True)
        assert "Your own" not in plain


def test_numbers_and_the_about_page_name_them(library, client):
    shares = {(share.name, share.own): share.recordings for share in statistics(library).classes}
    assert shares["my machine", True] == library.search('label:"my machine"').total
    text = page(client, "/browse/statistics").get_data(as_text=True)
    assert f"my machine</a> {OWN_MARK}" in text
    about = page(client, "/about").get_data(as_text=True)
    assert "3: Noise, my machine, the whistle" in about
    assert "1: machines" in about


def test_completion_says_that_a_class_is_the_users(library, client):
    (found,) = library.complete("the whis")
    assert (found.label, found.own, found.query) == ("the whistle", True, 'label:"the whistle"')
    assert not any(each.own for each in library.complete("dog"))
    noises = [(each.label, each.own) for each in library.complete("noise")]
    assert noises[:2] == [("Noise", False), ("Noise", True)]
    listed = page(client, "/complete.json", q="the whis").get_json()["completions"]
    assert listed == [found.to_dict()]


@pytest.mark.parametrize("name", ["C++", "a（b", "a-b: c", "it's; 5 – 6", "ключ"])
def test_a_name_of_any_signs_can_be_asked_for(name):
    vocabulary = Vocabulary(own_classes=["something else", name])
    assert parse(label_query(name), vocabulary=vocabulary).classes == (528,)
    both = Vocabulary(own_classes=["a b", "a(b", name])
    assert parse(label_query(name), vocabulary=both).classes == (529,)
    found = [each for each in vocabulary.complete(name, count=60) if each.own]
    assert (label_query(name), name) in [(each.text, each.label) for each in found]


def test_of_two_classes_of_one_name_the_better_is_what_matched(library):
    hit = first_of(library, "c-hiss")
    assert hit.label == "Noise"
    both = [Tag("Noise", "", 0.9), Tag("Noise", "/m/096m7z", 0.2)]
    hit = dataclasses.replace(hit, why=[], tags=both)
    assert [matched for _, matched in matched_tags(hit, "Noise")] == [True, False]


def test_facets_find_what_they_count_also_under_a_name_that_two_classes_have(library, client):
    clip = first_of(library, "a-low").clip
    library.confirm(clip, "/m/096m7z")  # AudioSet's Noise, and with it the user's
    library.confirm(first_of(library, "c-hiss").clip, "/m/096m7z")
    library.reject(first_of(library, "d-both").clip, "/m/096m7z", start=0, end=120)
    library.reject(first_of(library, "c-hiss").clip, "my machine")
    facets = library.facets("path:wav").classes
    assert {facet.text for facet in facets if facet.own} <= set(KINDS)
    assert any(facet.own for facet in facets)
    noises = {facet.own: facet for facet in facets if facet.text == "Noise"}
    assert noises[False].narrows == "label:/m/096m7z"
    for facet in facets:
        assert library.search(facet.query).total == facet.count
    text = page(client, "/", q="path:wav").get_data(as_text=True)
    assert re.search(rf"<span>(my machine|the whistle) {re.escape(OWN_MARK)}</span>", text)


def test_tags_of_hits_are_marked_and_lead_to_the_users_class(library, client):
    number = first_of(library, "c-hiss").clip
    for path in (f"/clip/{number}", f"/similar/{number}", "/?q=path:wav", "/browse/recent"):
        text = page(client, path).get_data(as_text=True)
        assert OWN_MARK in text, path
    clip = page(client, f"/clip/{number}").get_data(as_text=True)
    assert re.search(rf'href="/\?q=label%3A%22Noise%22">Noise {re.escape(OWN_MARK)}</a>', clip)
    alike = library.similar(number, limit=5)
    assert any(not tag.mid for hit in alike.hits for tag in hit.tags)


def test_a_timeline_has_them_frame_by_frame(library, classifier, recordings):
    clip = first_of(library, "d-both").clip
    found = library.timeline(clip, start=4.8, end=24.0, top=530)
    assert found.unheard_by == []
    curves = {curve.label: curve.scores for curve in found.curves if not curve.mid}
    track = LabClassifier(classifier).track(recordings / "d-both.wav")
    starts = 4.8 + 0.96 * np.arange(20)
    expected = track.over(starts, starts + 0.96)
    for place, label in enumerate(track.classes):
        # Codes are steps of 1/16 in the logit, from 0.0001 to 0.999.
        assert curves[label] == pytest.approx(expected[:, place].tolist(), abs=0.017)
    machine = np.array(curves["my machine"])
    assert machine[:6].min() > 0.8 > 0.3 > machine[9:].max()
    assert "the whistle" in [curve.label for curve in library.timeline(clip, start=20).curves]


def test_a_clips_page_draws_them(library, client):
    hit = first_of(library, "d-both")
    text = page(client, f"/clip/{hit.clip}").get_data(as_text=True)
    assert f'<span class="name">my machine {OWN_MARK}</span>' in text
    assert 'data-label="the whistle"' in text
    outline = library.outline(hit.clip, top=530, most=300)
    curves = {curve.label: curve.scores for curve in outline.curves if not curve.mid}
    assert curves["my machine"][0] > 0.8 > 0.3 > curves["my machine"][3]
    stored = {tag.label: tag.score for tag in library.clip(hit.clip, top=530).tags}
    at = hit.clip - min(each.clip for each in [hit, *hit.moments])
    assert curves["the whistle"][at] == pytest.approx(stored["the whistle"])
    answer = page(client, f"/api/v1/clips/{hit.clip}/timeline").get_json()
    assert [curve["label"] for curve in answer["curves"] if not curve["mid"]]


def test_what_was_not_heard_is_said(library, client, recordings, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    soundfile.write(more / "e-low.wav", sound("low", 90, seconds=3.0), 16000)
    aus.index(more, tmp_path / "other", workers=1)
    aus.merge([tmp_path / "other"], library.folder)
    clip = first_of(library, "e-low").clip
    assert library.timeline(clip).unheard_by == ["machines"]
    assert library.outline(clip).unheard_by == ["machines"]
    assert not [
        curve
        for curve in library.timeline(clip, top=530).curves
        if any(score > 0 for score in curve.scores if not curve.mid)
    ]
    text = page(client, f"/clip/{clip}").get_data(as_text=True)
    assert "by machines: this part has not been heard yet" in text
    aus.index(more, library.folder, workers=1)
    clip = first_of(library, "e-low").clip
    assert library.timeline(clip).unheard_by == []


def test_a_row_of_a_packed_file_says_that_there_is_no_sound(library, client, tmp_path):
    packed = write_packed(tmp_path / "eval.h5", clips=3)
    aus.index(packed, library.folder, mix_embedders=True, workers=1)
    clip = library.catalogue.latest(1)[0][0]
    assert library.timeline(clip).unheard_by == ["machines"]
    assert "no sound here that could be heard" in page(client, f"/clip/{clip}").get_data(True)
    assert client.get(f"/clips/{clip}/scores.png?label=").status_code == 404


def test_own_curves_need_no_embedding_frames(library, client, tmp_path):
    aus.export(library, tmp_path / "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(line | {"frames": ""}) + "\n" for line in lines)
    (tmp_path / "few.jsonl").write_text(text, encoding="utf-8")
    aus.import_clips(tmp_path / "few.jsonl", tmp_path / "copy")
    with Library(tmp_path / "copy") as copy:
        for name in ("a-low", "d-both"):
            whole = {
                curve.label: curve.scores
                for curve in library.timeline(first_of(library, name).clip, end=3.0, top=530).curves
                if not curve.mid
            }
            alone = copy.timeline(first_of(copy, name).clip, end=3.0, top=530)
            assert {curve.label: curve.scores for curve in alone.curves} == whole
            assert alone.curves[0].label == "my machine"
            assert len(copy.timeline(first_of(copy, name).clip, end=3.0, top=1).curves) == 1


def test_the_picture_of_a_class_over_time_takes_the_name_of_an_own_one(library, client):
    hit = first_of(library, "a-low")
    pictures = [
        client.get(f"/clips/{hit.clip}/scores.png", query_string={"label": label})
        for label in ("My machine", "noise", "/m/096m7z")
    ]
    assert [each.status_code for each in pictures] == [200] * 3
    images = [np.asarray(Image.open(io.BytesIO(each.data)).convert("L")) for each in pictures]
    lit = [(image > images[1].min()).mean() for image in images]
    assert lit[0] > lit[1], "the machine is heard"
    assert client.get(f"/clips/{hit.clip}/scores.png?label=no such").status_code == 404


def test_frames_of_a_sound_that_is_sent_have_them_too(client, recordings):
    with (recordings / "d-both.wav").open("rb") as file:
        data = {"file": (file, "x.wav"), "top": "10", "frames": "1"}
        sent = client.post("/api/v1/tag", data=data).get_json()
    frames = {each["label"]: each["scores"] for each in sent["frames"]["classes"]}
    assert min(frames["my machine"][:10]) > 0.8 > 0.3 > max(frames["my machine"][20:])


def test_the_command_lists_the_librarys_own_classes(library, invoke):
    listed = invoke("classes", "--library", library.folder, "--json")
    classes = json.loads(listed.out)
    assert len(classes) == 530
    assert classes[528] == {"index": 528, "mid": "", "label": "my machine"}
    found = invoke("classes", "noise", "--library", library.folder).out.splitlines()
    assert found[0].split() == ["527", "own", "Noise"]
    assert any("/m/096m7z" in line for line in found)
    assert len(invoke("classes").out.splitlines()) == 527
    assert invoke("classes", "--library", Path("nowhere")).code == 1


def test_the_command_lists_audiosets_classes_where_the_default_library_cannot_be_read(
    library, invoke, monkeypatch
):
    manifest = library.folder / "manifest.json"
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(library.folder))
    assert len(invoke("classes").out.splitlines()) == 530
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    for text in ("{", json.dumps(facts | {"format_version": 99})):
        manifest.write_text(text, encoding="utf-8")
        done = invoke("classes")
        assert (done.code, len(done.out.splitlines())) == (0, 527)
        assert "classes of AudioSet alone" in done.err
        assert invoke("classes", "--library", library.folder).code == 1


def test_a_suggestion_leads_to_the_users_class(client):
    answer = client.get("/", query_string={"q": 'label:"my machin"'})
    assert answer.status_code == 400
    link = re.search(r'<a href="([^"]+)">label:[^<]+machine', answer.get_data(as_text=True))
    if link is None:  # suggested by its name alone
        link = re.search(r'<a href="([^"]+)">my machine<', answer.get_data(as_text=True))
    assert client.get(link[1].replace("&amp;", "&")).status_code == 200
