"""Measures of how well scores order clips, and of how far they are from frequencies.

Pure functions of ``truth``, bool (clips, classes), and ``scores``, float (clips, classes); unless
they say otherwise they return float64 per class. Those that need a positive, or a negative, give
NaN where there is none; the macro means leave such classes out, as the AudioSet literature does.

Sources: average precision as in scikit-learn; d-prime from the AUC as in Hershey et al., "CNN
architectures for large-scale audio classification" (arXiv:1609.09430); lwlrap as in DCASE 2019
task 2 (Fonseca et al., arXiv:1906.02975); expected calibration error as in Guo et al.
(arXiv:1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError

__all__ = [
    "Reliability",
    "average_precision",
    "bootstrap",
    "brier",
    "d_prime",
    "expected_calibration_error",
    "log_loss",
    "lwlrap",
    "macro_mean",
    "precision_recall_curve",
    "reliability",
    "roc_auc",
    "validate",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

CALIBRATION_BINS = 15
_BLOCK = 1 << 24  # values of a temporary array


def validate(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Bools, Floats]:
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
        if wanted[:, index].any():
            precision, recall, _ = precision_recall_curve(wanted[:, index], given[:, index])
            result[index] = (precision * np.diff(recall, prepend=0)).sum()
    return result


def precision_recall_curve(
    truth: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return precision and recall of one class at each score that occurs.

    Parameters
    ----------
    truth : bool (clips,)
        Which clips have the class; at least one.
    scores : float (clips,)
        Their scores for it.

    Returns
    -------
    precision, recall, thresholds : float64 (steps,)
        At taking all clips whose score is at least the threshold; thresholds descend, so recall
        ascends, to 1. There is no made-up point at recall 0.

    Raises
    ------
    InvalidArgumentError
        When the shapes differ, a score is not finite, or there is no positive.
    """
    column, given = validate(np.asarray(truth)[..., None], np.asarray(scores)[..., None])
    order = np.argsort(-given[:, 0], kind="stable")
    hits, values = column[order, 0], given[order, 0]
    if not hits.any():
        raise InvalidArgumentError("There is no precision-recall curve without a positive clip.")
    last_of_tie = np.flatnonzero(np.append(np.diff(values) != 0, True))
    found = np.cumsum(hits)[last_of_tie]
    return found / (last_of_tie + 1), found / found[-1], values[last_of_tie]


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


def lwlrap(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, Floats]:
    """Return the label-weighted label-ranking average precision, in all and of each class.

    For each true class of each clip: which share of the classes that the clip ranks at least as
    high is true. The mean over all true labels, so a class counts by how often it occurs.

    Returns
    -------
    overall : float
        NaN where there is no positive at all.
    per_class : float64 (classes,)
        The mean over the class's own positives.
    """
    wanted, given = validate(truth, scores)
    _, classes, precision = _label_precisions(wanted, given)
    counts = np.bincount(classes, minlength=wanted.shape[1])
    sums = np.bincount(classes, weights=precision, minlength=wanted.shape[1])
    with np.errstate(invalid="ignore"):
        per_class = sums / counts
    return float(precision.mean()) if len(precision) else float("nan"), per_class


def macro_mean(values: npt.ArrayLike) -> float:
    """Return the mean over the classes that have a value; NaN when none has."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.nanmean(array)) if np.isfinite(array).any() else float("nan")


@dataclass(frozen=True)
class Reliability:
    """How often clips have a class, by the score they have for it; all classes pooled.

    Attributes
    ----------
    edges : float64 (bins + 1,)
        Bounds of the bins, of equal width from 0 to 1.
    counts : int64 (bins,)
        Pairs of a clip and a class in each bin.
    scores, shares : float64 (bins,)
        Mean score in each bin, and the share of its pairs that are true; NaN in an empty bin.
    """

    edges: Floats
    counts: npt.NDArray[np.int64]
    scores: Floats
    shares: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: mean distance of score and share over all pairs."""
        gaps = np.nan_to_num(np.abs(self.scores - self.shares))
        return float((gaps * self.counts).sum() / self.counts.sum())


def reliability(
    truth: npt.ArrayLike, scores: npt.ArrayLike, *, bins: int = CALIBRATION_BINS
) -> Reliability:
    """Compare scores with frequencies over all pairs of a clip and a class.

    Raises
    ------
    InvalidArgumentError
        When `truth` and `scores` do not fit, a score is not from 0 to 1, or `bins` is below 1.
    """
    wanted, given = _validate_shares(truth, scores, bins)
    counts, sums, hits = _binned(wanted.reshape(-1, 1), given.reshape(-1, 1), bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.linspace(0, 1, bins + 1), counts[0], sums[0] / counts[0], hits[0] / counts[0]
        )


def expected_calibration_error(
    truth: npt.ArrayLike, scores: npt.ArrayLike, *, bins: int = CALIBRATION_BINS
) -> Floats:
    """Return the mean distance of score and frequency of each class, (classes,).

    Bins of equal width. A class without a positive has a value too: its mean score.

    Raises
    ------
    InvalidArgumentError
        When `truth` and `scores` do not fit, a score is not from 0 to 1, or `bins` is below 1.
    """
    wanted, given = _validate_shares(truth, scores, bins)
    _, sums, hits = _binned(wanted, given, bins)
    return np.abs(sums - hits).sum(axis=1) / len(wanted)


def brier(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Return the mean squared distance of score and truth of each class, (classes,)."""
    wanted, given = _validate_shares(truth, scores)
    return np.square(given - wanted).mean(axis=0)


def log_loss(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Return the mean binary cross-entropy of each class in nats, (classes,).

    Scores are moved to at least 1e-7 from 0 and 1, so that one sure mistake is not infinite.
    """
    wanted, given = _validate_shares(truth, scores)
    return -np.log(np.clip(np.where(wanted, given, 1 - given), 1e-7, 1 - 1e-7)).mean(axis=0)


def bootstrap(
    truth: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return confidence intervals of the summary figures, from resampling the clips.

    A resample holds some positives twice, which tie with themselves and raise average precision
    (by 0.01 on 10,000 clips of AudioSet), so that plain percentiles may miss the figure itself.
    The percentiles are therefore moved until the resamples' mean is the figure.

    Parameters
    ----------
    truth, scores
        As everywhere here.
    resamples : int
        How often as many clips are drawn, with replacement, as there are.
    confidence : float
        Coverage of the intervals, between 0 and 1.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        ``mAP``, ``AUC``, ``d_prime`` and ``lwlrap``, each (low, high); NaN where the figure is. In
        each resample a class that drew no positive is left out.

    Raises
    ------
    InvalidArgumentError
        When an argument is out of range.
    """
    wanted, given = validate(truth, scores)
    if resamples < 2:
        raise InvalidArgumentError(f"resamples must be at least 2, not {resamples}.")
    if not 0 < confidence < 1:
        raise InvalidArgumentError(f"confidence must be between 0 and 1, not {confidence}.")
    clips, classes = wanted.shape
    random = np.random.default_rng(seed)
    rows, _, precision = _label_precisions(wanted, given)
    ranked = np.bincount(rows, weights=precision, minlength=clips)
    labels = wanted.sum(axis=1)
    drawn: dict[str, list[Floats]] = {"mAP": [], "AUC": [], "lwlrap": []}
    block = min(resamples, max(1, 4 * _BLOCK // clips))
    for start in range(0, resamples, block):
        width = min(block, resamples - start)
        # Counts sum to the number of clips, so float32 holds every sum exactly up to 16 million.
        weights = np.empty((clips, width), np.float32 if clips < 1 << 24 else np.float64)
        for column in range(width):
            weights[:, column] = np.bincount(random.integers(0, clips, clips), minlength=clips)
        results = np.full((2, classes, width), np.nan)
        for index in range(classes):
            if wanted[:, index].any():
                results[:, index] = _resampled(wanted[:, index], given[:, index], weights)
        for name, values in zip(("mAP", "AUC"), results, strict=True):
            drawn[name].append(np.array([macro_mean(column) for column in values.T]))
        with np.errstate(invalid="ignore"):
            drawn["lwlrap"].append((ranked @ weights) / (labels @ weights))
    figures = {
        "mAP": macro_mean(average_precision(wanted, given)),
        "AUC": macro_mean(roc_auc(wanted, given)),
        "lwlrap": float(precision.mean()) if len(precision) else float("nan"),
    }
    intervals = {
        name: _centred(np.concatenate(drawn[name]), figure, confidence)
        for name, figure in figures.items()
    }
    low, high = d_prime(intervals["AUC"])
    intervals["d_prime"] = (float(low), float(high))
    return intervals


def _centred(drawn: Floats, figure: float, confidence: float) -> tuple[float, float]:
    """Return the percentiles of `drawn` about its mean, moved to `figure`, inside 0 to 1."""
    values = drawn[np.isfinite(drawn)]
    if not len(values) or not np.isfinite(figure):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) - values.mean() + figure
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _resampled(
    wanted: Bools, scores: Floats, weights: npt.NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Return average precision and AUC of one class, (resamples,) each.

    `weights` (clips, resamples) says how often each clip was drawn. One sort serves all resamples,
    and running sums are taken only at the ties (runs of equal scores) that hold a positive.
    """
    order = np.argsort(-scores, kind="stable")
    hits, values = wanted[order], scores[order]
    first = np.flatnonzero(np.append(True, np.diff(values) != 0))
    tie_of_positive = np.searchsorted(first, np.flatnonzero(hits), side="right") - 1
    ties, first_positive = np.unique(tie_of_positive, return_index=True)
    begin, end = first[ties], np.append(first, len(values))[ties + 1]
    bounds = np.unique(np.concatenate([[0], begin, end, [len(values)]]))
    sums = np.add.reduceat(weights[order], bounds[:-1], axis=0).astype(np.float64)
    running = np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(sums, axis=0)])
    before = running[np.searchsorted(bounds, begin)]
    until = running[np.searchsorted(bounds, end)]
    positives = np.add.reduceat(weights[order[hits]], first_positive, axis=0).astype(np.float64)
    found = np.cumsum(positives, axis=0)
    total = found[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(until > 0, found / until, 0)
        average = (positives * precision).sum(axis=0) / total
        negatives_above = before - (found - positives)
        negatives_beside = until - before - positives
        wrong = (positives * (negatives_above + 0.5 * negatives_beside)).sum(axis=0)
        area = 1 - wrong / (total * (running[-1] - total))
    return average, np.where(np.isfinite(area), area, np.nan)


def _label_precisions(
    wanted: Bools, scores: Floats
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return clip, class and label-ranking precision of each true label, (labels,) each."""
    rows, classes = np.nonzero(wanted)
    precision = np.empty(len(rows))
    step = max(1, _BLOCK // wanted.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        own = scores[rows[part], classes[part]]
        above = scores[rows[part]] >= own[:, None]
        precision[part] = (above & wanted[rows[part]]).sum(axis=1) / above.sum(axis=1)
    return rows, classes, precision


def _validate_shares(
    truth: npt.ArrayLike, scores: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> tuple[Bools, Floats]:
    wanted, given = validate(truth, scores)
    if given.min() < 0 or given.max() > 1:
        raise InvalidArgumentError("scores must be from 0 to 1 to be compared with frequencies.")
    if bins < 1:
        raise InvalidArgumentError(f"bins must be at least 1, not {bins}.")
    return wanted, given


def _binned(
    wanted: Bools, scores: Floats, bins: int
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return count, sum of scores and positives of each bin, (classes, bins) each."""
    classes = wanted.shape[1]
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    place += np.arange(classes) * bins
    flat = place.ravel()

    def total(weights: Floats | None) -> Floats:
        found = np.bincount(flat, weights, minlength=classes * bins).astype(np.float64)
        return found.reshape(classes, bins)

    return (
        total(None).astype(np.int64),
        total(scores.ravel()),
        total(wanted.ravel().astype(np.float64)),
    )
