"""The attention family of clip classifiers, in Keras 3 and free of any one backend.

All share a trunk of dense layers that embeds each frame. They differ in how the frames of a clip
become one score per class:

=========================== =====================================================================
``max-pooling``             the best frame's score
``average-pooling``         the mean of the frames' scores
``single-attention``        the mean weighed by a learned attention (Kong et al.,
                            arXiv:1711.00927)
``multi-level-attention``   attention pools after several hidden layers (the levels), weighed by
                            a last dense layer (Yu et al., arXiv:1803.02353)
``feature-level-attention`` attention over each hidden feature instead of each class, then a dense
                            layer (Kong et al., arXiv:1903.00765, with one level, the last)
=========================== =====================================================================

Attention is normalised over the frames that exist, so a short clip is not averaged with padding.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audiosearch.errors import InvalidArgumentError, MissingDependencyError
from audiosearch.labels import CLASS_COUNT

__all__ = ["ARCHITECTURES", "NetworkConfig", "build_network", "import_keras"]

ARCHITECTURES = (
    "max-pooling",
    "average-pooling",
    "single-attention",
    "multi-level-attention",
    "feature-level-attention",
)
ATTENTIONS = ("sigmoid", "softmax")
FRAMES = 10
FRAME_VALUES = 128
SOFTMAX_CLIP = 1e-7
_OWN_LEVELS = 12.0  # takes a score of 0 to the logit -6, and one of 1 to 6
TINY = 1e-12  # keeps a sum of attentions that are all zero from dividing by it


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network.

    Attributes
    ----------
    architecture : str
        One of `ARCHITECTURES`.
    units : int
        Width of each hidden layer.
    layers : int
        How many hidden layers there are.
    levels : tuple of int
        Multi-level and feature-level attention: after which hidden layers (1 is the first) a
        pool stands.
    attention : str
        What attention is before it is normalised over time: ``sigmoid``, or ``softmax`` over the
        classes (or features), clipped to at least 1e-7 from 0 and 1, as the authors' code has it.
    residual : bool
        Whether hidden layers after the first add to their input.
    dropout : float
        Share of hidden values dropped in training, 0 up to (not including) 1.
    classes : int
        How many classes are scored.
    """

    architecture: str = "multi-level-attention"
    units: int = 1024
    layers: int = 3
    levels: tuple[int, ...] = (2, 3)
    attention: str = "sigmoid"
    residual: bool = False
    dropout: float = 0.5
    classes: int = CLASS_COUNT

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise InvalidArgumentError(
                f"architecture must be one of {', '.join(ARCHITECTURES)}, not "
                f"'{self.architecture}'."
            )
        if self.attention not in ATTENTIONS:
            raise InvalidArgumentError(
                f"attention must be one of {', '.join(ATTENTIONS)}, not '{self.attention}'."
            )
        if self.units < 1 or self.layers < 1 or self.classes < 1:
            raise InvalidArgumentError("units, layers and classes must each be at least 1.")
        if not 0 <= self.dropout < 1:
            raise InvalidArgumentError(f"dropout must be from 0 up to 1, not {self.dropout}.")
        if not self.levels or not all(1 <= level <= self.layers for level in self.levels):
            raise InvalidArgumentError(
                f"levels must name hidden layers from 1 to {self.layers}, not {self.levels}."
            )
        if len(set(self.levels)) != len(self.levels):
            raise InvalidArgumentError(f"levels must name a layer once each, not {self.levels}.")


def build_network(
    config: NetworkConfig | None = None,
    *,
    precision: str = "float32",
    timeline: bool = False,
    layers: Mapping[str, Any] | None = None,
) -> Any:
    """Build an untrained network.

    Parameters
    ----------
    config : NetworkConfig, optional
        Its shape.
    precision : str
        Keras dtype policy of the hidden layers; the scores are float32 in any.
    timeline : bool
        Whether it also returns what each frame says. The weights are the same either way.
    layers : mapping, optional
        Layers to take, by name, instead of Keras's own ``BatchNormalization`` and ``Dropout``.

    Returns
    -------
    keras.Model
        Inputs ``frames``, float32 (batch, 10, 128), values ``(uint8 - 128) / 128``, and ``mask``,
        float32 (batch, 10), 1 where there is a frame. Output ``scores``, float32 (batch, classes),
        from 0 to 1. With `timeline` a list: ``scores``; the frames' own scores, float32
        (batch, 10, classes), what the clip's would be if it were that frame alone; and the
        attention, float32 (batch, 10, classes) or, where it is not by class, (batch, 10, 1), which
        sums to 1 over a clip's frames.

    Raises
    ------
    MissingDependencyError
        When keras is not installed.
    """
    config = config or NetworkConfig()
    keras = import_keras()
    frames = keras.Input((FRAMES, FRAME_VALUES), name="frames")
    mask = keras.Input((FRAMES,), name="mask")
    column = keras.layers.Reshape((FRAMES, 1), name="mask_column")(mask)
    hidden = _trunk(keras, config, precision, frames, layers or {})
    build = {
        "max-pooling": _max_pooling,
        "average-pooling": _average_pooling,
        "single-attention": _single_attention,
        "multi-level-attention": _multi_level_attention,
        "feature-level-attention": _feature_level_attention,
    }[config.architecture]
    scores, frame_scores, attention = build(_Layers(keras, config, precision), hidden, column)
    outputs = [scores, frame_scores * column, attention] if timeline else scores
    return keras.Model([frames, mask], outputs, name=config.architecture.replace("-", "_"))


def import_keras() -> Any:
    """Import keras, with a sentence that says what to install where it is missing."""
    try:
        import keras
    except ImportError as error:
        raise MissingDependencyError("keras", extra="tensorflow", purpose="Training") from error
    return keras


class _Layers:
    """The layers and operations that the pools share."""

    def __init__(self, keras: Any, config: NetworkConfig, precision: str) -> None:
        self.ops = keras.ops
        self.config = config
        self._keras = keras
        self._dense = functools.partial(keras.layers.Dense, dtype=precision)
        # Classes are rare: from a bias of 0, thousands of steps go into learning that alone.
        start: dict[str, Any] = {"bias_initializer": self._at(-5.0)}
        if config.architecture == "multi-level-attention":
            start = {"kernel_initializer": self._level_sum, "bias_initializer": self._at(-6.0)}
        # float32 keeps the loss and small scores exact when the rest runs in mixed precision.
        self.scores = keras.layers.Dense(
            config.classes, activation="sigmoid", dtype="float32", name="scores", **start
        )
        self._concatenate = keras.layers.Concatenate

    def dense(
        self, values: Any, units: int, activation: str | None, name: str, *, bias: float = 0.0
    ) -> Any:
        return self._dense(
            units, activation=activation, name=name, bias_initializer=self._at(bias)
        )(values)

    def attention(self, hidden: Any, units: int, column: Any, name: str) -> Any:
        """Return attention that sums to 1 over the frames that exist; (batch, frames, units)."""
        raw = self.dense(hidden, units, self.config.attention, name)
        if self.config.attention == "softmax":
            raw = self.ops.clip(raw, SOFTMAX_CLIP, 1 - SOFTMAX_CLIP)
        raw = raw * column
        total = self.ops.sum(raw, axis=1, keepdims=True)
        return raw / self.ops.maximum(total, TINY)

    def _at(self, value: float) -> Any:
        return self._keras.initializers.Constant(value)

    def _level_sum(self, shape: tuple[int, int], dtype: str | None = None) -> Any:
        """Start the weights over the levels: a class's score is the sum of its own levels' scores.

        From the usual start, small and alike for all classes, sigmoid outputs pass hardly any
        gradient on, and training stands still for its first ten epochs.
        """
        levels = len(self.config.levels)
        own = self.ops.tile(self.ops.eye(self.config.classes, dtype=dtype), (levels, 1))
        noise = self._keras.initializers.GlorotUniform()(shape, dtype=dtype)
        return noise + _OWN_LEVELS / levels * own

    def join(self, levels: list[Any], name: str) -> Any:
        return levels[0] if len(levels) == 1 else self._concatenate(name=name)(levels)

    def mean_attention(self, column: Any) -> Any:
        """Return equal attention to all frames that exist; (batch, frames, 1)."""
        return column / self.ops.maximum(self.ops.sum(column, axis=1, keepdims=True), TINY)


def _trunk(
    keras: Any, config: NetworkConfig, precision: str, frames: Any, other: Mapping[str, Any]
) -> list[Any]:
    """Return the output of each hidden layer, (batch, frames, units) each."""
    layers = keras.layers
    normalization = other.get("BatchNormalization", layers.BatchNormalization)
    dropout = other.get("Dropout", layers.Dropout)
    hidden, outputs = frames, []
    for number in range(1, config.layers + 1):
        before = hidden
        hidden = layers.Dense(config.units, dtype=precision, name=f"hidden_{number}")(hidden)
        hidden = normalization(dtype=precision, name=f"norm_{number}")(hidden)
        hidden = layers.Activation("relu", dtype=precision, name=f"relu_{number}")(hidden)
        hidden = dropout(config.dropout, dtype=precision, name=f"dropout_{number}")(hidden)
        if config.residual and number > 1:
            hidden = layers.Add(dtype=precision, name=f"residual_{number}")([before, hidden])
        outputs.append(hidden)
    return outputs


def _max_pooling(layers: _Layers, hidden: list[Any], column: Any) -> tuple[Any, Any, Any]:
    ops = layers.ops
    frame_scores = layers.scores(hidden[-1])
    scores = ops.max(frame_scores * column, axis=1)
    best = ops.cast(frame_scores * column >= ops.expand_dims(scores, 1), "float32") * column
    return scores, frame_scores, best / ops.maximum(ops.sum(best, axis=1, keepdims=True), TINY)


def _average_pooling(layers: _Layers, hidden: list[Any], column: Any) -> tuple[Any, Any, Any]:
    frame_scores = layers.scores(hidden[-1])
    attention = layers.mean_attention(column)
    return layers.ops.sum(frame_scores * attention, axis=1), frame_scores, attention


def _single_attention(layers: _Layers, hidden: list[Any], column: Any) -> tuple[Any, Any, Any]:
    frame_scores = layers.scores(hidden[-1])
    attention = layers.attention(hidden[-1], layers.config.classes, column, "attention")
    return layers.ops.sum(frame_scores * attention, axis=1), frame_scores, attention


def _multi_level_attention(layers: _Layers, hidden: list[Any], column: Any) -> tuple[Any, Any, Any]:
    classes = layers.config.classes
    pools, frame_pools, attentions = [], [], []
    for level in sorted(layers.config.levels):
        # Classes are rare: scores start near 0.05, and with the last layer's start near 0.005.
        score = layers.dense(hidden[level - 1], classes, "sigmoid", f"score_{level}", bias=-3.0)
        attention = layers.attention(hidden[level - 1], classes, column, f"attention_{level}")
        pools.append(layers.ops.sum(attention * score, axis=1))
        frame_pools.append(score)
        attentions.append(attention)
    frame_scores = layers.scores(layers.join(frame_pools, "frame_levels"))
    return layers.scores(layers.join(pools, "levels")), frame_scores, _mean(attentions)


def _feature_level_attention(
    layers: _Layers, hidden: list[Any], column: Any
) -> tuple[Any, Any, Any]:
    ops, units = layers.ops, layers.config.units
    pools, frame_pools, attentions = [], [], []
    for level in sorted(layers.config.levels):
        features = layers.dense(hidden[level - 1], units, None, f"features_{level}")
        attention = layers.attention(hidden[level - 1], units, column, f"attention_{level}")
        pools.append(ops.sum(attention * features, axis=1))
        frame_pools.append(features)
        attentions.append(ops.mean(attention, axis=2, keepdims=True))
    frame_scores = layers.scores(layers.join(frame_pools, "frame_levels"))
    return layers.scores(layers.join(pools, "levels")), frame_scores, _mean(attentions)


def _mean(values: list[Any]) -> Any:
    return sum(values[1:], values[0]) / len(values)
