"""Results of a comparison: of one training, and of a model over all of its trainings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.lab.measures import Measures
from audiosearch.lab.usage import UsageSample

__all__ = ["FoldResult", "ModelResult"]


@dataclass(frozen=True)
class FoldResult:
    """One training and its test."""

    split: str
    seed: int
    accuracy: float
    seconds: float
    epochs: list[dict[str, Any]]


@dataclass(frozen=True)
class ModelResult:
    """A model's results over all splits and seeds.

    Attributes
    ----------
    model : str
        Its name.
    measures : Measures
        Over all tested sounds; where there are several seeds, of their mean scores.
    accuracy : float
        Mean over sounds and seeds.
    interval : (float, float)
        95 % bootstrap interval of it over groups of sounds that hang together.
    seed_accuracies : list of float
        Of each seed; one where nothing depends on it.
    folds : list of FoldResult
        Each training.
    feature_seconds : float
        Time to compute what features were not there yet.
    train_seconds : float
        Time of the trainings of all folds and seeds, added up; they may have run at once.
    score_ms : float or None
        Time to score one clip's features, in a batch of 16, with ONNX Runtime; it is taken when
        nothing is trained any more.
    parameters : int
        How many numbers the model has.
    layers : list of dict
        Layers, shapes, parameters.
    usage : list of UsageSample
        Cores and memory of all its trainings, over time.
    scores : float32 (sounds, classes)
        The mean over seeds of the scores that each sound had when it was tested.
    right : float64 (sounds,)
        In which share of the seeds each sound was right; of several classes, of the decisions.
    """

    model: str
    measures: Measures
    accuracy: float
    interval: tuple[float, float]
    seed_accuracies: list[float]
    folds: list[FoldResult]
    feature_seconds: float
    train_seconds: float
    score_ms: float | None
    parameters: int
    layers: list[dict[str, Any]]
    usage: list[UsageSample]
    scores: npt.NDArray[np.float32]
    right: npt.NDArray[np.float64]

    @property
    def peak_mb(self) -> float:
        """The most memory that was taken during the training."""
        return max(each.memory_mb for each in self.usage)

    @property
    def cores(self) -> float:
        """How many cores were busy on average."""
        spans = np.diff([0.0, *(each.seconds for each in self.usage)])
        return float(np.average([each.cores for each in self.usage], weights=spans + 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without the scores of each sound."""
        return {
            "model": self.model,
            "accuracy": round(self.accuracy, 6),
            "interval": [round(value, 6) for value in self.interval],
            "seed_accuracies": [round(value, 6) for value in self.seed_accuracies],
            "measures": self.measures.to_dict(),
            "feature_seconds": round(self.feature_seconds, 2),
            "train_seconds": round(self.train_seconds, 2),
            "score_ms": None if self.score_ms is None else round(self.score_ms, 4),
            "parameters": self.parameters,
            "peak_mb": round(self.peak_mb),
            "usage": [
                {name: round(value, 2) for name, value in asdict(each).items()}
                for each in self.usage
            ],
            "layers": self.layers,
            "folds": [asdict(fold) for fold in self.folds],
        }
