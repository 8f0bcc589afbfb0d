"""Indexing that is stopped, killed or out of disk loses nothing; its progress, and its memory."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import write_packed
from library_fixtures import BAD, GOOD, InProcessPool, analysed, contents, counts, write_sounds

import audiosearch as aus
from audiosearch.errors import LibraryError
from audiosearch.jobs import Progress
from audiosearch.library.library import Library

__all__ = ["analysed"]


# progress


def test_progress_counts_what_is_safe(
    sound_folder: Path, tmp_path: Path, analysed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiosearch.jobs import groups

    monkeypatch.setattr(groups, "GROUP_FILES", 1)
    aus.index(sound_folder / "nested", tmp_path / "lib")  # its bad file is skipped here already
    seen: list[tuple[Progress, int]] = []

    def note(progress: Progress) -> None:
        with aus.open_library(tmp_path / "lib") as library:
            seen.append((progress, library.info().recordings))

    aus.index(sound_folder, tmp_path / "lib", on_progress=note)
    steps = [progress for progress, _ in seen]
    total = GOOD + BAD
    assert [(p.done, p.total, p.earlier) for p in steps] == [
        (done, total, 3) for done in range(3, total + 1)
    ]
    assert (steps[0].skipped, steps[0].seconds, steps[0].share) == (1, 0, 0)
    assert (steps[-1].skipped, steps[-1].share) == (BAD, 1)
    assert steps[-1].seconds == pytest.approx(3.01)
    for progress, recordings in seen:
        assert recordings == progress.done - progress.skipped


# stopped in the middle


INDEX = """
import sys
import audiosearch as aus
from audiosearch.jobs import groups
groups.GROUP_SECONDS = 0.05
aus.index(sys.argv[1:-1], sys.argv[-1], workers=1)
"""


def start_indexing(*args: Path, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", INDEX, *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def committed(library: Path) -> int:
    try:
        with Library(library) as opened:
            return opened.info().recordings
    except LibraryError:
        return 0


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sounds(tmp_path_factory.mktemp("noises") / "sounds", 80)
    for number in (3, 40):
        (folder / f"{number:03}.wav").write_bytes(b"broken" * 100)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(noises: Path) -> Path:
    library = noises.parent / "uninterrupted"
    aus.index(noises, library)
    return library


def assert_same_library(library: Path, expected: Path) -> None:
    for name in ("tail-0000000000.rows", "tail-0000000000.frames"):
        assert (library / name).read_bytes() == (expected / name).read_bytes()
    with Library(library) as ours, Library(expected) as theirs:
        assert ours.skipped() == theirs.skipped()
        for query in ("speech", "music OR animal", "vehicle -car"):
            found, expect = (lib.search(query, limit=99) for lib in (ours, theirs))
            assert found.to_dict() == expect.to_dict()
        assert ours.similar(7, limit=99).to_dict() == theirs.similar(7, limit=99).to_dict()


def test_killing_again_and_again_loses_nothing(
    noises: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    library = tmp_path / "lib"
    draw = np.random.default_rng(6)
    done, kills = 0, 0
    while kills < 5:
        process = start_indexing(noises, library)
        # Somewhere behind the first new commit.
        while committed(library) <= done and process.poll() is None:
            time.sleep(0.01)
        time.sleep(float(draw.uniform(0, 0.15)))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        assert committed(library) > done
        done = committed(library)
    assert kills >= 2
    summary = aus.index(noises, library)
    assert summary.unchanged == done
    assert summary.added + done == 78
    assert_same_library(library, uninterrupted)


def test_ctrl_c_keeps_what_was_done(noises: Path, uninterrupted: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    process = start_indexing(noises, library)
    while not committed(library) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    done = committed(library)
    assert 0 < done < 78
    assert aus.index(noises, library).unchanged == done
    assert_same_library(library, uninterrupted)


def test_what_was_analysed_before_ctrl_c_is_committed(
    good_folder: Path, tmp_path: Path, analysed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: InProcessPool, paths: Iterator[str]) -> Iterator[object]:
        for number, result in enumerate(original(self, paths)):
            if number == 3:
                raise KeyboardInterrupt
            yield result

    original = InProcessPool.map
    monkeypatch.setattr(InProcessPool, "map", interrupted)
    with pytest.raises(KeyboardInterrupt):
        aus.index(good_folder, tmp_path / "lib")
    assert len(contents(tmp_path / "lib")) == 3


def test_a_packed_file_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiosearch.library import packed_source

    path = write_packed(tmp_path / "a.h5", clips=100)
    aus.index(path, tmp_path / "whole")
    monkeypatch.setattr(packed_source, "_ROWS", 7)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aus.index(path, tmp_path / "lib", on_progress=stop)
    assert [(p.done, p.total) for p in seen] == [(7 * n, 100) for n in range(5)]
    assert counts(aus.index(path, tmp_path / "lib")) == {"unchanged": 28, "added": 72}
    files = (tmp_path / lib / "tail-0000000000.rows" for lib in ("whole", "lib"))
    whole, resumed = (path.read_bytes() for path in files)
    assert whole == resumed


def limited(size: int) -> Callable[[], None]:
    """Let no file of a process grow beyond `size` bytes, as a full disk would."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_loses_nothing(noises: Path, uninterrupted: Path, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    # The rows of 78 files of 2 clips would take 103 kB, the frames 110 kB.
    process = start_indexing(noises, library, preexec_fn=limited(80_000))
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("audiosearch.errors.StorageError: The disk is full")
    assert str(library) in last
    done = committed(library)
    assert 0 < done < 60
    with Library(library) as opened:
        assert opened.search("speech OR music OR animal OR noise").total <= done
    assert aus.index(noises, library).unchanged == done
    assert_same_library(library, uninterrupted)


def test_a_disk_too_full_for_the_catalogue(sound_master: Path, tmp_path: Path) -> None:
    folder, library = tmp_path / "sounds", tmp_path / "lib"
    folder.mkdir()
    shutil.copy(sound_master / "tone.wav", folder)
    aus.index(folder, library)
    for number in range(400):
        (folder / f"{'long name ' * 15}{number}.wav").write_bytes(b"")
    process = start_indexing(folder, library, preexec_fn=limited(60_000))
    said = process.communicate(timeout=60)[1].decode().strip().splitlines()[-1]
    assert said.startswith("audiosearch.errors.StorageError: The disk is full"), said
    assert "catalogue.sqlite" in said
    assert committed(library) == 1
    assert counts(aus.index(folder, library)) == {"unchanged": 1, "skipped": 400}


# large


def resident(process: int) -> int:
    """Bytes of memory of a process and of all below it."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            values = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(folder.name)] = int(values[1])
        sizes[int(folder.name)] = int(values[21]) * resource.getpagesize()
    tree = {process}
    while below := {number for number, parent in parents.items() if parent in tree} - tree:
        tree |= below
    return sum(sizes.get(number, 0) for number in tree)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_three_hours_are_indexed_in_little_memory(tmp_path: Path) -> None:
    rate, hours = 8000, 3
    tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(rate) / rate)).astype("<i2").tobytes()
    silence = bytes(2 * rate)
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for minute in range(60 * hours):
            file.writeframes((tone if minute % 3 else silence) * 60)
    process = start_indexing(tmp_path / "long.wav", tmp_path / "lib")
    largest = 0
    while process.poll() is None:
        largest = max(largest, resident(process.pid))
        time.sleep(0.05)
    process.communicate()
    assert process.returncode == 0
    with Library(tmp_path / "lib") as library:
        assert library.info().clips == 10800 / 9.6
        assert library.info().seconds == 10800
        hit = library.similar(0, limit=1).hits[0]
        assert 1 + len(hit.moments) <= 1124
    print(f"{largest / 2**20:.0f} MiB")
    assert largest < 600e6
