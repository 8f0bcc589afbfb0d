"""Labels of the user's own in the catalogue: what was confirmed, rejected and added.

A label belongs to a sound by its content, with a start and an end in seconds from the sound's
beginning; so it finds its recording again when a file was moved, renamed, or removed and indexed
anew, and it counts for exact copies too. The content of a recording is a digest of its search
vectors (`content_of`): what the library holds itself, so that no file is read for it, and the same
for equal sounds of any container. A second table says which recordings hold labelled sounds. It
follows from the first, and writers keep both in step within their transactions.

The newest word counts. What is said of a stretch cuts what was said before of the same label, where
both differ; so one label is never confirmed and rejected at one moment of a sound.

The tables are made when they are first needed: a library without labels is as it always was, and
versions that know nothing of labels still read one that has them.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from audiosearch.library.database import Database

__all__ = [
    "CONTENT_SIZE",
    "LABELS",
    "LabelTable",
    "Linked",
    "Statement",
    "Verdict",
    "content_of",
    "contents_of",
]

LABELS = "labels"
"""In the catalogue's lengths: how often labels changed; it has no row before the first."""

CONTENT_SIZE = 16

Verdict = Literal["confirmed", "rejected"]

_SCHEMA = """
CREATE TABLE user_labels (
    id INTEGER PRIMARY KEY AUTOINCREMENT, content BLOB NOT NULL, start REAL NOT NULL,
    stop REAL NOT NULL, key TEXT NOT NULL, label TEXT NOT NULL, mid TEXT, verdict TEXT NOT NULL,
    added REAL NOT NULL
);
CREATE INDEX user_labels_by_content ON user_labels (content, key);
CREATE INDEX user_labels_by_key ON user_labels (key);
CREATE TABLE labelled (
    recording INTEGER PRIMARY KEY REFERENCES recordings (id), content BLOB NOT NULL
);
CREATE INDEX labelled_by_content ON labelled (content);
"""
_TRIGGER = """
CREATE TRIGGER labelled_removed AFTER DELETE ON recordings BEGIN
    DELETE FROM labelled WHERE recording = OLD.id;
END
"""
_SHORTEST = 0.001  # seconds; what is left of a cut label must be longer
_COLUMNS = "content, start, stop, key, label, mid, verdict, added"


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that a user said of a stretch of a sound.

    Attributes
    ----------
    content : bytes
        Which sound, see `content_of`.
    start, stop : float
        In seconds from the sound's beginning.
    key : str
        What two statements of one label have in common: the mid of a class, or a name in the form
        in which labels of the user's own are compared.
    label : str
        As it is shown.
    mid : str or None
        Of a class; None for a label of the user's own.
    verdict : str
        ``"confirmed"`` or ``"rejected"``.
    added : float
        When, in seconds since 1970.
    """

    content: bytes
    start: float
    stop: float
    key: str
    label: str
    mid: str | None
    verdict: Verdict
    added: float

    def __post_init__(self) -> None:
        if (
            not 0 <= self.start < self.stop < float("inf")
            or self.verdict not in ("confirmed", "rejected")
            or not isinstance(self.content, bytes)
            or len(self.content) != CONTENT_SIZE
            or not (isinstance(self.key, str) and isinstance(self.label, str))
            or not (self.mid is None or isinstance(self.mid, str))
        ):
            raise ValueError("a label that cannot be")


@dataclass(frozen=True, slots=True)
class Linked:
    """A recording whose sound has labels: its number, its clips and its length in seconds."""

    recording: int
    content: bytes
    first_clip: int
    clips: int
    duration: float


def content_of(vectors: npt.NDArray[np.int8]) -> bytes:
    """Return the digest of a recording's search vectors, int8 (clips, 128)."""
    return hashlib.blake2b(
        np.ascontiguousarray(vectors).tobytes(), digest_size=CONTENT_SIZE
    ).digest()


def contents_of(vectors: npt.NDArray[np.int8], clips: Sequence[int]) -> list[bytes]:
    """Return the contents of recordings that stand one after another, of `clips[i]` clips each."""
    ends = list(itertools.accumulate(clips))
    return [content_of(vectors[end - count : end]) for end, count in zip(ends, clips, strict=True)]


class LabelTable:
    """The labels in a catalogue.

    Parameters
    ----------
    db : Database
        The catalogue's file.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def version(self) -> int:
        """Return how often labels changed; 0 where there are no tables of them yet."""
        rows = self._db.rows("SELECT rows FROM lengths WHERE name = ?", LABELS)
        return int(rows[0][0]) if rows else 0

    def statements(self) -> list[Statement]:
        """Return everything that was said, the oldest first."""
        if not self.version():
            return []
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM user_labels ORDER BY added, id")
        with self._db.understanding():
            return [_statement(row) for row in rows]

    def linked(self) -> list[Linked]:
        """Return the recordings whose sounds have labels, in the order of their clips."""
        if not self.version():
            return []
        rows = self._db.rows(
            "SELECT r.id, l.content, r.first_clip, r.clips, r.duration FROM labelled l "
            "JOIN recordings r ON r.id = l.recording ORDER BY r.first_clip"
        )
        with self._db.understanding():
            return [
                Linked(int(i), bytes(content), int(first), int(clips), float(duration))
                for i, content, first, clips, duration in rows
            ]

    # What follows changes the catalogue and belongs inside its transaction.

    def put(self, said: Statement) -> bool:
        """Enter something that a user said; return whether it was new.

        What was said before of the same label and sound gives way where it says otherwise. Where
        it says the same of a longer stretch, there is nothing to enter.
        """
        self._create()
        before = self._overlapping(said.content, said.key, said.start, said.stop)
        for _, old in before:
            inside = old.start <= said.start + _SHORTEST and old.stop >= said.stop - _SHORTEST
            if old.verdict == said.verdict and inside:
                return False
        for number, old in before:
            if old.verdict != said.verdict:
                self._cut(number, old, said.start, said.stop)
            elif old.start >= said.start and old.stop <= said.stop:
                self._db.execute("DELETE FROM user_labels WHERE id = ?", number)
        self._insert(said)
        self._count()
        return True

    def put_older(self, said: Statement) -> bool:
        """Do so where nothing newer was said; return whether any of it was entered."""
        self._create()
        before = self._overlapping(said.content, said.key, said.start, said.stop)
        entered, start = False, said.start
        newer = sorted((old.start, old.stop) for _, old in before if old.added >= said.added)
        for left, right in [*newer, (said.stop, said.stop)]:
            if left - start > _SHORTEST:
                entered |= self.put(replace(said, start=start, stop=left))
            start = max(start, right)
        return entered

    def take_back(self, content: bytes, key: str, start: float, stop: float) -> int:
        """Forget what was said of a label in a stretch of a sound; return how many entries."""
        if not self.version():
            return 0
        found = self._overlapping(content, key, start, stop)
        for number, old in found:
            self._cut(number, old, start, stop)
        if found:
            self._db.execute(
                "DELETE FROM labelled WHERE content = ? AND NOT EXISTS "
                "(SELECT 1 FROM user_labels WHERE content = ?)",
                *(content, content),
            )
            self._count()
        return len(found)

    def link(self, recordings: Iterable[tuple[int, bytes]]) -> int:
        """Tell which recordings hold labelled sounds; those without labels are passed over.

        Parameters
        ----------
        recordings : iterable of (number, content)
            Any.

        Returns
        -------
        int
            How many were linked.
        """
        if not self.version():
            return 0
        pairs, done = list(recordings), 0
        for start in range(0, len(pairs), 500):
            part = pairs[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._db.rows(
                f"SELECT DISTINCT content FROM user_labels WHERE content IN ({marks})",
                *(content for _, content in part),
            )
            known = {bytes(row[0]) for row in rows}
            links = [(number, content) for number, content in part if content in known]
            self._db.execute_many("INSERT OR REPLACE INTO labelled VALUES (?, ?)", links)
            done += len(links)
        if done:
            self._count()
        return done

    def unlink_all(self) -> None:
        """Forget which recordings hold labelled sounds, to tell it anew."""
        if self.version():
            self._db.execute("DELETE FROM labelled")
            self._count()

    def name_of(self, key: str) -> str | None:
        """Return how a label is shown, None where it was never used."""
        if not self.version():
            return None
        rows = self._db.rows("SELECT label FROM user_labels WHERE key = ? LIMIT 1", key)
        return str(rows[0][0]) if rows else None

    def _create(self) -> None:
        if not self.version():
            # One by one: a script would commit the transaction.
            for statement in (*_SCHEMA.strip().rstrip(";").split(";"), _TRIGGER):
                self._db.execute(statement)
            self._count()

    def _overlapping(
        self, content: bytes, key: str, start: float, stop: float
    ) -> list[tuple[int, Statement]]:
        rows = self._db.rows(
            f"SELECT id, {_COLUMNS} FROM user_labels "
            "WHERE content = ? AND key = ? AND start < ? AND stop > ?",
            *(content, key, stop - _SHORTEST, start + _SHORTEST),
        )
        with self._db.understanding():
            return [(int(row[0]), _statement(row[1:])) for row in rows]

    def _cut(self, number: int, old: Statement, start: float, stop: float) -> None:
        """Take a stretch out of an entry, which may leave something on both sides."""
        self._db.execute("DELETE FROM user_labels WHERE id = ?", number)
        for left, right in ((old.start, start), (stop, old.stop)):
            if right - left > _SHORTEST:
                rest = (left, right, old.key, old.label, old.mid, old.verdict, old.added)
                self._insert(Statement(old.content, *rest))

    def _insert(self, said: Statement) -> None:
        self._db.execute(
            f"INSERT INTO user_labels ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(said.content, said.start, said.stop, said.key, said.label),
            *(said.mid, said.verdict, said.added or time.time()),
        )

    def _count(self) -> None:
        """Let readers know that labels changed."""
        self._db.execute("INSERT OR IGNORE INTO lengths VALUES (?, 0)", LABELS)
        self._db.execute("UPDATE lengths SET rows = rows + 1 WHERE name = ?", LABELS)


def _statement(row: Sequence[Any]) -> Statement:
    content, start, stop, key, label, mid, verdict, added = row
    return Statement(
        bytes(content), float(start), float(stop), key, label, mid, verdict, float(added)
    )
