"""How good a classifier is on a packed file of clips with known classes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.classifier.scorer import Ensemble, Scorer, load_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import InvalidArgumentError
from audiosearch.labels import load_labels
from audiosearch.storage import atomic_path

__all__ = ["ClassResult", "Evaluation", "ScoreError", "evaluate"]


@dataclass(frozen=True)
class ClassResult:
    """One class's result; the measures are NaN where it has no positive clip.

    Attributes
    ----------
    index, mid, label
        As in `audiosearch.labels`.
    clips : int
        How many clips have the class.
    average_precision, auc, d_prime, lwlrap : float
        As in `audiosearch.metrics`.
    """

    index: int
    mid: str
    label: str
    clips: int
    average_precision: float
    auc: float
    d_prime: float
    lwlrap: float


@dataclass(frozen=True)
class ScoreError:
    """How far scores are from frequencies, over all pairs of a clip and a class.

    Attributes
    ----------
    ECE : float
        Expected calibration error with all classes pooled.
    class_ECE : float
        Mean of the classes' own; classes without a positive clip count too.
    Brier : float
        Mean squared distance of score and truth.
    """

    ECE: float
    class_ECE: float
    Brier: float


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
    lwlrap : float
        Label-weighted label-ranking average precision.
    raw : ScoreError
        How far the scores are from frequencies.
    calibrated : ScoreError, optional
        The same for calibrated scores; None where the classifier has no calibration.
    intervals : dict of (float, float), optional
        95 % confidence intervals of ``mAP``, ``AUC``, ``d_prime`` and ``lwlrap``, where asked for.
    resamples : int
        How many resamples of the clips gave the intervals.
    plots : list of Path
        The plots that were written.
    """

    mAP: float
    AUC: float
    d_prime: float
    clips: int
    classes: int
    per_class: list[ClassResult]
    classifier: str
    classifier_hash: str
    lwlrap: float
    raw: ScoreError
    calibrated: ScoreError | None = None
    intervals: dict[str, tuple[float, float]] | None = None
    resamples: int = 0
    plots: list[Path] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """How many classes have no positive clip, so that the means leave them out."""
        return len(self.per_class) - self.classes

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values; None where a figure is not finite."""
        both = {"raw": self.raw, "calibrated": self.calibrated}
        intervals = self.intervals
        return {
            "mAP": _plain(self.mAP),
            "AUC": _plain(self.AUC),
            "d_prime": _plain(self.d_prime),
            "lwlrap": _plain(self.lwlrap),
            "clips": self.clips,
            "classes": self.classes,
            "classes_left_out": self.left_out,
            "intervals": intervals
            and {name: [_plain(end) for end in ends] for name, ends in intervals.items()},
            "resamples": self.resamples,
            **{
                name: {key: error and getattr(error, name) for key, error in both.items()}
                for name in ("ECE", "class_ECE", "Brier")
            },
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
    classifier: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    intervals: int = 0,
    plots: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every clip of a packed file and compare with its true classes.

    Parameters
    ----------
    path : path-like
        A packed HDF5 file with ``x`` and ``y``.
    classifier : path-like, optional
        Folder of a training run; the bundled classifier where None. The scores of several, such
        as a run's snapshots, are averaged.
    intervals : int
        How many resamples of the clips give confidence intervals, 2 or more; 0 for none.
    plots : path-like, optional
        Folder for plots (see `audiosearch.classifier.plots`); files of their names are replaced.
    on_progress : callable, optional
        Called with the clips done and the clips in all.

    Raises
    ------
    DataError
        When the file is not as it must be.
    InvalidArgumentError
        When `intervals` is 1 or below 0.
    MissingDependencyError
        When plots are asked for and matplotlib is not installed.
    ModelError
        When the classifier cannot be used.
    StorageError
        When a plot cannot be written.
    """
    if intervals < 0 or intervals == 1:
        raise InvalidArgumentError(f"intervals must be 0, or 2 or more, not {intervals}.")
    if plots is not None:
        from audiosearch.classifier.plots import import_figure

        import_figure()  # fails before the work, not after it
    with PackedFile(path, labels=True) as file:
        scorer = _load(classifier)
        scores, truth = _score_all(file, scorer, on_progress)
    precision = metrics.average_precision(truth, scores)
    area = metrics.roc_auc(truth, scores)
    ranking, class_ranking = metrics.lwlrap(truth, scores)
    mean_area = metrics.macro_mean(area)
    calibrated = scorer.calibrated(scores) if scorer.is_calibrated else None
    written: list[Path] = []
    if plots is not None:
        from audiosearch.classifier.plots import write_plots

        counts = train_counts(scorer)
        written = write_plots(plots, truth, scores, calibrated=calibrated, train_counts=counts)
    columns = zip(
        load_labels(),
        truth.sum(axis=0),
        precision,
        area,
        metrics.d_prime(area),
        class_ranking,
        strict=True,
    )
    return Evaluation(
        mAP=metrics.macro_mean(precision),
        AUC=mean_area,
        d_prime=float(metrics.d_prime(mean_area)),
        clips=len(truth),
        classes=int(np.isfinite(precision).sum()),
        per_class=[
            ClassResult(label.index, label.mid, label.name, int(count), *map(float, values))
            for label, count, *values in columns
        ],
        classifier=scorer.name,
        classifier_hash=scorer.weights_hash,
        lwlrap=ranking,
        raw=_score_error(truth, scores),
        calibrated=None if calibrated is None else _score_error(truth, calibrated),
        intervals=metrics.bootstrap(truth, scores, resamples=intervals) if intervals else None,
        resamples=intervals,
        plots=written,
    )


def train_counts(scorer: Scorer | Ensemble) -> npt.NDArray[np.int64] | None:
    """Return how many clips of each class a classifier was trained on, (classes,).

    None where its manifest does not say, under ``train_positives``.
    """
    counts = scorer.manifest.get("train_positives")
    if not isinstance(counts, list) or len(counts) != scorer.manifest.get("classes"):
        return None
    return np.asarray(counts, np.int64)


def _load(
    classifier: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
) -> Scorer | Ensemble:
    if classifier is None:
        return load_scorer()
    if isinstance(classifier, str | os.PathLike):
        return load_scorer(os.fspath(classifier))
    scorers = [load_scorer(os.fspath(folder)) for folder in classifier]
    return scorers[0] if len(scorers) == 1 else Ensemble(scorers)


def _score_all(
    file: PackedFile, scorer: Scorer | Ensemble, on_progress: Callable[[int, int], None] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    scores, truth = [], []
    for start, rows in file.blocks():
        scores.append(scorer.score(rows.x, rows.n_frames))
        truth.append(rows.y)
        if on_progress:
            on_progress(start + len(rows.x), len(file))
    return np.concatenate(scores), np.concatenate(truth)  # type: ignore[arg-type]


def _score_error(truth: npt.NDArray[np.bool_], scores: npt.NDArray[Any]) -> ScoreError:
    return ScoreError(
        ECE=metrics.reliability(truth, scores).error,
        class_ECE=float(metrics.expected_calibration_error(truth, scores).mean()),
        Brier=float(metrics.brier(truth, scores).mean()),
    )


def _plain(value: float) -> float | None:
    """Return a number that JSON has: it knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None
