"""What the process takes of the machine while a block runs: cores and memory, over time."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

__all__ = ["Usage", "UsageSample", "combined", "free_memory_mb", "memory_mb"]

_MOST_SAMPLES = 240


@dataclass(frozen=True)
class UsageSample:
    """Processor and memory at one moment.

    Attributes
    ----------
    seconds : float
        Since the beginning.
    cores : float
        How many cores were busy for this process, on average since the sample before.
    memory_mb : float
        Megabytes in memory then.
    """

    seconds: float
    cores: float
    memory_mb: float


class Usage:
    """Takes samples in a thread of its own while the block runs.

    Samples are halved when there are many, and taken half as often from then on; so a run of any
    length has at most 240.

    Parameters
    ----------
    every : float
        Seconds between the first samples.

    Attributes
    ----------
    samples : list of UsageSample
        In the order of time; the last is of the block's end.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.samples: list[UsageSample] = []
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = self._last = time.perf_counter()
        self._busy = time.process_time()

    def __enter__(self) -> Usage:
        self._began = self._last = time.perf_counter()
        self._busy = time.process_time()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._take()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._take()
            if len(self.samples) >= _MOST_SAMPLES:
                pairs = zip(self.samples[::2], self.samples[1::2], strict=False)
                self.samples = [
                    UsageSample(b.seconds, (a.cores + b.cores) / 2, max(a.memory_mb, b.memory_mb))
                    for a, b in pairs
                ]
                self._every *= 2

    def _take(self) -> None:
        now, busy = time.perf_counter(), time.process_time()
        cores = (busy - self._busy) / max(now - self._last, 1e-6)
        self._last, self._busy = now, busy
        self.samples.append(UsageSample(now - self._began, cores, memory_mb()))


def combined(runs: Sequence[tuple[float, Sequence[UsageSample]]]) -> list[UsageSample]:
    """Return what several runs took together, whether at once or one after another.

    Parameters
    ----------
    runs : sequence of (float, sequence of UsageSample)
        When each began, by the system's clock in seconds, and its samples.

    Returns
    -------
    list of UsageSample
        At most 240, since the first began: the cores of all runs, and the most memory that all took
        together, in each span.
    """
    began = min(start for start, _ in runs)
    # Within each stretch between two of all these moments, every run's sample is one and the same.
    moments = {0.0}
    for start, samples in runs:
        moments |= {start - began, *(start - began + each.seconds for each in samples)}
    edges = np.array(sorted(moments))
    spent, memory = np.zeros(len(edges)), np.zeros(len(edges) - 1)
    for start, samples in runs:
        times = start - began + np.array([0.0, *(each.seconds for each in samples)])
        busy = np.cumsum([0.0, *np.diff(times) * [each.cores for each in samples]])
        spent += np.interp(edges, times, busy)
        place = np.minimum(np.searchsorted(times[1:], edges[1:]), len(samples) - 1)
        is_running = (edges[:-1] >= times[0]) & (edges[1:] <= times[-1])
        memory += np.where(is_running, np.array([each.memory_mb for each in samples])[place], 0.0)
    step = -(-len(memory) // _MOST_SAMPLES)
    firsts = np.arange(0, len(memory), step)
    stops = np.append(firsts[1:], len(memory))
    spans = np.maximum(edges[stops] - edges[firsts], 1e-9)
    cores = (spent[stops] - spent[firsts]) / spans
    return [
        UsageSample(float(end), float(used), float(most))
        for end, used, most in zip(
            edges[stops], cores, np.maximum.reduceat(memory, firsts), strict=True
        )
    ]


def free_memory_mb() -> float | None:
    """Return the megabytes that new processes could take; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def memory_mb() -> float:
    """Return the megabytes of this process that are in memory; the most so far beyond Linux."""
    import resource

    if sys.platform.startswith("linux"):
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
