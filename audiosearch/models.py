"""Weights that are installed with audiosearch: found, described, and verified to be whole.

A model `name` is two files of the folder ``audiosearch/data``: the weights ``name.onnx`` and the
manifest ``name.json``, an object with at least

- ``format_version``: 1; a larger number belongs to a later version of audiosearch,
- ``name``: the model's name,
- ``sha256``: the checksum of the weights, 64 hexadecimal digits.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from audiosearch.errors import ModelError, printable
from audiosearch.storage import read_json, resource_path, sha256_file

__all__ = ["BundledModel", "bundled_model", "onnx_session", "read_model"]

_FORMAT_VERSION = 1
_REINSTALL = 'Install audiosearch again: pip install --force-reinstall "audiosearch"'


@dataclass(frozen=True)
class BundledModel:
    """Weights whose checksum has been verified.

    Attributes
    ----------
    name : str
        The model's name.
    path : Path
        The file of the weights.
    manifest : mapping
        What the manifest says, read-only.
    """

    name: str
    path: Path
    manifest: Mapping[str, Any] = field(hash=False)

    @property
    def sha256(self) -> str:
        """Checksum of the weights, 64 lower-case hexadecimal digits."""
        return str(self.manifest["sha256"]).lower()


def bundled_model(name: str) -> BundledModel:
    """Return a model that is installed with audiosearch.

    The checksum is computed once in the life of a process.

    Parameters
    ----------
    name : str
        For example ``"lite"``.

    Raises
    ------
    ModelError
        When there is no such model, or a file of it is missing, unreadable or damaged.
    """
    return read_model(resource_path("audiosearch.data"), name, remedy=_REINSTALL)


@functools.cache
def read_model(folder: Path, name: str, *, remedy: str) -> BundledModel:
    """Return the model `name` of a folder; `remedy` ends each error's message.

    The checksum is computed once in the life of a process.

    Raises
    ------
    ModelError
        When there is no such model, or a file of it is missing, unreadable or damaged.
    """
    known = sorted(path.stem for path in folder.glob("*.onnx"))
    if not name or name != Path(name).name:
        raise ModelError(f"{printable(name)!r} is not a model's name. Installed: {_list(known)}.")
    weights = folder / f"{name}.onnx"
    description = folder / f"{name}.json"
    if not weights.is_file() and not description.is_file():
        raise ModelError(
            f"There is no model '{printable(name)}' in {printable(str(folder))}. Installed: "
            f"{_list(known)}. {remedy}"
        )
    for path in (weights, description):
        if not path.is_file():
            raise ModelError(f"{printable(str(path))} is missing. {remedy}")
    try:
        manifest = read_json(description)
        version, expected = int(manifest["format_version"]), str(manifest["sha256"]).lower()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{printable(str(description))} is not a readable manifest. {remedy}"
        ) from error
    if version > _FORMAT_VERSION:
        raise ModelError(
            f"{printable(str(description))} has format {version}; this version of audiosearch "
            f"reads {_FORMAT_VERSION}. {remedy}"
        )
    try:
        found = sha256_file(weights)
    except OSError as error:
        raise ModelError(
            f"{printable(str(weights))} cannot be read: {error.strerror or error}."
        ) from error
    if found != expected:
        raise ModelError(
            f"{printable(str(weights))} is damaged: its SHA-256 is {found}, not {expected}. "
            f"{remedy}"
        )
    return BundledModel(name=name, path=weights, manifest=MappingProxyType(manifest))


def _list(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def onnx_session(
    model: str | os.PathLike[str] | bytes, *, name: str, threads: int | None = None
) -> Any:
    """Return a session of ONNX Runtime on the processor.

    Parameters
    ----------
    model : path-like or bytes
        The file, or what is in one.
    name : str
        What it is called in an error: ``"x.onnx"``, or ``"The model 'lite'"``.
    threads : int, optional
        Threads for one batch; as many as there are cores where None.

    Raises
    ------
    ModelError
        When it cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Threads that spin while they wait halve the speed where other processes want the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # only what is fatal; errors also come as exceptions
    given = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no public base
        raise ModelError(f"{name} cannot be loaded: {error}") from error
