"""The catalogue: an SQLite file that says what a library holds.

It is the truth: a recording exists when it has a row here, and the files beside it count only as
far as the catalogue says. One transaction adds a group of recordings and commits the new lengths.

A reader that follows another process asks for what changed: `lengths` is one row, segments are few,
and removals are a table that only grows until a merge has dropped the clips.
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
from audiosearch.library.label_table import LABELS, LabelTable

__all__ = [
    "Catalogue",
    "Holdings",
    "KnownFile",
    "NewRecording",
    "Origin",
    "Recording",
    "Skipped",
    "Spread",
]

_SCHEMA = """
CREATE TABLE lengths (name TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE segments (id INTEGER PRIMARY KEY AUTOINCREMENT, first_clip INTEGER NOT NULL,
    clips INTEGER NOT NULL);
-- Clips whose data is still in a segment or in the tail. Filled by a trigger.
CREATE TABLE removals (id INTEGER PRIMARY KEY AUTOINCREMENT, first_clip INTEGER NOT NULL,
    clips INTEGER NOT NULL);
CREATE INDEX removals_by_clip ON removals (first_clip);
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
-- `clips` is the number of the next clip; the tail begins at clip `tail`. The others are totals.
INSERT INTO lengths VALUES ('clips', 0), ('tail', 0), ('tail_rows', 0), ('tail_frames', 0),
    ('neighbours', 0), ('changes', 0), ('live_recordings', 0), ('live_clips', 0);
CREATE TABLE sums (seconds REAL NOT NULL, updated REAL);
INSERT INTO sums VALUES (0, NULL);
CREATE TRIGGER recording_added AFTER INSERT ON recordings BEGIN
    UPDATE lengths SET rows = rows + 1 WHERE name = 'live_recordings';
    UPDATE lengths SET rows = rows + NEW.clips WHERE name = 'live_clips';
    UPDATE sums SET seconds = seconds + NEW.duration, updated = NEW.added;
END;
CREATE TRIGGER recording_removed AFTER DELETE ON recordings BEGIN
    INSERT INTO removals (first_clip, clips) VALUES (OLD.first_clip, OLD.clips);
    UPDATE lengths SET rows = rows - 1 WHERE name = 'live_recordings';
    UPDATE lengths SET rows = rows - OLD.clips WHERE name = 'live_clips';
    UPDATE sums SET seconds = seconds - OLD.duration;
END;
"""

_LENGTHS = (
    *("clips", "tail", "tail_rows", "tail_frames", "neighbours", "changes"),
    *("live_recordings", "live_clips"),
)
_MOVES = "moves"  # has no row before the first

_LARGEST_ID = 2**63 - 1
_MOST_CLIPS = 2**32 - 1
_ALL_CLASSES = frozenset(range(CLASS_COUNT))
_MOST_KEPT = 50_000  # recordings, of about 500 bytes each


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as the catalogue knows it; times in seconds.

    `name` is what hits show: the path of a file, or the id of a packed row, for which `file` is
    None.
    """

    id: int
    source: str
    name: str
    file: bytes | None
    start: float
    duration: float
    first_clip: int
    clips: int
    packed_row: int | None
    labels: tuple[int, ...] | None

    @property
    def path(self) -> Path | None:
        """The sound file; None for a row of a packed file."""
        return None if self.file is None else Path(os.fsdecode(self.file))


@dataclass(frozen=True)
class Holdings:
    """All recordings in numbers, in the order of their clips; every array is (recordings,).

    Attributes
    ----------
    ids, first_clips, clips : int64
        Their numbers, first clips, and how many clips they have.
    seconds : float64
        Their lengths.
    sizes : int64
        Bytes of their files; -1 for rows of packed files.
    """

    ids: npt.NDArray[np.int64]
    first_clips: npt.NDArray[np.int64]
    clips: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """How all recordings spread over lengths and years; every array is (recordings,).

    Attributes
    ----------
    ids : int64
        Their numbers, ascending.
    seconds : float64
        Their lengths.
    years : int64
        In which year their files were changed last (UTC); 0 for rows of packed files.
    """

    ids: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    years: npt.NDArray[np.int64]


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
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Origin:
    """A recording with all that is known of where it comes from; paths are bytes.

    `root` is None for a row of a packed file, and `packed_file` (path, size, modification time in
    ns) for a sound file.
    """

    id: int
    source: str
    root: bytes | None
    name: bytes
    size: int | None
    mtime_ns: int | None
    packed_file: tuple[bytes, int, int] | None
    packed_row: int | None
    start: float
    duration: float
    first_clip: int
    clips: int
    labels: tuple[int, ...] | None

    @property
    def path(self) -> bytes | None:
        """The sound file; None for a row of a packed file."""
        return None if self.root is None else os.path.join(self.root, self.name)  # noqa: PTH118


@dataclass(frozen=True)
class State:
    """What a library held at one moment, as far as a reader did not know it.

    Attributes
    ----------
    lengths : dict
        As `Catalogue.lengths` gives them.
    segments : list of (id, first clip, clips)
        All segments, in the order of their clips.
    removals : int64 (n, 3)
        Id, first clip and clips of the removals that the reader did not know, ascending.
    """

    lengths: dict[str, int]
    segments: list[tuple[int, int, int]]
    removals: npt.NDArray[np.int64]


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
        self.labels = LabelTable(self._db)
        self._kept: tuple[int, dict[int, Recording]] = -1, {}

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
        """Return the committed lengths, totals, and how often anything was committed.

        The keys are ``clips`` (the number of the next clip), ``tail`` (the first clip of the tail),
        ``tail_rows``, ``tail_frames``, ``neighbours`` (the number of the FAISS index, 0 for none),
        ``changes``, ``live_recordings``, ``live_clips``, ``moves`` (how often recordings that were
        known already got another place), and ``labels`` (how often labels of the user's changed).
        """
        rows = dict(self._db.rows("SELECT name, rows FROM lengths"))
        with self._db.understanding():
            lengths = {name: int(rows[name]) for name in _LENGTHS}
            for name in (_MOVES, LABELS):
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
            return {row[0]: _recording(row) for row in rows}

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
            return [_origin(row) for row in rows]

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

    def packed_paths(self) -> dict[int, bytes]:
        """Return the packed files by id."""
        return dict(self._db.rows("SELECT id, path FROM packed_files"))

    # What follows changes the catalogue and belongs inside `transaction`.

    def move_root(self, root: int, path: bytes) -> None:
        """Let everything below a root lie below another folder."""
        self._count_move()
        new = self.add_root(path)
        for table in ("recordings", "skipped"):
            self._db.execute(f"UPDATE {table} SET root = ? WHERE root = ?", new, root)

    def move_file(self, known: KnownFile, root: bytes, name: bytes) -> None:
        """Let one file lie elsewhere."""
        self._count_move()
        new = self.add_root(root)
        for table in ("recordings", "skipped"):
            self._db.execute(
                f"UPDATE {table} SET root = ?, name = ? WHERE root = ? AND name = ?",
                *(new, name, known.root, known.name),
            )

    def _count_move(self) -> None:
        """Let readers forget the places that they know."""
        self._db.execute("INSERT OR IGNORE INTO lengths VALUES (?, 0)", _MOVES)
        self._db.execute("UPDATE lengths SET rows = rows + 1 WHERE name = ?", _MOVES)

    def move_packed_file(self, number: int, path: bytes) -> None:
        """Let a packed file lie elsewhere."""
        self._db.execute("UPDATE packed_files SET path = ? WHERE id = ?", path, number)

    def add_root(self, path: bytes) -> int:
        """Return the id of a root, made where it is new."""
        self._db.execute("INSERT OR IGNORE INTO roots (path) VALUES (?)", path)
        return int(self._db.rows("SELECT id FROM roots WHERE path = ?", path)[0][0])

    def add_packed_file(self, path: bytes, size: int, mtime_ns: int) -> int:
        """Enter a packed file, whose old rows are gone; return its id."""
        self._db.execute("DELETE FROM packed_files WHERE path = ?", path)
        return self._db.execute(
            "INSERT INTO packed_files (path, size, mtime_ns) VALUES (?, ?, ?)", path, size, mtime_ns
        )

    def forget_rows(self, packed_file: int, count: int) -> int:
        """Remove up to `count` recordings of a packed file; return how many there were."""
        return self._db.execute_count(
            "DELETE FROM recordings WHERE id IN "
            "(SELECT id FROM recordings WHERE packed_file = ? LIMIT ?)",
            *(packed_file, count),
        )

    def next_recording(self) -> int:
        """Return the number that the next recording gets; numbers are never given again."""
        rows = self._db.rows("SELECT seq FROM sqlite_sequence WHERE name = 'recordings'")
        with self._db.understanding():
            return int(rows[0][0]) + 1 if rows else 1

    def add(
        self,
        recordings: Sequence[NewRecording],
        *,
        frames: int = 0,
        contents: Sequence[bytes] = (),
    ) -> None:
        """Add recordings whose rows and `frames` are at the end of the tail, in this order.

        Their numbers are `next_recording` and those that follow. `contents` (of all, or of none)
        lets labels that wait for one of these sounds find it; see
        `audiosearch.library.label_table`.
        """
        lengths, number = self.lengths(), self.next_recording()
        self.labels.link(zip(range(number, number + len(recordings)), contents, strict=False))
        clip, now = lengths["clips"], time.time()
        rows = []
        for new in recordings:
            labels = None if new.labels is None else json.dumps([int(i) for i in new.labels])
            rows.append(
                (
                    *(number, new.source, new.root, new.packed_file, new.packed_row, new.name),
                    *(new.size, new.mtime_ns, new.start, new.duration, clip, new.clips),
                    *(labels, now),
                )
            )
            number += 1
            clip += new.clips
        self._db.execute_many(
            "INSERT INTO recordings (id, source, root, packed_file, packed_row, name, size, "
            "mtime_ns, start, duration, first_clip, clips, labels, added) "
            f"VALUES ({','.join('?' * 14)})",
            rows,
        )
        self.set_lengths(
            clips=clip,
            tail_rows=lengths["tail_rows"] + clip - lengths["clips"],
            tail_frames=lengths["tail_frames"] + frames,
        )

    def set_lengths(self, **lengths: int) -> None:
        """Commit lengths by name."""
        self._db.execute_many(
            "UPDATE lengths SET rows = ? WHERE name = ?",
            [(rows, name) for name, rows in lengths.items()],
        )

    def recount(self) -> None:
        """Count recordings, clips and seconds anew."""
        self._db.execute(
            "UPDATE lengths SET rows = (SELECT count(*) FROM recordings) "
            "WHERE name = 'live_recordings'"
        )
        self._db.execute(
            "UPDATE lengths SET rows = (SELECT coalesce(sum(clips), 0) FROM recordings) "
            "WHERE name = 'live_clips'"
        )
        self._db.execute(
            "UPDATE sums SET seconds = (SELECT coalesce(sum(duration), 0) FROM recordings)"
        )

    def next_segment(self) -> int:
        """Return the number that the next segment gets; numbers are never given again."""
        rows = self._db.rows("SELECT seq FROM sqlite_sequence WHERE name = 'segments'")
        with self._db.understanding():
            return int(rows[0][0]) + 1 if rows else 1

    def add_segment(self, number: int, first_clip: int, clips: int) -> None:
        """List a segment whose file is written."""
        self._db.execute("INSERT INTO segments VALUES (?, ?, ?)", number, first_clip, clips)

    def forget_segments(self, numbers: Sequence[int]) -> None:
        """List segments no longer."""
        self._db.execute_many("DELETE FROM segments WHERE id = ?", [(n,) for n in numbers])

    def forget_removals(self, ids: Sequence[int]) -> None:
        """Forget removals whose clips are in no file any more."""
        self._db.execute_many("DELETE FROM removals WHERE id = ?", [(int(i),) for i in ids])

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
    file = None if root is None else os.path.join(root, name)  # noqa: PTH118 - bytes
    classes = None if labels is None else tuple(json.loads(labels))
    if classes and not _ALL_CLASSES.issuperset(classes):
        raise ValueError(f"classes {classes}")
    return Recording(
        number,
        source,
        printable(os.fsdecode(name if file is None else file)),
        file,
        start,
        duration,
        first_clip,
        clips,
        packed_row,
        classes,
    )


def _origin(row: Sequence[Any]) -> Origin:
    number, source, root, name, size, mtime_ns, packed, packed_size, packed_mtime, *rest = row
    packed_row, start, duration, first_clip, clips, labels = rest
    return Origin(
        number,
        source,
        root,
        name,
        size,
        mtime_ns,
        None if packed is None else (packed, packed_size, packed_mtime),
        packed_row,
        start,
        duration,
        first_clip,
        clips,
        None if labels is None else tuple(json.loads(labels)),
    )
