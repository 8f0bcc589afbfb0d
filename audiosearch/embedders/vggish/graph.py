"""VGGish as an ONNX graph, written from its weights, and the int8 variant of it.

Keras's own export was tried: for this network it takes minutes and 15 GB of memory, and its bytes
depend on the versions of three packages. Written directly it takes seconds and 2 GB.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.vggish.layers import FLAT, LAYERS, Layer, Weights
from audiosearch.errors import MissingDependencyError, ModelError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from audiosearch.storage import storage_errors

__all__ = ["write_graph", "write_quantised"]

_OPSET = 17
_IR_VERSION = 8
_INPUT, _OUTPUT = "patches", "embedding"
# First and last layer stay in float32: they are 0.4 % and 0.1 % of the work, and an error in the
# one goes through everything, an error in the other is whitened at once.
_EXACT = ("conv1", "fc2")
_CALIBRATION_BATCH = 8


def write_graph(weights: Weights, path: str | os.PathLike[str]) -> None:
    """Write the network up to the embedding, before any activation of it.

    Parameters
    ----------
    weights : mapping
        As `audiosearch.embedders.vggish.layers.checked_weights` returns them.
    path : path-like
        The ONNX file; an existing one is overwritten. Its input is "patches" (n, 96, 64), its
        output "embedding" (n, 128), both float32. The same weights give the same bytes.

    Raises
    ------
    MissingDependencyError
        When the package onnx is not installed.
    StorageError
        When it cannot be written.
    """
    onnx = _onnx()
    from onnx import TensorProto, helper, numpy_helper

    arrays = [numpy_helper.from_array(np.array([1], np.int64), "channel")]
    nodes = [helper.make_node("Unsqueeze", [_INPUT, "channel"], ["image"], "image")]
    x = "image"
    for layer in LAYERS:
        if layer.name == "fc1_1":
            nodes.append(helper.make_node("Flatten", [x], ["flat"], "flat", axis=1))
            x = "flat"
        kernel, bias = f"{layer.name}_weights", f"{layer.name}_biases"
        arrays.append(numpy_helper.from_array(_kernel(layer, weights[layer.kernel]), kernel))
        arrays.append(numpy_helper.from_array(np.asarray(weights[layer.bias]), bias))
        last = layer is LAYERS[-1]
        out = _OUTPUT if last else layer.name
        if len(layer.shape) == 4:
            node = helper.make_node(
                "Conv", [x, kernel, bias], [out], layer.name, kernel_shape=[3, 3], pads=[1] * 4
            )
        else:
            node = helper.make_node("Gemm", [x, kernel, bias], [out], layer.name)
        nodes.append(node)
        x = out
        if not last:
            nodes.append(helper.make_node("Relu", [x], [f"{x}_relu"], f"{x}_relu"))
            x = f"{x}_relu"
        if layer.pooled:
            pooled = f"{layer.name}_pool"
            nodes.append(
                helper.make_node(
                    "MaxPool", [x], [pooled], pooled, kernel_shape=[2, 2], strides=[2, 2]
                )
            )
            x = pooled
    shape = ["n", PATCH_FRAMES, MEL_BANDS]
    graph = helper.make_graph(
        nodes,
        "vggish",
        [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["n", LAYERS[-1].units])],
        arrays,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="audiosearch",
    )
    onnx.checker.check_model(model)
    with storage_errors(path):
        Path(path).write_bytes(model.SerializeToString(deterministic=True))


def write_quantised(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    patches: npt.NDArray[np.float32],
) -> None:
    """Write the int8 variant of a graph that `write_graph` wrote.

    Weights are int8, one scale an output; activations are uint8, with the range that they have on
    `patches`. The first and the last layer stay in float32.

    Parameters
    ----------
    source, path : path-like
        The graph, and the ONNX file to write; an existing one is overwritten.
    patches : float32 (n, 96, 64)
        Log-mel patches that show what ranges occur.

    Raises
    ------
    MissingDependencyError
        When the package onnx is not installed.
    ModelError
        When the runtime's quantiser fails.
    """
    _onnx()
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = _batches(patches)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {_INPUT: batch}

    # It recommends a preparation that this graph does not need, on the root logger.
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(prefix="audiosearch-") as scratch:
            raw = Path(scratch) / "int8.onnx"
            quantization.quantize_static(
                os.fspath(source),
                os.fspath(raw),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=list(_EXACT),
            )
            content = raw.read_bytes()
    except Exception as error:  # it raises whatever its many parts raise
        raise ModelError(f"The int8 variant of VGGish could not be made: {error}") from error
    finally:
        quiet.setLevel(level)
    with storage_errors(path):
        Path(path).write_bytes(content)


def _kernel(layer: Layer, kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a kernel as ONNX has it, with channels in front of height and width."""
    if len(layer.shape) == 4:
        kernel = kernel.transpose(3, 2, 0, 1)
    elif layer.name == "fc1_1":
        # Its inputs come in the order channel, height, width.
        kernel = kernel.reshape(*FLAT, layer.units).transpose(2, 0, 1, 3).reshape(layer.shape)
    return np.ascontiguousarray(kernel)


def _batches(patches: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    for first in range(0, len(patches), _CALIBRATION_BATCH):
        yield patches[first : first + _CALIBRATION_BATCH]


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", extra="tensorflow", purpose="Converting VGGish, which is needed once,"
        ) from error
    return onnx
