"""Reading a catalogue: what a library holds, as it was committed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import printable
from audiosearch.library.database import Database
from audiosearch.library.label_table import LABELS, LabelTable
from audiosearch.library.recordings import (
    Holdings,
    KnownFile,
    Origin,
    Recording,
    Skipped,
    Spread,
    State,
    origin_of,
    recording_of,
)

__all__ = ["MOVES", "CatalogueReader"]

MOVES = "moves"
"""In the catalogue's lengths: how often recordings moved; it has no row before the first."""

_LENGTHS = (
    *("clips", "tail", "tail_rows", "tail_frames", "neighbours", "changes"),
    *("live_recordings", "live_clips"),
)
_LARGEST_ID = 2**63 - 1
_MOST_CLIPS = 2**32 - 1
_MOST_KEPT = 50_000  # recordings, of about 500 bytes each


class CatalogueReader:
    """An open catalogue that is read; parameters are those of `Catalogue`."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._db = Database(path, writable=writable)
        self.labels = LabelTable(self._db)
        self._kept: tuple[int, dict[int, Recording]] = -1, {}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def lengths(self) -> dict[str, int]:
        """Return the committed lengths, totals, and how often anything was committed.

        The keys are ``clips`` (the number of the next clip), ``tail`` (the first clip of the tail),
        ``tail_rows``, ``tail_frames``, ``neighbours`` (the number of the FAISS index, 0 for none),
        ``changes``, ``live_recordings``, ``live_clips``, ``moves`` (how often recordings that were
        known already got another place), and ``labels`` (how often labels of the user's changed).
        """
        rows = dict(self._db.rows("SELECT name, rows FROM lengths"))
        with self._db.understanding():
            lengths = {name: int(rows[name]) for name in _LENGTHS}
            for name in (MOVES, LABELS):
                lengths[name] = int(rows.get(name, 0))
            if min(lengths.values()) < 0 or lengths["tail"] + lengths["tail_rows"] > _MOST_CLIPS:
                raise ValueError("lengths that cannot be")
            return lengths

    def changes(self) -> int | None:
        """Return how often anything was committed; None while another process is committing."""
        rows = self._db.rows_at_once("SELECT rows FROM lengths WHERE name = 'changes'")
        if rows is None:
            return None
        with self._db.understanding():
            return int(rows[0][0])

    def state(self, *, after: int = 0) -> State:
        """Return what belongs together: lengths, segments, and removals.

        Parameters
        ----------
        after : int
            The last removal that is known already.
        """
        with self._db.reading():
            lengths = self.lengths()
            segments = self._db.rows(
                "SELECT id, first_clip, clips FROM segments ORDER BY first_clip"
            )
            removals = self._db.rows(
                "SELECT id, first_clip, clips FROM removals WHERE id > ? ORDER BY id", after
            )
        with self._db.understanding():
            return State(
                lengths,
                [(int(number), int(first), int(clips)) for number, first, clips in segments],
                np.array(removals, np.int64).reshape(-1, 3),
            )

    def removals_between(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the removals of clips from `first` up to `stop`: id, first clip, clips."""
        rows = self._db.rows(
            "SELECT id, first_clip, clips FROM removals WHERE first_clip >= ? AND first_clip < ? "
            "ORDER BY first_clip",
            *(first, stop),
        )
        with self._db.understanding():
            return np.array(rows, np.int64).reshape(-1, 3)

    def removed_clips(self) -> int:
        """Return how many clips are removed but still in a segment or in the tail."""
        with self._db.understanding():
            return int(self._db.rows("SELECT coalesce(sum(clips), 0) FROM removals")[0][0])

    def names(self, after: int) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return ids and shown names of the recordings from number `after` + 1 on, by id."""
        roots: dict[int | None, bytes] = {None: b""}
        for number, path in self.roots().items():
            roots[number] = os.path.join(path, b"")  # noqa: PTH118
        rows = self._db.rows(
            "SELECT id, root, name FROM recordings WHERE id > ? ORDER BY id", after
        )
        with self._db.understanding():
            ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            paths = [roots[root] + name for _, root, name in rows]
            with contextlib.suppress(UnicodeDecodeError):
                # One text for all: nearly every name is one.
                names = b"\0".join(paths).decode("utf-8").split("\0") if paths else []
                if len(names) == len(paths):
                    return ids, names
            return ids, [printable(os.fsdecode(path)) for path in paths]

    def lengths_in_seconds(
        self, after: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return ids and durations of the recordings from number `after` + 1 on, by id."""
        rows = self._db.rows("SELECT id, duration FROM recordings WHERE id > ? ORDER BY id", after)
        with self._db.understanding():
            return (
                np.fromiter((row[0] for row in rows), np.int64, len(rows)),
                np.fromiter((row[1] for row in rows), np.float64, len(rows)),
            )

    def times(self, after: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return ids and times of the recordings from number `after` + 1 on, by id.

        That of the last change of the sound file, in seconds since 1970; NaN for packed rows.
        """
        rows = self._db.rows(
            "SELECT id, CASE WHEN root IS NOT NULL THEN mtime_ns / 1e9 END FROM recordings "
            "WHERE id > ? ORDER BY id",
            after,
        )
        with self._db.understanding():
            return (
                np.fromiter((row[0] for row in rows), np.int64, len(rows)),
                np.array([row[1] for row in rows], np.float64),
            )

    def holdings(self) -> Holdings:
        """Return all recordings in numbers."""
        rows = self._db.rows(
            "SELECT id, first_clip, clips, duration, CASE WHEN root IS NULL THEN -1 ELSE "
            "coalesce(size, -1) END FROM recordings ORDER BY first_clip"
        )
        with self._db.understanding():
            whole = np.array(rows, np.float64).reshape(-1, 5)  # exact for integers below 2**53
            ids, first_clips, clips, sizes = whole[:, [0, 1, 2, 4]].T.astype(np.int64)
            return Holdings(ids, first_clips, clips, whole[:, 3].copy(), sizes)

    def lengths_and_times(self) -> Spread:
        """Return how long all recordings are, and of which year."""
        rows = self._db.rows(
            "SELECT id, duration, CASE WHEN root IS NULL THEN 0 ELSE coalesce(CAST(strftime('%Y', "
            "mtime_ns / 1000000000, 'unixepoch') AS INTEGER), 0) END FROM recordings ORDER BY id"
        )
        with self._db.understanding():
            whole = np.array(rows, np.float64).reshape(-1, 3)  # exact for integers below 2**53
            ids, years = whole[:, [0, 2]].T.astype(np.int64)
            return Spread(ids, whole[:, 1].copy(), years)

    def latest(self, count: int, *, offset: int = 0) -> list[tuple[int, float]]:
        """Return the first clips of the recordings that were added last, and when, newest first."""
        rows = self._db.rows(
            "SELECT first_clip, added FROM recordings ORDER BY id DESC LIMIT ? OFFSET ?",
            *(count, offset),
        )
        with self._db.understanding():
            return [(int(clip), float(added)) for clip, added in rows]

    def sizes(self, ids: Iterable[int]) -> dict[int, tuple[int | None, float]]:
        """Return size (None for rows of packed files) and seconds of recordings by id."""
        rows = self._by_id(
            "SELECT id, CASE WHEN root IS NOT NULL THEN size END, duration FROM recordings "
            "WHERE id IN",
            ids,
        )
        return {number: (size, seconds) for number, size, seconds in rows}

    def indexed_state(self, number: int) -> tuple[bytes, bytes, int | None, int | None] | None:
        """Return folder, name, size and time of change that a file had when it was indexed.

        None where there is no such recording, or it is a row of a packed file.
        """
        rows = self._by_id(
            "SELECT roots.path, r.name, r.size, r.mtime_ns FROM recordings r JOIN roots "
            "ON roots.id = r.root WHERE r.id IN",
            [number],
        )
        with self._db.understanding():
            return next(((root, name, size, time) for root, name, size, time in rows), None)

    def recordings(self, ids: Iterable[int]) -> dict[int, Recording]:
        """Return recordings by id; ids that do not exist are left out."""
        rows = self._by_id(
            "SELECT r.id, r.source, r.name, roots.path, r.start, r.duration, r.first_clip, "
            "r.clips, r.packed_row, r.labels FROM recordings r LEFT JOIN roots "
            "ON roots.id = r.root WHERE r.id IN",
            ids,
        )
        with self._db.understanding():
            return {row[0]: recording_of(row) for row in rows}

    def _by_id(self, sql: str, ids: Iterable[int]) -> list[Any]:
        """Return the rows of some ids, for which the query ends with IN."""
        rows: list[Any] = []
        wanted = [int(i) for i in ids if 0 < i <= _LARGEST_ID]
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            rows += self._db.rows(f"{sql} ({','.join('?' * len(part))})", *part)
        return rows

    def recordings_at(self, ids: Iterable[int], moves: int) -> dict[int, Recording]:
        """Return recordings of a snapshot by id, of which those asked for before are kept.

        Only what was not asked for yet waits for another process that is committing. A recording
        that was removed since may still be among them: the snapshot knows.

        Parameters
        ----------
        ids : ints
            Their numbers.
        moves : int
            The snapshot's ``lengths["moves"]``.
        """
        at, kept = self._kept
        if at != moves or len(kept) > _MOST_KEPT:
            kept = {}
            self._kept = moves, kept
        ids = [int(number) for number in ids]
        missing = [number for number in ids if number not in kept]
        if missing:
            kept.update(self.recordings(missing))
        return {number: kept[number] for number in ids if number in kept}

    def origins(self, first: int, count: int) -> list[Origin]:
        """Return up to `count` recordings from clip number `first` on, in the order of clips."""
        rows = self._db.rows(
            "SELECT r.id, r.source, roots.path, r.name, r.size, r.mtime_ns, p.path, p.size, "
            "p.mtime_ns, r.packed_row, r.start, r.duration, r.first_clip, r.clips, r.labels "
            "FROM recordings r LEFT JOIN roots ON roots.id = r.root "
            "LEFT JOIN packed_files p ON p.id = r.packed_file "
            "WHERE r.first_clip >= ? ORDER BY r.first_clip LIMIT ?",
            *(first, count),
        )
        with self._db.understanding():
            return [origin_of(row) for row in rows]

    def spans(self) -> npt.NDArray[np.int64]:
        """Return id, first clip and clips of all recordings, in the order of clips."""
        rows = self._db.rows("SELECT id, first_clip, clips FROM recordings ORDER BY first_clip")
        with self._db.understanding():
            return np.array(rows, np.int64).reshape(-1, 3)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Let the questions inside see one state, whatever others commit meanwhile."""
        return self._db.reading()

    def problems(self) -> list[str]:
        """Read the whole file and return what SQLite finds wrong with it."""
        found = [str(row[0]) for row in self._db.rows("PRAGMA integrity_check(20)")]
        orphans = self._db.rows("PRAGMA foreign_key_check")
        return [
            *(text for text in found if text != "ok"),
            *(f"row {row} of {table} names a missing row of {of}" for table, row, of, _ in orphans),
        ]

    def totals(self) -> tuple[int, int, float, float | None]:
        """Return recordings, clips, seconds of sound, and when the last one was added."""
        with self._db.reading():
            lengths = self.lengths()
            ((seconds, updated),) = self._db.rows("SELECT seconds, updated FROM sums")
        with self._db.understanding():
            if updated is not None:
                time.gmtime(updated)
            seconds = max(float(seconds), 0.0) if lengths["live_recordings"] else 0.0
            return lengths["live_recordings"], lengths["live_clips"], seconds, updated

    def roots(self) -> dict[int, bytes]:
        """Return the folders that paths are relative to."""
        return dict(self._db.rows("SELECT id, path FROM roots"))

    def known_files(self) -> dict[bytes, KnownFile]:
        """Return every sound file that was indexed or skipped, by absolute path."""
        rows = self._db.rows(
            "SELECT NULL, root, roots.path, name, size, mtime_ns, reason, NULL "
            "FROM skipped JOIN roots ON roots.id = root UNION ALL "
            "SELECT r.id, root, roots.path, name, size, mtime_ns, NULL, first_clip "
            "FROM recordings r JOIN roots ON roots.id = root"
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

    def packed_paths(self) -> dict[int, bytes]:
        """Return the packed files by id."""
        return dict(self._db.rows("SELECT id, path FROM packed_files"))
