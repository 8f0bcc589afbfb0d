"""`audiosearch verify`: what is wrong with a library is said, and what can be is put right."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome, write_packed
from library_fixtures import append, make_library, make_readonly, run_without_override

import audiosearch as aus
from audiosearch.errors import LibraryBusyError, LibraryNotFoundError
from audiosearch.library import compaction, index_building
from audiosearch.library.compaction import tidy
from audiosearch.library.indexing import writer_lock
from audiosearch.library.library import Library

Invoke = Callable[..., Outcome]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of two segments, a tail and an index of vectors."""
    monkeypatch.setattr(compaction, "SEAL_CLIPS", 40)
    for module in (compaction, index_building):
        monkeypatch.setattr(module, "EXACT_CLIPS", 60)
    draw = np.random.default_rng(5)
    folder = make_library(tmp_path / "lib", [], np.zeros((0, 527), np.uint8))
    append(folder, [1] * 90, draw.integers(0, 256, (90, 527)).astype(np.uint8))
    with Library(folder, writable=True) as opened:
        tidy(opened)
    append(folder, [2, 3], draw.integers(0, 256, (5, 527)).astype(np.uint8))
    return folder


def said(folder: Path, **options: bool) -> list[tuple[str, str, bool]]:
    """What is found, without the sounds, which these libraries never had."""
    options = {"sounds": False} | options
    return [
        (finding.kind, Path(finding.path).name, finding.repaired)
        for finding in aus.verify(folder, **options).findings
    ]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def place_of(path: Path, array: str) -> int:
    """Where an array of a segment begins."""
    data = path.read_bytes()
    footer = json.loads(data[data.rindex(b'{"kind"') : data.rindex(b"}") + 1])
    return int(footer["arrays"][array]["offset"])


def pages(folder: Path) -> list[object]:
    with Library(folder) as opened:
        return [
            *(
                opened.search(query, limit=200).to_dict()
                for query in ("car", "vehicle", "dog -music")
            ),
            opened.similar(3, limit=20).to_dict(),
        ]


def test_a_whole_library_has_nothing_to_say(library: Path) -> None:
    result = aus.verify(library, sounds=False)
    assert result.findings == []
    assert result.whole
    assert (result.recordings, result.clips, result.segments) == (92, 95, 2)


def test_a_broken_list_of_a_segment_is_made_again(library: Path) -> None:
    before = pages(library)
    path = library / "segment-000001.seg"
    for array in ("postings", "entry_codes"):
        flip(path, place_of(path, array) + 5)
    assert said(library, repair=False) == [("derived", path.name, False)]
    assert said(library) == [("derived", path.name, True)]
    assert pages(library) == before
    assert said(library) == []
    assert not path.exists()


@pytest.mark.parametrize("array", ["scores", "vectors", "recordings", "clips"])
def test_broken_data_of_a_segment_is_named_and_left_alone(library: Path, array: str) -> None:
    path = library / "segment-000002.seg"
    flip(path, place_of(path, array) + 9)
    before = {file.name: file.read_bytes() for file in library.iterdir()}
    assert said(library) == [("damaged", path.name, False)]
    assert not aus.verify(library, sounds=False).whole
    after = {file.name: file.read_bytes() for file in library.iterdir()}
    assert after == before | {"writer.lock": b""}


@pytest.mark.parametrize("name", ["segment-000001.seg", "tail-0000000080.rows"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_cut_or_missing_file_is_named(library: Path, name: str, how: str) -> None:
    path = library / name
    if how == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 10)
    assert said(library) == [("damaged", name, False)]


def test_every_lost_file_is_named(library: Path) -> None:
    for name in ("segment-000001.seg", "segment-000002.seg", "tail-0000000080.rows"):
        (library / name).unlink()
    assert len(said(library)) == 3


def test_rows_of_the_tail_that_belong_to_others_are_named(library: Path) -> None:
    flip(library / "tail-0000000080.rows", 0)
    assert said(library) == [("damaged", "tail-0000000080.rows", False)]


@pytest.mark.parametrize("how", ["gone", "flipped", "manifest"])
def test_the_index_of_vectors_is_made_again(library: Path, how: str) -> None:
    before = pages(library)
    path = next(library.glob("neighbours-*.faiss"))
    if how == "gone":
        path.unlink()
    elif how == "flipped":
        flip(path, 200)
    else:
        path.with_suffix(".json").write_text("{")
    assert said(library, repair=False) == [("derived", path.name, False)]
    assert said(library) == [("derived", path.name, True)]
    assert said(library) == []
    with Library(library) as opened:
        assert opened.info().recall_at_10 is not None
    assert pages(library) == before


def test_totals_are_counted_anew(library: Path) -> None:
    db = sqlite3.connect(library / "catalogue.sqlite")
    db.execute("UPDATE lengths SET rows = 7 WHERE name = 'live_clips'")
    db.commit()
    db.close()
    assert said(library) == [("derived", "catalogue.sqlite", True)]
    assert said(library) == []
    with Library(library) as opened:
        assert opened.info().clips == 95


def test_a_broken_page_of_the_catalogue_is_named(library: Path) -> None:
    path = library / "catalogue.sqlite"
    size = path.stat().st_size
    data = bytearray(path.read_bytes())
    data[size - 4096 :] = bytes(range(256)) * 16
    path.write_bytes(data)
    assert said(library) == [("damaged", "catalogue.sqlite", False)]


def test_leftovers_are_deleted(library: Path) -> None:
    left = library / "segment-000099.seg"
    left.write_bytes(b"half")
    assert said(library, repair=False) == [("leftover", left.name, False)]
    assert left.exists()
    assert said(library) == [("leftover", left.name, True)]
    assert not left.exists()


def test_words_of_ones_own_that_cannot_be_read_are_named(library: Path) -> None:
    (library / "thesaurus.toml").write_text("[words\n")
    assert said(library) == [("thesaurus", "thesaurus.toml", False)]


def test_sounds_that_are_gone_or_changed_are_named(
    invoke: Invoke, good_folder: Path, tmp_path: Path
) -> None:
    packed = write_packed(tmp_path / "eval.h5", clips=3)
    folder = tmp_path / "lib"
    aus.index([good_folder, packed], folder, mix_embedders=True, workers=1)
    assert invoke("verify", "--library", folder).code == 0
    (good_folder / "tone.wav").unlink()
    with (good_folder / "click.wav").open("ab") as file:
        file.write(b"more")
    packed.unlink()
    result = aus.verify(folder)
    assert [(finding.kind, finding.path) for finding in result.findings] == [
        ("missing sound", str(packed)),
        ("changed sound", str(good_folder / "click.wav")),
        ("missing sound", str(good_folder / "tone.wav")),
    ]
    assert result.whole
    done = invoke("verify", "--library", folder)
    assert done.code == 3
    assert f"missing sound: {good_folder / 'tone.wav'}" in done.err
    assert invoke("verify", "--no-sounds", "--library", folder).code == 0


def test_exit_codes_say_whether_the_library_is_whole(library: Path, invoke: Invoke) -> None:
    next(library.glob("neighbours-*.faiss")).unlink()
    options = ("--no-sounds", "--library", library)
    assert invoke("verify", "--no-repair", *options).code == 1
    done = invoke("verify", *options, "--json")
    assert done.code == 0
    values = json.loads(done.out)
    assert values["whole"]
    assert values["findings"][0]["repaired"]
    (library / "segment-000001.seg").unlink()
    done = invoke("verify", *options)
    assert done.code == 1
    assert "segment-000001.seg" in done.err
    assert "NOT whole" in done.out


def test_no_library_and_a_busy_one_are_told(library: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFoundError):
        aus.verify(tmp_path / "nowhere")
    with writer_lock(library), pytest.raises(LibraryBusyError):
        aus.verify(library)


def test_a_read_only_library_is_checked_and_not_repaired(library: Path) -> None:
    next(library.glob("neighbours-*.faiss")).unlink()
    make_readonly(library)
    code = (
        "import sys, audiosearch as aus\n"
        "result = aus.verify(sys.argv[1], sounds=False)\n"
        "print([(f.kind, f.repaired) for f in result.findings], result.whole)\n"
    )
    done = run_without_override(code, library)
    assert done.stdout.strip() == "[('derived', False)] False", done.stderr
