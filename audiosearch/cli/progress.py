"""Progress of a long job: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from audiosearch.cli.output import count, warn
from audiosearch.storage import Closing

if TYPE_CHECKING:
    from audiosearch.jobs import Progress

__all__ = ["IndexProgress"]

_LINE_SECONDS = 10.0


class IndexProgress(Closing):
    """Shows on stderr how many files are done, how much sound that is, and how fast it goes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last_line = self._began
        self._bar: Any = None
        self._task: Any = None
        self._terminal = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        """Take the state of the job."""
        if self._terminal:
            self._draw(progress)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            warn(f"{progress.done:,} of {count(progress.total, 'file')}, {self._facts(progress)}")

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _facts(self, progress: Progress) -> str:
        elapsed = max(time.monotonic() - self._began, 1e-6)
        return (
            f"{progress.seconds / 3600:.1f} hours of audio, "
            f"{progress.seconds / elapsed:,.0f} x real time, {progress.skipped:,} skipped"
        )

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            description=self._facts(progress),
        )
