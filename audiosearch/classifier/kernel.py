"""Kernel ridge regression of clips: a classifier of another kind, to be distilled.

It is fitted in minutes, is about as good as a network of the family on AudioSet's balanced set, and
makes other mistakes. It keeps every training clip, so it is large and slow to fit on many: a
teacher (`audiosearch.classifier.training.train`), not what is shipped.

A clip is a set of frames. Two squared distances are taken between clips: between the means of
their frames' random Fourier features (Rahimi & Recht, NIPS 2007), which is a distance between
distributions (Muandet et al., NIPS 2012), and between their mean, deviation, largest and smallest
values. Each is divided by twice its median over training clips; the kernel is
``exp(-1.5 * sqrt(sum of both))``. Inner products are taken of principal components only, lengths of
all features: what the components leave out of two clips is as good as orthogonal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.classifier.calibration import calibrate_run
from audiosearch.classifier.export import write_classifier
from audiosearch.classifier.nodes import Nodes
from audiosearch.classifier.run import RunFolder
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.label_index import LabelIndex, path_list
from audiosearch.datasets.packed import FRAME_VALUES, frame_mask
from audiosearch.datasets.stream import ClipStream
from audiosearch.errors import DataError, InvalidArgumentError

__all__ = ["MOST_CLIPS", "KernelFit", "fit_kernel"]

Floats = npt.NDArray[np.float32]

MOST_CLIPS = 40_000  # whose kernel matrix takes 6.4 GB; more takes the square of it
_SCALE = 1.5  # of the Laplace kernel
_FEATURES = 2048
_COMPONENTS = 512
_SAMPLE = 2000  # clips whose distances give the median
_BLOCK = 1024
# By how much the second distance's parts count: mean, deviation, largest, smallest.
_PARTS = (1.0, 0.5, 0.4, 0.4)
_FAR = 9.0  # beyond any value of a frame


@dataclass(frozen=True)
class KernelFit:
    """A fitted classifier's folder, and its mAP on the validation split."""

    folder: Path
    validation_mAP: float
    train_clips: int
    validation_clips: int


def fit_kernel(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    ridge: float = 0.4,
    validation: float = 0.1,
    seed: int = 0,
) -> KernelFit:
    """Fit kernel ridge regression and write it as a classifier.

    Takes a float32 matrix of training clips by training clips: 1.6 GB for 20,000.

    Parameters
    ----------
    data : path-like, or several
        Packed HDF5 files with ``x`` and ``y``.
    out : path-like
        Folder to make, as of a training run; it must not exist, or be empty.
    ridge : float
        What is added to the kernel matrix's diagonal.
    validation, seed
        The split, the same as in training with these values; `seed` also draws the features.

    Raises
    ------
    DataError
        When a file is not as it must be, or there are more than `MOST_CLIPS` training clips.
    InvalidArgumentError
        When `ridge` is not above 0.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    MissingDependencyError
        When onnx is not installed.
    """
    if not ridge > 0:
        raise InvalidArgumentError(f"ridge must be above 0, not {ridge}.")
    paths = path_list(data)
    labels = LabelIndex.read(paths)
    training, held_out = labels.split(validation, seed)
    if len(training) > MOST_CLIPS:
        raise DataError(
            f"Kernel ridge regression is for at most {MOST_CLIPS:,} training clips, not "
            f"{len(training):,}: its memory grows with the square. Train a network instead."
        )
    folder = RunFolder(out)
    folder.make()
    x, n_frames, y = _read(paths, training, labels)
    features = _Features.fit(x, n_frames, seed)
    clips = features.of(x, n_frames)
    weights = _solve(clips, y, ridge)
    facts = {
        "trained_on": [path.name for path in map(Path, paths)],
        "train_clips": len(training),
        "train_positives": labels.counts(training).tolist(),
        "config": {"ridge": ridge, "validation": validation, "seed": seed},
    }
    model = _graph(features, clips, weights)
    write_classifier(model, folder.path, name="kernel-ridge", facts=facts, half=False)
    x, n_frames, truth = _read(paths, held_out, labels)
    scores = load_scorer(os.fspath(folder.path)).score(x, n_frames)
    calibrate_run(folder.path, scores, truth, fitted_on=f"{len(truth):,} validation clips")
    return KernelFit(
        folder.path,
        metrics.macro_mean(metrics.average_precision(truth, scores)),
        len(training),
        len(held_out),
    )


def _read(
    paths: Sequence[str | os.PathLike[str]],
    rows: npt.NDArray[np.int64],
    labels: LabelIndex,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    with ClipStream(paths, rows, batch_size=_BLOCK, labels=labels) as stream:
        batches = list(stream.epoch(1))
    return (
        np.concatenate([batch.x for batch in batches]),
        np.concatenate([batch.n_frames for batch in batches]),
        np.concatenate([batch.y for batch in batches]),
    )


@dataclass(frozen=True)
class _Features:
    """A clip's features: ``[Fourier * height, (statistics - centre) * gain] - mean``.

    ``Fourier`` is the mean over frames of the cosines and sines of ``frame @ directions``. Their
    principal components are the columns of `turn`.
    """

    directions: Floats
    height: float
    centre: Floats
    gain: Floats
    mean: Floats
    turn: Floats

    @classmethod
    def fit(cls, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.int64], seed: int) -> _Features:
        random = np.random.default_rng(seed)
        spread = _values(x[frame_mask(n_frames) > 0]).std(axis=0) + np.float32(1e-6)
        directions = random.standard_normal((FRAME_VALUES, _FEATURES // 2), np.float32)
        directions *= np.float32(np.sqrt(2 / FRAME_VALUES)) / spread[:, None]
        fourier = _fourier(x, n_frames, directions)
        height = np.sqrt(2 / _FEATURES)
        height /= np.sqrt(2 * height**2 * _median_distance(fourier, random))
        statistics = _statistics(x, n_frames)
        centre = statistics.mean(axis=0)
        gain = np.repeat(np.array(_PARTS, np.float32), FRAME_VALUES)
        gain /= statistics.std(axis=0) + np.float32(1e-6)
        gain /= np.sqrt(2 * _median_distance((statistics - centre) * gain, random))
        joined = np.concatenate([fourier * np.float32(height), (statistics - centre) * gain], 1)
        mean = joined.mean(axis=0)
        joined -= mean
        _, _, axes = np.linalg.svd(joined, full_matrices=False)
        turn = np.ascontiguousarray(axes[:_COMPONENTS].T)
        return cls(directions, float(height), centre, gain, mean, turn)

    def of(self, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.int64]) -> _Clips:
        """Return the clips' components and lengths."""
        fourier = _fourier(x, n_frames, self.directions) * np.float32(self.height)
        statistics = (_statistics(x, n_frames) - self.centre) * self.gain
        joined = np.concatenate([fourier, statistics], axis=1) - self.mean
        return _Clips(joined @ self.turn, np.einsum("ij,ij->i", joined, joined))


@dataclass(frozen=True)
class _Clips:
    """Principal components of clips, (n, components), and squared lengths of all features."""

    components: Floats
    squares: Floats


def _solve(clips: _Clips, y: npt.NDArray[np.bool_], ridge: float) -> Floats:
    """Return the weight of each training clip for each class, float32 (n, classes)."""
    from scipy.linalg import lapack

    count = len(y)
    kernel = np.empty((count, count), np.float32)
    for start in range(0, count, _BLOCK):
        rows = slice(start, start + _BLOCK)
        products = clips.components[rows] @ clips.components.T
        distances = clips.squares[rows, None] + clips.squares - 2 * products
        kernel[rows] = np.exp(np.float32(-_SCALE) * np.sqrt(np.maximum(distances, 0)))
    # What the components leave out of a clip is its own: no distance.
    np.fill_diagonal(kernel, 1 + ridge)
    # Fortran's order is the transpose, and the matrix is symmetric: nothing is copied.
    factor, failed = lapack.spotrf(kernel.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise DataError(
            "The kernel matrix is not positive definite: are most clips the same? Raise the ridge."
        )
    weights, _ = lapack.spotrs(factor, np.asfortranarray(y, np.float32), lower=1)
    return np.ascontiguousarray(weights)


def _graph(features: _Features, clips: _Clips, weights: Floats) -> Any:
    """Return the classifier as an ONNX model; scores are clipped to 0 to 1."""
    graph = Nodes()
    column = graph.op("Unsqueeze", "mask", graph.shape(2))
    count = graph.op("ReduceSum", column, graph.shape(1), keepdims=1)
    once = graph.op("ReduceSum", column, graph.shape(1), keepdims=0)

    def mean(values: str, *, keep: bool = False) -> str:
        total = graph.op(
            "ReduceSum", graph.op("Mul", values, column), graph.shape(1), keepdims=int(keep)
        )
        return graph.op("Div", total, count if keep else once)

    angles = graph.op("MatMul", "frames", graph.constant(features.directions))
    waves = graph.op("Concat", graph.op("Cos", angles), graph.op("Sin", angles), axis=2)
    fourier = graph.op("Mul", mean(waves), graph.number(features.height))
    off = graph.op("Sub", "frames", mean("frames", keep=True))
    deviation = graph.op("Sqrt", mean(graph.op("Mul", off, off)))
    away = graph.op(
        "Mul", graph.op("Sub", graph.number(1), column), graph.number(_FAR)
    )  # takes frames that do not exist out of the largest and smallest values
    largest = graph.op("ReduceMax", graph.op("Sub", "frames", away), axes=[1], keepdims=0)
    smallest = graph.op("ReduceMin", graph.op("Add", "frames", away), axes=[1], keepdims=0)
    statistics = graph.op("Concat", mean("frames"), deviation, largest, smallest, axis=1)
    from_centre = graph.op("Sub", statistics, graph.constant(features.centre))
    scaled = graph.op("Mul", from_centre, graph.constant(features.gain))
    joined = graph.op("Concat", fourier, scaled, axis=1)
    centred = graph.op("Sub", joined, graph.constant(features.mean))
    clip = graph.op("MatMul", centred, graph.constant(features.turn))
    square = graph.op("ReduceSum", graph.op("Mul", centred, centred), graph.shape(1), keepdims=1)
    products = graph.op("MatMul", clip, graph.constant(-2 * clips.components.T))
    squares = graph.constant(clips.squares)
    distances = graph.op("Add", graph.op("Add", products, square), squares)
    roots = graph.op("Sqrt", graph.op("Max", distances, graph.number(0)))
    kernel = graph.op("Exp", graph.op("Mul", roots, graph.number(-_SCALE)))
    scores = graph.op("MatMul", kernel, graph.constant(weights))
    clipped = graph.op("Clip", scores, graph.number(0), graph.number(1))
    return graph.model(clipped, weights.shape[1])


def _fourier(
    x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.int64], directions: Floats
) -> Floats:
    """Return the mean cosines and sines of each clip's frames, (n, features)."""
    features = np.empty((len(x), 2 * directions.shape[1]), np.float32)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        weight = _frame_weights(n_frames[rows])
        angles = _values(x[rows]) @ directions
        waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=2)
        features[rows] = (waves * weight).sum(axis=1)
    return features


def _statistics(x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.int64]) -> Floats:
    """Return each clip's mean, deviation, largest and smallest values, (n, 4 * values)."""
    statistics = np.empty((len(x), 4 * FRAME_VALUES), np.float32)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        frames, weight = _values(x[rows]), _frame_weights(n_frames[rows])
        mean = (frames * weight).sum(axis=1)
        deviation = np.sqrt((np.square(frames - mean[:, None]) * weight).sum(axis=1))
        largest = np.where(weight > 0, frames, -_FAR).max(axis=1)
        smallest = np.where(weight > 0, frames, _FAR).min(axis=1)
        statistics[rows] = np.concatenate([mean, deviation, largest, smallest], axis=1)
    return statistics


def _median_distance(features: Floats, random: np.random.Generator) -> np.float32:
    """Return the median squared distance of a sample of clips."""
    sample = features[random.permutation(len(features))[:_SAMPLE]]
    squares = np.einsum("ij,ij->i", sample, sample)
    distances = squares[:, None] + squares - 2 * (sample @ sample.T)
    median = np.median(distances[np.triu_indices_from(distances, 1)])
    return np.float32(max(median, 1e-12))


def _frame_weights(n_frames: npt.NDArray[np.int64]) -> Floats:
    """Return weights that sum to 1 over the frames of a clip, (n, 10, 1)."""
    mask = frame_mask(n_frames)
    return (mask / mask.sum(axis=1, keepdims=True))[:, :, None]


def _values(x: npt.NDArray[np.uint8]) -> Floats:
    return (x.astype(np.float32) - 128.0) / 128.0
