"""The labels of millions of clips in little memory: a list of classes for each row.

Two million clips of AudioSet take 25 MB this way; as a table of booleans they take 1 GB.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.labels import CLASS_COUNT

__all__ = ["LabelIndex", "path_list"]

_BLOCK_ROWS = 8192


class LabelIndex:
    """Which classes each row has.

    Parameters
    ----------
    offsets : int64 (rows + 1,)
        Where the classes of each row begin in `classes`; the last value is its length.
    classes : int16 (n,)
        Class indices, ascending within a row.
    """

    def __init__(self, offsets: npt.NDArray[np.int64], classes: npt.NDArray[np.int16]) -> None:
        self.offsets, self.classes = offsets, classes

    @classmethod
    def read(cls, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> LabelIndex:
        """Read the labels of packed files, block by block.

        Parameters
        ----------
        paths : path-like, or several
            Their rows are numbered through in this order.

        Raises
        ------
        DataError
            When a file is not as it must be.
        """
        counts, classes = [], []
        for path in path_list(paths):
            with PackedFile(path, labels=True) as file:
                chunk = file.chunk_rows("y")
                size = chunk * max(1, _BLOCK_ROWS // chunk)
                for start in range(0, len(file), size):
                    truth = file.read_labels(start, min(start + size, len(file)))
                    counts.append(truth.sum(axis=1, dtype=np.int16))
                    classes.append(truth.nonzero()[1].astype(np.int16))
        return cls(_offsets(np.concatenate(counts)), np.concatenate(classes))

    @classmethod
    def from_dense(cls, truth: npt.NDArray[np.bool_]) -> LabelIndex:
        """Return the index of a table of booleans (rows, 527)."""
        truth = np.asarray(truth)
        if truth.ndim != 2 or truth.shape[1] != CLASS_COUNT or truth.dtype != bool:
            raise InvalidArgumentError(
                f"truth must be bool (rows, {CLASS_COUNT}), not {truth.dtype} {truth.shape}."
            )
        return cls(_offsets(truth.sum(axis=1)), truth.nonzero()[1].astype(np.int16))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def counts(self, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """Return int64 (527,): how many rows have each class."""
        return np.bincount(self._flat(rows)[1], minlength=CLASS_COUNT)

    def dense(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return bool (rows, 527): the classes of some rows."""
        lengths, classes = self._flat(rows)
        truth = np.zeros((len(lengths), CLASS_COUNT), bool)
        truth[np.repeat(np.arange(len(lengths)), lengths), classes] = True
        return truth

    def weights(
        self, balance: float, rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the sampling weight of each row: the sum of 1 / count over its classes.

        Parameters
        ----------
        balance : float
            Exponent: 0 gives weights of 1.
        rows : int64, optional
            The rows that are drawn from and counted; all where None.

        Returns
        -------
        float64 (rows,)
            A row without classes gets the smallest weight of all.
        """
        lengths, classes = self._flat(rows)
        counts = np.bincount(classes, minlength=CLASS_COUNT)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        rarity = np.bincount(owners, (1.0 / np.maximum(counts, 1))[classes], len(lengths))
        least = rarity[rarity > 0].min(initial=1.0)
        return np.asarray(np.maximum(rarity, least) ** balance)

    def split(self, share: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Split the rows in two so that rare classes appear in both.

        Of the rows whose rarest class is the same, in a random order, the first `share` goes to
        the second part.

        Parameters
        ----------
        share : float
            Share of the second part, above 0 and below 1.
        seed : int
            Seed of the order.

        Returns
        -------
        training, validation : int64
            Row numbers, ascending.

        Raises
        ------
        DataError
            When a part would be empty.
        """
        if not 0 < share < 1:
            raise InvalidArgumentError(f"share must be above 0 and below 1, not {share}.")
        order = np.random.default_rng(seed).permutation(len(self))
        rarest = self._rarest()
        wanted = np.floor(np.bincount(rarest, minlength=CLASS_COUNT + 1) * share + 0.5).astype(int)
        # Rows of one rarest class stand together now, still in the random order.
        grouped = order[np.argsort(rarest[order], kind="stable")]
        groups = rarest[grouped]
        rank = np.arange(len(self)) - np.searchsorted(groups, groups)
        held_out = np.zeros(len(self), bool)
        held_out[grouped[rank < wanted[groups]]] = True
        if not held_out.any() or held_out.all():
            raise DataError(
                f"{len(self)} clips are too few to hold out {share:g} of them for validation."
            )
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def _rarest(self) -> npt.NDArray[np.int64]:
        """Return the rarest class of each row; 527 for a row without classes."""
        counts = self.counts()
        rarest = np.full(len(self), CLASS_COUNT, np.int64)
        labelled = np.flatnonzero(np.diff(self.offsets))
        if len(labelled):
            key = counts[self.classes] * (CLASS_COUNT + 1) + self.classes
            least = np.minimum.reduceat(key, self.offsets[labelled])
            rarest[labelled] = least % (CLASS_COUNT + 1)
        return rarest

    def _flat(
        self, rows: npt.NDArray[np.int64] | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]:
        """Return how many classes each row has, and the classes of all rows one after another."""
        if rows is None:
            return np.diff(self.offsets), self.classes
        rows = np.asarray(rows)
        begin = self.offsets[rows]
        lengths = self.offsets[rows + 1] - begin
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        places = np.arange(total) + np.repeat(begin - (ends - lengths), lengths)
        return lengths, self.classes[places]


def path_list(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> list[str | os.PathLike[str]]:
    """Return one or several paths as a list that is not empty."""
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not listed:
        raise InvalidArgumentError("Name at least one packed file.")
    return listed


def _offsets(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
