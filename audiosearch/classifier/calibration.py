"""Calibration: from a class's scores to how often clips of that score have the class.

Training prefers rare classes and mixes clips, so raw scores are off, and by another amount for
each class. A calibration is a line per class on the scores' logits,

    calibrated = sigmoid(a[class] * logit(score) + b[class]),  a[class] > 0,

so the order of clips within a class, and with it mAP, stays as it is. It holds for clips as
frequent and as varied as those it was fitted on: on other recordings it is a better guess than
the raw score, and no probability.

======================= ========================================================================
``platt``               a line for each class, drawn towards the pooled line so that a class of
                        three positives is not fitted to those three
``pooled``              one line for all classes
``temperature``         one factor for all classes, no offset
======================= ========================================================================

Sources: Platt, "Probabilistic outputs for support vector machines" (1999); Guo et al.
(arXiv:1706.04599) for temperature.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.errors import InvalidArgumentError, ModelError, printable
from audiosearch.storage import read_json, write_json

__all__ = ["METHODS", "Calibration", "calibrate_run", "fit_calibration"]

METHODS = ("platt", "pooled", "temperature")

Floats = npt.NDArray[np.float64]

# Where lines turn: a logit about as low as classes are rare, so that another slope moves the
# scores of the positives and leaves those of the bulk. Chosen, with the strengths below, by
# cross-validation on clips of AudioSet's balanced set; docs/training.md has the figures.
_PIVOT = -4.0
_STRENGTH = (10.0, 30.0)
_CLIP = 1e-7  # a score of 0 or 1 has no finite logit to fit
_STEPS = 100
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A line per class on the logits of its scores.

    Attributes
    ----------
    method : str
        One of `METHODS`.
    a, b : tuple of float
        Slope, above 0, and offset of each class.
    fitted_on : str
        What it was fitted on, in words.
    """

    method: str
    a: tuple[float, ...]
    b: tuple[float, ...]
    fitted_on: str

    def __post_init__(self) -> None:
        slopes, offsets = np.asarray(self.a, float), np.asarray(self.b, float)
        if slopes.ndim != 1 or slopes.shape != offsets.shape or not len(slopes):
            raise InvalidArgumentError("a and b must hold one number for each class.")
        if not (np.isfinite(slopes).all() and np.isfinite(offsets).all() and slopes.min() > 0):
            raise InvalidArgumentError("a must be above 0, and a and b finite.")

    def apply(self, scores: npt.ArrayLike) -> Floats:
        """Return calibrated scores.

        Parameters
        ----------
        scores : float (..., classes)
            From 0 to 1.

        Returns
        -------
        float64 (..., classes)
            In the same order within each class; float64, so that close scores stay apart.

        Raises
        ------
        InvalidArgumentError
            When the number of classes is another, or a score is not from 0 to 1.
        """
        from scipy.special import expit, logit

        given = np.asarray(scores, np.float64)
        if given.ndim == 0 or given.shape[-1] != len(self.a):
            raise InvalidArgumentError(
                f"scores must hold {len(self.a)} classes in the last axis; their shape is "
                f"{given.shape}."
            )
        if not ((given >= 0) & (given <= 1)).all():
            raise InvalidArgumentError("scores must be from 0 to 1.")
        return np.asarray(expit(np.asarray(self.a) * logit(given) + np.asarray(self.b)))

    def to_dict(self) -> dict[str, Any]:
        """Return what a classifier's manifest stores under ``calibration``."""
        return {
            "method": self.method,
            "a": [round(value, 6) for value in self.a],
            "b": [round(value, 6) for value in self.b],
            "fitted_on": self.fitted_on,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, classes: int) -> Calibration:
        """Read what `to_dict` gave.

        Raises
        ------
        InvalidArgumentError
            When it is of another form, or for another number of classes.
        """
        try:
            a, b = (tuple(float(number) for number in value[key]) for key in ("a", "b"))
            found = cls(str(value["method"]), a, b, str(value["fitted_on"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"The calibration is not readable: {error}.") from error
        if len(found.a) != classes:
            raise InvalidArgumentError(
                f"The calibration is for {len(found.a)} classes, not {classes}."
            )
        return found


def fit_calibration(
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    method: str = "platt",
    strength: tuple[float, float] = _STRENGTH,
    fitted_on: str = "",
) -> Calibration:
    """Fit a calibration to clips that the classifier was not trained on.

    Parameters
    ----------
    scores : float (clips, classes)
        Raw scores, from 0 to 1.
    truth : bool (clips, classes)
        True classes; at least one label in all.
    method : str
        One of `METHODS`.
    strength : (float, float)
        ``platt`` only: how strongly a class's slope (its logarithm) and its height at the logit
        -4 are drawn to those of the pooled line, as the inverse variance expected among classes.
    fitted_on : str
        What the clips are, in words.

    Raises
    ------
    InvalidArgumentError
        When an argument is not as it must be, or no class has a positive and a negative.
    """
    wanted, given = metrics.validate(truth, scores)
    if given.min() < 0 or given.max() > 1:
        raise InvalidArgumentError("scores must be from 0 to 1.")
    if method not in METHODS:
        raise InvalidArgumentError(f"method must be one of {', '.join(METHODS)}, not '{method}'.")
    if not min(strength) > 0:
        raise InvalidArgumentError(f"strength must be above 0, not {strength}.")
    if not wanted.any() or wanted.all():
        raise InvalidArgumentError("Calibration needs both true and false labels.")
    from scipy.special import logit

    logits = logit(np.clip(given, _CLIP, 1 - _CLIP))
    # The pooled line is one "class" of all pairs, held by next to nothing but its data.
    fixed = method == "temperature"
    slopes, offsets = _fit_lines(
        logits.reshape(-1, 1),
        wanted.reshape(-1, 1),
        start=(1.0, 0.0),
        strength=(1e-3, 1e12 if fixed else 1e-3),
    )
    if method == "platt":
        start = (float(slopes[0]), float(offsets[0] + slopes[0] * _PIVOT))
        slopes, heights = _fit_lines(logits - _PIVOT, wanted, start=start, strength=strength)
        offsets = heights - slopes * _PIVOT
    else:
        slopes = np.repeat(slopes, given.shape[1])
        offsets = np.repeat(np.zeros(1) if fixed else offsets, given.shape[1])
    return Calibration(method, tuple(slopes.tolist()), tuple(offsets.tolist()), fitted_on)


def calibrate_run(
    folder: str | os.PathLike[str],
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    method: str = "platt",
    fitted_on: str = "validation split",
) -> Calibration:
    """Fit a calibration and store it in a classifier's manifest, ``classifier.json``.

    Parameters
    ----------
    folder : path-like
        Where `audiosearch.classifier.export.export_classifier` wrote.
    scores, truth
        Raw scores and true classes of the validation split, as for `fit_calibration`.
    method, fitted_on : str
        As for `fit_calibration`.

    Raises
    ------
    InvalidArgumentError
        As `fit_calibration`.
    ModelError
        When the folder has no readable manifest, or one for another number of classes.
    StorageError
        When the manifest cannot be written.
    """
    from audiosearch.classifier.scorer import load_scorer
    from audiosearch.models import read_model

    path = Path(folder) / "classifier.json"
    name = printable(os.fspath(path))
    try:
        manifest = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{name} is not a readable manifest; calibrate what was exported.") from (
            error
        )
    found = fit_calibration(scores, truth, method=method, fitted_on=fitted_on)
    if manifest.get("classes") != len(found.a):
        raise ModelError(
            f"{name} is for {manifest.get('classes')} classes; the scores are for {len(found.a)}."
        )
    write_json(path, manifest | {"calibration": found.to_dict()})
    # Both remember the manifest as it was.
    load_scorer.cache_clear()
    read_model.cache_clear()
    return found


def _fit_lines(
    logits: Floats,
    wanted: npt.NDArray[np.bool_],
    *,
    start: Sequence[float],
    strength: Sequence[float],
) -> tuple[Floats, Floats]:
    """Fit a line to each column by penalised likelihood; return slopes and offsets.

    The slope is fitted by its logarithm, so that it stays above 0, with Fisher scoring and steps
    that are halved until they help. The penalty is a normal prior about `start`.
    """
    from scipy.special import expit

    columns = logits.shape[1]
    center = np.array([np.log(start[0]), start[1]])
    penalty = np.asarray(strength, np.float64)
    point = np.tile(center[:, None], (1, columns))
    sign = np.where(wanted, 1.0, -1.0)

    def cost(at: Floats, part: npt.NDArray[np.intp]) -> Floats:
        line = np.exp(at[0]) * logits[:, part] + at[1]
        loss = np.logaddexp(0.0, -sign[:, part] * line).sum(axis=0)
        return np.asarray(loss + 0.5 * (penalty[:, None] * (at - center[:, None]) ** 2).sum(axis=0))

    active = np.arange(columns)
    for _ in range(_STEPS):
        at = point[:, active]
        rise = np.exp(at[0]) * logits[:, active]
        share = expit(rise + at[1])
        weight = share * (1 - share)
        miss = share - wanted[:, active]
        gradient = np.stack([(miss * rise).sum(axis=0), miss.sum(axis=0)])
        gradient += penalty[:, None] * (at - center[:, None])
        curve_a = (weight * rise**2).sum(axis=0) + penalty[0]
        curve_b = weight.sum(axis=0) + penalty[1]
        cross = (weight * rise).sum(axis=0)
        step = np.stack([curve_b * gradient[0] - cross * gradient[1]] * 2)
        step[1] = curve_a * gradient[1] - cross * gradient[0]
        step /= curve_a * curve_b - cross**2
        # Shortened as a whole: another direction need not lead down.
        step /= np.maximum(1.0, np.abs(step).max(axis=0) / 2)
        before, scale = cost(at, active), np.ones(len(active))
        for _ in range(30):
            worse = cost(at - scale * step, active) > before
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        moved = np.where(worse, 0.0, scale) * step
        point[:, active] = at - moved
        active = active[np.abs(moved).max(axis=0) > _TOLERANCE]
        if not len(active):
            break
    return np.exp(point[0]), point[1]
