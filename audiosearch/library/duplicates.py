"""Recordings that a library holds twice: the same bytes, or the same sound in other clothes.

Exact duplicates are files of equal content: files of one size are compared by their SHA-256, so
most are never read. Near duplicates (another format, rate or loudness) are recordings of as many
clips and nearly one length whose search vectors point the same way, clip by clip.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError, printable
from audiosearch.library.catalogue import Origin
from audiosearch.library.library import Library
from audiosearch.library.snapshot import Snapshot
from audiosearch.storage import sha256_file

__all__ = ["NEAR", "DuplicateGroup", "duplicates"]

NEAR = 0.98
"""The least cosine of each pair of clips of near duplicates."""

_SECONDS = 0.5  # by which lengths of near duplicates differ at most; encoders pad
_QUERIES = 512


@dataclass(frozen=True)
class DuplicateGroup:
    """Recordings that are one sound.

    Attributes
    ----------
    kind : str
        ``"exact"`` where the files are equal to the byte, else ``"near"``.
    recordings : list of str
        As hits show them, in the order in which they were indexed.
    similarity : float
        The least cosine by which a recording came into the group; 1 for exact ones.
    bytes : int
        What the files but the first take on the disk; 0 for rows of packed files.
    """

    kind: Literal["exact", "near"]
    recordings: list[str]
    similarity: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def duplicates(
    library: str | os.PathLike[str] | Library,
    *,
    near: bool = True,
    similarity: float = NEAR,
) -> list[DuplicateGroup]:
    """Find recordings that a library holds more than once; nothing is changed.

    Parameters
    ----------
    library : path-like or Library
        The library.
    near : bool
        Look for near duplicates as well.
    similarity : float
        The least cosine of near duplicates, clip by clip.

    Returns
    -------
    list of DuplicateGroup
        Exact ones first, each in the order in which they were indexed. A recording is in one group
        of exact ones at most; of these only the first is looked at for near ones.

    Raises
    ------
    InvalidArgumentError
        When `similarity` is not above 0 and at most 1.
    """
    if not 0 < similarity <= 1:
        raise InvalidArgumentError(f"similarity must be above 0 and at most 1, not {similarity}.")
    if not isinstance(library, Library):
        with Library(library) as opened:
            return duplicates(opened, near=near, similarity=similarity)
    now = library.snapshot()
    origins = library.catalogue.origins(0, -1)
    exact = list(_equal_files(origins))
    groups = [_group("exact", same, 1.0) for same in exact]
    if near:
        later = {origin.id for same in exact for origin in same[1:]}
        rest = [origin for origin in origins if origin.id not in later]
        groups.extend(_near(now, rest, similarity))
    return groups


def _equal_files(origins: list[Origin]) -> Iterator[list[Origin]]:
    by_size: dict[int, list[Origin]] = defaultdict(list)
    for origin in origins:
        if origin.path is not None and origin.size:
            by_size[origin.size].append(origin)
    by_content: dict[str, list[Origin]] = defaultdict(list)
    for same in by_size.values():
        for origin in same if len(same) > 1 else ():
            try:
                by_content[sha256_file(os.fsdecode(origin.path or b""))].append(origin)
            except OSError:  # `verify` names files that are gone
                continue
    found = [same for same in by_content.values() if len(same) > 1]
    yield from sorted(found, key=lambda same: same[0].id)


def _near(now: Snapshot, origins: list[Origin], least: float) -> Iterator[DuplicateGroup]:
    """Give groups of recordings that follow one another from near to near."""
    vectors, kept = _vectors(now, origins)
    by_clips: dict[int, list[int]] = defaultdict(list)
    for place, origin in enumerate(kept):
        by_clips[origin.clips].append(place)
    parent = list(range(len(kept)))
    closeness = np.ones(len(kept))

    def top(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for places in by_clips.values():
        if len(places) > 1:
            for one, other, cosine in _pairs([vectors[p] for p in places], least):
                a, b = places[one], places[other]
                if abs(kept[a].duration - kept[b].duration) > _SECONDS:
                    continue
                first, second = sorted((top(a), top(b)))
                closeness[first] = min(closeness[first], closeness[second], cosine)
                parent[second] = first
    members: dict[int, list[Origin]] = defaultdict(list)
    for place, origin in enumerate(kept):
        members[top(place)].append(origin)
    for place, same in sorted(members.items()):
        if len(same) > 1:
            yield _group("near", same, float(closeness[place]))


def _pairs(
    vectors: list[npt.NDArray[np.float32]], least: float
) -> Iterator[tuple[int, int, float]]:
    """Give pairs of recordings of as many clips whose clips are all at least so near."""
    first = np.stack([each[0] for each in vectors])
    for start in range(0, len(first), _QUERIES):
        # Of each pair the later recording is looked for among the earlier ones.
        near = first[start : start + _QUERIES] @ first[: start + _QUERIES].T >= least
        for row, column in zip(*np.nonzero(np.tril(near, start - 1)), strict=True):
            one, other = int(column), start + int(row)
            cosine = float((vectors[one] * vectors[other]).sum(axis=1).min())
            if cosine >= least:
                yield one, other, min(cosine, 1.0)


def _vectors(
    now: Snapshot, origins: list[Origin]
) -> tuple[list[npt.NDArray[np.float32]], list[Origin]]:
    """Return the unit vectors of the clips of recordings, and which recordings have such."""
    vectors, kept = [], []
    for part in now.parts:
        block = part.block
        here = [o for o in origins if block.first <= o.first_clip < block.stop]
        rows = block.rows_of(np.array([o.first_clip for o in here], np.int64))
        for origin, row in zip(here, rows.tolist(), strict=True):
            if row < 0 or not part.is_live(row):
                continue
            values = block.vectors[row : row + origin.clips].astype(np.float32)
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
            if lengths.all():
                vectors.append(values / lengths)
                kept.append(origin)
    return vectors, kept


def _group(kind: Literal["exact", "near"], same: list[Origin], similarity: float) -> DuplicateGroup:
    names = [printable(os.fsdecode(origin.path or origin.name)) for origin in same]
    sizes = sum(origin.size or 0 for origin in same[1:] if origin.path is not None)
    return DuplicateGroup(kind, names, round(similarity, 4), sizes)
