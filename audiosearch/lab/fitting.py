"""Fitting of a model to features: at once (linear, prototypes), or a network in epochs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.devices import Devices, Step, open_devices
from audiosearch.classifier.network import import_keras
from audiosearch.errors import DataError, InvalidArgumentError, MissingDependencyError
from audiosearch.lab.augmentation import augment, mix
from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.graph import LabGraph, pooled
from audiosearch.lab.networks import build_network, summary_of
from audiosearch.lab.settings import LabConfig

__all__ = ["Checkpoint", "Fit", "LabEpoch", "fit_model"]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_AT_ONCE = 64
# Strong regularisation of the logistic regression: hundreds of values, few sounds.
_LINEAR_C = 0.02
_SHARPNESS = 20.0  # of the softmax over cosines to the class means


@dataclass(frozen=True)
class LabEpoch:
    """What one epoch gave; what was validated is None where nothing was held out."""

    epoch: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float

    def figures(self) -> dict[str, float | None]:
        """Return what a chart by epoch shows."""
        return {
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            "learning_rate": self.learning_rate,
        }


@dataclass(frozen=True)
class Checkpoint:
    """Where a training of a network can go on.

    Attributes
    ----------
    arrays : list of array
        Variables of network and optimiser after the last epoch, then the best epoch's weights.
    epochs : list of LabEpoch
        All so far.
    """

    arrays: list[npt.NDArray[Any]]
    epochs: list[LabEpoch]


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes
    ----------
    score : callable
        Takes features, float32 (n, *shape), and returns scores, float32 (n, classes).
    write : callable
        Returns it as an ONNX model of the features.
    epochs : list of LabEpoch
        Of a network.
    best : int
        The epoch that was kept; 0 where there are none.
    interrupted : bool
        Whether it was stopped by Ctrl-C; what is here is the best until then.
    layers : list of dict
        Layers, shapes, parameters.
    device : str
        What it was fitted on.
    """

    score: Callable[[Floats], Floats]
    write: Callable[[], Any]
    epochs: list[LabEpoch]
    best: int
    interrupted: bool
    layers: list[dict[str, Any]]
    device: str

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(int(layer["parameters"]) for layer in self.layers)


def fit_model(
    features: FeatureSet,
    train: Rows,
    validation: Rows,
    config: LabConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[LabEpoch, Checkpoint], None] | None = None,
) -> Fit:
    """Fit a model to rows of a set of features.

    Parameters
    ----------
    features : FeatureSet
        The features and their labels.
    train : int64 (n,)
        Rows to learn from.
    validation : int64 (n,)
        Rows that each epoch is judged on. Where ``config.validation`` is not 0, the epoch with the
        lowest loss on them is kept, else the last.
    config : LabConfig
        Settings.
    checkpoint : Checkpoint, optional
        Of a network: go on from here.
    on_epoch : callable, optional
        Called after each epoch with what it gave, and a `Checkpoint` from which to go on.

    Raises
    ------
    DataError
        When training diverges.
    InvalidArgumentError
        When the device is not there.
    MissingDependencyError
        When keras, scikit-learn or onnx is not installed.
    """
    if config.spec.kind == "network":
        return _Training(features, train, validation, config).run(checkpoint, on_epoch)
    return _fit_at_once(features, train, config)


class _Scaling:
    """What is done to features before a model: pooling over time, and standardising."""

    def __init__(self, features: FeatureSet, rows: Rows, config: LabConfig) -> None:
        self.pools = config.spec.pooled
        total: Any = 0.0
        squares: Any = 0.0
        count = 0
        for start in range(0, len(rows), _AT_ONCE):
            values = self._pooled(features.take(rows[start : start + _AT_ONCE])).astype(np.float64)
            # Spectrograms by band and frames by value, over time; waveforms as a whole.
            places = 1 if values.ndim == 2 else values.ndim - 1
            axes = tuple(range(2 if config.spec.feature == "waveform" else places))
            total = total + values.sum(axis=axes)
            squares = squares + np.square(values).sum(axis=axes)
            count += math.prod(values.shape[axis] for axis in axes)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
        self.mean = np.asarray(mean, np.float32)
        # A value that is the same in all sounds tells nothing; it must not become infinite. Of one
        # or two examples a class, no deviation can be told.
        is_scaled = (deviation > 1e-6) & (config.spec.kind != "prototypes")
        self.scale = np.asarray(1 / np.where(is_scaled, deviation, 1), np.float32)

    def _pooled(self, values: Floats) -> Floats:
        return pooled(values) if self.pools else values

    def apply(self, values: Floats) -> Floats:
        return np.asarray((self._pooled(values) - self.mean) * self.scale, np.float32)

    def write(self, graph: LabGraph, clip: str) -> str:
        values = graph.pooled(clip) if self.pools else clip
        return graph.standardised(values, self.mean, self.scale)


def _fit_at_once(features: FeatureSet, train: Rows, config: LabConfig) -> Fit:
    sounds = features.sounds
    scaling = _Scaling(features, train, config)
    values = np.concatenate(
        [
            scaling.apply(features.take(train[start : start + _AT_ONCE]))
            for start in range(0, len(train), _AT_ONCE)
        ]
    )
    targets = sounds.targets()[train]
    if config.spec.kind == "prototypes":
        kernel, bias = _prototypes(values, targets), None
    else:
        kernel, bias = _logistic(values, targets, config, multi_label=sounds.multi_label)
    is_cosine = config.spec.kind == "prototypes"
    activation = "sigmoid" if sounds.multi_label and not is_cosine else "softmax"

    def score(given: Floats) -> Floats:
        rows = scaling.apply(given)
        if is_cosine:
            rows = rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True) + 1e-8)
        return _activated(rows @ kernel + (0 if bias is None else bias), activation)

    def write() -> Any:
        graph = LabGraph(features.shape)
        rows = scaling.write(graph, "clip")
        if is_cosine:
            square = graph.op("ReduceSum", graph.op("Mul", rows, rows), graph.shape(1), keepdims=1)
            rows = graph.op(
                "Div", rows, graph.op("Sqrt", graph.op("Add", square, graph.number(1e-8)))
            )
        return graph.finish(graph.dense(rows, kernel, bias, activation), len(sounds.classes))

    parameters = kernel.size + (0 if bias is None else bias.size)
    layer = {
        "layer": "scores",
        "kind": "Prototypes" if is_cosine else "LogisticRegression",
        "output": [len(sounds.classes)],
        "parameters": int(parameters),
    }
    return Fit(score, write, [], 0, False, [layer], "cpu")


def _prototypes(values: Floats, targets: npt.NDArray[np.bool_]) -> Floats:
    """Return the classes' mean directions, (values, classes), times the softmax's sharpness."""
    units = values / np.sqrt(np.square(values).sum(axis=1, keepdims=True) + 1e-8)
    means = units.T @ targets
    lengths = np.sqrt(np.square(means).sum(axis=0, keepdims=True))
    return np.asarray(_SHARPNESS * means / np.maximum(lengths, 1e-8), np.float32)


def _logistic(
    values: Floats, targets: npt.NDArray[np.bool_], config: LabConfig, *, multi_label: bool
) -> tuple[Floats, Floats]:
    """Return kernel (values, classes) and bias (classes,) of a logistic regression."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingDependencyError(
            "scikit-learn", extra="lab", purpose="Fitting a linear classifier"
        ) from error

    def fitted(labels: npt.NDArray[Any]) -> Any:
        return LogisticRegression(
            C=_LINEAR_C,
            max_iter=1000,
            class_weight="balanced" if config.balance == "weights" else None,
        ).fit(values, labels)

    classes = targets.shape[1]
    kernel = np.zeros((values.shape[1], classes), np.float32)
    # A class that was never seen is never found.
    bias = np.full(classes, -30.0, np.float32)
    if multi_label:
        for index in np.flatnonzero(targets.any(axis=0)):
            if targets[:, index].all():
                bias[index] = 30.0
                continue
            one = fitted(targets[:, index])
            kernel[:, index], bias[index] = one.coef_[0], one.intercept_[0]
        return kernel, bias
    labels = targets.argmax(axis=1)
    model = fitted(labels)
    if len(model.classes_) == 2:
        kernel[:, model.classes_] = np.stack([-model.coef_[0], model.coef_[0]], axis=1) / 2
        bias[model.classes_] = np.array([-0.5, 0.5]) * model.intercept_[0]
    else:
        kernel[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return kernel, bias


def _activated(values: Floats, activation: str) -> Floats:
    from scipy.special import expit, softmax

    found = expit(values) if activation == "sigmoid" else softmax(values, axis=1)
    return np.asarray(found, np.float32)


class _Training:
    """A network in training."""

    def __init__(
        self, features: FeatureSet, train: Rows, validation: Rows, config: LabConfig
    ) -> None:
        self._features, self._config = features, config
        self._train, self._validation = train, validation
        self._targets = features.sounds.targets().astype(np.float32)
        self._scaling = _Scaling(features, train, config)
        # A last batch that is not full is filled up with other sounds: one size is one program.
        self._batch = min(config.batch_size, max(2, len(train)))
        self._steps = -(-len(train) // self._batch)

    def run(
        self,
        checkpoint: Checkpoint | None,
        on_epoch: Callable[[LabEpoch, Checkpoint], None] | None,
    ) -> Fit:
        config = self._config
        keras = import_keras()
        keras.utils.set_random_seed(config.seed)
        with _device(config.device) as device, open_devices(None, batch_size=self._batch) as used:
            with used.scope():
                network = self._compiled(keras)
            stepper = used.stepper(network)
            epochs: list[LabEpoch] = []
            best_weights = network.get_weights()
            if checkpoint is not None:
                epochs = list(checkpoint.epochs)
                best_weights = _restored(network, checkpoint)
            interrupted = False
            try:
                for number in range(len(epochs) + 1, config.wanted_epochs + 1):
                    if self._is_stale(epochs):
                        break
                    used.start_epoch(config.seed, number)
                    epochs.append(self._epoch(number, network, stepper, used))
                    if self._best(epochs) == number:
                        best_weights = network.get_weights()
                    if on_epoch:
                        arrays = [keras.ops.convert_to_numpy(v) for v in _variables(network)]
                        on_epoch(epochs[-1], Checkpoint([*arrays, *best_weights], epochs))
            except KeyboardInterrupt:
                # What was learned is kept: the best epoch's weights.
                interrupted = True
                if not epochs:
                    raise
            network.set_weights(best_weights)
        return Fit(
            lambda values: self._scores(network, values),
            lambda: self._written(network),
            epochs,
            self._best(epochs),
            interrupted,
            summary_of(network),
            device,
        )

    def _compiled(self, keras: Any) -> Any:
        config, sounds = self._config, self._features.sounds
        network = build_network(
            config.spec.network,
            self._shape(),
            len(sounds.classes),
            multi_label=sounds.multi_label,
        )
        weights = self._class_weights()
        kind = keras.losses.binary_crossentropy if sounds.multi_label else None

        def loss(wanted: Any, given: Any) -> Any:
            ops = keras.ops
            if kind is not None:
                return kind(wanted, given)
            logs = ops.log(ops.clip(given, 1e-7, 1.0))
            return -ops.sum(wanted * ops.convert_to_tensor(weights) * logs, axis=-1)

        network.compile(keras.optimizers.Adam(self._rate(keras)), loss=loss)
        network.optimizer.build(network.trainable_variables)
        return network

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

    def _class_weights(self) -> Floats:
        """Return weights whose mean over the training sounds is 1."""
        counts = self._targets[self._train].sum(axis=0)
        if self._config.balance == "none":
            return np.ones_like(counts)
        filled = max(1, int((counts > 0).sum()))
        return np.asarray(counts.sum() / (filled * np.maximum(counts, 1)), np.float32)

    def _epoch(self, number: int, network: Any, step: Step, used: Devices) -> LabEpoch:
        config, began = self._config, time.perf_counter()
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
        if not math.isfinite(loss):
            raise DataError(
                f"Training diverged in epoch {number} (the loss is not finite). Lower "
                "--learning-rate."
            )
        rate = float(network.optimizer.learning_rate)
        held_out = self._judged(network) if len(self._validation) else (None, None)
        seconds = time.perf_counter() - began
        return LabEpoch(number, loss, held_out[0], held_out[1], rate, seconds)

    def _judged(self, network: Any) -> tuple[float, float]:
        """Return loss and accuracy on the validation rows."""
        rows = self._validation
        scores = np.concatenate(
            [
                self._scores(network, self._features.take(rows[start : start + _AT_ONCE]))
                for start in range(0, len(rows), _AT_ONCE)
            ]
        ).astype(np.float64)
        wanted = self._targets[rows]
        sure = np.clip(scores, 1e-7, 1 - 1e-7)
        if self._features.sounds.multi_label:
            losses = -(wanted * np.log(sure) + (1 - wanted) * np.log(1 - sure)).mean(axis=1)
            right = ((scores >= 0.5) == (wanted > 0)).mean(axis=1)
        else:
            losses = -(wanted * np.log(sure)).sum(axis=1)
            right = scores.argmax(axis=1) == wanted.argmax(axis=1)
        return float(losses.mean()), float(right.mean())

    def _scores(self, network: Any, values: Floats) -> Floats:
        given = self._scaling.apply(values)
        count = len(given)
        if count < _AT_ONCE:
            given = np.concatenate([given, np.zeros((_AT_ONCE - count, *given.shape[1:]), "f4")])
        return np.asarray(network.predict([given], batch_size=_AT_ONCE, verbose=0))[:count]

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


@contextlib.contextmanager
def _device(wanted: str) -> Iterator[str]:
    """Train on a device that was asked for, and say which kind it is."""
    keras = import_keras()
    gpus = keras.distribution.list_devices("gpu")
    if wanted == "gpu" and not gpus:
        raise InvalidArgumentError(
            "There is no GPU that Keras can use on this machine. Train with --device cpu."
        )
    if wanted == "auto":
        yield "gpu" if gpus else "cpu"
        return
    with keras.device(f"{wanted}:0"):
        yield wanted
