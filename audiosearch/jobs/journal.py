"""The journal of a job over many files: what is done, and how far the output has got.

Layout
------
One SQLite file beside the output, ``OUT.journal``, with three tables:

``entries``
    One row for each file that was done: the result as the job made it, or the reason why the file
    was skipped. The key is the file's absolute path (with start and end, where a part of it was
    asked for) and the fingerprint of the settings that change results; size and modification time
    are stored beside. A file is done when all of these are as they were. Entries of other settings
    stay until a run is complete, so going back to them by mistake or on purpose loses nothing.
``plan``
    The inputs of the latest run, sorted, each with the length that the output had once the rows of
    this input were in it.
``meta``
    The version of this layout; the settings that the output was written with, its length, and the
    CRC-32 of that many bytes.

Results come in any order and are entered as they come: nothing waits for a slow file. The output
grows in the order of the plan: it always holds the rows of the first inputs, complete, up to the
first one that is not done yet. It is written from the entries alone, never from what a worker just
sent, so a resumed job and an uninterrupted one take the same way and give the same bytes.

Atomicity
---------
A group of results is one commit: rows are appended to the output and flushed to the disk, then one
SQLite transaction holds the entries, the plan's marks and the output's new length. After ``kill
-9`` or a power cut the output may be longer than the journal says, never shorter; the next run cuts
the tail off. SQLite runs with a rollback journal and ``synchronous=FULL``: what was committed is on
the disk. Formats that cannot grow (Parquet, playlists) are written from the entries when all is
done, to a temporary file that is renamed.

When inputs come, go or change between runs, the output is kept up to the first difference and
written anew from there. When somebody else changed it (other length, other CRC), it is written anew
from its start; nothing is analysed again for that.

Failure
-------
A file that cannot be used is an entry too, with its reason: it is not tried again until it changes
or ``retry_errors`` asks for it. A full disk stops the job with a `StorageError`; what was reported
as done stays. A second process on the same journal is refused: SQLite's exclusive lock is held
until the first one ends, however it ends. A journal that cannot be read is never thrown away by
itself: the error says that ``--restart`` does it. An output without a journal is somebody's file
and is not overwritten either.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from audiosearch.errors import JobError, printable
from audiosearch.jobs.groups import GROUP_FILES
from audiosearch.jobs.growing import GrowingFile
from audiosearch.jobs.items import Entry, Item, Totals, entry_of, plan_row
from audiosearch.jobs.journal_file import PLAN, open_journal_file, refusal
from audiosearch.storage import Closing, storage_errors

__all__ = ["Journal"]

_PAGE = 1000
# What an input's entry is, where it has one that counts.
_JOIN = (
    "LEFT JOIN entries e ON e.key = p.key AND e.settings = :settings AND e.size = p.size "
    "AND e.mtime_ns = p.mtime_ns"
)
_COLUMNS = (
    "p.seq, p.name, p.size, p.mtime_ns, p.start, p.stop, p.problem, "
    "e.seconds, e.result, e.reason, e.extras"
)


class Journal(Closing):
    """What a job has done; see the module's text.

    Parameters
    ----------
    path : path-like
        The journal's file; made where it is missing.
    output : path-like
        What the job writes: a file, or for formats in many files a folder.
    settings : str
        Fingerprint of the settings that change results.
    restart : bool
        Forget what was done, and replace the output.

    Raises
    ------
    JobError
        When another process works on it, it cannot be read, or `output` exists without it.
    StorageError
        When it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        settings: str,
        restart: bool = False,
    ) -> None:
        self.path, self.output, self.settings = Path(path), Path(output), settings
        self._render: Callable[[Entry], bytes] | None = None
        self._file = GrowingFile(self.output)
        self._next = 0  # the first input whose rows are not in the output
        if not restart and self.output.exists() and not self.path.exists():
            raise JobError(
                f"{printable(str(self.output))} exists, and it has no journal "
                f"({printable(self.path.name)}) to go on from. Name another file with --out, or "
                "replace it with --restart."
            )
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = open_journal_file(self.path, self.output, restart=restart)
        if restart:
            self._forget()

    def _forget(self) -> None:
        with self._transaction():
            for table in ("entries", "plan"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("DELETE FROM meta WHERE name <> 'version'")

    def close(self) -> None:
        """Let the journal and the output go; what was not committed is lost."""
        self._file.close()
        with contextlib.suppress(sqlite3.Error):
            # Takes SQLite's own empty journal away.
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()

    # the plan

    def plan(self, items: Iterable[Item], *, retry_errors: bool = False) -> Totals:
        """Take the inputs of a run; they are sorted, and one that is named twice counts once.

        Parameters
        ----------
        items : iterable of Item
            In any order; they need not fit into memory.
        retry_errors : bool
            Count what was skipped as not done.
        """
        db = self._db
        with self._transaction():
            db.execute("DROP TABLE IF EXISTS temp.found")
            db.execute(
                "CREATE TEMP TABLE found (place BLOB, name BLOB, key BLOB UNIQUE, size INTEGER, "
                "mtime_ns INTEGER, start REAL, stop REAL, problem TEXT)"
            )
            db.executemany(
                "INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(plan_row, items)
            )
            if retry_errors:
                # Before the comparison: the output ends where something is to be tried again.
                db.execute(
                    "DELETE FROM entries WHERE settings = ? AND reason IS NOT NULL "
                    "AND key IN (SELECT key FROM found)",
                    (self.settings,),
                )
            db.execute("ALTER TABLE plan RENAME TO old")
            db.execute(PLAN)
            db.execute(
                "INSERT INTO plan SELECT row_number() OVER (ORDER BY place, start, "
                "coalesce(stop, 1e300), key) - 1, name, key, size, mtime_ns, start, stop, "
                "problem, NULL FROM found"
            )
            db.execute(
                "UPDATE plan SET written = (SELECT written FROM old WHERE old.seq = plan.seq AND "
                "(old.name, old.key, old.size, old.mtime_ns, old.start) = "
                "(plan.name, plan.key, plan.size, plan.mtime_ns, plan.start) AND "
                "old.stop IS plan.stop AND old.problem IS plan.problem)"
            )
            db.execute("DROP TABLE old")
            db.execute("DROP TABLE temp.found")
        return self.totals()

    def totals(self) -> Totals:
        """Count inputs, and those that are done."""
        row = self._db.execute(
            "SELECT count(*), count(coalesce(p.problem, e.key)), "
            "count(coalesce(p.problem, e.reason)), count(p.problem), coalesce(sum(p.size), 0), "
            f"coalesce(sum(CASE WHEN e.key IS NULL THEN 0 ELSE p.size END), 0) FROM plan p {_JOIN}",
            {"settings": self.settings},
        ).fetchone()
        return Totals(*row)

    @property
    def other_settings(self) -> int:
        """How many inputs are done with other settings, and not with these."""
        (count,) = self._db.execute(
            f"SELECT count(*) FROM plan p {_JOIN} WHERE e.key IS NULL AND EXISTS "
            "(SELECT 1 FROM entries o WHERE o.key = p.key AND o.size = p.size AND "
            "o.mtime_ns = p.mtime_ns)",
            {"settings": self.settings},
        ).fetchone()
        return int(count)

    def todo(self) -> Iterator[Item]:
        """Yield the inputs that are not done, in order; entries may be added meanwhile."""
        for entry in self._pages("e.key IS NULL AND p.problem IS NULL"):
            yield entry.item

    def entries(self) -> Iterator[Entry]:
        """Yield what became of each input that has a result, in order."""
        return self._pages("e.result IS NOT NULL")

    def skipped(self) -> Iterator[Entry]:
        """Yield each input that was skipped, with its reason, in order."""
        return self._pages("coalesce(p.problem, e.reason) IS NOT NULL")

    def without(self, extra: str) -> Iterator[Entry]:
        """Yield the results with which `extra` was not done yet, in order."""
        return self._pages("e.result IS NOT NULL AND instr(e.extras, :extra) = 0", extra + " ")

    def _pages(self, where: str, extra: str = "") -> Iterator[Entry]:
        after = -1
        while True:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM plan p {_JOIN} WHERE p.seq > :after AND {where} "
                "ORDER BY p.seq LIMIT :page",
                {"settings": self.settings, "after": after, "page": _PAGE, "extra": extra},
            ).fetchall()
            if not rows:
                return
            for row in rows:
                yield entry_of(row)
            after = rows[-1][0]

    # the output

    def attach(self, head: bytes, render: Callable[[Entry], bytes], *, layout: str) -> None:
        """Bring an output that grows into step with the plan, and keep it so from now on.

        Parameters
        ----------
        head : bytes
            What the output begins with.
        render : callable
            Gives the bytes of one result.
        layout : str
            Fingerprint of `head` and `render`: the output is written anew when it changes.
        """
        self._render = render
        wanted = f"{self.settings} {layout}"
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        length, crc = int(meta.get("length", 0)), int(meta.get("crc", 0))
        keep = 0
        if meta.get("output") == wanted and self._file.is_as(length, crc):
            self._next, keep = self._unchanged(len(head))
        else:
            self._next = 0
        self._file.keep(keep)
        with self._transaction():
            self._db.execute("UPDATE plan SET written = NULL WHERE seq >= ?", (self._next,))
            self._note(wanted)
        self._file.open()
        if not keep:
            self._file.append(head)
            with self._transaction():
                self._note(wanted)
        self._catch_up()

    def _unchanged(self, head: int) -> tuple[int, int]:
        """Return how many first inputs the output holds as they are, and its length with these."""
        (first,) = self._db.execute(
            f"SELECT min(p.seq) FROM plan p {_JOIN} WHERE p.written IS NULL "
            "OR (e.key IS NULL AND p.problem IS NULL)",
            {"settings": self.settings},
        ).fetchone()
        if first is None:
            (count, length) = self._db.execute("SELECT count(*), max(written) FROM plan").fetchone()
            return count, length or head
        if not first:
            return 0, head
        (length,) = self._db.execute(
            "SELECT written FROM plan WHERE seq = ?", (first - 1,)
        ).fetchone()
        return first, length

    def put(self, entries: Sequence[Entry]) -> None:
        """Commit a group of results, and let the output grow by what they complete.

        Raises
        ------
        StorageError
            When the disk is full.
        """
        rows = [
            (e.item.key, self.settings, e.item.size, e.item.mtime_ns, e.seconds, e.result, e.reason)
            for e in entries
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO entries (key, settings, size, mtime_ns, seconds, result, "
                "reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._grow()
        self._catch_up()

    def mark(self, marks: Sequence[tuple[Entry, int, int]], extra: str) -> None:
        """Note that `extra` was done with results.

        Parameters
        ----------
        marks : sequence of (Entry, size, mtime_ns)
            The results, and what their files are like since.
        extra : str
            What was done; without blanks.
        """
        with self._transaction():
            self._db.executemany(
                "UPDATE entries SET size = ?, mtime_ns = ?, extras = extras || ? "
                "WHERE key = ? AND settings = ?",
                [
                    (size, mtime_ns, extra + " ", entry.item.key, self.settings)
                    for entry, size, mtime_ns in marks
                ],
            )
            self._db.executemany(
                "UPDATE plan SET size = ?, mtime_ns = ? WHERE seq = ?",
                [(size, mtime_ns, entry.place) for entry, size, mtime_ns in marks],
            )

    def complete(self) -> None:
        """Forget entries of other settings, and of files that are no inputs any more."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM entries WHERE settings <> ? OR key NOT IN (SELECT key FROM plan)",
                (self.settings,),
            )

    def _catch_up(self) -> None:
        """Write what is done already, a page a commit, so that memory stays small."""
        while self._render is not None:
            with self._transaction():
                if not self._grow():
                    return

    def _grow(self) -> int:
        """Append the next done inputs' rows, at most a page of inputs; return how many."""
        if self._render is None:
            return 0
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM plan p {_JOIN} WHERE p.seq >= :first ORDER BY p.seq "
            "LIMIT :page",
            {"settings": self.settings, "first": self._next, "page": GROUP_FILES},
        ).fetchall()
        pieces, marks, length = [], [], self._file.length
        for row in rows:
            entry = entry_of(row)
            if entry.item.problem is None and entry.result is None and entry.reason is None:
                break
            if entry.result is not None:
                pieces.append(self._render(entry))
                length += len(pieces[-1])
            marks.append((length, row[0]))
        if not marks:
            return 0
        self._file.append(b"".join(pieces))
        self._db.executemany("UPDATE plan SET written = ? WHERE seq = ?", marks)
        self._note(None)
        self._next += len(marks)
        return len(marks)

    def _note(self, output: str | None) -> None:
        values: list[tuple[str, int | str]] = [
            ("length", self._file.length),
            ("crc", self._file.crc),
        ]
        if output is not None:
            values.append(("output", output))
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise refusal(error, self.path, self.output) from error
            raise
