"""The multi-level attention network, in Keras 3 and free of any one backend.

Source: Yu, Barsim, Kong, Yang, "Multi-level attention model for weakly supervised audio
classification" (arXiv:1803.02353). A stack of dense layers embeds each frame; after some of them
(the levels) an attention pool turns the frames into one score per class; a last dense layer weighs
the levels. The attention is normalised over the frames that exist, so a short clip is not averaged
with its padding.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from audiosearch.errors import InvalidArgumentError, MissingDependencyError
from audiosearch.labels import CLASS_COUNT

__all__ = ["NetworkConfig", "build_network"]

FRAMES = 10
FRAME_VALUES = 128


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a multi-level attention network.

    Attributes
    ----------
    units : int
        Width of each hidden layer.
    layers : int
        How many hidden layers there are.
    levels : tuple of int
        After which hidden layers (1 is the first) an attention pool stands.
    dropout : float
        Share of hidden values dropped in training, 0 up to (not including) 1.
    classes : int
        How many classes are scored.
    """

    units: int = 1024
    layers: int = 3
    levels: tuple[int, ...] = (2, 3)
    dropout: float = 0.5
    classes: int = CLASS_COUNT

    def __post_init__(self) -> None:
        if self.units < 1 or self.layers < 1 or self.classes < 1:
            raise InvalidArgumentError("units, layers and classes must each be at least 1.")
        if not 0 <= self.dropout < 1:
            raise InvalidArgumentError(f"dropout must be from 0 up to 1, not {self.dropout}.")
        if not self.levels or not all(1 <= level <= self.layers for level in self.levels):
            raise InvalidArgumentError(
                f"levels must name hidden layers from 1 to {self.layers}, not {self.levels}."
            )


def build_network(config: NetworkConfig | None = None, *, precision: str = "float32") -> Any:
    """Build an untrained network.

    Parameters
    ----------
    config : NetworkConfig, optional
        Its shape.
    precision : str
        Keras dtype policy of the layers; the scores are float32 in any.

    Returns
    -------
    keras.Model
        Inputs ``frames``, float32 (batch, 10, 128), values ``(uint8 - 128) / 128``, and ``mask``,
        float32 (batch, 10), 1 where there is a frame. Output ``scores``, float32 (batch, classes),
        from 0 to 1.

    Raises
    ------
    MissingDependencyError
        When keras is not installed.
    """
    config = config or NetworkConfig()
    keras = import_keras()
    layers = keras.layers
    frames = keras.Input((FRAMES, FRAME_VALUES), name="frames")
    mask = keras.Input((FRAMES,), name="mask")
    weight = layers.Reshape((FRAMES, 1), name="mask_column")(mask)
    dense = functools.partial(keras.layers.Dense, dtype=precision)
    hidden = frames
    levels = []
    for number in range(1, config.layers + 1):
        hidden = dense(config.units, name=f"hidden_{number}")(hidden)
        hidden = layers.BatchNormalization(name=f"norm_{number}", dtype=precision)(hidden)
        hidden = layers.Activation("relu", name=f"relu_{number}", dtype=precision)(hidden)
        hidden = layers.Dropout(config.dropout, name=f"dropout_{number}", dtype=precision)(hidden)
        if number in config.levels:
            score = dense(config.classes, activation="sigmoid", name=f"score_{number}")(hidden)
            attention = dense(config.classes, activation="sigmoid", name=f"attention_{number}")(
                hidden
            )
            levels.append(_weighted_mean(keras, score, attention * weight))
    joined = levels[0] if len(levels) == 1 else layers.Concatenate(name="levels")(levels)
    # float32 keeps the loss and small scores exact when the rest runs in mixed precision.
    scores = layers.Dense(config.classes, activation="sigmoid", dtype="float32", name="scores")(
        joined
    )
    return keras.Model([frames, mask], scores, name="multi_level_attention")


def import_keras() -> Any:
    """Import keras, with a sentence that says what to install where it is missing."""
    try:
        import keras
    except ImportError as error:
        raise MissingDependencyError("keras", extra="tensorflow", purpose="Training") from error
    return keras


def _weighted_mean(keras: Any, score: Any, attention: Any) -> Any:
    """Return the mean of the frames' class scores, weighed by attention; (batch, classes)."""
    ops = keras.ops
    return ops.sum(attention * score, axis=1) / ops.maximum(ops.sum(attention, axis=1), 1e-12)
