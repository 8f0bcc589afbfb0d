"""Models that are fitted at once: logistic regression, and class means (prototypes)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import MissingDependencyError
from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.fits import Fit
from audiosearch.lab.graph import LabGraph
from audiosearch.lab.scaling import AT_ONCE, Scaling
from audiosearch.lab.settings import LabConfig

__all__ = ["fit_at_once"]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_PENALTY = 0.02
"""scikit-learn's C, small as there are hundreds of values and few sounds; see docs/lab.md."""
_SHARPNESS = 20.0  # of the softmax over cosines to the class means


def fit_at_once(features: FeatureSet, train: Rows, config: LabConfig) -> Fit:
    """Fit a model that is no network; see `audiosearch.lab.fitting.fit_model`."""
    sounds = features.sounds
    scaling = Scaling(features, train, config)
    values = np.concatenate(
        [
            scaling.apply(features.take(train[start : start + AT_ONCE]))
            for start in range(0, len(train), AT_ONCE)
        ]
    )
    targets = sounds.targets()[train]
    if config.spec.kind == "prototypes":
        kernel, bias = _prototypes(values, targets), None
    else:
        kernel, bias = _logistic(values, targets, config, multi_label=sounds.multi_label)
    is_cosine = config.spec.kind == "prototypes"
    activation = "sigmoid" if sounds.multi_label and not is_cosine else "softmax"

    def score(given: Floats) -> Floats:
        rows = scaling.apply(given)
        if is_cosine:
            rows = rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True) + 1e-8)
        return _activated(rows @ kernel + (0 if bias is None else bias), activation)

    def write() -> Any:
        graph = LabGraph(features.shape)
        rows = scaling.write(graph, "clip")
        if is_cosine:
            square = graph.op("ReduceSum", graph.op("Mul", rows, rows), graph.shape(1), keepdims=1)
            rows = graph.op(
                "Div", rows, graph.op("Sqrt", graph.op("Add", square, graph.number(1e-8)))
            )
        return graph.finish(graph.dense(rows, kernel, bias, activation), len(sounds.classes))

    parameters = kernel.size + (0 if bias is None else bias.size)
    layer = {
        "layer": "scores",
        "kind": "Prototypes" if is_cosine else "LogisticRegression",
        "output": [len(sounds.classes)],
        "parameters": int(parameters),
    }
    return Fit(score, write, [], 0, False, [layer], "cpu")


def _prototypes(values: Floats, targets: npt.NDArray[np.bool_]) -> Floats:
    """Return the classes' mean directions, (values, classes), times the softmax's sharpness."""
    units = values / np.sqrt(np.square(values).sum(axis=1, keepdims=True) + 1e-8)
    means = units.T @ targets
    lengths = np.sqrt(np.square(means).sum(axis=0, keepdims=True))
    return np.asarray(_SHARPNESS * means / np.maximum(lengths, 1e-8), np.float32)


def _logistic(
    values: Floats, targets: npt.NDArray[np.bool_], config: LabConfig, *, multi_label: bool
) -> tuple[Floats, Floats]:
    """Return kernel (values, classes) and bias (classes,) of a logistic regression."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingDependencyError(
            "scikit-learn", extra="lab", purpose="Fitting a linear classifier"
        ) from error

    def fitted(labels: npt.NDArray[Any]) -> Any:
        return LogisticRegression(
            C=_PENALTY,
            max_iter=1000,
            class_weight="balanced" if config.balance == "weights" else None,
        ).fit(values, labels)

    classes = targets.shape[1]
    kernel = np.zeros((values.shape[1], classes), np.float32)
    # A class that was never seen is never found.
    bias = np.full(classes, -30.0, np.float32)
    if multi_label:
        for index in np.flatnonzero(targets.any(axis=0)):
            if targets[:, index].all():
                bias[index] = 30.0
                continue
            one = fitted(targets[:, index])
            kernel[:, index], bias[index] = one.coef_[0], one.intercept_[0]
        return kernel, bias
    labels = targets.argmax(axis=1)
    model = fitted(labels)
    if len(model.classes_) == 2:
        kernel[:, model.classes_] = np.stack([-model.coef_[0], model.coef_[0]], axis=1) / 2
        bias[model.classes_] = np.array([-0.5, 0.5]) * model.intercept_[0]
    else:
        kernel[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return kernel, bias


def _activated(values: Floats, activation: str) -> Floats:
    from scipy.special import expit, softmax

    found = expit(values) if activation == "sigmoid" else softmax(values, axis=1)
    return np.asarray(found, np.float32)
