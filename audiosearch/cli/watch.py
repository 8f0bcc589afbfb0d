"""``audiosearch index --watch``: what it says while it goes on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_OK, interrupted
from audiosearch.cli.output import warn
from audiosearch.cli.progress import JobProgress
from audiosearch.errors import AudioSearchError, printable

if TYPE_CHECKING:
    from audiosearch.jobs import Progress
    from audiosearch.library.indexing import IndexSummary

__all__ = ["watched"]


def watched(
    sources: Sequence[Path],
    folder: Path,
    options: dict[str, Any],
    show: Callable[[IndexSummary], None],
    how: str = "auto",
) -> int:
    """Watch until Ctrl-C or SIGTERM; return the exit code.

    Parameters
    ----------
    sources, folder, options
        What to index, the library, and further arguments of `audiosearch.watch`.
    show : callable
        Prints the summary of a run.
    how : str
        How progress is shown, as `JobProgress` takes it.
    """
    import audiosearch as aus

    progress = _Progress(how)
    began = False

    def on_run(summary: IndexSummary) -> None:
        nonlocal began
        progress.close()
        show(summary)
        if not began:
            began = True
            names = ", ".join(printable(str(source)) for source in sources)
            warn(f"Watching {names} (Ctrl-C stops it).")
        sys.stdout.flush()

    def on_error(error: AudioSearchError) -> None:
        progress.close()
        warn(f"Not indexed: {error} It is tried again.")

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        aus.watch(
            sources, folder, on_run=on_run, on_error=on_error, on_progress=progress, **options
        )
    except KeyboardInterrupt:
        if not began:
            return interrupted("Interrupted. What was done is kept; run the same command to go on.")
        click.echo("Stopped watching. What was done is kept.", err=True)
    finally:
        progress.close()
        signal.signal(signal.SIGTERM, previous)
    return EXIT_OK


class _Progress:
    """The progress of one run after the other."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._shown: JobProgress | None = None

    def __call__(self, progress: Progress) -> None:
        if self._shown is None:
            self._shown = JobProgress(self._how)
        self._shown(progress)

    def close(self) -> None:
        """End the run that is shown."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None
