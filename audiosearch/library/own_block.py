"""A block with more columns: the classes of the user's own, behind AudioSet's and the groups."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from audiosearch.labels import CLASS_COUNT
from audiosearch.library.block_view import BlockView
from audiosearch.library.blocks import POSTED_CODE, Block, Entries, Rows, posting_of
from audiosearch.library.score_columns import ScoreColumns

__all__ = ["MOST_CLASSES", "MOST_OWN", "OwnBlock"]

MOST_OWN = 1000
"""So many classes of the user's own there may be; what is counted by class has room for them."""

MOST_CLASSES = CLASS_COUNT + MOST_OWN

_Codes = npt.NDArray[np.uint8]


class _OwnColumns(ScoreColumns):
    """The columns of a block, and one for each own class behind them."""

    def __init__(self, base: ScoreColumns, own: int) -> None:
        super().__init__(base.groups)
        self._base, self._own = base, own

    def __len__(self) -> int:
        return len(self._base) + self._own

    def classes(self, column: int) -> tuple[int, ...]:
        """Return the classes whose noisy-or a column holds."""
        if column < len(self._base):
            return self._base.classes(column)
        return (CLASS_COUNT + column - len(self._base),)

    def cover(self, classes: tuple[int, ...]) -> tuple[int, ...]:
        """Return few columns that hold exactly these classes, each once."""
        own = sorted({index for index in classes if index >= CLASS_COUNT})
        if not own:
            return self._base.cover(classes)
        known = tuple(index for index in classes if index < CLASS_COUNT)
        columns = self._base.cover(known) if known else ()
        return (*columns, *(len(self._base) + index - CLASS_COUNT for index in own))


class OwnBlock(BlockView):
    """A block whose clips have scores for own classes too; see `audiosearch.library.blocks.Block`.

    They are read when they are first asked for, and then kept.

    Parameters
    ----------
    block : Block
        The block without them.
    own : tuple of str
        Their names; class 527 is the first.
    read : callable
        Takes the numbers of clips, int64 (n,), and returns their score codes, uint8 (own, n).
    said : mapping of int to mapping of int to int
        What the user said: by clip and place in `own` the code that counts.
    """

    def __init__(
        self,
        block: Block,
        own: tuple[str, ...],
        read: Callable[[npt.NDArray[np.int64]], _Codes],
        said: Mapping[int, Mapping[int, int]],
    ) -> None:
        super().__init__(block)
        self.own = own
        self.columns: ScoreColumns = _OwnColumns(block.columns, len(own))
        self._read, self._said = read, said
        self._first = len(block.columns)
        self._codes: _Codes | None = None
        self._postings: dict[int, npt.NDArray[np.uint32]] = {}
        self._starts: npt.NDArray[np.int64] | None = None
        self._lock = threading.Lock()

    def column(self, number: int) -> _Codes:
        """Return the score codes of a column, uint8 (rows,)."""
        if number < self._first:
            return self.base.column(number)
        return self._own_codes()[number - self._first]

    def posting(self, number: int, count: int) -> npt.NDArray[np.uint32]:
        """Return the `count` best rows of a column, as far as they are posted."""
        if number < self._first:
            return self.base.posting(number, count)
        known = self._postings.get(number)
        if known is None:
            known = self._postings[number] = posting_of(self.column(number))
        return known[:count]

    def clip_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many clips have each code in a column, int64 (256,)."""
        if number < self._first:
            return self.base.clip_counts(number)
        return np.bincount(self.column(number), minlength=256)

    def recording_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many recordings have each code as their best in a column, int64 (256,)."""
        if number < self._first:
            return self.base.recording_counts(number)
        codes = self.column(number)
        if not self.single:
            if self._starts is None:
                self._starts = np.flatnonzero(np.diff(self.recordings, prepend=np.uint32(0)))
            codes = np.maximum.reduceat(codes, self._starts)
        return np.bincount(codes, minlength=256)

    def entries(self, rows: Rows, *, ordered: bool = True) -> Entries:
        """Return the best classes of some clips; see `Block.entries`."""
        rows = np.asarray(rows, np.int64)
        offsets, classes, codes = self.base.entries(rows, ordered=ordered)
        own = self._own_codes()[:, rows]
        at, places = np.nonzero(own.T >= POSTED_CODE)
        if not len(at):
            return offsets, classes, codes
        counts = np.diff(offsets)
        owners = np.concatenate([np.repeat(np.arange(len(rows)), counts), at])
        classes = np.concatenate([classes, (CLASS_COUNT + places).astype(np.uint16)])
        codes = np.concatenate([codes, own[places, at]])
        # Stable: of equals AudioSet's class comes first, then the first own one.
        order = np.argsort(owners * 256 + (255 - codes.astype(np.int64)), kind="stable")
        counts = counts + np.bincount(at, minlength=len(rows))
        return np.concatenate(([0], np.cumsum(counts))), classes[order], codes[order]

    def _own_codes(self) -> _Codes:
        with self._lock:
            if self._codes is None:
                codes = self._read(self.base.clip_ids(np.arange(self.rows)))
                for clip in self._said:
                    row = self.base.row_of(clip)
                    if row >= 0:
                        for place, code in self._said[clip].items():
                            codes[place, row] = code
                self._codes = codes
            return self._codes
