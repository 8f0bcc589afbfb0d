"""How good a classifier is on a packed file of clips with known classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiosearch import metrics
from audiosearch.classifier.scorer import Scorer, load_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.labels import load_labels
from audiosearch.storage import atomic_path

__all__ = ["ClassResult", "Evaluation", "evaluate"]


@dataclass(frozen=True)
class ClassResult:
    """One class's result; NaN where it has no positive clip."""

    index: int
    mid: str
    label: str
    clips: int
    average_precision: float
    auc: float


@dataclass(frozen=True)
class Evaluation:
    """Results of a classifier on a file.

    Attributes
    ----------
    mAP, AUC, d_prime : float
        Macro over the classes that have positive clips; d-prime is that of the mean AUC.
    clips : int
        How many clips were scored.
    classes : int
        How many classes have positive clips.
    per_class : list of ClassResult
        In the order of the score columns.
    classifier, classifier_hash : str
        What scored them.
    """

    mAP: float
    AUC: float
    d_prime: float
    clips: int
    classes: int
    per_class: list[ClassResult]
    classifier: str
    classifier_hash: str

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values."""
        return {
            "mAP": self.mAP,
            "AUC": self.AUC,
            "d_prime": self.d_prime,
            "clips": self.clips,
            "classes": self.classes,
            "classifier": self.classifier,
            "classifier_hash": self.classifier_hash,
        }

    def write_per_class(self, path: str | os.PathLike[str]) -> None:
        """Write one CSV row a class, in the order of the score columns."""
        import pandas as pd

        frame = pd.DataFrame([vars(row) for row in self.per_class])
        with atomic_path(path) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6f")


def evaluate(
    path: str | os.PathLike[str],
    *,
    classifier: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every clip of a packed file and compare with its true classes.

    Parameters
    ----------
    path : path-like
        A packed HDF5 file with ``x`` and ``y``.
    classifier : path-like, optional
        Folder of a training run; the bundled classifier where None.
    on_progress : callable, optional
        Called with the clips done and the clips in all.

    Raises
    ------
    DataError
        When the file is not as it must be.
    ModelError
        When the classifier cannot be used.
    """
    with PackedFile(path, labels=True) as file:
        scorer = load_scorer(None if classifier is None else os.fspath(classifier))
        scores, truth = _score_all(file, scorer, on_progress)
    precision = metrics.average_precision(truth, scores)
    area = metrics.roc_auc(truth, scores)
    mean_area = metrics.macro_mean(area)
    counts = truth.sum(axis=0)
    return Evaluation(
        mAP=metrics.macro_mean(precision),
        AUC=mean_area,
        d_prime=float(metrics.d_prime(mean_area)),
        clips=len(truth),
        classes=int(np.isfinite(precision).sum()),
        per_class=[
            ClassResult(
                label.index,
                label.mid,
                label.name,
                int(counts[label.index]),
                float(precision[label.index]),
                float(area[label.index]),
            )
            for label in load_labels()
        ],
        classifier=scorer.name,
        classifier_hash=scorer.weights_hash,
    )


def _score_all(
    file: PackedFile, scorer: Scorer, on_progress: Callable[[int, int], None] | None
) -> tuple[Any, Any]:
    scores, truth = [], []
    for start, rows in file.blocks():
        scores.append(scorer.score(rows.x, rows.n_frames))
        truth.append(rows.y)
        if on_progress:
            on_progress(start + len(rows.x), len(file))
    return np.concatenate(scores), np.concatenate(truth)  # type: ignore[arg-type]
