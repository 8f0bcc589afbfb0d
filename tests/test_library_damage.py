"""Damage to a library is said, and what a killed writer left behind does no harm."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from library_fixtures import append, make_library, make_readonly, random_codes, run_without_override

import audiosearch as aus
from audiosearch.errors import (
    AudioSearchError,
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryVersionError,
)
from audiosearch.library.library import Library

ROWS, FRAMES = "tail-0000000000.rows", "tail-0000000000.frames"


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage\xff" * 500)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (lambda f: (f / "manifest.json").write_text("{nonsense"), LibraryDamagedError),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), LibraryDamagedError),
        (lambda f: (f / "manifest.json").write_text('"a text"'), LibraryNotFoundError),
        (lambda f: (f / "manifest.json").unlink(), LibraryNotFoundError),
        (
            lambda f: (f / "manifest.json").write_text(
                '{"kind": "audiosearch library", "format_version": 2}'
            ),
            LibraryDamagedError,
        ),
        (
            lambda f: (f / "manifest.json").write_text(
                '{"kind": "audiosearch library", "format_version": 3, "audiosearch": "9.9"}'
            ),
            LibraryVersionError,
        ),
        (lambda f: garbage(f / "catalogue.sqlite"), LibraryDamagedError),
        (lambda f: (f / "catalogue.sqlite").write_bytes(b""), LibraryDamagedError),
        (lambda f: (f / "catalogue.sqlite").unlink(), LibraryDamagedError),
        (lambda f: os.truncate(f / "catalogue.sqlite", 9000), LibraryDamagedError),
        (lambda f: os.truncate(f / ROWS, 660 * 20), LibraryDamagedError),
        (lambda f: os.truncate(f / ROWS, 0), LibraryDamagedError),
        (lambda f: (f / ROWS).unlink(), LibraryDamagedError),
    ],
)
def test_a_damaged_library_is_told_at_once(
    library_folder: Path,
    sound_master: Path,
    what: Callable[[Path], object],
    error: type[Exception],
) -> None:
    what(library_folder)
    before = {path: path.read_bytes() for path in library_folder.iterdir()}
    with pytest.raises(error, match=library_folder.name):
        aus.open_library(library_folder)
    with pytest.raises(LibraryError, match=library_folder.name):
        aus.index(sound_master, library_folder)
    after = {path: path.read_bytes() for path in library_folder.iterdir()}
    # Nothing is repaired by guessing, and nothing is deleted.
    assert {path.name for path in after} - {path.name for path in before} <= {"writer.lock"}
    assert all(after[path] == before[path] for path in before)


def test_lost_frames_are_not_filled_with_zeros(library_folder: Path, tmp_path: Path) -> None:
    import soundfile

    os.truncate(library_folder / FRAMES, 128 * 3)
    with Library(library_folder) as library:
        assert library.search("speech").total  # searching does not need them
    soundfile.write(tmp_path / "new.wav", np.zeros(16000), 16000)
    with pytest.raises(LibraryDamagedError, match=r"tail-0000000000\.frames"):
        aus.index(tmp_path / "new.wav", library_folder)
    assert (library_folder / FRAMES).stat().st_size == 128 * 3


def test_a_partly_overwritten_catalogue_never_shows_a_traceback(library_folder: Path) -> None:
    """Whatever the bytes, a library works or says in its own words what is wrong."""
    catalogue = library_folder / "catalogue.sqlite"
    whole = catalogue.read_bytes()
    draw = random.Random(5)
    told = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 20])):
            at = draw.randrange(len(data))
            data[at : at + draw.choice([1, 8, 300])] = draw.randbytes(1)
        catalogue.write_bytes(bytes(data[: len(whole)]))
        try:
            with Library(library_folder) as library:
                library.search("speech OR music")
                library.info()
                library.skipped()
                for clip in range(0, 40, 7):
                    library.clip(clip)
        except AudioSearchError:
            told += 1
    assert told > 10


def test_what_a_killed_writer_left_behind_is_not_seen_and_overwritten(
    tmp_path: Path,
) -> None:
    codes = random_codes(4, seed=9)
    folder = make_library(tmp_path / "lib", [2, 2], codes)
    for name in (ROWS, FRAMES):
        with (folder / name).open("ab") as file:
            file.write(b"\xff" * 12345)
    with Library(folder) as library:
        assert library.info().clips == 4
        assert all(hit.clip < 4 for hit in library.search("speech OR music OR dog").hits)
    more = random_codes(1, seed=10)
    append(folder, [1], more)
    with Library(folder) as library:
        (part,) = library.snapshot().parts
        kept = np.stack([part.block.column(number) for number in range(527)], axis=1)
        assert (kept == np.concatenate([codes, more])).all()
    assert (folder / ROWS).stat().st_size == 5 * 660


HALF_COMMIT = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 2")  # so that changed pages are written before the commit
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE recordings SET duration = 1e6, labels = printf('%9000s', '')")
os._exit(9)
"""


@pytest.mark.parametrize("open_before", [False, True])
def test_a_writer_killed_in_a_commit_leaves_a_library_that_opens(
    library_folder: Path, open_before: bool
) -> None:
    with Library(library_folder) as library:
        expected = (library.search("speech").to_dict(), library.info().seconds)
    open_library = Library(library_folder) if open_before else None
    catalogue = library_folder / "catalogue.sqlite"
    subprocess.run([sys.executable, "-c", HALF_COMMIT, catalogue], check=False)
    assert catalogue.with_name("catalogue.sqlite-journal").stat().st_size > 4096
    with open_library or Library(library_folder) as library:
        assert (library.search("speech").to_dict(), library.info().seconds) == expected


def test_a_half_committed_library_that_may_not_be_put_in_order_says_so(
    library_folder: Path, tmp_path: Path
) -> None:
    folder = library_folder
    subprocess.run([sys.executable, "-c", HALF_COMMIT, folder / "catalogue.sqlite"], check=False)
    make_readonly(folder)
    done = run_without_override(
        "import sys, audiosearch as aus\n"
        "try: aus.open_library(sys.argv[1])\n"
        "except aus.AudioSearchError as error: print(error)",
        folder,
    )
    assert "Open the library once as a user who may write to it" in done.stdout, done.stderr
