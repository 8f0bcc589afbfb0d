"""One worker process, seen from the side that gives it files; see `audiosearch.jobs.worker`."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from audiosearch.errors import AudioDecodeError, AudioSearchError
from audiosearch.jobs.analysis import AnalyzerSettings, Chore, Segment

__all__ = ["WorkerProcess"]

_START_SECONDS = 120.0  # loading the models, on a machine that is busy
_TRIES = 2  # a crash may be bad luck: memory ran out, someone ended the process
_STEP_SECONDS = 1.0

# What a pipe whose other end is gone raises, in the middle of a message or between two.
_LOST = (EOFError, OSError, pickle.UnpicklingError)


class WorkerProcess:
    """A process that analyses files, started when first needed and again after it was lost.

    Parameters
    ----------
    settings : AnalyzerSettings
        Its models.
    stall : float
        Seconds without a sign of life after which it is ended.
    time_limit : float, optional
        Seconds that one task may take in all.

    One thread at a time may call `run`; `end` may be called from another meanwhile.
    """

    def __init__(
        self, settings: AnalyzerSettings, stall: float, time_limit: float | None = None
    ) -> None:
        self._settings = settings
        self._stall = stall
        self._limit = time_limit
        self._lock = threading.Lock()  # a process is never made after `end`
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, task: str | Segment | Chore) -> Any:
        """Analyse one file or a part of one, or do a chore; return what the worker answered.

        Raises
        ------
        AudioError
            When the file cannot be used; also when its decoder crashed or hung.
        ModelError
            When the models cannot be loaded.
        AudioSearchError
            When the process cannot start, or is ended meanwhile.
        """
        for tries in range(1, _TRIES + 1):
            try:
                kind, value = _ask(self._ready(), task, self._stall, self._limit)
            except _LostError as lost:
                self._check()
                # What hung once will hang again, and that takes minutes.
                if lost.stalled or tries == _TRIES:
                    path = task if isinstance(task, str) else task.path
                    raise AudioDecodeError(path, f"Its decoder {lost}.") from None
            else:
                break
        if kind == "failed":
            raise value
        return value

    def end(self) -> None:
        """End the process for good; a file in flight fails."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def clear(self) -> None:
        """Close what is left of the process; nobody may be in `run`."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _check(self) -> None:
        if self._ended:
            raise AudioSearchError("The worker pool was closed before the file was done.")

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return a process that waits for a file; one that was lost is replaced."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.clear()
        with self._lock:
            self._check()
            self._process = process = _start(self._settings)
        try:
            kind, value = _ask(process, self._settings, max(self._stall, _START_SECONDS))
        except _LostError:
            self.clear()
            self._check()
            raise AudioSearchError(
                "A worker process could not start. Run `python -m audiosearch.jobs.worker` to see "
                "why; reinstalling audiosearch may help."
            ) from None
        if kind == "failed":
            self.clear()
            raise value
        return process


class _LostError(Exception):
    """A process ended, or was ended, in the middle of something; the text says how."""

    def __init__(self, how: str, *, stalled: bool) -> None:
        super().__init__(how)
        self.stalled = stalled


def _start(settings: AnalyzerSettings) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    # One thread a process: the workers share the cores among themselves.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(settings.threads)
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


def _ask(
    process: subprocess.Popen[bytes], task: Any, patience: float, limit: float | None = None
) -> tuple[str, Any]:
    """Send a task and return the answer; end a process that gives no sign of life.

    So is one that works longer than `limit` seconds.
    """
    began = time.monotonic()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(task, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
    except _LOST:
        raise _LostError(_epitaph(process), stalled=False) from None
    while True:
        answered, stalled = threading.Event(), threading.Event()
        wait, late = patience, False
        if limit is not None:
            left = began + limit - time.monotonic()
            wait, late = min(patience, max(left, 0.01)), left < patience
        watch = threading.Thread(
            target=_watch, args=(process, wait, answered, stalled), daemon=True
        )
        watch.start()
        try:
            kind, value = pickle.load(process.stdout)
        except _LOST:
            if stalled.is_set():
                how = f"gave no sound for {patience:g} s and was stopped"
                if late:
                    how = f"needed more than {limit:g} s, the time limit a file, and was stopped"
                raise _LostError(how, stalled=True) from None
            raise _LostError(_epitaph(process), stalled=False) from None
        finally:
            answered.set()
        if kind != "alive":
            return kind, value


def _watch(
    process: subprocess.Popen[bytes],
    patience: float,
    answered: threading.Event,
    stalled: threading.Event,
) -> None:
    # In steps, so that a pause of this process (Ctrl-Z, a sleeping laptop) counts as one step.
    step = min(_STEP_SECONDS, patience / 4)
    for _ in range(math.ceil(patience / step)):
        if answered.wait(step):
            return
    stalled.set()
    process.kill()


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
