"""The catalogue: an SQLite file that says what a library holds.

It is the truth: a recording exists when it has a row here, and the columns beside it count only as
far as the catalogue says. One transaction adds a group of recordings and commits the new lengths.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.database import Database

__all__ = ["Catalogue", "KnownFile", "NewRecording", "Recording", "Skipped"]

_SCHEMA = """
CREATE TABLE lengths (name TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE packed_files (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL
);
-- Paths are bytes: a file name need not be text. `name` is relative to the root, or a YouTube id.
-- The number of a recording that was removed is not given to another.
CREATE TABLE recordings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    root INTEGER REFERENCES roots (id),
    packed_file INTEGER REFERENCES packed_files (id),
    packed_row INTEGER,
    name BLOB NOT NULL,
    size INTEGER,
    mtime_ns INTEGER,
    start REAL NOT NULL,
    duration REAL NOT NULL,
    first_clip INTEGER NOT NULL,
    clips INTEGER NOT NULL,
    first_frame INTEGER,
    frames INTEGER,
    labels TEXT,
    added REAL NOT NULL
);
CREATE UNIQUE INDEX recordings_by_name ON recordings (root, name) WHERE root IS NOT NULL;
CREATE UNIQUE INDEX recordings_by_row ON recordings (packed_file, packed_row)
    WHERE packed_file IS NOT NULL;
CREATE UNIQUE INDEX recordings_by_clip ON recordings (first_clip);
CREATE TABLE skipped (
    root INTEGER NOT NULL REFERENCES roots (id), name BLOB NOT NULL, size INTEGER, mtime_ns INTEGER,
    reason TEXT NOT NULL, PRIMARY KEY (root, name)
) WITHOUT ROWID;
INSERT INTO lengths VALUES ('clips', 0), ('frames', 0), ('changes', 0);
"""

_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Recording:
    """One recording as the catalogue knows it; times in seconds, `path` None for AudioSet's."""

    id: int
    source: str
    name: str
    path: Path | None
    start: float
    duration: float
    first_clip: int
    clips: int
    packed_row: int | None
    labels: tuple[int, ...] | None


@dataclass(frozen=True)
class NewRecording:
    """What is to be added; the columns get its rows before it is committed."""

    source: str
    name: bytes
    start: float
    duration: float
    clips: int
    root: int | None = None
    packed_file: int | None = None
    packed_row: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    frames: int | None = None
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class KnownFile:
    """A file that was indexed, or skipped for a reason, and how it looked then.

    `root` and `name` say where it stands in the catalogue, `path` is both joined.
    """

    id: int | None
    root: int
    name: bytes
    path: bytes
    size: int
    mtime_ns: int
    reason: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used."""

    path: str
    reason: str


class Catalogue:
    """An open catalogue; safe to use from several threads.

    Parameters
    ----------
    path : Path
        Its file.
    writable : bool
        Whether it may be changed.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._db = Database(path, writable=writable)

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty catalogue.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        Database.create(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything done inside, or nothing of it."""
        with self._db.writing():
            yield
            self._db.execute("UPDATE lengths SET rows = rows + 1 WHERE name = 'changes'")

    def lengths(self) -> dict[str, int]:
        """Return the committed rows of the columns, and how often anything was committed.

        The keys are ``clips``, ``frames`` and ``changes``.
        """
        rows = dict(self._db.rows("SELECT name, rows FROM lengths"))
        with self._db.understanding():
            return {name: int(rows[name]) for name in ("clips", "frames", "changes")}

    def state(self) -> tuple[dict[str, int], npt.NDArray[np.float64]]:
        """Return what belongs together: the lengths, and the layout of the recordings.

        Returns
        -------
        lengths : dict
            As `lengths` gives them.
        layout : float64 (recordings, 5)
            Id, first clip, clips, start and duration of each, in the order of their clips.
        """
        with self._db.reading():
            lengths = self.lengths()
            rows = self._db.rows(
                "SELECT id, first_clip, clips, start, duration FROM recordings ORDER BY first_clip"
            )
        with self._db.understanding():
            return lengths, np.array(rows, np.float64).reshape(-1, 5)

    def recordings(self, ids: Iterable[int]) -> dict[int, Recording]:
        """Return recordings by id; ids that do not exist are left out."""
        rows: list[Any] = []
        wanted = [int(i) for i in ids if 0 < i <= _LARGEST_ID]
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            rows += self._db.rows(
                "SELECT r.id, r.source, r.name, roots.path, r.start, r.duration, r.first_clip, "
                "r.clips, r.packed_row, r.labels FROM recordings r LEFT JOIN roots "
                f"ON roots.id = r.root WHERE r.id IN ({marks})",
                *part,
            )
        with self._db.understanding():
            return {row[0]: _recording(row) for row in rows}

    def totals(self) -> tuple[int, int, float, float | None]:
        """Return recordings, clips, seconds of sound, and when the last one was added."""
        (row,) = self._db.rows(
            "SELECT count(*), coalesce(sum(clips), 0), coalesce(sum(duration), 0), max(added) "
            "FROM recordings"
        )
        with self._db.understanding():
            time.gmtime(row[3])
        return row

    def roots(self) -> dict[int, bytes]:
        """Return the folders that paths are relative to."""
        return dict(self._db.rows("SELECT id, path FROM roots"))

    def known_files(self) -> dict[bytes, KnownFile]:
        """Return every sound file that was indexed or skipped, by absolute path."""
        rows = self._db.rows(
            "SELECT NULL, root, roots.path, name, size, mtime_ns, reason FROM skipped "
            "JOIN roots ON roots.id = root UNION ALL "
            "SELECT r.id, root, roots.path, name, size, mtime_ns, NULL FROM recordings r "
            "JOIN roots ON roots.id = root"
        )
        known: dict[bytes, KnownFile] = {}
        for number, root, folder, name, *rest in rows:
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            known[path] = KnownFile(number, root, name, path, *rest)
        return known

    def skipped(self) -> list[Skipped]:
        """Return the files that could not be used, by path."""
        rows = self._db.rows(
            "SELECT roots.path, name, reason FROM skipped JOIN roots ON roots.id = root"
        )
        found = [(os.path.join(root, name), reason) for root, name, reason in rows]  # noqa: PTH118
        return [Skipped(printable(os.fsdecode(path)), reason) for path, reason in sorted(found)]

    def skipped_count(self) -> int:
        """Return how many files could not be used."""
        return int(self._db.rows("SELECT count(*) FROM skipped")[0][0])

    def packed_file(self, path: bytes) -> tuple[int, int, int, int] | None:
        """Return id, size, mtime and rows done of a packed file, or None if it is not known."""
        rows = self._db.rows(
            "SELECT id, size, mtime_ns, (SELECT count(*) FROM recordings WHERE packed_file = p.id) "
            "FROM packed_files p WHERE path = ?",
            path,
        )
        return rows[0] if rows else None

    # What follows changes the catalogue and belongs inside `transaction`.

    def add_root(self, path: bytes) -> int:
        """Return the id of a root, made where it is new."""
        self._db.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", path)
        return int(self._db.rows("SELECT id FROM roots WHERE path = ?", path)[0][0])

    def add_packed_file(self, path: bytes, size: int, mtime_ns: int) -> int:
        """Enter a packed file that is new, or replace one that changed; return its id."""
        for (old,) in self._db.rows("SELECT id FROM packed_files WHERE path = ?", path):
            self._db.execute("DELETE FROM recordings WHERE packed_file = ?", old)
            self._db.execute("DELETE FROM packed_files WHERE id = ?", old)
        return self._db.execute(
            "INSERT INTO packed_files (path, size, mtime_ns) VALUES (?, ?, ?)", path, size, mtime_ns
        )

    def add(self, recordings: Sequence[NewRecording]) -> None:
        """Add recordings whose rows are at the end of the columns, in this order."""
        lengths = self.lengths()
        clip, frame, now = lengths["clips"], lengths["frames"], time.time()
        rows = []
        for new in recordings:
            labels = None if new.labels is None else json.dumps([int(i) for i in new.labels])
            rows.append(
                (
                    *(new.source, new.root, new.packed_file, new.packed_row, new.name, new.size),
                    *(new.mtime_ns, new.start, new.duration, clip, new.clips),
                    *(None if new.frames is None else frame, new.frames, labels, now),
                )
            )
            clip += new.clips
            frame += new.frames or 0
        self._db.execute_many(
            "INSERT INTO recordings (source, root, packed_file, packed_row, name, size, mtime_ns, "
            "start, duration, first_clip, clips, first_frame, frames, labels, added) "
            f"VALUES ({','.join('?' * 15)})",
            rows,
        )
        self._db.execute_many(
            "UPDATE lengths SET rows = ? WHERE name = ?", [(clip, "clips"), (frame, "frames")]
        )

    def skip(self, root: int, name: bytes, size: int, mtime_ns: int, reason: str) -> None:
        """Remember why a file could not be used."""
        self._db.execute(
            "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?)",
            *(root, name, size, mtime_ns, printable(reason)),
        )

    def forget(self, known: KnownFile) -> None:
        """Remove what is known of a file."""
        for table in ("recordings", "skipped"):
            self._db.execute(
                f"DELETE FROM {table} WHERE root = ? AND name = ?", known.root, known.name
            )


def _recording(row: Sequence[Any]) -> Recording:
    number, source, name, root, start, duration, first_clip, clips, packed_row, labels = row
    path, shown = None, printable(os.fsdecode(name))
    if root is not None:
        path = Path(os.fsdecode(os.path.join(root, name)))  # noqa: PTH118 - bytes
        shown = printable(str(path))
    classes = None if labels is None else tuple(json.loads(labels))
    if classes and not set(classes) <= set(range(CLASS_COUNT)):
        raise ValueError(f"classes {classes}")
    return Recording(
        number, source, shown, path, start, duration, first_clip, clips, packed_row, classes
    )
