"""What fitting gives: a fitted model, its epochs, and where a training can go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Checkpoint", "Fit", "LabEpoch"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabEpoch:
    """What one epoch gave; what was validated is None where nothing was held out."""

    epoch: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float

    def figures(self) -> dict[str, float | None]:
        """Return what a chart by epoch shows."""
        return {
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            "learning_rate": self.learning_rate,
        }


@dataclass(frozen=True)
class Checkpoint:
    """Where a training of a network can go on.

    Attributes
    ----------
    arrays : list of array
        Variables of network and optimiser after the last epoch, then the best epoch's weights.
    epochs : list of LabEpoch
        All so far.
    """

    arrays: list[npt.NDArray[Any]]
    epochs: list[LabEpoch]


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes
    ----------
    score : callable
        Takes features, float32 (n, *shape), and returns scores, float32 (n, classes).
    write : callable
        Returns it as an ONNX model of the features.
    epochs : list of LabEpoch
        Of a network.
    best : int
        The epoch that was kept; 0 where there are none.
    interrupted : bool
        Whether it was stopped by Ctrl-C; what is here is the best until then.
    layers : list of dict
        Layers, shapes, parameters.
    device : str
        What it was fitted on.
    """

    score: Callable[[Floats], Floats]
    write: Callable[[], Any]
    epochs: list[LabEpoch]
    best: int
    interrupted: bool
    layers: list[dict[str, Any]]
    device: str

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(int(layer["parameters"]) for layer in self.layers)
