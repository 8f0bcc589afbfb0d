"""VGGish as an embedder: the ONNX graph, then PCA and quantisation as AudioSet was released."""

from __future__ import annotations

import numpy as np

from audiosearch.embedders.base import checked_patches
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish.postprocess import read_postprocessor
from audiosearch.embedders.vggish.store import NAME, QUANTISED, installed
from audiosearch.errors import ModelError

__all__ = ["VggishEmbedder"]


class VggishEmbedder:
    """The real VGGish. It needs no TensorFlow, and about 0.45 GB of memory.

    Parameters
    ----------
    variant : str
        ``"vggish"``, or ``"vggish-int8"``, which `audiosearch.embedders.vggish.checks` must have
        accepted on this machine.
    threads : int, optional
        Threads for one batch; by default, as many as the processor has cores.

    Raises
    ------
    InvalidArgumentError
        When `threads` is less than 1.
    ModelError
        When it is not installed or damaged, or the int8 variant was not accepted.
    """

    def __init__(self, variant: str = NAME, *, threads: int | None = None) -> None:
        files = installed(variant)
        if variant == QUANTISED and files.model.manifest.get("accepted") is not True:
            raise ModelError(
                "The int8 variant of VGGish agrees too little with VGGish on this machine, so it "
                "is not used. See: audiosearch models verify vggish --quantised"
            )
        self.name = variant
        self._weights_hash = files.weights_hash
        self._postprocess = read_postprocessor(files.pca)
        self._network = PatchNetwork(files.model.path, name=variant, threads=threads)

    @property
    def weights_hash(self) -> str:
        """What identifies the weights, 64 hexadecimal digits, wherever they came from."""
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
        return self._postprocess(self._network.run(checked_patches(log_mel)))
