"""Measures of how well scores order clips; pure functions of labels and scores.

All take ``truth``, bool (clips, classes), and ``scores``, float (clips, classes), and return
float64 per class. A class without a positive, or without a negative, has no defined value and gets
NaN; the macro means leave such classes out, as the AudioSet literature does.

Sources: average precision as in scikit-learn; d-prime from the AUC as in Hershey et al., "CNN
architectures for large-scale audio classification" (arXiv:1609.09430).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError

__all__ = ["average_precision", "d_prime", "macro_mean", "roc_auc", "validate"]

Floats: TypeAlias = npt.NDArray[np.float64]


def validate(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return both as arrays of one shape (clips, classes), or refuse them.

    Raises
    ------
    InvalidArgumentError
        When the shapes differ, there is nothing in them, or a score is not finite.
    """
    wanted = np.asarray(truth, dtype=bool)
    given = np.asarray(scores, dtype=np.float64)
    if wanted.ndim != 2 or wanted.shape != given.shape or wanted.size == 0:
        raise InvalidArgumentError(
            "truth and scores must both have the shape (clips, classes), at least one each; got "
            f"{wanted.shape} and {given.shape}."
        )
    if not np.isfinite(given).all():
        raise InvalidArgumentError("scores holds values that are not finite.")
    return wanted, given


def average_precision(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Return the average precision of each class, (classes,).

    The mean of the precision at each positive, where clips of equal score count as one step.
    """
    wanted, given = validate(truth, scores)
    result = np.full(wanted.shape[1], np.nan)
    for index in range(wanted.shape[1]):
        order = np.argsort(-given[:, index], kind="stable")
        hits = wanted[order, index]
        positives = hits.sum()
        if not positives:
            continue
        values = given[order, index]
        last_of_tie = np.append(np.diff(values) != 0, True)
        found = np.cumsum(hits)[last_of_tie]
        precision = found / (np.flatnonzero(last_of_tie) + 1)
        result[index] = (precision * np.diff(found, prepend=0)).sum() / positives
    return result


def roc_auc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Return the area under the ROC curve of each class, (classes,); ties count half."""
    from scipy.stats import rankdata

    wanted, given = validate(truth, scores)
    positives = wanted.sum(axis=0).astype(np.float64)
    negatives = len(wanted) - positives
    ranks = rankdata(given, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        above = (ranks * wanted).sum(axis=0) - positives * (positives + 1) / 2
        area = above / (positives * negatives)
    return np.where((positives > 0) & (negatives > 0), area, np.nan)


def d_prime(auc: npt.ArrayLike) -> Floats:
    """Return d-prime, the distance of two unit normals that would give this AUC."""
    from scipy.special import ndtri

    return np.asarray(np.sqrt(2.0) * ndtri(np.asarray(auc, dtype=np.float64)))


def macro_mean(values: npt.ArrayLike) -> float:
    """Return the mean over the classes that have a value; NaN when none has."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.nanmean(array)) if np.isfinite(array).any() else float("nan")
