"""Own classes as tags: a classifier of the lab beside AudioSet's, in files, clips and segments."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab_fixtures import sound
from own_fixtures import KINDS, classifier, trained

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError, ModelError
from audiosearch.lab import predict
from audiosearch.labels import load_labels
from audiosearch.own.classifier import LabClassifier, Track, load_classifiers
from audiosearch.tagging import TagRules, class_keys
from audiosearch.tagging.batch import tag_batch

__all__ = ["classifier"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """12 s of a low tone, then 12 s of a high one: clips of 9.6, 9.6 and 4.8 s."""
    path = tmp_path_factory.mktemp("rec") / "day.wav"
    parts = [sound("low", 90, seconds=12.0), sound("high", 91, seconds=12.0)]
    soundfile.write(path, np.concatenate(parts), 16000)
    return path


def test_own_classes_are_tags_beside_audiosets(classifier, recording):
    plain = aus.tag(recording, top=527)
    both = aus.tag(recording, top=527, classifier=classifier)
    own = {tag.label: tag.score for tag in both.tags if not tag.mid}
    known = {tag.label: tag.score for tag in plain.tags}
    assert {tag.label: tag.score for tag in both.tags if tag.mid}.items() <= known.items()
    (said,) = predict(classifier, [recording])
    for place, label in enumerate(LabClassifier(classifier).classes):
        assert own[label] == pytest.approx(max(w.scores[place] for w in said.windows), abs=1e-6)
    assert min(own["my machine"], own["the whistle"]) > 0.8 > 0.3 > own["Noise"]
    assert [tag.score for tag in both.tags] == sorted((t.score for t in both.tags), reverse=True)


def test_each_clip_has_the_scores_of_its_own_windows(classifier, recording):
    rules = TagRules(per="clip", classes=class_keys(["my machine", "the whistle"], KINDS))
    rows = list(aus.tag_files([recording], rules=rules, classifier=[classifier]))
    found = [{tag.label: round(tag.score) for tag in row.tags} for row in rows]
    assert found == [
        {"my machine": 1, "the whistle": 0},
        {"my machine": 1, "the whistle": 1},
        {"my machine": 0, "the whistle": 1},
    ]
    assert [(row.start, row.end) for row in rows] == [(0, 9.6), (9.6, 19.2), (19.2, 24)]


def test_own_classes_have_segments(classifier, recording):
    rules = TagRules(per="segment", classes=class_keys(["my machine", "the whistle"], KINDS))
    rows = list(aus.tag_files([recording], rules=rules, classifier=classifier))
    assert [row.tags[0].label for row in rows] == ["my machine", "the whistle"]
    assert rows[0].start == 0
    assert rows[0].end == pytest.approx(12, abs=1.5)
    assert rows[1].start == pytest.approx(12, abs=1.5)
    assert rows[1].end == 24


def test_a_part_of_a_file_is_heard_alone(classifier, recording, tmp_path):
    listing = tmp_path / "parts.csv"
    listing.write_text(f"path,start,end\n{recording},14,24\n", encoding="utf-8")
    rules = TagRules(top=1, classes=class_keys(["my machine", "the whistle"], KINDS))
    tag_batch([listing], tmp_path / "tags.jsonl", rules=rules, classifier=classifier)
    row = json.loads((tmp_path / "tags.jsonl").read_text(encoding="utf-8"))
    assert (row["start"], row["end"]) == (14, 24)
    assert [(tag["label"], tag["mid"]) for tag in row["tags"]] == [("the whistle", "")]


def test_every_format_names_own_classes(classifier, recording, tmp_path):
    options = {"classifier": classifier, "workers": 1}
    rules = TagRules(per="segment", top=2, classes=class_keys(["my machine"], KINDS))
    for name in ("csv", "raven", "audacity", "m3u"):
        tag_batch([recording], tmp_path / name, format=name, rules=rules, **options)
    (row,) = csv.DictReader(io.StringIO((tmp_path / "csv").read_text(encoding="utf-8")))
    assert (row["label"], row["mid"], row["rank"]) == ("my machine", "", "1")
    assert "\tmy machine\t\t" in (tmp_path / "raven").read_text(encoding="utf-8")
    (track,) = (tmp_path / "audacity").glob("*.txt")
    assert "my machine 0.9" in track.read_text(encoding="utf-8")
    assert (tmp_path / "m3u" / "my machine.m3u8").exists()
    manifest = json.loads((tmp_path / "csv.manifest.json").read_text(encoding="utf-8"))
    assert manifest["own_classifiers"] == [
        {
            "name": "machines",
            "sha256": LabClassifier(classifier).identity,
            "classes": ["Noise", "my machine", "the whistle"],
        }
    ]


def test_a_class_called_as_one_of_audiosets_has_a_playlist_of_its_own(
    classifier, recording, tmp_path
):
    keys = class_keys(["noise"], KINDS)
    assert keys == (load_labels().by_name("Noise").index, "Noise")
    rules = TagRules(classes=keys)
    options = {"format": "m3u", "rules": rules, "classifier": classifier, "workers": 1}
    tag_batch([recording], tmp_path / "lists", **options)
    names = sorted(path.name for path in (tmp_path / "lists").glob("*.m3u8"))
    assert names == ["Noise (own).m3u8", "Noise.m3u8"]


def test_a_job_with_another_classifier_does_files_again(classifier, recording, tmp_path):
    out = tmp_path / "tags.csv"
    assert tag_batch([recording], out, workers=1).redone == 0
    assert tag_batch([recording], out, workers=1, classifier=classifier).redone == 1
    assert tag_batch([recording], out, workers=1, classifier=classifier).earlier == 1


def test_models_that_hear_the_samples_work_too(recording, tmp_path):
    kinds = {"my machine": "low", "the whistle": "high"}
    folder = trained(tmp_path, kinds, model="prototypes")
    tags = {tag.label: tag.score for tag in aus.tag(recording, top=527, classifier=folder).tags}
    assert min(tags["my machine"], tags["the whistle"]) > 0.9


def test_the_command_takes_classifiers(classifier, recording, invoke, tmp_path):
    result = invoke(
        "tag", recording, "--classifier", classifier, "--only", "my machine,Speech", "--json"
    )
    assert result.code == 0
    tags = json.loads(result.out)["tags"]
    assert [tag["label"] for tag in tags] == ["my machine", "Speech"]
    result = invoke("tag", recording, "--classifier", tmp_path)
    assert result.code == 1
    assert "lab train --out" in result.err


def test_two_classes_of_one_name_are_refused(classifier, tmp_path):
    other = trained(tmp_path, {"MY  machine": "low", "else": "high"})
    with pytest.raises(InvalidArgumentError, match="have a class 'MY machine'"):
        load_classifiers([classifier, other])
    with pytest.raises(ModelError, match="There is no model"):
        aus.tag(tmp_path / "x.wav", classifier=tmp_path)


def test_stretches_take_the_windows_that_lie_in_them():
    starts = np.arange(4) * 4.0
    scores = np.array([[0.1], [0.2], [0.3], [0.4]], np.float32)
    track = Track(("a",), starts, np.array([4.0, 8.0, 12.0, 14.5]), scores)
    # Half of a window, or half of the stretch, must be shared.
    begins, ends = np.array([0.0, 0.0, 3.0, 6.0, 13.0, 20.0]), np.array([4, 6, 4.5, 9, 14, 21.0])
    expected = [0.1, 0.2, 0.1, 0.2, 0.4, 0.4]
    assert track.over(begins, ends)[:, 0].tolist() == pytest.approx(expected)
    empty = Track(("a",), np.empty(0), np.empty(0), np.empty((0, 1), np.float32))
    assert empty.over(begins, ends).tolist() == [[0.0]] * 6


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "lite-trunk"}, "the feature 'lite-trunk', which this version"),
        ({"identity": "lite of old"}, "another version of the feature 'lite'"),
    ],
)
def test_a_classifier_of_a_feature_that_is_gone_is_to_be_trained_again(
    classifier, tmp_path, change, problem
):
    folder = Path(shutil.copytree(classifier, tmp_path / "machines"))
    path = folder / "classifier.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["feature"] |= change
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match=f"machines.* was trained on .*{problem}.*again"):
        LabClassifier(folder)
