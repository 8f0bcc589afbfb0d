"""The devices that a training runs on, whatever the backend of Keras.

A step on several devices is the step that one device would make on the whole batch: each device
takes an equal part of it, the loss is the mean over all clips, and so are the gradients. Batch
normalisation takes its statistics from the whole batch, too ("synchronised"), and dropout draws
for the whole batch, with every backend (`audiosearch.classifier.device_layers`). So the number of
devices changes how fast a run is and not what comes out of it, up to rounding.

=============== ===============================================================================
``tensorflow``  ``tf.distribute.MirroredStrategy`` in one process
``jax``         ``keras.distribution.DataParallel`` in one process
``torch``       a process for each device, started by ``torchrun``, which may be on several
                machines (`audiosearch.classifier.processes`)
=============== ===============================================================================
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.device_layers import (
    joined_normalization,
    shared_dropout,
    synchronized_normalization,
)
from audiosearch.classifier.network import import_keras
from audiosearch.classifier.processes import (
    Processes,
    join_processes,
    torchrun_launch,
    torchrun_line,
)
from audiosearch.errors import InvalidArgumentError

__all__ = ["Devices", "Step", "check_divisible", "has_gpu", "open_devices", "placed"]

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
Step = Callable[[list[Floats], Floats], float]


class Devices:
    """What a training needs to know of its devices; this one is a single device.

    Attributes
    ----------
    count : int
        How many there are.
    kind : str
        ``cpu``, or ``gpu`` for whatever else Keras finds.
    description : str
        How many of what, for the run's records.
    leads : bool
        Whether this process validates, writes and prints; only one of several does.
    leads_here : bool
        Whether it is the first one on its machine.
    """

    count = 1
    description = "1"
    leads = True
    leads_here = True

    def __init__(self, kind: str = "cpu") -> None:
        self.kind = kind

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the network is made, compiled and changed."""
        return contextlib.nullcontext()

    def layers(self) -> dict[str, Any]:
        """Return the layers, by their name in Keras, that must know of the other devices."""
        return {}

    def replica(self, network: Any) -> Any:
        """Return a copy of a network that trains on the devices; on a single one the network."""
        return network

    def stepper(self, network: Any) -> Step:
        """Return the function that trains a compiled network on a batch.

        Its arguments are those of ``train_on_batch``, the same in every process; it returns the
        mean loss of the whole batch.
        """
        return lambda inputs, targets: float(network.train_on_batch(inputs, targets))

    def start_epoch(self, seed: int, epoch: int) -> None:
        """Make what an epoch draws on the devices follow from the seed and its number."""

    def lead(self, function: Callable[[], T]) -> T:
        """Call a function in the process that leads, and return its result in all."""
        return function()

    def agree(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that all processes leave together; see `Processes.agree`."""
        return contextlib.nullcontext()

    def go_alone(self) -> None:
        """Wait for no other process any more; see `Processes.go_alone`."""


def has_gpu() -> bool:
    """Return whether Keras finds a GPU, or another device that is no CPU."""
    keras = import_keras()
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
    if backend not in ("tensorflow", "jax"):
        return False
    return any(not name.startswith("cpu") for name in keras.distribution.list_devices())


def placed(kind: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which Keras computes on the CPU, or on what it finds by itself."""
    scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if kind == "cpu" and has_gpu():
        scope = import_keras().device("cpu:0")
    return scope


@contextlib.contextmanager
def open_devices(count: int | None, *, batch_size: int, kind: str = "auto") -> Iterator[Devices]:
    """Take devices for a training, with the backend that Keras runs on.

    Parameters
    ----------
    count : int, optional
        How many; where None, one, or under ``torchrun`` as many as it started processes.
    batch_size : int
        Clips a step, over all devices.
    kind : str
        ``cpu``, ``gpu``, or ``auto`` for GPUs where there are any.

    Raises
    ------
    InvalidArgumentError
        When there are not as many, when the batch cannot be divided among them, when the backend
        cannot, or when PyTorch was not started by ``torchrun``.
    MissingDependencyError
        When keras is not installed.
    """
    backend = import_keras().backend.backend()
    launch = torchrun_launch()
    started = launch.count if launch else 1
    wanted = started if count is None else count
    if wanted < 1:
        raise InvalidArgumentError(f"devices must be at least 1, not {wanted}.")
    check_divisible(batch_size, wanted)
    if started > 1 and backend != "torch":
        raise InvalidArgumentError(
            f"torchrun starts processes of PyTorch, and Keras runs on {backend}. Set "
            "KERAS_BACKEND=torch, or start audiosearch without torchrun."
        )
    if launch and wanted != started:
        raise InvalidArgumentError(
            f"torchrun started {started} processes, and --devices asks for {wanted}. Leave "
            "--devices out: it follows torchrun."
        )
    gpu = has_gpu()
    if kind == "gpu" and not gpu:
        raise InvalidArgumentError(
            "There is no GPU that Keras can use on this machine. Train with --device cpu."
        )
    kind = "gpu" if gpu and kind != "cpu" else "cpu"
    if wanted == 1:
        with placed(kind):
            yield _OneTorch(kind) if backend == "torch" else Devices(kind)
    elif backend == "tensorflow":
        yield _Mirrored(wanted, kind)
    elif backend == "jax":
        yield _Sharded(wanted, kind)
    elif launch:
        with placed(kind), join_processes(launch, gpu=kind == "gpu") as processes:
            yield _Joined(processes, kind)
    elif backend == "torch":
        raise InvalidArgumentError(
            "PyTorch trains on several devices with a process for each. Start them so: "
            f"{torchrun_line(wanted)}"
        )
    else:
        raise InvalidArgumentError(
            "Training on several devices is for the backends tensorflow, jax and torch, not "
            f"{backend}. Set KERAS_BACKEND."
        )


def check_divisible(batch_size: int, count: int) -> None:
    """Make sure that a batch can be shared equally.

    Raises
    ------
    InvalidArgumentError
        When it cannot.
    """
    if batch_size % count:
        raise InvalidArgumentError(
            f"A batch of {batch_size} clips cannot be divided among {count} devices. Choose a "
            f"--batch-size that is a multiple of {count}."
        )


class _Several(Devices):
    """More than one device."""

    def replica(self, network: Any) -> Any:
        """Copy a network, with the layers that must know of the other devices."""
        keras, own = import_keras(), self.layers()

        def copied(layer: Any) -> Any:
            config = layer.get_config()
            kind = own.get(type(layer).__name__, type(layer))
            # Its weights are those of the layer, whatever it begins with.
            begins = {name: "zeros" for name in config if name.endswith("_initializer")}
            copy = kind.from_config(config | begins)
            if hasattr(layer, "seed_generator"):
                state = keras.ops.convert_to_numpy(layer.seed_generator.state)
                copy.seed_generator.state.assign(state)
            return copy

        with self.scope():
            copy = keras.models.clone_model(network, clone_function=copied, recursive=True)
            copy.set_weights(network.get_weights())
        return copy


class _Mirrored(_Several):
    """Replicas of the network in TensorFlow: GPUs, or logical CPUs where there is no GPU."""

    def __init__(self, count: int, kind: str) -> None:
        import tensorflow as tf

        super().__init__(kind)
        found = tf.config.list_logical_devices(kind.upper())
        _check_enough(count, [device.name for device in found])
        self.count = count
        self.description = f"{count} x {found[0].device_type}"
        self._strategy = _mirrored_strategy(tuple(device.name for device in found[:count]))

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        scope: contextlib.AbstractContextManager[Any] = self._strategy.scope()
        return scope

    def layers(self) -> dict[str, Any]:
        import tensorflow as tf

        def replica() -> Any:
            return tf.distribute.get_replica_context().replica_id_in_sync_group

        return {
            "BatchNormalization": synchronized_normalization(),
            "Dropout": shared_dropout(self.count, replica),
        }

    def stepper(self, network: Any) -> Step:
        import tensorflow as tf

        # train_on_batch would give each replica the whole batch.
        @tf.function
        def train(inputs: Any, targets: Any) -> None:
            self._strategy.run(network.train_step, args=((inputs, targets),))

        def step(inputs: list[Floats], targets: Floats) -> float:
            network.reset_metrics()
            train([self._divided(values) for values in inputs], self._divided(targets))
            return float(network.get_metrics_result()["loss"])

        return step

    def _divided(self, values: Floats) -> Any:
        import tensorflow as tf

        size = len(values) // self.count

        def part(context: Any) -> Any:
            start = context.replica_id_in_sync_group * size
            return tf.constant(values[start : start + size])

        return self._strategy.experimental_distribute_values_from_function(part)


@functools.cache
def _mirrored_strategy(names: tuple[str, ...]) -> Any:
    """Return the strategy for these devices, one and the same for all trainings of a process.

    What a second one sends would be taken for what the first one sends.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(names))


class _Sharded(_Several):
    """JAX: each array's batch axis is divided among the devices, and XLA does the rest."""

    def __init__(self, count: int, kind: str) -> None:
        super().__init__(kind)
        distribution = import_keras().distribution
        names = distribution.list_devices("cpu" if kind == "cpu" else None)
        _check_enough(count, names)
        self.count = count
        self.description = f"{count} x {names[0].partition(':')[0]}"
        self._distribution = distribution.DataParallel(devices=names[:count])

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        scope: contextlib.AbstractContextManager[Any] = self._distribution.scope()
        return scope

    def stepper(self, network: Any) -> Step:
        def step(inputs: list[Floats], targets: Floats) -> float:
            with self.scope():
                return float(network.train_on_batch(inputs, targets))

        return step


class _OneTorch(Devices):
    """One device in PyTorch, whose dropout draws from a generator that no checkpoint holds."""

    def start_epoch(self, seed: int, epoch: int) -> None:
        _seed_torch(seed, epoch)


class _Joined(_Several):
    """PyTorch: this process's device, and the other processes."""

    def __init__(self, processes: Processes, kind: str) -> None:
        super().__init__(kind)
        self.count = processes.count
        self.description = f"{processes.count} x {processes.device}"
        self.leads, self.leads_here = processes.leads, processes.leads_here
        self._processes = processes

    def layers(self) -> dict[str, Any]:
        return {
            "BatchNormalization": joined_normalization(self._processes),
            "Dropout": shared_dropout(self.count, lambda: self._processes.rank),
        }

    def stepper(self, network: Any) -> Step:
        import torch

        keras = import_keras()
        parallel = self._processes.parallel(network)
        weights = network.trainable_weights

        def own(values: Floats) -> Any:
            return keras.ops.convert_to_tensor(self._processes.part(values))

        # What Keras's train_step does, with the forward pass through the wrapper.
        def step(inputs: list[Floats], targets: Floats) -> float:
            with self._processes.connected():
                network.zero_grad()
                parts = [own(values) for values in inputs]
                wanted = own(targets)
                scores = parallel(parts, training=True)
                loss = network.compute_loss(parts, wanted, scores)
                network.optimizer.scale_loss(loss).backward()
                with torch.no_grad():
                    network.optimizer.apply([weight.value.grad for weight in weights], weights)
            return self._processes.mean(loss)

        return step

    def start_epoch(self, seed: int, epoch: int) -> None:
        # All processes draw for the whole batch.
        _seed_torch(seed, epoch)

    def lead(self, function: Callable[[], T]) -> T:
        return self._processes.lead(function)

    def agree(self) -> contextlib.AbstractContextManager[None]:
        return self._processes.agree()

    def go_alone(self) -> None:
        self._processes.go_alone()


def _seed_torch(seed: int, epoch: int) -> None:
    """Seed what dropout draws from."""
    import torch

    (number,) = np.random.SeedSequence([seed, epoch, 0]).generate_state(1, np.uint64)
    torch.manual_seed(int(number) >> 1)


def _check_enough(count: int, found: Sequence[str]) -> None:
    if count > len(found):
        there = f"is {len(found)}" if len(found) == 1 else f"are {len(found)}"
        raise InvalidArgumentError(
            f"There {there} ({', '.join(found)}), and --devices asks for {count}."
        )
