"""What a training step sees: which clips are drawn, and how they are augmented.

Sources: mixup, Zhang et al. (arXiv:1710.09412); class-balanced sampling, Kong et al.
(arXiv:1903.00765).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.settings import TrainingConfig
from audiosearch.datasets.packed import PackedClips, frame_mask
from audiosearch.errors import DataError
from audiosearch.labels import load_labels

__all__ = ["Batches", "ancestors", "network_inputs", "split_rows"]

Floats = npt.NDArray[np.float32]


def split_rows(
    truth: npt.NDArray[np.bool_] | None, share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split rows into training and validation so that rare classes appear in both.

    Rows are taken in a random order; a row goes to the validation split while the rows of its
    rarest class are short of their share there.

    Parameters
    ----------
    truth : bool (rows, classes)
        True classes.
    share : float
        Share of the validation split.
    seed : int
        Seed of the order.

    Returns
    -------
    training, validation : int64
        Row numbers, ascending.

    Raises
    ------
    DataError
        When a split would be empty.
    """
    if truth is None or not len(truth):
        raise DataError("There are no labelled clips to train on.")
    order = np.random.default_rng(seed).permutation(len(truth))
    counts = truth.sum(axis=0)
    # A row without a class counts under one more, made up for it.
    rarest = np.where(
        truth.any(axis=1),
        np.where(truth, counts, len(truth) + 1).argmin(axis=1),
        truth.shape[1],
    )
    members = np.bincount(rarest, minlength=truth.shape[1] + 1)
    wanted = np.floor(members * share + 0.5).astype(int)
    taken = np.zeros_like(members)
    held_out = np.zeros(len(truth), bool)
    for row in order:
        if taken[rarest[row]] < wanted[rarest[row]]:
            taken[rarest[row]] += 1
            held_out[row] = True
    if not held_out.any() or held_out.all():
        raise DataError(
            f"{len(truth)} clips are too few to hold out {share:g} of them for validation."
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class Batches:
    """Draws training batches: class-balanced, augmented, mixed up.

    Parameters
    ----------
    clips : PackedClips
        With labels.
    rows : int64
        The rows to draw from.
    config : TrainingConfig
        Settings.

    Attributes
    ----------
    steps : int
        Batches an epoch.
    """

    def __init__(
        self, clips: PackedClips, rows: npt.NDArray[np.int64], config: TrainingConfig
    ) -> None:
        if clips.y is None:
            raise DataError("There are no labelled clips to train on.")
        self._clips, self._rows, self._config, self._y = clips, rows, config, clips.y
        self._random = np.random.default_rng([config.seed, 1])
        self.steps = max(1, len(rows) // config.batch_size)
        truth = clips.y[rows].astype(np.float64)
        rarity = truth @ (1.0 / np.maximum(truth.sum(axis=0), 1.0))
        weights = np.maximum(rarity, rarity[rarity > 0].min(initial=1.0)) ** config.balance
        self._weights = weights / weights.sum()
        self._above = ancestors() if config.parents else None

    @property
    def state(self) -> dict[str, Any]:
        """State of the random generator; set it to draw the same batches again."""
        return dict(self._random.bit_generator.state)

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        self._random.bit_generator.state = value

    def draw(self) -> tuple[list[Floats], Floats]:
        """Return ([frames, mask], targets) of one step."""
        config, random = self._config, self._random
        rows = random.choice(self._rows, size=config.batch_size, p=self._weights)
        frames, mask = network_inputs(self._clips, rows)
        targets = self._y[rows].astype(np.float32)
        if self._above is not None:
            above = (targets @ self._above > 0).astype(np.float32)
            targets = np.maximum(targets, np.float32(config.parents) * above)
        if config.frame_dropout:
            mask = _drop_frames(random, mask, config.frame_dropout)
        if config.mixup:
            drawn = random.beta(config.mixup, config.mixup, (config.batch_size, 1))
            share = drawn.astype(np.float32)
            other = random.permutation(config.batch_size)
            frames = share[:, :, None] * frames + (1 - share[:, :, None]) * frames[other]
            targets = share * targets + (1 - share) * targets[other]
            mask = np.maximum(mask, mask[other])
        if config.noise:
            noise = random.standard_normal(frames.shape, np.float32)
            frames = frames + np.float32(config.noise) * noise
        if config.label_smoothing:
            smooth = np.float32(config.label_smoothing)
            targets = targets * (1 - smooth) + smooth / 2
        return [frames * mask[:, :, None], mask], targets


def network_inputs(clips: PackedClips, rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return (frames, mask) of some rows as the network takes them."""
    mask = frame_mask(clips.n_frames[rows])
    frames = (clips.x[rows].astype(np.float32) - 128.0) / 128.0
    return frames * mask[:, :, None], mask


def ancestors() -> Floats:
    """Return float32 (classes, classes): 1 where the column's class lies above the row's."""
    labels = load_labels()
    above = np.zeros((len(labels), len(labels)), np.float32)
    for label in labels:
        above[list(labels.descendants(label.index)), label.index] = 1
    return above


def _drop_frames(random: np.random.Generator, mask: Floats, share: float) -> Floats:
    kept = mask * (random.random(mask.shape) >= share)
    # A clip that lost all its frames keeps them.
    return np.asarray(np.where(kept.any(axis=1, keepdims=True), kept, mask), np.float32)
