"""How far a job is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Meter", "Progress"]


@dataclass(frozen=True)
class Progress:
    """State of a job; only what is safely on disk counts as done.

    Attributes
    ----------
    done : int
        Files (or rows of a packed file) done, those skipped included.
    total : int
        How many there are.
    seconds : float
        Seconds of sound in what this run did.
    skipped : int
        How many of those done were skipped.
    earlier : int
        How many of those done an earlier run did.
    share : float or None
        How much of this run's work is done, from 0 to 1, where it is known better than by the
        number of files: by their sizes.
    """

    done: int
    total: int
    seconds: float
    skipped: int
    earlier: int = 0
    share: float | None = None

    def time_left(self, elapsed: float) -> float | None:
        """Return the seconds left after `elapsed` seconds of this run; None where nobody knows."""
        work = self.total - self.earlier
        share = self.share
        if share is None:
            share = (self.done - self.earlier) / work if work else 1.0
        return elapsed * (1 - share) / share if share > 0 else None


class Meter:
    """Counts what a job has committed, and says so.

    Parameters
    ----------
    on_progress : callable, optional
        Called with a `Progress` at each change.
    """

    def __init__(self, on_progress: Callable[[Progress], None] | None = None) -> None:
        self._on_progress = on_progress
        self._done = self._total = self._skipped = self._earlier = 0
        self._size = self._work = 0
        self._sizes_known = True
        self.seconds = 0.0
        """Seconds of sound that this run did."""

    def expect(
        self, count: int, *, size: int | None = None, earlier: int = 0, skipped: int = 0
    ) -> None:
        """Say that there is more to do.

        Parameters
        ----------
        count : int
            Files or rows to do.
        size : int, optional
            Of these files, in bytes; the time left follows it where it is known of all.
        earlier : int
            Files or rows that an earlier run did.
        skipped : int
            How many of those it skipped.
        """
        self._total += count + earlier
        self._done += earlier
        self._earlier += earlier
        self._skipped += skipped
        self._work += size or 0
        self._sizes_known = self._sizes_known and size is not None
        self.tell()

    def add(self, count: int, *, skipped: int = 0, seconds: float = 0.0, size: int = 0) -> None:
        """Say that `count` more are done and safe, those skipped included."""
        self._done += count
        self._skipped += skipped
        self.seconds += seconds
        self._size += size
        self.tell()

    def tell(self) -> None:
        """Say how far the job is."""
        if self._on_progress is None:
            return
        by_size = self._sizes_known and self._work > 0
        self._on_progress(
            Progress(
                self._done,
                self._total,
                round(self.seconds, 3),
                self._skipped,
                earlier=self._earlier,
                share=self._size / self._work if by_size else None,
            )
        )
