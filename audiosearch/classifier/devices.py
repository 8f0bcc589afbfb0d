"""The devices that a training runs on, whatever the backend of Keras.

A step on several devices is the step that one device would make on the whole batch: each device
takes an equal part of it, the loss is the mean over all clips, and so are the gradients. Batch
normalisation takes its statistics from the whole batch, too ("synchronised"), with every backend,
so that the number of devices changes how fast a run is and not what comes out of it, up to
rounding and to what dropout draws.

=============== ===============================================================================
``tensorflow``  ``tf.distribute.MirroredStrategy`` in one process
``jax``         ``keras.distribution.DataParallel`` in one process
``torch``       a process for each device, started by ``torchrun``, which may be on several
                machines (`audiosearch.classifier.processes`)
=============== ===============================================================================
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from audiosearch.classifier.processes import Processes, join_processes, torchrun_launch
from audiosearch.errors import InvalidArgumentError

__all__ = ["Devices", "Step", "open_devices"]

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
Step = Callable[[list[Floats], Floats], float]


class Devices:
    """What a training needs to know of its devices; this one is a single device.

    Attributes
    ----------
    count : int
        How many there are.
    description : str
        How many of what, for the run's records.
    leads : bool
        Whether this process validates, writes and prints; only one of several does.
    """

    count = 1
    description = "1"
    leads = True

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the network is made, compiled and changed."""
        return contextlib.nullcontext()

    def layers(self) -> dict[str, Any]:
        """Return the layers, by their name in Keras, that must know of the other devices."""
        return {}

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


@contextlib.contextmanager
def open_devices(count: int | None, *, batch_size: int) -> Iterator[Devices]:
    """Take devices for a training, with the backend that Keras runs on.

    Parameters
    ----------
    count : int, optional
        How many; where None, one, or under ``torchrun`` as many as it started processes.
    batch_size : int
        Clips a step, over all devices.

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
    if batch_size % wanted:
        raise InvalidArgumentError(
            f"A batch of {batch_size} clips cannot be divided among {wanted} devices. Choose a "
            f"--batch-size that is a multiple of {wanted}."
        )
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
    if wanted == 1:
        yield _OneTorch() if backend == "torch" else Devices()
    elif backend == "tensorflow":
        yield _Mirrored(wanted)
    elif backend == "jax":
        yield _Sharded(wanted)
    elif launch:
        with join_processes(launch) as processes:
            yield _Joined(processes)
    elif backend == "torch":
        raise InvalidArgumentError(
            "PyTorch trains on several devices with a process for each. Start them so: "
            f"{_torchrun_line(wanted)}"
        )
    else:
        raise InvalidArgumentError(
            "Training on several devices is for the backends tensorflow, jax and torch, not "
            f"{backend}. Set KERAS_BACKEND."
        )


class _Mirrored(Devices):
    """Replicas of the network in TensorFlow: GPUs, or logical CPUs where there is no GPU."""

    def __init__(self, count: int) -> None:
        import tensorflow as tf

        config = tf.config
        found = config.list_logical_devices("GPU") or config.list_logical_devices("CPU")
        _check_enough(count, [device.name for device in found])
        self.count = count
        self.description = f"{count} x {found[0].device_type}"
        self._strategy = tf.distribute.MirroredStrategy([d.name for d in found[:count]])

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        scope: contextlib.AbstractContextManager[Any] = self._strategy.scope()
        return scope

    def layers(self) -> dict[str, Any]:
        import keras
        import tensorflow as tf

        class Normalization(keras.layers.BatchNormalization):
            def __init__(self, **options: Any) -> None:
                super().__init__(synchronized=True, **options)

        class Dropout(keras.layers.Dropout):
            """Drops other values in each replica; Keras's own drops the same in all."""

            def call(self, inputs: Any, training: bool = False) -> Any:
                if not training or not self.rate:
                    return inputs
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                seed = tf.cast(self.seed_generator.next(), "int64")
                seed += tf.stack([tf.cast(0, "int64"), tf.cast(replica, "int64") * 2**32])
                return tf.nn.experimental.stateless_dropout(inputs, rate=self.rate, seed=seed)

        return {"BatchNormalization": Normalization, "Dropout": Dropout}

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


class _Sharded(Devices):
    """JAX: each array's batch axis is divided among the devices, and XLA does the rest."""

    def __init__(self, count: int) -> None:
        distribution = import_keras().distribution
        names = distribution.list_devices()
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
        _seed_torch(seed, epoch, 0)


class _Joined(Devices):
    """PyTorch: this process's device, and the other processes."""

    def __init__(self, processes: Processes) -> None:
        self.count = processes.count
        self.description = f"{processes.count} x {processes.device}"
        self.leads = processes.leads
        self._processes = processes

    def layers(self) -> dict[str, Any]:
        import keras

        processes = self._processes

        class Normalization(keras.layers.BatchNormalization):
            """Normalises by the whole batch; Keras has that for TensorFlow only."""

            def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
                if not training or not self.trainable:
                    return super().call(inputs, training=training, mask=mask)
                values = keras.ops.cast(inputs, "float32")
                axes = [axis for axis in range(values.ndim) if axis != self.axis % values.ndim]
                mean, variance = processes.moments(values, axes)
                for average, found in (
                    (self.moving_mean, mean),
                    (self.moving_variance, variance),
                ):
                    kept = average.value * self.momentum
                    average.assign(kept + found.detach() * (1 - self.momentum))
                normal = keras.ops.batch_normalization(
                    values,
                    mean,
                    variance,
                    axis=self.axis,
                    offset=self.beta,
                    scale=self.gamma,
                    epsilon=self.epsilon,
                )
                return keras.ops.cast(normal, self.compute_dtype)

        return {"BatchNormalization": Normalization}

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
        _seed_torch(seed, epoch, self._processes.rank)

    def lead(self, function: Callable[[], T]) -> T:
        return self._processes.lead(function)

    def agree(self) -> contextlib.AbstractContextManager[None]:
        return self._processes.agree()


def _seed_torch(seed: int, epoch: int, rank: int) -> None:
    """Seed what dropout draws from, differently in each process."""
    import torch

    (number,) = np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(number) >> 1)


def _check_enough(count: int, found: Sequence[str]) -> None:
    if count > len(found):
        there = f"is {len(found)}" if len(found) == 1 else f"are {len(found)}"
        raise InvalidArgumentError(
            f"There {there} ({', '.join(found)}), and --devices asks for {count}."
        )


def _torchrun_line(count: int) -> str:
    """Return this command as torchrun would start it."""
    program, *arguments = sys.argv
    start = [program]
    if Path(program).stem in ("audiosearch", "__main__"):
        start = ["-m", "audiosearch"]
    options = ["--standalone", "--nproc-per-node", str(count)]
    return shlex.join(["torchrun", *options, *start, *arguments])
