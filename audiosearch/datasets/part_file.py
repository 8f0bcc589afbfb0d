"""A packed file while it is being made: every group of rows is committed, so that a run can be
killed at any moment and go on.

HDF5 files do not survive a process that is killed while it writes. So the rows are collected in an
SQLite database, ``FILE.h5.part``, whose transactions do; when all is there, ``FILE.h5`` is written
from it under another name, flushed and renamed. The database also knows which items (shards,
sounds) are done, which were skipped and why, and what the items were: a run over other sources
does not go on with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, PackedFile
from audiosearch.datasets.packed_writer import VIDEO_ID_BYTES, ClipRows, write_packed_file
from audiosearch.errors import AudioSearchError, StorageError, printable
from audiosearch.storage import Closing, fsync_folder, storage_errors

__all__ = ["Done", "PartFile"]

_VERSION = "1"
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (number INTEGER PRIMARY KEY, records INTEGER, parts INTEGER, finished INTEGER);
CREATE TABLE skipped (item INTEGER, name TEXT, reason TEXT);
CREATE TABLE parts (
    id INTEGER PRIMARY KEY, clips INTEGER, seconds REAL, name_bytes INTEGER,
    names BLOB, n_frames BLOB, times BLOB, labels TEXT, x BLOB
);
"""
# The parts of item i have ids from i << 32, so that their order is that of the items.
_ITEM_BITS = 32
_SOURCES = "sources_sha256"


@dataclass(frozen=True)
class Done:
    """A step that is to be committed.

    Attributes
    ----------
    item : int
        Number of the item; items come in ascending order.
    records : int
        How many records of it are done now.
    finished : bool
        Whether that is all of it.
    rows : ClipRows or None
        What it gave.
    seconds : float
        How much sound that is.
    skipped : sequence of (name, reason)
        What could not be used.
    failed : bool
        Whether the item is useless as a whole: the rows it gave before are taken back.
    """

    item: int
    records: int = 1
    finished: bool = True
    rows: ClipRows | None = None
    seconds: float = 0.0
    skipped: Sequence[tuple[str, str]] = ()
    failed: bool = False


class PartFile(Closing):
    """The database beside a packed file that is being made; one process at a time has it open.

    Parameters
    ----------
    out : Path
        The packed file.
    sources : str
        What identifies the items and how they are read.

    Raises
    ------
    StorageError
        When another process has it, another run with other sources left it, or it cannot be read
        or written.
    """

    def __init__(self, out: Path, sources: str) -> None:
        self.out = out
        self.path = out.with_name(out.name + ".part")
        self._sources = sources
        self._database: sqlite3.Connection | None = None
        with storage_errors(self.path):
            out.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._database = sqlite3.connect(self.path, timeout=0, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the database, and let other processes have it."""
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def clips(self) -> int:
        """How many rows are committed."""
        return int(self._one("SELECT coalesce(sum(clips), 0) FROM parts"))

    @property
    def finished(self) -> int:
        """How many items are finished: those with the lowest numbers."""
        return int(self._one("SELECT count(*) FROM items WHERE finished"))

    @property
    def packed(self) -> int:
        """How many items gave rows."""
        return int(self._one("SELECT count(*) FROM items WHERE parts"))

    @property
    def records(self) -> int:
        """How many records of the first item that is not finished are done."""
        query = "SELECT coalesce(max(records), 0) FROM items WHERE NOT finished"
        return int(self._one(query))

    def skipped(self) -> list[tuple[str, str]]:
        """Return name and reason of what could not be used."""
        with self._errors():
            found = self._run("SELECT name, reason FROM skipped ORDER BY item, rowid")
            return [(name, reason) for name, reason in found]

    def commit(self, steps: Sequence[Done]) -> None:
        """Write steps to the disk, all or none."""
        with self._errors(), self._transaction():
            for step in steps:
                self._add(step)

    def write(self, *, labelled: bool, facts: dict[str, str]) -> None:
        """Make the packed file from what is committed, and remove the database.

        Raises
        ------
        StorageError
            When it cannot be written, or something of its name is there.
        """
        temporary = self.path.with_name(self.path.name + "-h5")
        width = int(self._one("SELECT coalesce(max(name_bytes), 0) FROM parts"))
        with storage_errors(self.out):
            with self._errors():
                write_packed_file(
                    temporary,
                    self._rows(labelled),
                    count=self.clips,
                    name_bytes=max(width, VIDEO_ID_BYTES),
                    labelled=labelled,
                    facts=facts | {_SOURCES: self._sources},
                )
            if self.out.exists():
                raise already_there(self.out)
            temporary.replace(self.out)
            fsync_folder(self.out.parent)
        self.remove()

    def is_written(self) -> bool:
        """Tell whether the packed file is there and was made from this, before a kill."""
        try:
            with PackedFile(self.out) as file:
                same = file.attribute(_SOURCES) == self._sources
                return same and len(file) == self.clips
        except AudioSearchError:
            return False

    def remove(self) -> None:
        """Delete the database."""
        self.close()
        with storage_errors(self.path):
            for ending in ("-h5", "-journal", ""):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def _open(self) -> None:
        # The lock is taken with the first transaction and kept. Large pages: blobs fill them.
        for pragma in ("page_size = 32768", "locking_mode = EXCLUSIVE", "synchronous = FULL"):
            self._run(f"PRAGMA {pragma}")
        with self._transaction():
            if not self._run("SELECT 1 FROM sqlite_master").fetchall():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._run(statement)
                facts = [("version", _VERSION), ("sources", self._sources)]
                for key, value in facts:
                    self._run("INSERT INTO meta VALUES (?, ?)", key, value)
            meta = dict(self._run("SELECT key, value FROM meta").fetchall())
        if (meta.get("version"), meta.get("sources")) != (_VERSION, self._sources):
            raise StorageError(
                f"{printable(str(self.path))} was left by a run over other sources, or over files "
                "that have changed since. Run that command to finish it, or delete the file to "
                "start anew."
            )

    def _add(self, step: Done) -> None:
        first = step.item << _ITEM_BITS
        query = "SELECT records, parts, finished FROM items WHERE number = ?"
        found = self._run(query, step.item).fetchone()
        records, parts, finished = found or (-1, 0, False)
        if finished or (step.records <= records and not step.finished):
            return  # an interrupted caller commits again what it could not know was committed
        if step.failed:
            parts = 0
            self._run(
                "DELETE FROM parts WHERE id >= ? AND id < ?", first, first + (1 << _ITEM_BITS)
            )
            self._run("DELETE FROM skipped WHERE item = ?", step.item)
        for name, reason in step.skipped:
            self._run("INSERT INTO skipped VALUES (?, ?, ?)", step.item, name, reason)
        rows = step.rows
        if rows is not None and len(rows):
            self._run(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                first + parts,
                len(rows),
                step.seconds,
                max(len(name) for name in rows.names),
                # As JSON of Latin-1 text, which holds any bytes.
                json.dumps([name.decode("latin-1") for name in rows.names]),
                np.asarray(rows.n_frames, np.uint8).tobytes(),
                np.asarray(rows.times, "<f4").tobytes(),
                None if rows.labels is None else json.dumps([list(row) for row in rows.labels]),
                np.ascontiguousarray(rows.x).data,
            )
            parts += 1
        self._run(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)",
            step.item,
            step.records,
            parts,
            step.finished,
        )

    def _rows(self, labelled: bool) -> Iterator[ClipRows]:
        query = "SELECT clips, names, n_frames, times, labels, x FROM parts ORDER BY id"
        for clips, names, n_frames, times, labels, x in self._run(query):
            yield ClipRows(
                np.frombuffer(x, np.uint8).reshape(clips, CLIP_FRAMES, FRAME_VALUES),
                np.frombuffer(n_frames, np.uint8),
                [name.encode("latin-1") for name in json.loads(names)],
                np.frombuffer(times, "<f4").reshape(clips, 2),
                json.loads(labels) if labelled else None,
            )

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        assert self._database is not None
        return self._database.execute(statement, values)

    def _one(self, query: str) -> float:
        with self._errors():
            (value,) = self._run(query).fetchone()
        return float(value)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN EXCLUSIVE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            # A failed COMMIT may have ended the transaction itself.
            with contextlib.suppress(sqlite3.Error):
                self._run("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the database into one clear sentence."""
        name = printable(str(self.path))
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:
                raise
            if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StorageError(
                    f"Another process is packing into {printable(str(self.out))}. Wait until it "
                    "has finished, or name another file with --out."
                ) from None
            # SQLITE_ERROR: the tables are not ours.
            if code & 0xFF in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_ERROR,
            ):
                raise StorageError(
                    f"{name} is damaged, or was not made by `audiosearch pack`. Delete it to "
                    "start anew."
                ) from error
            if code & 0xFF == sqlite3.SQLITE_FULL:
                raise StorageError(
                    f"The disk is full: {name} could not be written. Free some space and run the "
                    "same command again; what was reported done is safe."
                ) from error
            if code & 0xFF in (
                sqlite3.SQLITE_CANTOPEN,
                sqlite3.SQLITE_READONLY,
                sqlite3.SQLITE_PERM,
            ):
                raise StorageError(
                    f"{name} could not be opened for writing. Choose another folder or change its "
                    "permissions."
                ) from error
            raise StorageError(f"{name} could not be written: {error}.") from error


def already_there(out: Path) -> StorageError:
    """Return the refusal to overwrite a file."""
    return StorageError(
        f"{printable(os.fspath(out))} exists already. Name a new file with --out, or delete it; "
        "nothing was overwritten."
    )
