"""The network as an ONNX graph, written from its weights.

Keras exports through another package with each backend, and what comes out differs in size, speed
and reliability. The family is small, so its graphs are written here: the same for every backend,
without tracing, and with each batch normalisation folded into the dense layer before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import (
    FRAME_VALUES,
    FRAMES,
    SOFTMAX_CLIP,
    TINY,
    NetworkConfig,
)
from audiosearch.classifier.nodes import Nodes

__all__ = ["network_graph"]


def network_graph(network: Any, config: NetworkConfig) -> Any:
    """Write a network as ONNX.

    Parameters
    ----------
    network : keras.Model
        As `audiosearch.classifier.network.build_network` makes it, without a timeline.
    config : NetworkConfig
        What it was built from.

    Returns
    -------
    onnx.ModelProto
        Inputs ``frames``, float32 (clips, 10, 128), and ``mask``, float32 (clips, 10); output
        ``scores``, float32 (clips, classes). Weights are float32.

    Raises
    ------
    ImportError
        When onnx is not installed.
    """
    graph = _Graph(network, config)
    column = graph.op("Reshape", "mask", graph.shape(-1, FRAMES, 1))
    pool = {
        "max-pooling": _max_pooling,
        "average-pooling": _average_pooling,
        "single-attention": _single_attention,
        "multi-level-attention": _multi_level_attention,
        "feature-level-attention": _feature_level_attention,
    }[config.architecture]
    return graph.model(pool(graph, graph.trunk("frames"), column), config.classes)


class _Graph(Nodes):
    """The family's layers as nodes.

    Values of frames are kept as rows, (clips * 10, units): ONNX Runtime then runs a dense layer as
    one matrix product.
    """

    def __init__(self, network: Any, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self._network = network

    def trunk(self, frames: str) -> list[str]:
        """Return the output of each hidden layer, as rows."""
        hidden = self.op("Reshape", frames, self.shape(-1, FRAME_VALUES))
        outputs = []
        for number in range(1, self.config.layers + 1):
            before = hidden
            hidden = self.op("Relu", self.dense(hidden, f"hidden_{number}", f"norm_{number}"))
            if self.config.residual and number > 1:
                hidden = self.op("Add", before, hidden)
            outputs.append(hidden)
        return outputs

    def dense(self, rows: str, name: str, norm: str | None = None) -> str:
        """Apply a dense layer, and the batch normalisation after it."""
        kernel, bias = self._weights_of(name)
        if norm:
            gamma, beta, mean, variance = self._weights_of(norm)
            scale = gamma / np.sqrt(variance + self._network.get_layer(norm).epsilon)
            kernel, bias = kernel * scale, (bias - mean) * scale + beta
        return self.op(
            "Gemm",
            rows,
            self.constant(kernel.astype(np.float32), f"{name}/kernel"),
            self.constant(bias.astype(np.float32), f"{name}/bias"),
        )

    def _weights_of(self, layer: str) -> list[npt.NDArray[np.float64]]:
        arrays = self._network.get_layer(layer).get_weights()
        return [np.asarray(array, np.float64) for array in arrays]

    def scores(self, rows: str) -> str:
        return self.op("Sigmoid", self.dense(rows, "scores"))

    def by_clip(self, rows: str, units: int) -> str:
        return self.op("Reshape", rows, self.shape(-1, FRAMES, units))

    def frame_scores(self, hidden: str) -> str:
        return self.by_clip(self.scores(hidden), self.config.classes)

    def attention(self, hidden: str, units: int, column: str, name: str) -> str:
        """Return attention that sums to 1 over the frames that exist; (clips, frames, units)."""
        rows = self.dense(hidden, name)
        if self.config.attention == "softmax":
            raw = self.op("Softmax", rows, axis=-1)
            raw = self.op("Clip", raw, self.number(SOFTMAX_CLIP), self.number(1 - SOFTMAX_CLIP))
        else:
            raw = self.op("Sigmoid", rows)
        return self.share(self.op("Mul", self.by_clip(raw, units), column))

    def share(self, values: str) -> str:
        """Divide by the sum over the frames."""
        total = self.op("ReduceSum", values, self.shape(1), keepdims=1)
        return self.op("Div", values, self.op("Max", total, self.number(TINY)))

    def weighed(self, values: str, attention: str) -> str:
        """Return the mean over the frames; (clips, units)."""
        product = self.op("Mul", attention, values)
        return self.op("ReduceSum", product, self.shape(1), keepdims=0)

    def join(self, levels: list[str]) -> str:
        return levels[0] if len(levels) == 1 else self.op("Concat", *levels, axis=-1)


def _max_pooling(graph: _Graph, hidden: list[str], column: str) -> str:
    scores = graph.op("Mul", graph.frame_scores(hidden[-1]), column)
    return graph.op("ReduceMax", scores, axes=[1], keepdims=0)


def _average_pooling(graph: _Graph, hidden: list[str], column: str) -> str:
    return graph.weighed(graph.frame_scores(hidden[-1]), graph.share(column))


def _single_attention(graph: _Graph, hidden: list[str], column: str) -> str:
    attention = graph.attention(hidden[-1], graph.config.classes, column, "attention")
    return graph.weighed(graph.frame_scores(hidden[-1]), attention)


def _multi_level_attention(graph: _Graph, hidden: list[str], column: str) -> str:
    classes = graph.config.classes
    pools = []
    for level in sorted(graph.config.levels):
        rows = graph.op("Sigmoid", graph.dense(hidden[level - 1], f"score_{level}"))
        attention = graph.attention(hidden[level - 1], classes, column, f"attention_{level}")
        pools.append(graph.weighed(graph.by_clip(rows, classes), attention))
    return graph.scores(graph.join(pools))


def _feature_level_attention(graph: _Graph, hidden: list[str], column: str) -> str:
    units = graph.config.units
    pools = []
    for level in sorted(graph.config.levels):
        rows = graph.dense(hidden[level - 1], f"features_{level}")
        attention = graph.attention(hidden[level - 1], units, column, f"attention_{level}")
        pools.append(graph.weighed(graph.by_clip(rows, units), attention))
    return graph.scores(graph.join(pools))
