"""Worker processes that survive what they decode.

A decoder that crashes or hangs costs the one file it was given: its process is ended, the file is
reported as failed, and a fresh process takes the next. Workers are started as programs of their
own, not by ``multiprocessing``, so a script that uses the API needs no
``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from audiosearch.errors import AudioError, AudioSearchError, InvalidArgumentError
from audiosearch.jobs.analysis import Analysis, AnalyzerSettings, Chore, Segment
from audiosearch.jobs.process import WorkerProcess
from audiosearch.storage import Closing

__all__ = ["WorkerPool", "core_count"]

STALL_SECONDS = 120.0
"""How long a worker may work without a sign of life before it is ended."""

_AHEAD = 8  # results that may wait for an earlier, slower file, a worker


class WorkerPool(Closing):
    """Analyses files in worker processes, results in the order of the files.

    Parameters
    ----------
    settings : AnalyzerSettings, optional
        The models. Each worker uses one thread unless this says otherwise.
    workers : int, optional
        How many processes; as many as there are cores where None.
    stall : float
        Seconds without a sign of life (a block of decoded sound) after which a file is given up.
    time_limit : float, optional
        Seconds after which a file is given up even if it goes on giving sound.

    Use it as a context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        settings: AnalyzerSettings | None = None,
        *,
        workers: int | None = None,
        stall: float = STALL_SECONDS,
        time_limit: float | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise InvalidArgumentError(f"workers must be at least 1, not {workers}.")
        if not stall > 0:
            raise InvalidArgumentError(f"stall must be above 0 seconds, not {stall}.")
        if time_limit is not None and not time_limit > 0:
            raise InvalidArgumentError(f"time_limit must be above 0 seconds, not {time_limit}.")
        settings = settings or AnalyzerSettings()
        if settings.threads is None:
            settings = replace(settings, threads=1)
        self.workers = core_count() if workers is None else workers
        self._all = [WorkerProcess(settings, stall, time_limit) for _ in range(self.workers)]
        self._idle = list(self._all)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="audiosearch-worker")
        self._lock = threading.Lock()
        self._closed = False

    def analyze(self, path: str) -> Analysis:
        """Analyse one file; safe to call from several threads.

        Raises
        ------
        AudioError
            When the file cannot be used; also when its decoder crashed or hung.
        ModelError
            When the models cannot be loaded.
        AudioSearchError
            When the pool is closed, before or meanwhile.
        """
        return self._submit(path).result()

    def map(self, paths: Iterable[str | Segment]) -> Iterator[Analysis | AudioError]:
        """Yield, in the order of `paths`, what each file holds or why it could not be used.

        A `Segment` in place of a path stands for a part of a file.

        At most a few files per worker are in flight, so memory does not grow with their number.

        Raises
        ------
        ModelError
            When the models cannot be loaded.
        """
        waiting: deque[Future[Analysis]] = deque()
        source = iter(paths)
        try:
            while True:
                while len(waiting) < _AHEAD * self.workers:
                    path = next(source, None)
                    if path is None:
                        break
                    waiting.append(self._submit(path))
                if not waiting:
                    return
                try:
                    result: Analysis | AudioError = waiting.popleft().result()
                except AudioError as error:
                    result = error
                yield result
        finally:
            for future in waiting:
                future.cancel()

    def unordered(
        self, tasks: Iterable[Segment | Chore], *, tick: float
    ) -> Iterator[tuple[Segment | Chore, Any] | None]:
        """Yield each task with its result as soon as it has one, in any order.

        Nothing waits for a slow file.

        Parameters
        ----------
        tasks : iterable of Segment or Chore
            Parts of files, or other work in a worker process. Taken as workers come free.
        tick : float
            None is yielded when nothing was for so many seconds.

        Yields
        ------
        (task, result) or None
            The result is what the worker answered, or an `AudioError`.

        Raises
        ------
        ModelError
            When the models cannot be loaded.
        """
        source = iter(tasks)
        running: dict[Future[Any], Segment | Chore] = {}
        try:
            while True:
                # Two a worker: the next one is there when a worker comes free.
                while len(running) < 2 * self.workers:
                    task = next(source, None)
                    if task is None:
                        break
                    running[self._submit(task)] = task
                if not running:
                    return
                done, _ = wait(running, timeout=tick, return_when=FIRST_COMPLETED)
                if not done:
                    yield None
                for future in done:
                    task = running.pop(future)
                    try:
                        result = future.result()
                    except AudioError as error:
                        result = error
                    yield task, result
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """End the worker processes; files in flight are given up."""
        self._closed = True
        for worker in self._all:
            worker.end()
        # Now no thread waits for an answer any more, and the pipes can be closed.
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._all:
            worker.clear()

    def _submit(self, path: str | Segment | Chore) -> Future[Any]:
        if self._closed:
            raise AudioSearchError("The worker pool is closed.")
        return self._threads.submit(self._run, path)

    def _run(self, path: str | Segment | Chore) -> Any:
        with self._lock:
            worker = self._idle.pop()
        try:
            return worker.run(path)
        finally:
            with self._lock:
                self._idle.append(worker)


def core_count() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
