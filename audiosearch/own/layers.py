"""Inner layers of the bundled embedder, to build classifiers on.

Its embedding of 128 bytes is what AudioSet's features keep of a sound. The layers before its last
one tell more kinds of sounds apart than those of AudioSet: the convolutions hold what a sound is
like in detail, such as which word is spoken, the hidden layer what kind of sound it is.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import MissingDependencyError
from audiosearch.models import bundled_model, onnx_session

__all__ = ["load_trunk", "run_hidden", "run_layers"]

_TRUNK_VALUES = 768
_HIDDEN_VALUES = 512
_BATCH = 16

Floats = npt.NDArray[np.float32]


def load_trunk() -> Any:
    """Return the convolutions as an ONNX model: (n, 96, 64) to (n, 768), float32.

    It ends before the first dense layer, where the mean over time is taken: 192 values of each of
    four bands.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    """
    return _before_dense(0)


def run_layers(patches: Floats) -> Floats:
    """Return what the first and the last dense layer are given of patches, float32 (n, 1280).

    Parameters
    ----------
    patches : float32 (n, 96, 64)
        Log-mel.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    """
    session = _session()
    values = np.empty((len(patches), _TRUNK_VALUES + _HIDDEN_VALUES), np.float32)
    for first in range(0, len(patches), _BATCH):
        batch = patches[first : first + _BATCH]
        # One batch size, so that a value never depends on what else is computed.
        padded = np.zeros((_BATCH, *batch.shape[1:]), np.float32)
        padded[: len(batch)] = batch
        given = np.concatenate(session.run(None, {session.get_inputs()[0].name: padded}), axis=1)
        values[first : first + len(batch)] = given[: len(batch)]
    return values


def run_hidden(patches: Floats) -> Floats:
    """Return what the last dense layer is given of patches (n, 96, 64), float32 (n, 512).

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    """
    return run_layers(patches)[:, _TRUNK_VALUES:]


def _before_dense(*numbers: int) -> Any:
    """Return the embedder up to some of its dense layers, as an ONNX model."""
    try:
        import onnx
        from onnx import shape_inference, utils
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", extra="tensorflow", purpose="Building on the bundled embedder"
        ) from error
    model = shape_inference.infer_shapes(onnx.load(bundled_model("lite").path))
    dense = [node for node in model.graph.node if node.op_type == "Gemm"]
    ends = [dense[number].input[0] for number in numbers]
    return utils.Extractor(model).extract_model([model.graph.input[0].name], ends)


@functools.cache
def _session() -> Any:
    return onnx_session(_before_dense(0, -1).SerializeToString(), name="The model 'lite'")
