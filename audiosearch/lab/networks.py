"""The lab's networks in Keras 3, free of any one backend.

Each is made of the few kinds of layers that `audiosearch.lab.graph` writes as ONNX, takes one
standardised feature of a clip and gives one score a class: softmax where a sound has one class,
sigmoid where it may have several.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError
from audiosearch.lab.backbones import fetch_mobilenet, lite_trunk, mobilenet

__all__ = ["NETWORKS", "build_network", "prepare_network", "summary_of"]

# From so many frames on, a spectrogram is taken at half its rate.
_MANY_FRAMES = 200
_WAVE_FRAME = 320  # samples of an LSTM's step, 20 ms


def build_network(
    name: str, shape: tuple[int, ...], classes: int, *, multi_label: bool = False
) -> Any:
    """Build an untrained network.

    Parameters
    ----------
    name : str
        One of `NETWORKS`.
    shape : tuple of int
        Shape of a clip's feature.
    classes : int
        How many classes are scored.
    multi_label : bool
        Whether a sound may have several.

    Returns
    -------
    keras.Model
        Input float32 (batch, *shape), output float32 (batch, classes).

    Raises
    ------
    DownloadError
        When a pretrained network's weights cannot be had.
    InvalidArgumentError
        When there is no such network, or the feature is too short for it.
    MissingDependencyError
        When keras, or onnx for the bundled embedder's trunk, is not installed.
    """
    if name not in NETWORKS:
        raise InvalidArgumentError(f"network must be one of {', '.join(NETWORKS)}, not '{name}'.")
    keras = import_keras()
    clip = keras.Input(shape, name="clip")
    hidden = NETWORKS[name](keras.layers, clip)
    activation = "sigmoid" if multi_label else "softmax"
    scores = keras.layers.Dense(classes, activation=activation, dtype="float32", name="scores")
    return keras.Model([clip], scores(hidden), name=name.replace("-", "_"))


def _mlp(layers: Any, clip: Any) -> Any:
    return _dense(layers, layers.Dropout(0.2)(clip), (256, 128), 0.4)


def _ann(layers: Any, clip: Any) -> Any:
    return _dense(layers, clip, (256, 128, 64), 0.3)


def _dense(layers: Any, hidden: Any, widths: tuple[int, ...], dropout: float) -> Any:
    for width in widths:
        hidden = layers.Dense(width, activation="relu")(hidden)
        hidden = layers.Dropout(dropout)(hidden)
    return hidden


def _attention(layers: Any, clip: Any) -> Any:
    """Four heads, each with attention of its own over the frames."""
    hidden = layers.Dense(256, activation="relu")(layers.Dropout(0.2)(clip))
    attention = layers.Softmax(axis=1)(layers.Dense(4)(hidden))
    pooled = layers.Flatten()(layers.Dot(axes=(1, 1))([attention, hidden]))
    return layers.Dropout(0.5)(pooled)


def _image_of(layers: Any, clip: Any) -> Any:
    """Return a spectrogram (frames, bands) or (frames, bands, channels) as an image.

    It has half the frame rate where it is long.
    """
    frames, bands, *channels = clip.shape[1:]
    image = clip if channels else layers.Reshape((frames, bands, 1))(clip)
    return layers.AveragePooling2D((2, 1))(image) if frames >= _MANY_FRAMES else image


def _convolved(layers: Any, hidden: Any, filters: int, *, stride: int = 1) -> Any:
    hidden = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(hidden)
    return layers.BatchNormalization(momentum=0.9)(hidden)


def _pooled(layers: Any, hidden: Any, dropout: float) -> Any:
    both = [layers.GlobalAveragePooling2D()(hidden), layers.GlobalMaxPooling2D()(hidden)]
    return layers.Dropout(dropout)(layers.Concatenate()(both))


def _cnn(layers: Any, clip: Any) -> Any:
    hidden = _image_of(layers, clip)
    for filters in (16, 32, 64, 128):
        hidden = layers.ReLU()(_convolved(layers, hidden, filters))
        if min(hidden.shape[1:3]) >= 2:
            hidden = layers.MaxPooling2D(2)(hidden)
    return _pooled(layers, hidden, 0.4)


def _resnet(layers: Any, clip: Any) -> Any:
    hidden = layers.ReLU()(_convolved(layers, _image_of(layers, clip), 24, stride=2))
    for filters in (32, 64, 128):
        short = layers.MaxPooling2D(2)(hidden) if min(hidden.shape[1:3]) >= 2 else hidden
        short = layers.Conv2D(filters, 1, use_bias=False)(short)
        inner = layers.ReLU()(_convolved(layers, short, filters))
        inner = _convolved(layers, inner, filters)
        hidden = layers.ReLU()(layers.Add()([short, inner]))
    return _pooled(layers, hidden, 0.4)


def _cnn_wave(layers: Any, clip: Any) -> Any:
    hidden = layers.Reshape((clip.shape[1], 1))(clip)
    for filters, width, stride in ((32, 64, 8), (64, 16, 4), (96, 8, 4), (128, 4, 2)):
        hidden = layers.Conv1D(filters, width, strides=stride, padding="same", use_bias=False)(
            hidden
        )
        hidden = layers.BatchNormalization(momentum=0.9)(hidden)
        hidden = layers.ReLU()(hidden)
    both = [layers.GlobalAveragePooling1D()(hidden), layers.GlobalMaxPooling1D()(hidden)]
    return layers.Dropout(0.4)(layers.Concatenate()(both))


def _lstm_wave(layers: Any, clip: Any) -> Any:
    steps = clip.shape[1] // _WAVE_FRAME
    if not steps:
        raise InvalidArgumentError(
            "A clip must be at least 0.02 s long for an LSTM on the waveform."
        )
    rest = clip.shape[1] - steps * _WAVE_FRAME
    hidden = layers.Reshape((clip.shape[1], 1))(clip)
    if rest:
        hidden = layers.Cropping1D((0, rest))(hidden)
    hidden = layers.Reshape((steps, _WAVE_FRAME))(hidden)
    hidden = layers.Dense(64, activation="relu")(hidden)
    hidden = layers.LSTM(64)(hidden)
    return layers.Dropout(0.3)(hidden)


NETWORKS: dict[str, Callable[[Any, Any], Any]] = {
    "mlp": _mlp,
    "ann": _ann,
    "attention": _attention,
    "cnn": _cnn,
    "resnet": _resnet,
    "cnn-wave": _cnn_wave,
    "lstm-wave": _lstm_wave,
    "lite-trunk": lite_trunk,
    "mobilenet": functools.partial(mobilenet, trained=True),
    "mobilenet-frozen": functools.partial(mobilenet, trained=False),
}


def prepare_network(name: str) -> None:
    """Fetch what a network is built from and is not here yet.

    Raises
    ------
    DownloadError
        When it cannot be had.
    ModelError
        When it is damaged.
    """
    if name.startswith("mobilenet"):
        fetch_mobilenet()


def summary_of(network: Any) -> list[dict[str, Any]]:
    """Return a network's layers: name, kind, shape of the output, count of parameters."""
    return [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output": [int(size) for size in layer.output.shape[1:]],
            "parameters": int(layer.count_params()),
        }
        for layer in network.layers
    ]
