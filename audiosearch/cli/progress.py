"""Progress of a long job: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from audiosearch.cli.output import clock, count, warn
from audiosearch.storage import Closing

if TYPE_CHECKING:
    from audiosearch.downloads import DownloadProgress
    from audiosearch.jobs import Progress

__all__ = ["FetchProgress", "JobProgress"]

_LINE_SECONDS = 10.0


class JobProgress(Closing):
    """Shows on stderr how many files are done, how much sound that is, how fast, and what is left.

    Parameters
    ----------
    how : str
        ``"auto"``: a bar on a terminal, else a line now and then; ``"lines"``: lines in any case;
        ``"json"``: an object a line, for programs; ``"none"``: nothing.
    """

    def __init__(self, how: str = "auto") -> None:
        self._began = time.monotonic()
        self._last_line = self._began
        self._last = (-1, -1)
        self._bar: Any = None
        self._task: Any = None
        self._how = how
        if how == "auto":
            self._how = "bar" if sys.stderr.isatty() else "lines"

    def __call__(self, progress: Progress) -> None:
        """Take the state of the job."""
        now = time.monotonic()
        if self._how == "bar":
            self._draw(progress)
        elif self._how == "lines" and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            left = progress.time_left(now - self._began)
            rest = "" if left is None else f", {clock(left)} left"
            warn(
                f"{progress.done:,} of {count(progress.total, 'file')}, {self._facts(progress)}"
                f"{rest}"
            )
        elif self._how == "json":
            state = (progress.done, progress.total)
            # Each commit, and every second in between.
            if state != self._last or now - self._last_line >= 1:
                self._last, self._last_line = state, now
                warn(json.dumps(self._values(progress)))

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _values(self, progress: Progress) -> dict[str, Any]:
        elapsed = max(time.monotonic() - self._began, 1e-6)
        left = progress.time_left(elapsed)
        return {
            "done": progress.done,
            "total": progress.total,
            "earlier": progress.earlier,
            "skipped": progress.skipped,
            "seconds": progress.seconds,
            "elapsed": round(elapsed, 3),
            "x_real_time": round(progress.seconds / elapsed, 1),
            "seconds_left": None if left is None else round(left, 1),
        }

    def _facts(self, progress: Progress) -> str:
        elapsed = max(time.monotonic() - self._began, 1e-6)
        return (
            f"{clock(progress.seconds)} of audio, "
            f"{progress.seconds / elapsed:,.0f} x real time, {progress.skipped:,} skipped"
        )

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        left = progress.time_left(max(time.monotonic() - self._began, 1e-6))
        rest = "" if left is None else f", {clock(left)} left"
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            description=self._facts(progress) + rest,
        )


class FetchProgress(Closing):
    """Shows on stderr how much of a download has come."""

    def __init__(self) -> None:
        self._last_line = time.monotonic()
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._terminal = sys.stderr.isatty()

    def __call__(self, progress: DownloadProgress) -> None:
        """Take the state of a download."""
        if self._terminal:
            self._draw(progress)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            of = "" if progress.total is None else f" of {progress.total / 1e6:,.0f}"
            warn(f"{progress.name}: {progress.done / 1e6:,.0f}{of} MB")

    def step(self, sentence: str) -> None:
        """Say what is done next."""
        self.close()
        warn(sentence)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()

    def _draw(self, progress: DownloadProgress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        if progress.name not in self._tasks:
            self._tasks[progress.name] = self._bar.add_task(progress.name, total=None)
        self._bar.update(self._tasks[progress.name], completed=progress.done, total=progress.total)
