"""The bundled embedder: a small convolutional student of VGGish, in ONNX Runtime.

Its network takes log-mel patches (n, 96, 64) float32 and gives (n, 128) float32 in [-1, 1]; see
`audiosearch.embedders.base` for the bytes that become of them.
"""

from __future__ import annotations

import numpy as np

from audiosearch.embedders.base import checked_patches, quantize
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.models import bundled_model

__all__ = ["LiteEmbedder"]


class LiteEmbedder:
    """The bundled student network.

    Parameters
    ----------
    threads : int, optional
        Threads for one batch; by default, as many as the processor has cores.

    Raises
    ------
    InvalidArgumentError
        When `threads` is less than 1.
    ModelError
        When the weights are missing, damaged, or not of the expected shape.
    """

    name = "lite"

    def __init__(self, *, threads: int | None = None) -> None:
        model = bundled_model(self.name)
        self._network = PatchNetwork(model.path, name=self.name, threads=threads)
        self._weights_hash = model.sha256

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights, 64 hexadecimal digits."""
        return self._weights_hash

    def embed_patches(self, log_mel: np.ndarray) -> np.ndarray:
        """Embed log-mel patches.

        May be called from several threads at once.

        Parameters
        ----------
        log_mel : np.ndarray
            Patches as `audiosearch.frontend.patches` gives them, shape (n, 96, 64), float32,
            finite; n may be 0.

        Returns
        -------
        np.ndarray
            Shape (n, 128), uint8. A row depends on its patch alone, to the bit.

        Raises
        ------
        InvalidArgumentError
            When `log_mel` has another shape or type, or is not finite.
        ModelError
            When the runtime fails.
        """
        return quantize(self._network.run(checked_patches(log_mel)))
