"""A trained student as ONNX: one graph of plain convolutions, independent of Keras' backend.

Batch normalisation is folded into the convolution before it, input and output scalings into the
layers beside them, and weights are stored as float16, which the runtime widens when it loads them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE, SPACE
from audiosearch.errors import DataError, MissingDependencyError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from audiosearch.storage import atomic_path, read_json, sha256_file, write_json
from tools.lite.network import (
    INPUT_DEVIATION,
    INPUT_MEAN,
    NORM_EPSILON,
    TILE,
    StudentConfig,
    build_adaptor,
    build_trunk,
)
from tools.lite.run import load_parts, student_of

__all__ = ["export_stage", "export_student"]

_OPSET = 17
_HALF_FROM = 1024  # values of a weight from which on it is stored as float16

_ORIGIN = (
    "Convolutional student of VGGish, trained by tools/lite on freely licensed recordings, with "
    "YAMNet's answers, and on clips of AudioSet with their released embeddings. See "
    "docs/models/lite.md."
)
_LICENCE = (
    "Apache-2.0. The AudioSet features used in training are by Google, CC BY 4.0; see NOTICE."
)

Floats = npt.NDArray[np.float32]


def export_stage(folder: Path, target: Path) -> Path:
    """Write a finished stage's student as `export_student` does, with what it was made of.

    Raises
    ------
    DataError
        When the folder holds no stage, or one without an adaptor.
    """
    config = student_of(folder)
    described = read_json(folder / "config.json")
    scale = described.get("values")
    if scale is None:
        raise DataError(f"{folder} is a stage without an adaptor; export one of stage 2 or 3.")
    adaptor = build_adaptor(config, mean=scale["mean"], deviation=scale["deviation"])
    parts = {"trunk": build_trunk(config), "adaptor": adaptor}
    load_parts(folder, parts)
    facts = {
        "training": {"git": described["git"], "student": described["student"]},
        "origin": _ORIGIN,
        "licence": _LICENCE,
    }
    return export_student(parts["trunk"], adaptor, config, target, facts=facts)


def export_student(
    trunk: Any,
    adaptor: Any,
    config: StudentConfig,
    target: str | os.PathLike[str],
    *,
    facts: Mapping[str, Any] | None = None,
    half: bool = True,
) -> Path:
    """Write ``NAME.onnx`` and its manifest ``NAME.json``.

    Parameters
    ----------
    trunk, adaptor : keras.Model
        As `network` builds them.
    config : StudentConfig
        Their shape.
    target : path-like
        The ONNX file: input ``log_mel`` float32 (n, 96, 64), output ``embedding`` float32 (n, 128)
        in [-1, 1].
    facts : mapping, optional
        What the manifest says of its making.
    half : bool
        Whether large weights are stored as float16.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", extra="tensorflow", purpose="Exporting an embedder"
        ) from error
    graph = _Graph(half=half)
    _write_trunk(graph, trunk, config)
    _write_adaptor(graph, adaptor, config)
    path = Path(target)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            path.stem,
            [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["n", *_PATCH])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", EMBEDDING_SIZE])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="audiosearch",
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    manifest = {
        "format_version": 1,
        "name": path.stem,
        "sha256": sha256_file(path),
        "space": SPACE,
        "input": {
            "name": "log_mel",
            "shape": ["n", *_PATCH],
            "dtype": "float32",
            "description": "VGGish log-mel patches: 96 frames of 10 ms, 64 HTK mel bands from 125 "
            "to 7500 Hz, log(mel + 0.01)",
        },
        "output": {
            "shape": ["n", EMBEDDING_SIZE],
            "dtype": "float32",
            "description": "embedding in [-1, 1]; uint8 = clip(round(128 v + 128), 0, 255)",
        },
        "weights": "float16" if half else "float32",
        **(facts or {}),
    }
    write_json(path.with_suffix(".json"), manifest)
    return path


_PATCH = [PATCH_FRAMES, MEL_BANDS]


class _Graph:
    """Nodes and weights in the making; `at` is the name of the last result."""

    def __init__(self, *, half: bool) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.at = "log_mel"
        self._half = half

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        self.at = name
        return name

    def weight(self, name: str, values: npt.ArrayLike) -> str:
        from onnx import TensorProto, helper, numpy_helper

        array = np.asarray(values)
        if self._half and array.dtype == np.float32 and array.size >= _HALF_FROM:
            stored = numpy_helper.from_array(array.astype(np.float16), f"{name}_half")
            self.weights.append(stored)
            cast = helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)
            self.nodes.insert(0, cast)
        else:
            self.weights.append(numpy_helper.from_array(array, name))
        return name

    def convolution(
        self, source: str, kernel: Floats, bias: Floats, name: str, *, stride: int, groups: int = 1
    ) -> str:
        size = kernel.shape[2]
        pad = 0 if size == stride else size // 2
        values = [self.weight(f"{name}_kernel", kernel), self.weight(f"{name}_bias", bias)]
        result = self.add(
            "Conv",
            [source, *values],
            name,
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )
        return self.add("Relu", [result], f"{name}_relu")

    def dense(self, source: str, kernel: Floats, bias: Floats, name: str) -> str:
        values = [self.weight(f"{name}_kernel", kernel), self.weight(f"{name}_bias", bias)]
        return self.add("Gemm", [source, *values], name)


def _write_trunk(graph: _Graph, trunk: Any, config: StudentConfig) -> None:
    shape = graph.weight("image_shape", np.array([-1, 1, *_PATCH], np.int64))
    graph.add("Reshape", ["log_mel", shape], "image")
    kernel, bias = _folded(trunk, "tiles")
    # The input's scaling, taken into the first layer: no padding stands in between.
    bias = bias - kernel.sum(axis=(1, 2, 3)) * np.float32(INPUT_MEAN / INPUT_DEVIATION)
    kernel = kernel / np.float32(INPUT_DEVIATION)
    at = graph.convolution("image", kernel, bias.astype(np.float32), "tiles", stride=TILE)
    for stage, depth in enumerate(config.depths, start=1):
        if stage > 1:
            name = f"merge_{stage}"
            at = graph.convolution(at, *_folded(trunk, name), name, stride=2)
        for number in range(1, depth + 1):
            name = f"{stage}_{number}"
            if config.block == "full":
                changed = graph.convolution(
                    at, *_folded(trunk, f"full_{name}"), f"full_{name}", stride=1
                )
            else:
                kernel, bias = _folded(trunk, f"depth_{name}", depthwise=True)
                changed = graph.convolution(
                    at, kernel, bias, f"depth_{name}", stride=1, groups=len(kernel)
                )
                changed = graph.convolution(
                    changed, *_folded(trunk, f"point_{name}"), f"point_{name}", stride=1
                )
            at = graph.add("Add", [at, changed], f"add_{name}")
    graph.add("ReduceMean", [at], "mean", axes=[2], keepdims=0)
    # Keras has the channels last: its bands are (band, channel), ours (channel, band).
    layer = trunk.get_layer("features")
    kernel, bias = (np.asarray(value) for value in layer.get_weights())
    channels = config.channels * 2 ** (len(config.depths) - 1)
    bands = len(kernel) // channels
    kernel = kernel.reshape(bands, channels, -1).swapaxes(0, 1).reshape(len(kernel), -1)
    graph.add("Flatten", ["mean"], "flat")
    graph.dense("flat", np.ascontiguousarray(kernel), bias, "features")
    graph.add("Relu", ["features"], "features_relu")


def _write_adaptor(graph: _Graph, adaptor: Any, config: StudentConfig) -> None:
    scale, offset = _norm(adaptor.get_layer("standardised"), NORM_EPSILON)
    for number in range(1, len(config.hidden) + 1):
        kernel, bias = adaptor.get_layer(f"hidden_{number}").get_weights()
        if number == 1:
            kernel, bias = _after(kernel, bias, scale, offset)
        graph.dense(graph.at, kernel, bias, f"hidden_{number}")
        graph.add("Relu", [f"hidden_{number}"], f"hidden_{number}_relu")
    kernel, bias = adaptor.get_layer("standard_embedding").get_weights()
    if not config.hidden:
        kernel, bias = _after(kernel, bias, scale, offset)
    last = adaptor.get_layer("embedding")
    deviation, mean = np.asarray(last.scale, np.float32), np.asarray(last.offset, np.float32)
    graph.dense(graph.at, kernel * deviation, bias * deviation + mean, "values")
    low = graph.weight("lowest", np.array(-1, np.float32))
    high = graph.weight("highest", np.array(1, np.float32))
    graph.add("Clip", ["values", low, high], "embedding")


def _after(kernel: Floats, bias: Floats, scale: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Return a dense layer that does the scaling before it as well."""
    return (kernel * scale[:, None]).astype(np.float32), (bias + offset @ kernel).astype(np.float32)


def _norm(layer: Any, epsilon: float) -> tuple[Floats, Floats]:
    """Return batch normalisation as a scale and an offset."""
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in layer.get_weights())
    scale = gamma / np.sqrt(variance + epsilon)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def _folded(trunk: Any, name: str, *, depthwise: bool = False) -> tuple[Floats, Floats]:
    """Return kernel (out, in, height, width) and bias of a convolution with its normalisation."""
    (kernel,) = trunk.get_layer(name).get_weights()
    scale, offset = _norm(trunk.get_layer(f"{name}_norm"), NORM_EPSILON)
    order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    moved = np.transpose(np.asarray(kernel, np.float32), order)
    return np.ascontiguousarray(moved * scale[:, None, None, None]), offset
