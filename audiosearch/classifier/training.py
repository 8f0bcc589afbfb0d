"""Training of the classifier on a packed file, with a validation split of its own.

Recipe: class-balanced sampling with softened weights, mixup of clips, dropout, Adam with a cosine
schedule after a short warm-up, and an exponential moving average (EMA) of the weights, which is
what is validated and kept. The epoch with the best validation mAP is exported.

Sources: mixup, Zhang et al. (arXiv:1710.09412); class-balanced sampling, Kong et al.
(arXiv:1903.00765).
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.classifier.export import export_classifier
from audiosearch.classifier.network import NetworkConfig, build_network, import_keras
from audiosearch.datasets.packed import PackedClips, PackedFile, frame_mask
from audiosearch.errors import DataError, InvalidArgumentError, StorageError, printable
from audiosearch.storage import atomic_path, storage_errors, write_json
from audiosearch.version import __version__

__all__ = ["EpochResult", "TrainingConfig", "TrainingRun", "split_rows", "train"]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Attributes
    ----------
    epochs : int
        How often as many clips are drawn as the training split has.
    batch_size : int
        Clips a step.
    learning_rate : float
        Peak of the schedule.
    weight_decay : float
        Decoupled weight decay.
    mixup : float
        Parameter of the beta distribution that mixes two clips; 0 for none.
    balance : float
        Exponent of the class-balanced sampling weights, 0 (none) to 1 (full).
    label_smoothing : float
        Share by which targets are drawn towards 0.5.
    ema : float
        Momentum of the moving average of the weights; 0 for none.
    validation : float
        Share of the clips held out for validation.
    seed : int
        Seed of everything random.
    precision : str
        Keras dtype policy: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.
    network : NetworkConfig
        Shape of the network.
    """

    epochs: int = 32
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    mixup: float = 0.5
    balance: float = 0.5
    label_smoothing: float = 0.0
    ema: float = 0.999
    validation: float = 0.1
    seed: int = 0
    precision: str = "float32"
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        checks = {
            "epochs must be at least 1": self.epochs >= 1,
            "batch_size must be at least 2": self.batch_size >= 2,
            "learning_rate must be above 0": self.learning_rate > 0,
            "weight_decay must be at least 0": self.weight_decay >= 0,
            "mixup must be at least 0": self.mixup >= 0,
            "balance must be from 0 to 1": 0 <= self.balance <= 1,
            "label_smoothing must be from 0 to 0.5": 0 <= self.label_smoothing <= 0.5,
            "ema must be from 0 up to 1": 0 <= self.ema < 1,
            "validation must be above 0 and below 1": 0 < self.validation < 1,
            "precision must be float32, mixed_bfloat16 or mixed_float16": self.precision
            in ("float32", "mixed_bfloat16", "mixed_float16"),
        }
        for sentence, holds in checks.items():
            if not holds:
                raise InvalidArgumentError(f"{sentence}.")


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave; seconds of training and validation together."""

    epoch: int
    loss: float
    validation_mAP: float
    validation_AUC: float
    seconds: float


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: its folder, its best epoch, and all epochs."""

    folder: Path
    best: EpochResult
    epochs: list[EpochResult]
    train_clips: int
    validation_clips: int
    parameters: int


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: TrainingConfig | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> TrainingRun:
    """Train a classifier and write it to a new folder.

    The folder gets ``config.json``, ``metrics.csv`` (one row an epoch), and, whenever an epoch is
    the best so far, ``classifier.onnx`` and ``classifier.json``, which every command takes with
    ``--classifier``.

    Parameters
    ----------
    data : path-like
        Packed HDF5 file with ``x`` and ``y``.
    out : path-like
        Folder to make; it must not exist, or be empty.
    config : TrainingConfig, optional
        Settings.
    on_epoch : callable, optional
        Called with each `EpochResult`.
    on_step : callable, optional
        Called with the epoch (from 1), the step (from 1) and the steps an epoch.

    Raises
    ------
    DataError
        When the file is not as it must be, or holds too few clips.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    MissingDependencyError
        When keras is not installed.
    """
    config = config or TrainingConfig()
    keras = import_keras()
    folder = Path(out)
    with PackedFile(data, labels=True) as file:
        clips = file.read()
    training, validation = split_rows(clips.y, config.validation, config.seed)
    _make_folder(folder)
    keras.utils.set_random_seed(config.seed)
    batches = _Batches(clips, training, config)
    network = build_network(config.network, precision=config.precision)
    _compile(keras, network, config, batches.steps)
    # Validated and exported in float32, with the averaged weights.
    judge = build_network(config.network)
    write_json(
        folder / "config.json",
        {
            "data": Path(data).name,
            "train_clips": len(training),
            "validation_clips": len(validation),
            "environment": _environment(keras),
            **asdict(config),
        },
    )
    held_out = list(_inputs(clips, validation))
    truth = clips.y[validation]  # type: ignore[index]
    results: list[EpochResult] = []
    best: EpochResult | None = None
    for epoch in range(1, config.epochs + 1):
        began = time.perf_counter()
        loss = 0.0
        for step in range(1, batches.steps + 1):
            inputs, targets = batches.draw()
            loss += float(network.train_on_batch(inputs, targets))
            if on_step:
                on_step(epoch, step, batches.steps)
        _copy_averaged(network, judge, averaged=config.ema > 0)
        scores = judge.predict(held_out, batch_size=1024, verbose=0)
        result = EpochResult(
            epoch,
            loss / batches.steps,
            metrics.macro_mean(metrics.average_precision(truth, scores)),
            metrics.macro_mean(metrics.roc_auc(truth, scores)),
            time.perf_counter() - began,
        )
        if not math.isfinite(result.loss):
            raise DataError(
                f"{printable(os.fspath(data))}: training diverged in epoch {epoch} (the loss is "
                "not finite). Lower --learning-rate."
            )
        results.append(result)
        _write_metrics(folder, results)
        if best is None or result.validation_mAP > best.validation_mAP:
            best = result
            facts = {
                "trained_on": Path(data).name,
                "train_clips": len(training),
                "epoch": epoch,
                "validation_mAP": round(result.validation_mAP, 6),
                "config": asdict(config),
            }
            export_classifier(judge, folder, name=folder.name, facts=facts)
        if on_epoch:
            on_epoch(result)
    return TrainingRun(
        folder,
        max(results, key=lambda result: result.validation_mAP),
        results,
        len(training),
        len(validation),
        int(network.count_params()),
    )


def split_rows(
    truth: npt.NDArray[np.bool_] | None, share: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split rows into training and validation so that rare classes appear in both.

    Rows are taken in a random order; a row goes to the validation split while it is short of the
    row's rarest class.

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


class _Batches:
    """Draws training batches: class-balanced, mixed up, smoothed."""

    def __init__(
        self, clips: PackedClips, rows: npt.NDArray[np.int64], config: TrainingConfig
    ) -> None:
        self._clips, self._rows, self._config = clips, rows, config
        self._random = np.random.default_rng([config.seed, 1])
        self.steps = max(1, len(rows) // config.batch_size)
        truth = clips.y[rows].astype(np.float64)  # type: ignore[index]
        rarity = truth @ (1.0 / np.maximum(truth.sum(axis=0), 1.0))
        weights = np.maximum(rarity, rarity[rarity > 0].min(initial=1.0)) ** config.balance
        self._weights = weights / weights.sum()

    def draw(self) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Return ([frames, mask], targets) of one step."""
        config = self._config
        rows = self._random.choice(self._rows, size=config.batch_size, p=self._weights)
        frames, mask = _inputs(self._clips, rows)
        targets = self._clips.y[rows].astype(np.float32)  # type: ignore[index]
        if config.mixup:
            share = np.asarray(
                self._random.beta(config.mixup, config.mixup, (config.batch_size, 1)), np.float32
            )
            other = self._random.permutation(config.batch_size)
            frames = share[:, :, None] * frames + (1 - share[:, :, None]) * frames[other]
            targets = share * targets + (1 - share) * targets[other]
            mask = np.maximum(mask, mask[other])
        if config.label_smoothing:
            targets = targets * (1 - config.label_smoothing) + 0.5 * config.label_smoothing
        return [frames, mask], targets


def _inputs(
    clips: PackedClips, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return (frames, mask) of some rows as the network takes them."""
    mask = frame_mask(clips.n_frames[rows])
    frames = (clips.x[rows].astype(np.float32) - 128.0) / 128.0
    return frames * mask[:, :, None], mask


def _compile(keras: Any, network: Any, config: TrainingConfig, steps: int) -> None:
    total = steps * config.epochs
    warm_up = min(steps, total // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / 100 if warm_up else config.learning_rate,
        max(1, total - warm_up),
        warmup_target=config.learning_rate if warm_up else None,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.Adam(
        schedule,
        weight_decay=config.weight_decay or None,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
    )
    network.compile(optimizer, loss="binary_crossentropy")


def _copy_averaged(network: Any, judge: Any, *, averaged: bool) -> None:
    """Give `judge` the weights of `network`, averaged over the steps where that is on."""
    raw = network.get_weights()
    if averaged:
        network.optimizer.finalize_variable_values(network.trainable_variables)
    judge.set_weights(network.get_weights())
    network.set_weights(raw)


def _environment(keras: Any) -> dict[str, str]:
    return {
        "audiosearch": __version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _make_folder(folder: Path) -> None:
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(
                f"{printable(os.fspath(folder))} exists already. Name a new folder with --out; "
                "nothing was overwritten."
            )
        folder.mkdir(parents=True, exist_ok=True)


def _write_metrics(folder: Path, results: list[EpochResult]) -> None:
    import pandas as pd

    with atomic_path(folder / "metrics.csv") as temporary:
        pd.DataFrame([asdict(result) for result in results]).to_csv(
            temporary, index=False, float_format="%.6f"
        )
