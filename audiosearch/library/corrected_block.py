"""A block in which some scores are what the user says, and everything else is as it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiosearch.labels import CLASS_COUNT
from audiosearch.library.block_view import BlockView
from audiosearch.library.blocks import Block, Entries, Rows, entries_of, posting_of
from audiosearch.library.rollup import roll_up

__all__ = ["CorrectedBlock", "stored_codes"]

_Codes = npt.NDArray[np.uint8]


class CorrectedBlock(BlockView):
    """A block whose scores are corrected in a few rows; see `audiosearch.library.blocks.Block`.

    Columns that no correction touches are those of the block itself. The others, which are classes
    with corrections and the groups above them, are made when they are first asked for.

    Parameters
    ----------
    block : Block
        The block as it is stored.
    rows : int64 (n,)
        Rows with corrections, ascending, each once.
    codes : uint8 (n, 527)
        All score codes of these rows, corrected.
    """

    own: tuple[str, ...] = ()

    def __init__(self, block: Block, rows: Rows, codes: _Codes) -> None:
        super().__init__(block)
        self.columns = block.columns
        self._at = rows
        self._codes = codes
        stored = stored_codes(block, rows)
        self._changed = frozenset(np.flatnonzero((stored != codes).any(axis=0)).tolist())
        self._columns: dict[int, _Codes] = {}
        self._postings: dict[int, npt.NDArray[np.uint32]] = {}
        ids = np.unique(block.recordings[rows])
        self._starts = np.searchsorted(block.recordings, ids)
        self._stops = np.searchsorted(block.recordings, ids, side="right")

    def column(self, number: int) -> _Codes:
        """Return the score codes of a column, uint8 (rows,)."""
        if not self._touches(number):
            return self.base.column(number)
        known = self._columns.get(number)
        if known is None:
            known = np.array(self.base.column(number))
            if number < CLASS_COUNT:
                known[self._at] = self._codes[:, number]
            else:
                classes = self.columns.classes(number)
                known[self._at] = roll_up(self._codes[:, index] for index in classes)
            self._columns[number] = known
        return known

    def posting(self, number: int, count: int) -> npt.NDArray[np.uint32]:
        """Return the `count` best rows of a column, as far as they are posted."""
        if not self._touches(number):
            return self.base.posting(number, count)
        known = self._postings.get(number)
        if known is None:
            known = self._postings[number] = posting_of(self.column(number))
        return known[:count]

    def clip_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many clips have each code in a column, int64 (256,)."""
        counts = self.base.clip_counts(number)
        if not self._touches(number):
            return counts
        before, after = self.base.column(number)[self._at], self.column(number)[self._at]
        return counts + _difference(before, after)

    def recording_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many recordings have each code as their best in a column, int64 (256,)."""
        counts = self.base.recording_counts(number)
        if not self._touches(number):
            return counts
        return counts + _difference(
            self._best(self.base.column(number)), self._best(self.column(number))
        )

    def entries(self, rows: Rows, *, ordered: bool = True) -> Entries:
        """Return the best classes of some clips; see `Block.entries`."""
        rows = np.asarray(rows, np.int64)
        place = np.minimum(np.searchsorted(self._at, rows), len(self._at) - 1)
        ours = self._at[place] == rows
        stored = self.base.entries(rows, ordered=ordered)
        if not ours.any():
            return stored
        made = entries_of(self._codes[place[ours]], ordered=ordered)
        starts, counts = stored[0][:-1].copy(), np.diff(stored[0])
        starts[ours], counts[ours] = made[0][:-1] + len(stored[1]), np.diff(made[0])
        ends = np.cumsum(counts)
        at = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)
        classes, codes = (
            np.concatenate([old, new])[at] for old, new in zip(stored[1:], made[1:], strict=True)
        )
        return np.concatenate(([0], ends)), classes, codes

    def _touches(self, number: int) -> bool:
        return not self._changed.isdisjoint(self.columns.classes(number))

    def _best(self, codes: _Codes) -> _Codes:
        """Return the best code of each recording with a correction."""
        if self.single:
            return codes[self._starts]
        pairs = zip(self._starts.tolist(), self._stops.tolist(), strict=True)
        return np.array([codes[start:stop].max() for start, stop in pairs], np.uint8)


def stored_codes(block: Block, rows: Rows) -> _Codes:
    """Return the score codes of some clips of a block, uint8 (n, 527)."""
    return np.stack([block.column(number)[rows] for number in range(CLASS_COUNT)], axis=1)


def _difference(before: _Codes, after: _Codes) -> npt.NDArray[np.int64]:
    return np.bincount(after, minlength=256) - np.bincount(before, minlength=256)
