"""Labels of the user's outlast moves, merges and other processes; they leave and come back."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from label_fixtures import LABELS, clips, folder, library
from library_fixtures import InProcessPool, append, make_library, remove, write_sounds

import audiosearch as aus
from audiosearch.errors import DataError, InvalidArgumentError, StorageError
from audiosearch.library import compaction, indexing
from audiosearch.library.compaction import tidy
from audiosearch.library.indexing import writer_lock
from audiosearch.library.library import Library

__all__ = ["folder", "library"]

Invoke = Callable[..., Outcome]


@pytest.fixture
def other(folder: Path, tmp_path: Path) -> Path:
    """A copy of the library, as it is before the test."""
    return Path(shutil.copytree(folder, tmp_path / "other"))


# Where they stay


def test_labels_follow_a_sound_that_is_moved_renamed_or_indexed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InProcessPool, "seen", [], raising=False)
    monkeypatch.setattr(indexing, "WorkerPool", InProcessPool)
    sounds, folder = write_sounds(tmp_path / "sounds", 3), tmp_path / "lib"
    aus.index(sounds, folder)

    def labelled() -> list[str]:
        with Library(folder) as library:
            return [Path(hit.recording).name for hit in library.search("confirmed:bell").hits]

    with Library(folder) as library:
        one = next(hit for hit in library.search("path:001.wav").hits)
        library.confirm(one, "Bell", start=1, end=3)
    assert labelled() == ["001.wav"]
    (sounds / "001.wav").rename(sounds / "renamed.wav")
    aus.index(sounds, folder)
    assert labelled() == ["renamed.wav"]
    shutil.copy(sounds / "renamed.wav", sounds / "copy.wav")
    aus.index(sounds, folder)
    assert sorted(labelled()) == ["copy.wav", "renamed.wav"]
    with Library(folder) as library:
        assert library.search("confirmed:bell", fold=True).total == 1
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("renamed.wav", "copy.wav"):
        (sounds / name).rename(hidden / name)
    aus.index(sounds, folder)
    assert labelled() == []
    (hidden / "copy.wav").rename(sounds / "back.wav")
    aus.index(sounds, folder)
    assert labelled() == ["back.wav"]
    sounds.rename(tmp_path / "elsewhere")
    aus.relocate(folder, sounds, tmp_path / "elsewhere")
    assert labelled() == ["back.wav"]
    # Other content under the old name is another sound.
    write_sounds(tmp_path / "other", 1, seed=9)
    shutil.copy(tmp_path / "other" / "000.wav", tmp_path / "elsewhere" / "back.wav")
    aus.index(tmp_path / "elsewhere", folder)
    assert labelled() == []
    assert aus.verify(folder).whole


def test_a_label_of_a_copy_is_one_of_the_sound(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).integers(-127, 128, (4, 128))
    vectors[3] = vectors[1]
    folder = make_library(tmp_path / "lib", [1, 1, 2], np.zeros((4, 527), np.uint8), vectors)
    append(folder, [1], np.zeros((1, 527), np.uint8), vectors[1:2])
    with Library(folder) as library:
        library.confirm(4, "Dog")
        assert clips(library, "dog") == [1, 4]  # not clip 3, which is a part of another sound
        library.remove_label(1, "Dog")
        assert clips(library, "dog") == []


def test_labels_outlast_segments_merges_and_removals(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library(folder) as library:
        library.confirm(8, "Dog")
        library.reject(0, "Dog")
        library.confirm(3, "Music")
        before = clips(library, "dog"), clips(library, "confirmed:")
        monkeypatch.setattr(compaction, "SEAL_CLIPS", 4)
        with Library(folder, writable=True) as writer:
            tidy(writer)
        assert library.info().segments >= 1
        assert (clips(library, "dog"), clips(library, "confirmed:")) == before
        remove(folder, "2.wav")  # clip 3
        assert clips(library, "confirmed:") == [8]
        assert clips(library, "dog") == [8, 4, 1]
        with Library(folder, writable=True) as writer:
            tidy(writer)
        assert clips(library, "dog") == [8, 4, 1]
    assert aus.verify(folder, sounds=False).findings == []


def test_segments_and_exports_hold_the_scores_as_they_were(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aus.export(folder, tmp_path / "before.csv")
    with Library(folder) as library:
        library.confirm(8, "Dog")
        library.reject(0, "Dog")
    aus.export(folder, tmp_path / "after.csv")
    monkeypatch.setattr(compaction, "SEAL_CLIPS", 4)
    with Library(folder, writable=True) as writer:
        tidy(writer)
    aus.export(folder, tmp_path / "sealed.csv")
    texts = {(tmp_path / f"{name}.csv").read_bytes() for name in ("before", "after", "sealed")}
    assert len(texts) == 1


def test_a_merge_brings_labels_along_and_the_newer_word_counts(
    folder: Path, other: Path, tmp_path: Path
) -> None:
    with Library(folder) as first:
        first.confirm(0, "Dog")
        first.confirm(3, "Dog")
        first.add_label(8, "Mine")
    with Library(other) as second:
        second.reject(0, "Dog")
    aus.merge([folder, other], tmp_path / "both")
    with Library(tmp_path / "both") as both:
        assert clips(both, "confirmed:dog") == [3]
        assert clips(both, "label:Mine") == [8]
        assert 0 not in clips(both, "dog")
    aus.merge([other], tmp_path / "both")
    with Library(tmp_path / "both") as both:
        assert clips(both, "confirmed:") == [3, 8]
    assert aus.verify(tmp_path / "both", sounds=False).findings == []


def test_of_two_libraries_every_moment_has_the_newer_word_in_any_order(
    folder: Path, other: Path, tmp_path: Path
) -> None:
    with Library(folder) as first:
        first.confirm(0, "Dog")
    with Library(other) as second:
        second.reject(0, "Dog", start=3, end=4)
    said = []
    for number, order in enumerate(([folder, other], [other, folder])):
        aus.merge(order, tmp_path / f"both{number}")
        with Library(tmp_path / f"both{number}") as both:
            said.append([(each.verdict, each.start, each.end) for each in both.labels()])
    assert said[0] == said[1]
    assert [each[:2] for each in said[0]] == [
        ("confirmed", 0.0),
        ("rejected", 3.0),
        ("confirmed", 4.0),
    ]


def test_verify_finds_and_repairs_lost_links(folder: Path) -> None:
    with Library(folder) as library:
        library.confirm(3, "Dog")
    with Library(folder, writable=True) as writer, writer.catalogue.transaction():
        writer.catalogue.labels.unlink_all()
    with Library(folder) as library:
        assert clips(library, "confirmed:") == []
        (finding,) = aus.verify(folder, sounds=False).findings
        assert (finding.kind, finding.repaired) == ("derived", True)
        assert clips(library, "confirmed:") == [3]


# Other processes


def test_labels_are_entered_while_another_process_indexes(folder: Path) -> None:
    with writer_lock(folder), Library(folder) as library:
        assert library.confirm(3, "Music")
        assert clips(library, "confirmed:") == [3]


def test_another_reader_knows_at_once(folder: Path) -> None:
    with Library(folder) as writer, Library(folder) as reader:
        assert clips(reader, "confirmed:") == []
        writer.confirm(3, "Music")
        assert clips(reader, "confirmed:") == clips(reader, "music") == [3]
        assert clips(reader, "confirmed:music -dog") == []


_SAY = """
import sys
from audiosearch.library.library import Library
with Library(sys.argv[1]) as library:
    for number in range(int(sys.argv[2]), 100000, 2):
        library.add_label(number % 9, f"label {number}")
        print(number, flush=True)
        if number >= int(sys.argv[3]):
            break
"""


def _say(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SAY, str(folder), str(first), str(last)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_was_said_before_a_kill_is_kept(folder: Path) -> None:
    process = _say(folder, 0, 100000)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    time.sleep(0.013)
    process.send_signal(signal.SIGKILL)
    reported = 20 + len(process.stdout.read().split())
    process.wait()
    process.stdout.close()
    with Library(folder) as library:
        said = {each.label for each in library.labels()}
        assert {f"label {2 * number}" for number in range(reported)} <= said
        assert len(said) <= reported + 1
        assert library.add_label(0, "after")
    assert aus.verify(folder, sounds=False).findings == []


def test_two_processes_may_label_at_once(folder: Path) -> None:
    processes = [_say(folder, first, 60 + first) for first in (0, 1)]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert len(out.split()) == 31
    with Library(folder) as library:
        assert {each.label for each in library.labels()} == {f"label {n}" for n in range(62)}


def test_threads_may_label_and_search(library: Library) -> None:
    failures = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                library.add_label(number, f"mine {number} {turn}")
                assert number in clips(library, f'label:"mine {number} {turn}"')
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(library.labels()) == 32


# Many, and files


def test_ten_thousand_labels_leave_and_come_back(tmp_path: Path) -> None:
    folder = make_library(tmp_path / "lib", [1] * 2500, np.zeros((2500, 527), np.uint8))
    names = ["Dog", "Cat", "Music", "Mine"]
    with Library(folder) as library:
        changes = [
            aus.LabelChange(clip, name, "confirmed" if clip % 2 else "rejected", new=True)
            for clip in range(2500)
            for name in names
        ]
        assert library.change_labels(changes) == 10_000
        assert library.search("confirmed:cat", limit=0).total_clips == 1250
        assert library.search("cat", limit=0).total == 1250
        written = aus.export_labels(library, tmp_path / "labels.csv")
    assert (written.labels, written.recordings, written.waiting) == (10_000, 2500, 0)
    other = make_library(tmp_path / "other", [1] * 2500, np.zeros((2500, 527), np.uint8))
    done = aus.import_labels(tmp_path / "labels.csv", other)
    assert (done.added, done.unchanged, done.unknown) == (10_000, 0, 0)
    again = aus.import_labels(tmp_path / "labels.csv", other)
    assert (again.added, again.unchanged) == (0, 10_000)
    aus.export_labels(other, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "labels.csv").read_bytes()


def test_a_row_says_what_was_heard_where(folder: Path, tmp_path: Path) -> None:
    with Library(folder) as library:
        library.confirm(2, "Dog")
        library.add_label(0, "Mine, all mine")
    aus.export_labels(folder, tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    plain = [{key: row[key] for key in row if key != "content"} for row in rows]
    assert plain == [
        {
            **{"path": "/sounds/0.wav", "start": "0", "end": "6.6", "label": "Mine, all mine"},
            **{"verdict": "confirmed", "mid": ""},
        },
        {
            **{"path": "/sounds/1.wav", "start": "9.6", "end": "16.2", "label": "Dog"},
            **{"verdict": "confirmed", "mid": LABELS.by_name("Dog").mid},
        },
    ]
    with pytest.raises(StorageError, match="exists already"):
        aus.export_labels(folder, tmp_path / "labels.csv")
    with pytest.raises(InvalidArgumentError, match="csv"):
        aus.export_labels(folder, tmp_path / "labels.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,start\na,b\n", "no column 'end'"),
        ("path,start,end,label,verdict\n/sounds/0.wav,0,1,Dog,maybe\n", "line 2.*neither"),
        ("path,start,end,label,verdict\n/sounds/0.wav,x,1,Dog,confirmed\n", "line 2"),
        ("path,start,end,label,verdict\n/sounds/0.wav,nan,1,Dog,confirmed\n", "line 2"),
        ("path,start,end,label,verdict\n/sounds/0.wav,0,99,Dog,confirmed\n", "does not lie"),
        ("path,start,end,label,verdict\n/sounds/0.wav,0,1,Dog\n", "line 2.*fewer"),
        ('path,start,end,label,verdict\n"/sounds', "no CSV file"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(
    folder: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        aus.import_labels(path, folder)
    with Library(folder) as library:
        assert library.labels() == []


def test_the_command_labels_lists_and_moves_labels(
    invoke: Invoke, folder: Path, tmp_path: Path
) -> None:
    done = invoke("label", folder, 1, "--confirm", "Dog", "--reject", "Cat", "--add", "My machine")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("3 labels changed.\n")
    found = invoke("search", "confirmed:dog", "--library", folder)
    assert "why: Dog confirmed" in found.out
    listed = json.loads(invoke("label", folder, "--list", "--json").out)
    assert [each["label"] for each in listed["labels"]] == ["Dog", "Cat", "My machine"]
    part = invoke("label", folder, 5, "--confirm", "Cat", "--from", "10", "--to", "12.5", "--json")
    assert [(e["clip"], e["start"], e["end"]) for e in json.loads(part.out)["labels"]] == [
        (6, 10.0, 12.5)
    ]
    file = tmp_path / "labels.csv"
    assert invoke("export", folder, "--labels", "--to", file).out == (
        f"{file}: 4 labels of 2 recordings.\n"
    )
    assert invoke("label", folder, 1, "--remove", "Dog", "--remove", "Cat").code == 0
    brought = invoke("import", file, "--labels", "--library", folder)
    assert "2 labels added, 2 unchanged" in brought.out
    for words in ((), ("--list", "--confirm", "Dog"), (1,)):
        assert invoke("label", folder, *words).code == 2
    wrong = invoke("label", folder, 1, "--confirm", "Dogg")
    assert wrong.code == 1
    assert "Dog" in wrong.err
