"""The clips that are most like a probe: exact in a small library, through FAISS in a large one.

What likeness is, `audiosearch.library.likeness` says. The newest clips, up to `EXACT_CLIPS`, are
compared one by one. Once there are more, the writer puts those there are into an index of FAISS,
which is derived and may be deleted at any time::

    neighbours-N.faiss    what FAISS wrote; clips have their own numbers in it
    neighbours-N.json     its manifest: factory string, recall, how it is searched, a checksum

For the index the 655 values of a clip are turned into `INDEX_SIZE`: their principal components, of
a sample of the library itself. The index only chooses candidates; their likeness is computed from
the library's own data, so a compressed index costs recall but never an order. Recall is measured
when the index is written: for
a sample of clips, how many of the 10 nearest others it finds that an exact search finds. `nprobe`,
the number of lists that are looked at, and the number of candidates are raised until that is
`RECALL`.

An index that is missing or broken is searched without: exactly, which takes longer. The next writer
makes it again.
"""

from __future__ import annotations

import contextlib
import copy
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError
from audiosearch.library.likeness import (
    SIZE,
    Floats,
    Probe,
    Traits,
    clip_probe,
    joined_traits,
    projected_probe,
    traits_of,
)
from audiosearch.library.manifest import AUTO_FACTORY
from audiosearch.library.snapshot import Part, Snapshot
from audiosearch.storage import atomic_path, read_json, write_json

__all__ = [
    "EXACT_CLIPS",
    "INDEX_SIZE",
    "RECALL",
    "IndexFacts",
    "Neighbours",
    "auto_factory",
    "build_index",
    "check_factory",
    "index_paths",
    "read_index_facts",
]

EXACT_CLIPS = 50_000
"""How many vectors are compared one by one before FAISS takes them."""

RECALL = 0.99
"""Which share of the 10 nearest clips an index must find."""

INDEX_SIZE = 192
"""Values of a clip in the index."""

_VERSION = 2  # of the index's manifest; an index of another is made again
_SAMPLE = 200
_LOOK = 64  # nearest clips of each of them
_BASIS_SAMPLE = 50_000
_FEW = 50_000  # of so many clips, and fewer, each is compared
_CHUNK = 1 << 16
_MOST_CANDIDATES = 64
_MOST_IN_MEMORY = 4 * EXACT_CLIPS
_TRAINING_A_LIST = 64
# An index that grew is trained anew when it holds so many times what it was trained for.
_OUTGROWN = 4
_MOST_REMOVED = 0.2

Clips = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IndexFacts:
    """The manifest of one FAISS index.

    Attributes
    ----------
    factory : str
        The string that FAISS made it from.
    vectors : int
        How many clips are in it.
    stop : int
        One more than the number of the last clip that it knows of.
    trained_for : int
        How many clips there were when it was trained.
    nprobe : int
        How many lists are looked at; 0 where it has none.
    candidates : int
        How many candidates are taken for each clip that is asked for.
    recall_at_10 : float
        Measured on `sample` clips of the library.
    sample : int
        How many.
    chosen : bool
        Whether a user chose the factory string.
    size, crc32 : int
        Of the index's file.
    """

    factory: str
    vectors: int
    stop: int
    trained_for: int
    nprobe: int
    candidates: int
    recall_at_10: float
    sample: int
    chosen: bool
    size: int
    crc32: int


class Neighbours:
    """Finds the clips that are most like a probe.

    One object serves one snapshot; `following` makes that of the next, which keeps what both have
    in common.

    Parameters
    ----------
    folder : Path
        The library's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._index: Any = None
        self._facts: IndexFacts | None = None
        self._now: Snapshot | None = None
        self._selector: Any = None
        self._basis: Floats | None = None
        self._recent: list[Traits] = []  # one, or none
        self._recent_clips: Clips = np.empty(0, np.int64)
        self._recent_live: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    @property
    def facts(self) -> IndexFacts | None:
        """The manifest of the index that is searched; None for an exact search."""
        return self._facts

    def following(self, now: Snapshot) -> Neighbours:
        """Return what searches a snapshot; this object stays as it is, for who still uses it."""
        if self._now is now:
            return self
        new = copy.copy(self)
        new._take(now)
        return new

    def _take(self, now: Snapshot) -> None:
        before, number = self._now, now.lengths["neighbours"]
        if before is None or number != self._number:
            loaded = _load(self._folder, number) if number else None
            self._index, self._basis, self._facts = loaded or (None, None, None)
            self._number, before = number, None
            self._recent = []
            self._recent_clips = np.empty(0, np.int64)
        stop = self._facts.stop if self._facts else 0
        if now.lengths["clips"] - stop <= _MOST_IN_MEMORY:
            first = int(self._recent_clips[-1]) + 1 if len(self._recent_clips) else stop
            new = list(_live_traits(now.parts, first))
            if new:
                joined = joined_traits([*self._recent, *(traits for _, traits in new)])
                self._recent = [joined]
                self._recent_clips = np.concatenate([self._recent_clips, *(ids for ids, _ in new)])
        else:  # without an index; they are read at each search
            self._recent, self._recent_clips = [], np.empty(0, np.int64)
        self._recent_live = _live(now.parts, self._recent_clips)
        self._selector = self._removed_selector(now, before)
        self._now = now

    def search(
        self, probe: Probe, count: int, *, among: Clips | None = None
    ) -> tuple[Clips, Floats]:
        """Return the `count` clips most like a probe, best first, and their likeness.

        Of equally near clips the first comes first; there may be fewer than `count`.

        Parameters
        ----------
        probe : float32 (SIZE,)
            What is looked for.
        count : int
            How many clips.
        among : int64 (n,), optional
            Numbers of clips that exist, ascending: only these are looked at.

        Raises
        ------
        InvalidArgumentError
            When the probe has another size or is not finite, or `count` is below 1.
        """
        probe = np.asarray(probe, np.float32)
        if probe.shape != (SIZE,) or not np.isfinite(probe).all():
            raise InvalidArgumentError(
                f"A probe has {SIZE} finite values, not shape {probe.shape}"
                f"{'' if np.isfinite(probe).all() else ' with values that are no numbers'}."
            )
        if count < 1:
            raise InvalidArgumentError(f"count must be at least 1, not {count}.")
        assert self._now is not None  # `following` comes first
        count = min(count, self._now.live_clips if among is None else len(among))
        if not count:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if among is not None and len(among) <= _FEW:
            return _best(among, _likeness(self._now.parts, among, probe), count)
        covered = self._facts is not None and self._selector is not None
        if not covered and self._now.live_clips > len(self._recent_clips):
            return self._exactly(probe, count, among)
        near = np.concatenate([np.empty(0, np.float32), *(r.likeness(probe) for r in self._recent)])
        near[~self._recent_live] = -np.inf
        if among is not None:
            near[~_is_among(self._recent_clips, among)] = -np.inf
        found = _largest(near, count)
        clips, near = self._recent_clips[found], near[found]
        clips, near = clips[near > -np.inf], near[near > -np.inf]
        if covered:
            assert self._facts is not None
            effort = self._facts.nprobe, self._facts.candidates
            known = self._candidates(probe, count, *effort, among=among)
            if known is None:
                return self._exactly(probe, count, among)
            clips = np.concatenate([known, clips])
            near = np.concatenate([_likeness(self._now.parts, known, probe), near])
        return _best(clips, near, count)

    def _candidates(
        self, probe: Probe, count: int, nprobe: int, factor: int, *, among: Clips | None = None
    ) -> Clips | None:
        """Return clips of the index that may be near; None where it finds too few."""
        faiss = _faiss()

        assert self._facts is not None
        assert self._basis is not None  # it comes with the index
        selector = self._selector if self._selector is not True else None
        if among is not None:
            known = among[among < self._facts.stop]
            selector = _selector(known, self._facts.stop)
        wanted = min(factor * count + 16, self._index.ntotal)
        options: dict[str, Any] = {} if selector is None else {"sel": selector[1]}
        if nprobe:
            parameters = faiss.SearchParametersIVF(nprobe=nprobe, **options)
        else:
            parameters = faiss.SearchParameters(**options)
        query = projected_probe(probe, self._basis)[None]
        clips = self._index.search(query, wanted, params=parameters)[1][0]
        clips = np.sort(clips[clips >= 0])
        live = self._index.ntotal if selector is None else selector[2]
        return clips if len(clips) >= min(count, live) else None

    def _exactly(self, probe: Probe, count: int, among: Clips | None) -> tuple[Clips, Floats]:
        assert self._now is not None
        return _exact(self._now.parts, probe[None], count, among)[0]

    def _removed_selector(self, now: Snapshot, before: Snapshot | None) -> Any:
        """Return what keeps removed clips out: True for nothing, else FAISS's selector.

        None where there is no index.
        """
        if self._facts is None:
            return None
        if before is not None and _same_below(before, now, self._facts.stop):
            return self._selector
        live = np.flatnonzero(_live(now.parts, np.arange(self._facts.stop)))
        return True if len(live) == self._facts.vectors else _selector(live, self._facts.stop)


def build_index(folder: Path, number: int, now: Snapshot, factory: str) -> IndexFacts | None:
    """Write the FAISS index of all clips of a snapshot as number `number`; return its manifest.

    An earlier index whose training still fits is extended, else FAISS is trained anew.

    Parameters
    ----------
    folder : Path
        The library's folder.
    number : int
        One more than that of the index that there is, if any.
    now : Snapshot
        What the library holds.
    factory : str
        FAISS's factory string, or ``"auto"``.

    Returns
    -------
    IndexFacts or None
        None where FAISS cannot be trained with so few vectors; the search stays exact then.

    Raises
    ------
    StorageError
        When the disk is full or the files may not be written.
    """
    faiss = _faiss()

    wanted = auto_factory(now.live_clips) if factory == AUTO_FACTORY else factory
    old_number = now.lengths["neighbours"]
    loaded = _load(folder, old_number, mapped=False) if old_number else None
    trained_for = now.live_clips
    index: Any
    if loaded is not None and _still_fits(loaded[2], now, factory):
        index, basis, facts = loaded
        wanted, trained_for = facts.factory, facts.trained_for
        first = facts.stop
    else:
        first = 0
        basis = _basis(now)
        index = faiss.index_factory(INDEX_SIZE, wanted, faiss.METRIC_INNER_PRODUCT)
        if "IDMap" not in wanted and not hasattr(faiss.downcast_index(index), "nprobe"):
            index = faiss.IndexIDMap2(index)
        try:
            _train(index, basis, now)
        except RuntimeError:  # too few vectors for what the user asked for
            return None
    for clips, traits in _live_traits(now.parts, first):
        index.add_with_ids(traits.projected(basis), clips)
    files = index_paths(folder, number)
    with atomic_path(files[0]) as temporary:
        faiss.write_index(_with_basis(index, basis), str(temporary))
        size, crc = temporary.stat().st_size, _crc32(temporary)
    draft = IndexFacts(
        factory=wanted,
        vectors=int(index.ntotal),
        stop=now.lengths["clips"],
        trained_for=trained_for,
        nprobe=0,
        candidates=1,
        recall_at_10=0.0,
        sample=0,
        chosen=factory != AUTO_FACTORY,
        size=size,
        crc32=crc,
    )
    facts = _tuned(folder, now, index, basis, draft)
    write_json(files[1], {"kind": "audiosearch neighbours", "version": _VERSION, **asdict(facts)})
    return facts


def auto_factory(clips: int) -> str:
    """Return the factory string that suits so many clips."""
    if clips <= EXACT_CLIPS:
        return "Flat"
    return f"IVF{2 ** round(math.log2(3 * math.sqrt(clips)))},SQ8"


def check_factory(factory: str) -> None:
    """Refuse a factory string that FAISS does not understand.

    Raises
    ------
    InvalidArgumentError
        When it does not; the message shows some that work.
    """
    if factory == AUTO_FACTORY:
        return
    faiss = _faiss()

    try:
        faiss.index_factory(INDEX_SIZE, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, TypeError, UnicodeError) as error:
        raise InvalidArgumentError(
            f"FAISS makes no index of '{factory}' for vectors of {INDEX_SIZE} values. Try: "
            "auto, Flat, IVF1024,SQ8 or HNSW32"
        ) from error


def index_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the file of an index, and its manifest."""
    return folder / f"neighbours-{number:06d}.faiss", folder / f"neighbours-{number:06d}.json"


def read_index_facts(folder: Path, number: int) -> IndexFacts | None:
    """Return the manifest of an index; None where it is missing or makes no sense."""
    if not number:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        manifest = read_json(index_paths(folder, number)[1])
        if manifest.pop("kind") == "audiosearch neighbours" and manifest.pop("version") == _VERSION:
            return IndexFacts(**manifest)
    return None


def _live_traits(parts: Sequence[Part], first: int) -> Iterator[tuple[Clips, Traits]]:
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


def _load(
    folder: Path, number: int, *, mapped: bool = True
) -> tuple[Any, Floats, IndexFacts] | None:
    """Return an index, its basis and its manifest; None where a file is missing or broken."""
    facts = read_index_facts(folder, number)
    if facts is None:
        return None
    faiss = _faiss()

    path = index_paths(folder, number)[0]
    try:
        # FAISS trusts what it reads; a flipped bit could take the process down.
        if path.stat().st_size != facts.size or _crc32(path) != facts.crc32:
            return None
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0)
    except (OSError, RuntimeError):
        return None
    if index.d != SIZE or index.ntotal != facts.vectors:
        return None
    turn = faiss.downcast_VectorTransform(index.chain.at(0))
    basis = faiss.vector_to_array(turn.A).reshape(INDEX_SIZE, SIZE).T.copy()
    inner = faiss.downcast_index(index.index)
    inner.referenced_objects = [index]  # which owns it
    return inner, basis, facts


def _with_basis(index: Any, basis: Floats) -> Any:
    """Return an index together with its basis, as FAISS writes both into one file."""
    faiss = _faiss()

    turn = faiss.LinearTransform(SIZE, INDEX_SIZE, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(basis.T).reshape(-1), turn.A)
    turn.is_trained = True
    return faiss.IndexPreTransform(turn, index)


def _basis(now: Snapshot) -> Floats:
    """Return the principal directions of a fixed sample of the clips, float32 (SIZE, d)."""
    gram = np.zeros((SIZE, SIZE))
    for sample in _sampled(now, _BASIS_SAMPLE, seed=2):
        gram += sample.gram()
    axes = np.linalg.eigh(gram)[1][:, : -INDEX_SIZE - 1 : -1]
    return np.ascontiguousarray(axes, np.float32)


def _sampled(now: Snapshot, count: int, *, seed: int) -> Iterator[Traits]:
    """Give about `count` clips of all, always the same, or all where there are fewer."""
    draw = np.random.default_rng(seed)
    share = min(count / max(now.live_clips, 1), 1.0)
    for part in now.parts:
        for start in range(0, part.block.rows, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, part.block.rows))
            if part.removed is not None:
                rows = rows[part.removed.live[rows]]
            rows = rows[draw.random(len(rows)) < share]
            for first in range(0, len(rows), 1 << 13):
                yield traits_of(part.block, rows[first : first + (1 << 13)])


def _still_fits(facts: IndexFacts, now: Snapshot, factory: str) -> bool:
    if facts.chosen != (factory != AUTO_FACTORY) or (facts.chosen and facts.factory != factory):
        return False
    known = int(_live(now.parts, np.arange(facts.stop)).sum())
    return (
        now.live_clips <= _OUTGROWN * facts.trained_for
        and facts.vectors - known <= _MOST_REMOVED * facts.vectors
    )


def _train(index: Any, basis: Floats, now: Snapshot) -> None:
    """Train an index with a fixed sample of the library's clips."""
    if index.is_trained:
        return
    faiss = _faiss()

    inner = faiss.try_extract_index_ivf(index)
    if inner is None:
        sample = 1 << 17
    else:
        inner.cp.spherical = True
        inner.cp.max_points_per_centroid = _TRAINING_A_LIST
        inner.cp.min_points_per_centroid = 1
        sample = _TRAINING_A_LIST * inner.nlist
    chosen = [traits.projected(basis) for traits in _sampled(now, sample, seed=0)]
    index.train(np.concatenate(chosen))


def _tuned(folder: Path, now: Snapshot, index: Any, basis: Floats, draft: IndexFacts) -> IndexFacts:
    """Return the manifest with the least effort that finds `RECALL` of the true neighbours."""
    faiss = _faiss()

    inner = faiss.try_extract_index_ivf(index)
    draw = np.random.default_rng(1)
    count = min(_SAMPLE, now.live_clips)
    picked = np.sort(draw.choice(now.live_clips, count, replace=False))
    clips, queries = _nth(now.parts, picked)
    truth = _exact(now.parts, queries, _LOOK)
    search = Neighbours(folder)
    search._index, search._basis, search._facts = index, basis, draft
    search._selector, search._now = True, now
    probes = [0]
    if inner is not None:
        probes = sorted({min(round(1.4**n), inner.nlist) for n in range(40)})
    best: tuple[float, int, int] = (-1.0, probes[-1], _MOST_CANDIDATES)
    for factor in (2, 8, _MOST_CANDIDATES):
        for nprobe in probes:
            recall = _recall(search, clips, queries, truth, nprobe, factor)
            if recall > best[0]:
                best = recall, nprobe, factor
            if best[0] >= RECALL:
                break
        if best[0] >= RECALL:
            break
    recall, nprobe, factor = best
    return IndexFacts(
        **(
            asdict(draft)
            | {"nprobe": nprobe, "candidates": factor, "sample": count}
            | {"recall_at_10": round(recall, 4)}
        )
    )


def _recall(
    search: Neighbours,
    clips: Clips,
    queries: Floats,
    truth: list[tuple[Clips, Floats]],
    nprobe: int,
    factor: int,
) -> float:
    """Return which share of the 10 nearest other clips is found; equally near ones are as good."""
    assert search._now is not None
    shares = []
    for clip, query, (near, likeness) in zip(clips, queries, truth, strict=True):
        near, likeness = near[near != clip], likeness[near != clip]
        wanted = min(10, len(near))
        if not wanted:
            continue
        found = search._candidates(query, 11, nprobe, factor)
        if found is None:
            shares.append(0.0)
            continue
        least = likeness[wanted - 1] - 1e-6
        if likeness[-1] < least or len(near) < _LOOK - 1:
            count = int(np.isin(near[likeness >= least], found).sum())
        else:  # more are equally near than were looked at
            count = int((_likeness(search._now.parts, found[found != clip], query) >= least).sum())
        shares.append(min(count, wanted) / wanted)
    return float(np.mean(shares)) if shares else 1.0


def _nth(parts: Sequence[Part], places: npt.NDArray[np.int64]) -> tuple[Clips, Floats]:
    """Return the clips at some places among those that exist, and their probes."""
    clips: list[Clips] = []
    probes: list[Probe] = []
    seen = 0
    for ids, traits in _live_traits(parts, 0):
        here = places[(places >= seen) & (places < seen + len(ids))] - seen
        clips.append(ids[here])
        probes.extend(clip_probe(traits, row) for row in here.tolist())
        seen += len(ids)
    return np.concatenate(clips), np.stack(probes)


def _exact(
    parts: Sequence[Part], probes: Floats, count: int, among: Clips | None = None
) -> list[tuple[Clips, Floats]]:
    """Return the `count` clips most like each probe and their likeness, of all that exist."""
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in probes]
    for clips, traits in _live_traits(parts, 0):
        for number, probe in enumerate(probes):
            near = traits.likeness(probe)
            if among is not None:
                near[~_is_among(clips, among)] = -np.inf
            found = _largest(near, count)
            found = found[near[found] > -np.inf]
            joined = np.concatenate([best[number][0], clips[found]])
            best[number] = _best(joined, np.concatenate([best[number][1], near[found]]), count)
    return best


def _best(clips: Clips, near: Floats, count: int) -> tuple[Clips, Floats]:
    """Return the `count` nearest clips, best first, of equals the first clip first."""
    order = np.lexsort((clips, -near))[:count]
    return clips[order], np.clip(near[order], -1.0, 1.0)


def _largest(values: Floats, count: int) -> Clips:
    """Return where the `count` largest values stand, in any order; of equals the first."""
    if count >= len(values):
        return np.arange(len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least)
    return np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]])


def _likeness(parts: Sequence[Part], clips: Clips, probe: Probe) -> Floats:
    """Return how much some clips are like a probe; -1 for those that are not there."""
    result = np.full(len(clips), -1.0, np.float32)
    for part in parts:
        at = np.flatnonzero((clips >= part.block.first) & (clips < part.block.stop))
        rows = part.block.rows_of(clips[at])
        at, rows = at[rows >= 0], rows[rows >= 0]
        for start in range(0, len(at), _CHUNK):
            some = slice(start, start + _CHUNK)
            result[at[some]] = traits_of(part.block, rows[some]).likeness(probe)
    return result


def _is_among(clips: Clips, wanted: Clips) -> npt.NDArray[np.bool_]:
    """Return which clips are among those wanted, both ascending."""
    if not len(wanted):
        return np.zeros(len(clips), np.bool_)
    place = np.minimum(np.searchsorted(wanted, clips), len(wanted) - 1)
    result: npt.NDArray[np.bool_] = wanted[place] == clips
    return result


def _selector(clips: Clips, stop: int) -> tuple[Any, Any, int]:
    """Return FAISS's selector of some clips below number `stop`: its bits, itself, and how many."""
    chosen = np.zeros(stop, np.bool_)
    chosen[clips] = True
    bitmap = np.packbits(chosen, bitorder="little")
    return bitmap, _faiss().IDSelectorBitmap(bitmap), len(clips)


def _live(parts: Sequence[Part], clips: Clips) -> npt.NDArray[np.bool_]:
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


def _same_below(before: Snapshot, now: Snapshot, stop: int) -> bool:
    """Tell whether the same clips below number `stop` exist."""
    old = [part for part in before.parts if part.block.first < stop]
    new = [part for part in now.parts if part.block.first < stop]
    return len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True))


def _faiss() -> Any:
    """Import FAISS; its stubs know SWIG's signatures, not the Python ones."""
    import faiss

    return faiss


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc
