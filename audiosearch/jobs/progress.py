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
        Seconds of sound in what is done.
    skipped : int
        How many of them were skipped.
    """

    done: int
    total: int
    seconds: float
    skipped: int
