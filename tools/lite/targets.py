"""What a whole window is taken to hold: class scores by teachers, by the window's key.

A file of targets (npz): ``key`` text (n,), ``sha1:window``, and ``scores`` uint8 (n, 527), score
times 255.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.errors import DataError, printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.storage import atomic_path

__all__ = ["key_of", "mixed_target", "read_corpus_targets", "read_targets", "write_targets"]

Scores = npt.NDArray[np.uint8]

_INAUDIBLE_DB = 20.0


def key_of(sha1: str, window: int) -> str:
    """Return a window's key."""
    return f"{sha1}:{window}"


def read_targets(path: str | os.PathLike[str]) -> dict[str, Scores]:
    """Read targets, uint8 (527,) by key.

    Raises
    ------
    DataError
        When the file is missing or no file of targets.
    """
    try:
        with np.load(path) as data:
            keys, scores = data["key"].tolist(), data["scores"]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{printable(os.fspath(path))} holds no targets: {error}.") from error
    if scores.shape != (len(keys), CLASS_COUNT) or scores.dtype != np.uint8:
        raise DataError(f"{printable(os.fspath(path))}: scores must be uint8 (n, {CLASS_COUNT}).")
    return dict(zip(keys, scores, strict=True))


def write_targets(path: str | os.PathLike[str], targets: Mapping[str, Scores]) -> None:
    """Write targets, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        scores = np.array(list(targets.values()), np.uint8).reshape(-1, CLASS_COUNT)
        np.savez_compressed(file, key=np.array(list(targets)), scores=scores)


def read_corpus_targets(
    corpus: str | os.PathLike[str], teacher: str | os.PathLike[str]
) -> dict[str, Scores]:
    """Read the targets of a list of windows, row by row.

    Parameters
    ----------
    corpus : path-like
        CSV with the columns ``row``, ``sha1`` and ``window``.
    teacher : path-like
        npz with ``scores``, uint8 (rows, 527).

    Raises
    ------
    DataError
        When a file is missing or they do not fit.
    """
    try:
        with Path(corpus).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with np.load(teacher) as data:
            scores = data["scores"]
        return {key_of(row["sha1"], int(row["window"])): scores[int(row["row"])] for row in rows}
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DataError(
            f"{printable(os.fspath(corpus))} and {printable(os.fspath(teacher))} do not fit: "
            f"{error}."
        ) from error


def mixed_target(
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32] | None,
    ratio_db: float,
    heard: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Return the target of a mix.

    Half of it is what the teacher hears in the mix itself; half is what the two windows were known
    to hold, the quieter one the less, and not at all from 20 dB below on. So it keeps what a
    second teacher knew of the windows by themselves.

    Parameters
    ----------
    first, second : float32 (527,)
        Targets of the windows.
    ratio_db : float
        Level of the first above the second.
    heard : float32 (527,)
        The teacher's clip scores of the mix.
    """
    known = first * _audible(ratio_db)
    if second is not None:
        known = np.maximum(known, second * _audible(-ratio_db))
    return (0.5 * (heard + known)).astype(np.float32)


def _audible(above_db: float) -> np.float32:
    return np.float32(np.clip(1.0 + min(above_db, 0.0) / _INAUDIBLE_DB, 0.0, 1.0))
