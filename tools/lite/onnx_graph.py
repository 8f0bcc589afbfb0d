"""What lies inside an ONNX file: its graph, and the results between its layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from audiosearch.errors import DataError, MissingDependencyError, printable
from audiosearch.models import onnx_session

__all__ = ["read_graph", "session_of"]


def read_graph(path: str | os.PathLike[str]) -> Any:
    """Return the model of an ONNX file.

    Raises
    ------
    DataError
        When the file cannot be read as one.
    MissingDependencyError
        When onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", extra="tensorflow", purpose="Looking into an ONNX file"
        ) from error
    try:
        return onnx.load(os.fspath(path))
    except (OSError, DecodeError) as error:
        raise DataError(
            f"{printable(os.fspath(path))} cannot be read as an ONNX file: {error}. Name one that "
            "the step export wrote, or make YAMNet's anew (prepare WORK --yamnet FOLDER)."
        ) from error


def session_of(model: Any, results: Sequence[str], *, name: str, threads: int | None = None) -> Any:
    """Return a session that gives results of nodes inside a model, in that order.

    Raises
    ------
    DataError
        When the model has no such result.
    """
    from onnx import helper

    known = {result for node in model.graph.node for result in node.output}
    if missing := [result for result in results if result not in known]:
        raise DataError(f"{name} has no layer {missing[0]}: it is of another shape.")
    inner = type(model)()
    inner.CopyFrom(model)
    del inner.graph.output[:]
    inner.graph.output.extend(helper.make_empty_tensor_value_info(result) for result in results)
    return onnx_session(inner.SerializeToString(), name=name, threads=threads)
