"""A trained student as ONNX: one graph of plain convolutions, independent of Keras' backend.

Batch normalisation is folded into the convolution before it, input and output scalings into the
layers beside them. Large kernels are stored as int8 with a scale for each output, other weights as
float16: the runtime widens both when it loads them, so it computes in float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE, SPACE
from audiosearch.errors import MissingDependencyError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from audiosearch.storage import atomic_path, read_json, sha256_file, write_json
from tools.lite.network import (
    INPUT_DEVIATION,
    INPUT_MEAN,
    Convolution,
    StudentConfig,
    build_trunk,
    convolutions,
    layers_of,
)
from tools.lite.run import load_adaptor, load_parts, student_of
from tools.lite.teacher import HIGHEST

__all__ = ["export_stage", "export_student"]

_OPSET = 17
_HALF_FROM = 1024  # values of a weight from which on it is stored as float16
_BYTES_FROM = 1 << 15  # and from which on a kernel is stored as int8

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
        When the folder holds no finished stage, or one without an adaptor.
    """
    config = student_of(folder)
    described = read_json(folder / "config.json")
    adaptor = load_adaptor(folder)
    trunk = build_trunk(config)
    load_parts(folder, {"trunk": trunk})
    facts = {
        "training": {"git": described["git"], "student": described["student"]},
        "origin": _ORIGIN,
        "licence": _LICENCE,
    }
    return export_student(trunk, adaptor, config, target, facts=facts)


def export_student(
    trunk: Any,
    adaptor: Any,
    config: StudentConfig,
    target: str | os.PathLike[str],
    *,
    facts: Mapping[str, Any] | None = None,
    small: bool = True,
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
    small : bool
        Whether large weights are stored as int8 and float16.

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
    graph = _Graph(small=small)
    _write_trunk(graph, trunk, config)
    _write_adaptor(graph, adaptor, config)
    path = Path(target)
    model = helper.make_model(
        helper.make_graph(
            graph.finished(),
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
        "weights": "int8 and float16" if small else "float32",
        **(facts or {}),
    }
    write_json(path.with_suffix(".json"), manifest)
    return path


_PATCH = [PATCH_FRAMES, MEL_BANDS]


class _Graph:
    """Nodes and weights in the making; `at` is the name of the last result."""

    def __init__(self, *, small: bool) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.at = "log_mel"
        self._small = small
        self._widening: list[Any] = []

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        self.at = name
        return name

    def weight(self, name: str, values: npt.ArrayLike, *, outputs: int | None = None) -> str:
        """Add a weight; of a kernel, `outputs` is the axis of its outputs."""
        array = np.asarray(values)
        if not self._small or array.dtype != np.float32 or array.size < _HALF_FROM:
            self._store(name, array)
        elif outputs is None or array.size < _BYTES_FROM:
            self._store(f"{name}_half", array.astype(np.float16))
            self._widen(f"{name}_half", name)
        else:
            others = tuple(axis for axis in range(array.ndim) if axis != outputs)
            scale = np.maximum(np.abs(array).max(axis=others, keepdims=True) / 127, 1e-12)
            self._store(f"{name}_bytes", np.rint(array / scale).astype(np.int8))
            self._store(f"{name}_scale", scale.astype(np.float32))
            self._widen(f"{name}_bytes", f"{name}_wide")
            self._prepare("Mul", [f"{name}_wide", f"{name}_scale"], name)
        return name

    def finished(self) -> list[Any]:
        """Return all nodes, those that widen weights first."""
        return [*self._widening, *self.nodes]

    def _store(self, name: str, array: npt.NDArray[Any]) -> None:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(array, name))

    def _widen(self, source: str, name: str) -> None:
        from onnx import TensorProto

        self._prepare("Cast", [source], name, to=TensorProto.FLOAT)

    def _prepare(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> None:
        from onnx import helper

        self._widening.append(helper.make_node(kind, inputs, [name], **attributes))

    def convolution(
        self, source: str, kernel: Floats, bias: Floats, convolution: Convolution
    ) -> str:
        name, size = convolution.name, convolution.kernel
        pad = 0 if size == convolution.stride else size // 2
        values = [
            self.weight(f"{name}_kernel", kernel, outputs=0),
            self.weight(f"{name}_bias", bias),
        ]
        result = self.add(
            "Conv",
            [source, *values],
            name,
            kernel_shape=[size, size],
            strides=[convolution.stride] * 2,
            pads=[pad] * 4,
        )
        if convolution.gives_map:
            ends = [self.weight(f"{name}_{end}", np.array(value, np.float32))
                    for end, value in (("lowest", 0), ("highest", HIGHEST))]  # fmt: skip
            return self.add("Clip", [result, *ends], f"{name}_relu")
        return self.add("Relu", [result], f"{name}_relu")

    def dense(self, source: str, kernel: Floats, bias: Floats, name: str) -> str:
        values = [
            self.weight(f"{name}_kernel", kernel, outputs=1),
            self.weight(f"{name}_bias", bias),
        ]
        return self.add("Gemm", [source, *values], name)


def _write_trunk(graph: _Graph, trunk: Any, config: StudentConfig) -> None:
    shape = graph.weight("image_shape", np.array([-1, 1, *_PATCH], np.int64))
    at = graph.add("Reshape", ["log_mel", shape], "image")
    layers = layers_of(trunk)
    for _, group in convolutions(config):
        before = at
        for convolution in group:
            kernel, bias = _folded(layers, convolution.name)
            if before == "image":
                # The input's scaling, taken into the first layer: no padding stands in between.
                shift = kernel.sum(axis=(1, 2, 3)) * np.float32(INPUT_MEAN / INPUT_DEVIATION)
                kernel, bias = kernel / np.float32(INPUT_DEVIATION), bias - shift
            at = graph.convolution(at, kernel, bias.astype(np.float32), convolution)
        if group[-1].adds_to:
            at = graph.add("Add", [before, at], f"add_{group[-1].name}")
    graph.add("ReduceMean", [at], "guess", axes=[2, 3], keepdims=0)


def _write_adaptor(graph: _Graph, adaptor: Any, config: StudentConfig) -> None:
    scale, offset = _norm(adaptor.get_layer("standardised"))
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


def _norm(layer: Any) -> tuple[Floats, Floats]:
    """Return batch normalisation as a scale and an offset."""
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in layer.get_weights())
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)


def _folded(layers: Mapping[str, Any], name: str) -> tuple[Floats, Floats]:
    """Return kernel (out, in, height, width) and bias of a convolution with its normalisation."""
    (kernel,) = layers[name].get_weights()
    scale, offset = _norm(layers[f"{name}_norm"])
    moved = np.transpose(np.asarray(kernel, np.float32), (3, 2, 0, 1))
    return np.ascontiguousarray(moved * scale[:, None, None, None]), offset
