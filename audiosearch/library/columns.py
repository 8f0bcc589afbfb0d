"""Append-only arrays on disk, a row a clip (or a frame), and what the bytes in them mean.

A column is a plain file, one row after another. Rows are written and flushed to the disk first;
then the catalogue commits the new length. What stands beyond the committed length is what a killed
writer left behind: readers do not look at it, and the next writer overwrites it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.errors import LibraryDamagedError, LibraryError, printable
from audiosearch.storage import fsync_folder, storage_errors

__all__ = [
    "Column",
    "decode_scores",
    "encode_scores",
    "encode_vectors",
    "score_codes",
    "search_vector",
]

# A code is the score's logit in steps of 1/16 from -9: fine where scores differ by little, at both
# ends. The lowest code stands for 0.0001, the highest for 0.999.
_STEPS, _LOWEST = 16.0, -9.0
_DECODED = (1.0 / (1.0 + np.exp(-(np.arange(256) / _STEPS + _LOWEST)))).astype(np.float32)


class Column:
    """One append-only array of a library.

    Parameters
    ----------
    path : Path
        Its file.
    row : numpy dtype
        Of one row; it may be structured, or have a shape.
    """

    def __init__(self, path: Path, row: np.dtype) -> None:
        self.path = path
        self.row = row

    def read(self, rows: int) -> np.ndarray:
        """Return the first `rows` rows, mapped from the file.

        Raises
        ------
        FileNotFoundError
            When there is no such file: its caller knows whether it was let go or lost.
        LibraryDamagedError
            When the file is shorter than that.
        """
        if rows == 0:
            return np.empty(0, self.row)
        self._check(rows)
        shape = (rows, *self.row.shape)
        try:
            return np.memmap(self.path, self.row.base, "r", shape=shape)
        except PermissionError:
            raise LibraryError(f"No permission to read {printable(str(self.path))}.") from None

    def append(self, committed: int, rows: np.ndarray) -> None:
        """Write `rows` after the first `committed` rows and flush them to the disk.

        Raises
        ------
        LibraryDamagedError
            When the file is missing or shorter than what was committed.
        StorageError
            When the disk is full or the file cannot be written; what was committed stays.
        """
        if not len(rows):
            return
        data = np.ascontiguousarray(rows, self.row.base).view(np.uint8)
        try:
            self._check(committed)
        except FileNotFoundError:
            raise self.damaged("is missing") from None
        with storage_errors(self.path):
            # "r+b" keeps what is there; the file is made where it is missing.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            with os.fdopen(descriptor, "r+b") as file:
                file.truncate(committed * self.row.itemsize)
                file.seek(committed * self.row.itemsize)
                file.write(data.data)
                file.flush()
                os.fsync(file.fileno())
            if not committed:
                fsync_folder(self.path.parent)

    def _check(self, rows: int) -> None:
        """Make sure that the file holds the first `rows` rows."""
        if not rows:
            return
        size, needed = self.path.stat().st_size, rows * self.row.itemsize
        if size < needed:
            raise self.damaged(f"has {size:,} of {needed:,} bytes")

    def damaged(self, what: str) -> LibraryDamagedError:
        """Return the error that says what happened to the file."""
        return LibraryDamagedError(
            f"{printable(str(self.path))} {what}, so the library is damaged. Restore the file "
            "from a backup, or delete the library's folder and index the sounds again."
        )


def encode_scores(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return scores from 0 to 1 as one byte each; a larger byte is a larger score."""
    safe = np.clip(np.asarray(scores, np.float64), 1e-9, 1 - 1e-9)
    codes = np.rint((np.log(safe) - np.log1p(-safe) - _LOWEST) * _STEPS)
    return np.clip(codes, 0, 255).astype(np.uint8)


def decode_scores(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the scores, float32, that `codes` stand for; the logit is exact to 1/32."""
    return _DECODED[codes]


def score_codes() -> npt.NDArray[np.float32]:
    """Return the score of each of the 256 codes, float32, ascending."""
    return _DECODED.copy()


def search_vector(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the search vector of some frames: the direction of their mean embedding.

    Parameters
    ----------
    frames : uint8 (n, 128)
        Embedding frames, n at least 1.

    Returns
    -------
    float32 (128,)
        Of length 1, or 0 for a mean of exactly zero.
    """
    mean = ((np.asarray(frames, np.float32) - 128.0) / 128.0).mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def encode_vectors(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """Return vectors (n, d) as one signed byte a value; the length of a vector is not kept."""
    vectors = np.asarray(vectors, np.float32)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-12)
    return np.rint(vectors / largest * 127.0).astype(np.int8)
