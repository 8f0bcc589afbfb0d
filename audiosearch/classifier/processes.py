"""One training in several PyTorch processes, each with a device of its own.

``torchrun`` starts the processes, on one machine or several, and tells each one which it is. All
draw the same batches, each works on its part, and what they find is averaged, so that together
they do what one process would::

    with join_processes(launch) as processes:
        module = processes.parallel(module)
        for inputs, targets in batches:                    # the same ones in every process
            scores = module(processes.part(inputs))
            loss = criterion(scores, processes.part(targets))    # a mean over the part
            loss.backward()                                # averages the gradients
            optimizer.step()
            print_in_first(processes.mean(loss))
        processes.lead(save)                               # runs in the first process only

Nothing here knows of Keras or of the classifier; any torch module can be trained so. Layers that
look at a whole batch take their statistics from `Processes.moments`.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import importlib
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from audiosearch.errors import InvalidArgumentError, OtherProcessError

__all__ = ["Launch", "Processes", "join_processes", "torchrun_launch", "torchrun_line"]

T = TypeVar("T")

# How long the others wait while one computes features, validates or writes. A process that ended
# is noticed at once.
_PATIENCE = datetime.timedelta(days=1)
_joins = itertools.count()


@dataclass(frozen=True)
class Launch:
    """Which process this is.

    Attributes
    ----------
    rank : int
        Its number among all, from 0; the first one leads.
    local_rank : int
        Its number on this machine, which is that of its GPU.
    count : int
        How many there are.
    """

    rank: int
    local_rank: int
    count: int


def torchrun_launch() -> Launch | None:
    """Return which of ``torchrun``'s processes this is; None where it was not started so.

    Raises
    ------
    InvalidArgumentError
        When the environment variables that say so hold no numbers.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return None
    try:
        return Launch(*(int(os.environ[name]) for name in names))
    except ValueError:
        raise InvalidArgumentError(
            f"The environment variables {', '.join(names)} must hold numbers, as torchrun sets "
            "them. Unset them to train in one process."
        ) from None


def torchrun_line(count: int) -> str:
    """Return this command as torchrun would start it."""
    program, *arguments = sys.argv
    start = [program]
    if Path(program).stem in ("audiosearch", "__main__"):
        start = ["-m", "audiosearch"]
    options = ["--standalone", "--nproc-per-node", str(count)]
    return shlex.join(["torchrun", *options, *start, *arguments])


@contextlib.contextmanager
def join_processes(launch: Launch, *, gpu: bool = True) -> Iterator[Processes]:
    """Meet the other processes, and part from them in the end.

    With CUDA each process takes the GPU of its local rank and talks over NCCL, otherwise it
    computes on the CPU and talks over gloo. A process group that exists already is used as it is.

    Parameters
    ----------
    launch : Launch
        Which process this is.
    gpu : bool
        Whether CUDA is used where there is any.

    Raises
    ------
    InvalidArgumentError
        When there are more processes on this machine than GPUs.
    """
    import torch
    from torch import distributed

    cuda = gpu and torch.cuda.is_available()
    if cuda:
        if launch.local_rank >= torch.cuda.device_count():
            raise InvalidArgumentError(
                f"torchrun started more processes on this machine than it has GPUs "
                f"({torch.cuda.device_count()}). Lower --nproc-per-node."
            )
        torch.cuda.set_device(launch.local_rank)
    own = not distributed.is_initialized()
    if own:
        # Its default arguments are the group there is at its first import, which would never end.
        importlib.import_module("torch.distributed.nn.functional")
        store, rank, count = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            # The store outlives the group: a second one would find the addresses of the first.
            store=distributed.PrefixStore(f"audiosearch-{next(_joins)}", store),
            rank=rank,
            world_size=count,
            timeout=_PATIENCE,
        )
    processes = Processes(launch, "cuda" if cuda else "cpu")
    yield processes
    # Not after an error: NCCL would wait for processes that have ended.
    if own and not processes.is_alone:
        # None leaves while another still waits for its last word; one that ended says so itself.
        with contextlib.suppress(RuntimeError):
            distributed.barrier()
        processes.disconnect()
        distributed.destroy_process_group()
        # The group ends with its last reference, which is in a cycle. A thread of gloo that is
        # left when Python ends may abort the process (pytorch/pytorch#179291).
        gc.collect()


class Processes:
    """The processes of one training, seen from one of them; `join_processes` makes it.

    Its methods that average, lead or agree must be called by all processes in the same order.
    They raise `OtherProcessError` where another process has ended.

    Attributes
    ----------
    rank, count : int
        The number of this process among all, from 0, and how many there are.
    device : str
        What each of them computes on, ``cpu`` or ``cuda``.
    is_alone : bool
        Whether it waits for no other any more; see `go_alone`.
    """

    def __init__(self, launch: Launch, device: str) -> None:
        self.rank, self.count, self.device = launch.rank, launch.count, device
        self.is_alone = False
        self._local_rank = launch.local_rank
        self._wrapped: list[Any] = []

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which validates, writes and prints."""
        return self.rank == 0

    @property
    def leads_here(self) -> bool:
        """Whether this is the first process on its machine."""
        return self._local_rank == 0

    def go_alone(self) -> None:
        """Wait for no other process any more, after an interruption that ends them too.

        From then on `lead` and `agree` concern this process only, and nothing can be averaged.
        """
        self.is_alone = True

    def part(self, batch: Any) -> Any:
        """Return this process's part of a batch (list, array or tensor) that all have drawn.

        Raises
        ------
        InvalidArgumentError
            When the processes cannot share it equally.
        """
        if len(batch) % self.count:
            raise InvalidArgumentError(
                f"A batch of {len(batch)} cannot be divided among {self.count} processes."
            )
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def parallel(self, module: Any) -> Any:
        """Wrap a torch module on this process's device.

        The weights become those of the first process. A call of the wrapped module, and
        ``backward`` on what comes of it, leaves in each weight the mean of all processes'
        gradients. It can be called until the processes part.
        """
        from torch.nn.parallel import DistributedDataParallel

        with self.connected():
            wrapped = DistributedDataParallel(
                module, device_ids=[self._local_rank] if self.device == "cuda" else None
            )
        self._wrapped.append(wrapped)
        return wrapped

    def disconnect(self) -> None:
        """Take the process group from the modules that `parallel` wrapped, whoever keeps them.

        They cannot be called any more; the modules inside can.
        """
        for wrapped in self._wrapped:
            # What is left out of a pickle of it too.
            for name in ("process_group", "reducer", "logger"):
                delattr(wrapped, name)
        self._wrapped.clear()

    def mean(self, value: Any) -> float:
        """Return the mean over all processes of a torch scalar."""
        from torch import distributed

        total = value.detach().clone()
        with self.connected():
            distributed.all_reduce(total)
        return float(total) / self.count

    def moments(self, values: Any, axes: Sequence[int]) -> tuple[Any, Any]:
        """Return mean and variance of a tensor over `axes` and over all processes.

        Gradients flow through both, to the values of every process. The tensors of all processes
        must have the same shape.
        """
        import torch

        variance, mean = torch.var_mean(values, dim=tuple(axes), correction=0)
        # Each process fills in its row; their sum has all rows.
        rows = torch.nn.functional.pad(
            torch.stack([mean, variance])[None],
            (0, 0) * mean.ndim + (0, 0, self.rank, self.count - 1 - self.rank),
        )
        means, variances = _summed(rows).unbind(1)
        mean = means.mean(0)
        return mean, variances.mean(0) + ((means - mean) ** 2).mean(0)

    def lead(self, function: Callable[[], T]) -> T:
        """Call a function in the first process and return its result, pickled, in all.

        An exception is raised in the first process; in the others it is an `OtherProcessError`.
        """
        from torch import distributed

        if self.is_alone:
            return function()
        failure: Exception | None = None
        answer: list[Any] = [None, None]
        if self.leads:
            try:
                answer = [function(), None]
            except Exception as error:
                failure, answer = error, [None, _sentence(error)]
        with self.connected():
            distributed.broadcast_object_list(answer, src=0, device=_cpu())
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise OtherProcessError(f"The first process failed: {answer[1]}")
        result: T = answer[0]
        return result

    @contextlib.contextmanager
    def agree(self) -> Iterator[None]:
        """Let all processes leave a block together, or none.

        An exception that several raise is raised in the first of them; the others raise
        `OtherProcessError`. No method of this object may be called inside the block.
        """
        from torch import distributed

        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if self.is_alone:
            if failure is not None:
                raise failure
            return
        told: list[str | None] = [None] * self.count
        with self.connected():
            distributed.all_gather_object(told, failure and _sentence(failure))
        failed = [rank for rank, sentence in enumerate(told) if sentence is not None]
        if not failed:
            return
        if failure is not None and failed[0] == self.rank:
            raise failure
        raise OtherProcessError(f"Process {failed[0]} failed: {told[failed[0]]}") from failure

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Name the errors of a block that come of another process's end."""
        from torch import distributed

        try:
            yield
        except RuntimeError as error:
            # gloo raises plain RuntimeErrors, which name its source files.
            if isinstance(error, distributed.DistError) or "gloo" in str(error):
                raise OtherProcessError(
                    "Another process of this training has ended; what it said is the reason."
                ) from error
            raise


def _summed(values: Any) -> Any:
    """Return the sum over all processes of a tensor, through which gradients flow."""
    import torch
    from torch import distributed

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(_context: Any, own: Any) -> Any:
            total = own.clone()
            distributed.all_reduce(total)
            return total

        @staticmethod
        def backward(_context: Any, gradient: Any) -> Any:
            total = gradient.clone()
            distributed.all_reduce(total)
            return total

    return Sum.apply(values)


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
