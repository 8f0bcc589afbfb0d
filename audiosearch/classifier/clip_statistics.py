"""Statistics of a clip's frames that rescorers read, as arrays and as nodes of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.nodes import Nodes
from audiosearch.datasets.packed import frame_mask
from audiosearch.embedders.base import dequantize

__all__ = ["ClipNodes", "clip_statistics"]

Floats = npt.NDArray[np.float32]

_FAR = 9.0  # beyond any value of a frame


def clip_statistics(
    x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.integer]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return mean, standard deviation, largest and smallest values of clips' frames.

    Parameters
    ----------
    x : uint8 (n, 10, 128)
        Embedding frames; what stands beyond a clip's frames is ignored.
    n_frames : int (n,)
        How many frames each clip has, 1 to 10.

    Returns
    -------
    four of float32 (n, 128)
        Of the values ``(uint8 - 128) / 128``.
    """
    mask = frame_mask(n_frames)[:, :, None]
    weight = mask / mask.sum(axis=1, keepdims=True)
    frames = dequantize(x)
    mean = (frames * weight).sum(axis=1)
    deviation = np.sqrt((np.square(frames - mean[:, None]) * weight).sum(axis=1))
    largest = np.where(mask > 0, frames, -_FAR).max(axis=1)
    smallest = np.where(mask > 0, frames, _FAR).min(axis=1)
    return mean, deviation, largest, smallest


class ClipNodes(Nodes):
    """A rescorer's graph so far, of the inputs ``logits``, ``frames`` and ``mask``."""

    def __init__(self) -> None:
        super().__init__()
        self._column = self.op("Unsqueeze", "mask", self.shape(2))

    def mean(self, values: str, *, keep: bool = False) -> str:
        """Add the mean of values (clips, frames, n) over the frames that exist."""
        axis, kept = self.shape(1), int(keep)
        total = self.op("ReduceSum", self.op("Mul", values, self._column), axis, keepdims=kept)
        return self.op("Div", total, self.op("ReduceSum", self._column, axis, keepdims=kept))

    def deviation(self) -> str:
        """Add the standard deviation of the frames."""
        off = self.op("Sub", "frames", self.mean("frames", keep=True))
        return self.op("Sqrt", self.mean(self.op("Mul", off, off)))

    def largest(self) -> str:
        """Add the largest values of the frames."""
        away = self.op("Sub", "frames", self._away())
        return self.op("ReduceMax", away, axes=[1], keepdims=0)

    def smallest(self) -> str:
        """Add the smallest values of the frames."""
        away = self.op("Add", "frames", self._away())
        return self.op("ReduceMin", away, axes=[1], keepdims=0)

    def _away(self) -> str:
        """Add what takes frames that do not exist out of the largest and smallest values."""
        missing = self.op("Sub", self.number(1), self._column)
        return self.op("Mul", missing, self.number(_FAR))

    def rescorer(self, scores: str, classes: int) -> Any:
        """Return the model whose scores are the value of that name, as an ``onnx.ModelProto``."""
        from onnx import TensorProto, helper

        model = self.model(scores, classes)
        shape = ["clips", classes]
        model.graph.input.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
        return model
