"""Training of the classifier on packed files, with a validation split of its own.

Recipe: class-balanced sampling with softened weights, mixup of clips, dropout, Adam with a cosine
schedule after a short warm-up, and an exponential moving average (EMA) of the weights, which is
what is validated and kept. The epoch with the best validation mAP is exported.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.classifier.augmentation import Augmentation, network_inputs
from audiosearch.classifier.calibration import calibrate_run
from audiosearch.classifier.devices import Devices, Step, open_devices
from audiosearch.classifier.export import export_classifier
from audiosearch.classifier.network import build_network, import_keras
from audiosearch.classifier.plots import write_plots
from audiosearch.classifier.run import EpochResult, RunFolder
from audiosearch.classifier.scorer import load_scorer
from audiosearch.classifier.settings import TrainingConfig
from audiosearch.datasets.label_index import LabelIndex, path_list
from audiosearch.datasets.stream import ClipStream
from audiosearch.errors import DataError, MissingDependencyError

__all__ = ["EpochResult", "TrainingConfig", "TrainingRun", "train"]

_JUDGED_AT_ONCE = 8192


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
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    config: TrainingConfig | None = None,
    teachers: Sequence[str | os.PathLike[str]] = (),
    resume: bool = False,
    devices: int | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> TrainingRun:
    """Train a classifier and write it to a folder (see `audiosearch.classifier.run`).

    The clips are streamed from the files, so that the memory taken does not grow with them.

    Parameters
    ----------
    data : path-like, or several
        Packed HDF5 files with ``x`` and ``y``.
    out : path-like
        Folder to make; it must not exist, or be empty, unless `resume`.
    config : TrainingConfig, optional
        Settings.
    teachers : sequence of path-like
        Run folders, or folders of other classifiers, to distil into this one: targets are drawn to
        their scores on the very clips, mixed as they are, that the network is trained on. Labels
        that are missing, and what is between two classes, are learned from them.
    resume : bool
        Go on with a run that was stopped, after its last finished epoch. The result is that of
        an uninterrupted run.
    devices : int, optional
        On how many devices each step runs, which must divide the batch; one where None, or as many
        as ``torchrun`` started processes. The result is that of one device, up to rounding, so
        that a run may be resumed on another number. Under ``torchrun`` all processes get the
        result, but only the first one writes and calls `on_epoch` and `on_step`.
    on_epoch : callable, optional
        Called with each `EpochResult`.
    on_step : callable, optional
        Called with the epoch (from 1), the step (from 1) and the steps an epoch.

    Raises
    ------
    DataError
        When a file is not as it must be or holds too few clips, when training diverges, or when
        there is nothing to resume.
    InvalidArgumentError
        When a run is resumed with other settings, a batch is larger than the training split, or
        there are not as many devices; see `audiosearch.classifier.devices.open_devices`.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    MissingDependencyError
        When keras is not installed.
    ModelError
        When a teacher cannot be loaded.
    OtherProcessError
        When another of ``torchrun``'s processes failed.
    """
    config = config or TrainingConfig()
    folder = RunFolder(out)
    with (
        open_devices(devices, batch_size=config.batch_size) as used,
        contextlib.closing(folder),
        contextlib.ExitStack() as opened,
    ):
        with used.agree():
            scorers = [load_scorer(os.fspath(teacher)) for teacher in teachers]
            paths = path_list(data)
            labels = LabelIndex.read(paths)
            training, validation = labels.split(config.validation, config.seed)
            stream = opened.enter_context(
                ClipStream(
                    paths,
                    training,
                    batch_size=config.batch_size,
                    balance=config.balance,
                    seed=config.seed,
                    labels=labels,
                    drop_last=True,
                )
            )
            held_out = opened.enter_context(
                ClipStream(paths, validation, batch_size=_JUDGED_AT_ONCE, labels=labels)
            )
        names = [Path(path).name for path in paths]
        taught_by = [{"name": scorer.name, "sha256": scorer.weights_hash} for scorer in scorers]
        counts = {"train_clips": len(training), "validation_clips": len(validation)}

        def begin() -> None:
            if resume:
                folder.check_resumable(config, taught_by)
            else:
                folder.make()
                described = {"data": names, "teachers": taught_by, **counts}
                folder.describe(described, config, used.description)

        used.lead(begin)
        with used.agree():
            trainer = _Trainer(config, len(stream), used)
            augmentation = Augmentation(config, teachers=scorers)
        facts = {
            "trained_on": names,
            "train_clips": len(training),
            "teachers": taught_by,
            "train_positives": labels.counts(training).tolist(),
        }

        def finish(
            results: list[EpochResult], epoch: int, loss: float, began: float
        ) -> list[EpochResult]:
            """Judge, export and save an epoch, and return the results with its own."""
            if not math.isfinite(loss):
                raise DataError(
                    f"{', '.join(names)}: training diverged in epoch {epoch} (the loss is not "
                    "finite). Lower --learning-rate."
                )
            truth, scores = trainer.judge(held_out)
            result = EpochResult(
                epoch,
                loss / len(stream),
                metrics.macro_mean(metrics.average_precision(truth, scores)),
                metrics.macro_mean(metrics.roc_auc(truth, scores)),
                trainer.learning_rate,
                time.perf_counter() - began,
            )
            results = [*results, result]
            _export(folder, trainer, config, results, facts)
            folder.record(results)
            folder.save(trainer.arrays(), {"results": [asdict(r) for r in results]})
            if on_epoch:
                on_epoch(result)
            return results

        results = _restore(folder, trainer, used) if resume else []
        for epoch in range(len(results) + 1, config.epochs + 1):
            if _is_stale(results, config.patience):
                break
            began = time.perf_counter()
            used.start_epoch(config.seed, epoch)
            loss = 0.0
            for step, batch in enumerate(stream.epoch(epoch), start=1):
                loss += trainer.step(*augmentation.apply(batch, epoch=epoch, step=step))
                if on_step and used.leads:
                    on_step(epoch, step, len(stream))
            results = used.lead(functools.partial(finish, results, epoch, loss, began))

        def end() -> None:
            folder.draw_curves(results)
            _calibrate(folder, held_out)

        used.lead(end)
    return TrainingRun(
        folder.path, _best(results), results, len(training), len(validation), trainer.parameters
    )


class _Trainer:
    """The network in training, its optimiser, and a float32 twin with the averaged weights."""

    def __init__(self, config: TrainingConfig, steps: int, devices: Devices) -> None:
        self._keras = import_keras()
        self._keras.utils.set_random_seed(config.seed)
        self._averaged = config.ema > 0
        self._devices = devices
        with devices.scope():
            self._network = build_network(
                config.network, precision=config.precision, layers=devices.layers()
            )
            self._network.compile(self._optimizer(config, steps), loss="binary_crossentropy")
            self._network.optimizer.build(self._network.trainable_variables)
        self._step: Step | None = None
        self.twin = build_network(config.network)
        self.parameters = int(self._network.count_params())

    @property
    def learning_rate(self) -> float:
        """The last step's learning rate."""
        return float(self._keras.ops.convert_to_numpy(self._network.optimizer.learning_rate))

    def step(self, inputs: list[Any], targets: Any) -> float:
        """Train on one batch, the same in all processes, and return its loss."""
        self._step = self._step or self._devices.stepper(self._network)
        return self._step(inputs, targets)

    def judge(self, held_out: ClipStream) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
        """Bring the twin up to date and return the held-out clips' classes and scores."""
        raw = self._network.get_weights()
        with self._devices.scope():
            if self._averaged:
                self._network.optimizer.finalize_variable_values(self._network.trainable_variables)
            averaged = self._network.get_weights()
            self._network.set_weights(raw)
        self.twin.set_weights(averaged)
        truth, scores = [], []
        for batch in held_out.epoch(1):
            truth.append(batch.y)
            inputs = list(network_inputs(batch.x, batch.n_frames))
            scores.append(np.asarray(self.twin.predict(inputs, batch_size=1024, verbose=0)))
        return np.concatenate(truth), np.concatenate(scores)

    def arrays(self) -> list[np.ndarray]:
        """Return everything that training changes."""
        return [self._keras.ops.convert_to_numpy(variable) for variable in self._variables()]

    def restore(self, arrays: list[np.ndarray]) -> None:
        """Set what `arrays` returned."""
        variables = self._variables()
        if [tuple(v.shape) for v in variables] != [array.shape for array in arrays]:
            raise DataError(
                "The checkpoint is that of another network. Train again into a new folder."
            )
        with self._devices.scope():
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)

    def _variables(self) -> list[Any]:
        return [*self._network.variables, *self._network.optimizer.variables]

    def _optimizer(self, config: TrainingConfig, steps: int) -> Any:
        optimizers = self._keras.optimizers
        total, warmup = steps * config.epochs, round(steps * config.warmup)
        peak = config.learning_rate
        rate: Any = peak
        if config.schedule == "cosine":
            rate = optimizers.schedules.CosineDecay(
                peak / 100 if warmup else peak,
                max(1, total - warmup),
                warmup_target=peak if warmup else None,
                warmup_steps=warmup,
            )
        elif config.schedule == "step":
            rate = optimizers.schedules.PiecewiseConstantDecay(
                [total // 2, 3 * total // 4], [peak, peak / 10, peak / 100]
            )
        return optimizers.Adam(
            rate,
            weight_decay=config.weight_decay or None,
            use_ema=self._averaged,
            ema_momentum=config.ema or 0.99,
        )


def _restore(folder: RunFolder, trainer: _Trainer, devices: Devices) -> list[EpochResult]:
    """Set the trainer to the last finished epoch and return the epochs so far."""
    # Only the first machine of several need have the folder.
    saved = devices.lead(folder.load)
    results = []
    if saved is not None:
        arrays, state = saved
        with devices.agree():
            trainer.restore(arrays)
        results = [EpochResult(**result) for result in state["results"]]
    devices.lead(lambda: folder.describe_resumption(len(results), devices.description))
    return results


def _export(
    folder: RunFolder,
    trainer: _Trainer,
    config: TrainingConfig,
    results: list[EpochResult],
    facts: dict[str, Any],
) -> None:
    """Export the epoch if it is the best so far, or one of the last that are asked for."""
    result = results[-1]
    places = [folder.path] if result is _best(results) else []
    if result.epoch > config.epochs - config.snapshots:
        places.append(folder.path / "snapshots" / f"{result.epoch:04d}")
    for place in places:
        result_facts = {
            "epoch": result.epoch,
            "validation_mAP": round(result.validation_mAP, 6),
            "config": asdict(config),
        }
        export_classifier(
            trainer.twin,
            place,
            config=config.network,
            name=config.network.architecture,
            facts=facts | result_facts,
        )


def _calibrate(folder: RunFolder, held_out: ClipStream) -> None:
    """Fit the exported classifier's calibration on the clips that chose it, and draw its plots."""
    scorer = load_scorer(os.fspath(folder.path))
    truth, scores = [], []
    for batch in held_out.epoch(1):
        truth.append(batch.y)
        scores.append(scorer.score(batch.x, batch.n_frames))
    truth_of_all, scores_of_all = np.concatenate(truth), np.concatenate(scores)
    calibrate_run(
        folder.path,
        scores_of_all,
        truth_of_all,
        fitted_on=f"{len(truth_of_all):,} validation clips",
    )
    calibrated = load_scorer(os.fspath(folder.path)).calibrated(scores_of_all)
    counts = np.array(scorer.manifest["train_positives"], np.int64)
    with contextlib.suppress(MissingDependencyError):  # plots are drawn where matplotlib is
        write_plots(
            folder.path, truth_of_all, scores_of_all, calibrated=calibrated, train_counts=counts
        )


def _best(results: list[EpochResult]) -> EpochResult:
    return max(results, key=lambda result: result.validation_mAP)


def _is_stale(results: list[EpochResult], patience: int) -> bool:
    """Tell whether the last `patience` epochs brought nothing better."""
    return bool(patience and results and results[-1].epoch - _best(results).epoch >= patience)
