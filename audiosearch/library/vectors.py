"""Nearest search vectors, by cosine, through FAISS.

The FAISS index is derived from the library's vectors and lives in memory only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError

__all__ = ["VectorIndex"]


class VectorIndex:
    """Finds the clips whose search vectors point most nearly the same way.

    Parameters
    ----------
    vectors : int8 (clips, d)
        As `audiosearch.library.columns.encode_vectors` made them.
    live : bool (clips,)
        False for clips that were removed; they are never found.
    """

    def __init__(self, vectors: npt.NDArray[np.int8], live: npt.NDArray[np.bool_]) -> None:
        import faiss

        self._faiss: Any = faiss  # its stubs know SWIG's signatures, not the Python ones
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        for start in range(0, len(vectors), 65536):
            self._index.add(_unit(np.asarray(vectors[start : start + 65536], np.float32)))
        self._live = int(live.sum())
        self._bitmap = np.packbits(live, bitorder="little")

    def search(
        self, vector: npt.NDArray[np.floating], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the `count` nearest clips, best first, and their cosines; fewer if there are.

        Raises
        ------
        InvalidArgumentError
            When the vector has another size or is not finite, or `count` is below 1.
        """
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self._index.d,) or not np.isfinite(vector).all():
            raise InvalidArgumentError(
                f"A search vector has {self._index.d} finite values, not shape {vector.shape}."
            )
        if count < 1:
            raise InvalidArgumentError(f"count must be at least 1, not {count}.")
        count = min(count, self._live)
        if not count:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        selector = self._faiss.IDSelectorBitmap(self._bitmap)
        parameters = self._faiss.SearchParameters(sel=selector)
        cosines, clips = self._index.search(_unit(vector[None]), count, params=parameters)
        return clips[0], np.clip(cosines[0], -1.0, 1.0)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), np.float32)
