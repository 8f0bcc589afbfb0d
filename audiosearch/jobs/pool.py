"""Worker processes that survive what they decode.

A decoder that crashes or hangs costs the one file it was given: its process is ended, the file is
reported as failed, and a fresh process takes the next. Workers are started with ``python -m``, not
by ``multiprocessing``, so a script that uses the API needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from audiosearch.errors import (
    AudioDecodeError,
    AudioError,
    AudioSearchError,
    InvalidArgumentError,
)
from audiosearch.jobs.analysis import Analysis, AnalyzerSettings

__all__ = ["WorkerPool", "core_count"]

STALL_SECONDS = 120.0
"""How long a worker may work without a sign of life before it is ended."""

_AHEAD = 8  # results that may wait for an earlier, slower file, a worker


class WorkerPool:
    """Analyses files in worker processes, results in the order of the files.

    Parameters
    ----------
    settings : AnalyzerSettings, optional
        The models. Each worker uses one thread unless this says otherwise.
    workers : int, optional
        How many processes; as many as there are cores where None.
    stall : float
        Seconds without a sign of life (a block of decoded sound) after which a file is given up.

    Use it as a context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        settings: AnalyzerSettings | None = None,
        *,
        workers: int | None = None,
        stall: float = STALL_SECONDS,
    ) -> None:
        if workers is not None and workers < 1:
            raise InvalidArgumentError(f"workers must be at least 1, not {workers}.")
        if not stall > 0:
            raise InvalidArgumentError(f"stall must be above 0 seconds, not {stall}.")
        settings = settings or AnalyzerSettings()
        if settings.threads is None:
            settings = replace(settings, threads=1)
        self.workers = workers or core_count()
        self._idle = [_Worker(settings, stall) for _ in range(self.workers)]
        self._all = list(self._idle)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="audiosearch-worker")
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def analyze(self, path: str) -> Analysis:
        """Analyse one file; safe to call from several threads.

        Raises
        ------
        AudioError
            When the file cannot be used; also when its decoder crashed or hung.
        ModelError
            When the models cannot be loaded.
        """
        return self._threads.submit(self._run, path).result()

    def map(self, paths: Iterable[str]) -> Iterator[Analysis | AudioError]:
        """Yield, in the order of `paths`, what each file holds or why it could not be used.

        At most a few files per worker are in flight, so memory does not grow with their number.
        """
        waiting: deque[Future[Analysis]] = deque()
        source = iter(paths)
        try:
            while True:
                while len(waiting) < _AHEAD * self.workers:
                    path = next(source, None)
                    if path is None:
                        break
                    waiting.append(self._threads.submit(self._run, path))
                if not waiting:
                    return
                try:
                    yield waiting.popleft().result()
                except AudioError as error:
                    yield error
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the worker processes; files in flight are given up."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.stop()
        self._threads.shutdown(wait=True)

    def _run(self, path: str) -> Analysis:
        with self._lock:
            worker = self._idle.pop()
        try:
            if self._closed:
                raise AudioSearchError("The worker pool is closed.")
            return worker.run(path)
        finally:
            with self._lock:
                self._idle.append(worker)


class _Worker:
    """One worker process, started when first needed and again after it was lost."""

    def __init__(self, settings: AnalyzerSettings, stall: float) -> None:
        self._settings = settings
        self._stall = stall
        self._process: subprocess.Popen[bytes] | None = None
        self._stalled = False

    def run(self, path: str) -> Analysis:
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._stalled = False
        try:
            pickle.dump(path, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            kind, value = self._receive(process)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise AudioDecodeError(path, self._epitaph(process)) from None
        if kind == "failed":
            raise value
        return value

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _start(self) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        environment = dict(os.environ)
        # One thread a process: the workers share the cores among themselves.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = str(self._settings.threads)
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (package_root, environment.get("PYTHONPATH")) if part
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "audiosearch.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # Ctrl-C reaches the parent alone, which then ends its workers.
            start_new_session=True,
        )
        assert process.stdin is not None
        self._stalled = False
        try:
            pickle.dump(self._settings, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            kind, value = self._receive(process)
        except (EOFError, OSError, pickle.UnpicklingError):
            _end(process)
            raise AudioSearchError(
                "A worker process could not start. Run `python -m audiosearch.jobs.worker` to see "
                "why; reinstalling audiosearch may help."
            ) from None
        if kind == "failed":
            _end(process)
            raise value
        self._process = process

    def _receive(self, process: subprocess.Popen[bytes]) -> tuple[str, Any]:
        """Return the next message that is no sign of life; end a process that gives none."""
        assert process.stdout is not None
        while True:
            watch = threading.Timer(self._stall, self._give_up, [process])
            watch.daemon = True
            watch.start()
            try:
                kind, value = pickle.load(process.stdout)
            finally:
                watch.cancel()
            if kind != "alive":
                return kind, value

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        self._stalled = True
        process.kill()

    def _epitaph(self, process: subprocess.Popen[bytes]) -> str:
        """Forget a lost process, and say how it was lost."""
        self._process = None
        _end(process)
        if self._stalled:
            return f"Its decoder gave no sound for {self._stall:g} s and was stopped."
        code = process.returncode
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            return f"Its decoder crashed ({name})."
        return f"Its decoder ended unexpectedly (exit code {code})."


def core_count() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # Unsent bytes of a task cannot reach a process that is gone.
            with contextlib.suppress(OSError):
                pipe.close()
