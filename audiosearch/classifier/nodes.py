"""ONNX nodes and weights, as a classifier's graph is put together from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES

__all__ = ["Nodes"]

# ONNX Runtime 1.17, the oldest that is supported, runs up to opset 20.
_OPSET = 17
_IR_VERSION = 8


class Nodes:
    """Nodes and weights so far."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def many(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node with several outputs; one that is not wanted has no name."""
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def constant(self, values: npt.NDArray[Any], name: str | None = None) -> str:
        """Add a weight, once a name, and return its name."""
        from onnx import numpy_helper

        name = name or f"constant_{len(self._weights)}"
        if all(weight.name != name for weight in self._weights):
            self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        """Add a float32 number."""
        return self.constant(np.array(value, np.float32))

    def shape(self, *sizes: int) -> str:
        """Add int64 sizes, or axes."""
        return self.constant(np.array(sizes, np.int64))

    def model(self, scores: str, classes: int) -> Any:
        """Return the model whose scores are the value of that name.

        Returns
        -------
        onnx.ModelProto
            Inputs ``frames``, float32 (clips, 10, 128), and ``mask``, float32 (clips, 10); output
            ``scores``, float32 (clips, classes).
        """
        inputs: dict[str, list[int | str]] = {
            "frames": ["clips", CLIP_FRAMES, FRAME_VALUES],
            "mask": ["clips", CLIP_FRAMES],
        }
        return self.assembled(scores, inputs, classes)

    def assembled(self, scores: str, inputs: dict[str, list[int | str]], classes: int) -> Any:
        """Return the model of these float32 inputs and the output ``scores`` (clips, classes)."""
        from onnx import TensorProto, helper

        self.op("Identity", scores, output="scores")
        *given, result = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in {**inputs, "scores": ["clips", classes]}.items()
        )
        return helper.make_model(
            helper.make_graph(self._nodes, "classifier", given, [result], self._weights),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="audiosearch",
        )
