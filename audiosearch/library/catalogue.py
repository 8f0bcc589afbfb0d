"""The catalogue: an SQLite file that says what a library holds.

It is the truth: a recording exists when it has a row here, and the files beside it count only as
far as the catalogue says. One transaction adds a group of recordings and commits the new lengths.

A reader that follows another process asks for what changed: `lengths` is one row, segments are few,
and removals are a table that only grows until a merge has dropped the clips.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from audiosearch.errors import printable
from audiosearch.library.catalogue_reader import MOVES, CatalogueReader
from audiosearch.library.database import Database
from audiosearch.library.recordings import (
    KnownFile,
    NewRecording,
)

__all__ = ["Catalogue"]

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


class Catalogue(CatalogueReader):
    """An open catalogue; safe to use from several threads.

    Parameters
    ----------
    path : Path
        Its file.
    writable : bool
        Whether it may be changed.
    """

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty catalogue.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        Database.create(path, _SCHEMA)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything done inside, or nothing of it."""
        with self._db.writing():
            yield
            self._db.execute("UPDATE lengths SET rows = rows + 1 WHERE name = 'changes'")

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
        self._db.execute("INSERT OR IGNORE INTO lengths VALUES (?, 0)", MOVES)
        self._db.execute("UPDATE lengths SET rows = rows + 1 WHERE name = ?", MOVES)

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
