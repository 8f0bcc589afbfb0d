"""What is no score in a query: path and length of recordings, the user's labels of clips.

Ranking knows scores only. A filter holds or does not hold for a whole recording, or for a clip;
here it becomes a mask of the rows of a block, which ranking takes as it takes NOT.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audiosearch.library.blocks import Block
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.corrections import Corrections
from audiosearch.library.matching import in_range
from audiosearch.library.runs import distinct
from audiosearch.library.snapshot import Snapshot
from audiosearch.query import Confirmed, DurationFilter, OwnLabel, PathFilter, YearFilter

__all__ = ["Facts", "Filters", "Paths", "matching", "years_of"]

_MOST_TEXTS = 64

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Facts:
    """What filters ask about recordings, read when they first ask.

    Recordings are only ever added, so what was read is kept; one that was removed does no harm, as
    no clip of it is looked at.

    Parameters
    ----------
    catalogue : Catalogue
        Where the facts are.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._changes = {"paths": -1, "seconds": -1, "times": -1}
        self._moves = -1
        self._paths = Paths()
        self._seconds = np.empty(0, np.int64), np.empty(0, np.float64)
        self._times = self._seconds

    def paths(self, now: Snapshot) -> Paths:
        """Return the paths of all recordings of a snapshot, as hits show them."""
        with self._lock:
            if self._moves != now.lengths["moves"]:
                self._moves, self._paths = now.lengths["moves"], Paths()
                self._changes["paths"] = -1
            if self._changes["paths"] != now.changes:
                known = self._paths.ids
                ids, names = self._catalogue.names(int(known[-1]) if len(known) else 0)
                self._paths = self._paths.extended(ids, names)
                self._changes["paths"] = now.changes
            return self._paths

    def seconds(self, now: Snapshot) -> tuple[Ids, npt.NDArray[np.float64]]:
        """Return numbers, ascending, and lengths of all recordings of a snapshot."""
        with self._lock:
            if self._changes["seconds"] != now.changes:
                ids, seconds = self._seconds
                new = self._catalogue.lengths_in_seconds(int(ids[-1]) if len(ids) else 0)
                self._seconds = np.concatenate([ids, new[0]]), np.concatenate([seconds, new[1]])
                self._changes["seconds"] = now.changes
            return self._seconds

    def times(self, now: Snapshot) -> tuple[Ids, npt.NDArray[np.float64]]:
        """Return numbers, ascending, and the time of the last change of all recordings' files.

        In seconds since 1970, UTC; NaN for rows of packed files, which have no time of their own.
        """
        with self._lock:
            if self._changes["times"] != now.changes:
                ids, times = self._times
                new = self._catalogue.times(int(ids[-1]) if len(ids) else 0)
                self._times = np.concatenate([ids, new[0]]), np.concatenate([times, new[1]])
                self._changes["times"] = now.changes
            return self._times


class Paths:
    """The paths of many recordings, searched as one text.

    Parameters
    ----------
    ids : int64 (recordings,), optional
        Their numbers, ascending.
    texts : sequence of str
        Their paths as a filter compares them, one after another, each between two NULs.
    starts : int64 (recordings,), optional
        Where each begins in all texts.
    """

    def __init__(
        self,
        ids: Ids | None = None,
        texts: Sequence[str] = (),
        starts: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.ids = np.empty(0, np.int64) if ids is None else ids
        self._texts = texts
        self._starts = np.empty(0, np.int64) if starts is None else starts

    def extended(self, ids: Ids, names: Sequence[str]) -> Paths:
        """Return these paths and those of more recordings."""
        if not len(ids):
            return self
        plain = [_plain_path(name.replace("\0", "")) for name in names]
        text = "\0" + "\0".join(plain) + "\0"
        lengths = np.fromiter(map(len, plain), np.int64, len(plain)) + 1
        before = sum(map(len, self._texts))
        starts = before + 1 + np.cumsum(lengths) - lengths
        texts = [*self._texts, text]
        if len(texts) > _MOST_TEXTS:
            # Joined where one ends with the NUL with which the next begins: both are kept.
            texts = ["".join(texts)]
        return Paths(np.concatenate([self.ids, ids]), texts, np.concatenate([self._starts, starts]))

    def holding(self, text: str) -> Ids:
        """Return at which places, ascending, there are paths that hold a text."""
        found, offset = [], 0
        for all_paths in self._texts:
            # Splitting is the fastest way of finding all places of a text.
            pieces = np.fromiter(map(len, all_paths.split(text)), np.int64) + len(text)
            places = offset - len(text) + np.cumsum(pieces)[:-1]
            found.append(np.searchsorted(self._starts, places, side="right") - 1)
            offset += len(all_paths)
        return distinct(np.concatenate(found)) if found else np.empty(0, np.int64)

    def path(self, place: int) -> str:
        """Return the path at a place, as a filter compares it."""
        start = int(self._starts[place])
        for text in self._texts:
            if start < len(text):
                return text[start : text.index("\0", start)]
            start -= len(text)
        raise IndexError(place)


class Filters:
    """Answers the filters of one query.

    Parameters
    ----------
    facts : Facts
        About the recordings of the library.
    now : Snapshot
        What is searched.
    corrections : Corrections
        The user's labels.
    """

    def __init__(self, facts: Facts, now: Snapshot, corrections: Corrections) -> None:
        self._facts = facts
        self._now = now
        self._corrections = corrections
        self._clips: dict[object, Ids] = {}
        self._held: dict[object, tuple[Ids, Mask]] = {}

    def __call__(self, node: object, block: Block) -> Mask:
        """Return for which rows of a block a filter holds, bool (rows,)."""
        if isinstance(node, Confirmed | OwnLabel):
            return self._labelled(node, block)
        if node not in self._held:
            self._held[node] = self._answer(node)
        ids, held = self._held[node]
        if not len(held):
            return np.zeros(block.rows, np.bool_)
        # A recording that was removed a moment ago has no facts any more.
        place = _places(ids, block.recordings)
        return held[place] & (ids[place] == block.recordings)

    def _answer(self, node: object) -> tuple[Ids, Mask]:
        """Return numbers of recordings, and for which of them a filter holds."""
        if isinstance(node, PathFilter):
            paths = self._facts.paths(self._now)
            held = np.zeros(len(paths.ids), np.bool_)
            held[matching(paths, node.text)] = True
            return paths.ids, held
        if isinstance(node, DurationFilter):
            ids, seconds = self._facts.seconds(self._now)
            return ids, in_range(seconds, node.seconds)
        if isinstance(node, YearFilter):
            ids, times = self._facts.times(self._now)
            return ids, in_range(years_of(times), node.years)
        raise TypeError(f"{node!r} is no filter")

    def _labelled(self, node: Confirmed | OwnLabel, block: Block) -> Mask:
        if node not in self._clips:
            self._clips[node] = self._corrections.clips(node)
        clips = self._clips[node]
        mask = np.zeros(block.rows, np.bool_)
        rows = block.rows_of(clips[(clips >= block.first) & (clips < block.stop)])
        mask[rows[rows >= 0]] = True  # the others were removed
        return mask


def _places(ids: Ids, wanted: npt.NDArray[np.uint32]) -> Ids:
    """Return where in ascending numbers each wanted one would stand, or the place beside it."""
    first, last = int(ids[0]), int(ids[-1])
    if last - first + 1 == len(ids):  # without gaps the number says where
        return np.clip(wanted, first, last).astype(np.int64) - first
    return np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)


def years_of(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the years, UTC, of times in seconds since 1970; NaN where there is none."""
    known = np.isfinite(times)
    days = np.where(known, times, 0.0).astype("datetime64[s]")
    return np.where(known, days.astype("datetime64[Y]").astype(np.int64) + 1970.0, np.nan)


def matching(paths: Paths, text: str) -> Ids:
    """Return the places, ascending, of the paths that a filter of this text wants."""
    wanted = _plain_path(text)
    if "\0" in wanted or not wanted:
        return np.empty(0, np.int64)
    if "*" not in wanted and "?" not in wanted:
        return paths.holding(wanted)
    first, *rest = re.split(r"[*?]+", wanted)
    if not first and len(rest) == 1 and "?" not in wanted:  # "*.wav", the commonest of all
        return paths.holding(rest[0] + "\0") if rest[0] else np.arange(len(paths.ids))
    # Only what holds the longest part of the pattern is compared with all of it.
    part = max(first, *rest, key=len)
    among = paths.holding(part) if part else np.arange(len(paths.ids))
    # fnmatch also knows sets in square brackets, which are common in file names.
    literal = wanted.replace("[", "[[]")
    pattern = re.compile(f"(?:.*/)?{fnmatch.translate(literal)}", re.DOTALL)
    matches = [pattern.match(paths.path(place)) is not None for place in among.tolist()]
    return among[np.array(matches, np.bool_)]


def _plain_path(path: str) -> str:
    return path.replace("\\", "/").casefold()
