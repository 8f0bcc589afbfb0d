"""Own classes in a library: they are indexed, searched, corrected, and kept with it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import soundfile
from lab_fixtures import own_recordings, sound
from own_fixtures import trained

import audiosearch as aus
from audiosearch.errors import LibraryMismatchError, ModelError, QueryError
from audiosearch.labels import load_labels
from audiosearch.library.library import Library
from audiosearch.library.own_scores import OwnCodes, unheard_codes
from audiosearch.library.verification import verify
from audiosearch.own.classifier import LabClassifier

SOUNDS = {"a-machine": "low", "b-whistle": "high", "c-hiss": "noise"}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    kinds = {"my machine": "low", "the whistle": "high", "Noise": "noise"}
    return trained(tmp_path_factory.mktemp("own"), kinds)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return own_recordings(folder, SOUNDS, low=10.0, high=9.0)


@pytest.fixture(scope="module")
def master(tmp_path_factory, recordings, classifier):
    folder = tmp_path_factory.mktemp("library") / "lib"
    aus.index(recordings, folder, classifier=classifier, workers=1)
    return folder


@pytest.fixture
def folder(master, tmp_path):
    return Path(shutil.copytree(master, tmp_path / "lib"))


def names(result):
    return [Path(hit.recording).stem for hit in result.hits]


@pytest.mark.parametrize("query", ['label:"My  machine"', "my machine", '"my machine"'])
def test_own_classes_are_searched(master, query):
    with Library(master) as library:
        found = library.search(f"{query} score:>0.5")
    assert set(names(found)) == {"a-machine", "d-both"}
    assert (found.total, found.total_clips) == (2, 2)
    for hit in found.hits:
        assert hit.label == "my machine"
        assert ("my machine", "") in [(tag.label, tag.mid) for tag in hit.tags]
        assert [tag.label for tag in hit.why[0].classes] == ["my machine"]


def test_scores_are_those_of_tagging(master, recordings, classifier):
    with Library(master) as library:
        for name in SOUNDS:
            (clip,) = [
                library.clip(hit.clip, top=529) for hit in library.search(f"path:{name}.wav").hits
            ]
            stored = {tag.label: tag.score for tag in clip.tags if not tag.mid}
            path = recordings / f"{name}.wav"
            for tag in aus.tag(path, top=527, classifier=classifier).tags:
                if not tag.mid and tag.score > 0.01:
                    # Codes are steps of 1/16 in the logit, up to 0.999.
                    assert stored[tag.label] == pytest.approx(min(tag.score, 0.999), abs=0.01)


def test_own_classes_join_with_all_that_a_query_may_say(master):
    with Library(master) as library:
        both = library.search('label:"my machine" OR label:"the whistle"')
        assert set(names(both)) >= {"a-machine", "b-whistle", "d-both"}
        without = library.search('label:"my machine" -label:"the whistle" score:>0.5')
        assert {(Path(h.recording).stem, h.start) for h in without.hits} == {
            ("a-machine", 0.0),
            ("d-both", 0.0),
        }
        assert library.search('label:"my machine" label:"the whistle" score:>0.5').total == 0
        assert names(library.search('label:"my machine" path:both', limit=1)) == ["d-both"]
        for facet in library.facets("path:wav").classes:
            assert library.search(facet.query).total == facet.count
        assert [c.text for c in library.complete("the whis")] == ['label:"the whistle"']
        with pytest.raises(QueryError) as caught:
            library.search('label:"my machin"')
        assert "my machine" in caught.value.suggestions


def test_a_word_that_is_also_a_class_of_audiosets_finds_both(master):
    with Library(master) as library:
        alone = {h.recording: h.score for h in library.search("/m/096m7z").hits}
        own = {h.recording: h.score for h in library.search("label:noise").hits}
        together = {h.recording: h.score for h in library.search("noise").hits}
        assert Path(max(own, key=own.__getitem__)).stem == "c-hiss"
        for path, score in together.items():
            doubt = (1 - alone.get(path, 0)) * (1 - own.get(path, 0))
            assert score == pytest.approx(1 - doubt, abs=0.03)


def test_what_the_user_says_of_an_own_class_counts(folder):
    with Library(folder) as library:
        hits = {Path(h.recording).stem: h for h in library.search('label:"my machine"').hits}
        library.reject(hits["a-machine"], "My machine")
        hiss = library.search("path:c-hiss").hits[0]
        library.confirm(hiss, "my machine")
        found = library.search('label:"my machine" score:>0.5')
        assert names(found) == ["c-hiss", "d-both"]
        assert found.hits[0].corrections[0].label == "my machine"
        assert names(library.search('confirmed:"my machine"')) == ["c-hiss"]
        library.remove_label(hits["a-machine"], "my machine")
        assert library.search('label:"my machine" score:>0.5').total == 3


def test_later_runs_go_on_with_the_classifier(folder, classifier, recordings, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    soundfile.write(more / "e-later.wav", sound("high", 77, seconds=2.0), 16000)
    away = tmp_path / "away"
    shutil.copytree(classifier, away)
    summary = aus.index([more, recordings], folder, workers=1)
    assert (summary.added, summary.unchanged, summary.updated) == (1, 4, 0)
    with Library(folder) as library:
        assert "e-later" in names(library.search('label:"the whistle" score:>0.9'))
        assert library.info().own_classes == ["Noise", "my machine", "the whistle"]
        assert library.info().own_classifiers == ["machines"]
    again = aus.index([more], folder, classifier=away, workers=1)
    assert again.unchanged == 1, "the same classifier in another folder"


def test_a_classifier_added_later_hears_the_sources_again(recordings, classifier, tmp_path):
    folder = tmp_path / "lib"
    aus.index(recordings, folder, workers=1)
    with Library(folder) as library:
        library.add_label(library.search("path:c-hiss").hits[0], "mine")
        with pytest.raises(QueryError):
            library.search('label:"my machine"')
    summary = aus.index(
        recordings / "a-machine.wav", folder, classifier=classifier, workers=1, keep_missing=True
    )
    assert (summary.updated, summary.added) == (1, 0)
    with Library(folder) as library:
        assert names(library.search('label:"my machine" score:>0.5')) == ["a-machine"]
    # A run without the option goes on with the rest.
    assert aus.index(recordings, folder, workers=1).updated == 3
    with Library(folder) as library:
        assert set(names(library.search('label:"my machine" score:>0.5'))) == {
            "a-machine",
            "d-both",
        }
        assert names(library.search("label:mine")) == ["c-hiss"], "labels stay with the sound"
    assert aus.index(recordings, folder, workers=1).unchanged == 4


def test_mixing_is_refused_and_a_classifier_can_be_dropped(
    folder, recordings, classifier, tmp_path
):
    other = trained(tmp_path, {"my machine": "high", "else": "low"})
    with pytest.raises(LibraryMismatchError, match="--drop-classifier machines"):
        aus.index(recordings, folder, classifier=other, workers=1)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [(e["name"], e["sha256"]) for e in manifest["own_classifiers"]] == [
        ("machines", LabClassifier(classifier).identity)
    ]
    aus.index(recordings, folder, classifier=other, drop_classifier=["machines"], workers=1)
    with Library(folder) as library:
        found = names(library.search('label:"my machine" score:>0.5'))
        assert {"b-whistle", "d-both"} <= set(found)
        assert "a-machine" not in found
        assert len(list(folder.glob("own-*"))) == 1
    with pytest.raises(ModelError, match="lab train"):
        aus.index(recordings, folder, classifier=recordings, workers=1)


def test_segments_and_removals_leave_own_scores_with_their_clips(
    folder, recordings, tmp_path, monkeypatch
):
    from audiosearch.library import compaction, writer

    for module in (compaction, writer):
        monkeypatch.setattr(module, "SEAL_CLIPS", 3)
    more = tmp_path / "more"
    more.mkdir()
    for number in range(4):
        kind = "low" if number % 2 else "high"
        soundfile.write(more / f"{number}.wav", sound(kind, 80 + number, seconds=1.5), 16000)
    aus.index(more, folder, workers=1)
    (more / "1.wav").unlink()
    aus.index(more, folder, workers=1)
    with Library(folder) as library:
        assert library.info().segments >= 1
        machines = names(library.search('label:"my machine" score:>0.5'))
        assert set(machines) == {"a-machine", "d-both", "3"}
        assert set(names(library.search('label:"the whistle" score:>0.5'))) == {
            "b-whistle",
            "d-both",
            "0",
            "2",
        }
    moved = folder.rename(tmp_path / "moved")
    with Library(moved) as library:
        assert set(names(library.search('label:"my machine" score:>0.5'))) == set(machines)


def test_what_a_killed_run_wrote_is_not_heard(folder, recordings, tmp_path):
    with Library(folder) as library:
        clips = library.info().clips
        (own,) = library.own.classifiers
        # As a run does that is killed before it commits: rows beyond the last clip.
        own.write(clips, OwnCodes(*(c + 255 for c in unheard_codes(5, 3))))
        assert library.search("label:noise score:>0.99").total <= 1
    packed = tmp_path / "more.wav"
    soundfile.write(packed, sound("low", 5, seconds=1.0), 16000)
    aus.index(packed, folder, workers=1)
    with Library(folder) as library:
        (hit,) = library.search("path:more.wav").hits
        own_tags = {t.label: t.score for t in library.clip(hit.clip, top=530).tags if not t.mid}
        assert own_tags["my machine"] > 0.8 > 0.3 > own_tags["Noise"]


def test_recordings_of_another_library_are_heard_when_they_are_indexed_again(
    folder, recordings, tmp_path
):
    more = tmp_path / "more"
    more.mkdir()
    soundfile.write(more / "e-low.wav", sound("low", 90, seconds=3.0), 16000)
    aus.index(more, tmp_path / "other", workers=1)
    aus.export(tmp_path / "other", tmp_path / "other.jsonl")
    aus.import_clips(tmp_path / "other.jsonl", folder)
    with Library(folder) as library:
        assert "e-low" not in names(library.search('label:"my machine" score:>0.5'))
    assert aus.index([recordings, more], folder, workers=1).updated == 1
    with Library(folder) as library:
        assert "e-low" in names(library.search('label:"my machine" score:>0.5'))
    assert aus.index([recordings, more], folder, workers=1).updated == 0


def test_packed_rows_have_no_own_classes(folder, packed_h5):
    aus.index(packed_h5, folder, mix_embedders=True, workers=1)
    with Library(folder) as library:
        assert set(names(library.search('label:"my machine" score:>0.5'))) == {
            "a-machine",
            "d-both",
        }


def test_the_web_app_and_the_api_know_them(folder, recordings):
    from audiosearch.server import create_app

    with Library(folder) as library:
        app = create_app(library)
        client = app.test_client()
        page = client.get("/", query_string={"q": 'label:"my machine"'}).get_data(as_text=True)
        assert 'aria-label="Confirm my machine"' in page
        found = client.get("/api/v1/search", query_string={"q": "my machine"}).get_json()
        assert {"label": "my machine", "mid": ""}.items() <= found["hits"][0]["tags"][0].items()
        with (recordings / "b-whistle.wav").open("rb") as file:
            sent = client.post("/api/v1/tag", data={"file": (file, "x.wav"), "top": "20"})
        tags = {tag["label"]: tag["score"] for tag in sent.get_json()["tags"]}
        assert tags["the whistle"] > 0.8
        app.extensions["audiosearch"].close()


def test_the_map_and_likeness_are_of_what_every_library_has(folder):
    from audiosearch.server import create_app

    with Library(folder) as library:
        assert library.similar(0, limit=3).hits
        app = create_app(library)
        answer = app.test_client().get("/browse/map.json")
        for _ in range(100):
            if answer.status_code == 200:
                break
            time.sleep(0.1)
            answer = app.test_client().get("/browse/map.json")
        found = answer.get_json()
        assert len(found["clips"]) == library.info().clips
        names = {label.name for label in load_labels()}
        assert set(found["labels"]) <= names
        app.extensions["audiosearch"].close()


def test_the_server_tags_with_classifiers_of_its_own(library_folder, classifier, recordings):
    from audiosearch.server import create_app

    with Library(library_folder) as library:
        app = create_app(library, classifiers=[str(classifier)])
        with (recordings / "b-whistle.wav").open("rb") as file:
            data = {"file": (file, "x.wav"), "top": "20", "clips": "1"}
            sent = app.test_client().post("/api/v1/tag", data=data).get_json()
        assert "the whistle" in [tag["label"] for tag in sent["tags"]]
        assert "the whistle" in [tag["label"] for tag in sent["clips"][0]["tags"]]
        app.extensions["audiosearch"].close()


def test_info_names_classifiers_and_says_what_they_have_not_heard(
    folder, classifier, packed_h5, tmp_path, invoke
):
    said = invoke("info", "--library", folder).out
    assert "own classes            3: Noise, my machine, the whistle" in said
    assert LabClassifier(classifier).identity in said
    with Library(folder) as library:
        before = library.info()
    assert before.unheard_clips == 0
    assert before.bytes > sum(path.stat().st_size for path in folder.glob("own-*/*"))
    aus.index(packed_h5, folder, mix_embedders=True, workers=1)
    with Library(folder) as library:
        assert library.info().unheard_clips == library.info().clips - before.clips > 0
    aus.export(folder, tmp_path / "x.jsonl")
    aus.import_clips(tmp_path / "x.jsonl", tmp_path / "copy", mix_embedders=True)
    with Library(tmp_path / "copy") as library:
        assert library.info().scores_only == ["machines"]


def test_commands_take_and_drop_classifiers(recordings, classifier, invoke, tmp_path):
    folder = tmp_path / "lib"
    done = invoke("index", recordings, "--library", folder, "--classifier", classifier)
    assert done.code == 0, done.err
    found = invoke("search", 'label:"my machine" score:>0.5', "--library", folder, "--json")
    assert json.loads(found.out)["total"] == 2
    assert "machines" in invoke("info", "--library", folder).out
    gone = invoke("index", recordings, "--library", folder, "--drop-classifier", "machines")
    assert gone.code == 0
    assert invoke("search", 'label:"my machine"', "--library", folder).code != 0
    again = invoke("index", recordings, "--library", folder, "--drop-classifier", "machines")
    assert again.code == 1
    assert "It has: none" in again.err


def test_verify_looks_at_own_classifiers(folder):
    assert verify(folder).whole
    left = folder / "own-000000000000"
    left.mkdir()
    (left / "classifier.json").write_text("{}", encoding="utf-8")
    assert [(f.kind, f.repaired) for f in verify(folder, repair=False).findings] == [
        ("leftover", False)
    ]
    assert [(f.kind, f.repaired) for f in verify(folder).findings] == [("leftover", True)]
    assert not left.exists()
    (own,) = folder.glob("own-*")
    (own / "classifier.onnx").write_bytes(b"x")
    (finding,) = [f for f in verify(folder).findings if f.kind == "damaged"]
    assert "--drop-classifier machines" in finding.problem


def test_a_classifier_that_cannot_be_used_is_said_and_can_be_dropped(folder, recordings):
    (own,) = folder.glob("own-*")
    (own / "classifier.onnx").unlink()
    with pytest.raises(LibraryMismatchError, match="--drop-classifier machines"):
        aus.index(recordings, folder, workers=1)
    with Library(folder) as library:
        found = library.search('label:"my machine" score:>0.5')
        assert set(names(found)) == {"a-machine", "d-both"}, "what was heard stays"
    aus.index(recordings, folder, workers=1, drop_classifier=["machines"])
    assert not list(folder.glob("own-*"))
