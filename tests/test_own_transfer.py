"""Own classes leave and come back: export, import, merge."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab_fixtures import sound
from own_fixtures import classifier, found, master, recordings, trained

import audiosearch as aus
from audiosearch.errors import DataError, InvalidArgumentError, LibraryMismatchError
from audiosearch.library import transfer
from audiosearch.library.bundles import read_bundles
from audiosearch.library.library import Library
from audiosearch.library.verification import verify
from audiosearch.own.classifier import LabClassifier
from audiosearch.server import create_app

__all__ = ["classifier", "master", "recordings"]

FORMATS = ("csv", "jsonl", "parquet", "h5")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, recordings):
    """The same sounds, and one more, in a library without own classes."""
    folder = tmp_path_factory.mktemp("plain")
    soundfile.write(folder / "e-more.wav", sound("low", 70, seconds=3.0), 16000)
    aus.index([recordings, folder / "e-more.wav"], folder / "lib", workers=1)
    return folder / "lib"


def own_of(folder):
    """What a library holds of own classes, by recording."""
    held = {}
    with Library(folder) as library:
        stop = library.catalogue.lengths()["clips"]
        for origin in library.catalogue.origins(0, -1):
            numbers = np.arange(origin.first_clip, origin.first_clip + origin.clips)
            clips, frames = library.own.read(numbers, stop)
            held[origin.path or origin.name] = clips.tolist(), frames.tolist()
        return library.own.names, held


def stored_of(folder):
    """What a library holds of AudioSet's classes and of vectors and frames, by recording."""
    held = {}
    with Library(folder) as library:
        for bundle in read_bundles(library):
            first = 0
            stops = bundle.frame_counts.cumsum(dtype=int)
            for origin in bundle.origins:
                rows = slice(first, first + origin.clips)
                first += origin.clips
                start = stops[rows.start] - bundle.frame_counts[rows.start]
                held[origin.path or origin.name] = (
                    bundle.codes[rows].tolist(),
                    bundle.vectors[rows].tolist(),
                    bundle.frame_counts[rows].tolist(),
                    bundle.frames[start : stops[rows.stop - 1]].tolist(),
                )
    return held


def another(folder, kinds):
    """Train one more classifier, of another name."""
    made = trained(folder / "another", kinds).rename(folder / "fowl")
    about = json.loads((made / "classifier.json").read_text(encoding="utf-8"))
    (made / "classifier.json").write_text(json.dumps(about | {"name": "fowl"}), encoding="utf-8")
    return made


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_brings_own_scores_back(suffix, master, classifier, recordings, tmp_path):
    file, copy = tmp_path / f"all.{suffix}", tmp_path / "lib"
    aus.export(master, file)
    done = aus.import_clips(file, copy, mix_embedders=True, classifier=classifier)
    assert (done.added, done.own_classifiers, done.unheard) == (6, ["machines"], 0)
    assert own_of(copy) == own_of(master)
    assert found(copy) == found(master)
    assert set(found(copy)) == {"a-low", "d-both"}
    assert verify(copy, sounds=False).findings == []
    assert aus.index(recordings, copy, workers=1).unchanged == 3, "all of them were heard"


def test_a_file_brings_scores_without_their_classifier(master, classifier, recordings, tmp_path):
    aus.export(master, tmp_path / "all.jsonl")
    copy = tmp_path / "lib"
    aus.import_clips(tmp_path / "all.jsonl", copy, mix_embedders=True)
    assert found(copy) == found(master)
    assert verify(copy, sounds=False).whole
    with pytest.raises(LibraryMismatchError, match="--classifier FOLDER"):
        aus.index(recordings, copy, workers=1)
    done = aus.index(recordings, copy, classifier=classifier, workers=1)
    assert (done.unchanged, done.updated) == (3, 0)
    assert aus.index(recordings, copy, workers=1).unchanged == 3, "the library has it now"
    assert own_of(copy) == own_of(master)


def test_a_merge_brings_the_classifier_of_scores_that_were_there(master, recordings, tmp_path):
    aus.export(master, tmp_path / "all.h5")
    copy = tmp_path / "lib"
    aus.import_clips(tmp_path / "all.h5", copy, mix_embedders=True)
    done = aus.merge([master], copy)
    assert (done.unchanged, done.added, done.own_classifiers) == (6, 0, [])
    with Library(copy) as library:
        assert library.info().scores_only == []
    assert verify(copy, sounds=False).findings == []
    assert aus.index(recordings, copy, workers=1).unchanged == 3
    # And the other way round: what is there stays.
    done = aus.import_clips(tmp_path / "all.h5", copy, mix_embedders=True)
    assert done.unchanged == 6
    with Library(copy) as library:
        assert library.info().scores_only == []


def test_a_server_shows_scores_without_their_classifier(master, recordings, tmp_path):
    aus.export(master, tmp_path / "all.jsonl")
    aus.import_clips(tmp_path / "all.jsonl", tmp_path / "lib", mix_embedders=True)
    with Library(tmp_path / "lib") as library:
        app = create_app(library)
        client = app.test_client()
        assert "1: machines" in client.get("/about").get_data(as_text=True)
        answer = client.get("/api/v1/search", query_string={"q": 'label:"my machine"'})
        assert answer.get_json()["hits"][0]["tags"][0]["label"] == "my machine"
        with (recordings / "a-low.wav").open("rb") as file:
            sent = client.post("/api/v1/tag", data={"file": (file, "x.wav"), "top": "20"})
        tags = sent.get_json()["tags"]
        assert len(tags) == 20
        assert all(tag["mid"] for tag in tags), "nothing more can be heard"
        app.extensions["audiosearch"].close()


def test_a_threshold_leaves_small_own_scores_out_but_not_that_they_were_heard(
    master, classifier, recordings, tmp_path
):
    aus.export(master, tmp_path / "few.csv", threshold=0.5)
    with (tmp_path / "few.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["recording"].endswith(".wav")]
    assert [bool(row["own: my machine"]) for row in rows] == [True, False, True, False]
    assert all(float(row["own: my machine"] or 1) >= 0.499 for row in rows)
    (about,) = json.loads(rows[0]["own_classifiers"])
    assert about == {
        "name": "machines",
        "sha256": LabClassifier(classifier).identity,
        "classes": ["Noise", "my machine", "the whistle"],
    }
    copy = tmp_path / "lib"
    aus.import_clips(tmp_path / "few.csv", copy, mix_embedders=True, classifier=classifier)
    assert found(copy) == found(master)
    assert aus.index(recordings, copy, workers=1).unchanged == 3


def test_a_file_of_a_library_without_own_classes_has_no_columns_of_them(plain, tmp_path):
    aus.export(plain, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        assert not [name for name in next(csv.reader(file)) if name.startswith("own")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("own_scores", {"my machine": 2}),
        ("own_scores", {"no such": 0.5}),
        ("own_scores", ["x"]),
        ("own_frames", "AAAA"),
        ("own_classifiers", []),
    ],
)
def test_own_values_that_cannot_be_are_named(field, value, master, tmp_path):
    file = tmp_path / "x.jsonl"
    aus.export(master, file)
    lines = file.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {field: value})
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match="row 3: "):
        aus.import_clips(file, tmp_path / "lib", mix_embedders=True)


def test_libraries_with_the_same_classifier_are_merged(master, classifier, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    soundfile.write(more / "f-high.wav", sound("high", 80, seconds=3.0), 16000)
    aus.index(more, tmp_path / "other", classifier=classifier, workers=1)
    done = aus.merge([tmp_path / "other", master], tmp_path / "out", mix_embedders=True)
    assert (done.added, done.unheard) == (7, 0)
    assert own_of(tmp_path / "out")[1] == own_of(master)[1] | own_of(tmp_path / "other")[1]
    assert set(found(tmp_path / "out", 'label:"the whistle" score:>0.5')) == {
        "b-high",
        "d-both",
        "f-high",
    }
    # The merged library goes on with the classifier.
    shutil.rmtree(tmp_path / "other")
    soundfile.write(more / "g-low.wav", sound("low", 81, seconds=3.0), 16000)
    aus.index(more, tmp_path / "out", workers=1)
    assert "g-low" in found(tmp_path / "out")


def test_a_library_without_own_classes_gets_them(plain, master, tmp_path, invoke):
    out = Path(shutil.copytree(plain, tmp_path / "out"))
    with Library(out) as library:
        library.add_label(library.search("path:d-both").hits[0], "mine")
    done = invoke("merge", master, "--out", out, "--mix-embedders")
    assert done.code == 0, done.err
    assert "came along, by: machines" in done.out
    assert "1 sound not heard yet" in done.out
    # Of the files that both have, what was heard came along; the other is heard with the next run.
    assert set(found(out)) == {"a-low", "d-both"}
    assert set(found(out, "label:mine")) == {"d-both"}
    done = aus.index(plain.parent / "e-more.wav", out, workers=1)
    assert (done.updated, done.added) == (1, 0)
    assert set(found(out)) == {"a-low", "d-both", "e-more"}


def test_what_is_known_of_a_recording_stays_when_own_scores_come_to_it(
    plain, master, recordings, tmp_path
):
    out = Path(shutil.copytree(plain, tmp_path / "out"))
    fowl = another(tmp_path, {"bird": "high", "bear": "low"})
    aus.index(recordings, out, classifier=fowl, workers=1)
    before, heard = stored_of(out), found(out, "label:bird score:>0.5")
    aus.export(master, tmp_path / "few.csv", threshold=0.5)
    done = aus.import_clips(tmp_path / "few.csv", out, mix_embedders=True)
    assert (done.added, done.updated, done.own_classifiers) == (3, 3, ["machines"])
    after = stored_of(out)
    assert {path: after[path] for path in before} == before, "scores below 0.5 are still there"
    assert set(found(out, "label:bird score:>0.5")) == set(heard) == {"b-high", "d-both"}
    assert set(found(out)) == {"a-low", "d-both"}
    small = found(out, "label:bird")
    # Both have heard all of it now, so nothing is left to take.
    aus.export(out, tmp_path / "all.csv", threshold=0.9)
    assert aus.import_clips(tmp_path / "all.csv", out, mix_embedders=True).unchanged == 7
    assert found(out, "label:bird") == small
    assert verify(out, sounds=False).findings == []


def test_a_file_with_another_number_of_clips_brings_no_own_scores(
    plain, master, recordings, tmp_path
):
    aus.export(master, tmp_path / "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    first, *rest = [line for line in lines if line["recording"].endswith("d-both.wav")]
    lines = [line for line in lines if line not in [first, *rest]]
    lines.append(first | {"clips": 1, "duration": 9.6})
    (tmp_path / "cut.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = Path(shutil.copytree(plain, tmp_path / "out"))
    before = stored_of(out)
    aus.import_clips(tmp_path / "cut.jsonl", out, mix_embedders=True)
    assert set(found(out)) == {"a-low"}
    after = stored_of(out)
    assert {path: after[path] for path in before} == before


def test_what_another_process_brought_meanwhile_is_looked_at_again(
    plain, master, recordings, tmp_path, monkeypatch
):
    out = Path(shutil.copytree(plain, tmp_path / "out"))
    other = another(tmp_path, {"MY machine": "high", "else": "low"})
    real = transfer.writer_lock

    def late(folder):
        monkeypatch.setattr(transfer, "writer_lock", real)
        aus.index(recordings, out, classifier=other, workers=1)  # as another process does
        return real(folder)

    monkeypatch.setattr(transfer, "writer_lock", late)
    with pytest.raises(LibraryMismatchError, match="my machine"):
        aus.merge([master], out, mix_embedders=True)
    with Library(out) as library:
        assert [each.name for each in library.own.classifiers] == ["fowl"]


def test_a_source_that_changes_meanwhile_is_refused(
    plain, master, recordings, tmp_path, monkeypatch
):
    source = Path(shutil.copytree(master, tmp_path / "source"))
    out = Path(shutil.copytree(plain, tmp_path / "out"))
    other = another(tmp_path, {"bird": "high", "bear": "low"})
    real = transfer.writer_lock

    def late(folder):
        monkeypatch.setattr(transfer, "writer_lock", real)
        options = {"classifier": other, "drop_classifier": ["machines"], "workers": 1}
        aus.index(recordings, source, **options)
        return real(folder)

    monkeypatch.setattr(transfer, "writer_lock", late)
    with pytest.raises(LibraryMismatchError, match="changed while it was read"):
        aus.merge([source], out, mix_embedders=True)
    assert aus.merge([source], out, mix_embedders=True).updated == 3
    assert set(found(out, "label:bird score:>0.5")) == {"b-high", "d-both"}


def test_the_order_of_the_sources_does_not_matter(plain, master, tmp_path):
    for number, sources in enumerate([(plain, master), (master, plain)]):
        aus.merge(sources, tmp_path / str(number), mix_embedders=True)
        assert set(found(tmp_path / str(number))) == {"a-low", "d-both"}
    assert own_of(tmp_path / "0") == own_of(tmp_path / "1")


def test_what_two_classifiers_heard_of_one_file_is_kept(master, recordings, tmp_path):
    birds = another(tmp_path, {"bird": "high", "bear": "low"})
    aus.index(recordings, tmp_path / "b", classifier=birds, workers=1)
    done = aus.merge([tmp_path / "b", master], tmp_path / "out", mix_embedders=True)
    assert (done.added, done.updated, done.unheard) == (6, 3, 0)
    assert set(found(tmp_path / "out")) == {"a-low", "d-both"}
    assert set(found(tmp_path / "out", "label:bird score:>0.5")) == {"b-high", "d-both"}
    assert verify(tmp_path / "out", sounds=False).findings == []


def test_another_classifier_of_the_same_classes_is_refused_or_left_behind(
    master, recordings, tmp_path, invoke
):
    other = trained(tmp_path / "x", {"MY machine": "high", "else": "low"})
    aus.index(recordings, tmp_path / "b", classifier=other, workers=1)
    with pytest.raises(LibraryMismatchError, match="--no-own-classes") as caught:
        aus.merge([master, tmp_path / "b"], tmp_path / "out", mix_embedders=True)
    assert "--drop-classifier machines" in str(caught.value)
    assert "my machine" in str(caught.value)
    assert not (tmp_path / "out").exists()
    options = ["--out", tmp_path / "out", "--mix-embedders"]
    done = invoke("merge", master, tmp_path / "b", *options, "--no-own-classes")
    assert done.code == 0, done.err
    with Library(tmp_path / "out") as library:
        assert library.own.names == ()
    aus.export(master, tmp_path / "all.jsonl")
    with pytest.raises(InvalidArgumentError, match="nothing that is imported"):
        aus.import_clips(
            tmp_path / "all.jsonl", tmp_path / "c", mix_embedders=True, classifier=other
        )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("classes", "said"),
    [(["Noise", '5" pipe', "x"], "quotation mark"), (["a", "A", "x"], "'a' and 'A' are one")],
)
def test_a_classifier_of_classes_that_queries_cannot_name_is_refused(
    classes, said, classifier, master, recordings, tmp_path
):
    odd = Path(shutil.copytree(classifier, tmp_path / "odd"))
    about = json.loads((odd / "classifier.json").read_text(encoding="utf-8"))
    text = json.dumps(about | {"classes": classes, "name": "odd"})
    (odd / "classifier.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match=said):
        aus.index(recordings, tmp_path / "lib", classifier=odd, workers=1)
    assert not (tmp_path / "lib").exists()
    folder = Path(shutil.copytree(master, tmp_path / "held"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["own_classifiers"][0]["classes"] = classes
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match=said):
        aus.merge([folder], tmp_path / "lib", mix_embedders=True)
    assert not (tmp_path / "lib").exists()
