"""Class scores of clips, by an exported classifier through ONNX Runtime.

A classifier on disk is two files: ``NAME.onnx``, and the manifest ``NAME.json`` with its hash,
classes and the embedding space it was trained on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.calibration import Calibration
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, frame_mask
from audiosearch.embedders.base import SPACE
from audiosearch.errors import InvalidArgumentError, ModelError, printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.models import BundledModel, bundled_model, onnx_session, read_model

__all__ = ["Ensemble", "Scorer", "classifier_identity", "clip_frames", "load_scorer"]

BATCH = 32


class Scorer:
    """Scores clips with one classifier.

    Parameters
    ----------
    model : BundledModel
        The ONNX file: inputs ``frames``, float32 (n, 10, 128), and ``mask``, float32 (n, 10);
        output ``scores``, float32 (n, 527).
    threads : int, optional
        How many threads a batch may use; all cores where None.

    Attributes
    ----------
    name : str
        The classifier's name.
    weights_hash : str
        SHA-256 of the ONNX file.
    manifest : mapping
        What the classifier's manifest says, read-only.

    Raises
    ------
    InvalidArgumentError
        When `threads` is below 1.
    ModelError
        When the file cannot be loaded, or the manifest's calibration is not as it must be.
    """

    def __init__(self, model: BundledModel, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InvalidArgumentError(f"threads must be at least 1, not {threads}.")
        self.name = str(model.manifest.get("name", model.name))
        self.weights_hash = model.sha256
        self.manifest = model.manifest
        self._calibration = _read_calibration(model)
        name = f"The classifier {printable(os.fspath(model.path))}"
        self._session = onnx_session(model.path, name=name, threads=threads)

    @property
    def is_calibrated(self) -> bool:
        """Whether the manifest holds a calibration."""
        return self._calibration is not None

    def calibrated(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return calibrated scores; the scores themselves where there is no calibration.

        Parameters
        ----------
        scores : float (..., 527)
            As `score` returns them.

        Returns
        -------
        float64 (..., 527)
            From 0 to 1, in the same order within each class: see
            `audiosearch.classifier.calibration`.

        Raises
        ------
        InvalidArgumentError
            When the number of classes is another, or a score is not from 0 to 1.
        """
        if self._calibration is None:
            return np.array(scores, np.float64)
        return self._calibration.apply(scores)

    def score(
        self, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.integer[Any]] | None = None
    ) -> npt.NDArray[np.float32]:
        """Score clips.

        Batches have one fixed size, padded, so that a clip's scores do not depend on the clips
        beside it.

        Parameters
        ----------
        x : uint8 (n, 10, 128)
            Embedding frames; what stands beyond a clip's frames is ignored.
        n_frames : int (n,), optional
            How many frames each clip has, 1 to 10; 10 where None.

        Returns
        -------
        float32 (n, 527)
            From 0 to 1, no probabilities.

        Raises
        ------
        InvalidArgumentError
            When a shape, dtype or frame count is another.
        """
        x = np.asarray(x)
        if x.ndim != 3 or x.shape[1:] != (CLIP_FRAMES, FRAME_VALUES) or x.dtype != np.uint8:
            raise InvalidArgumentError(
                f"x must be uint8 (n, {CLIP_FRAMES}, {FRAME_VALUES}), not {x.dtype} {x.shape}."
            )
        counts = np.full(len(x), CLIP_FRAMES) if n_frames is None else np.asarray(n_frames)
        if counts.shape != (len(x),) or (
            len(x) and not (counts.min() >= 1 and counts.max() <= CLIP_FRAMES)
        ):
            raise InvalidArgumentError(
                f"n_frames must hold {len(x)} counts from 1 to {CLIP_FRAMES}."
            )
        scores = np.empty((len(x), CLASS_COUNT), np.float32)
        for start in range(0, len(x), BATCH):
            rows = slice(start, start + BATCH)
            mask = frame_mask(counts[rows])
            frames = (x[rows].astype(np.float32) - 128.0) / 128.0
            frames *= mask[:, :, None]
            scores[rows] = self._run(frames, mask)
        return scores

    def score_inputs(
        self, frames: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Score what need not be clips of a file, such as mixed ones, as `score` does.

        Parameters
        ----------
        frames : float32 (n, 10, 128)
            Embedding frames, values ``(uint8 - 128) / 128``; 0 where there is no frame.
        mask : float32 (n, 10)
            1 where there is a frame, else 0.

        Returns
        -------
        float32 (n, 527)
        """
        scores = np.empty((len(frames), CLASS_COUNT), np.float32)
        for start in range(0, len(frames), BATCH):
            rows = slice(start, start + BATCH)
            scores[rows] = self._run(frames[rows], mask[rows])
        return scores

    def _run(
        self, frames: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Score at most one batch, padded to its fixed size."""
        rows = len(frames)
        if rows < BATCH:
            frames = np.concatenate(
                [frames, np.zeros((BATCH - rows, CLIP_FRAMES, FRAME_VALUES), np.float32)]
            )
            mask = np.concatenate([mask, np.ones((BATCH - rows, CLIP_FRAMES), np.float32)])
        (scores,) = self._session.run(None, {"frames": frames, "mask": mask})
        return np.asarray(scores[:rows])

    def score_calibrated(
        self, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.integer[Any]] | None = None
    ) -> npt.NDArray[np.float32]:
        """Score clips as `score` does, and calibrate.

        This is what libraries hold and tags show: calibrated scores of different classes can be
        compared, raw ones cannot.
        """
        return self.calibrated(self.score(x, n_frames)).astype(np.float32)


def classifier_identity(model: BundledModel) -> str:
    """Return a SHA-256 over what a classifier's calibrated scores depend on.

    That is the weights and the calibration; libraries hold scores of one identity only.
    """
    calibration = json.dumps(model.manifest.get("calibration"), sort_keys=True)
    return hashlib.sha256(f"{model.sha256} {calibration}".encode()).hexdigest()


def _read_calibration(model: BundledModel) -> Calibration | None:
    value = model.manifest.get("calibration")
    if value is None:
        return None
    try:
        return Calibration.from_dict(value, classes=CLASS_COUNT)
    except InvalidArgumentError as error:
        path = printable(os.fspath(model.path.with_suffix(".json")))
        raise ModelError(f"{path}: {error} Calibrate or export the classifier again.") from error


class Ensemble:
    """Several classifiers as one: a score is the mean of theirs.

    Parameters
    ----------
    scorers : sequence of Scorer
        At least one.

    Attributes
    ----------
    name : str
        Their names.
    weights_hash : str
        SHA-256 of their hashes.
    """

    is_calibrated = False

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        if not scorers:
            raise InvalidArgumentError("An ensemble needs at least one classifier.")
        self._scorers = tuple(scorers)
        self.name = " + ".join(scorer.name for scorer in scorers)
        hashes = "".join(scorer.weights_hash for scorer in scorers)
        self.weights_hash = hashlib.sha256(hashes.encode()).hexdigest()
        self.manifest = scorers[0].manifest

    def score(
        self, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.integer[Any]] | None = None
    ) -> npt.NDArray[np.float32]:
        """Score clips as `Scorer.score` does."""
        total = self._scorers[0].score(x, n_frames)
        for scorer in self._scorers[1:]:
            total += scorer.score(x, n_frames)
        return total / np.float32(len(self._scorers))

    def calibrated(self, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the scores as they are: a calibration holds for one classifier."""
        return np.asarray(scores, np.float64)


def clip_frames(
    frames: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Cut the frames of one recording into clips of 10.

    Parameters
    ----------
    frames : uint8 (n, 128)
        In the order of time, n at least 1.

    Returns
    -------
    x : uint8 (clips, 10, 128)
        The last clip padded with zeros.
    n_frames : int64 (clips,)
        10, and what is left for the last clip.
    """
    frames = np.asarray(frames)
    if frames.ndim != 2 or frames.shape[1] != FRAME_VALUES or frames.dtype != np.uint8:
        raise InvalidArgumentError(
            f"frames must be uint8 (n, {FRAME_VALUES}), not {frames.dtype} {frames.shape}."
        )
    if not len(frames):
        raise InvalidArgumentError("frames is empty: a clip has at least one frame.")
    count = -(-len(frames) // CLIP_FRAMES)
    x = np.zeros((count * CLIP_FRAMES, FRAME_VALUES), np.uint8)
    x[: len(frames)] = frames
    n_frames = np.full(count, CLIP_FRAMES, np.int64)
    n_frames[-1] = len(frames) - (count - 1) * CLIP_FRAMES
    return x.reshape(count, CLIP_FRAMES, FRAME_VALUES), n_frames


@functools.lru_cache(maxsize=4)
def load_scorer(folder: str | None = None, *, threads: int | None = None) -> Scorer:
    """Load a classifier, once a process.

    Parameters
    ----------
    folder : str, optional
        A training run's folder, with ``classifier.onnx`` and ``classifier.json``; the bundled
        classifier where None.
    threads : int, optional
        As for `Scorer`.

    Raises
    ------
    ModelError
        When the files are missing, damaged, or made for other classes or another embedding space.
    """
    if folder is None:
        model = bundled_model("classifier")
    else:
        remedy = "Name the folder that `audiosearch train --out` wrote."
        model = read_model(Path(folder), "classifier", remedy=remedy)
    manifest = model.manifest
    if manifest.get("space") != SPACE or manifest.get("classes") != CLASS_COUNT:
        raise ModelError(
            f"{printable(os.fspath(model.path))}: made for {manifest.get('classes')} classes in "
            f"the embedding space {manifest.get('space')!r}; needed are {CLASS_COUNT} in {SPACE!r}."
        )
    return Scorer(model, threads=threads)
