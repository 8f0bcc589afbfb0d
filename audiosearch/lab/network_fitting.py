"""Fitting of a network in epochs."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.devices import Devices, Step, check_divisible, open_devices, placed
from audiosearch.classifier.network import import_keras
from audiosearch.errors import DataError
from audiosearch.lab.augmentation import augment, mix
from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.fits import Checkpoint, Fit, LabEpoch
from audiosearch.lab.graph import LabGraph
from audiosearch.lab.measures import rightness
from audiosearch.lab.networks import build_network, summary_of
from audiosearch.lab.scaling import AT_ONCE, Scaling
from audiosearch.lab.settings import LabConfig

__all__ = ["NetworkFitting"]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class NetworkFitting:
    """A network in training; parameters are those of `audiosearch.lab.fitting.fit_model`."""

    def __init__(
        self, features: FeatureSet, train: Rows, validation: Rows, config: LabConfig
    ) -> None:
        self._features, self._config = features, config
        self._train, self._validation = train, validation
        self._targets = features.sounds.targets().astype(np.float32)
        self._scaling = Scaling(features, train, config)
        # A last batch that is not full is filled up with other sounds: one size is one program.
        self._batch = min(config.batch_size, max(2, len(train)))
        self._steps = -(-len(train) // self._batch)

    def run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[LabEpoch, Checkpoint], None] | None,
        devices: Devices | None = None,
    ) -> Fit:
        """Train, from a checkpoint on where there is one; on one device where None are given."""
        if devices is not None:
            check_divisible(self._batch, devices.count)
            return self._run(checkpoint, on_epoch, devices)
        kind = self._config.device
        with open_devices(None, batch_size=self._batch, kind=kind) as used:
            return self._run(checkpoint, on_epoch, used)

    def _run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[LabEpoch, Checkpoint], None] | None,
        used: Devices,
    ) -> Fit:
        config = self._config
        keras = import_keras()
        keras.utils.set_random_seed(config.seed)
        # What is trained is a copy of the network where there are several devices.
        with used.agree():
            network = self._built()
        replica = used.replica(network)
        with used.scope():
            self._compile(replica)
        stepper = used.stepper(replica)
        epochs: list[LabEpoch] = []
        best_weights = replica.get_weights()
        if checkpoint is not None:
            epochs = list(checkpoint.epochs)
            with used.scope():
                best_weights = _restored(replica, checkpoint)

        def finish(number: int, loss: float, began: float) -> LabEpoch:
            """Judge an epoch, which one process does for all."""
            if network is not replica:
                network.set_weights(replica.get_weights())
            rate = float(replica.optimizer.learning_rate)
            held_out = self._judged(network, used) if len(self._validation) else (None, None)
            if not all(math.isfinite(each) for each in (loss, *held_out) if each is not None):
                raise DataError(
                    f"Training diverged in epoch {number} (the loss is not finite). Lower "
                    "--learning-rate."
                )
            seconds = time.perf_counter() - began
            return LabEpoch(number, loss, held_out[0], held_out[1], rate, seconds)

        def tell() -> None:
            if on_epoch:
                arrays = [keras.ops.convert_to_numpy(v) for v in _variables(replica)]
                on_epoch(epochs[-1], Checkpoint([*arrays, *best_weights], epochs))

        interrupted = False
        try:
            for number in range(len(epochs) + 1, config.wanted_epochs + 1):
                if self._is_stale(epochs):
                    break
                began = time.perf_counter()
                used.start_epoch(config.seed, number)
                loss = self._epoch(number, stepper)
                epoch = used.lead(functools.partial(finish, number, loss, began))
                after = [*epochs, epoch]
                is_best = self._best(after) == number
                # Both at once, wherever Ctrl-C falls.
                epochs, best_weights = after, replica.get_weights() if is_best else best_weights
                used.lead(tell)
        except KeyboardInterrupt:
            # What was learned is kept: the best epoch's weights.
            interrupted = True
            if not epochs or not used.leads:
                raise
            used.go_alone()
        network.set_weights(best_weights)
        return Fit(
            lambda values: self._scores(network, values, used),
            lambda: self._written(network),
            epochs,
            self._best(epochs),
            interrupted,
            summary_of(network),
            used.kind,
        )

    def _built(self) -> Any:
        config, sounds = self._config, self._features.sounds
        return build_network(
            config.spec.network,
            self._shape(),
            len(sounds.classes),
            multi_label=sounds.multi_label,
        )

    def _compile(self, network: Any) -> None:
        keras, sounds = import_keras(), self._features.sounds
        weights = self._class_weights()

        def loss(wanted: Any, given: Any) -> Any:
            ops = keras.ops
            with_class, without = map(ops.convert_to_tensor, weights)
            logs = ops.log(ops.clip(given, 1e-7, 1.0))
            if not sounds.multi_label:
                return -ops.sum(wanted * with_class * logs, axis=-1)
            others = ops.log(ops.clip(1 - given, 1e-7, 1.0))
            decisions = wanted * with_class * logs + (1 - wanted) * without * others
            return -ops.mean(decisions, axis=-1)

        network.compile(keras.optimizers.Adam(self._rate(keras)), loss=loss)
        network.optimizer.build(network.trainable_variables)

    def _shape(self) -> tuple[int, ...]:
        shape = self._features.shape
        return (3 * shape[-1],) if self._config.spec.pooled else shape

    def _rate(self, keras: Any) -> Any:
        config = self._config
        total, peak = self._steps * config.wanted_epochs, config.wanted_rate
        schedules = keras.optimizers.schedules
        if config.schedule == "cosine":
            warmup = min(self._steps, max(1, total // 10))
            return schedules.CosineDecay(
                peak / 100, max(1, total - warmup), warmup_target=peak, warmup_steps=warmup
            )
        if config.schedule == "step":
            return schedules.PiecewiseConstantDecay(
                [total // 2, 3 * total // 4], [peak, peak / 10, peak / 100]
            )
        return peak

    def _class_weights(self) -> tuple[Floats, Floats]:
        """Return each class's weights for sounds with and without it, of mean 1 over the sounds."""
        counts = self._targets[self._train].sum(axis=0)
        even = np.ones_like(counts)
        if self._config.balance == "none":
            return even, even
        if not self._features.sounds.multi_label:
            filled = max(1, int((counts > 0).sum()))
            return np.asarray(counts.sum() / (filled * np.maximum(counts, 1)), np.float32), even
        total = len(self._train)
        # A class that all sounds have, or none, has nothing to be balanced against.
        mixed = (counts > 0) & (counts < total)
        with_class, without = (
            np.asarray(np.where(mixed, total / (2 * np.maximum(each, 1)), 1), np.float32)
            for each in (counts, total - counts)
        )
        return with_class, without

    def _epoch(self, number: int, step: Step) -> float:
        """Train on every sound once, and return the mean loss."""
        config = self._config
        random = np.random.default_rng([config.seed, number])
        order = random.permutation(self._train)
        order = np.concatenate([order, random.choice(self._train, self._steps * self._batch)])
        loss = 0.0
        for start in range(0, self._steps * self._batch, self._batch):
            rows = order[start : start + self._batch]
            clips = self._features.take(rows)
            if config.wanted_augmentations:
                feature, names = config.spec.feature, config.wanted_augmentations
                clips = augment(random, clips, feature, names)
            clips, targets = mix(
                random, self._scaling.apply(clips), self._targets[rows], config.wanted_mixup
            )
            loss += step([clips], targets) / self._steps
        return loss

    def _judged(self, network: Any, used: Devices) -> tuple[float, float]:
        """Return loss and accuracy on the validation rows, NaN where the scores are no numbers."""
        rows = self._validation
        scores = np.concatenate(
            [
                self._scores(network, self._features.take(rows[start : start + AT_ONCE]), used)
                for start in range(0, len(rows), AT_ONCE)
            ]
        ).astype(np.float64)
        if not np.isfinite(scores).all():
            return math.nan, math.nan
        wanted = self._targets[rows]
        sure = np.clip(scores, 1e-7, 1 - 1e-7)
        if self._features.sounds.multi_label:
            losses = -(wanted * np.log(sure) + (1 - wanted) * np.log(1 - sure)).mean(axis=1)
        else:
            losses = -(wanted * np.log(sure)).sum(axis=1)
        right = rightness(wanted > 0, scores, self._features.sounds)
        return float(losses.mean()), float(right.mean())

    def _scores(self, network: Any, values: Floats, used: Devices) -> Floats:
        given = self._scaling.apply(values)
        count = len(given)
        if count < AT_ONCE:
            given = np.concatenate([given, np.zeros((AT_ONCE - count, *given.shape[1:]), "f4")])
        # Also after the training, when its devices are closed.
        with placed(used.kind):
            return np.asarray(network.predict([given], batch_size=AT_ONCE, verbose=0))[:count]

    def _written(self, network: Any) -> Any:
        graph = LabGraph(self._features.shape)
        scores = graph.network(network, self._scaling.write(graph, "clip"))
        return graph.finish(scores, len(self._features.sounds.classes))

    def _best(self, epochs: list[LabEpoch]) -> int:
        """Return which epoch is kept."""
        if not epochs:
            return 0
        judged = [(each.validation_loss, each.epoch) for each in epochs]
        if not self._config.validation or any(loss is None for loss, _ in judged):
            return epochs[-1].epoch
        return min((loss or 0.0, epoch) for loss, epoch in judged)[1]

    def _is_stale(self, epochs: list[LabEpoch]) -> bool:
        patience = self._config.patience
        return bool(patience and epochs and len(epochs) - self._best(epochs) >= patience)


def _variables(network: Any) -> list[Any]:
    return [*network.variables, *network.optimizer.variables]


def _restored(network: Any, checkpoint: Checkpoint) -> list[npt.NDArray[Any]]:
    """Set network and optimiser to a checkpoint, and return the best weights in it."""
    variables = _variables(network)
    current = checkpoint.arrays[: len(variables)]
    if [tuple(v.shape) for v in variables] != [array.shape for array in current]:
        raise DataError("The checkpoint is that of another network. Train into a new folder.")
    for variable, array in zip(variables, current, strict=True):
        variable.assign(array)
    return checkpoint.arrays[len(variables) :]
