"""From clips to what a training step sees: network inputs, and their augmentation.

Sources: mixup, Zhang et al. (arXiv:1710.09412); splicing in time instead of in space, after CutMix,
Yun et al. (arXiv:1905.04899); distillation on mixed clips, Beyer et al. (arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.scorer import Scorer
from audiosearch.classifier.settings import TrainingConfig
from audiosearch.datasets.packed import frame_mask
from audiosearch.datasets.stream import ClipBatch
from audiosearch.labels import load_labels

__all__ = ["Augmentation", "ancestors", "network_inputs"]

Floats = npt.NDArray[np.float32]


class Augmentation:
    """Turns a batch of clips into inputs and targets of a training step.

    Parameters
    ----------
    config : TrainingConfig
        Which augmentations, and how strong.
    teachers : sequence of Scorer
        Classifiers whose scores the targets are drawn to, by the configuration's `distillation`.
        Each batch asks one of them, drawn by chance: the loss is linear in its targets, so on
        average its gradient is that of the mean of all, and many cost no more than one.
    """

    def __init__(self, config: TrainingConfig, *, teachers: Sequence[Scorer] = ()) -> None:
        self._config = config
        self._teachers = tuple(teachers)
        self._above = ancestors() if config.parents else None

    def apply(self, batch: ClipBatch, *, epoch: int, step: int) -> tuple[list[Floats], Floats]:
        """Return ([frames, mask], targets).

        What is random depends on the run's seed, the epoch and the step alone, so that a resumed
        run sees what an uninterrupted one would have.

        Parameters
        ----------
        batch : ClipBatch
            The clips.
        epoch, step : int
            Which step of the run it is.

        Returns
        -------
        frames : float32 (b, 10, 128)
        mask : float32 (b, 10)
        targets : float32 (b, 527)
        """
        config = self._config
        random = np.random.default_rng([config.seed, epoch, step])
        frames, mask = network_inputs(batch.x, batch.n_frames)
        targets = batch.y.astype(np.float32)
        if self._above is not None:
            above = (targets @ self._above > 0).astype(np.float32)
            targets = np.maximum(targets, np.float32(config.parents) * above)
        if config.mixup:
            drawn = random.beta(config.mixup, config.mixup, (len(batch), 1))
            share = np.repeat(drawn.astype(np.float32), mask.shape[1], axis=1)
            if config.splice:
                share = _splice(random, share, config.splice)
            other = random.permutation(len(batch))
            frames = share[:, :, None] * frames + (1 - share[:, :, None]) * frames[other]
            whole = share.mean(axis=1, keepdims=True)
            targets = whole * targets + (1 - whole) * targets[other]
            mask = np.maximum(mask, mask[other])
        if self._teachers:
            teacher = self._teachers[random.integers(len(self._teachers))]
            taught = np.float32(config.distillation)
            targets = (1 - taught) * targets + taught * teacher.score_inputs(frames, mask)
        if config.frame_dropout:
            mask = _drop_frames(random, mask, config.frame_dropout)
        if config.noise:
            noise = random.standard_normal(frames.shape, np.float32)
            frames = frames + np.float32(config.noise) * noise
        if config.label_smoothing:
            smooth = np.float32(config.label_smoothing)
            targets = targets * (1 - smooth) + smooth / 2
        return [frames * mask[:, :, None], mask], targets


def network_inputs(
    x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return (frames, mask) of clips as the network takes them."""
    mask = frame_mask(n_frames)
    frames = (x.astype(np.float32) - 128.0) / 128.0
    return frames * mask[:, :, None], mask


def ancestors() -> Floats:
    """Return float32 (classes, classes): 1 where the column's class lies above the row's."""
    labels = load_labels()
    above = np.zeros((len(labels), len(labels)), np.float32)
    for label in labels:
        above[list(labels.descendants(label.index)), label.index] = 1
    return above


def _splice(random: np.random.Generator, share: Floats, clips: float) -> Floats:
    """Let some clips take each frame from one of the two instead of a mix of both."""
    whole = (random.random(share.shape) < share).astype(np.float32)
    chosen = random.random((len(share), 1)) < clips
    return np.asarray(np.where(chosen, whole, share), np.float32)


def _drop_frames(random: np.random.Generator, mask: Floats, share: float) -> Floats:
    kept = mask * (random.random(mask.shape) >= share)
    # A clip that lost all its frames keeps them.
    return np.asarray(np.where(kept.any(axis=1, keepdims=True), kept, mask), np.float32)
