"""VGGish in Keras 3: for training on top of it, and to check the ONNX graph against.

Embedding sounds does not need it: the embedder runs the ONNX graph.
"""

from __future__ import annotations

from typing import Any

from audiosearch.embedders.vggish.layers import LAYERS, Weights, checked_weights
from audiosearch.errors import MissingDependencyError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES

__all__ = ["build_network"]


def build_network(weights: Weights | None = None) -> Any:
    """Build VGGish up to its embedding, before any activation of it.

    Parameters
    ----------
    weights : mapping, optional
        As `audiosearch.embedders.vggish.sources.read_weights` returns them; random where None.

    Returns
    -------
    keras.Model
        Takes log-mel patches (n, 96, 64) and gives (n, 128), both float32. Its layers have the
        names of `audiosearch.embedders.vggish.layers.LAYERS`.

    Raises
    ------
    MissingDependencyError
        When keras is not installed.
    ModelError
        When an array of `weights` is missing or does not fit.
    """
    fitting = None if weights is None else checked_weights(weights, origin="The mapping given")
    try:
        import keras
    except ImportError as error:
        raise MissingDependencyError(
            "keras", extra="tensorflow", purpose="VGGish as a Keras model"
        ) from error
    make = keras.layers
    patches = keras.Input((PATCH_FRAMES, MEL_BANDS), name="patches")
    x = make.Reshape((PATCH_FRAMES, MEL_BANDS, 1), name="image")(patches)
    for layer in LAYERS:
        last = layer is LAYERS[-1]
        activation = None if last else "relu"
        if len(layer.shape) == 4:
            x = make.Conv2D(layer.units, 3, padding="same", activation=activation, name=layer.name)(
                x
            )
        else:
            if layer.name == "fc1_1":
                x = make.Flatten(name="flat")(x)
            x = make.Dense(layer.units, activation=activation, name=layer.name)(x)
        if layer.pooled:
            x = make.MaxPooling2D(2, padding="same", name=f"pool_{layer.name}")(x)
    network = keras.Model(patches, x, name="vggish")
    if fitting is not None:
        for layer in LAYERS:
            network.get_layer(layer.name).set_weights([fitting[layer.kernel], fitting[layer.bias]])
    return network
