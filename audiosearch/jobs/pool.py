"""Worker processes that survive what they decode.

A decoder that crashes or hangs costs the one file it was given: its process is ended, the file is
reported as failed, and a fresh process takes the next. Workers are started as programs of their
own, not by ``multiprocessing``, so a script that uses the API needs no
``if __name__ == "__main__"``.

How many
--------
One process a core that this process may use, and as many threads in each one's models as leave no
core idle: the cores divided by the processes. So 2 processes on 2 cores have one thread each, and a
single long file on 16 cores has 16. Processes come first, because decoding, resampling and log-mel
of one file are one after another, whatever the models do. No thread spins while it waits: measured,
spinning halves the speed as soon as another process wants the core. Scores and embeddings are the
same to the bit for any number of either.

A worker decodes the next file while its models are busy with those before (see
`audiosearch.jobs.worker`), but takes it only when it is ready to decode: nothing waits behind a
long file while another worker is free.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

from audiosearch.errors import AudioError, AudioSearchError, InvalidArgumentError
from audiosearch.jobs.analysis import Analysis, AnalyzerSettings, Chore, Segment
from audiosearch.jobs.process import Job, WorkerProcess, closed_error
from audiosearch.storage import Closing

__all__ = ["MEMORY_LIMIT", "TIME_LIMIT", "WorkerPool", "core_count"]

TIME_LIMIT = 3600.0
"""Seconds that a file of a batch may take, where nothing else is said."""
MEMORY_LIMIT = 2048
"""Megabytes that a worker may take for a file of a batch, where nothing else is said."""
STALL_SECONDS = 120.0
"""How long a worker may work without a sign of life before it is ended."""

# Files a worker that are taken ahead: enough that even files of one clip fill the scorer's batches
# of 32 in each.
_AHEAD = 48
_HELD_SECONDS = 4 * 3600.0  # of sound whose results (350 bytes a second) wait for an earlier file


class WorkerPool(Closing):
    """Analyses files in worker processes; the module's text says how many.

    Parameters
    ----------
    settings : AnalyzerSettings, optional
        The models. Their threads are chosen as the module's text says unless this names a number.
    workers : int, optional
        How many processes; as many as there are cores where None.
    stall : float
        Seconds without a sign of life (a block of decoded sound) after which a file is given up.
    time_limit : float, optional
        Seconds after which a file is given up even if it goes on giving sound.

    Processes start as they are needed. Use it as a context manager: leaving it ends them.
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
        self.workers = core_count() if workers is None else workers
        if settings.threads is None:
            settings = replace(settings, threads=max(1, core_count() // self.workers))
        self._jobs = _Jobs()
        self._all = [
            WorkerProcess(settings, self._jobs, stall, time_limit) for _ in range(self.workers)
        ]
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def analyze(self, path: str | Segment) -> Analysis:
        """Analyse one file, or a part of one; safe to call from several threads.

        Raises
        ------
        AudioError
            When the file cannot be used; also when its decoder crashed or hung.
        ModelError
            When the models cannot be loaded.
        AudioSearchError
            When the pool is closed, before or meanwhile.
        """
        task = path if isinstance(path, Segment) else Segment(path)
        result: Analysis = self._submit(task).result()
        return result

    def map(self, paths: Iterable[str | Segment]) -> Iterator[Analysis | AudioError]:
        """Yield, in the order of `paths`, what each file holds or why it could not be used.

        A `Segment` in place of a path stands for a part of a file.

        A bounded number of files is in flight, and a bounded length of sound waits for an earlier
        file, so memory does not grow with their number.

        Raises
        ------
        ModelError
            When the models cannot be loaded.
        """
        waiting: deque[Future[Any]] = deque()
        source = iter(paths)
        try:
            while True:
                has_room = _held(waiting) < _HELD_SECONDS
                while has_room and len(waiting) < _AHEAD * self.workers:
                    path = next(source, None)
                    if path is None:
                        break
                    task = path if isinstance(path, Segment) else Segment(path)
                    waiting.append(self._submit(task))
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
                while len(running) < _AHEAD * self.workers:
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
        with self._lock:
            self._closed = True
        self._jobs.close()
        for worker in self._all:
            worker.end()
        # Now no thread waits for an answer any more, and the pipes can be closed.
        for thread in self._threads:
            thread.join()
        for worker in self._all:
            worker.clear()

    def _submit(self, task: Segment | Chore) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise AudioSearchError("The worker pool is closed.")
            started = len(self._threads)
            if self._jobs.put(Job(task, future)) and started < self.workers:
                thread = threading.Thread(
                    target=self._all[started].serve,
                    name=f"audiosearch-worker-{started}",
                    daemon=True,
                )
                thread.start()
                # Ctrl-C before this line leaves a daemon that ends by itself once the pool closes;
                # after an append before the start, closing would wait for what never began.
                self._threads.append(thread)
        return future


class _Jobs:
    """The jobs of a pool that no process has yet; a `JobSource`."""

    def __init__(self) -> None:
        self._new: deque[Job] = deque()
        self._again: deque[Job] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._closed = False

    def put(self, job: Job) -> bool:
        """Add a job; return whether nobody waits for it."""
        with self._changed:
            self._new.append(job)
            self._changed.notify()
            return self._idle < len(self._new) + len(self._again)

    def give_back(self, job: Job) -> None:
        with self._changed:
            if not self._closed:
                self._again.appendleft(job)
                self._changed.notify()
                return
        job.future.set_exception(closed_error())

    def take(self) -> Job | None:
        with self._changed:
            while not self._closed:
                job = self._next()
                if job is not None:
                    return job
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return None

    def more(self) -> Job | None:
        with self._changed:
            if self._closed or (self._again and self._again[0].alone):
                return None
            return self._next()

    def close(self) -> None:
        """Let nobody wait any more; jobs that are left fail."""
        with self._changed:
            self._closed = True
            left = [*self._again, *self._new]
            self._again.clear()
            self._new.clear()
            self._changed.notify_all()
        for job in left:
            if not job.future.cancelled():
                job.future.set_exception(closed_error())

    def _next(self) -> Job | None:
        if self._again:
            return self._again.popleft()
        while self._new:
            job = self._new.popleft()
            if job.future.set_running_or_notify_cancel():
                return job
        return None


def _held(waiting: Iterable[Future[Any]]) -> float:
    """Return the seconds of sound whose results are there and wait for their turn."""
    return sum(
        future.result().duration
        for future in waiting
        if future.done() and not future.cancelled() and future.exception() is None
    )


def core_count() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
