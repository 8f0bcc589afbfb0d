"""How well scores agree with labels: accuracy, F1 of each class, confusions, mAP."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.lab.sounds import SoundSet

__all__ = ["Measures", "accuracy_interval", "measure", "rightness"]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Measures:
    """Results on sounds that were not learned from.

    Attributes
    ----------
    sounds : int
        How many.
    accuracy : float
        Share of the sounds whose best class is right; where sounds have several classes, the share
        of decisions (a sound and a class, at a score of 0.5) that are right.
    mAP : float
        Mean over the classes of the average precision; NaN where no class can be judged.
    f1 : dict of str to float
        Of each class; 0 where it was never found.
    confusion : list of list of int
        Rows are true classes, columns the best-scored; empty where sounds have several.
    """

    sounds: int
    accuracy: float
    mAP: float
    f1: dict[str, float]
    confusion: list[list[int]]

    @property
    def macro_f1(self) -> float:
        """Mean over the classes."""
        return float(np.mean([*self.f1.values()]))

    def figures(self) -> dict[str, float]:
        """Return the single figures."""
        known = {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "mAP": self.mAP}
        return {name: value for name, value in known.items() if not np.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, rounded to six digits."""
        values = asdict(self)
        values["accuracy"] = round(self.accuracy, 6)
        values["mAP"] = None if np.isnan(self.mAP) else round(self.mAP, 6)
        values["f1"] = {name: round(value, 6) for name, value in self.f1.items()}
        return values | {"macro_f1": round(self.macro_f1, 6)}


def measure(
    truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], sounds: SoundSet
) -> Measures:
    """Measure scores, float (n, classes), against the classes that sounds have."""
    wanted, given = metrics.validate(truth, scores)
    confusion: list[list[int]] = []
    if sounds.multi_label:
        found = given >= 0.5
        accuracy = float((found == wanted).mean())
    else:
        best = given.argmax(axis=1)
        found = np.eye(given.shape[1], dtype=bool)[best]
        accuracy = float(wanted[np.arange(len(best)), best].mean())
        table = np.zeros((given.shape[1],) * 2, np.int64)
        np.add.at(table, (wanted.argmax(axis=1), best), 1)
        confusion = table.tolist()
    hits = (found & wanted).sum(axis=0)
    f1 = 2 * hits / np.maximum(found.sum(axis=0) + wanted.sum(axis=0), 1)
    return Measures(
        len(wanted),
        accuracy,
        float(metrics.macro_mean(metrics.average_precision(wanted, given))),
        dict(zip(sounds.classes, f1.tolist(), strict=True)),
        confusion,
    )


def rightness(
    truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating[Any]], sounds: SoundSet
) -> npt.NDArray[np.float64]:
    """Return whether each sound was right; of several classes the share of right decisions."""
    wanted, given = metrics.validate(truth, scores)
    if sounds.multi_label:
        return ((given >= 0.5) == wanted).mean(axis=1)
    return wanted[np.arange(len(wanted)), given.argmax(axis=1)].astype(np.float64)


def accuracy_interval(
    right: npt.NDArray[np.floating[Any]],
    *,
    groups: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean over sounds.

    Whole groups are drawn: sounds of one group are right or wrong together, so that single ones
    would make the interval too narrow. Of one group nothing can be told: 0 to 1.

    Parameters
    ----------
    right : float (n,)
        Whether each sound was right, or how much.
    groups : int64 (n,), optional
        A number for each sound, the same for what hangs together; where None, nothing does.
    seed : int
        Seed of the resampling.
    """
    random = np.random.default_rng(seed)
    right = np.asarray(right, np.float64)
    if groups is None:
        groups = np.arange(len(right))
    _, members = np.unique(groups, return_inverse=True)
    sizes = np.bincount(members)
    count = len(sizes)
    if count < 2:
        return 0.0, 1.0
    sums = np.bincount(members, weights=right)
    draws = random.integers(0, count, (_RESAMPLES, count))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
