"""What a library holds, in numbers: lengths, folders, years, classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audiosearch.library.library import Library

__all__ = ["LENGTHS", "Share", "Statistics", "statistics"]

LENGTHS = (
    ("under 1 s", 0.0, 1.0),
    ("1 to 5 s", 1.0, 5.0),
    ("5 to 10 s", 5.0, 10.0),
    ("10 to 30 s", 10.0, 30.0),
    ("30 s to 1 min", 30.0, 60.0),
    ("1 to 5 min", 60.0, 300.0),
    ("5 to 30 min", 300.0, 1800.0),
    ("30 min and longer", 1800.0, float("inf")),
)
"""Name of each class of length, and from where up to where it goes, in seconds."""

_MOST_FOLDERS, _MOST_CLASSES = 20, 25


@dataclass(frozen=True)
class Share:
    """A part of a library: its name, and how much of the library it is.

    Attributes
    ----------
    name : str
        A class, a folder, a year, or a length.
    recordings : int
        How many.
    seconds : float or None
        How long they are together; None of a class, which is heard in parts of them.
    own : bool
        Whether it is a class of the user's own.
    """

    name: str
    recordings: int
    seconds: float | None
    own: bool = False


@dataclass(frozen=True)
class Statistics:
    """A library in numbers.

    Attributes
    ----------
    recordings, clips : int
        How many.
    seconds, mean, median, longest : float
        All together, and of a recording.
    classes : list of Share
        The classes that a search finds most often, most first.
    folders : list of Share
        Those with most sound, most first; a recording without a file is in none.
    years : list of Share
        When files were changed last, the newest year first.
    lengths : list of Share
        From short to long, see `LENGTHS`.
    """

    recordings: int
    clips: int
    seconds: float
    mean: float
    median: float
    longest: float
    classes: list[Share]
    folders: list[Share]
    years: list[Share]
    lengths: list[Share]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def statistics(library: Library) -> Statistics:
    """Count what a library holds.

    Raises
    ------
    LibraryBusyError
        When another process keeps the catalogue locked.
    LibraryDamagedError
        When a file of the library is missing or broken.
    """
    held = library.catalogue.lengths_and_times()
    seconds = held.seconds
    classes = [each for each in library.class_counts() if each.index is not None]
    classes.sort(key=lambda each: -each.recordings)
    return Statistics(
        recordings=len(seconds),
        clips=library.snapshot().live_clips,
        seconds=round(float(seconds.sum()), 3),
        mean=round(float(seconds.mean()), 3) if len(seconds) else 0.0,
        median=round(float(np.median(seconds)), 3) if len(seconds) else 0.0,
        longest=round(float(seconds.max(initial=0.0)), 3),
        classes=[
            Share(each.label, each.recordings, None, each.own_classifier is not None)
            for each in classes[:_MOST_CLASSES]
            if each.recordings
        ],
        folders=_folders(library, held.ids, seconds),
        years=[
            _share(str(year), seconds[held.years == year])
            for year in sorted(set(held.years.tolist()) - {0}, reverse=True)
        ],
        lengths=[
            _share(name, seconds[(seconds >= low) & (seconds < high)])
            for name, low, high in LENGTHS
        ],
    )


def _folders(library: Library, ids: np.ndarray, seconds: np.ndarray) -> list[Share]:
    known, shown = library.catalogue.names(0)
    lengths = dict(zip(ids.tolist(), seconds.tolist(), strict=True))
    totals: dict[str, list[float]] = {}
    for number, name in zip(known.tolist(), shown, strict=True):
        folder, slash, _ = name.replace("\\", "/").rpartition("/")
        if slash:
            total = totals.setdefault(folder or "/", [0, 0.0])
            total[0] += 1
            total[1] += lengths.get(number, 0.0)
    best = sorted(totals.items(), key=lambda item: (-item[1][1], item[0]))[:_MOST_FOLDERS]
    return [Share(name, int(count), round(total, 3)) for name, (count, total) in best]


def _share(name: str, seconds: np.ndarray) -> Share:
    return Share(name, len(seconds), round(float(seconds.sum()), 3))
