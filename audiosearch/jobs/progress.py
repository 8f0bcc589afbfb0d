"""How far a job is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


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
