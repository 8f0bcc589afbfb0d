"""Making an index of the nearest clips: FAISS is trained, filled, tuned and verified."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.errors import InvalidArgumentError
from audiosearch.library.index_files import (
    INDEX_SIZE,
    VERSION,
    IndexFacts,
    faiss_module,
    file_crc32,
    index_paths,
    load_index,
    with_basis,
)
from audiosearch.library.likeness import SIZE, Floats, Traits, traits_of
from audiosearch.library.manifest import AUTO_FACTORY
from audiosearch.library.nearest import (
    Clips,
    exact_nearest,
    likeness_of,
    live_mask,
    live_traits,
    nth_live,
)
from audiosearch.library.neighbours import EXACT_CLIPS, Neighbours
from audiosearch.library.snapshot import Snapshot
from audiosearch.storage import atomic_path, write_json

__all__ = ["RECALL", "auto_factory", "build_index", "check_factory"]

RECALL = 0.99
"""Which share of the 10 nearest clips an index must find."""

_SAMPLE = 200
_LOOK = 64  # nearest clips of each of them
_BASIS_SAMPLE = 50_000
_CHUNK = 1 << 16
_MOST_CANDIDATES = 64
_TRAINING_A_LIST = 64
# An index that grew is trained anew when it holds so many times what it was trained for.
_OUTGROWN = 4
_MOST_REMOVED = 0.2


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
    faiss = faiss_module()

    wanted = auto_factory(now.live_clips) if factory == AUTO_FACTORY else factory
    old_number = now.lengths["neighbours"]
    loaded = load_index(folder, old_number, mapped=False) if old_number else None
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
    for clips, traits in live_traits(now.parts, first):
        index.add_with_ids(traits.projected(basis), clips)
    files = index_paths(folder, number)
    with atomic_path(files[0]) as temporary:
        faiss.write_index(with_basis(index, basis), str(temporary))
        size, crc = temporary.stat().st_size, file_crc32(temporary)
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
    write_json(files[1], {"kind": "audiosearch neighbours", "version": VERSION, **asdict(facts)})
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
    faiss = faiss_module()

    try:
        faiss.index_factory(INDEX_SIZE, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, TypeError, UnicodeError) as error:
        raise InvalidArgumentError(
            f"FAISS makes no index of '{factory}' for vectors of {INDEX_SIZE} values. Try: "
            "auto, Flat, IVF1024,SQ8 or HNSW32"
        ) from error


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
    known = int(live_mask(now.parts, np.arange(facts.stop)).sum())
    return (
        now.live_clips <= _OUTGROWN * facts.trained_for
        and facts.vectors - known <= _MOST_REMOVED * facts.vectors
    )


def _train(index: Any, basis: Floats, now: Snapshot) -> None:
    """Train an index with a fixed sample of the library's clips."""
    if index.is_trained:
        return
    faiss = faiss_module()

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
    faiss = faiss_module()

    inner = faiss.try_extract_index_ivf(index)
    draw = np.random.default_rng(1)
    count = min(_SAMPLE, now.live_clips)
    picked = np.sort(draw.choice(now.live_clips, count, replace=False))
    clips, queries = nth_live(now.parts, picked)
    truth = exact_nearest(now.parts, queries, _LOOK)
    search = Neighbours.of_index(folder, now, index, basis, draft)
    probes = [0]
    if inner is not None:
        probes = sorted({min(round(1.4**n), inner.nlist) for n in range(40)})
    best: tuple[float, int, int] = (-1.0, probes[-1], _MOST_CANDIDATES)
    for factor, nprobe in itertools.product((4, 16, _MOST_CANDIDATES), probes):
        recall, error = _recall(search, now, clips, queries, truth, nprobe, factor)
        if recall > best[0]:
            best = recall, nprobe, factor
        if recall - error >= RECALL:  # so that it holds for other clips than these, too
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
    now: Snapshot,
    clips: Clips,
    queries: Floats,
    truth: list[tuple[Clips, Floats]],
    nprobe: int,
    factor: int,
) -> tuple[float, float]:
    """Return which share of the 10 nearest other clips is found, and its standard error.

    Equally near ones are as good.
    """
    shares = []
    for clip, query, (near, likeness) in zip(clips, queries, truth, strict=True):
        near, likeness = near[near != clip], likeness[near != clip]
        wanted = min(10, len(near))
        if not wanted:
            continue
        found = search.candidates(query, 11, nprobe, factor)
        if found is None:
            shares.append(0.0)
            continue
        least = likeness[wanted - 1] - 1e-6
        if likeness[-1] < least or len(near) < _LOOK - 1:
            count = int(np.isin(near[likeness >= least], found).sum())
        else:  # more are equally near than were looked at
            count = int((likeness_of(now.parts, found[found != clip], query) >= least).sum())
        shares.append(min(count, wanted) / wanted)
    if not shares:
        return 1.0, 0.0
    return float(np.mean(shares)), float(np.std(shares) / math.sqrt(len(shares)))
