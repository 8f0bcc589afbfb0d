"""The student: a convolutional trunk on one log-mel patch, and an adaptor into VGGish's space.

Keras 3, free of any one backend. The trunk cuts the patch into tiles of 4 x 4, then goes through
stages of residual blocks that halve time and frequency and double the channels, and ends with the
mean over time of each frequency band. A block is one of

============== ================================================================================
``full``       a 3 x 3 convolution over all channels
``separable``  MobileNet's: 3 x 3 within each channel, then 1 x 1 over all of them
============== ================================================================================

each with batch normalisation and ReLU. Both kinds can be made wider and deeper.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiosearch.classifier.network import import_keras
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from tools.lite.teacher import EMBEDDING

__all__ = [
    "BLOCKS",
    "StudentConfig",
    "build_adaptor",
    "build_head",
    "build_trunk",
    "config_from_dict",
    "multiplications",
]

BLOCKS = ("full", "separable")
TILE = 4
KERNEL = 3
INPUT_MEAN, INPUT_DEVIATION = -1.0, 2.0
"""What patches are standardised by: round values near those of real sounds."""

NORM_MOMENTUM, NORM_EPSILON = 0.97, 1e-3


@dataclass(frozen=True)
class StudentConfig:
    """Shape of a student.

    Attributes
    ----------
    channels : int
        Channels of the first stage; each further stage has twice as many.
    depths : tuple of int
        Residual blocks of each stage, 1 to 4 stages.
    block : str
        One of `BLOCKS`.
    features : int
        Width of the layer that ends the trunk.
    hidden : tuple of int
        Widths of the adaptor's hidden layers.
    """

    channels: int = 48
    depths: tuple[int, ...] = (2, 2, 2)
    block: str = "full"
    features: int = 768
    hidden: tuple[int, ...] = (512, 512)

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise InvalidArgumentError(f"block must be one of {', '.join(BLOCKS)}.")
        if self.channels < 1 or self.features < 1 or min(self.hidden, default=1) < 1:
            raise InvalidArgumentError("channels, features and hidden must be at least 1.")
        if not 1 <= len(self.depths) <= 4 or min(self.depths) < 0:
            raise InvalidArgumentError("depths must name the blocks of 1 to 4 stages.")


def config_from_dict(values: Mapping[str, Any]) -> StudentConfig:
    """Return a shape from what `dataclasses.asdict` made of it, also by way of JSON."""
    lists = {name: tuple(values[name]) for name in ("depths", "hidden")}
    return StudentConfig(**{**values, **lists})


def build_trunk(config: StudentConfig, *, precision: str = "float32") -> Any:
    """Build an untrained trunk.

    Parameters
    ----------
    config : StudentConfig
        Its shape.
    precision : str
        Keras dtype policy of the convolutions; the features are float32 in any.

    Returns
    -------
    keras.Model
        Input float32 (batch, 96, 64), log-mel; output float32 (batch, features), not negative.
    """
    keras = import_keras()
    layers = keras.layers
    patch = keras.Input((PATCH_FRAMES, MEL_BANDS), name="log_mel")
    values = layers.Rescaling(1 / INPUT_DEVIATION, -INPUT_MEAN / INPUT_DEVIATION, name="scaled")(
        patch
    )
    values = layers.Reshape((PATCH_FRAMES, MEL_BANDS, 1), name="image")(values)
    parts = _Parts(keras, precision)
    channels = config.channels
    values = parts.convolution(values, channels, TILE, TILE, "tiles")
    for stage, depth in enumerate(config.depths, start=1):
        if stage > 1:
            channels *= 2
            values = parts.convolution(values, channels, 2, 2, f"merge_{stage}")
        for number in range(1, depth + 1):
            name = f"{stage}_{number}"
            if config.block == "full":
                changed = parts.convolution(values, channels, KERNEL, 1, f"full_{name}")
            else:
                changed = parts.depthwise(values, f"depth_{name}")
                changed = parts.convolution(changed, channels, 1, 1, f"point_{name}")
            values = layers.Add(dtype=precision, name=f"add_{name}")([values, changed])
    values = layers.Activation("linear", dtype="float32", name="map")(values)
    mean = keras.ops.mean(values, axis=1)
    flat = layers.Flatten(name="bands")(mean)
    features = layers.Dense(config.features, activation="relu", name="features")(flat)
    return keras.Model(patch, features, name="trunk")


def build_head(config: StudentConfig) -> Any:
    """Build the layer that guesses the teacher's embedding from features; it is not shipped.

    Returns
    -------
    keras.Model
        Input float32 (batch, features), output float32 (batch, 1024), standardised values.
    """
    keras = import_keras()
    features = keras.Input((config.features,), name="features")
    answer = keras.layers.Dense(EMBEDDING, name="answer")(features)
    return keras.Model(features, answer, name="head")


def build_adaptor(
    config: StudentConfig,
    *,
    mean: Sequence[float] | np.ndarray,
    deviation: Sequence[float] | np.ndarray,
) -> Any:
    """Build an untrained adaptor.

    Parameters
    ----------
    config : StudentConfig
        Its shape.
    mean, deviation : float (128,)
        Of the released embeddings' values (uint8 - 128) / 128: the adaptor's last dense layer
        gives standardised values, and a fixed affine layer puts these back.

    Returns
    -------
    keras.Model
        Input float32 (batch, features), output float32 (batch, 128). Not clipped: see
        `tools.lite.export`.
    """
    keras = import_keras()
    layers = keras.layers
    features = keras.Input((config.features,), name="features")
    values = layers.BatchNormalization(
        momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON, name="standardised"
    )(features)
    for number, width in enumerate(config.hidden, start=1):
        values = layers.Dense(width, activation="relu", name=f"hidden_{number}")(values)
    values = layers.Dense(EMBEDDING_SIZE, name="standard_embedding")(values)
    scaled = layers.Rescaling(
        np.asarray(deviation, np.float32).tolist(),
        np.asarray(mean, np.float32).tolist(),
        name="embedding",
    )(values)
    return keras.Model(features, scaled, name="adaptor")


def multiplications(config: StudentConfig) -> int:
    """Return how many multiplications one patch takes."""
    height, width = PATCH_FRAMES // TILE, MEL_BANDS // TILE
    channels = config.channels
    total = height * width * channels * TILE * TILE
    for stage, depth in enumerate(config.depths, start=1):
        if stage > 1:
            height, width = height // 2, width // 2
            total += height * width * channels * 4 * channels * 2
            channels *= 2
        full = KERNEL * KERNEL * channels * channels
        separable = KERNEL * KERNEL * channels + channels * channels
        total += depth * height * width * (full if config.block == "full" else separable)
    total += width * channels * config.features
    widths = [config.features, *config.hidden, EMBEDDING_SIZE]
    return total + sum(a * b for a, b in itertools.pairwise(widths))


class _Parts:
    """Convolutions with normalisation and ReLU."""

    def __init__(self, keras: Any, precision: str) -> None:
        self._layers = keras.layers
        self._precision = precision
        self._norm = _norm_class()

    def convolution(self, values: Any, filters: int, kernel: int, stride: int, name: str) -> Any:
        padding = "valid" if kernel == stride else "same"
        convolve = self._layers.Conv2D(
            filters,
            kernel,
            stride,
            padding=padding,
            use_bias=False,
            kernel_initializer="he_normal",
            dtype=self._precision,
            name=name,
        )
        return self._finished(convolve(values), name)

    def depthwise(self, values: Any, name: str) -> Any:
        convolve = self._layers.DepthwiseConv2D(
            KERNEL, padding="same", use_bias=False, dtype=self._precision, name=name
        )
        return self._finished(convolve(values), name)

    def _finished(self, values: Any, name: str) -> Any:
        norm = self._norm(
            momentum=NORM_MOMENTUM,
            epsilon=NORM_EPSILON,
            dtype=self._precision,
            name=f"{name}_norm",
        )
        active = self._layers.Activation("relu", dtype=self._precision, name=f"{name}_relu")
        return active(norm(values))


@functools.cache
def _norm_class() -> Any:
    """Return Keras' batch normalisation, in training on torch by torch's own fused kernel.

    Keras computes it step by step, in float32: that takes a third of the training time.
    """
    keras = import_keras()

    base: Any = keras.layers.BatchNormalization

    class Norm(base):
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if keras.backend.backend() != "torch" or not training or not self.trainable:
                return super().call(inputs, training=training, mask=mask)
            import torch

            normal = torch.nn.functional.batch_norm(
                inputs.permute(0, 3, 1, 2),
                self.moving_mean.value,
                self.moving_variance.value,
                self.gamma.value,
                self.beta.value,
                training=True,
                momentum=1.0 - self.momentum,
                eps=self.epsilon,
            )
            return normal.permute(0, 2, 3, 1)

    return Norm
