"""Clips compared with a probe one by one: exact, and slower the more there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from audiosearch.library.likeness import Floats, Probe, Traits, clip_probe, traits_in, traits_of
from audiosearch.library.snapshot import Part, Snapshot

__all__ = [
    "Clips",
    "best_first",
    "exact_nearest",
    "is_among",
    "largest",
    "likeness_of",
    "live_mask",
    "live_traits",
    "nth_live",
    "same_below",
]

_CHUNK = 1 << 16

Clips = npt.NDArray[np.int64]


def live_traits(parts: Sequence[Part], first: int) -> Iterator[tuple[Clips, Traits]]:
    """Give the clips from number `first` on that exist, and their traits, in chunks."""
    for part in parts:
        block = part.block
        if block.stop <= first:
            continue
        for start in range(0, block.rows, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, block.rows))
            if part.removed is not None:
                rows = rows[part.removed.live[rows]]
            clips = block.clip_ids(rows)
            if len(clips) and clips[0] < first:
                rows, clips = rows[clips >= first], clips[clips >= first]
            if len(rows):
                yield clips, traits_of(block, rows)


def nth_live(parts: Sequence[Part], places: npt.NDArray[np.int64]) -> tuple[Clips, Floats]:
    """Return the clips at some places among those that exist, and their probes."""
    clips: list[Clips] = []
    probes: list[Probe] = []
    seen = 0
    for ids, traits in live_traits(parts, 0):
        here = places[(places >= seen) & (places < seen + len(ids))] - seen
        clips.append(ids[here])
        probes.extend(clip_probe(traits, row) for row in here.tolist())
        seen += len(ids)
    return np.concatenate(clips), np.stack(probes)


def exact_nearest(
    parts: Sequence[Part], probes: Floats, count: int, among: Clips | None = None
) -> list[tuple[Clips, Floats]]:
    """Return the `count` clips most like each probe and their likeness, of all that exist."""
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in probes]
    for clips, traits in live_traits(parts, 0):
        for number, probe in enumerate(probes):
            near = traits.likeness(probe)
            if among is not None:
                near[~is_among(clips, among)] = -np.inf
            found = largest(near, count)
            found = found[near[found] > -np.inf]
            joined = np.concatenate([best[number][0], clips[found]])
            best[number] = best_first(joined, np.concatenate([best[number][1], near[found]]), count)
    return best


def best_first(clips: Clips, near: Floats, count: int) -> tuple[Clips, Floats]:
    """Return the `count` nearest clips, best first, of equals the first clip first."""
    order = np.lexsort((clips, -near))[:count]
    return clips[order], np.clip(near[order], -1.0, 1.0)


def largest(values: Floats, count: int) -> Clips:
    """Return where the `count` largest values stand, in any order; of equals the first."""
    if count >= len(values):
        return np.arange(len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least)
    return np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]])


def likeness_of(parts: Sequence[Part], clips: Clips, probe: Probe) -> Floats:
    """Return how much some clips are like a probe; -1 for those that are not there."""
    result = np.full(len(clips), -1.0, np.float32)
    for start in range(0, len(clips), _CHUNK):
        some = clips[start : start + _CHUNK]
        places, found = [], []
        for part in parts:
            at = np.flatnonzero((some >= part.block.first) & (some < part.block.stop))
            if len(at):
                rows = part.block.rows_of(some[at])
                there = rows >= 0
                places.append((part.block, rows[there]))
                found.append(at[there])
        if places:
            result[start + np.concatenate(found)] = traits_in(places).likeness(probe)
    return result


def is_among(clips: Clips, wanted: Clips) -> npt.NDArray[np.bool_]:
    """Return which clips are among those wanted, both ascending."""
    if not len(wanted):
        return np.zeros(len(clips), np.bool_)
    place = np.minimum(np.searchsorted(wanted, clips), len(wanted) - 1)
    result: npt.NDArray[np.bool_] = wanted[place] == clips
    return result


def live_mask(parts: Sequence[Part], clips: Clips) -> npt.NDArray[np.bool_]:
    """Return which of some clips exist, given in ascending order."""
    result = np.zeros(len(clips), np.bool_)
    for part in parts:
        first, stop = np.searchsorted(clips, [part.block.first, part.block.stop])
        if first < stop:
            rows = part.block.rows_of(clips[first:stop])
            here = rows >= 0
            if part.removed is not None:
                here &= part.removed.live[rows]
            result[first:stop] = here
    return result


def same_below(before: Snapshot, now: Snapshot, stop: int) -> bool:
    """Tell whether the same clips below number `stop` exist."""
    old = [part for part in before.parts if part.block.first < stop]
    new = [part for part in now.parts if part.block.first < stop]
    return len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True))
