"""A bundled embedder turned back into a stage that can be trained on.

The ONNX file holds convolutions with their normalisation folded into them. They are taken apart
again by what their results are like on real patches, so that the network answers as the file does
and normalisation by batch changes nothing at first. The layer that guesses the teacher's embedding,
which is not shipped, is fitted anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import DataError, MissingDependencyError, printable
from tools.lite.distillation import embedding_statistics
from tools.lite.network import (
    INPUT_DEVIATION,
    INPUT_MEAN,
    NORM_EPSILON,
    StudentConfig,
    build_adaptor,
    build_head,
    build_trunk,
)
from tools.lite.released import Released
from tools.lite.run import StageFolder
from tools.lite.shards import Shard, decode_log_mel
from tools.lite.teacher import decode_embedding

__all__ = ["fit_head", "restore", "restore_parts"]

_SAMPLE = 1024  # patches by which normalisation is taken apart
_BATCH = 128
_KERNEL_NORM = np.sqrt(2.0)  # of each filter, as fresh ones have it
_RIDGE = 1e-3

Floats = npt.NDArray[np.float32]


def restore(
    path: str | os.PathLike[str],
    config: StudentConfig,
    shard: Shard,
    released: Released,
    out: Path,
    *,
    teacher: Shard,
) -> None:
    """Write a stage's folder that holds an embedder's weights.

    Parameters
    ----------
    path : path-like
        The ONNX file, as `tools.lite.export` wrote it.
    config : StudentConfig
        Its shape.
    shard : Shard
        Patches, and the teacher's embeddings of them.
    released : Released
        The released embeddings that it was trained with.
    out : Path
        The stage's folder.
    teacher : Shard
        The shard by which the teacher's embedding is standardised: the first mixed one.

    Raises
    ------
    DataError
        When the file is no such embedder.
    """
    order = np.random.default_rng(0).permutation(len(shard.log_mel))
    sample = decode_log_mel(np.asarray(shard.log_mel)[np.sort(order[:_SAMPLE])])
    parts, features = restore_parts(
        path, config, sample, mean=released.mean, deviation=released.deviation
    )
    mean, deviation = embedding_statistics(teacher)
    answers = (
        (features(decode_log_mel(log_mel)), (decode_embedding(embedding) - mean) / deviation)
        for log_mel, embedding in _blocks(shard)
    )
    parts["head"] = fit_head(answers, config)
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
) -> tuple[dict[str, Any], Any]:
    """Return trunk and adaptor with an embedder's weights, and its features as a function.

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
    parts : dict of str to keras.Model
        ``trunk`` and ``adaptor``.
    features : callable
        From log-mel (n, 96, 64) to features (n, width), by the ONNX file.
    """
    graph = _File(path)
    convolutions = list(_convolutions(config))
    trunk = build_trunk(config)
    moments = graph.moments(convolutions, sample)
    for name in convolutions:
        kernel, bias = graph.weight(f"{name}_kernel"), graph.weight(f"{name}_bias")
        if name == "tiles":
            kernel = kernel * np.float32(INPUT_DEVIATION)
            bias = bias + kernel.sum(axis=(1, 2, 3)) * np.float32(INPUT_MEAN / INPUT_DEVIATION)
        is_depthwise = name.startswith("depth_")
        order = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
        _set_convolution(trunk, name, kernel, bias, moments[name], order)
    kernel, bias = graph.weight("features_kernel"), graph.weight("features_bias")
    channels = config.channels * 2 ** (len(config.depths) - 1)
    bands = len(kernel) // channels
    moved = kernel.reshape(channels, bands, -1).swapaxes(0, 1).reshape(len(kernel), -1)
    trunk.get_layer("features").set_weights([moved, bias])

    adaptor = build_adaptor(config, mean=mean, deviation=deviation)
    features = graph.function("features_relu")
    _set_adaptor(adaptor, graph, config, features(sample), mean, deviation)
    return {"trunk": trunk, "adaptor": adaptor}, features


def fit_head(blocks: Iterator[tuple[Floats, Floats]], config: StudentConfig) -> Any:
    """Return a head fitted by ridge regression.

    Parameters
    ----------
    blocks : iterator of tuple
        Features (n, width), and the standardised embeddings (n, 1024) that they shall give.
    config : StudentConfig
        The student's shape.
    """
    width = config.features + 1
    squares = np.zeros((width, width))
    products: Any = 0.0
    count = 0
    for features, wanted in blocks:
        rows = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
        squares += rows.T @ rows
        products = products + rows.T @ wanted.astype(np.float64)
        count += len(rows)
    penalty = np.eye(width) * _RIDGE * count
    penalty[-1, -1] = 0.0
    solved = np.linalg.solve(squares + penalty, products).astype(np.float32)
    head = build_head(config)
    head.get_layer("answer").set_weights([solved[:-1], solved[-1]])
    return head


def _convolutions(config: StudentConfig) -> Iterator[str]:
    """Yield the names of a trunk's convolutions in their order."""
    yield "tiles"
    for stage, depth in enumerate(config.depths, start=1):
        if stage > 1:
            yield f"merge_{stage}"
        for number in range(1, depth + 1):
            kinds = ("full",) if config.block == "full" else ("depth", "point")
            yield from (f"{kind}_{stage}_{number}" for kind in kinds)


def _set_convolution(
    trunk: Any,
    name: str,
    kernel: Floats,
    bias: Floats,
    moments: tuple[Floats, Floats],
    order: tuple[int, ...],
) -> None:
    """Set a convolution and its normalisation to what together they were folded to."""
    mean, variance = moments[0] - bias, moments[1]
    norms = np.sqrt(np.square(kernel, dtype=np.float64).sum(axis=(1, 2, 3)))
    scale = _KERNEL_NORM / np.maximum(norms, 1e-6)
    scaled = kernel * scale[:, None, None, None]
    wide = variance * np.square(scale)
    trunk.get_layer(name).set_weights([np.transpose(scaled, order).astype(np.float32)])
    values = (np.sqrt(wide + NORM_EPSILON) / scale, mean + bias, mean * scale, wide)
    trunk.get_layer(f"{name}_norm").set_weights([v.astype(np.float32) for v in values])


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


def _blocks(shard: Shard) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    for begin in range(0, len(shard.log_mel), 2048):
        rows = slice(begin, begin + 2048)
        yield np.asarray(shard.log_mel[rows]), np.asarray(shard.embedding[rows])


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
        if name not in self._values:
            raise DataError(f"{self._name} has no '{name}'; it is of another shape.")
        return self._values[name]

    def function(self, result: str) -> Any:
        """Return log-mel to what a node gives, as a function."""
        session = self._session([result])

        def run(log_mel: Floats) -> Floats:
            parts = [
                session.run([result], {"log_mel": log_mel[begin : begin + _BATCH]})[0]
                for begin in range(0, len(log_mel), _BATCH)
            ]
            return np.concatenate(parts)

        return run

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
