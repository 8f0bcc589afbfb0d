"""Compare ways of calibrating a classifier, on half of its validation split.

Usage: python bench/calibration.py bal_train.h5 [--classifier RUN] [--validation 0.1] [--seed 0]

`--validation` and `--seed` must be those of the training, so that the split is the same. One half
of the split fits each way, the other is measured. Prints also the ratio of each log loss to that
of raw scores. (How strongly Platt's lines are drawn together was chosen by cross-validation inside
the first half.)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.classifier.calibration import METHODS, fit_calibration
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.label_index import LabelIndex
from audiosearch.datasets.packed import PackedFile

Floats = npt.NDArray[np.float64]
Fit = Callable[[Floats, npt.NDArray[np.bool_], Floats], Floats]


def by_isotonic(scores: Floats, truth: npt.NDArray[np.bool_], others: Floats) -> Floats:
    from sklearn.isotonic import IsotonicRegression

    columns = []
    for index in range(scores.shape[1]):
        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        columns.append(steps.fit(scores[:, index], truth[:, index]).predict(others[:, index]))
    return np.stack(columns, axis=1)


def by_free_platt(scores: Floats, truth: npt.NDArray[np.bool_], others: Floats) -> Floats:
    return fit_calibration(scores, truth, strength=(1e-3, 1e-3)).apply(others)


def by_method(method: str) -> Fit:
    return lambda scores, truth, others: fit_calibration(scores, truth, method=method).apply(others)


def measure(scores: Floats, truth: npt.NDArray[np.bool_]) -> list[float]:
    return [
        metrics.reliability(truth, scores).error,
        float(metrics.expected_calibration_error(truth, scores).mean()),
        float(metrics.brier(truth, scores).mean()),
        float(metrics.log_loss(truth, scores).mean()),
        metrics.macro_mean(metrics.average_precision(truth, scores)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--classifier")
    parser.add_argument("--validation", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with PackedFile(options.data, labels=True) as file:
        clips = file.read()
    if clips.y is None:
        raise SystemExit("The file has no labels.")
    _, rows = LabelIndex.from_dense(clips.y).split(options.validation, options.seed)
    scorer = load_scorer(options.classifier)
    scores: Floats = np.asarray(scorer.score(clips.x[rows], clips.n_frames[rows]), np.float64)
    truth = clips.y[rows]
    order = np.random.default_rng(0).permutation(len(rows))
    fit, held_out = np.array_split(order, 2)
    print(f"{len(rows):,} validation clips: {len(fit):,} fit, {len(held_out):,} are measured")
    ways: dict[str, Fit] = {
        "raw scores": lambda _scores, _truth, others: others,
        **{name: by_method(name) for name in METHODS},
        "platt, not drawn together": by_free_platt,
        "isotonic": by_isotonic,
    }
    print("| way | ECE, pooled | ECE, mean of classes | Brier | log loss | ratio | mAP |")
    print("|---|---|---|---|---|---|---|")
    raw = 0.0
    for name, way in ways.items():
        found = way(scores[fit], truth[fit], scores[held_out])
        pooled, by_class, brier, loss, precision = measure(found, truth[held_out])
        raw = raw or loss
        print(
            f"| {name} | {pooled:.5f} | {by_class:.5f} | {brier:.6f} | {loss:.6f} | "
            f"{loss / raw:.3f} | {precision:.4f} |"
        )


if __name__ == "__main__":
    main()
