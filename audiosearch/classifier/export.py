"""A trained network as the two files that the scorer loads: ONNX, and a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.graph import network_graph
from audiosearch.classifier.network import NetworkConfig
from audiosearch.embedders.base import SPACE
from audiosearch.errors import MissingDependencyError
from audiosearch.storage import atomic_path, sha256_file, write_json

__all__ = ["export_classifier", "write_classifier", "write_model"]


def export_classifier(
    network: Any,
    folder: str | os.PathLike[str],
    *,
    config: NetworkConfig,
    name: str,
    facts: dict[str, Any],
    half: bool = True,
) -> Path:
    """Write ``classifier.onnx`` and ``classifier.json``.

    Parameters
    ----------
    network : keras.Model
        As `audiosearch.classifier.network.build_network` makes it.
    folder : path-like
        Where to write.
    config : NetworkConfig
        What the network was built from.
    name : str
        The classifier's name.
    facts : dict
        What the manifest says of its making (configuration, results).
    half : bool
        Whether large weights are stored as float16; ONNX Runtime widens them when it loads the
        model, so scoring itself runs in float32.

    Returns
    -------
    pathlib.Path
        The ONNX file.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    """
    try:
        model = network_graph(network, config)
    except ImportError as error:
        raise _missing(error) from error
    return write_classifier(model, folder, name=name, facts=facts, half=half)


def write_classifier(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    name: str,
    facts: dict[str, Any],
    half: bool = True,
) -> Path:
    """Write an ONNX model of a classifier, with the sides that the scorer expects.

    Parameters, results and errors as for `export_classifier`; `model` is an ``onnx.ModelProto``.
    """
    if half:
        try:
            _store_half(model.graph)
        except ImportError as error:
            raise _missing(error) from error
    manifest = {
        "name": name,
        "space": SPACE,
        "classes": model.graph.output[0].type.tensor_type.shape.dim[1].dim_value,
        "weights": "float16" if half else "float32",
        **facts,
    }
    return write_model(model, folder, manifest)


def write_model(model: Any, folder: str | os.PathLike[str], facts: dict[str, Any]) -> Path:
    """Write an ONNX model and its manifest as `audiosearch.models.read_model` reads them.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    StorageError
        When they cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise _missing(error) from error
    onnx.checker.check_model(model)
    target = Path(folder) / "classifier.onnx"
    with atomic_path(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    manifest = {"format_version": 1, "name": "", "sha256": sha256_file(target), **facts}
    write_json(Path(folder) / "classifier.json", manifest)
    return target


def _missing(error: ImportError) -> MissingDependencyError:
    return MissingDependencyError(
        error.name or "onnx", extra="tensorflow", purpose="Exporting a classifier"
    )


def _store_half(graph: Any) -> None:
    """Store large float32 weights as float16, each behind a cast that is folded at loading."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 4096:
            continue
        values = numpy_helper.to_array(weight)
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
