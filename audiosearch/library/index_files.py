"""The files of a FAISS index, and its manifest; `audiosearch.library.neighbours` explains them."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.library.likeness import SIZE, Floats
from audiosearch.library.nearest import Clips
from audiosearch.storage import read_json

__all__ = [
    "INDEX_SIZE",
    "VERSION",
    "IndexFacts",
    "faiss_module",
    "file_crc32",
    "index_paths",
    "load_index",
    "read_index_facts",
    "selector_of",
    "with_basis",
]

INDEX_SIZE = 192
"""Values of a clip in the index."""

VERSION = 2
"""Of the index's manifest; an index of another is made again."""


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


def index_paths(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the file of an index, and its manifest."""
    return folder / f"neighbours-{number:06d}.faiss", folder / f"neighbours-{number:06d}.json"


def read_index_facts(folder: Path, number: int) -> IndexFacts | None:
    """Return the manifest of an index; None where it is missing or makes no sense."""
    if not number:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        manifest = read_json(index_paths(folder, number)[1])
        if manifest.pop("kind") == "audiosearch neighbours" and manifest.pop("version") == VERSION:
            return IndexFacts(**manifest)
    return None


def load_index(
    folder: Path, number: int, *, mapped: bool = True
) -> tuple[Any, Floats, IndexFacts] | None:
    """Return an index, its basis and its manifest; None where a file is missing or broken."""
    facts = read_index_facts(folder, number)
    if facts is None:
        return None
    faiss = faiss_module()

    path = index_paths(folder, number)[0]
    try:
        # FAISS trusts what it reads; a flipped bit could take the process down.
        if path.stat().st_size != facts.size or file_crc32(path) != facts.crc32:
            return None
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0)
    except (OSError, RuntimeError):
        return None
    if index.d != SIZE or index.ntotal != facts.vectors:
        return None
    turn = faiss.downcast_VectorTransform(index.chain.at(0))
    basis = faiss.vector_to_array(turn.A).reshape(INDEX_SIZE, SIZE).T.copy()
    inner = faiss.downcast_index(index.index)
    ivf = faiss.try_extract_index_ivf(inner)
    if ivf is not None and mapped:
        # By default FAISS starts 32 threads a search to read lists ahead: four times the work.
        faiss.downcast_InvertedLists(ivf.invlists).prefetch_nthread = 0
    inner.referenced_objects = [index]  # which owns it
    return inner, basis, facts


def with_basis(index: Any, basis: Floats) -> Any:
    """Return an index together with its basis, as FAISS writes both into one file."""
    faiss = faiss_module()

    turn = faiss.LinearTransform(SIZE, INDEX_SIZE, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(basis.T).reshape(-1), turn.A)
    turn.is_trained = True
    return faiss.IndexPreTransform(turn, index)


def selector_of(clips: Clips, stop: int) -> tuple[Any, Any, int]:
    """Return FAISS's selector of some clips below number `stop`: its bits, itself, and how many."""
    chosen = np.zeros(stop, np.bool_)
    chosen[clips] = True
    bitmap = np.packbits(chosen, bitorder="little")
    return bitmap, faiss_module().IDSelectorBitmap(bitmap), len(clips)


def faiss_module() -> Any:
    """Import FAISS; its stubs know SWIG's signatures, not the Python ones."""
    import faiss

    return faiss


def file_crc32(path: Path) -> int:
    """Return the CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc
