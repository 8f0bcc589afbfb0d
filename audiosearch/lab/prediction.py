"""What a classifier of the lab says of files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audiosearch.errors import AudioError, printable
from audiosearch.own.classifier import LabClassifier, Track

__all__ = ["LabClassifier", "Prediction", "WindowScores", "predict"]


@dataclass(frozen=True)
class WindowScores:
    """What is heard in a stretch of a file; scores by class, in the classifier's order."""

    start: float
    end: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of a file.

    Attributes
    ----------
    path : str
        The file.
    labels : tuple of (str, float)
        Classes and scores, best first: the means over its windows.
    windows : tuple of WindowScores
        The file in consecutive windows of the clip length.
    reason : str or None
        Why nothing can be said, where the file cannot be read.
    """

    path: str
    labels: tuple[tuple[str, float], ...]
    windows: tuple[WindowScores, ...]
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "path": self.path,
            "labels": [{"label": label, "score": score} for label, score in self.labels],
            "windows": [asdict(window) for window in self.windows],
            "reason": self.reason,
        }


def predict(
    folder: str | os.PathLike[str], files: Iterable[str | os.PathLike[str]]
) -> Iterator[Prediction]:
    """Classify files; one that cannot be read says why and does not stop the others.

    Raises
    ------
    ModelError
        As `LabClassifier`.
    """
    classifier = LabClassifier(folder)

    def each() -> Iterator[Prediction]:
        for path in files:
            try:
                yield _prediction(os.fspath(path), classifier.track(path))
            except AudioError as error:
                yield Prediction(printable(os.fspath(path)), (), (), error.reason)

    return each()


def _prediction(name: str, track: Track) -> Prediction:
    means = track.scores.mean(axis=0, dtype=np.float64)
    order = np.argsort(-means, kind="stable")
    labels = tuple((track.classes[index], float(means[index])) for index in order)
    rows = zip(track.starts, track.ends, track.scores.tolist(), strict=True)
    windows = tuple(
        WindowScores(round(float(start), 3), round(float(end), 3), tuple(scores))
        for start, end, scores in rows
    )
    return Prediction(printable(name), labels, windows)
