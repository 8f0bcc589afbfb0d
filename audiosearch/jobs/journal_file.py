"""The SQLite file of a `Journal`: its tables, how it is opened, and what its errors mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from audiosearch.errors import JobError, StorageError, printable
from audiosearch.storage import storage_errors

__all__ = ["PLAN", "open_journal_file", "refusal"]

_VERSION = 1
PLAN = """
CREATE TABLE plan (
    seq INTEGER PRIMARY KEY, name BLOB, key BLOB, size INTEGER, mtime_ns INTEGER,
    start REAL, stop REAL, problem TEXT, written INTEGER
)
"""
"""Makes the table of the inputs."""
_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """
    CREATE TABLE entries (
        key BLOB, settings TEXT, size INTEGER, mtime_ns INTEGER,
        seconds REAL, result BLOB, reason TEXT, extras TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (key, settings)
    )
    """,
    PLAN,
)


def open_journal_file(path: Path, output: Path, *, restart: bool) -> sqlite3.Connection:
    """Open a journal's file for this process alone, or make it.

    Parameters
    ----------
    path : Path
        The file.
    output : Path
        What messages call the job by.
    restart : bool
        Replace a file that is no journal.

    Raises
    ------
    JobError
        When another process has it, or it cannot be read.
    StorageError
        When the disk is full.
    """
    try:
        return _connect(path)
    except sqlite3.OperationalError as error:  # busy, full, not to be written
        raise refusal(error, path, output) from error
    except sqlite3.DatabaseError as error:
        if not restart:
            raise refusal(error, path, output) from error
    except _OtherVersionError:
        if not restart:
            raise JobError(
                f"{printable(str(path))} was written by another version of audiosearch. "
                "Finish the job with that version, or begin anew with --restart."
            ) from None
    with storage_errors(path):
        path.unlink()
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        raise refusal(error, path, output) from error


class _OtherVersionError(Exception):
    """The layout is another."""


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN EXCLUSIVE")
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _TABLES:
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('version', ?)", (_VERSION,))
        db.execute("COMMIT")
        found = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        if found != (_VERSION,):
            raise _OtherVersionError
    except BaseException:
        db.close()
        raise
    return db


def refusal(error: sqlite3.Error, path: Path, output: Path) -> JobError | StorageError:
    """Return what an error of SQLite means for a job."""
    name = printable(str(path))
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StorageError(
            f"{name} could not be written ({error}). Free some space; what was reported as "
            "done is safe, and the same command goes on from there."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JobError(
            f"Another process is working on {printable(str(output))}. Wait until it has "
            "finished, or name another file with --out."
        )
    return JobError(
        f"{name} cannot be used as a journal ({error}). Make sure that its folder can be "
        "written, or begin anew with --restart."
    )
