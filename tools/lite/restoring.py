"""A bundled embedder turned back into a stage that can be trained on.

The ONNX file holds convolutions with their normalisation folded into them. They are taken apart
again by what their results are like on real patches, so that the network answers as the file does
and normalisation by batch changes nothing at first.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, printable
from audiosearch.own.layers import stored_weights
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
from tools.lite.onnx_graph import read_graph, session_of
from tools.lite.released import Released
from tools.lite.run import StageFolder
from tools.lite.shards import Shard, decode_log_mel
from tools.lite.teacher import EMBEDDING

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
    InvalidArgumentError
        When the folder holds another stage.
    MissingDependencyError
        When onnx is not installed.
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

    Raises
    ------
    DataError
        When the file is no embedder of that shape.
    MissingDependencyError
        When onnx is not installed.
    """
    graph = _File(path, config)
    names = [each.name for _, group in convolutions(config) for each in group]
    trunk = build_trunk(config)
    layers = layers_of(trunk)
    moments, guess = graph.moments(names, sample)
    for name in names:
        kernel, bias = graph.weight(f"{name}_kernel"), graph.weight(f"{name}_bias")
        if name == names[0]:
            kernel = kernel * np.float32(INPUT_DEVIATION)
            bias = bias + kernel.sum(axis=(1, 2, 3)) * np.float32(INPUT_MEAN / INPUT_DEVIATION)
        _set_convolution(layers, name, kernel, bias, moments[name])
    adaptor = build_adaptor(config, mean=mean, deviation=deviation)
    _set_adaptor(adaptor, graph, config, guess, mean, deviation)
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

    def __init__(self, path: str | os.PathLike[str], config: StudentConfig) -> None:
        self._name = printable(os.fspath(path))
        self._model = read_graph(path)
        self._values = stored_weights(self._model)
        found = {
            node.name: self.weight(f"{node.name}_kernel").shape
            for node in self._model.graph.node
            if node.op_type in ("Conv", "Gemm")
        }
        wanted = _kernel_shapes(config)
        if other := sorted(name for name in found | wanted if found.get(name) != wanted.get(name)):
            raise DataError(
                f"{self._name} is an embedder of another shape: its {other[0]} is "
                f"{found.get(other[0], 'not there')}, not {wanted.get(other[0], 'to be there')}. "
                "Its manifest must be the one that was written with it."
            )

    def weight(self, name: str) -> Floats:
        if name not in self._values:
            raise DataError(
                f"{self._name} has no '{name}'. Name a file that the step export wrote."
            )
        return self._values[name]

    def results(self, names: list[str], log_mel: Floats) -> Iterator[list[Floats]]:
        """Yield what nodes give of patches (n, 96, 64), some at a time."""
        session = session_of(self._model, names, name=self._name)
        for begin in range(0, len(log_mel), _BATCH):
            yield session.run(None, {"log_mel": log_mel[begin : begin + _BATCH]})

    def moments(
        self, names: list[str], sample: Floats
    ) -> tuple[dict[str, tuple[Floats, Floats]], Floats]:
        """Return mean and variance of each channel of what convolutions give, and the guess."""
        sums = {name: np.zeros((2, len(self.weight(f"{name}_bias")))) for name in names}
        guesses = []
        for *found, guess in self.results([*names, "guess"], sample):
            guesses.append(guess)
            for name, values in zip(names, found, strict=True):
                weight = values.astype(np.float64)
                sums[name] += [weight.mean(axis=(2, 3)).sum(axis=0),
                               np.square(weight).mean(axis=(2, 3)).sum(axis=0)]  # fmt: skip
        means = {name: found / len(sample) for name, found in sums.items()}
        moments = {
            name: (
                first.astype(np.float32),
                np.maximum(second - np.square(first), 0).astype(np.float32),
            )
            for name, (first, second) in means.items()
        }
        return moments, np.concatenate(guesses)


def _kernel_shapes(config: StudentConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each kernel of an exported embedder, by its layer's name."""
    shapes: dict[str, tuple[int, ...]] = {
        each.name: (each.outputs, each.inputs, each.kernel, each.kernel)
        for _, group in convolutions(config)
        for each in group
    }
    widths = [EMBEDDING, *config.hidden, EMBEDDING_SIZE]
    names = [*(f"hidden_{number}" for number in range(1, len(config.hidden) + 1)), "values"]
    return shapes | dict(zip(names, itertools.pairwise(widths), strict=True))
