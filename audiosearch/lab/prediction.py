"""Use of a classifier that the lab trained. Needs neither Keras nor scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import AudioError, ModelError, printable
from audiosearch.lab.features import get_feature
from audiosearch.lab.waveforms import ClipLength, windows
from audiosearch.models import read_model

__all__ = ["LabClassifier", "Prediction", "WindowScores", "predict"]

_BATCH = 16


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


class LabClassifier:
    """A classifier in a folder.

    Parameters
    ----------
    folder : path-like
        What `audiosearch.lab.train_lab` wrote.

    Attributes
    ----------
    classes : tuple of str
        Its classes.
    manifest : mapping
        What its manifest says.

    Raises
    ------
    ModelError
        When files are missing or damaged, it is no classifier of the lab, or its embedder has
        changed since.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        import onnxruntime

        remedy = "Name the folder that `audiosearch lab train --out` wrote."
        model = read_model(Path(folder), "classifier", remedy=remedy)
        name = printable(os.fspath(model.path))
        self.manifest = model.manifest
        if model.manifest.get("kind") != "lab":
            raise ModelError(f"{name} is no classifier of the lab. {remedy}")
        self.classes = tuple(str(label) for label in model.manifest["classes"])
        self.length = ClipLength(**model.manifest["length"])
        self._feature = get_feature(str(model.manifest["feature"]["name"]))
        if model.manifest["feature"]["identity"] != self._feature.identity:
            raise ModelError(
                f"{name} was trained on another version of the feature '{self._feature.name}'. "
                "Train it again."
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(model.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own C extension
            raise ModelError(f"{name} cannot be loaded: {error}") from error

    def score(self, clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores of features, float32 (n, classes)."""
        scores = np.empty((len(clips), len(self.classes)), np.float32)
        for start in range(0, len(clips), _BATCH):
            batch = clips[start : start + _BATCH]
            # One batch size, so that a score never depends on what else is scored.
            padded = np.zeros((_BATCH, *batch.shape[1:]), np.float32)
            padded[: len(batch)] = batch
            (given,) = self._session.run(None, {"clip": padded})
            scores[start : start + len(batch)] = given[: len(batch)]
        return scores

    def predict(self, path: str | os.PathLike[str]) -> Prediction:
        """Classify a file, in memory that does not depend on its length.

        Raises
        ------
        AudioError
            When it cannot be read.
        """
        name = os.fspath(path)
        found: list[WindowScores] = []
        held: list[tuple[float, float, npt.NDArray[np.float32]]] = []

        def flush() -> None:
            scores = self.score(np.stack([clip for _, _, clip in held]))
            for (start, end, _), row in zip(held, scores, strict=True):
                found.append(WindowScores(round(start, 3), round(end, 3), tuple(row.tolist())))
            held.clear()

        for start, end, waveform in windows(name, self.length):
            held.append((start, end, self._feature.compute(waveform)))
            if len(held) == _BATCH:
                flush()
        if held:
            flush()
        means = np.mean([window.scores for window in found], axis=0)
        order = np.argsort(-means, kind="stable")
        labels = tuple((self.classes[index], float(means[index])) for index in order)
        return Prediction(printable(name), labels, tuple(found))


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
                yield classifier.predict(path)
            except AudioError as error:
                yield Prediction(printable(os.fspath(path)), (), (), error.reason)

    return each()
