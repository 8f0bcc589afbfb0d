"""Layers of which each device, holding a part of a batch, does what one does with the whole.

Keras's own normalise each part by itself (but for TensorFlow), and drop the same values of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiosearch.classifier.processes import Processes

__all__ = ["joined_normalization", "shared_dropout", "synchronized_normalization"]


def shared_dropout(count: int, place: Callable[[], Any]) -> type[Any]:
    """Return a dropout that draws for the whole batch and takes what is for its own part.

    Parameters
    ----------
    count : int
        How many parts there are.
    place : callable
        Returns which of them is this one, when the layer is called.
    """
    import keras

    class Dropout(keras.layers.Dropout):
        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training or not self.rate:
                return inputs
            ops, size = keras.ops, keras.ops.shape(inputs)[0]
            whole = ops.concatenate([ops.ones_like(inputs)] * count)
            kept = keras.random.dropout(whole, self.rate, self.noise_shape, self.seed_generator)
            first = place() * size
            return inputs * kept[first : first + size]

    return Dropout


def synchronized_normalization() -> type[Any]:
    """Return TensorFlow's batch normalisation of the whole batch, which Keras has."""
    import keras

    class BatchNormalization(keras.layers.BatchNormalization):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"synchronized": True})

    return BatchNormalization


def joined_normalization(processes: Processes) -> type[Any]:
    """Return a batch normalisation by the whole batch of several PyTorch processes."""
    import keras

    class BatchNormalization(keras.layers.BatchNormalization):
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if not training or not self.trainable:
                return super().call(inputs, training=training, mask=mask)
            values = keras.ops.cast(inputs, "float32")
            axes = [axis for axis in range(values.ndim) if axis != self.axis % values.ndim]
            mean, variance = processes.moments(values, axes)
            for average, found in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                kept = average.value * self.momentum
                average.assign(kept + found.detach() * (1 - self.momentum))
            normal = keras.ops.batch_normalization(
                values,
                mean,
                variance,
                axis=self.axis,
                offset=self.beta,
                scale=self.gamma,
                epsilon=self.epsilon,
            )
            return keras.ops.cast(normal, self.compute_dtype)

    return BatchNormalization
