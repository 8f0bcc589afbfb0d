"""Fitting a rescorer: ridge regression on a clip's other scores and on its embedding.

Class by class a linear function is added to the logit of the classifier's calibrated score. It is
a function of

- the 527 logits, standardised, and random Fourier features of them (Rahimi & Recht, NIPS 2007),
  which see which scores come together;
- the embedding: mean, deviation, largest and smallest values of the clip's frames, and the mean of
  random Fourier features of the frames.

It is fitted to the labels of the clips that the classifier was trained on. Their scores are better
than those of new clips, so how much the addition counts was chosen on the validation split, which
neither saw; the sum is calibrated there.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.calibration import Calibration, fit_calibration
from audiosearch.classifier.clip_statistics import ClipNodes, clip_statistics
from audiosearch.classifier.export import write_classifier
from audiosearch.classifier.rescoring import logits_of
from audiosearch.classifier.scorer import Scorer, classifier_identity, load_scorer
from audiosearch.datasets.label_index import LabelIndex
from audiosearch.datasets.packed import FRAME_VALUES, PackedClips, PackedFile, frame_mask
from audiosearch.embedders.base import dequantize
from audiosearch.errors import InvalidArgumentError
from audiosearch.labels import CLASS_COUNT
from audiosearch.models import bundled_model
from audiosearch.storage import atomic_path, read_json, write_json

__all__ = ["RescorerFit", "fit_rescorer", "write_rescorer"]

Floats = npt.NDArray[np.float32]

_FRAME_WAVES = 1024
_SCORE_WAVES = 1024
_SCORE_SPREAD = 1.5  # of the directions in the space of standardised logits
# By how much mean, deviation, largest and smallest values count.
_PARTS = (1.0, 0.5, 0.4, 0.4)
_CONSTANT = 0.3
_BLOCK = 1024


@dataclass(frozen=True)
class RescorerFit:
    """What was fitted: the files, and on how many clips."""

    weights: Path
    manifest: Path
    train_clips: int
    validation_clips: int


@dataclass(frozen=True)
class _Features:
    """``concat(frame waves, statistics, logits, score waves) - mean``, each part then scaled.

    Waves are cosines and sines: of ``frame @ frame_directions``, averaged over frames, and of
    ``(logits - centre) * gain @ score_directions``.
    """

    frame_directions: Floats
    score_directions: Floats
    centre: Floats
    gain: Floats
    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, clips: PackedClips, logits: Floats, seed: int) -> _Features:
        random = np.random.default_rng(seed)
        spread = dequantize(clips.x[frame_mask(clips.n_frames) > 0]).std(axis=0) + np.float32(1e-6)
        frame_directions = random.standard_normal((FRAME_VALUES, _FRAME_WAVES), np.float32)
        frame_directions *= np.float32(np.sqrt(2 / FRAME_VALUES)) / spread[:, None]
        score_directions = random.standard_normal((CLASS_COUNT, _SCORE_WAVES), np.float32)
        score_directions *= np.float32(_SCORE_SPREAD / np.sqrt(CLASS_COUNT))
        centre, gain = logits.mean(axis=0), 1 / (logits.std(axis=0) + np.float32(1e-6))
        unscaled = cls(
            frame_directions,
            score_directions,
            centre,
            gain,
            np.zeros(1, np.float32),
            np.ones(1, np.float32),
        )
        raw = unscaled.of(clips, logits)
        mean, deviation = raw.mean(axis=0), raw.std(axis=0)
        statistics = np.repeat(np.array(_PARTS, np.float32), FRAME_VALUES)
        statistics /= deviation[_SLICES[1]] + np.float32(1e-6)
        scale = np.ones(raw.shape[1], np.float32)
        scale[_SLICES[1]] = statistics
        for part in _SLICES:
            # All parts have the same mean square, and so the same say.
            scale[part] /= np.sqrt(((deviation[part] * scale[part]) ** 2).sum())
        return cls(frame_directions, score_directions, centre, gain, mean, scale)

    def of(self, clips: PackedClips, logits: Floats) -> Floats:
        """Return the features of clips, float32 (n, features)."""
        parts = []
        for start in range(0, len(logits), _BLOCK):
            rows = slice(start, start + _BLOCK)
            mask = frame_mask(clips.n_frames[rows])[:, :, None]
            weight = mask / mask.sum(axis=1, keepdims=True)
            statistics = clip_statistics(clips.x[rows], clips.n_frames[rows])
            waves = (_waves(dequantize(clips.x[rows]) @ self.frame_directions) * weight).sum(axis=1)
            standard: Floats = (logits[rows] - self.centre) * self.gain
            own = _waves(standard @ self.score_directions)
            joined = [waves, *statistics, standard, own]
            parts.append((np.concatenate(joined, axis=1) - self.mean) * self.scale)
        return np.concatenate(parts)


_ENDS = np.cumsum([0, 2 * _FRAME_WAVES, 4 * FRAME_VALUES, CLASS_COUNT, 2 * _SCORE_WAVES]).tolist()
_SLICES = [slice(start, stop) for start, stop in itertools.pairwise(_ENDS)]


def fit_rescorer(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    ridge: float = 1.0,
    share: float = 32.0,
    validation: float = 0.1,
    seed: int = 0,
) -> RescorerFit:
    """Fit the rescorer of the bundled classifier; write ``rescorer.onnx`` and ``.json``.

    Parameters
    ----------
    data : path-like
        The packed HDF5 file that the classifier was trained on.
    out : path-like
        Folder to write to; files of these names are replaced.
    ridge : float
        What is added to the diagonal of the features' products; a part's mean square is 1.
    share : float
        By how much the addition counts beside the classifier's logit.
    validation, seed
        The split, the same as in the classifier's training; `seed` also draws the features.

    Raises
    ------
    DataError
        When the file is not as it must be.
    InvalidArgumentError
        When `ridge` is not above 0, or `share` below 0.
    MissingDependencyError
        When onnx is not installed.
    StorageError
        When the folder cannot be written.
    """
    if not ridge > 0 or not share >= 0:
        raise InvalidArgumentError(
            f"ridge must be above 0 and share not below it, not {ridge} and {share}."
        )
    with PackedFile(data, labels=True) as file:
        clips = file.read()
    assert clips.y is not None  # labels were asked for
    training, held_out = LabelIndex.from_dense(clips.y).split(validation, seed)
    scorer = load_scorer()
    logits = logits_of(_scores(scorer, clips))
    features = _Features.fit(_at(clips, training), logits[training], seed)
    weights = _solve(features.of(_at(clips, training), logits[training]), clips.y[training], ridge)
    added = _with_constant(features.of(_at(clips, held_out), logits[held_out])) @ weights
    sums = logits[held_out] + np.float32(share) * added
    calibration = fit_calibration(1 / (1 + np.exp(-np.float64(sums))), clips.y[held_out])
    model = _graph(features, weights * np.float32(share), calibration)
    facts = {
        "classifier_identity": classifier_identity(bundled_model("classifier")),
        "trained_on": [Path(data).name],
        "train_clips": len(training),
        "validation_clips": len(held_out),
        "config": {"ridge": ridge, "share": share, "validation": validation, "seed": seed},
        "licence": "Apache-2.0; trained on features of AudioSet by Google, CC BY 4.0; see NOTICE",
    }
    weights_file = write_rescorer(model, Path(out) / "rescorer.onnx", facts)
    manifest = weights_file.with_suffix(".json")
    return RescorerFit(weights_file, manifest, len(training), len(held_out))


def write_rescorer(model: Any, target: Path, facts: dict[str, Any]) -> Path:
    """Write a rescorer and, beside it, its manifest; files of these names are replaced.

    Parameters
    ----------
    model : onnx.ModelProto
        As `audiosearch.classifier.clip_statistics.ClipNodes.rescorer` returns it.
    target : Path
        The ONNX file, called as the rescorer is.
    facts : dict
        What the manifest says of its making.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    StorageError
        When the files cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = write_classifier(model, scratch, name=target.stem, facts=facts)
        with atomic_path(target) as temporary:
            temporary.write_bytes(made.read_bytes())
        write_json(target.with_suffix(".json"), read_json(made.with_suffix(".json")))
    return target


def _scores(scorer: Scorer, clips: PackedClips) -> npt.NDArray[np.float32]:
    return scorer.score_calibrated(clips.x, clips.n_frames)


def _at(clips: PackedClips, rows: npt.NDArray[np.int64]) -> PackedClips:
    return PackedClips(clips.x[rows], clips.n_frames[rows], None)


def _with_constant(features: Floats) -> Floats:
    return np.pad(features, ((0, 0), (0, 1)), constant_values=_CONSTANT)


def _solve(features: Floats, y: npt.NDArray[np.bool_], ridge: float) -> Floats:
    """Return the weights, float32 (features + 1, classes); the last row is of the constant."""
    from scipy.linalg import solve

    features = _with_constant(features)
    products = features.T @ features
    products[np.diag_indices_from(products)] += np.float32(ridge)
    return np.asarray(
        solve(products, features.T @ y.astype(np.float32), assume_a="pos", overwrite_a=True)
    )


def _graph(features: _Features, weights: Floats, calibration: Calibration) -> Any:
    """Return the rescorer as an ONNX model."""
    graph = ClipNodes()

    def waves(angles: str, axis: int) -> str:
        return graph.op("Concat", graph.op("Cos", angles), graph.op("Sin", angles), axis=axis)

    angles = graph.op("MatMul", "frames", graph.constant(features.frame_directions))
    from_centre = graph.op("Sub", "logits", graph.constant(features.centre))
    standard = graph.op("Mul", from_centre, graph.constant(features.gain))
    own = waves(graph.op("MatMul", standard, graph.constant(features.score_directions)), 1)
    joined = graph.op(
        "Concat",
        graph.mean(waves(angles, 2)),
        graph.mean("frames"),
        graph.deviation(),
        graph.largest(),
        graph.smallest(),
        standard,
        own,
        axis=1,
    )
    # Scales and means are part of the weights: one matrix, stored in half precision, whose rows
    # are brought to one size first.
    slopes = weights[:-1] * features.scale[:, None]
    offset = weights[-1] * np.float32(_CONSTANT) - features.mean @ slopes
    size = np.abs(slopes).max(axis=1) + np.float32(1e-12)
    scaled = graph.op("Mul", joined, graph.constant(size))
    added = graph.op("MatMul", scaled, graph.constant(slopes / size[:, None]))
    total = graph.op("Add", graph.op("Add", "logits", added), graph.constant(offset))
    lines = np.array([calibration.a, calibration.b], np.float32)
    line = graph.op("Mul", total, graph.constant(lines[0]))
    scores = graph.op("Sigmoid", graph.op("Add", line, graph.constant(lines[1])))
    return graph.rescorer(scores, weights.shape[1])


def _waves(angles: Floats) -> Floats:
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
