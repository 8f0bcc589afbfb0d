"""Recordings that a library holds twice: the same bytes, or the same sound in other clothes.

Exact duplicates are files of equal content: of files of one size the beginnings are compared, and
where these are equal all of them, by SHA-256. So most are never read. Near duplicates (another
format, rate or loudness) are recordings of as many clips and nearly one length whose search vectors
point the same way, clip by clip.

Few recordings are compared each with each. Many are put into cells by where the vector of their
first clip points (FAISS's inverted lists), and each is compared with those in the cells about it;
so the work grows with the 1.5th power of their number, and not with its square.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import InvalidArgumentError
from audiosearch.library.blocks import Block
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.folding import fingerprints
from audiosearch.library.library import Library
from audiosearch.library.recordings import Holdings
from audiosearch.library.snapshot import Snapshot
from audiosearch.storage import sha256_file

__all__ = ["NEAR", "SECONDS_APART", "DuplicateGroup", "duplicates"]

NEAR = 0.98
"""The least cosine of each pair of clips of near duplicates."""

SECONDS_APART = 0.5
"""By how many seconds lengths of near duplicates differ at most; encoders pad."""
_QUERIES = 1024
_EACH_WITH_EACH = 20_000
_FOUND = 0.995  # share of pairs that lie in the cells that are looked at
_SLACK = 0.002  # the cells hold vectors in half precision
_BEGINNING = 1 << 16

Places = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


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
    clips : list of int
        The first clip of each recording.
    """

    kind: Literal["exact", "near"]
    recordings: list[str]
    similarity: float
    bytes: int
    clips: list[int]

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
    held = library.catalogue.holdings()
    exact = list(_equal_files(library.catalogue, held))
    groups = [("exact", same, 1.0) for same in exact]
    if near:
        rest = np.ones(len(held.ids), np.bool_)
        for same in exact:
            rest[same[1:]] = False
        groups.extend(("near", same, cosine) for same, cosine in _near(now, held, rest, similarity))
    wanted = held.ids[np.concatenate([np.empty(0, np.int64), *(same for _, same, _ in groups)])]
    names = library.catalogue.recordings(wanted.tolist())
    return [
        DuplicateGroup(
            "exact" if kind == "exact" else "near",
            [names[number].name for number in held.ids[same].tolist() if number in names],
            round(cosine, 4),
            int(np.maximum(held.sizes[same[1:]], 0).sum()),
            [names[number].first_clip for number in held.ids[same].tolist() if number in names],
        )
        for kind, same, cosine in groups
    ]


def _equal_files(catalogue: Catalogue, held: Holdings) -> Iterator[Places]:
    """Give groups of recordings whose files are equal, by their places among all."""
    order = np.argsort(held.sizes, kind="stable")
    sizes = held.sizes[order]
    alike = [each for each in np.split(order, np.flatnonzero(np.diff(sizes)) + 1) if len(each) > 1]
    alike = [np.sort(each) for each in alike if held.sizes[each[0]] > 0]
    found = []
    for same in alike:
        files = catalogue.recordings(held.ids[same].tolist())
        paths = {
            place: path
            for place, number in zip(same.tolist(), held.ids[same].tolist(), strict=True)
            if number in files and (path := files[number].path) is not None
        }
        for begin_alike in _by_digest(list(paths), paths, _beginning):
            found.extend(_by_digest(begin_alike, paths, sha256_file))
    yield from sorted((np.array(same, np.int64) for same in found), key=lambda same: int(same[0]))


def _by_digest(places: Sequence[int], paths: dict[int, Path], digest: Any) -> list[list[int]]:
    """Return groups, of two and more, of files that have one digest."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place in places:
        try:
            groups[digest(paths[place])].append(place)
        except OSError:  # `verify` names files that are gone
            continue
    return [same for same in groups.values() if len(same) > 1]


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_BEGINNING)).hexdigest()


def _near(
    now: Snapshot, held: Holdings, wanted: npt.NDArray[np.bool_], least: float
) -> Iterator[tuple[Places, float]]:
    """Give groups of recordings that follow one another from near to near, and the least cosine."""
    vectors = _Vectors(now, held)
    usable = wanted & (vectors.rows >= 0)
    parent = np.arange(len(held.ids))
    closeness = np.ones(len(held.ids))

    def top(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = int(parent[place])
        return place

    def join(one: int, other: int, cosine: float) -> None:
        first, second = sorted((top(one), top(other)))
        closeness[first] = min(closeness[first], closeness[second], cosine)
        parent[second] = first

    for clips in np.unique(held.clips[usable]).tolist():
        places = np.flatnonzero(usable & (held.clips == clips))
        # Equal ones are joined at once: silence alone may be thousands.
        order = places[np.lexsort((held.seconds[places], vectors.prints[places]))]
        equal = (np.diff(vectors.prints[order]) == 0) & (
            np.diff(held.seconds[order]) <= SECONDS_APART
        )
        for at in np.flatnonzero(equal).tolist():
            join(int(order[at]), int(order[at + 1]), 1.0)
        first = order[np.concatenate([np.ones(min(len(order), 1), np.bool_), ~equal])]
        for one, other, cosine in _pairs(vectors, held, np.sort(first), clips, least):
            for pair in zip(one.tolist(), other.tolist(), cosine.tolist(), strict=True):
                join(*pair)
    tops = np.array([top(place) for place in range(len(parent))], np.int64)
    order = np.argsort(tops, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(tops[order])) + 1):
        if len(same) > 1:
            yield same, float(closeness[same[0]])


def _pairs(
    vectors: _Vectors, held: Holdings, places: Places, clips: int, least: float
) -> Iterator[tuple[Places, Places, Vectors]]:
    """Give pairs of recordings of as many clips whose clips are all at least so near."""
    search = _each_with_each if len(places) <= _EACH_WITH_EACH else _in_cells
    for one, other in search(vectors, places, least):
        kept = np.abs(held.seconds[one] - held.seconds[other]) <= SECONDS_APART
        one, other = one[kept], other[kept]
        cosines = np.ones(len(one), np.float32)
        for clip in range(clips):
            products = np.einsum("ij,ij->i", vectors.of(one, clip), vectors.of(other, clip))
            kept = products >= least
            one, other = one[kept], other[kept]
            cosines = np.minimum(cosines[kept], products[kept])
            if not len(one):
                break
        if len(one):
            yield one, other, cosines


def _each_with_each(
    vectors: _Vectors, places: Places, least: float
) -> Iterator[tuple[Places, Places]]:
    """Give pairs of recordings whose first clips are at least so near, but for rounding."""
    first = vectors.of(places, 0)
    for start in range(0, len(first), _QUERIES):
        # Of each pair the later recording is looked for among the earlier ones.
        near = first[start : start + _QUERIES] @ first[: start + _QUERIES].T >= least - 1e-5
        row, column = np.nonzero(np.tril(near, start - 1))
        yield places[start + row], places[column]


def _in_cells(vectors: _Vectors, places: Places, least: float) -> Iterator[tuple[Places, Places]]:
    """Give such pairs of many recordings; a few of a thousand may be missed."""
    import faiss

    lists = 2 ** round(math.log2(4 * math.sqrt(len(places))))
    index: Any = faiss.index_factory(
        EMBEDDING_SIZE, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT
    )
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1
    draw = np.random.default_rng(0)
    count = min(64 * lists, len(places))
    sample = vectors.of(np.sort(draw.choice(places, count, replace=False)), 0)
    index.train(sample)
    for start in range(0, len(places), _QUERIES):
        index.add(vectors.of(places[start : start + _QUERIES], 0))
    index.nprobe = _cells_about(index, sample[:2000], least)
    for start in range(0, len(places), _QUERIES):
        queries = vectors.of(places[start : start + _QUERIES], 0)
        bounds, _, found = index.range_search(queries, least - _SLACK)
        row = np.repeat(np.arange(len(queries)), np.diff(bounds.astype(np.int64))) + start
        # Each pair is found from both ends, or from one where the other misses its cell.
        other = row != found
        yield places[row[other]], places[found[other]]


def _cells_about(index: Any, sample: Vectors, least: float) -> int:
    """Return in how many cells to look so that nearly all that is so near is there.

    Measured with vectors that are exactly so near to some of the library's, any way about them.
    """
    draw = np.random.default_rng(1)
    aside = draw.normal(size=sample.shape).astype(np.float32)
    aside -= np.einsum("ij,ij->i", aside, sample)[:, None] * sample
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    moved = least * sample + math.sqrt(1 - least * least) * aside
    home = index.quantizer.search(sample, 1)[1]
    cells = 1
    while cells < index.nlist:
        share = (index.quantizer.search(moved, cells)[1] == home).any(axis=1).mean()
        if share >= _FOUND:
            break
        cells *= 2
    return min(cells, int(index.nlist))


class _Vectors:
    """The search vectors of recordings, by their places among all, read as they are asked for.

    Attributes
    ----------
    rows : int64 (recordings,)
        Where each begins in its block; -1 where it was removed meanwhile, or has a clip without a
        direction.
    prints : uint64 (recordings,)
        Equal for recordings of equal vectors, and hardly ever for others.
    """

    def __init__(self, now: Snapshot, held: Holdings) -> None:
        self._parts = now.parts
        self._part = np.full(len(held.ids), -1, np.int64)
        self.rows = np.full(len(held.ids), -1, np.int64)
        self.prints = np.zeros(len(held.ids), np.uint64)
        for number, part in enumerate(now.parts):
            block = part.block
            here = np.flatnonzero(
                (held.first_clips >= block.first) & (held.first_clips < block.stop)
            )
            rows = block.rows_of(held.first_clips[here])
            here, rows = here[rows >= 0], rows[rows >= 0]
            if part.removed is not None:
                here, rows = here[part.removed.live[rows]], rows[part.removed.live[rows]]
            starts, prints = fingerprints(block)
            at = np.searchsorted(starts, rows)
            if not len(rows):
                continue
            bad = np.logical_or.reduceat(_without_direction(block), starts)[at]
            self._part[here], self.rows[here] = number, np.where(bad, -1, rows)
            self.prints[here] = prints[at]

    def of(self, places: Places, clip: int) -> Vectors:
        """Return the unit vectors, float32 (n, 128), of one clip of each of some recordings."""
        result = np.empty((len(places), EMBEDDING_SIZE), np.float32)
        for number, part in enumerate(self._parts):
            here = np.flatnonzero(self._part[places] == number)
            if len(here):
                result[here] = part.block.vectors[self.rows[places[here]] + clip]
        return result / np.linalg.norm(result, axis=1, keepdims=True)


def _without_direction(block: Block) -> npt.NDArray[np.bool_]:
    return np.concatenate(
        [
            ~np.asarray(block.vectors[start : start + (1 << 16)]).any(axis=1)
            for start in range(0, block.rows, 1 << 16)
        ]
    )
