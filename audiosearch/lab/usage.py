"""What the process takes of the machine while a block runs: cores and memory, over time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

__all__ = ["Usage", "UsageSample", "combined", "memory_mb"]

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
        At most 240, since the first began: cores and memory of the runs in each span, added up.
    """
    began = min(start for start, _ in runs)
    ends = sorted({start - began + each.seconds for start, samples in runs for each in samples})
    if len(ends) > _MOST_SAMPLES:
        ends = np.linspace(0, ends[-1], _MOST_SAMPLES + 1)[1:].tolist()
    edges = np.array([0.0, *ends])
    spans = np.maximum(np.diff(edges), 1e-9)
    cores, memory = np.zeros(len(spans)), np.zeros(len(spans))
    for start, samples in runs:
        times = start - began + np.array([0.0, *(each.seconds for each in samples)])
        spent = np.cumsum([0.0, *np.diff(times) * [each.cores for each in samples]])
        cores += np.diff(np.interp(edges, times, spent)) / spans
        # In each span what the first sample that is not before its end says, for as long as it ran.
        place = np.minimum(np.searchsorted(times[1:], edges[1:]), len(samples) - 1)
        shared = np.clip(edges[1:], None, times[-1]) - np.clip(edges[:-1], times[0], None)
        held = np.array([each.memory_mb for each in samples])[place]
        memory += held * np.clip(shared / spans, 0.0, 1.0)
    return [
        UsageSample(float(end), float(busy), float(size))
        for end, busy, size in zip(ends, cores, memory, strict=True)
    ]


def memory_mb() -> float:
    """Return the megabytes of this process that are in memory; the most so far beyond Linux."""
    import resource

    if sys.platform.startswith("linux"):
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
