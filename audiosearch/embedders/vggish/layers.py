"""VGGish's layers: their names in the published checkpoint, their shapes, and a set's identity.

Six convolutions of 3 x 3 (padded, ReLU) in four groups, each group followed by max-pooling of
2 x 2; the result, 6 x 4 x 512, flattened in that order; two dense layers of 4,096 (ReLU); and a
dense layer of 128 without activation, whose output is the embedding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.errors import ModelError

__all__ = [
    "LAYERS",
    "PARAMETERS",
    "Layer",
    "Weights",
    "checked_weights",
    "weights_identity",
]

Weights = Mapping[str, npt.NDArray[np.float32]]
"""Arrays by their names in the published checkpoint, such as ``vggish/conv1/weights``."""


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Attributes
    ----------
    name : str
        Its last name, unique in the network.
    scope : str
        Its name in the checkpoint.
    shape : tuple of int
        Of its kernel, as TensorFlow has it: (height, width, inputs, outputs), or (inputs, outputs).
    pooled : bool
        Whether max-pooling follows it.
    """

    name: str
    scope: str
    shape: tuple[int, ...]
    pooled: bool = False

    @property
    def units(self) -> int:
        """How many outputs it has."""
        return self.shape[-1]

    @property
    def kernel(self) -> str:
        """Name of its kernel in the checkpoint."""
        return f"{self.scope}/weights"

    @property
    def bias(self) -> str:
        """Name of its bias in the checkpoint."""
        return f"{self.scope}/biases"


# The patch (96, 64) is halved four times.
FLAT = (6, 4, 512)

LAYERS = (
    Layer("conv1", "vggish/conv1", (3, 3, 1, 64), pooled=True),
    Layer("conv2", "vggish/conv2", (3, 3, 64, 128), pooled=True),
    Layer("conv3_1", "vggish/conv3/conv3_1", (3, 3, 128, 256)),
    Layer("conv3_2", "vggish/conv3/conv3_2", (3, 3, 256, 256), pooled=True),
    Layer("conv4_1", "vggish/conv4/conv4_1", (3, 3, 256, 512)),
    Layer("conv4_2", "vggish/conv4/conv4_2", (3, 3, 512, 512), pooled=True),
    Layer("fc1_1", "vggish/fc1/fc1_1", (math.prod(FLAT), 4096)),
    Layer("fc1_2", "vggish/fc1/fc1_2", (4096, 4096)),
    Layer("fc2", "vggish/fc2", (4096, 128)),
)
"""The layers in the order in which they are applied, and in which they were made."""

SHAPES: dict[str, tuple[int, ...]] = {
    name: shape
    for layer in LAYERS
    for name, shape in ((layer.kernel, layer.shape), (layer.bias, (layer.units,)))
}
"""Shape of every array of `Weights`, in the order in which they were made."""

PARAMETERS = sum(math.prod(shape) for shape in SHAPES.values())
"""How many numbers a set of weights has: 72,141,184."""


def checked_weights(weights: Weights, *, origin: str) -> Weights:
    """Return exactly the arrays of VGGish, contiguous float32, or refuse them.

    Parameters
    ----------
    weights : mapping
        What was read; arrays that are not VGGish's are left out.
    origin : str
        What messages call it.

    Raises
    ------
    ModelError
        When an array is missing, has another shape or type, or is not finite.
    """
    missing = [name for name in SHAPES if name not in weights]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{origin} holds no weights of VGGish: {', '.join(missing[:3])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Name a SavedModel of google/vggish, "
            "or the checkpoint vggish_model.ckpt."
        )
    found = {}
    for name, shape in SHAPES.items():
        array = np.asarray(weights[name])
        if array.shape != shape or array.dtype != np.float32:
            raise ModelError(
                f"{origin} holds another network: {name} is {array.dtype} {array.shape}, not "
                f"float32 {shape} as in VGGish."
            )
        if not np.isfinite(array).all():
            raise ModelError(f"{origin} is damaged: {name} holds values that are not finite.")
        found[name] = np.ascontiguousarray(array)
    return found


def weights_identity(weights: Weights, *more: npt.NDArray[np.float64]) -> str:
    """Return what identifies a set of weights: the same whatever file it came from.

    It is what libraries record, so that those made from the SavedModel and from the checkpoint,
    with whatever versions of TensorFlow and onnx, fit together.

    Parameters
    ----------
    weights : mapping
        As `checked_weights` returns them.
    *more : np.ndarray
        What else decides the embedding: the parameters of the post-processing.

    Returns
    -------
    str
        SHA-256 of all values, little-endian, in the order of `LAYERS`; 64 hexadecimal digits.
    """
    digest = hashlib.sha256(b"audiosearch vggish 1\n")
    for name in SHAPES:
        digest.update(np.ascontiguousarray(weights[name], "<f4").data)
    for array in more:
        digest.update(np.ascontiguousarray(array, "<f8").data)
    return digest.hexdigest()
