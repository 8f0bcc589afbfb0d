"""Pretrained networks that the lab's own stand on: they begin with weights that heard or saw much.

==================== ========================================================================
``lite-trunk``       three stages of the bundled embedder's convolutions, over the whole
                     spectrogram at once; the third is trained on, with the classes
``mobilenet``        Keras's MobileNetV2 with ImageNet weights (Sandler et al.,
                     arXiv:1801.04381), on the spectrogram as a picture; all of it is trained on
``mobilenet-frozen`` the same, and only what stands on it is trained
==================== ========================================================================

MobileNetV2's weights (9 MB, Apache-2.0) are fetched from Keras's publisher where they are first
needed, and kept with the other fetched models (`audiosearch.model_cache`). Batch normalisation
keeps the statistics that it came with: a few hundred sounds give no better ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError, ModelError, printable
from audiosearch.model_cache import RemoteFile, accept, fetch_file, locked, model_folder
from audiosearch.own.layers import load_trunk, stored_weights

__all__ = ["fetch_mobilenet", "lite_trunk", "mobilenet"]

_TRAINED = re.compile(r"[a-z]+_3(_\d+)?")
"""Names of the convolutions that are trained on: those of the third stage."""

_SCALE = 0.4
"""What brings the values of that stage near to those that fresh layers expect."""

_NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
_PUBLISHER = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2"
_MOBILENET = RemoteFile(
    _NAME,
    (f"{_PUBLISHER}/{_NAME}",),
    begins=b"\x89HDF\r\n\x1a\n",
)
_BY_HAND = "The models whose names begin with mobilenet need it; the others do not."


def lite_trunk(layers: Any, clip: Any) -> Any:
    """Put the bundled embedder's first three stages on a log-mel spectrogram (frames, 64).

    Returns
    -------
    keras.KerasTensor
        Mean and maximum over time of what its places hold, (2560,).

    Raises
    ------
    InvalidArgumentError
        When the clip has less than the 16 frames that one place needs.
    MissingDependencyError
        When onnx is not installed.
    """
    frames, bands = clip.shape[1:]
    model = load_trunk()
    graph, weights = model.graph, stored_weights(model)
    values = {graph.input[0].name: layers.Reshape((frames, bands, 1))(clip)}
    for node in graph.node:
        given = [values[name] for name in node.input if name in values]
        match node.op_type:
            case "Cast" | "Mul" if node.output[0] in weights:
                pass
            case "Clip":
                values[node.output[0]] = layers.ReLU(max_value=float(weights[node.input[2]]))(
                    given[0]
                )
            case "Reshape":
                values[node.output[0]] = given[0]
            case "Conv":
                arrays = [np.asarray(weights[name], np.float32) for name in node.input[1:]]
                values[node.output[0]] = _convolved(layers, given[0], node, *arrays)
            case "Relu":
                values[node.output[0]] = layers.ReLU()(given[0])
            case "Add":
                values[node.output[0]] = layers.Add()(given)
            case "ReduceMean" | "Flatten":  # over a patch's time: here it is over the clip's
                break
            case kind:
                raise ModelError(
                    f"The bundled embedder has a layer of the kind {kind}, which cannot be trained "
                    "on. Please report this."
                )
    places = values[graph.node[-2].input[0]]
    rows = layers.Reshape((places.shape[1], places.shape[2] * places.shape[3]))(places)
    both = [layers.GlobalAveragePooling1D()(rows), layers.GlobalMaxPooling1D()(rows)]
    return layers.Dropout(0.5)(layers.Rescaling(_SCALE)(layers.Concatenate()(both)))


def _convolved(
    layers: Any,
    values: Any,
    node: Any,
    kernel: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
) -> Any:
    size, is_same = kernel.shape[-1], kernel.shape[-1] == 3
    if not is_same and min(values.shape[1:3]) < size:
        raise InvalidArgumentError(
            "A clip must be at least 0.16 s long for the bundled embedder's trunk: set --seconds."
        )
    ops = import_keras().ops
    layer = layers.Conv2D(
        len(bias),
        size,
        strides=1 if is_same else size,
        padding="same" if is_same else "valid",
        kernel_initializer=lambda *_, **__: ops.convert_to_tensor(kernel.transpose(2, 3, 1, 0)),
        bias_initializer=lambda *_, **__: ops.convert_to_tensor(bias),
        trainable=_TRAINED.fullmatch(node.output[0]) is not None,
    )
    return layer(values)


def mobilenet(layers: Any, clip: Any, *, trained: bool) -> Any:
    """Put MobileNetV2 on a picture (96, 96) of values from -1 to 1.

    Parameters
    ----------
    trained : bool
        Whether its weights are trained on.

    Returns
    -------
    keras.KerasTensor
        The mean over all places, (1280,).

    Raises
    ------
    DownloadError
        When its weights cannot be had.
    ModelError
        When the file of its weights is damaged.
    """
    keras = import_keras()
    grey = layers.Reshape((*clip.shape[1:], 1))(clip)
    colours = layers.Concatenate()([grey, grey, grey])
    path = fetch_mobilenet()
    try:
        backbone = _mobilenet(keras, colours, path)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    for layer in backbone.layers:
        layer.trainable = trained and not isinstance(layer, layers.BatchNormalization)
    return layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(backbone.output))


def fetch_mobilenet() -> Path:
    """Return the file of MobileNetV2's weights, which is fetched where it is not here yet.

    Raises
    ------
    DownloadError
        When it cannot be had.
    ModelError
        When what was fetched is damaged.
    """
    folder = model_folder("mobilenet_v2")
    path = folder / _NAME
    if path.is_file():
        return path
    with locked(folder):
        found = fetch_file(_MOBILENET, folder, by_hand=_BY_HAND)
        keras = import_keras()
        try:
            _mobilenet(keras, keras.Input((96, 96, 3)), found.path)
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(found.path, error) from error
        accept(folder, [found])
    return path


def _mobilenet(keras: Any, image: Any, path: Path) -> Any:
    return keras.applications.MobileNetV2(input_tensor=image, include_top=False, weights=str(path))


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{printable(str(path))} holds no weights of MobileNetV2 ({error}). Delete it and run the "
        "same command again."
    )
