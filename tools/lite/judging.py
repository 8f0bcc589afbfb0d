"""A classifier as part of a loss: its graph, computed by Keras, so that gradients flow through it.

Any classifier that `audiosearch train` exports can be read: the graph is followed node by node.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.network import import_keras
from audiosearch.classifier.scorer import load_scorer
from audiosearch.errors import MissingDependencyError, ModelError, printable
from audiosearch.models import bundled_model

__all__ = ["Judge"]


class Judge:
    """A classifier whose weights stay as they are.

    Parameters
    ----------
    folder : path-like, optional
        A training run's folder; the bundled classifier where None.
    calibrated : bool
        Whether its scores are calibrated, as those are that users see, where it has a calibration.

    Attributes
    ----------
    name, weights_hash : str
        Of the classifier.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    ModelError
        When the classifier cannot be read, or its graph holds an operation that is not known here.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, calibrated: bool = True
    ) -> None:
        try:
            import onnx
            from onnx import numpy_helper
        except ImportError as error:
            raise MissingDependencyError(
                "onnx", extra="tensorflow", purpose="Training against a classifier"
            ) from error
        scorer = load_scorer(None if folder is None else os.fspath(folder))
        path = bundled_model("classifier").path if folder is None else Path(folder)
        path = path if path.suffix == ".onnx" else path / "classifier.onnx"
        self.name, self.weights_hash = scorer.name, scorer.weights_hash
        graph = onnx.load(path).graph
        self._nodes = list(graph.node)
        self._constants: dict[str, Any] = {
            item.name: _constant(numpy_helper.to_array(item)) for item in graph.initializer
        }
        self._fold()
        unknown = {node.op_type for node in self._nodes} - set(_operations())
        if unknown:
            raise ModelError(
                f"{printable(str(path))} holds operations that are not known here: "
                f"{', '.join(sorted(unknown))}."
            )
        self._line = _calibration_line(scorer.manifest) if calibrated else None

    def logits(self, frames: Any, mask: Any) -> Any:
        """Return the logits of clip scores.

        Parameters
        ----------
        frames : float32 (n, 10, 128)
            Embedding values (uint8 - 128) / 128; 0 where there is no frame.
        mask : float32 (n, 10)
            1 where there is a frame.

        Returns
        -------
        float32 (n, 527)
        """
        ops = import_keras().ops
        values = {**self._constants, "frames": frames, "mask": mask}
        known = _operations()
        for node in self._nodes:
            inputs = [values[name] for name in node.input]
            values[node.output[0]] = known[node.op_type](inputs, _attributes(node))
        # The graph ends with a sigmoid (perhaps behind casts): what it is given are the logits.
        logits = values[self._end]
        if self._line is not None:
            slope, offset = self._line
            logits = logits * slope + offset
        return ops.cast(logits, "float32")

    def _fold(self) -> None:
        """Compute what depends on constants alone, drop casts, and find the logits."""
        from onnx import numpy_helper

        same: dict[str, str] = {}
        nodes = []
        for node in self._nodes:
            node.input[:] = [same.get(name, name) for name in node.input]
            if node.op_type == "Constant":
                value = _attributes(node)["value"]
                self._constants[node.output[0]] = _constant(numpy_helper.to_array(value))
            elif node.op_type in ("Cast", "Identity"):
                same[node.output[0]] = node.input[0]
            else:
                nodes.append(node)
        makers = {node.output[0]: node for node in nodes}
        last = makers[same.get("scores", "scores")]
        if last.op_type != "Sigmoid":
            raise ModelError("The classifier's graph does not end with a sigmoid.")
        self._end = last.input[0]
        self._nodes = [node for node in nodes if node is not last]


def _constant(values: np.ndarray) -> Any:
    """Return weights as a tensor, and integers, which are shapes and axes, as they are."""
    if values.dtype.kind != "f":
        return values
    return import_keras().ops.convert_to_tensor(values.astype(np.float32))


def _is_shape(values: list[Any]) -> bool:
    return all(isinstance(value, np.ndarray) for value in values)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _calibration_line(manifest: Any) -> tuple[Any, Any] | None:
    """Return slope and offset of the classes' logits, (527,) each; None without calibration."""
    value = manifest.get("calibration")
    if value is None:
        return None
    return _constant(np.array(value["a"], float)), _constant(np.array(value["b"], float))


def _integers(value: Any) -> list[int]:
    return [int(item) for item in np.asarray(value).ravel()]


def _operations() -> dict[str, Callable[[list[Any], dict[str, Any]], Any]]:
    """Return ONNX operations by name, as functions of their inputs and attributes."""
    ops = import_keras().ops

    def axes(inputs: list[Any], attributes: dict[str, Any]) -> tuple[int, ...]:
        given = attributes.get("axes") or (_integers(inputs[1]) if len(inputs) > 1 else [])
        return tuple(given)

    def reduced(function: Any) -> Callable[[list[Any], dict[str, Any]], Any]:
        return lambda i, a: function(
            i[0], axis=axes(i, a) or None, keepdims=bool(a.get("keepdims", 1))
        )

    def expanded(inputs: list[Any], attributes: dict[str, Any]) -> Any:
        value = inputs[0]
        expand = np.expand_dims if _is_shape(inputs[:1]) else ops.expand_dims
        for axis in sorted(axes(inputs, attributes)):
            value = expand(value, axis)
        return value

    def joined(inputs: list[Any], attributes: dict[str, Any]) -> Any:
        join = np.concatenate if _is_shape(inputs) else ops.concatenate
        return join(inputs, axis=attributes["axis"])

    def gathered(inputs: list[Any], attributes: dict[str, Any]) -> Any:
        take = np.take if _is_shape(inputs) else ops.take
        return take(inputs[0], inputs[1], axis=attributes.get("axis", 0))

    def clipped(inputs: list[Any], _: dict[str, Any]) -> Any:
        return ops.clip(inputs[0], inputs[1], inputs[2])

    def gemm(inputs: list[Any], attributes: dict[str, Any]) -> Any:
        left = ops.transpose(inputs[0]) if attributes.get("transA") else inputs[0]
        right = ops.transpose(inputs[1]) if attributes.get("transB") else inputs[1]
        product = ops.matmul(left, right)
        return product + inputs[2] if len(inputs) > 2 else product

    return {
        "Add": lambda i, _: i[0] + i[1],
        "Clip": clipped,
        "Concat": joined,
        "Div": lambda i, _: i[0] / i[1],
        "Gather": gathered,
        "Gemm": gemm,
        "MatMul": lambda i, _: ops.matmul(i[0], i[1]),
        "Max": lambda i, _: ops.maximum(i[0], i[1]),
        "Min": lambda i, _: ops.minimum(i[0], i[1]),
        "Mul": lambda i, _: i[0] * i[1],
        "ReduceMax": reduced(ops.max),
        "ReduceMean": reduced(ops.mean),
        "ReduceSum": reduced(ops.sum),
        "Relu": lambda i, _: ops.relu(i[0]),
        "Reshape": lambda i, _: ops.reshape(i[0], _integers(i[1])),
        "Shape": lambda i, _: np.array(ops.shape(i[0]), np.int64),
        "Sigmoid": lambda i, _: ops.sigmoid(i[0]),
        "Softmax": lambda i, a: ops.softmax(i[0], axis=a.get("axis", -1)),
        "Sqrt": lambda i, _: ops.sqrt(i[0]),
        "Sub": lambda i, _: i[0] - i[1],
        "Transpose": lambda i, a: ops.transpose(i[0], a.get("perm")),
        "Unsqueeze": expanded,
    }
