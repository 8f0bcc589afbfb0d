"""The tail: the newest clips of a library, in append-only files, and what is derived of them.

The columns, postings and counts that a segment stores are made in memory here, each when a query
first asks for it. What a commit adds becomes a block of its own; small neighbours are joined, so
that a reader which follows an indexing run derives every clip a few times and never all at once.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.blocks import POSTED_CODE, Entries, Rows, entries_of, posting_of
from audiosearch.library.columns import Column
from audiosearch.library.rollup import roll_up
from audiosearch.library.runs import Runs
from audiosearch.library.score_columns import current_columns

__all__ = ["ROW", "TailBlock", "joined", "tail_columns"]

ROW = np.dtype(
    [
        ("recording", "<u4"),
        ("frames", "u1"),
        ("vector", "i1", (EMBEDDING_SIZE,)),
        ("scores", "u1", (CLASS_COUNT,)),
    ]
)
"""What is stored of a clip in the tail: 660 bytes."""

FRAME = np.dtype(("u1", (EMBEDDING_SIZE,)))


def tail_columns(folder: Path, first: int) -> tuple[Column, Column]:
    """Return the files of the tail that begins at clip `first`: its rows, and its frames."""
    stem = f"tail-{first:010d}"
    return Column(folder / f"{stem}.rows", ROW), Column(folder / f"{stem}.frames", FRAME)


class TailBlock:
    """Some neighbouring rows of the tail, as `audiosearch.library.blocks.Block` asks.

    Parameters
    ----------
    first : int
        Number of the first clip.
    data : ROW (rows,)
        The rows, mapped from the file.
    frames : uint8 (frames, 128), optional
        Their frames, where somebody will ask for them.
    codes : uint8 (527, rows), optional
        The scores of `data` class by class, where they are known.
    """

    own: tuple[str, ...] = ()

    def __init__(
        self,
        first: int,
        data: np.ndarray,
        *,
        frames: npt.NDArray[np.uint8] | None = None,
        codes: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self.first = first
        self.rows = len(data)
        self.columns = current_columns()
        self.posted_code = POSTED_CODE
        self.recordings: npt.NDArray[np.uint32] = np.ascontiguousarray(data["recording"])
        self.vectors: npt.NDArray[np.int8] = data["vector"]
        self._data = data
        self._frames = frames
        # Recordings count from 1.
        self._starts = np.flatnonzero(np.diff(self.recordings, prepend=np.uint32(0)))
        self.single = len(self._starts) == self.rows
        self._codes = codes
        self._columns: dict[int, npt.NDArray[np.uint8]] = {}
        self._postings: dict[int, npt.NDArray[np.uint32]] = {}
        self._lock = threading.Lock()

    @property
    def stop(self) -> int:
        """One more than the number of the last clip."""
        return self.first + self.rows

    def clip_ids(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the numbers of clips by row."""
        return np.asarray(rows, np.int64) + self.first

    def row_of(self, clip: int) -> int:
        """Return the row of a clip, -1 when it is not here."""
        return clip - self.first if self.first <= clip < self.stop else -1

    def rows_of(self, clips: npt.NDArray[np.int64]) -> Rows:
        """Return the rows of clips, -1 for those that are not here."""
        return np.where((clips >= self.first) & (clips < self.stop), clips - self.first, -1)

    def column(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the score codes of a column, uint8 (rows,)."""
        codes = self.codes()
        if number < CLASS_COUNT:
            return codes[number]
        known = self._columns.get(number)
        if known is None:
            known = roll_up(codes[index] for index in self.columns.classes(number))
            self._columns[number] = known
        return known

    def posting(self, number: int, count: int) -> npt.NDArray[np.uint32]:
        """Return the `count` best rows of a column, as far as they are posted."""
        known = self._postings.get(number)
        if known is None:
            known = self._postings[number] = posting_of(self.column(number))
        return known[:count]

    def clip_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many clips have each code in a column, int64 (256,)."""
        return np.bincount(self.column(number), minlength=256)

    def recording_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many recordings have each code as their best in a column, int64 (256,)."""
        codes = self.column(number)
        best = codes if self.single else np.maximum.reduceat(codes, self._starts)
        return np.bincount(best, minlength=256)

    @functools.cached_property
    def runs(self) -> Runs:
        """Its recordings as runs of rows."""
        return Runs(self.recordings)

    def entries(self, rows: Rows, *, ordered: bool = True) -> Entries:
        """Return the best classes of some clips; see `Block.entries`."""
        return entries_of(np.asarray(self._data["scores"])[rows], ordered=ordered)

    def frame_counts(self) -> npt.NDArray[np.uint8]:
        """Return how many embedding frames each clip has here, uint8 (rows,)."""
        return self._data["frames"]

    def frames(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of neighbouring rows, uint8 (n, 128)."""
        if self._frames is None:
            raise ValueError("the block was made without its frames")
        offsets = np.concatenate(([0], np.cumsum(self.frame_counts(), dtype=np.int64)))
        return self._frames[offsets[start] : offsets[stop]]

    def codes(self) -> npt.NDArray[np.uint8]:
        """Return the score codes class by class, uint8 (527, rows)."""
        with self._lock:
            if self._codes is None:
                self._codes = np.ascontiguousarray(self._data["scores"].T)
            return self._codes


def joined(blocks: Sequence[TailBlock], first: int, data: np.ndarray) -> list[TailBlock]:
    """Return the blocks of a tail that grew: those there were, and one of what is new.

    Neighbours of about one size become one block.

    Parameters
    ----------
    blocks : sequence of TailBlock
        Those of the rows that were known.
    first : int
        Number of the tail's first clip.
    data : ROW (rows,)
        All rows of the tail.
    """
    result = list(blocks)
    done = result[-1].stop - first if result else 0
    if done < len(data):
        result.append(TailBlock(first + done, data[done:]))
    while len(result) > 1 and result[-2].rows < 2 * result[-1].rows:
        right, left = result.pop(), result.pop()
        start, stop = left.first - first, right.stop - first
        codes = np.concatenate([left.codes(), right.codes()], axis=1)
        result.append(TailBlock(left.first, data[start:stop], codes=codes))
    return result
