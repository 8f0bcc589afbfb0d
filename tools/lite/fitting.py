"""Networks of one hidden layer: how they are fitted to scores, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from audiosearch.classifier.nodes import Nodes
from audiosearch.errors import InvalidArgumentError

__all__ = ["FitConfig", "Layers", "fit", "hidden_layer", "weights_of"]

Floats = npt.NDArray[np.float32]

Examples = Callable[[npt.NDArray[np.int64]], tuple[Floats, Any, Any]]
"""Rows to standardised values (n, size), what else the network reads, and scores (n, 527)."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of a fit.

    Attributes
    ----------
    hidden : int
        Units of the hidden layer.
    epochs : int
        How often as many examples are drawn as there are.
    batch : int
        Examples of a step.
    noise : float
        Deviation of what is added to the values, which are standardised.
    dropout, input_dropout, weight_decay : float
        What keeps the weights small.
    learning_rate : float
        Peak; falls as a cosine.
    """

    hidden: int
    epochs: int
    batch: int
    noise: float
    dropout: float
    input_dropout: float
    weight_decay: float = 1e-2
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.hidden, self.epochs, self.batch) < 1 or self.noise < 0:
            raise InvalidArgumentError(
                "hidden, epochs and batch must be at least 1, and noise not below 0; they are "
                f"{self.hidden}, {self.epochs}, {self.batch} and {self.noise}."
            )
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1):
            raise InvalidArgumentError(
                "dropout and input_dropout must be at least 0 and below 1, not "
                f"{self.dropout} and {self.input_dropout}."
            )
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise InvalidArgumentError(
                "learning_rate must be above 0, and weight_decay not below 0; they are "
                f"{self.learning_rate} and {self.weight_decay}."
            )


@dataclass(frozen=True)
class Layers:
    """Two dense layers, with ReLU between them.

    Attributes
    ----------
    first, first_bias, second, bias : float32
        (size, hidden), (hidden,), (hidden, 527), (527,).
    """

    first: Floats
    first_bias: Floats
    second: Floats
    bias: Floats

    @classmethod
    def of(
        cls,
        network: Any,
        last: str,
        *,
        mean: npt.NDArray[np.floating],
        deviation: npt.NDArray[np.floating],
        share: float = 1.0,
    ) -> Layers:
        """Return a network's ``hidden`` layer and the one named `last`.

        What scales and moves the values becomes a part of the first layer; `share`, by which the
        result is multiplied, of the last.
        """
        first, first_bias, second, bias = weights_of(network, "hidden", last)
        first = first / deviation[:, None]
        found = (first, first_bias - mean @ first, share * second, share * bias)
        return cls(*(weights.astype(np.float32) for weights in found))

    def apply(self, values: Floats) -> Floats:
        """Return what they make of values (n, size), float32 (n, 527)."""
        hidden = np.maximum(values @ self.first + self.first_bias, 0)
        result: Floats = hidden @ self.second + self.bias
        return result

    def nodes(self, graph: Nodes, values: str) -> str:
        """Add them to a graph and return the name of what they make of values (..., size)."""
        hidden = graph.op("MatMul", values, graph.constant(self.first))
        hidden = graph.op("Relu", graph.op("Add", hidden, graph.constant(self.first_bias)))
        found = graph.op("MatMul", hidden, graph.constant(self.second))
        return graph.op("Add", found, graph.constant(self.bias))


def hidden_layer(values: Any, config: FitConfig) -> Any:
    """Return the layer called ``hidden``, with dropout before and behind it."""
    layers = import_keras().layers
    values = layers.Dropout(config.input_dropout)(values)
    values = layers.Dense(config.hidden, activation="relu", name="hidden")(values)
    return layers.Dropout(config.dropout)(values)


def fit(
    network: Any,
    examples: Examples,
    weights: npt.NDArray[np.float64],
    config: FitConfig,
    random: np.random.Generator,
    *,
    name: str,
    say: Callable[[str], None],
) -> None:
    """Fit a network to scores by their cross-entropy.

    Parameters
    ----------
    network : keras.Model
        Its outputs are logits.
    examples : callable
        Examples by their rows.
    weights : float64 (rows,)
        How often each row is drawn, sum 1.
    config : FitConfig
        Settings.
    random : numpy.random.Generator
        What is drawn from.
    name : str
        What the examples are called.
    say : callable
        Called with a line an epoch.
    """
    keras = import_keras()
    steps = max(1, len(weights) // config.batch)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps * config.epochs)
    network.compile(
        keras.optimizers.AdamW(rate, weight_decay=config.weight_decay),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    for epoch in range(1, config.epochs + 1):
        losses = []
        for rows in random.choice(len(weights), (steps, config.batch), p=weights):
            values, others, truth = examples(rows)
            values += np.float32(config.noise) * random.standard_normal(values.shape, np.float32)
            inputs = values if others is None else [values, others]
            losses.append(float(network.train_on_batch(inputs, truth)))
        say(f"{name}, epoch {epoch}: loss {np.mean(losses):.5f}")


def weights_of(network: Any, *layers: str) -> list[npt.NDArray[np.float64]]:
    """Return the weights of a network's layers, one after another."""
    keras = import_keras()
    return [
        np.asarray(keras.ops.convert_to_numpy(weight), np.float64)
        for layer in layers
        for weight in network.get_layer(layer).weights
    ]
