"""Inputs of a job, and what became of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "Item", "Totals", "entry_of", "plan_row"]


@dataclass(frozen=True)
class Item:
    """An input of a job.

    Attributes
    ----------
    name : str
        The file as the user named it; outputs show this.
    size, mtime_ns : int
        Of the file when it was found; 0 where it has a problem.
    start, end : float
        The part that is asked for, in seconds; `end` None is the file's end.
    problem : str or None
        Why the file or folder could not even be looked at.
    """

    name: str
    size: int = 0
    mtime_ns: int = 0
    start: float = 0.0
    end: float | None = None
    problem: str | None = None

    @property
    def key(self) -> bytes:
        """What the file is known by, wherever the job is started from."""
        path = os.path.abspath(os.fsencode(self.name))  # noqa: PTH100 - bytes
        if self.start == 0 and self.end is None:
            return path
        return path + f"\0{self.start!r}\0{self.end!r}".encode()


@dataclass(frozen=True)
class Entry:
    """What became of an input: a result, or a reason why there is none.

    Attributes
    ----------
    item : Item
        The input.
    seconds : float
        Seconds of sound that were read.
    result : bytes or None
        As the job made it.
    reason : str or None
        Why the file was skipped.
    extras : str
        Names of the additional things that were done with the result, each followed by a blank.
    place : int
        The input's place in the plan; -1 where it did not come from a journal.
    """

    item: Item
    seconds: float = 0.0
    result: bytes | None = None
    reason: str | None = None
    extras: str = ""
    place: int = -1


@dataclass(frozen=True)
class Totals:
    """Counts over the plan, and sizes in bytes.

    `done` counts those skipped too, and `skipped` those that could not even be looked at, which are
    the `problems`.
    """

    inputs: int
    done: int
    skipped: int
    problems: int
    size: int
    size_done: int


def plan_row(item: Item) -> tuple[object, ...]:
    """Return an input as a row of a journal's plan: place, name, key, and the rest."""
    name = os.fsencode(item.name)
    # A zero byte sorts before everything, so a folder's files stand together, as in a listing.
    place = name.replace(os.sep.encode(), b"\0")
    times = (item.size, item.mtime_ns, item.start, item.end)
    return (place, name, item.key, *times, item.problem)


def entry_of(row: tuple[Any, ...]) -> Entry:
    """Return a row of a journal as an entry."""
    place, name, size, mtime_ns, start, stop, problem, seconds, result, reason, extras = row
    item = Item(os.fsdecode(name), size, mtime_ns, start, stop, problem)
    return Entry(item, seconds or 0.0, result, problem or reason, extras or "", place)
