"""A network of log-mel patches in ONNX Runtime, the same to the bit however it is called."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import InvalidArgumentError, ModelError, printable
from audiosearch.frontend import MEL_BANDS, PATCH_FRAMES
from audiosearch.models import onnx_session

__all__ = ["PatchNetwork"]

# Every run has this many patches, padded with zeros, so that kernels, and with them the last bit,
# never depend on how many there are. Measured with `lite`: the fastest size on two threads (8:
# -15 %, 64: -9 %), and on one within 2 % of the best.
_BATCH = 16


class PatchNetwork:
    """An ONNX model that takes patches (n, 96, 64) and gives (n, 128), both float32.

    Parameters
    ----------
    path : path-like
        The ONNX file.
    name : str
        What messages call the model.
    threads : int, optional
        Threads for one batch; by default, as many as the processor has cores.

    Raises
    ------
    InvalidArgumentError
        When `threads` is less than 1.
    ModelError
        When the model cannot be loaded, or is not of the expected shape.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, name: str, threads: int | None = None
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or threads < 1):
            raise InvalidArgumentError(f"threads must be 1 or more, not {threads!r}.")
        self._name = printable(name)
        session = onnx_session(path, name=f"The model '{self._name}'", threads=threads)
        try:
            (source,), (result,) = session.get_inputs(), session.get_outputs()
        except ValueError as error:
            raise ModelError(f"The model '{self._name}' cannot be loaded: {error}") from error
        expected = [PATCH_FRAMES, MEL_BANDS], [EMBEDDING_SIZE]
        if (list(source.shape[1:]), list(result.shape[1:])) != expected:
            raise ModelError(
                f"The model '{self._name}' takes {source.shape} and gives {result.shape}; expected "
                f"patches of {expected[0]} and embeddings of {expected[1]}."
            )
        self._session = session
        self._input = source.name

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the network's values, a row of which depends on its patch alone, to the bit.

        May be called from several threads at once.

        Parameters
        ----------
        patches : float32 (n, 96, 64)
            As `audiosearch.embedders.base.checked_patches` returns them.

        Returns
        -------
        float32 (n, 128)

        Raises
        ------
        InvalidArgumentError
            When the network overflows.
        ModelError
            When the runtime fails.
        """
        values = np.empty((len(patches), EMBEDDING_SIZE), np.float32)
        for first in range(0, len(patches), _BATCH):
            batch = patches[first : first + _BATCH]
            count = len(batch)
            if count < _BATCH:
                padded = np.zeros((_BATCH, PATCH_FRAMES, MEL_BANDS), np.float32)
                padded[:count] = batch
                batch = padded
            try:
                (result,) = self._session.run(None, {self._input: batch})
            except Exception as error:
                raise ModelError(f"The model '{self._name}' failed: {error}") from error
            values[first : first + count] = result[:count]
        if not np.isfinite(values).all():
            raise InvalidArgumentError(
                "Patches hold values so far from any sound's that the network overflows."
            )
        return values
