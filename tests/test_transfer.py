"""Export, import and merge: what comes back answers as before."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
from conftest import Outcome, write_packed
from library_fixtures import append, contents, make_library, write_sounds

import audiosearch as aus
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import (
    DataError,
    InvalidArgumentError,
    LibraryMismatchError,
    StorageError,
)
from audiosearch.labels import load_labels
from audiosearch.library import compaction
from audiosearch.library.columns import encode_scores, encode_vectors, score_codes
from audiosearch.library.library import Library

Invoke = Callable[..., Outcome]
FORMATS = ("csv", "jsonl", "parquet", "h5")


def pages(folder: Path) -> list[object]:
    """What a search says, without the numbers that a library gives its clips."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            numbers = ("clip", "recording_id")
            return {key: plain(item) for key, item in value.items() if key not in numbers}
        return [plain(item) for item in value] if isinstance(value, list) else value

    with Library(folder) as opened:
        queries = ("speech", "vehicle OR music", "noise -speech", "duration:>10 silence")
        example = np.full((4, 128), 90, np.uint8)
        example[:, ::3] = 200
        return [
            *(plain(opened.search(query, limit=50).to_dict()) for query in queries),
            plain(opened.similar(example, limit=50).to_dict()),
        ]


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of sounds and of rows of a packed file with labels."""
    folder = tmp_path_factory.mktemp("transfer")
    sounds = write_sounds(folder / "sounds", 2, seconds=20)
    packed = write_packed(folder / "eval.h5", clips=12)
    aus.index([sounds, packed], folder / "lib", mix_embedders=True, workers=1)
    return folder / "lib"


def test_the_text_of_a_score_gives_its_code_back() -> None:
    texts = [float(f"{score:.6g}") for score in score_codes().tolist()]
    assert encode_scores(np.array(texts)).tolist() == list(range(256))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_round_trip_changes_nothing(suffix: str, master: Path, tmp_path: Path) -> None:
    file = tmp_path / f"all.{suffix}"
    written = aus.export(master, file)
    assert (written.recordings, written.clips, written.bytes) == (14, 18, file.stat().st_size)
    with pytest.raises(LibraryMismatchError, match="mix-embedders"):
        aus.import_clips(file, tmp_path / "lib")
    assert not (tmp_path / "lib").exists()
    summary = aus.import_clips(file, tmp_path / "lib", mix_embedders=True)
    assert (summary.added, summary.updated, summary.unchanged, summary.clips) == (14, 0, 0, 18)
    assert contents(tmp_path / "lib") == contents(master)
    assert pages(tmp_path / "lib") == pages(master)
    assert aus.verify(tmp_path / "lib").findings == []
    again = aus.import_clips(file, tmp_path / "lib")
    assert (again.added, again.updated, again.unchanged, again.clips) == (0, 0, 14, 0)
    # An index run finds its files as they were.
    sounds, packed = master.parent / "sounds", master.parent / "eval.h5"
    assert aus.index([sounds, packed], tmp_path / "lib", workers=1).unchanged == 14


def test_columns_say_what_a_search_says(master: Path, tmp_path: Path) -> None:
    for suffix in FORMATS:
        aus.export(master, tmp_path / f"x.{suffix}")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pylist()
    with Library(master) as library, h5py.File(tmp_path / "x.h5") as packed:
        for number, row in enumerate(rows):
            clip = library.clip(number, top=527)
            scores = {tag.label: tag.score for tag in clip.tags}
            found = [
                {name: float(row[name]) for name in load_labels().names},
                lines[number]["scores"],
                {name: table[number][name] for name in load_labels().names},
                dict(zip(load_labels().names, packed["scores"][number].tolist(), strict=True)),
            ]
            for values in found:
                assert values == pytest.approx(scores, rel=1e-5)
            for record in (row, lines[number], table[number]):
                assert record["recording"] == clip.recording
                assert float(record["start"]) == pytest.approx(clip.start)
                assert float(record["end"]) == pytest.approx(clip.end)
    with PackedFile(tmp_path / "x.h5") as file_, PackedFile(master.parent / "eval.h5") as source:
        assert not file_.has_labels  # those of the sounds are not known
        names = file_.video_ids()
        rows_ = file_.read(names.index("clip-000000"), names.index("clip-000011") + 1)
        assert (rows_.x == source.read().x).all()
        assert (rows_.n_frames == source.read().n_frames).all()


def test_a_packed_export_carries_labels_and_can_be_indexed(tmp_path: Path) -> None:
    source = write_packed(tmp_path / "source.h5", clips=5)
    aus.index(source, tmp_path / "lib", workers=1)
    aus.export(tmp_path / "lib", tmp_path / "out.h5")
    with PackedFile(tmp_path / "out.h5", labels=True) as out, PackedFile(source) as expected:
        assert (out.read().y == expected.read().y).all()
        assert out.attribute("embedder") == "audioset-release"
    assert aus.index(tmp_path / "out.h5", tmp_path / "other").added == 5


def test_a_threshold_leaves_small_scores_out(master: Path, tmp_path: Path) -> None:
    aus.export(master, tmp_path / "few.jsonl", threshold=0.02)
    for line in (tmp_path / "few.jsonl").read_text().splitlines():
        assert all(score > 0.0195 for score in json.loads(line)["scores"].values())
    aus.import_clips(tmp_path / "few.jsonl", tmp_path / "lib", mix_embedders=True)
    with Library(tmp_path / "lib") as few, Library(master) as whole:
        one, other = (each.search("label:Speech score:>0.02", limit=50) for each in (few, whole))
        assert [(h.recording, h.score) for h in one.hits] == [
            (h.recording, h.score) for h in other.hits
        ]


def test_what_cannot_be_written_or_read_is_told(master: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="parquet"):
        aus.export(master, tmp_path / "x.xlsx")
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        aus.export(master, tmp_path / "x.csv")
    with pytest.raises(DataError, match="no such file"):
        aus.import_clips(tmp_path / "nothing.csv", tmp_path / "lib")
    with pytest.raises(DataError, match="audiosearch index"):
        aus.import_clips(master.parent / "eval.h5", tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("clip", 1), ("clips", 0), ("clips", "x"), ("duration", "nan"), ("vector", "AAAA")),
        *(("vector", "!"), ("frames", "AAAA"), ("scores", {"Speech": 2}), ("packed_row", "x")),
        *(("scores", {"Speech": float("nan")}), ("scores", None), ("labels", "No such class")),
        *(("size", -1), ("embedder", "another@00"), ("recording", None)),
    ],
)
def test_a_broken_row_is_named(field: str, value: object, master: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    aus.export(master, file)
    lines = file.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {field: value})
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match="row 4: "):
        aus.import_clips(file, tmp_path / "lib", mix_embedders=True)


def test_a_table_that_lacks_rows_is_refused(master: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    aus.export(master, file)
    lines = file.read_text().splitlines(keepends=True)
    for kept in (lines[:-1], lines[:-2], lines[:1], ["a,b\n", "1,2\n"]):
        file.write_text("".join(kept))
        with pytest.raises(DataError, match=r"x\.csv"):
            aus.import_clips(file, tmp_path / "lib", mix_embedders=True)


# Merge


def random_library(folder: Path, clips: list[int], seed: int) -> Path:
    make_library(folder, [], np.zeros((0, 527), np.uint8))
    draw = np.random.default_rng(seed)
    vectors = encode_vectors(draw.normal(size=(sum(clips), 128)))
    append(folder, clips, draw.integers(0, 256, (sum(clips), 527)).astype(np.uint8), vectors)
    return folder


def rename(folder: Path, root: bytes) -> None:
    with Library(folder, writable=True) as library, library.catalogue.transaction():
        library.catalogue._db.execute("UPDATE roots SET path = ?", root)


def test_a_merge_holds_both_and_leaves_them_alone(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SEAL_CLIPS", 40)
    a = random_library(tmp_path / "a", [1, 3] * 15, 1)
    b = random_library(tmp_path / "b", [2] * 10, 2)
    rename(b, b"/other")
    (b / "thesaurus.toml").write_text('[words]\nbeep = ["Beep, bleep"]\n')
    before = contents(a) | contents(b)
    done = invoke("merge", a, b, "--out", tmp_path / "c", "--json")
    assert done.code == 0
    assert json.loads(done.out)["added"] == 40
    assert contents(tmp_path / "c") == before
    assert contents(a) | contents(b) == before
    assert aus.verify(tmp_path / "c", sounds=False).findings == []
    assert aus.verify(tmp_path / "c", sounds=False).segments > 0
    assert (tmp_path / "c" / "thesaurus.toml").exists()


def test_of_two_states_of_a_file_the_newer_is_kept(tmp_path: Path) -> None:
    a = random_library(tmp_path / "a", [1, 2], 1)
    b = random_library(tmp_path / "b", [1, 2], 2)
    with Library(b, writable=True) as library, library.catalogue.transaction():
        library.catalogue._db.execute("UPDATE recordings SET mtime_ns = 9 WHERE name = ?", b"1.wav")
    for sources, counts in (((a, b), (2, 1, 1)), ((b, a), (2, 0, 2))):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        summary = aus.merge(sources, tmp_path / "c")
        assert (summary.added, summary.updated, summary.unchanged) == counts
        assert contents(tmp_path / "c")["/sounds/1.wav"] == contents(b)["/sounds/1.wav"]
        first = contents(sources[0])["/sounds/0.wav"]
        assert contents(tmp_path / "c")["/sounds/0.wav"] == first


def test_other_classifiers_and_oneself_are_refused(tmp_path: Path) -> None:
    a = random_library(tmp_path / "a", [1], 1)
    b = random_library(tmp_path / "b", [1], 2)
    manifest = json.loads((b / "manifest.json").read_text())
    manifest["classifier"]["sha256"] = 64 * "0"
    (b / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(LibraryMismatchError, match="classifier"):
        aus.merge([a, b], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(InvalidArgumentError, match="itself"):
        aus.import_clips(a, a)


def test_the_commands_say_what_they_did(master: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("export", master, "--to", tmp_path / "x.csv")
    assert (done.code, "18 clips of 14 recordings" in done.out) == (0, True)
    assert invoke("export", master, "--to", tmp_path / "x.csv").code == 1
    done = invoke("import", tmp_path / "x.csv", "--library", tmp_path / "lib", "--mix-embedders")
    assert (done.code, "14 added" in done.out) == (0, True)
