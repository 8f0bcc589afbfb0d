"""Nearest search vectors, by cosine: exact in a small library, through FAISS in a large one.

The newest vectors, up to `EXACT_CLIPS`, are compared one by one. Once there are more, the writer
puts those there are into an index of FAISS, which is derived and may be deleted at any time::

    neighbours-N.faiss    what FAISS wrote; clips have their own numbers in it
    neighbours-N.json     its manifest: factory string, recall, how it is searched, a checksum

The index only chooses candidates; their cosines are computed from the library's own vectors, so a
compressed index costs recall but never an order. Recall is measured when the index is written: for
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

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import InvalidArgumentError
from audiosearch.library.manifest import AUTO_FACTORY
from audiosearch.library.snapshot import Part, Snapshot
from audiosearch.storage import atomic_path, read_json, write_json

__all__ = [
    "EXACT_CLIPS",
    "RECALL",
    "IndexFacts",
    "Neighbours",
    "auto_factory",
    "build_index",
    "check_factory",
    "index_paths",
    "live_vectors",
    "read_index_facts",
]

EXACT_CLIPS = 50_000
"""How many vectors are compared one by one before FAISS takes them."""

RECALL = 0.99
"""Which share of the 10 nearest clips an index must find."""

_SAMPLE = 200
_CHUNK = 1 << 16
_MOST_CANDIDATES = 64
_MOST_IN_MEMORY = 4 * EXACT_CLIPS
_TRAINING_A_LIST = 64
# An index that grew is trained anew when it holds so many times what it was trained for.
_OUTGROWN = 4
_MOST_REMOVED = 0.2

Vectors = npt.NDArray[np.float32]
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
    """Finds the clips whose search vectors point most nearly the same way.

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
        self._recent: Vectors = np.empty((0, EMBEDDING_SIZE), np.float32)
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
            self._index, self._facts = _load(self._folder, number) if number else (None, None)
            self._number, before = number, None
            self._recent = np.empty((0, EMBEDDING_SIZE), np.float32)
            self._recent_clips = np.empty(0, np.int64)
        stop = self._facts.stop if self._facts else 0
        if now.lengths["clips"] - stop <= _MOST_IN_MEMORY:
            first = int(self._recent_clips[-1]) + 1 if len(self._recent_clips) else stop
            new = list(live_vectors(now.parts, first))
            self._recent = np.concatenate([self._recent, *(unit for _, unit in new)])
            self._recent_clips = np.concatenate([self._recent_clips, *(clips for clips, _ in new)])
        else:  # without an index; they are read at each search
            self._recent, self._recent_clips = self._recent[:0], self._recent_clips[:0]
        self._recent_live = _live(now.parts, self._recent_clips)
        self._selector = self._removed_selector(now, before)
        self._now = now

    def search(self, vector: npt.NDArray[np.floating], count: int) -> tuple[Clips, Vectors]:
        """Return the `count` nearest clips, best first, and their cosines; fewer if there are.

        Of equally near clips the first comes first.

        Raises
        ------
        InvalidArgumentError
            When the vector has another size or is not finite, or `count` is below 1.
        """
        vector = np.asarray(vector, np.float32)
        if vector.shape != (EMBEDDING_SIZE,) or not np.isfinite(vector).all():
            raise InvalidArgumentError(
                f"A search vector has {EMBEDDING_SIZE} finite values, not shape {vector.shape}"
                f"{'' if np.isfinite(vector).all() else ' with values that are no numbers'}."
            )
        if count < 1:
            raise InvalidArgumentError(f"count must be at least 1, not {count}.")
        assert self._now is not None  # `following` comes first
        query = _unit(vector[None])[0]
        count = min(count, self._now.live_clips)
        if not count:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        covered = self._facts is not None and self._selector is not None
        if not covered and self._now.live_clips > len(self._recent_clips):
            return self._exactly(query, count)
        cosines = self._recent @ query
        cosines[~self._recent_live] = -2.0
        found = _largest(cosines, count)
        clips, near = self._recent_clips[found], cosines[found]
        clips, near = clips[near > -2.0], near[near > -2.0]
        if covered:
            assert self._facts is not None
            known = self._candidates(query, count, self._facts.nprobe, self._facts.candidates)
            if known is None:
                return self._exactly(query, count)
            clips = np.concatenate([known, clips])
            near = np.concatenate([_cosines(self._now.parts, known, query), near])
        order = np.lexsort((clips, -near))[:count]
        return clips[order], np.clip(near[order], -1.0, 1.0)

    def _candidates(self, query: Vectors, count: int, nprobe: int, factor: int) -> Clips | None:
        """Return clips of the index that may be near; None where it finds too few."""
        faiss = _faiss()

        selector = self._selector if self._selector is not True else None
        wanted = min(factor * count + 16, self._index.ntotal)
        options: dict[str, Any] = {} if selector is None else {"sel": selector[1]}
        if nprobe:
            parameters = faiss.SearchParametersIVF(nprobe=nprobe, **options)
        else:
            parameters = faiss.SearchParameters(**options)
        clips = self._index.search(query[None], wanted, params=parameters)[1][0]
        clips = clips[clips >= 0]
        live = self._index.ntotal if selector is None else selector[2]
        return clips if len(clips) >= min(count, live) else None

    def _exactly(self, query: Vectors, count: int) -> tuple[Clips, Vectors]:
        assert self._now is not None
        return _exact(self._now.parts, query[None], count)[0]

    def _removed_selector(self, now: Snapshot, before: Snapshot | None) -> Any:
        """Return what keeps removed clips out: True for nothing, else FAISS's selector.

        None where there is no index.
        """
        if self._facts is None:
            return None
        if before is not None and _same_below(before, now, self._facts.stop):
            return self._selector
        faiss = _faiss()

        live = _live(now.parts, np.arange(self._facts.stop))
        count = int(live.sum())
        if count == self._facts.vectors:
            return True
        bitmap = np.packbits(live, bitorder="little")
        return bitmap, faiss.IDSelectorBitmap(bitmap), count


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
    index: Any
    index, facts = _load(folder, old_number, mapped=False) if old_number else (None, None)
    trained_for = now.live_clips
    if facts is not None and _still_fits(facts, now, factory):
        wanted, trained_for = facts.factory, facts.trained_for
        first = facts.stop
    else:
        first = 0
        index = faiss.index_factory(EMBEDDING_SIZE, wanted, faiss.METRIC_INNER_PRODUCT)
        if "IDMap" not in wanted and not hasattr(faiss.downcast_index(index), "nprobe"):
            index = faiss.IndexIDMap2(index)
        try:
            _train(index, now)
        except RuntimeError:  # too few vectors for what the user asked for
            return None
    for clips, unit in live_vectors(now.parts, first):
        index.add_with_ids(unit, clips)
    files = index_paths(folder, number)
    with atomic_path(files[0]) as temporary:
        faiss.write_index(index, str(temporary))
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
    facts = _tuned(folder, now, index, draft)
    write_json(files[1], {"kind": "audiosearch neighbours", "version": 1, **asdict(facts)})
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
        faiss.index_factory(EMBEDDING_SIZE, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, TypeError, UnicodeError) as error:
        raise InvalidArgumentError(
            f"FAISS makes no index of '{factory}' for vectors of {EMBEDDING_SIZE} values. Try: "
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
        if manifest.pop("kind") == "audiosearch neighbours" and manifest.pop("version") == 1:
            return IndexFacts(**manifest)
    return None


def live_vectors(parts: Sequence[Part], first: int) -> Iterator[tuple[Clips, Vectors]]:
    """Give the clips from number `first` on that exist, and their unit vectors, in chunks."""
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
                # A slice of what is mapped, where that is what it is.
                whole = rows[-1] - rows[0] + 1 == len(rows)
                vectors = block.vectors[rows[0] : rows[-1] + 1] if whole else block.vectors[rows]
                yield clips, _unit(vectors.astype(np.float32))


def _load(folder: Path, number: int, *, mapped: bool = True) -> tuple[Any, IndexFacts | None]:
    """Return an index and its manifest; nothing where a file of it is missing or broken."""
    facts = read_index_facts(folder, number)
    if facts is None:
        return None, None
    faiss = _faiss()

    path = index_paths(folder, number)[0]
    try:
        # FAISS trusts what it reads; a flipped bit could take the process down.
        if path.stat().st_size != facts.size or _crc32(path) != facts.crc32:
            return None, None
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0)
    except (OSError, RuntimeError):
        return None, None
    if index.d != EMBEDDING_SIZE or index.ntotal != facts.vectors:
        return None, None
    return index, facts


def _still_fits(facts: IndexFacts, now: Snapshot, factory: str) -> bool:
    if facts.chosen != (factory != AUTO_FACTORY) or (facts.chosen and facts.factory != factory):
        return False
    known = int(_live(now.parts, np.arange(facts.stop)).sum())
    return (
        now.live_clips <= _OUTGROWN * facts.trained_for
        and facts.vectors - known <= _MOST_REMOVED * facts.vectors
    )


def _train(index: Any, now: Snapshot) -> None:
    """Train an index with a fixed sample of the library's vectors."""
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
    draw = np.random.default_rng(0)
    share = min(sample / max(now.live_clips, 1), 1.0)
    chosen = [
        unit[draw.random(len(unit)) < share] if share < 1 else unit
        for _, unit in live_vectors(now.parts, 0)
    ]
    index.train(np.concatenate(chosen))


def _tuned(folder: Path, now: Snapshot, index: Any, draft: IndexFacts) -> IndexFacts:
    """Return the manifest with the least effort that finds `RECALL` of the true neighbours."""
    faiss = _faiss()

    inner = faiss.try_extract_index_ivf(index)
    draw = np.random.default_rng(1)
    count = min(_SAMPLE, now.live_clips)
    picked = np.sort(draw.choice(now.live_clips, count, replace=False))
    clips, queries = _nth(now.parts, picked)
    truth = _exact(now.parts, queries, 11)
    search = Neighbours(folder)
    search._index, search._facts, search._selector, search._now = index, draft, True, now
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
    queries: Vectors,
    truth: list[tuple[Clips, Vectors]],
    nprobe: int,
    factor: int,
) -> float:
    """Return which share of the 10 nearest other clips is found; equally near ones are as good."""
    assert search._now is not None
    shares = []
    for clip, query, (near, cosines) in zip(clips, queries, truth, strict=True):
        others = cosines[near != clip][:10]
        if not len(others):
            continue
        found = search._candidates(query, 11, nprobe, factor)
        if found is None:
            shares.append(0.0)
            continue
        got = np.sort(_cosines(search._now.parts, found[found != clip], query))[::-1][:10]
        shares.append(float((got >= others[-1] - 1e-6).sum()) / len(others))
    return float(np.mean(shares)) if shares else 1.0


def _nth(parts: Sequence[Part], places: npt.NDArray[np.int64]) -> tuple[Clips, Vectors]:
    """Return the clips at some places among those that exist, and their vectors."""
    clips, vectors, seen = [], [], 0
    for ids, unit in live_vectors(parts, 0):
        here = places[(places >= seen) & (places < seen + len(ids))] - seen
        clips.append(ids[here])
        vectors.append(unit[here])
        seen += len(ids)
    return np.concatenate(clips), np.concatenate(vectors)


def _exact(parts: Sequence[Part], queries: Vectors, count: int) -> list[tuple[Clips, Vectors]]:
    """Return the `count` nearest clips of each query and their cosines, of all that exist."""
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    for clips, unit in live_vectors(parts, 0):
        for number, cosines in enumerate(queries @ unit.T):
            found = _largest(cosines, count)
            near = np.concatenate([best[number][1], cosines[found]])
            ids = np.concatenate([best[number][0], clips[found]])
            order = np.lexsort((ids, -near))[:count]
            best[number] = ids[order], np.clip(near[order], -1.0, 1.0)
    return best


def _largest(values: Vectors, count: int) -> Clips:
    """Return where the `count` largest values stand, in any order; of equals the first."""
    if count >= len(values):
        return np.arange(len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least)
    return np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]])


def _cosines(parts: Sequence[Part], clips: Clips, query: Vectors) -> Vectors:
    """Return the cosine of a vector of length 1 to each of some clips; -1 for those not there."""
    result = np.full(len(clips), -1.0, np.float32)
    for part in parts:
        at = np.flatnonzero((clips >= part.block.first) & (clips < part.block.stop))
        rows = part.block.rows_of(clips[at])
        at, rows = at[rows >= 0], rows[rows >= 0]
        if len(at):
            result[at] = _unit(part.block.vectors[rows].astype(np.float32)) @ query
    return result


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


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc
