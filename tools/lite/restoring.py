"""A bundled embedder turned back into a stage that can be trained on.

The ONNX file holds convolutions with their normalisation folded into them. They are taken apart
again by what their results are like on real patches, so that the network answers as the file does
and normalisation by batch changes nothing at first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import DataError, MissingDependencyError, printable
from tools.lite.network import (
    INPUT_DEVIATION,
    INPUT_MEAN,
    NORM_EPSILON,
    StudentConfig,
    build_adaptor,
    build_trunk,
    convolutions,
    layers_of,
)
from tools.lite.released import Released
from tools.lite.run import StageFolder
from tools.lite.shards import Shard, decode_log_mel

__all__ = ["restore", "restore_parts"]

_SAMPLE = 1024  # patches by which normalisation is taken apart
_BATCH = 128
_KERNEL_NORM = np.sqrt(2.0)  # of each filter, as fresh ones have it

Floats = npt.NDArray[np.float32]


def restore(
    path: str | os.PathLike[str],
    config: StudentConfig,
    shard: Shard,
    released: Released,
    out: Path,
) -> None:
    """Write a stage's folder that holds an embedder's weights.

    Parameters
    ----------
    path : path-like
        The ONNX file, as `tools.lite.export` wrote it.
    config : StudentConfig
        Its shape.
    shard : Shard
        Patches.
    released : Released
        The released embeddings that it was trained with.
    out : Path
        The stage's folder.

    Raises
    ------
    DataError
        When the file is no such embedder.
    """
    order = np.random.default_rng(0).permutation(len(shard.log_mel))
    sample = decode_log_mel(np.asarray(shard.log_mel)[np.sort(order[:_SAMPLE])])
    parts = restore_parts(path, config, sample, mean=released.mean, deviation=released.deviation)
    folder = StageFolder(out)
    folder.begin(
        {
            "stage": "restored",
            "start": Path(path).name,
            "values": {"mean": released.mean.tolist(), "deviation": released.deviation.tolist()},
            "student": config.__dict__,
        }
    )
    folder.save_parts(parts)


def restore_parts(
    path: str | os.PathLike[str],
    config: StudentConfig,
    sample: Floats,
    *,
    mean: Floats,
    deviation: Floats,
) -> dict[str, Any]:
    """Return trunk and adaptor with an embedder's weights.

    Parameters
    ----------
    path, config
        As in `restore`.
    sample : float32 (n, 96, 64)
        Patches by which normalisation is taken apart.
    mean, deviation : float32 (128,)
        Of the released values.

    Returns
    -------
    dict of str to keras.Model
        ``trunk`` and ``adaptor``.
    """
    graph = _File(path)
    names = [each.name for _, group in convolutions(config) for each in group]
    trunk = build_trunk(config)
    layers = layers_of(trunk)
    moments = graph.moments(names, sample)
    for name in names:
        kernel, bias = graph.weight(f"{name}_kernel"), graph.weight(f"{name}_bias")
        if name == names[0]:
            kernel = kernel * np.float32(INPUT_DEVIATION)
            bias = bias + kernel.sum(axis=(1, 2, 3)) * np.float32(INPUT_MEAN / INPUT_DEVIATION)
        _set_convolution(layers, name, kernel, bias, moments[name])
    adaptor = build_adaptor(config, mean=mean, deviation=deviation)
    _set_adaptor(adaptor, graph, config, graph.run("guess", sample), mean, deviation)
    return {"trunk": trunk, "adaptor": adaptor}


def _set_convolution(
    layers: Mapping[str, Any],
    name: str,
    kernel: Floats,
    bias: Floats,
    moments: tuple[Floats, Floats],
) -> None:
    """Set a convolution and its normalisation to what together they were folded to."""
    mean, variance = moments[0] - bias, moments[1]
    norms = np.sqrt(np.square(kernel, dtype=np.float64).sum(axis=(1, 2, 3)))
    scale = _KERNEL_NORM / np.maximum(norms, 1e-6)
    scaled = kernel * scale[:, None, None, None]
    wide = variance * np.square(scale)
    layers[name].set_weights([np.transpose(scaled, (2, 3, 1, 0)).astype(np.float32)])
    values = (np.sqrt(wide + NORM_EPSILON) / scale, mean + bias, mean * scale, wide)
    layers[f"{name}_norm"].set_weights([v.astype(np.float32) for v in values])


def _set_adaptor(
    adaptor: Any,
    graph: _File,
    config: StudentConfig,
    features: Floats,
    mean: Floats,
    deviation: Floats,
) -> None:
    centre, variance = features.mean(axis=0), features.var(axis=0)
    one = np.ones_like(centre)
    adaptor.get_layer("standardised").set_weights([one, 0 * one, centre, variance])
    spread = np.sqrt(variance + np.float32(NORM_EPSILON))
    names = [f"hidden_{number}" for number in range(1, len(config.hidden) + 1)]
    for name, stored in [*zip(names, names, strict=True), ("standard_embedding", "values")]:
        kernel, bias = graph.weight(f"{stored}_kernel"), graph.weight(f"{stored}_bias")
        if name == "standard_embedding":
            kernel, bias = kernel / deviation, (bias - mean) / deviation
        if stored == (names[0] if names else "values"):
            kernel, bias = kernel * spread[:, None], bias + centre @ kernel
        adaptor.get_layer(name).set_weights([kernel, bias])


class _File:
    """An exported embedder: its weights by name, and what lies between its layers."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            import onnx
            from onnx import numpy_helper
        except ImportError as error:
            raise MissingDependencyError(
                "onnx", extra="tensorflow", purpose="Reading an embedder's weights"
            ) from error
        self._name = printable(os.fspath(path))
        self._model = onnx.load(os.fspath(path))
        self._values = {
            item.name.removesuffix("_half"): numpy_helper.to_array(item).astype(np.float32)
            for item in self._model.graph.initializer
        }

    def weight(self, name: str) -> Floats:
        if f"{name}_bytes" in self._values:
            return self._values[f"{name}_bytes"] * self._values[f"{name}_scale"]
        if name not in self._values:
            raise DataError(f"{self._name} has no '{name}'; it is of another shape.")
        return self._values[name]

    def run(self, result: str, log_mel: Floats) -> Floats:
        """Return what a node gives of patches (n, 96, 64)."""
        session = self._session([result])
        parts = [
            session.run([result], {"log_mel": log_mel[begin : begin + _BATCH]})[0]
            for begin in range(0, len(log_mel), _BATCH)
        ]
        return np.concatenate(parts)

    def moments(self, names: list[str], sample: Floats) -> dict[str, tuple[Floats, Floats]]:
        """Return mean and variance of each channel of what convolutions give."""
        session = self._session(names)
        sums = {name: np.zeros((2, len(self.weight(f"{name}_bias")))) for name in names}
        count = 0
        for begin in range(0, len(sample), _BATCH):
            found = session.run(names, {"log_mel": sample[begin : begin + _BATCH]})
            for name, values in zip(names, found, strict=True):
                weight = values.astype(np.float64)
                sums[name] += [weight.mean(axis=(2, 3)).sum(axis=0),
                               np.square(weight).mean(axis=(2, 3)).sum(axis=0)]  # fmt: skip
            count += len(found[0])
        means = {name: found / count for name, found in sums.items()}
        return {
            name: (
                first.astype(np.float32),
                np.maximum(second - np.square(first), 0).astype(np.float32),
            )
            for name, (first, second) in means.items()
        }

    def _session(self, names: list[str]) -> Any:
        import onnxruntime
        from onnx import helper

        model = type(self._model)()
        model.CopyFrom(self._model)
        known = {name for node in model.graph.node for name in node.output}
        if missing := [name for name in names if name not in known]:
            raise DataError(f"{self._name} has no layer {missing[0]}; it is of another shape.")
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        return onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
