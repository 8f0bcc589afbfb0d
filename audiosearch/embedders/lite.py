"""The bundled embedder: a small convolutional student of VGGish, in ONNX Runtime.

Its network takes log-mel patches (n, 96, 64) float32 and gives (n, 128) float32 in [-1, 1]; see
`audiosearch.embedders.base` for the bytes that become of them.
"""

from __future__ import annotations

import numpy as np

from audiosearch.embedders.base import EMBEDDING_SIZE, checked_patches, quantize
from audiosearch.errors import InvalidArgumentError, ModelError
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from audiosearch.models import bundled_model

__all__ = ["LiteEmbedder"]

# Every run has this many patches, padded with zeros, so that kernels, and with them the last bit,
# never depend on how many there are. Measured: the fastest size on two threads (8: -15 %,
# 64: -9 %), and on one within 2 % of the best.
_BATCH = 16


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
        if threads is not None and (isinstance(threads, bool) or threads < 1):
            raise InvalidArgumentError(f"threads must be 1 or more, not {threads!r}.")
        model = bundled_model(self.name)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: the runtime counts the cores
        options.inter_op_num_threads = 1
        # Threads that spin while they wait halve the speed where other processes want the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # only what is fatal; errors also come as exceptions
        try:
            session = onnxruntime.InferenceSession(
                str(model.path), options, providers=["CPUExecutionProvider"]
            )
            (source,), (result,) = session.get_inputs(), session.get_outputs()
        except Exception as error:  # the runtime's exceptions share no public base
            raise ModelError(f"The model '{self.name}' cannot be loaded: {error}") from error
        expected = [PATCH_FRAMES, MEL_BANDS], [EMBEDDING_SIZE]
        if (list(source.shape[1:]), list(result.shape[1:])) != expected:
            raise ModelError(
                f"The model '{self.name}' takes {source.shape} and gives {result.shape}; expected "
                f"patches of {expected[0]} and embeddings of {expected[1]}."
            )
        self._session = session
        self._input = source.name
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
        patches = checked_patches(log_mel)
        embeddings = np.empty((len(patches), EMBEDDING_SIZE), dtype=np.uint8)
        for first in range(0, len(patches), _BATCH):
            batch = patches[first : first + _BATCH]
            count = len(batch)
            if count < _BATCH:
                padded = np.zeros((_BATCH, PATCH_FRAMES, MEL_BANDS), dtype=np.float32)
                padded[:count] = batch
                batch = padded
            try:
                (values,) = self._session.run(None, {self._input: batch})
            except Exception as error:
                raise ModelError(f"The model '{self.name}' failed: {error}") from error
            if not np.isfinite(values[:count]).all():
                raise InvalidArgumentError(
                    "Patches hold values so far from any sound's that the network overflows."
                )
            embeddings[first : first + count] = quantize(values[:count])
        return embeddings
