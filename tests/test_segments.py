"""Segments, the tail and merges: whatever the files, the answers are one."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from library_fixtures import append, make_library, make_readonly, remove, run_without_override
from segment_fixtures import (
    add,
    answers,
    codes_of,
    compact,
    damaged,
    files,
    live,
    small,
    vectors_of,
)

import audiosearch as aus
from audiosearch.errors import LibraryError
from audiosearch.labels import load_labels
from audiosearch.library.blocks import entries_of
from audiosearch.library.library import Library
from audiosearch.library.score_columns import current_columns
from audiosearch.library.segments import Segment

__all__ = ["damaged", "small"]


def rolled_up(codes: np.ndarray) -> np.ndarray:
    """The noisy-or of codes, uint8 (clips, classes), by plain multiplication."""
    logits = codes / 16 - 9
    doubts = np.where(codes >= 70, 1 / (1 + np.exp(logits)), 1.0)
    doubt = np.prod(doubts.astype(np.longdouble), axis=1)
    with np.errstate(divide="ignore"):
        values = np.rint((np.log(1 - doubt) - np.log(doubt) + 9) * 16)
    return np.clip(np.nan_to_num(values, neginf=0), 0, 255).astype(np.uint8)


# One answer, whatever the files


@pytest.mark.parametrize("seed", range(4))
def test_segments_and_merges_change_no_answer(tmp_path: Path, small: None, seed: int) -> None:
    """The same additions and removals, once with everything in the tail, once compacted often."""
    draw = random.Random(seed)
    plain, compacted = tmp_path / "plain", tmp_path / "compacted"
    for folder in (plain, compacted):
        make_library(folder, [], np.zeros((0, 527), np.uint8))
    names: list[str] = []
    with Library(compacted) as reader:
        for step in range(14):
            clips = [draw.choice([1, 1, 2, 5]) for _ in range(draw.randrange(1, 25))]
            names += [f"{len(names) + n}.wav" for n in range(len(clips))]
            gone = draw.sample(names, min(draw.choice([0, 0, 1, 12]), len(names)))
            for folder in (plain, compacted):
                add(folder, clips, 100 * seed + step)
                with Library(folder) as library:
                    known = {os.fsdecode(name) for name in library.catalogue.known_files()}
                remove(folder, *[name for name in gone if f"/sounds/{name}" in known])
            if draw.random() < 0.7:
                compact(compacted)
            # One that was open all the time answers as one that is opened now.
            now = reader.search("vehicle", limit=1000).to_dict()
            with Library(plain) as library:
                assert now == library.search("vehicle", limit=1000).to_dict()
    compact(compacted)
    assert files(compacted, ".seg")
    assert not files(plain, ".seg")
    assert answers(compacted) == answers(plain)


def test_removed_clips_leave_the_disk_and_keep_their_numbers(tmp_path: Path, small: None) -> None:
    folder = tmp_path / "lib"
    make_library(folder, [1] * 90, codes_of(90, 1), vectors_of(90, 1))
    compact(folder)
    with Library(folder) as library:
        before = library.clip(85).to_dict()
        size = library.info().bytes
    remove(folder, *(f"{number}.wav" for number in range(80)))
    compact(folder)
    with Library(folder) as library:
        assert library.clip(85).to_dict() == before
        assert library.info().clips == 10
        assert library.info().bytes < size / 2
        assert library.catalogue.removed_clips() == 0
        with pytest.raises(LibraryError, match="no clip 7 "):
            library.clip(7)
        assert library.search("car OR music OR speech OR dog OR vehicle").total <= 10


def test_many_segments_are_merged_into_few(tmp_path: Path, small: None) -> None:
    folder = tmp_path / "lib"
    make_library(folder, [], np.zeros((0, 527), np.uint8))
    for step in range(10):
        add(folder, [1] * 40, step)
        compact(folder)
    with Library(folder) as library:
        rows = [part.block.rows for part in library.snapshot().parts]
        assert library.info().segments == len(files(folder, ".seg")) == 2
    assert rows == [360, 40]


def test_the_same_clips_make_the_same_segments(tmp_path: Path, small: None) -> None:
    """Whether they were committed one by one or together."""
    codes, vectors = codes_of(130, 2), vectors_of(130, 2)
    for name, step in (("a", 1), ("b", 13), ("c", 130)):
        make_library(tmp_path / name, [], np.zeros((0, 527), np.uint8))
        for start in range(0, 130, step):
            stop = start + step
            append(tmp_path / name, [1] * step, codes[start:stop], vectors[start:stop])
            compact(tmp_path / name)
    for name in ("b", "c"):
        for pattern in ("*.seg", "tail-*"):
            ours = sorted((tmp_path / name).glob(pattern))
            theirs = sorted((tmp_path / "a").glob(pattern))
            if name == "c" and pattern == "*.seg":
                continue  # numbered as they were made: together, nothing was merged in between
            assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    assert answers(tmp_path / "a") == answers(tmp_path / "b") == answers(tmp_path / "c")


def test_columns_of_groups_hold_the_noisy_or_of_their_classes(tmp_path: Path, small: None) -> None:
    codes = codes_of(50, 3)
    make_library(tmp_path / "lib", [1] * 50, codes)
    compact(tmp_path / "lib")
    columns = current_columns()
    with Library(tmp_path / "lib") as library:
        segment, tail = (part.block for part in library.snapshot().parts)
        assert isinstance(segment, Segment)
        assert segment.rows == 40
        for number in range(len(columns)):
            classes = columns.classes(number)
            expected = rolled_up(codes[:, list(classes)]) if len(classes) > 1 else codes[:, number]
            assert (segment.column(number) == expected[:40]).all()
            assert (tail.column(number) == expected[40:]).all()
            posted = segment.posting(number, 10**6)
            values = expected[:40][posted].astype(int)
            assert sorted(posted.tolist()) == np.flatnonzero(expected[:40] >= 70).tolist()
            assert (np.lexsort((posted, -values)) == np.arange(len(posted))).all()
        assert segment.check() == []


@pytest.mark.parametrize(
    "words", ["vehicle", "car", "human voice", "dog cat", "speech", "musical instrument"]
)
def test_a_term_is_covered_by_few_columns(words: str) -> None:
    columns, labels = current_columns(), load_labels()
    classes = tuple(i for word in words.split("  ") for i in labels.resolve(word))
    cover = columns.cover(classes)
    assert {i for number in cover for i in columns.classes(number)} == set(classes)
    assert len(cover) <= 2


def test_entries_are_the_best_classes() -> None:
    codes = codes_of(30, 4)
    codes[0] = 3  # nothing surely: the first five
    codes[1] = 0
    codes[1, 500] = 9
    offsets, classes, values = entries_of(codes)
    for row in range(30):
        got = classes[offsets[row] : offsets[row + 1]].tolist()
        order = sorted(range(527), key=lambda i: (-int(codes[row, i]), i))
        expected = [i for i in order if codes[row, i] >= 70]
        assert got == (expected if len(expected) > 5 else order[:5])
        assert values[offsets[row] : offsets[row + 1]].tolist() == codes[row, got].tolist()


def test_more_tags_than_are_stored_are_given(tmp_path: Path, small: None) -> None:
    codes = codes_of(45, 5)
    make_library(tmp_path / "lib", [1] * 45, codes)
    compact(tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        for clip in (3, 43):
            tags = library.clip(clip, top=100).tags
            order = sorted(range(527), key=lambda i: (-int(codes[clip, i]), i))[:100]
            assert [tag.label for tag in tags] == [load_labels()[i].name for i in order]


def test_frames_follow_their_clips(tmp_path: Path, small: None, good_folder: Path) -> None:

    aus.index(good_folder, tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        before = {clip: library.frames(clip).tobytes() for clip in live(library)}
        names = {library.clip(clip).recording for clip in before}
    add(tmp_path / "lib", [1] * 40, 6)
    compact(tmp_path / "lib")
    assert files(tmp_path / "lib", ".seg")
    with Library(tmp_path / "lib") as library:
        assert {clip: library.frames(clip).tobytes() for clip in before} == before
        for name in names:
            assert aus.embed(name).tobytes() in b"".join(before.values())
        assert library.frames(live(library)[-1]).shape == (0, 128)


# Readers, writers, and processes that are killed


def test_an_open_reader_follows_seals_and_merges(tmp_path: Path, small: None) -> None:
    folder = tmp_path / "lib"
    make_library(folder, [1] * 10, codes_of(10, 7), vectors_of(10, 7))
    with Library(folder) as reader:
        for step in range(8):
            add(folder, [1, 2] * 10, 20 + step)
            if step % 2:
                compact(folder)
            with Library(folder) as fresh:
                assert reader.search("music", limit=99) == fresh.search("music", limit=99)
                assert reader.similar(3, limit=99) == fresh.similar(3, limit=99)


def test_a_commit_does_not_make_a_reader_open_everything_again(tmp_path: Path, small: None) -> None:
    folder = tmp_path / "lib"
    make_library(folder, [1] * 90, codes_of(90, 8))
    compact(folder)
    with Library(folder) as reader:
        before = reader.snapshot()
        asked: list[str] = []
        reader.catalogue._db._db.set_trace_callback(asked.append)
        add(folder, [1], 9)
        after = reader.snapshot()
        assert all(old is new for old, new in zip(before.parts[:2], after.parts, strict=False))
        assert after.live_clips == 91
        assert not [sql for sql in asked if "recordings" in sql.split("WHERE")[0]]


def test_searching_goes_on_while_another_process_commits(tmp_path: Path, small: None) -> None:
    folder = tmp_path / "lib"
    make_library(folder, [1] * 90, codes_of(90, 10), vectors_of(90, 10))
    with Library(folder) as reader:
        total = reader.search("music", limit=0).total
        lock = sqlite3.connect(folder / "catalogue.sqlite", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")  # as at the end of a commit
        began = time.monotonic()
        assert reader.search("music", limit=0).total == total
        assert time.monotonic() - began < 5  # and not the 30 seconds that a lock is waited for
        lock.execute("ROLLBACK")
        lock.close()


def test_searching_while_clips_are_added_removed_and_merged_never_fails(
    tmp_path: Path, small: None
) -> None:
    folder = tmp_path / "lib"
    make_library(folder, [1] * 50, codes_of(50, 11), vectors_of(50, 11))
    problems: list[BaseException] = []
    done = threading.Event()
    searches = 0

    def search() -> None:
        nonlocal searches
        try:
            with Library(folder) as reader:
                while not done.is_set():
                    reader.search("music OR speech", limit=20)
                    reader.similar(live(reader)[-1], limit=5)
                    searches += 1
        except LibraryError as error:
            # The newest clip may be removed between the two lines above, and only that.
            if "There is no clip" not in str(error):
                problems.append(error)
            elif not done.is_set():
                search()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for step in range(4):
            add(folder, [1, 3] * 8, 30 + step)
            remove(folder, f"{50 + 16 * step}.wav", f"{step}.wav")
            compact(folder)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert searches > 2


KILLED = """
import os, sys
from audiosearch.library import compaction, index_building, segments, writer
from audiosearch.library.library import Library
for module in (compaction, writer): module.SEAL_CLIPS = 40
compaction.MERGE_COUNT = 3
for module in (compaction, index_building): module.EXACT_CLIPS = 60
left = int(sys.argv[2])
def die(event, *args):
    global left
    # Every place where a file appears, changes its name or vanishes.
    if event in ("os.rename", "os.remove", "open") and str(args[0][0]).startswith(sys.argv[1]):
        left -= 1
        if left < 0:
            os._exit(9)
with Library(sys.argv[1], writable=True) as library:
    sys.addaudithook(die)
    compaction.tidy(library)
"""


def test_a_compaction_killed_at_any_moment_loses_nothing(tmp_path: Path, small: None) -> None:
    whole = tmp_path / "whole"
    make_library(whole, [1] * 130, codes_of(130, 12), vectors_of(130, 12))
    remove(whole, *(f"{number}.wav" for number in range(10, 30)))
    expected = answers(whole)
    killed = 0
    for moment in (0, 4, 9, 15, 22, 30):
        folder = tmp_path / f"killed{moment}"
        folder.mkdir()
        for path in whole.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        done = subprocess.run(
            [sys.executable, "-c", KILLED, folder, str(moment)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            capture_output=True,
            check=False,
        )
        assert done.returncode in (0, 9), done.stderr
        killed += done.returncode == 9
        with Library(folder) as library:
            assert library.info().clips == 110
        compact(folder)
        assert not list(folder.glob(".*"))
        assert answers(folder) == expected
    assert killed >= 2


def test_a_read_only_library_of_segments_is_searched(damaged: Path) -> None:
    with Library(damaged) as library:
        expected = f"{library.search('music').total} {library.similar(0).hits[0].clip}\n"
    make_readonly(damaged)
    done = run_without_override(
        "import sys, audiosearch as aus\n"
        "with aus.open_library(sys.argv[1]) as lib: "
        "print(lib.search('music').total, lib.similar(0).hits[0].clip)",
        damaged,
    )
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr
