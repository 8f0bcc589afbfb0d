"""YAMNet as a teacher: its maps, embedding and scores for the very patches the student sees.

YAMNet (Google, Apache-2.0) is an 8-bit TFLite network. It is turned into a float ONNX graph once,
with the input of its last dense layer, 1,024 values, as a second output. It teaches only: no weight
of it goes into the student.

Its log-mel is that of `audiosearch.frontend` but for the offset inside the logarithm.
"""

from __future__ import annotations

import csv
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import DataError, MissingDependencyError, printable
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.models import onnx_session
from audiosearch.storage import atomic_path
from tools.lite.onnx_graph import read_graph, session_of

__all__ = [
    "EMBEDDING",
    "HIGHEST",
    "MAPS",
    "Teacher",
    "convert_teacher",
    "decode_embedding",
    "encode_embedding",
    "last_layer",
    "scores_of",
]

HIGHEST = 6.0
"""What values of maps and embedding end at; they begin at 0."""

EMBEDDING = 1024
"""Values of YAMNet's embedding."""

MAPS = ((12, 8, 256), (6, 4, 512), (3, 2, 1024))
"""Time, frequency and channels of YAMNet's last map of each of these sizes.

The mean over the places of the last one is the embedding.
"""

_CLASSES = 521
_OUR_OFFSET, _ITS_OFFSET = 0.01, 0.001
_BATCH = 64

Floats = npt.NDArray[np.float32]


class Teacher:
    """Answers for log-mel patches.

    Parameters
    ----------
    path : path-like
        ONNX file that `convert_teacher` wrote.
    class_map : path-like
        YAMNet's ``yamnet_class_map.csv``: index, mid, display name.
    threads : int
        Threads for a batch.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        class_map: str | os.PathLike[str],
        *,
        threads: int = 1,
    ) -> None:
        self._path, self._threads = path, threads
        self._session = onnx_session(path, name=os.fspath(path), threads=threads)
        self.columns = read_class_map(class_map)

    def answer(self, log_mel: Floats) -> tuple[Floats, Floats]:
        """Return YAMNet's embedding and scores of patches.

        Parameters
        ----------
        log_mel : float32 (n, 96, 64)
            As `audiosearch.frontend.patches` gives them.

        Returns
        -------
        embedding : float32 (n, 1024)
            From 0 to 6.
        scores : float32 (n, 527)
            In the order of our classes; 0 for the six that YAMNet does not know.
        """
        embedding = np.empty((len(log_mel), EMBEDDING), np.float32)
        scores = np.zeros((len(log_mel), CLASS_COUNT), np.float32)
        for start in range(0, len(log_mel), _BATCH):
            rows = slice(start, start + _BATCH)
            inputs = {"log_mel": its_log_mel(log_mel[rows])}
            embedding[rows], its_scores = self._session.run(["embedding", "scores"], inputs)
            scores[rows, self.columns] = its_scores
        return embedding, scores

    def maps(self, log_mel: Floats) -> tuple[Floats, ...]:
        """Return YAMNet's maps of patches (n, 96, 64), one of each of `MAPS`, float32 (n, ...).

        Raises
        ------
        DataError
            When the file is not YAMNet.
        """
        found = [np.empty((len(log_mel), *shape), np.float32) for shape in MAPS]
        for start in range(0, len(log_mel), _BATCH):
            rows = slice(start, start + _BATCH)
            given = self._map_session.run(None, {"log_mel": its_log_mel(log_mel[rows])})
            for whole, part in zip(found, given, strict=True):
                whole[rows] = part.transpose(0, 2, 3, 1)
        return tuple(found)

    @functools.cached_property
    def _map_session(self) -> Any:
        model, name = read_graph(self._path), printable(os.fspath(self._path))
        return session_of(model, _map_names(model.graph, name), name=name, threads=self._threads)


def _map_names(graph: Any, name: str) -> list[str]:
    """Return the name of the last 1 x 1 activation of as many channels as each of `MAPS` has."""
    outputs = {
        item.name: item.dims[0]
        for item in graph.initializer
        if len(item.dims) == 4 and item.dims[2] == 1
    }
    channels = {
        node.output[0]: outputs[node.input[1]]
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in outputs
    }
    active = {  # in the order of the graph: the last one of a width stays
        channels[node.input[0]]: node.output[0]
        for node in graph.node
        if node.op_type == "Clip" and node.input[0] in channels
    }
    if missing := [shape[-1] for shape in MAPS if shape[-1] not in active]:
        raise DataError(
            f"{name} is not YAMNet: it has no map of {missing[0]} channels. Delete it, and name "
            "YAMNet's folder (--yamnet): it is converted anew."
        )
    return [active[shape[-1]] for shape in MAPS]


def scores_of(
    embedding: Floats, layer: tuple[Floats, Floats], columns: npt.NDArray[np.intp]
) -> Floats:
    """Return what the teacher's last layer says of embeddings (n, 1024), float32 (n, 527).

    Parameters
    ----------
    embedding : float32 (n, 1024)
        The teacher's, or what could be one.
    layer : tuple
        As `last_layer` gives it.
    columns : (521,)
        Our column of each of the teacher's classes.
    """
    from scipy.special import expit

    kernel, bias = layer
    scores = np.zeros((len(embedding), CLASS_COUNT), np.float32)
    scores[:, columns] = expit(embedding @ kernel + bias)
    return scores


def its_log_mel(log_mel: Floats) -> Floats:
    """Return YAMNet's log-mel from ours: the same bands with an offset of 0.001."""
    mel = np.maximum(np.exp(log_mel) - np.float32(_OUR_OFFSET), 0.0)
    return np.log(mel + np.float32(_ITS_OFFSET)).astype(np.float32)


def encode_embedding(embedding: Floats) -> npt.NDArray[np.uint8]:
    """Return an embedding as bytes: the square root, in steps of 1/255 of the highest."""
    share = np.sqrt(np.clip(embedding, 0.0, HIGHEST) / np.float32(HIGHEST))
    return np.rint(share * np.float32(255)).astype(np.uint8)


def decode_embedding(code: npt.NDArray[np.uint8]) -> Floats:
    """Return what `encode_embedding` was given, float32."""
    return np.square(code.astype(np.float32) / np.float32(255)) * np.float32(HIGHEST)


def read_class_map(path: str | os.PathLike[str]) -> npt.NDArray[np.intp]:
    """Return our column of each of YAMNet's classes, (521,).

    Raises
    ------
    DataError
        When the file is not YAMNet's class map.
    """
    ours = {mid: index for index, mid in enumerate(load_labels().mids)}
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            columns = [ours[row["mid"]] for row in csv.DictReader(file)]
    except (OSError, KeyError) as error:
        raise DataError(f"{printable(os.fspath(path))} is no class map: {error}.") from error
    if len(columns) != _CLASSES:
        raise DataError(f"{printable(os.fspath(path))} has {len(columns)} classes, not {_CLASSES}.")
    return np.array(columns)


def convert_teacher(tflite: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write YAMNet as a float ONNX graph.

    Weights keep the values that their 8 bits stand for; what lies between layers is no longer
    rounded.

    Parameters
    ----------
    tflite : path-like
        YAMNet with a patch of log-mel as input, 8-bit.
    target : path-like
        ONNX file: input ``log_mel`` (n, 96, 64), outputs ``embedding`` (n, 1024) and ``scores``
        (n, 521), all float32.

    Raises
    ------
    MissingDependencyError
        When tensorflow or tf2onnx is not installed.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise MissingDependencyError(
            error.name or "tf2onnx", extra="tensorflow", purpose="Converting YAMNet"
        ) from error
    model, _ = tf2onnx.convert.from_tflite(os.fspath(tflite), opset=15)
    _make_float(model.graph)
    _add_bias(model.graph, _last_bias(tflite))
    _free_batch(model.graph)
    _name_ends(model.graph)
    onnx.checker.check_model(model)
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _make_float(graph: Any) -> None:
    """Turn quantised weights into floats and drop what rounds activations."""
    from onnx import numpy_helper

    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    same: dict[str, str] = {}
    weights, nodes = [], []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            codes, scale, zero = (values[name] for name in node.input)
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
            if scale.ndim:
                shape = [-1 if index == axis else 1 for index in range(codes.ndim)]
                scale, zero = scale.reshape(shape), zero.reshape(shape)
            floats = (codes.astype(np.float32) - zero.astype(np.float32)) * scale
            weights.append(numpy_helper.from_array(floats, node.output[0]))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear") or (
            node.op_type == "Split" and len(node.output) == 1
        ):
            same[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    for node in nodes:
        node.input[:] = [_origin(name, same) for name in node.input]
    ends = {_origin(item.name, same): item.name for item in graph.output}
    for node in nodes:
        node.input[:] = [ends.get(name, name) for name in node.input]
        node.output[:] = [ends.get(name, name) for name in node.output]
    used = {name for node in nodes for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *weights])


def _last_bias(tflite: str | os.PathLike[str]) -> Floats:
    """Return the last dense layer's bias, (521,), which tf2onnx leaves out."""
    from tensorflow import lite

    interpreter = lite.Interpreter(os.fspath(tflite), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    for tensor in interpreter.get_tensor_details():
        if tensor["shape"].tolist() == [_CLASSES] and tensor["dtype"] == np.int32:
            codes = interpreter.get_tensor(tensor["index"])
            scale, zero = tensor["quantization"]
            return ((codes.astype(np.float64) - zero) * scale).astype(np.float32)
    raise DataError(f"{printable(os.fspath(tflite))} has no dense layer of {_CLASSES} classes.")


def _add_bias(graph: Any, bias: Floats) -> None:
    """Put the bias behind the dense layer, where it is missing."""
    from onnx import helper, numpy_helper

    place, dense = next(
        (place, node) for place, node in enumerate(graph.node) if node.op_type == "MatMul"
    )
    result = dense.output[0]
    if any(node.op_type == "Add" and result in node.input for node in graph.node):
        return
    dense.output[0] = "dense_without_bias"
    graph.initializer.append(numpy_helper.from_array(bias, "dense_bias"))
    added = helper.make_node("Add", ["dense_without_bias", "dense_bias"], [result])
    graph.node.insert(place + 1, added)


def last_layer(path: str | os.PathLike[str]) -> tuple[Floats, Floats]:
    """Return kernel (1024, 521) and bias (521,) of a converted teacher's last dense layer.

    They weigh the student's errors by what they change in the scores; the student has no use for
    them afterwards.

    Raises
    ------
    DataError
        When the file cannot be read.
    """
    from onnx import numpy_helper

    graph = read_graph(path).graph
    values = {item.name: item for item in graph.initializer}
    dense = next(node for node in graph.node if node.op_type == "MatMul")
    kernel = next(values[name] for name in dense.input if name in values)
    return numpy_helper.to_array(kernel), numpy_helper.to_array(values["dense_bias"])


def _origin(name: str, same: dict[str, str]) -> str:
    while name in same:
        name = same[name]
    return name


def _free_batch(graph: Any) -> None:
    """Let reshapes and ends take any number of patches."""
    from onnx import numpy_helper

    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for item in graph.initializer:
        if item.name in shapes:
            shape = numpy_helper.to_array(item).copy()
            shape[0] = -1
            item.CopyFrom(numpy_helper.from_array(shape, item.name))
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "patches"


def _name_ends(graph: Any) -> None:
    """Name the ends, and make the last dense layer's input an output."""
    from onnx import TensorProto, helper

    dense = next(node for node in graph.node if node.op_type == "MatMul")
    names = {
        graph.input[0].name: "log_mel",
        dense.input[0]: "embedding",
        graph.output[0].name: "scores",
    }
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    graph.input[0].name, graph.output[0].name = "log_mel", "scores"
    graph.output.append(
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["patches", EMBEDDING])
    )
    if graph.input[0].type.tensor_type.shape.dim[1].dim_value != PATCH_FRAMES or (
        graph.input[0].type.tensor_type.shape.dim[2].dim_value != MEL_BANDS
    ):
        raise DataError("This is not YAMNet with a log-mel patch as input.")
