"""Folding: recordings that are copies of one another stand once on a page.

Files of equal content are analysed to equal results, to the bit. So copies are told from what the
library holds already, and no file is read: equal search vectors and equal scores of all classes,
clip by clip, equal length, and, of sound files, equal size. That also folds rows of two packed
files, and files that are no longer there.

Copies match a query alike, unless it asks for paths. So all but one of those that match are taken
out of what is searched, as if they had been removed, and every total and every page is right.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.labels import CLASS_COUNT
from audiosearch.library.block_view import stored_block
from audiosearch.library.blocks import Block, Rows
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.matching import Masks, match
from audiosearch.library.snapshot import Part, Snapshot
from audiosearch.query import All, Either, Node, Not, ScoreFilter, Term

__all__ = ["Copies", "Folding", "fingerprints"]

_CHUNK = 1 << 16
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Copies:
    """Recordings of a snapshot that have copies.

    Attributes
    ----------
    groups : tuple of tuple of int
        The catalogue's numbers of recordings that are copies of one another, in the order of their
        clips.
    first_clips, clips : dict
        By number the first clip of each, and how many clips it has.
    """

    groups: tuple[tuple[int, ...], ...]
    first_clips: dict[int, int]
    clips: dict[int, int]


@dataclass(frozen=True)
class Folded:
    """What is searched when copies are folded.

    Attributes
    ----------
    parts : tuple of Part
        The snapshot's, without all but one of the copies that match.
    copies : dict
        By the number of that one the numbers of the others.
    """

    parts: tuple[Part, ...]
    copies: dict[int, tuple[int, ...]]


class Folding:
    """Folds copies in the answers of one library; safe to use from several threads.

    Parameters
    ----------
    catalogue : Catalogue
        The library's.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._prints: weakref.WeakKeyDictionary[Block, _Prints] = weakref.WeakKeyDictionary()
        self._now: Snapshot | None = None
        self._copies = Copies((), {}, {})
        self._plain = Folded((), {})

    def copies(self, now: Snapshot) -> Copies:
        """Return which recordings of a snapshot have copies; kept until it changes."""
        with self._lock:
            if self._now is not now:
                self._copies = self._found(now)
                first = {group[0]: group[1:] for group in self._copies.groups}
                self._plain = _without(now, self._copies, first)
                self._now = now
            return self._copies

    def fold(self, now: Snapshot, node: Node, masks: Masks) -> Folded:
        """Return what of a snapshot is to be searched for a query so that copies stand once."""
        copies = self.copies(now)
        with self._lock:
            plain = self._plain if self._now is now else None
        if plain is not None and _sounds_only(node):
            return plain
        found = _matching(now, node, masks, copies)
        shown = {}
        for group in copies.groups:
            here = [number for number in group if number in found]
            if len(here) > 1:
                shown[here[0]] = tuple(here[1:])
        return _without(now, copies, shown)

    def _found(self, now: Snapshot) -> Copies:
        """Look for recordings that are equal in all that the library holds of them."""
        prints = []
        for part in now.parts:
            stored = stored_block(part.block)  # a label changes no search vector
            known = self._prints.get(stored)
            if known is None:
                known = self._prints[stored] = _prints(stored)
            prints.append(known if part.removed is None else known.only(part.removed.live))
        if not prints:
            return Copies((), {}, {})
        values = np.concatenate([each.values for each in prints])
        order = np.argsort(values, kind="stable")
        same = np.flatnonzero(np.diff(values[order]) == 0)
        places = np.unique(order[np.concatenate([same, same + 1])])
        numbers, first_clips, clips = {}, {}, {}
        contents: dict[int, bytes] = {}
        stop = 0
        for part, each in zip(now.parts, prints, strict=True):
            start, stop = stop, stop + len(each.values)
            here = places[(places >= start) & (places < stop)] - start
            for at, content in zip(here.tolist(), _contents(part.block, each, here), strict=True):
                number = int(each.numbers[at])
                contents[number] = content
                numbers[number] = start + at
                first_clips[number] = int(part.block.clip_ids(each.starts[at : at + 1])[0])
                clips[number] = int(each.clips[at])
        groups: dict[object, list[int]] = defaultdict(list)
        for number, facts in self._catalogue.sizes(contents).items():
            groups[contents[number], facts].append(number)
        kept = [sorted(group, key=numbers.__getitem__) for group in groups.values()]
        kept = sorted((group for group in kept if len(group) > 1), key=lambda g: numbers[g[0]])
        members = {number for group in kept for number in group}
        return Copies(
            tuple(tuple(group) for group in kept),
            {number: first for number, first in first_clips.items() if number in members},
            {number: count for number, count in clips.items() if number in members},
        )


@dataclass(frozen=True)
class _Prints:
    """One number for the search vectors of each recording of a block; arrays (recordings,).

    Different recordings may, very rarely, have one number; equal ones always have.
    """

    numbers: npt.NDArray[np.uint32]
    starts: Rows
    clips: Rows
    values: npt.NDArray[np.uint64]

    def only(self, live: npt.NDArray[np.bool_]) -> _Prints:
        """Return those of the recordings that still exist."""
        kept = live[self.starts]
        return _Prints(self.numbers[kept], self.starts[kept], self.clips[kept], self.values[kept])


def fingerprints(block: Block) -> tuple[Rows, npt.NDArray[np.uint64]]:
    """Return where the recordings of a block begin, and a number of each one's search vectors."""
    prints = _prints(block)
    return prints.starts, prints.values


def _prints(block: Block) -> _Prints:
    starts = np.flatnonzero(np.diff(block.recordings, prepend=np.uint32(0)))  # they count from 1
    clips = np.diff(starts, append=block.rows)
    factors = np.random.default_rng(0).integers(1, 2**64, 16, np.uint64, endpoint=False) | 1
    rows = np.empty(block.rows, np.uint64)
    for start in range(0, block.rows, _CHUNK):
        words = np.ascontiguousarray(block.vectors[start : start + _CHUNK]).view(np.uint64)
        mixed = (words * factors).sum(axis=1, dtype=np.uint64)
        rows[start : start + _CHUNK] = (mixed ^ (mixed >> np.uint64(29))) * _MIX
    place = np.arange(block.rows) - np.repeat(starts, clips)
    rows *= (place.astype(np.uint64) * _MIX) | np.uint64(1)
    values = np.add.reduceat(rows, starts) if len(starts) else rows
    return _Prints(np.asarray(block.recordings)[starts], starts, clips, values)


def _contents(block: Block, prints: _Prints, places: Rows) -> list[bytes]:
    """Return for some recordings of a block a digest of their vectors and scores."""
    if not len(places):
        return []
    counts = prints.clips[places]
    ends = np.cumsum(counts)
    run = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    rows = np.repeat(prints.starts[places], counts) + run
    codes = np.stack([block.column(number)[rows] for number in range(CLASS_COUNT)], axis=1)
    whole = np.concatenate([np.asarray(block.vectors[rows]).view(np.uint8), codes], axis=1)
    return [
        hashlib.blake2b(whole[end - count : end].tobytes(), digest_size=16).digest()
        for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
    ]


def _sounds_only(node: Node) -> bool:
    """Tell whether copies match a query alike, because it asks for nothing but sounds."""
    if isinstance(node, All | Either):
        return all(_sounds_only(part) for part in node.parts)
    if isinstance(node, Not):
        return _sounds_only(node.part)
    return isinstance(node, Term | ScoreFilter)


def _matching(now: Snapshot, node: Node, masks: Masks, copies: Copies) -> set[int]:
    """Return which of the recordings that have copies match a query."""
    found: set[int] = set()
    for number, numbers in _by_part(now, copies, list(copies.first_clips)).items():
        block = now.parts[number].block
        rows, counts = _rows_of(block, copies, numbers)
        matched = np.logical_or.reduceat(
            match(node, block, rows, masks=masks).found, np.cumsum(counts) - counts
        )
        found.update(np.array(numbers)[matched].tolist())
    return found


def _without(now: Snapshot, copies: Copies, shown: dict[int, tuple[int, ...]]) -> Folded:
    """Return the parts of a snapshot without those that are folded into the ones shown."""
    hidden = [number for others in shown.values() for number in others]
    parts = list(now.parts)
    for place, numbers in _by_part(now, copies, hidden).items():
        parts[place] = parts[place].without(_rows_of(parts[place].block, copies, numbers)[0])
    return Folded(tuple(parts), shown)


def _by_part(now: Snapshot, copies: Copies, numbers: list[int]) -> dict[int, list[int]]:
    """Return recordings by the place of the part that holds them."""
    result: dict[int, list[int]] = {}
    firsts = np.array([copies.first_clips[number] for number in numbers], np.int64)
    for place, part in enumerate(now.parts):
        here = np.flatnonzero((firsts >= part.block.first) & (firsts < part.block.stop))
        if len(here):
            result[place] = [numbers[at] for at in here.tolist()]
    return result


def _rows_of(block: Block, copies: Copies, numbers: list[int]) -> tuple[Rows, Rows]:
    """Return the rows of recordings, one recording after another, and how many each has."""
    starts = block.rows_of(np.array([copies.first_clips[n] for n in numbers], np.int64))
    counts = np.array([copies.clips[n] for n in numbers], np.int64)
    ends = np.cumsum(counts)
    run = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    return np.repeat(starts, counts) + run, counts
