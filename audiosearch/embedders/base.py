"""What every embedder is: its interface, and the space that its 8-bit values live in.

All embedders speak the released AudioSet format: VGGish's 128 values a patch, PCA-whitened, clipped
to [-2, 2] and stored as uint8. Classifiers and searches work on (uint8 - 128) / 128.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES

__all__ = ["EMBEDDING_SIZE", "SPACE", "Embedder", "checked_patches", "dequantize", "quantize"]

EMBEDDING_SIZE = 128
"""Values in an embedding."""

SPACE = "audioset-vggish"
"""Name of the space, as manifests write it."""


@runtime_checkable
class Embedder(Protocol):
    """Turns log-mel patches into embeddings.

    The same patch gives the same bytes, whatever other patches it comes with.

    Attributes
    ----------
    name : str
        As `get_embedder` takes it and as a library's manifest records it.
    weights_hash : str
        SHA-256 of the weights, 64 hexadecimal digits.
    """

    @property
    def name(self) -> str:
        """Name in the registry."""

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights."""

    def embed_patches(self, log_mel: np.ndarray) -> np.ndarray:
        """Embed patches (n, 96, 64) float32; return (n, 128) uint8."""


def dequantize(embeddings: np.ndarray) -> np.ndarray:
    """Return the values that classifiers and searches work on: (uint8 - 128) / 128.

    Parameters
    ----------
    embeddings : np.ndarray
        uint8, any shape.

    Returns
    -------
    np.ndarray
        float32 in [-1, 1), the same shape. Exact: `quantize` gives the bytes back.

    Raises
    ------
    InvalidArgumentError
        When `embeddings` is not uint8.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.dtype != np.uint8:
        raise InvalidArgumentError(f"Embeddings must be uint8, not {embeddings.dtype}.")
    return (embeddings.astype(np.float32) - np.float32(128)) / np.float32(128)


def quantize(values: np.ndarray) -> np.ndarray:
    """Return the nearest bytes of values in [-1, 1): round(128 v + 128), clipped to 0..255.

    Values outside are clipped, as in the released embeddings.

    Parameters
    ----------
    values : np.ndarray
        Floating point, finite, any shape.

    Returns
    -------
    np.ndarray
        uint8, the same shape.

    Raises
    ------
    InvalidArgumentError
        When `values` is not floating point or not finite.
    """
    values = np.asarray(values)
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise InvalidArgumentError("Values to quantize must be finite floating-point numbers.")
    scaled = np.rint(values * np.float32(128) + np.float32(128))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def checked_patches(log_mel: np.ndarray) -> np.ndarray:
    """Return `log_mel` as contiguous float32, or refuse it.

    Raises
    ------
    InvalidArgumentError
        When it is not a finite float32 array of shape (n, 96, 64).
    """
    if not isinstance(log_mel, np.ndarray) or log_mel.shape[1:] != (PATCH_FRAMES, MEL_BANDS):
        raise InvalidArgumentError(
            f"Patches must be an array of shape (n, {PATCH_FRAMES}, {MEL_BANDS}), not "
            f"{getattr(log_mel, 'shape', type(log_mel).__name__)}."
        )
    if log_mel.dtype != np.float32:
        raise InvalidArgumentError(f"Patches must be float32, not {log_mel.dtype}.")
    if not np.isfinite(log_mel).all():
        raise InvalidArgumentError("Patches must be finite; they hold NaN or infinity.")
    return np.ascontiguousarray(log_mel)
