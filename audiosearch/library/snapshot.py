"""What a library held at one moment, and a reader that keeps up with what others commit."""

from __future__ import annotations

import functools
import itertools
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.errors import LibraryDamagedError, LibraryError, printable
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.blocks import Block, Entries, Rows
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.columns import score_codes
from audiosearch.library.hits import Tag
from audiosearch.library.recordings import Recording, State
from audiosearch.library.segments import Segment, segment_path
from audiosearch.library.tail import TailBlock, joined, tail_columns

__all__ = ["Part", "Reader", "Removed", "Snapshot", "part_of", "tag_of", "tags_of"]

_ATTEMPTS = 20
_SCORES: list[float] = score_codes().tolist()


@dataclass(frozen=True)
class Removed:
    """Which rows of a block were removed.

    Attributes
    ----------
    rows : int64 (n,)
        Ascending.
    starts : int64 (recordings,)
        Where in `rows` each recording begins.
    live : bool (rows of the block,)
        False for those rows.
    """

    rows: Rows
    starts: Rows
    live: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """A block, and what of it was removed; None for nothing."""

    block: Block
    removed: Removed | None = None

    def is_live(self, row: int) -> bool:
        """Tell whether the clip of a row still exists."""
        return self.removed is None or bool(self.removed.live[row])

    def without(self, rows: Rows) -> Part:
        """Return this part without some more rows, which are all of some recordings' clips."""
        if self.removed is not None:
            rows = np.concatenate([self.removed.rows, rows])
        return _less(self.block, np.unique(rows))


@dataclass(frozen=True)
class Snapshot:
    """A library at one moment.

    Attributes
    ----------
    lengths : dict
        As `Catalogue.lengths` gave them.
    parts : tuple of Part
        Everything that it holds, in the order of the clips.
    own : tuple of str
        The user's own classes, where they are columns of its blocks; class 527 is the first.
    """

    lengths: dict[str, int]
    parts: tuple[Part, ...]
    own: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes by number: AudioSet's, and the user's own behind them."""
        return (*load_labels().names, *self.own)

    @property
    def changes(self) -> int:
        """How often anything had been committed; another number means another content."""
        return self.lengths["changes"]

    @property
    def live_clips(self) -> int:
        """How many clips exist."""
        return self.lengths["live_clips"]

    @property
    def live_recordings(self) -> int:
        """How many recordings exist."""
        return self.lengths["live_recordings"]

    def find(self, clip: int) -> tuple[Part, int]:
        """Return where a clip is: its part, and the row in it.

        Raises
        ------
        LibraryError
            When there is no such clip.
        """
        for part in self.parts:
            if part.block.first <= clip < part.block.stop:
                row = part.block.row_of(clip)
                if row >= 0 and part.is_live(row):
                    return part, row
        raise LibraryError(
            f"There is no clip {clip} in this library; it has {self.live_clips:,} clips."
        )

    def place_of(self, recording: Recording) -> tuple[int, int] | None:
        """Return the number of the part that holds a recording, and its first row there.

        None where it was removed.
        """
        clip = recording.first_clip
        for number, part in enumerate(self.parts):
            block = part.block
            if block.first <= clip < block.stop:
                row = block.row_of(clip)
                if row < 0 or row + recording.clips > block.rows or not part.is_live(row):
                    return None
                return number, row
        return None


class Reader:
    """Keeps a snapshot in step with a library that other processes may write to.

    Parameters
    ----------
    folder : Path
        The library's folder.
    catalogue : Catalogue
        Its catalogue.
    """

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self._folder = folder
        self._catalogue = catalogue
        self._lock = threading.RLock()
        self._now: Snapshot | None = None
        self._segments: dict[int, Segment] = {}
        self._tail: list[TailBlock] = []
        self._removals = np.empty((0, 3), np.int64)

    def snapshot(self) -> Snapshot:
        """Return what the library holds now; while another process commits, what it held before.

        Raises
        ------
        LibraryBusyError
            When there is no earlier snapshot, and another process keeps the catalogue locked.
        LibraryDamagedError
            When a file is missing or too short, or the catalogue contradicts itself.
        """
        with self._lock:
            if self._now is not None:
                changes = self._catalogue.changes()
                if changes is None or changes == self._now.changes:
                    return self._now
            for _ in range(_ATTEMPTS):
                last = int(self._removals[-1, 0]) if len(self._removals) else 0
                state = self._catalogue.state(after=last)
                try:
                    self._now = self._read(state)
                    return self._now
                except FileNotFoundError as error:
                    # Merged away since the catalogue was read, or lost?
                    if self._catalogue.lengths()["changes"] == state.lengths["changes"]:
                        raise self._damaged(f"{error.filename} is missing") from error
            raise self._damaged("its files change faster than they can be opened")

    def _read(self, state: State) -> Snapshot:
        segments = {}
        for number, first, clips in state.segments:
            segment = self._segments.get(number) or Segment(segment_path(self._folder, number))
            if (segment.first, segment.rows) != (first, clips):
                raise self._contradiction()
            segments[number] = segment
        first, rows = state.lengths["tail"], state.lengths["tail_rows"]
        data = tail_columns(self._folder, first)[0].read(rows)
        known = self._tail if self._tail and self._tail[0].first == first else []
        if known and known[-1].stop > first + rows:
            raise self._contradiction()
        tail = joined(known, first, data)
        blocks: list[Block] = [*segments.values(), *tail]
        stops = [0, *(block.stop for block in blocks)]
        ends_at = state.lengths["clips"]
        if first + rows != ends_at or any(
            block.first < stop for block, stop in zip(blocks, stops, strict=False)
        ):
            raise self._contradiction()
        removals = np.concatenate([self._removals, state.removals])
        if len(removals) and (
            removals[:, 1].min() < 0
            or removals[:, 2].min() < 1
            or (removals[:, 1] + removals[:, 2]).max() > ends_at
        ):
            raise self._contradiction()
        old = {id(part.block): part for part in self._now.parts} if self._now else {}
        parts = tuple(
            old[id(block)]
            if id(block) in old and not len(_within(block, state.removals))
            else part_of(block, removals)
            for block in blocks
        )
        self._segments, self._tail, self._removals = segments, tail, removals
        return Snapshot(state.lengths, parts)

    def _contradiction(self) -> LibraryDamagedError:
        return self._damaged(f"{self._catalogue.path} contradicts itself or the files beside it")

    def _damaged(self, what: str) -> LibraryDamagedError:
        return LibraryDamagedError(
            f"{printable(what)}, so the library {printable(str(self._folder))} is damaged. Restore "
            "it from a backup, or delete the library's folder and index the sounds again."
        )


def tags_of(
    block: Block, rows: Rows, top: int, *, entries: Entries | None = None
) -> list[list[Tag]]:
    """Return the `top` best classes of some clips, best first; of equals the first class.

    `entries` are the block's of these rows, where they were read already.
    """
    # Lists, as a page has fifty clips of a few classes each.
    offsets, classes, codes = (part.tolist() for part in entries or block.entries(rows))
    # The classes, not the groups between AudioSet's and the user's own.
    every = [*range(CLASS_COUNT), *range(len(block.columns) - len(block.own), len(block.columns))]
    found = []
    for number, (start, stop) in enumerate(itertools.pairwise(offsets)):
        end = min(stop, start + top)
        names, values = classes[start:end], codes[start:end]
        if top > stop - start:  # rarely asked for: look at all classes of the clip
            row = int(rows[number])
            whole = np.array([block.column(i)[row] for i in every])
            names = np.argsort(255 - whole, kind="stable")[:top].tolist()
            values = whole[names].tolist()
        found.append(
            [tag_of(label, code, block.own) for label, code in zip(names, values, strict=True)]
        )
    return found


@functools.lru_cache(maxsize=1 << 15)
def tag_of(label: int, code: int, own: tuple[str, ...] = ()) -> Tag:
    """Return a tag; the same object for the same class and score, as a page has hundreds.

    `own` are the names of the classes from 527 on, which have no mid.
    """
    if label >= CLASS_COUNT:
        return Tag(own[label - CLASS_COUNT], "", _SCORES[code])
    about = load_labels()[label]
    return Tag(about.name, about.mid, _SCORES[code])


def part_of(block: Block, removals: npt.NDArray[np.int64]) -> Part:
    """Return a block with those of some removals that are in it: id, first clip, clips of each."""
    rows = _rows(block, _within(block, removals))
    return _less(block, rows) if len(rows) else Part(block)


def _less(block: Block, rows: Rows) -> Part:
    """Return a block without some rows, given in ascending order."""
    live = np.ones(block.rows, np.bool_)
    live[rows] = False
    starts = np.flatnonzero(np.diff(block.recordings[rows], prepend=np.uint32(0)))
    return Part(block, Removed(rows, starts, live))


def _within(block: Block, removals: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return removals[(removals[:, 1] >= block.first) & (removals[:, 1] < block.stop)]


def _rows(block: Block, removals: npt.NDArray[np.int64]) -> Rows:
    """Return the rows of a block that were removed, ascending."""
    rows, counts = block.rows_of(removals[:, 1]), removals[:, 2]
    # What a merge has dropped is not there any more.
    rows, counts = rows[rows >= 0], counts[rows >= 0]
    ends = np.cumsum(counts)
    run = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    found = np.unique(np.repeat(rows, counts) + run)
    return found[found < block.rows]
