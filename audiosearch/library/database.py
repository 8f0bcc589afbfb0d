"""An SQLite file that is shared with other processes, and its errors in plain words."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from audiosearch.errors import (
    LibraryBusyError,
    LibraryDamagedError,
    LibraryError,
    StorageError,
    printable,
)

__all__ = ["Database"]

_BUSY_SECONDS = 30.0
# Results of SQLite that mean that a write failed, by their extended codes.
_WRITE_FAILED = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_DELETE,
)


# A damaged file may name tables, columns and texts that are no text.
_ERRORS = (sqlite3.Error, UnicodeDecodeError)


class Database:
    """An open SQLite file; safe to use from several threads.

    Parameters
    ----------
    path : Path
        The file.
    writable : bool
        Whether it may be changed.

    Raises
    ------
    LibraryBusyError
        When another process keeps it locked.
    LibraryDamagedError
        When it cannot be read.
    StorageError
        When it may not be opened.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            if writable:
                self._db = self._connect("rw")
                self._db.execute("PRAGMA synchronous = FULL")
                # Readers are kept out while pages are written: at the commit, and not before it.
                self._db.execute("PRAGMA cache_spill = OFF")
            else:
                self._db = self._connect_readonly()
        except _ERRORS as error:
            raise _translated(path, error) from error

    @staticmethod
    def create(path: Path, schema: str) -> None:
        """Make a file with the tables of a schema.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        try:
            db = sqlite3.connect(path, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = DELETE")
                db.executescript(f"BEGIN; {schema} COMMIT;")
            finally:
                db.close()
        except _ERRORS as error:
            raise _translated(path, error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Return what a query finds."""
        with self._lock:
            try:
                try:
                    return self._db.execute(sql, values).fetchall()
                except sqlite3.OperationalError as error:
                    if self._db.in_transaction or not self._take_back(error):
                        raise
                    return self._db.execute(sql, values).fetchall()
            except _ERRORS as error:
                raise _translated(self.path, error) from error

    def rows_at_once(self, sql: str, *values: Any) -> list[Any] | None:
        """Return what a query finds, or None, without waiting, while another process commits."""
        with self._lock:
            try:
                self._db.execute("PRAGMA busy_timeout = 0")
                try:
                    return self.rows(sql, *values)
                except LibraryBusyError:
                    return None
                finally:
                    self._db.execute(f"PRAGMA busy_timeout = {round(1000 * _BUSY_SECONDS)}")
            except _ERRORS as error:
                raise _translated(self.path, error) from error

    def execute_count(self, sql: str, *values: Any) -> int:
        """Change something, inside `writing`; return how many rows that were."""
        return int(self._db.execute(sql, values).rowcount)

    def execute(self, sql: str, *values: Any) -> int:
        """Change something, inside `writing`; return the id of the row that was added last."""
        return int(self._db.execute(sql, values).lastrowid or 0)

    def execute_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Change something for each of some rows, inside `writing`."""
        self._db.executemany(sql, rows)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let the queries inside see one state, whatever others commit meanwhile."""
        with self._lock:
            self.rows("BEGIN")
            try:
                yield
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def understanding(self) -> Iterator[None]:
        """Take values that make no sense as the damage that they are."""
        try:
            yield
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _damaged(self.path, error) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Commit everything done inside, or nothing of it."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
            except _ERRORS as error:
                raise _translated(self.path, error) from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _connect_readonly(self) -> sqlite3.Connection:
        try:
            return self._connect("ro")
        except sqlite3.OperationalError as error:
            if self._take_back(error):
                return self._connect("ro")
            if _code(error) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR):
                raise
            # A medium that cannot be written to at all, or has no locks.
            return self._connect("ro&immutable=1")

    def _take_back(self, error: sqlite3.Error) -> bool:
        """Take back what a writer left half committed when it was killed, if that is the error.

        SQLite does so when the catalogue is opened for writing.
        """
        if _code(error) not in (
            sqlite3.SQLITE_READONLY_ROLLBACK,
            sqlite3.SQLITE_READONLY_RECOVERY,
        ):
            return False
        try:
            self._connect("rw").close()
        except sqlite3.Error as failure:
            raise LibraryError(
                f"The process that wrote to {printable(str(self.path))} was stopped. Open the "
                "library once as a user who may write to it; that puts it in order."
            ) from failure
        return True


def _code(error: Exception) -> int:
    """Return SQLite's extended result code; -1 for an error of the Python module itself."""
    return getattr(error, "sqlite_errorcode", -1)


def _translated(path: Path, error: Exception) -> LibraryError | StorageError:
    """Return one clear sentence for an error of SQLite."""
    name, code = printable(str(path)), _code(error) & 0xFF
    if isinstance(error, sqlite3.ProgrammingError):
        return LibraryError(f"The library {printable(str(path.parent))} is closed.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LibraryBusyError(f"{name} is being written by another process. Try again.")
    if code == sqlite3.SQLITE_FULL or _code(error) in _WRITE_FAILED:
        return StorageError(
            f"The disk is full or failing: {name} could not be written. Free some space and run "
            "the same command again; what was reported done is safe."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or (
        code == sqlite3.SQLITE_CANTOPEN and path.exists()
    ):
        return StorageError(
            f"{name} cannot be opened as needed: no permission for it or its folder. Change the "
            "permissions, or choose another library."
        )
    return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> LibraryDamagedError:
    return LibraryDamagedError(
        f"{printable(str(path))} cannot be read ({error}), so the library is damaged. Restore the "
        "file from a backup, or delete the library's folder and index the sounds again."
    )
