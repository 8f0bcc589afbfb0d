"""One worker process, seen from the side that gives it files; see `audiosearch.jobs.worker`.

A process decodes one file at a time, while those before it may still wait for a batch. When it is
lost, by a crash or because it was stopped, all of these are lost with it, but only one is at fault:

- a file whose decoder gave no sign of life, or passed its time limit, is given up at once: what
  hung once will hang again, and that takes minutes;
- after a crash, the file that was being decoded is tried once more, alone; if that crashes too, it
  is given up. The first crash may have been bad luck: memory ran out, someone ended the process;
- the others are tried again beside new ones, and alone from their second loss on, so that only a
  file that crashed a process of its own is ever given up.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audiosearch.errors import AudioDecodeError, AudioSearchError
from audiosearch.jobs.analysis import AnalyzerSettings, Chore, Segment
from audiosearch.storage import Closing

__all__ = ["Job", "JobSource", "WorkerProcess"]

_START_SECONDS = 120.0  # loading the models, on a machine that is busy
_STARTS = 3  # a job of days is not to end because memory was short at one moment
_LOSSES = 2  # so often a file may be lost with a process
_STEP_SECONDS = 1.0
_SMALLEST_STEP = 0.05

# What a pipe whose other end is gone raises, in the middle of a message or between two.
_LOST = (EOFError, OSError, pickle.UnpicklingError)


@dataclass(eq=False)
class Job:
    """A task and where its result goes.

    Attributes
    ----------
    task : Segment or Chore
        What is to be done.
    future : Future
        Gets the result.
    losses : int
        How many processes were lost with it.
    alone : bool
        Whether it is to have a process for itself.
    began : float
        When a process got it, by that process's watch.
    """

    task: Segment | Chore
    future: Future[Any]
    losses: int = 0
    alone: bool = False
    began: float = 0.0


class JobSource(Protocol):
    """Where a process finds its jobs."""

    def take(self) -> Job | None:
        """Wait for a job for a process that has none; None at the end."""

    def more(self) -> Job | None:
        """Return a job for a process that has others; None where there is none now."""

    def give_back(self, job: Job) -> None:
        """Take a job again that was lost; it comes before all others."""


class WorkerProcess:
    """A process that analyses files, started when first needed and again after it was lost.

    Parameters
    ----------
    settings : AnalyzerSettings
        Its models.
    jobs : JobSource
        Where its work comes from.
    stall : float
        Seconds without a sign of life after which it is ended.
    time_limit : float, optional
        Seconds that one task may take in all.

    One thread calls `serve`; `end` may be called from another meanwhile.
    """

    def __init__(
        self,
        settings: AnalyzerSettings,
        jobs: JobSource,
        stall: float,
        time_limit: float | None = None,
    ) -> None:
        self._settings, self._jobs = settings, jobs
        self._stall, self._limit = stall, time_limit
        self._lock = threading.Lock()  # a process is never made after `end`
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._running: dict[int, Job] = {}  # in the order in which they were sent
        self._decoding: int | None = None
        self._sent = 0

    def serve(self) -> None:
        """Do jobs until there are none any more.

        A job's future gets what the worker answered, an `AudioError` when the file cannot be used,
        a `ModelError` when the models cannot be loaded, and an `AudioSearchError` when the process
        cannot start or is ended meanwhile.
        """
        while (job := self._jobs.take()) is not None:
            try:
                process = self._ready()
            except AudioSearchError as error:
                job.future.set_exception(error)
                continue
            try:
                with _Watch(process, self._stall, self._limit) as watch:
                    try:
                        self._work(process, watch, job)
                    except _LOST:
                        watch.close()
                        self._lose(watch, _epitaph(process))
            except Exception as error:  # nobody may wait for ever for a result
                self.clear()
                self._fail_all(error)

    def end(self) -> None:
        """End the process for good; files in flight fail."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def clear(self) -> None:
        """Close what is left of the process; nobody may be in `serve`."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _work(self, process: subprocess.Popen[bytes], watch: _Watch, job: Job | None) -> None:
        """Do a job, and others as the process comes free, until none is in it."""
        while job is not None or self._running:
            if job is not None:
                self._send(process, watch, job)
            kind, number, value = _receive(process)
            watch.sign()
            if kind == "free":
                self._decoding = None
            elif kind != "alive":
                answered = self._running.pop(number)
                if kind == "done":
                    answered.future.set_result(value)
                elif kind == "failed":
                    answered.future.set_exception(value)
                else:
                    answered.alone = True
                    self._jobs.give_back(answered)
                watch.oldest = next((each.began for each in self._running.values()), None)
            job = None
            if self._decoding is None and not any(each.alone for each in self._running.values()):
                job = self._jobs.more() if self._running else None

    def _send(self, process: subprocess.Popen[bytes], watch: _Watch, job: Job) -> None:
        self._sent += 1
        number = self._decoding = self._sent
        job.began = watch.clock
        self._running[number] = job
        if watch.oldest is None:
            watch.begin()
        assert process.stdin is not None
        pickle.dump((number, job.task), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()

    def _lose(self, watch: _Watch, epitaph: str) -> None:
        """Decide what becomes of the files that a process was lost with."""
        jobs, decoding = self._take_running()
        if self._ended:
            for job in jobs:
                job.future.set_exception(closed_error())
            return
        blamed = None
        if watch.expired is not None and jobs:
            # What is late began first; what gives no sound is being decoded.
            blamed = jobs[0] if watch.is_late or decoding is None else decoding
            how = watch.expired
        elif len(jobs) == 1 and jobs[0].losses + 1 >= _LOSSES:
            blamed, how = jobs[0], epitaph
        if blamed is not None:
            reason = f"Its decoder {how}."
            blamed.future.set_exception(AudioDecodeError(blamed.task.path, reason))
        for job in reversed(jobs):
            if job is not blamed:
                job.losses += 1
                job.alone = job is decoding or job.losses >= _LOSSES
                self._jobs.give_back(job)

    def _fail_all(self, error: Exception) -> None:
        for job in self._take_running()[0]:
            if not job.future.done():
                job.future.set_exception(error)

    def _take_running(self) -> tuple[list[Job], Job | None]:
        jobs = list(self._running.values())
        decoding = None if self._decoding is None else self._running.get(self._decoding)
        self._running, self._decoding = {}, None
        return jobs, decoding

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return a process that waits for a file; one that was lost is replaced."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        for _ in range(_STARTS):
            process = self._try_start()
            if process is not None:
                return process
        raise AudioSearchError(
            "A worker process could not start. Run `python -m audiosearch.jobs.worker` to see "
            "why; reinstalling audiosearch may help."
        )

    def _try_start(self) -> subprocess.Popen[bytes] | None:
        """Start a process and wait for its models; None where it was lost, or took too long."""
        self.clear()
        with self._lock:
            if self._ended:
                raise closed_error()
            self._process = process = _start(self._settings)
        kind, value = "", AudioSearchError()
        with (
            contextlib.suppress(*_LOST),
            _Watch(process, max(self._stall, _START_SECONDS)) as watch,
        ):
            watch.begin()
            assert process.stdin is not None
            pickle.dump(self._settings, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            kind, _, value = _receive(process)
        if kind == "ready":
            return process
        self.clear()
        if kind == "failed":
            raise value
        if self._ended:
            raise closed_error()
        return None


def closed_error() -> AudioSearchError:
    """Return what a job fails with that is given up because its pool is closed."""
    return AudioSearchError("The worker pool was closed before the file was done.")


def _start(settings: AnalyzerSettings) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    # The products of the front end are too small to share out to threads.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    # It imports what this process would, and nothing from the current folder (-P), which may be
    # somebody's collection of sounds.
    places = [*sys.path, str(Path(__file__).resolve().parents[2])]
    environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "audiosearch.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # Ctrl-C reaches the parent alone, which then ends its workers.
            start_new_session=True,
        )
    except OSError as error:
        raise AudioSearchError(
            f"A worker process could not start: {error.strerror or error}. Close other programs, "
            "or use fewer workers."
        ) from error


class _Watch(Closing):
    """Ends a process that gives no sign of life, or works longer than it may.

    Time is counted in steps, so that a pause of this process (Ctrl-Z, a sleeping laptop) counts as
    one step.

    Attributes
    ----------
    clock : float
        Seconds, in steps.
    oldest : float or None
        When the oldest task in the process began; None while it has none.
    expired : str or None
        Why the process was ended, where it was.
    is_late : bool
        Whether it was for the time limit.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], stall: float, limit: float | None = None
    ) -> None:
        self._process, self._stall, self._limit = process, stall, limit
        self.clock = self._last = 0.0
        self.oldest: float | None = None
        self.expired: str | None = None
        self.is_late = False
        self._step = max(_SMALLEST_STEP, min(_STEP_SECONDS, stall / 4, (limit or stall) / 4))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Say that the process has something to do from now on."""
        self._last = self.oldest = self.clock

    def sign(self) -> None:
        """Say that there was a sign of life."""
        self._last = self.clock

    def close(self) -> None:
        """Watch no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._step):
            self.clock += self._step
            oldest = self.oldest
            if oldest is None:
                continue
            if self._limit is not None and self.clock - oldest >= self._limit:
                self.is_late = True
                self.expired = (
                    f"needed more than {self._limit:g} s, the time limit a file, and was stopped"
                )
            elif self.clock - self._last >= self._stall:
                self.expired = f"gave no sound for {self._stall:g} s and was stopped"
            else:
                continue
            self._process.kill()
            return


def _receive(process: subprocess.Popen[bytes]) -> tuple[str, int, Any]:
    assert process.stdout is not None
    message: tuple[str, int, Any] = pickle.load(process.stdout)
    return message


def _epitaph(process: subprocess.Popen[bytes]) -> str:
    """End a process that stopped answering, and say how it was lost."""
    try:
        code = process.wait(timeout=_STEP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return "stopped answering"
    if code >= 0:
        return f"ended unexpectedly (exit code {code})"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        return f"crashed ({name})" + (", or memory ran out" if name == "SIGKILL" else "")
    return f"crashed (signal {-code})"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # Unsent bytes of a task cannot reach a process that is gone.
            with contextlib.suppress(OSError):
                pipe.close()
