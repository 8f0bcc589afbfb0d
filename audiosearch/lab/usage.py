"""What the process takes of the machine while a block runs: cores and memory, over time."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Usage", "UsageSample", "memory_mb"]

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


def memory_mb() -> float:
    """Return the megabytes of this process that are in memory; the most so far beyond Linux."""
    import resource

    if sys.platform.startswith("linux"):
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
