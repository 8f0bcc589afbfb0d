"""Plots of an evaluation, as PNG files; they need matplotlib.

======================== =====================================================================
``precision_recall.png`` precision by recall: the best, the median and the worst class, all
                         pairs of a clip and a class pooled (micro), and the mean of the classes
                         (macro)
``reliability.png``      how often clips have a class, by the score they have for it, before and
                         after calibration
``train_counts.png``     each class's average precision by how many clips it was trained on,
                         where the classifier's manifest has the counts
======================== =====================================================================
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.errors import MissingDependencyError
from audiosearch.labels import load_labels
from audiosearch.storage import atomic_path

__all__ = ["import_figure", "write_plots"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]

_POINTS = 1000  # of a curve, so that a pooled one of millions of steps stays quick to draw


def import_figure() -> Any:
    """Import matplotlib's figure class, or say what to install.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", extra="lab", purpose="Plotting") from error
    return Figure


def write_plots(
    folder: str | os.PathLike[str],
    truth: Bools,
    scores: Floats,
    *,
    calibrated: Floats | None = None,
    train_counts: npt.NDArray[np.int64] | None = None,
) -> list[Path]:
    """Write the plots and return their paths.

    Parameters
    ----------
    folder : path-like
        Where to write; it is made where it is missing.
    truth : bool (clips, 527)
        True classes.
    scores : float (clips, 527)
        Raw scores.
    calibrated : float (clips, 527), optional
        Calibrated scores.
    train_counts : int64 (527,), optional
        Clips of each class in training.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed.
    StorageError
        When a file cannot be written.
    """
    figures = {"reliability": _reliability(truth, scores, calibrated)}
    precision = metrics.average_precision(truth, scores)
    if np.isfinite(precision).any():
        figures["precision_recall"] = _precision_recall(truth, scores, precision)
        if train_counts is not None:
            figures["train_counts"] = _train_counts(precision, train_counts)
    paths = []
    for name, figure in sorted(figures.items()):
        path = Path(folder) / f"{name}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        paths.append(path)
    return paths


def _precision_recall(truth: Bools, scores: Floats, precision: Floats) -> Any:
    figure, axes = _axes("recall", "precision")
    labels = load_labels()
    order = np.argsort(precision)[: np.isfinite(precision).sum()]  # NaN sorts last
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    for word, index in chosen.items():
        axes.step(
            *_curve(truth[:, index], scores[:, index]),
            where="pre",
            label=f"{word}: {labels[int(index)].name}, AP {precision[index]:.3f}",
        )
    axes.plot(*_curve(truth.ravel(), scores.ravel()), label="micro", linestyle="--")
    recall = np.linspace(0, 1, 201)[1:]  # recall 0 is reached before any clip is taken
    steps = [_precision_at(truth[:, index], scores[:, index], recall) for index in order]
    axes.plot(
        recall,
        np.mean(steps, axis=0),
        label=f"macro, mAP {metrics.macro_mean(precision):.3f}",
        linestyle="--",
        color="black",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize="small")
    return figure


def _curve(truth: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """Return recall and precision of one class, thinned out evenly in recall."""
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    wanted = np.searchsorted(recall, np.linspace(0, 1, _POINTS))
    kept = np.unique(np.minimum(wanted, len(recall) - 1))
    return recall[kept], precision[kept]


def _precision_at(truth: Bools, scores: Floats, recall: Floats) -> Floats:
    """Return one class's precision where each recall is first reached."""
    precision, reached, _ = metrics.precision_recall_curve(truth, scores)
    place = np.searchsorted(reached, recall - 1e-12)
    return precision[np.minimum(place, len(precision) - 1)]


def _reliability(truth: Bools, scores: Floats, calibrated: Floats | None) -> Any:
    figure, axes = _axes("mean score in the bin", "share of its clips that have the class")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for name, values in (("raw", scores), ("calibrated", calibrated)):
        if values is not None:
            table = metrics.reliability(truth, values)
            filled = table.counts > 0
            axes.plot(
                table.scores[filled],
                table.shares[filled],
                marker="o",
                label=f"{name}, expected calibration error {table.error:.4f}",
            )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    return figure


def _train_counts(precision: Floats, counts: npt.NDArray[np.int64]) -> Any:
    figure, axes = _axes("clips with the class in training", "average precision")
    shown = np.isfinite(precision) & (counts > 0)
    axes.scatter(counts[shown], precision[shown], s=10, alpha=0.6)
    axes.set(xscale="log", ylim=(0, 1))
    return figure


def _axes(x: str, y: str) -> tuple[Any, Any]:
    """Return a figure and its one plot. No pyplot: it would look for a display."""
    figure = import_figure()(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes
