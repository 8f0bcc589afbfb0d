"""Weights of the published multi-level attention network, brought into our own format.

IBM's audioset-classification and Kong's audioset_classification train a network that they call
``decision_level_multi_attention`` and save its weights with Keras 2 as HDF5
(``final_weights.h5``): three times dense, batch normalisation, ReLU and dropout; behind the second
and the third a pool each, of a dense sigmoid layer weighed by a dense softmax layer; and a dense
layer on both pools. It is `NetworkConfig(attention="softmax", levels=(2, 3))`.

Such a file holds one group a layer, listed by the attribute ``layer_names`` in the order of the
network, at the top of the file or under ``model_weights`` (``save_weights`` or ``save``); each
group's attribute ``weight_names`` lists its arrays. Layer names are counters of the session that
made the network (``dense_1`` to ``dense_8``, or ``dense_9`` to ``dense_16``), so they say nothing.
Which layer is which follows from this rule: a layer with a kernel is dense, one with a gamma is a
batch normalisation; the normalisations are taken in the file's order; the dense layers are told
apart by the shape of their kernels, and those of one shape are taken in the file's order, which
for the four (units, 527) kernels is score and attention of the second layer, then score and
attention of the third.

One difference remains: the published code feeds a short clip's padding to the network, ours leaves
it out. Full clips of ten frames score the same.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import NetworkConfig, build_network, import_keras
from audiosearch.datasets.packed import FRAME_VALUES
from audiosearch.errors import DataError, StorageError, printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.storage import sha256_file, storage_errors

__all__ = ["ImportedWeights", "import_weights", "read_published"]

Arrays = dict[str, npt.NDArray[np.float32]]

_DENSE = ("kernel", "bias")
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_DENSE_COUNT, _NORM_COUNT = 8, 3
# What h5py raises where the bytes of a file are not what they should be.
_HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True)
class ImportedWeights:
    """What `import_weights` made.

    Attributes
    ----------
    folder : Path
        The classifier, as every ``--classifier`` takes it.
    units : int
        Width of the hidden layers.
    parameters : int
        How many numbers were read.
    """

    folder: Path
    units: int
    parameters: int


def import_weights(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, name: str = "published"
) -> ImportedWeights:
    """Make a classifier from a Keras 2 weights file of the published network.

    Parameters
    ----------
    path : path-like
        The HDF5 file, for example IBM's ``final_weights.h5``.
    out : path-like
        Folder to make; it must not exist, or be empty. It gets ``classifier.onnx`` (float32) and
        ``classifier.json``.
    name : str
        The classifier's name.

    Raises
    ------
    DataError
        When the file is missing or damaged, or holds another network; the message says what.
    MissingDependencyError
        When keras, or a package that the export needs, is not installed.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    """
    layers = read_published(path)
    folder = Path(out)
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(
                f"{printable(os.fspath(folder))} exists already. Name a new folder; nothing was "
                "overwritten."
            )
    import_keras()
    from audiosearch.classifier.export import export_classifier

    config = NetworkConfig(units=layers["hidden_1"]["bias"].size, attention="softmax")
    network = build_network(config)
    for layer, arrays in layers.items():
        network.get_layer(layer).set_weights(list(arrays.values()))
    facts = {
        "imported_from": Path(path).name,
        "imported_sha256": sha256_file(path),
        "config": {"network": asdict(config)},
    }
    export_classifier(network, folder, config=config, name=name, facts=facts, half=False)
    parameters = sum(array.size for arrays in layers.values() for array in arrays.values())
    return ImportedWeights(folder, config.units, parameters)


def read_published(path: str | os.PathLike[str]) -> dict[str, Arrays]:
    """Read a Keras 2 weights file of the published network.

    Returns
    -------
    dict
        By the names that `build_network` gives its layers, float32 arrays in Keras's order:
        ``kernel`` and ``bias``, or ``gamma``, ``beta``, ``moving_mean`` and ``moving_variance``.

    Raises
    ------
    DataError
        As `import_weights`.
    """
    import h5py

    name = printable(os.fspath(path))
    if not Path(path).is_file():
        raise DataError(f"{name}: there is no such file.")
    try:
        file = h5py.File(path, "r")
    except _HDF5_ERRORS as error:
        raise DataError(
            f"{name} is not an HDF5 file, or it is truncated. Download or copy it again."
        ) from error
    with file:
        try:
            found = _read_layers(file, name)
        except _HDF5_ERRORS as error:
            raise DataError(
                f"{name} is truncated or damaged: a part of it cannot be read. Download or copy "
                "it again."
            ) from error
    dense, norms = {}, {}
    for layer, arrays in found.items():
        if set(arrays) == set(_DENSE):
            dense[layer] = {key: arrays[key] for key in _DENSE}
        elif set(arrays) == set(_NORM):
            norms[layer] = {key: arrays[key] for key in _NORM}
        else:
            raise DataError(
                f"{name}: the layer '{layer}' holds {', '.join(sorted(arrays))}; a layer of the "
                f"published network holds {', '.join(_DENSE)}, or {', '.join(_NORM)}."
            )
    if (len(dense), len(norms)) != (_DENSE_COUNT, _NORM_COUNT):
        raise DataError(
            f"{name} holds {len(dense)} dense layers and {len(norms)} batch normalisations; "
            f"decision_level_multi_attention has {_DENSE_COUNT} and {_NORM_COUNT}. Other networks "
            "cannot be imported."
        )
    assigned = _assign_dense(dense, name)
    return assigned | _assign_norms(norms, assigned["hidden_1"]["bias"].size, name)


def _read_layers(file: Any, name: str) -> dict[str, Arrays]:
    """Return the arrays of each layer that has any, by layer and by the last part of their name."""
    group = file.get("model_weights", file)
    layers = _names(group, "layer_names")
    if layers is None:
        raise DataError(
            f"{name} holds no weights as Keras 2 saves them: the attribute 'layer_names' is "
            "missing."
        )
    found: dict[str, Arrays] = {}
    for layer in layers:
        arrays = {}
        for weight in _names(group[layer], "weight_names") or []:
            value = np.asarray(group[layer][weight][()])
            where = f"{name}: '{weight}' of the layer '{layer}'"
            if value.dtype.kind != "f":
                raise DataError(f"{where} must hold floating-point numbers, not {value.dtype}.")
            if not np.isfinite(value).all():
                raise DataError(f"{where} holds values that are not finite.")
            # "dense_1/kernel:0", or "kernel" where the backend was Theano.
            arrays[weight.rpartition("/")[2].partition(":")[0]] = value.astype(np.float32)
        if arrays:
            found[layer] = arrays
    return found


def _names(group: Any, attribute: str) -> list[str] | None:
    """Return a list of names; Keras spreads a long one over ``attribute0``, ``attribute1``, ..."""
    chunks = (f"{attribute}{number}" for number in itertools.count())
    keys = list(itertools.takewhile(group.attrs.__contains__, chunks))
    if attribute in group.attrs:
        keys = [attribute]
    if not keys:
        return None
    values = [value for key in keys for value in group.attrs[key]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _assign_norms(norms: dict[str, Arrays], units: int, name: str) -> dict[str, Arrays]:
    for layer, arrays in norms.items():
        for key, value in arrays.items():
            if value.shape != (units,):
                raise DataError(
                    f"{name}: '{key}' of the layer '{layer}' has the shape {value.shape}, not "
                    f"({units},) as the dense layers have it."
                )
        if arrays["moving_variance"].min() < 0:
            raise DataError(f"{name}: a variance of the layer '{layer}' is below 0.")
    return {f"norm_{number}": arrays for number, arrays in enumerate(norms.values(), start=1)}


def _assign_dense(dense: dict[str, Arrays], name: str) -> dict[str, Arrays]:
    first, *_, last = dense
    units, classes = dense[first]["bias"].size, dense[last]["bias"].size
    if classes != CLASS_COUNT:
        raise DataError(
            f"{name}: its last layer '{last}' scores {classes} classes, not the {CLASS_COUNT} of "
            "AudioSet."
        )
    shapes = {
        "hidden_1": (FRAME_VALUES, units),
        "hidden_2": (units, units),
        "hidden_3": (units, units),
        "score_2": (units, CLASS_COUNT),
        "attention_2": (units, CLASS_COUNT),
        "score_3": (units, CLASS_COUNT),
        "attention_3": (units, CLASS_COUNT),
        "scores": (2 * CLASS_COUNT, CLASS_COUNT),
    }
    left = dict(dense)
    assigned = {}
    for ours, shape in shapes.items():
        theirs = next((key for key, value in left.items() if value["kernel"].shape == shape), None)
        if theirs is None:
            listed = ", ".join(f"{key} {value['kernel'].shape}" for key, value in dense.items())
            raise DataError(
                f"{name} has no layer of the shape {shape} left for '{ours}'. Its dense layers: "
                f"{listed}."
            )
        assigned[ours] = left.pop(theirs)
        if assigned[ours]["bias"].shape != shape[1:]:
            raise DataError(
                f"{name}: the bias of the layer '{theirs}' has the shape "
                f"{assigned[ours]['bias'].shape}, not ({shape[1]},)."
            )
    return assigned
