"""A map of a library: every clip is a point, and clips that sound alike lie together.

Likeness is that of the search by example, so what is near on the map is near in "more like this".
The points are laid out by `audiosearch.library.layout`, once; they are kept in ``map.npz`` in the
library's folder, which is derived: it may be deleted at any time, and one that is broken or of
another version is made again. The library that is installed comes with its map.

A map has at most `MOST_POINTS` points. Of a larger library it shows an even choice of clips, always
the same.

While a library grows, new clips are put beside the clip that is most like them, until they are a
fifth of all; then everything is laid out anew.
"""

from __future__ import annotations

import contextlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.errors import StorageError
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.layout import lay_out
from audiosearch.library.library import Library
from audiosearch.library.likeness import Floats, Traits, joined_traits, traits_of
from audiosearch.library.snapshot import Snapshot
from audiosearch.storage import atomic_path

__all__ = ["MAP", "MOST_POINTS", "CollectionMap", "collection_map", "is_map", "read_map"]

MAP = "map.npz"
"""The file of the map in a library's folder."""

MOST_POINTS = 20_000
"""How many clips a map shows at most."""

_VERSION = 1  # of the layout; a map of another is made again
_AXES = 48
_MOST_NEW = 0.2
_CHUNK = 1 << 14
_SCALE = 32_767.0
_BESIDE = 0.004  # how far from its nearest a new clip is put

Clips = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CollectionMap:
    """Where clips lie on the map.

    Attributes
    ----------
    clips : int64 (n,)
        Their numbers, ascending.
    places : float32 (n, 2)
        From -1 to 1 in the larger direction; y grows upwards.
    labels : int64 (n,)
        The best class of each clip.
    total : int
        How many clips the library has; more than n where the map shows a choice.
    """

    clips: Clips
    places: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    total: int

    def __len__(self) -> int:
        return len(self.clips)


def collection_map(library: Library, *, make: bool = True) -> CollectionMap | None:
    """Return the map of a library.

    The first time it is laid out, in time that grows with the clips and then no more, and kept
    where the library's folder may be written to.

    Parameters
    ----------
    library : Library
        The library.
    make : bool
        Whether it may be laid out now; else None where that is due.

    Raises
    ------
    LibraryDamagedError
        When a file of the library is missing or broken.
    """
    now = library.labelled_snapshot()
    wanted = _chosen(now)
    known = read_map(library.folder)
    places = None
    if known is not None:
        places = _completed(now, wanted, *known)
    if places is None:
        if not make:
            return None
        places = lay_out(_vectors(now, wanted))
        # Rounded as the file rounds them: the first look shows what later ones show.
        places = (np.rint(places * _SCALE) / _SCALE).astype(np.float32)
        if not library.shipped:  # which comes with its map, and is part of the installation
            with contextlib.suppress(StorageError):  # a library that may only be read
                _write(library.folder, wanted, places)
    return CollectionMap(wanted, places, _best_classes(now, wanted), now.live_clips)


def read_map(folder: Path) -> tuple[Clips, npt.NDArray[np.float32]] | None:
    """Return clips and places of a library's map; None where there is none that can be used."""
    try:
        with np.load(folder / MAP, allow_pickle=False) as file:
            if int(file["version"]) != _VERSION:
                return None
            clips, places = file["clips"].astype(np.int64), file["places"]
            places = (places / _SCALE).astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    if clips.ndim != 1 or places.shape != (len(clips), 2) or (np.diff(clips) < 1).any():
        return None
    return clips, places


def is_map(folder: Path) -> bool:
    """Tell whether a library's folder holds the file of a map, usable or not."""
    return (folder / MAP).is_file()


def _write(folder: Path, clips: Clips, places: npt.NDArray[np.float32]) -> None:
    with atomic_path(folder / MAP) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            version=np.int64(_VERSION),
            clips=clips.astype(np.uint32),
            places=np.rint(places * _SCALE).astype(np.int16),
        )


def _chosen(now: Snapshot) -> Clips:
    """Return the clips that the map shows, ascending."""
    clips = []
    for part in now.parts:
        rows = np.arange(part.block.rows)
        if part.removed is not None:
            rows = rows[part.removed.live]
        clips.append(part.block.clip_ids(rows))
    every = np.concatenate([np.empty(0, np.int64), *clips])
    if len(every) <= MOST_POINTS:
        return every
    # By a scrambled number: even over the library, and stable while it grows.
    scrambled = (every.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)
    return np.sort(every[np.argsort(scrambled, kind="stable")[:MOST_POINTS]])


def _completed(
    now: Snapshot, wanted: Clips, clips: Clips, places: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32] | None:
    """Return the places of some clips as far as an older map tells; None where that is too old."""
    at = np.minimum(np.searchsorted(clips, wanted), max(len(clips) - 1, 0))
    known = clips[at] == wanted if len(clips) else np.zeros(len(wanted), np.bool_)
    if (~known).sum() > _MOST_NEW * len(wanted):
        return None
    result = np.zeros((len(wanted), 2), np.float32)
    result[known] = places[at[known]]
    new = np.flatnonzero(~known)
    if len(new):
        vectors = _vectors(now, wanted)
        old = np.flatnonzero(known)
        for start in range(0, len(new), 256):
            some = new[start : start + 256]
            near = old[(vectors[some] @ vectors[old].T).argmax(axis=1)]
            turn = 2.399963 * some
            beside = _BESIDE * np.stack([np.cos(turn), np.sin(turn)], axis=1)
            result[some] = np.clip(result[near] + beside, -1, 1)
    return result


def _traits(now: Snapshot, clips: Clips) -> Traits:
    parts = []
    for part in now.parts:
        block = part.block
        here = clips[(clips >= block.first) & (clips < block.stop)]
        rows = block.rows_of(here)
        for start in range(0, len(rows), _CHUNK):
            parts.append(traits_of(block, rows[start : start + _CHUNK]))
    return joined_traits(parts)


def _vectors(now: Snapshot, clips: Clips) -> Floats:
    """Return clips by their principal traits, of length 1, float32 (n, 48)."""
    traits = _traits(now, clips)
    if not len(traits):
        return np.empty((0, _AXES), np.float32)
    basis = np.linalg.eigh(traits.gram())[1][:, : -_AXES - 1 : -1]
    vectors = traits.projected(np.ascontiguousarray(basis, np.float32))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Floats = vectors / np.maximum(lengths, 1e-9).astype(np.float32)
    return result


def _best_classes(now: Snapshot, clips: Clips) -> npt.NDArray[np.int64]:
    """Return the best class of each clip among AudioSet's, which have a place in the ontology."""
    result = np.zeros(len(clips), np.int64)
    for part in now.parts:
        at = np.flatnonzero((clips >= part.block.first) & (clips < part.block.stop))
        if len(at):
            offsets, classes, _ = part.block.entries(part.block.rows_of(clips[at]))
            known = np.flatnonzero(classes < CLASS_COUNT)
            first = np.minimum(np.searchsorted(known, offsets[:-1]), len(known) - 1)
            result[at] = classes[known[first]]
    return result
