"""A lab classifier as one ONNX graph: what is done to a feature, then the network.

Written layer by layer from the Keras model, so that it is the same with every backend; a network of
other layers than those here cannot be exported. Images keep Keras's order, channels last:
convolutions transpose before and after, and ONNX Runtime takes what cancels out away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.nodes import Nodes
from audiosearch.errors import ModelError

__all__ = ["LabGraph", "pooled"]

_TINY = 1e-8

Floats = npt.NDArray[np.float32]


def pooled(values: Floats) -> Floats:
    """Return mean, deviation and maximum over time of frames (n, frames, values), (n, 3 values)."""
    mean = values.mean(axis=1)
    variance = np.square(values - mean[:, None]).mean(axis=1)
    return np.concatenate([mean, np.sqrt(variance + _TINY), values.max(axis=1)], axis=1)


class LabGraph(Nodes):
    """Nodes of a classifier of clips.

    Parameters
    ----------
    shape : tuple of int
        Shape of a clip's feature: the graph's input ``clip`` is float32 (clips, *shape).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def pooled(self, clip: str) -> str:
        """Return mean, deviation and maximum over time, as the function `pooled`."""
        mean = self.op("ReduceMean", clip, axes=[1], keepdims=1)
        away = self.op("Sub", clip, mean)
        variance = self.op("ReduceMean", self.op("Mul", away, away), axes=[1], keepdims=0)
        deviation = self.op("Sqrt", self.op("Add", variance, self.number(_TINY)))
        largest = self.op("ReduceMax", clip, axes=[1], keepdims=0)
        flat = self.op("ReduceMean", clip, axes=[1], keepdims=0)
        return self.op("Concat", flat, deviation, largest, axis=1)

    def standardised(self, values: str, mean: Floats, scale: Floats) -> str:
        """Return (values - mean) * scale."""
        shifted = self.op("Sub", values, self.constant(mean))
        return self.op("Mul", shifted, self.constant(scale))

    def dense(self, values: str, kernel: Floats, bias: Floats | None, activation: str) -> str:
        """Apply a dense layer to the last axis."""
        result = self.op("MatMul", values, self.constant(np.asarray(kernel, np.float32)))
        if bias is not None:
            result = self.op("Add", result, self.constant(np.asarray(bias, np.float32)))
        return self.activated(result, activation)

    def activated(self, values: str, activation: str) -> str:
        """Apply an activation by its name in Keras."""
        kinds = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
        if activation == "linear":
            return values
        if activation == "softmax":
            return self.op("Softmax", values, axis=-1)
        if activation not in kinds:
            raise ModelError(f"The activation '{activation}' cannot be exported.")
        return self.op(kinds[activation], values)

    def network(self, network: Any, clip: str) -> str:
        """Apply a Keras model of one input and one output, without what training alone uses.

        Raises
        ------
        ModelError
            When it has layers that cannot be written.
        """
        names: dict[int, str] = {id(network.inputs[0]): clip}
        for layer in network.layers:
            kind = type(layer).__name__
            if kind == "InputLayer":
                continue
            if kind not in _LAYERS:
                raise ModelError(f"A layer of the kind {kind} cannot be exported.")
            given = layer.input if isinstance(layer.input, list) else [layer.input]
            names[id(layer.output)] = _LAYERS[kind](self, layer, *(names[id(x)] for x in given))
        return names[id(network.outputs[0])]

    def finish(self, scores: str, classes: int) -> Any:
        """Return the model whose output ``scores`` is the value of that name."""
        return self.assembled(scores, {"clip": ["clips", *self._shape]}, classes)

    def channels_first(self, values: str, rank: int) -> str:
        """Move the last axis behind the clips."""
        return self.op("Transpose", values, perm=[0, rank - 1, *range(1, rank - 1)])

    def channels_last(self, values: str, rank: int) -> str:
        """Move it back."""
        return self.op("Transpose", values, perm=[0, *range(2, rank), 1])


def _dense(graph: LabGraph, layer: Any, values: str) -> str:
    kernel, *bias = layer.get_weights()
    return graph.dense(values, kernel, bias[0] if bias else None, layer.activation.__name__)


def _convolution(graph: LabGraph, layer: Any, values: str) -> str:
    kernel, *bias = layer.get_weights()
    rank = kernel.ndim
    spatial = list(range(rank - 2))
    is_depthwise = type(layer).__name__ == "DepthwiseConv2D"
    groups = kernel.shape[-2] if is_depthwise else 1
    if is_depthwise:
        if kernel.shape[-1] != 1:
            raise ModelError("A depthwise convolution with a multiplier cannot be exported.")
        kernel = np.swapaxes(kernel, -1, -2)
    weights = [graph.constant(np.transpose(kernel, [rank - 1, rank - 2, *spatial]))]
    if bias:
        weights.append(graph.constant(bias[0]))
    result = graph.op(
        "Conv",
        graph.channels_first(values, rank),
        *weights,
        strides=list(layer.strides),
        group=groups,
        auto_pad="SAME_UPPER" if layer.padding == "same" else "VALID",
    )
    return graph.activated(graph.channels_last(result, rank), layer.activation.__name__)


def _normalisation(graph: LabGraph, layer: Any, values: str) -> str:
    gamma, beta, mean, variance = layer.get_weights()
    scale = gamma / np.sqrt(variance + layer.epsilon)
    scaled = graph.op("Mul", values, graph.constant(scale.astype(np.float32)))
    return graph.op("Add", scaled, graph.constant((beta - mean * scale).astype(np.float32)))


def _pool(kind: str) -> Callable[[LabGraph, Any, str], str]:
    def write(graph: LabGraph, layer: Any, values: str) -> str:
        rank = len(layer.pool_size) + 2
        result = graph.op(
            kind,
            graph.channels_first(values, rank),
            kernel_shape=list(layer.pool_size),
            strides=list(layer.strides),
        )
        return graph.channels_last(result, rank)

    return write


def _over_all(kind: str) -> Callable[[LabGraph, Any, str], str]:
    def write(graph: LabGraph, layer: Any, values: str) -> str:
        places = list(range(1, len(layer.input.shape) - 1))
        return graph.op(kind, values, axes=places, keepdims=0)

    return write


def _shaped(graph: LabGraph, layer: Any, values: str) -> str:
    return graph.op("Reshape", values, graph.shape(-1, *layer.output.shape[1:]))


def _cropped(graph: LabGraph, layer: Any, values: str) -> str:
    begin, end = layer.cropping
    sides = [graph.shape(begin), graph.shape(layer.input.shape[1] - end), graph.shape(1)]
    return graph.op("Slice", values, *sides)


def _padded(graph: LabGraph, layer: Any, values: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.op("Pad", values, graph.shape(0, top, left, 0, 0, bottom, right, 0))


def _relu(graph: LabGraph, layer: Any, values: str) -> str:
    if layer.negative_slope or layer.threshold:
        raise ModelError("A ReLU with a slope or a threshold cannot be exported.")
    if layer.max_value is None:
        return graph.op("Relu", values)
    return graph.op("Clip", values, graph.number(0.0), graph.number(float(layer.max_value)))


def _rescaled(graph: LabGraph, layer: Any, values: str) -> str:
    if layer.offset:
        raise ModelError("A rescaling with an offset cannot be exported.")
    return graph.op("Mul", values, graph.number(float(layer.scale)))


def _dot(graph: LabGraph, layer: Any, first: str, second: str) -> str:
    if tuple(layer.axes) != (1, 1):
        raise ModelError("A dot product over other axes than the first cannot be exported.")
    return graph.op("MatMul", graph.op("Transpose", first, perm=[0, 2, 1]), second)


def _lstm(graph: LabGraph, layer: Any, values: str) -> str:
    """Write an LSTM that returns its last state; ONNX wants gates as i, o, f, c, Keras has ifco."""
    kernel, recurrent, bias = layer.get_weights()
    units = layer.units

    def ordered(weights: Floats) -> Floats:
        i, f, c, o = np.split(weights, 4, axis=-1)
        return np.concatenate([i, o, f, c], axis=-1)

    both = np.concatenate([ordered(bias), np.zeros(4 * units, np.float32)])
    outputs = [f"{layer.name}_all", f"{layer.name}_last"]
    graph.many(
        "LSTM",
        [
            graph.op("Transpose", values, perm=[1, 0, 2]),
            graph.constant(ordered(kernel).T[None]),
            graph.constant(ordered(recurrent).T[None]),
            graph.constant(both[None].astype(np.float32)),
        ],
        outputs,
        hidden_size=units,
    )
    return graph.op("Squeeze", outputs[1], graph.shape(0))


_LAYERS: dict[str, Callable[..., str]] = {
    "Activation": lambda graph, layer, x: graph.activated(x, layer.activation.__name__),
    "Add": lambda graph, _layer, *xs: graph.op("Add", *xs),
    "AveragePooling2D": _pool("AveragePool"),
    "BatchNormalization": _normalisation,
    "Concatenate": lambda graph, _layer, *xs: graph.op("Concat", *xs, axis=-1),
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Cropping1D": _cropped,
    "Dense": _dense,
    "DepthwiseConv2D": _convolution,
    "Dot": _dot,
    "Dropout": lambda _graph, _layer, x: x,
    "Flatten": _shaped,
    "GlobalAveragePooling1D": _over_all("ReduceMean"),
    "GlobalAveragePooling2D": _over_all("ReduceMean"),
    "GlobalMaxPooling1D": _over_all("ReduceMax"),
    "GlobalMaxPooling2D": _over_all("ReduceMax"),
    "LSTM": _lstm,
    "MaxPooling2D": _pool("MaxPool"),
    "ReLU": _relu,
    "Rescaling": _rescaled,
    "Reshape": _shaped,
    "Softmax": lambda graph, layer, x: graph.op("Softmax", x, axis=layer.axis),
    "ZeroPadding2D": _padded,
}
