"""The catalogue: an SQLite file that says what a library holds.

It is the truth: a recording exists when it has a row here, and the columns beside it count only as
far as the catalogue says. One transaction adds a group of recordings and commits the new lengths.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import (
    LibraryBusyError,
    LibraryDamagedError,
    LibraryError,
    StorageError,
    printable,
)

__all__ = ["Catalogue", "KnownFile", "NewRecording", "Recording", "Skipped"]

_SCHEMA = """
CREATE TABLE lengths (name TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE packed_files (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL
);
-- Paths are bytes: a file name need not be text. `name` is relative to the root, or a YouTube id.
CREATE TABLE recordings (
    id INTEGER PRIMARY KEY,
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
"""

_BUSY_SECONDS = 30.0


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
    """A file that was indexed, or skipped for a reason, and how it looked then."""

    id: int | None
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
        self._path = path
        self._lock = threading.RLock()
        name = path.absolute().as_uri()
        try:
            if writable:
                self._db = self._connect(f"{name}?mode=rw")
                self._db.execute("PRAGMA synchronous = FULL")
            else:
                self._db = self._connect_readonly(name)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty catalogue."""
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = DELETE")
            db.executescript(_SCHEMA)
            db.executemany(
                "INSERT INTO lengths VALUES (?, 0)", [("clips",), ("frames",), ("changes",)]
            )
        finally:
            db.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _connect(self, uri: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute("SELECT rows FROM lengths").fetchall()
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _connect_readonly(self, name: str) -> sqlite3.Connection:
        try:
            return self._connect(f"{name}?mode=ro")
        except sqlite3.OperationalError:
            # A folder that cannot be written to at all, or a medium without locks.
            if os.access(self._path.parent, os.W_OK):
                raise
            return self._connect(f"{name}?immutable=1")

    def _translated(self, error: sqlite3.Error) -> LibraryError | StorageError:
        name = printable(str(self._path))
        text = str(error)
        if "locked" in text or "busy" in text:
            return LibraryBusyError(f"{name} is being written by another process. Try again.")
        if "full" in text:
            return StorageError(
                f"The disk is full: {name} could not be written. Free some space and run the same "
                "command again; what was reported done is safe."
            )
        if "readonly" in text:
            return StorageError(f"No permission to write {name}. Choose another library.")
        return LibraryDamagedError(
            f"{name} cannot be read ({text}), so the library is damaged. Restore the file from a "
            "backup, or delete the library's folder and index the sounds again."
        )

    def _all(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._translated(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything done inside, or nothing of it."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("UPDATE lengths SET rows = rows + 1 WHERE name = 'changes'")
                    self._db.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._translated(error) from error

    def lengths(self) -> dict[str, int]:
        """Return the committed rows of the columns, and how often anything was committed."""
        return dict(self._all("SELECT name, rows FROM lengths"))

    def layout(self) -> npt.NDArray[np.float64]:
        """Return (recordings, 5): id, first clip, clips, start, duration, in the clips' order."""
        rows = self._all(
            "SELECT id, first_clip, clips, start, duration FROM recordings ORDER BY first_clip"
        )
        return np.array(rows, np.float64).reshape(-1, 5)

    def recordings(self, ids: Iterable[int]) -> dict[int, Recording]:
        """Return recordings by id; ids that do not exist are left out."""
        found: dict[int, Recording] = {}
        wanted = [int(i) for i in ids]
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            for row in self._all(
                "SELECT r.id, r.source, r.name, roots.path, r.start, r.duration, r.first_clip, "
                "r.clips, r.packed_row, r.labels FROM recordings r LEFT JOIN roots "
                f"ON roots.id = r.root WHERE r.id IN ({marks})",
                *part,
            ):
                path = None
                name = printable(os.fsdecode(row[2]))
                if row[3] is not None:
                    path = Path(os.fsdecode(os.path.join(row[3], row[2])))  # noqa: PTH118 - bytes
                    name = printable(str(path))
                labels = None if row[9] is None else tuple(json.loads(row[9]))
                found[row[0]] = Recording(row[0], row[1], name, path, *row[4:9], labels)
        return found

    def totals(self) -> tuple[int, int, float, float | None]:
        """Return recordings, clips, seconds of sound, and when the last one was added."""
        return self._all(
            "SELECT count(*), coalesce(sum(clips), 0), coalesce(sum(duration), 0), max(added) "
            "FROM recordings"
        )[0]

    def roots(self) -> dict[int, bytes]:
        """Return the folders that paths are relative to."""
        return dict(self._all("SELECT id, path FROM roots"))

    def known_files(self) -> dict[bytes, KnownFile]:
        """Return every sound file that was indexed or skipped, by absolute path."""
        known: dict[bytes, KnownFile] = {}
        for sql in (
            "SELECT NULL, roots.path, name, size, mtime_ns, reason FROM skipped "
            "JOIN roots ON roots.id = root",
            "SELECT r.id, roots.path, name, size, mtime_ns, NULL FROM recordings r "
            "JOIN roots ON roots.id = root",
        ):
            for row in self._all(sql):
                path = os.path.join(row[1], row[2])  # noqa: PTH118 - bytes
                known[path] = KnownFile(row[0], path, row[3], row[4], row[5])
        return known

    def skipped(self) -> list[Skipped]:
        """Return the files that could not be used, by path."""
        return [
            Skipped(printable(os.fsdecode(known.path)), known.reason)
            for known in sorted(self.known_files().values(), key=lambda known: known.path)
            if known.reason is not None
        ]

    def packed_file(self, path: bytes) -> tuple[int, int, int, int] | None:
        """Return id, size, mtime and rows done of a packed file, or None if it is not known."""
        rows = self._all(
            "SELECT id, size, mtime_ns, (SELECT count(*) FROM recordings WHERE packed_file = p.id) "
            "FROM packed_files p WHERE path = ?",
            path,
        )
        return rows[0] if rows else None

    # What follows changes the catalogue and belongs inside `transaction`.

    def add_root(self, path: bytes) -> int:
        """Return the id of a root, made where it is new."""
        self._db.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", (path,))
        return int(self._db.execute("SELECT id FROM roots WHERE path = ?", (path,)).fetchone()[0])

    def add_packed_file(self, path: bytes, size: int, mtime_ns: int) -> int:
        """Enter a packed file that is new, or replace one that changed; return its id."""
        old = self._db.execute("SELECT id FROM packed_files WHERE path = ?", (path,)).fetchone()
        if old:
            self._db.execute("DELETE FROM recordings WHERE packed_file = ?", old)
            self._db.execute("DELETE FROM packed_files WHERE id = ?", old)
        cursor = self._db.execute(
            "INSERT INTO packed_files (path, size, mtime_ns) VALUES (?, ?, ?)",
            (path, size, mtime_ns),
        )
        return int(cursor.lastrowid or 0)

    def add(self, recordings: Sequence[NewRecording]) -> None:
        """Add recordings whose rows are at the end of the columns, in this order."""
        lengths = dict(self._db.execute("SELECT name, rows FROM lengths").fetchall())
        clip, frame, now = lengths["clips"], lengths["frames"], time.time()
        rows = []
        for new in recordings:
            labels = None if new.labels is None else json.dumps([int(i) for i in new.labels])
            rows.append(
                (new.source, new.root, new.packed_file, new.packed_row, new.name, new.size)
                + (new.mtime_ns, new.start, new.duration, clip, new.clips)
                + (None if new.frames is None else frame, new.frames, labels, now)
            )
            clip += new.clips
            frame += new.frames or 0
        self._db.executemany(
            "INSERT INTO recordings (source, root, packed_file, packed_row, name, size, mtime_ns, "
            "start, duration, first_clip, clips, first_frame, frames, labels, added) "
            f"VALUES ({','.join('?' * 15)})",
            rows,
        )
        self._db.executemany(
            "UPDATE lengths SET rows = ? WHERE name = ?", [(clip, "clips"), (frame, "frames")]
        )

    def skip(self, root: int, name: bytes, size: int, mtime_ns: int, reason: str) -> None:
        """Remember why a file could not be used."""
        self._db.execute(
            "INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?, ?)",
            (root, name, size, mtime_ns, reason),
        )

    def forget(self, path: bytes) -> None:
        """Remove what is known of the file at an absolute path."""
        for root, folder in self._db.execute("SELECT id, path FROM roots").fetchall():
            prefix = os.path.join(folder, b"")  # noqa: PTH118 - bytes
            if path.startswith(prefix):
                values = (root, path[len(prefix) :])
                self._db.execute("DELETE FROM recordings WHERE root = ? AND name = ?", values)
                self._db.execute("DELETE FROM skipped WHERE root = ? AND name = ?", values)
