"""From VGGish's output to the bytes that AudioSet released: PCA, whitening, clipping, 8 bits.

As published with VGGish: the mean is subtracted, the result multiplied by the matrix of
eigenvectors (which whitens, too), clipped to [-2, 2], mapped linearly to [0, 255], and cut, not
rounded, to a whole number.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import ModelError, printable

__all__ = ["Postprocessor", "read_postprocessor"]

_MATRIX, _MEANS = "pca_eigen_vectors", "pca_means"
_LOWEST, _HIGHEST = -2.0, 2.0
# The published file has 73 kB; what is far larger is something else.
_MOST_BYTES = 4_000_000
# Rows at once, padded, so that a row's last bit never depends on how many there are.
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Postprocessor:
    """The published parameters.

    Attributes
    ----------
    matrix : float64 (128, 128)
        One whitened direction a row.
    means : float64 (128,)
        Mean of VGGish's output.
    """

    matrix: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]

    def __call__(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Post-process VGGish's output (n, 128); a row depends on its input row alone."""
        result = np.empty(values.shape, np.uint8)
        for first in range(0, len(values), _ROWS):
            count = min(_ROWS, len(values) - first)
            rows = np.zeros((_ROWS, EMBEDDING_SIZE))
            rows[:count] = values[first : first + count] - self.means
            whitened = np.clip(rows @ self.matrix.T, _LOWEST, _HIGHEST)
            scaled = (whitened - _LOWEST) * (255.0 / (_HIGHEST - _LOWEST))
            result[first : first + count] = scaled[:count].astype(np.uint8)
        return result


def read_postprocessor(path: str | os.PathLike[str]) -> Postprocessor:
    """Read the published ``vggish_pca_params.npz``.

    Raises
    ------
    ModelError
        When it is missing, damaged, or holds something else.
    """
    name = printable(os.fspath(path))
    if not Path(path).is_file():
        raise ModelError(f"{name}: there is no such file. It holds VGGish's PCA parameters.")
    try:
        size = Path(path).stat().st_size
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(item.file_size for item in archive.infolist()))
        if size > _MOST_BYTES:
            raise ValueError(f"{size:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: np.asarray(file[key]) for key in (_MATRIX, _MEANS)}
    except Exception as error:  # damaged headers make NumPy's and Python's parsers raise anything
        raise ModelError(
            f"{name} is not the file of VGGish's PCA parameters, or it is damaged "
            f"({type(error).__name__}: {error}). Fetch it again."
        ) from error
    size = EMBEDDING_SIZE
    for key, shapes in ((_MATRIX, ((size, size),)), (_MEANS, ((size,), (size, 1)))):
        array = arrays[key]
        if array.shape not in shapes or array.dtype.kind != "f":
            raise ModelError(
                f"{name}: '{key}' is {array.dtype} {array.shape}; VGGish's is floating point "
                f"{shapes[0]}. Fetch the file again."
            )
        if not np.isfinite(array).all():
            raise ModelError(f"{name}: '{key}' holds values that are not finite. Fetch it again.")
    return Postprocessor(
        arrays[_MATRIX].astype(np.float64), arrays[_MEANS].astype(np.float64).reshape(-1)
    )
