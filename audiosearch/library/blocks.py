"""Blocks: neighbouring clips of a library, wherever they are kept, as searches read them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from audiosearch.library.rollup import LEAST_CODE
from audiosearch.library.runs import Runs
from audiosearch.library.score_columns import ScoreColumns

__all__ = [
    "FEWEST_ENTRIES",
    "POSTED_CODE",
    "Block",
    "Entries",
    "Rows",
    "entries_of",
    "posting_of",
]

POSTED_CODE = LEAST_CODE
"""The least score code in posting lists and entries."""

FEWEST_ENTRIES = 5
"""So many classes of a clip are entries, whatever they score."""

Rows = npt.NDArray[np.int64]
Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.uint8]]


class Block(Protocol):
    """Some neighbouring clips of a library: a segment, or a part of the tail in memory.

    Rows are numbered from 0 within the block, in the order of the clips.
    """

    rows: int
    columns: ScoreColumns
    recordings: npt.NDArray[np.uint32]
    vectors: npt.NDArray[np.int8]
    posted_code: int
    """From which code on rows are in postings and entries."""
    single: bool
    """Whether every recording has one clip here."""
    own: tuple[str, ...]
    """Names of the user's own classes, where they are columns: class 527 is the first."""

    @property
    def first(self) -> int:
        """Number of the first clip."""

    @property
    def stop(self) -> int:
        """One more than the number of the last clip."""

    def clip_ids(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the numbers of clips by row."""

    def row_of(self, clip: int) -> int:
        """Return the row of a clip, -1 when it is not here."""

    def rows_of(self, clips: npt.NDArray[np.int64]) -> Rows:
        """Return the rows of clips, -1 for those that are not here."""

    def column(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the score codes of a column, uint8 (rows,)."""

    def posting(self, number: int, count: int) -> npt.NDArray[np.uint32]:
        """Return the `count` best rows of a column, best first, of equals the first clip first."""

    def clip_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many clips have each code in a column, int64 (256,)."""

    def recording_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many recordings have each code as their best in a column, int64 (256,)."""

    @property
    def runs(self) -> Runs:
        """Its recordings as runs of rows."""

    def entries(self, rows: Rows, *, ordered: bool = True) -> Entries:
        """Return the best classes of some clips.

        Parameters
        ----------
        rows : int (n,)
            Rows of the clips.
        ordered : bool
            Whether the classes of a clip must come best first; in any order they may cost less.

        Returns
        -------
        offsets : int64 (n + 1,)
            Where the entries of each clip begin and end.
        classes : uint16
            Classes, where ordered best first, of equals the first class.
        codes : uint8
            Their codes.
        """

    def frame_counts(self) -> npt.NDArray[np.uint8]:
        """Return how many embedding frames each clip has here, uint8 (rows,)."""

    def frames(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of neighbouring rows, uint8 (n, 128)."""


def entries_of(codes: npt.NDArray[np.uint8], *, ordered: bool = True) -> Entries:
    """Return the best classes of clips whose codes are given clip by clip, uint8 (n, 527)."""
    mask = codes >= POSTED_CODE
    counts = np.count_nonzero(mask, axis=1)
    few = np.flatnonzero(counts < FEWEST_ENTRIES)
    if len(few):
        best = np.argsort(255 - codes[few], axis=1, kind="stable")[:, :FEWEST_ENTRIES]
        mask[few[:, None], best] = True
        counts[few] = np.count_nonzero(mask[few], axis=1)
    at = np.flatnonzero(mask)  # in one dimension, which takes a third of the time of two
    values = codes.reshape(-1)[at]
    rows = np.repeat(np.arange(len(codes)), counts)
    classes = (at - rows * codes.shape[1]).astype(np.uint16)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    if ordered:
        # One sort of small integers; of equals the first class stays first.
        order = np.argsort(rows * 256 + (255 - values), kind="stable")
        classes, values = classes[order], values[order]
    return offsets, classes, values


def posting_of(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return the rows of a column that are posted, best first, of equals the first first."""
    rows = np.flatnonzero(codes >= POSTED_CODE)
    # A stable sort of bytes is a radix sort.
    return rows[np.argsort(255 - codes[rows], kind="stable")].astype(np.uint32)
