"""The student: a convolutional trunk on one log-mel patch, and an adaptor into VGGish's space.

Keras 3, free of any one backend. The trunk guesses the teacher's embedding by way of three of the
teacher's maps, the last ones of their size; a part ends at each:

========== ============================================================= ==================
part       stages                                                        gives
========== ============================================================= ==================
``near``   1: tiles of 4 x 4 of the patch, 24 x 16 places; 2: 12 x 8     12 x 8 x 256
``middle`` 3: 6 x 4 places                                               6 x 4 x 512
``far``    4: 3 x 2 places                                               3 x 2 x 1024
========== ============================================================= ==================

The mean over the places of the last map is the embedding. A stage begins with a convolution that
merges 2 x 2 places, has residual blocks, and ends a part with a 1 x 1 convolution to the map's
width. A block is one 3 x 3 convolution over all channels, or a *bottleneck*: 1 x 1 to fewer
channels, 3 x 3, 1 x 1 back (He et al., "Deep residual learning", 2016). All are normalised by batch
and end with ReLU, those that give a map with ReLU6, as the teacher's do.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiosearch.classifier.network import import_keras
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from tools.lite.teacher import EMBEDDING, HIGHEST, MAPS

__all__ = [
    "PARTS",
    "Convolution",
    "StudentConfig",
    "build_adaptor",
    "build_trunk",
    "config_from_dict",
    "convolutions",
    "layers_of",
]

PARTS = ("near", "middle", "far")
"""The trunk's parts; part i gives map i of `teacher.MAPS`."""

TILE = 4
KERNEL = 3
INPUT_MEAN, INPUT_DEVIATION = -1.0, 2.0
"""What patches are standardised by: round values near those of real sounds."""

NORM_MOMENTUM, NORM_EPSILON = 0.97, 1e-3
_STAGES = 4


@dataclass(frozen=True)
class StudentConfig:
    """Shape of a student.

    Attributes
    ----------
    channels : tuple of int
        Channels of each of the four stages.
    depths : tuple of int
        Residual blocks of each.
    inner : tuple of int
        Channels inside each stage's bottlenecks; 0 for blocks of one 3 x 3 convolution.
    hidden : tuple of int
        Widths of the adaptor's hidden layers.
    """

    channels: tuple[int, ...] = (48, 128, 320, 384)
    depths: tuple[int, ...] = (3, 1, 4, 2)
    inner: tuple[int, ...] = (0, 0, 128, 160)
    hidden: tuple[int, ...] = (512, 512)

    def __post_init__(self) -> None:
        if {len(self.channels), len(self.depths), len(self.inner)} != {_STAGES}:
            raise InvalidArgumentError(
                f"channels, depths and inner must name {_STAGES} numbers each, one a stage."
            )
        if min(self.channels) < 1 or min(self.hidden, default=1) < 1:
            raise InvalidArgumentError("channels and hidden must be at least 1.")
        if min(*self.depths, *self.inner) < 0:
            raise InvalidArgumentError("depths and inner must be at least 0.")


def config_from_dict(values: Mapping[str, Any]) -> StudentConfig:
    """Return a shape from what `dataclasses.asdict` made of it, also by way of JSON.

    Raises
    ------
    DataError
        When it is none, or the shape of another version's student.
    """
    try:
        return StudentConfig(**{name: tuple(numbers) for name, numbers in values.items()})
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"A student of the shape {values} is of another version of these tools. Train it "
            "anew, or take that version."
        ) from error


@dataclass(frozen=True)
class Convolution:
    """A convolution of the trunk: kernel and stride, and whether it gives a map."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    gives_map: bool = False
    adds_to: bool = False
    """Whether its result is added to what its block was given."""


def convolutions(config: StudentConfig) -> Iterator[tuple[int, list[Convolution]]]:
    """Yield the trunk's convolutions by part, 0 to 2, in groups: a block's are one group."""
    inputs = 1
    for stage in range(1, _STAGES + 1):
        part = max(0, stage - 2)
        channels, inner = config.channels[stage - 1], config.inner[stage - 1]
        size = TILE if stage == 1 else 2
        name = "tiles" if stage == 1 else f"merge_{stage}"
        yield part, [Convolution(name, inputs, channels, size, size)]
        for number in range(1, config.depths[stage - 1] + 1):
            at = f"{stage}_{number}"
            if inner:
                yield (
                    part,
                    [
                        Convolution(f"squeeze_{at}", channels, inner, 1, 1),
                        Convolution(f"inner_{at}", inner, inner, KERNEL, 1),
                        Convolution(f"expand_{at}", inner, channels, 1, 1, adds_to=True),
                    ],
                )
            else:
                yield part, [Convolution(f"full_{at}", channels, channels, KERNEL, 1, adds_to=True)]
        inputs = channels
        if stage > 1:
            inputs = MAPS[part][-1]
            yield part, [Convolution(f"map_{stage}", channels, inputs, 1, 1, gives_map=True)]


def build_trunk(config: StudentConfig, *, precision: str = "float32") -> Any:
    """Build an untrained trunk.

    Parameters
    ----------
    config : StudentConfig
        Its shape.
    precision : str
        Keras dtype policy of the convolutions; the result is float32 in any.

    Returns
    -------
    keras.Model
        Input float32 (batch, 96, 64), log-mel; output float32 (batch, 1024), the teacher's
        embedding, 0 to 6. Its layers ``near``, ``middle`` and ``far`` are models, each of which
        gives a map of the teacher's, (batch, time, frequency, channels).
    """
    keras = import_keras()
    layers = keras.layers
    patch = keras.Input((PATCH_FRAMES, MEL_BANDS), name="log_mel")
    values = patch
    for part in range(len(PARTS)):
        values = _build_part(keras, config, part, precision)(values)
    values = layers.Activation("linear", dtype="float32", name="wide")(values)
    embedding = layers.GlobalAveragePooling2D(name="mean")(values)
    return keras.Model(patch, embedding, name="trunk")


def _build_part(keras: Any, config: StudentConfig, part: int, precision: str) -> Any:
    layers = keras.layers
    if part == 0:
        given = keras.Input((PATCH_FRAMES, MEL_BANDS), name="log_mel")
        scaled = layers.Rescaling(
            1 / INPUT_DEVIATION, -INPUT_MEAN / INPUT_DEVIATION, name="scaled"
        )(given)
        values = layers.Reshape((PATCH_FRAMES, MEL_BANDS, 1), name="image")(scaled)
    else:
        given = keras.Input(MAPS[part - 1], name=f"map_of_{PARTS[part - 1]}")
        values = given
    for number, group in convolutions(config):
        if number != part:
            continue
        before = values
        for convolution in group:
            values = _convolved(keras, values, convolution, precision)
        if group[-1].adds_to:
            name = group[-1].name
            values = layers.Add(dtype=precision, name=f"add_{name}")([before, values])
    return keras.Model(given, values, name=PARTS[part])


def _convolved(keras: Any, values: Any, convolution: Convolution, precision: str) -> Any:
    layers, name = keras.layers, convolution.name
    values = layers.Conv2D(
        convolution.outputs,
        convolution.kernel,
        convolution.stride,
        padding="valid" if convolution.kernel == convolution.stride else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        dtype=precision,
        name=name,
    )(values)
    values = _norm_class()(
        momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON, dtype=precision, name=f"{name}_norm"
    )(values)
    highest = HIGHEST if convolution.gives_map else None
    return layers.ReLU(max_value=highest, dtype=precision, name=f"{name}_relu")(values)


def layers_of(trunk: Any) -> dict[str, Any]:
    """Return the layers of a trunk's parts by their names."""
    return {layer.name: layer for part in PARTS for layer in trunk.get_layer(part).layers}


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
        Input float32 (batch, 1024), the teacher's embedding or a guess of it; output float32
        (batch, 128). Not clipped: see `tools.lite.export`.
    """
    keras = import_keras()
    layers = keras.layers
    features = keras.Input((EMBEDDING,), name="features")
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
