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

__all__ = ["load_trunk", "run_hidden", "run_layers", "stored_weights"]

_TRUNK_VALUES = 1280
_HIDDEN_VALUES = 512
_BATCH = 16
_AFTER_TRUNK = "map_3"
"""The convolution that is given what the third stage holds."""
_TRUNK, _HIDDEN = "trunk", "hidden"

Floats = npt.NDArray[np.float32]


def load_trunk() -> Any:
    """Return three stages of convolutions as an ONNX model: (n, 96, 64) to (n, 1280), float32.

    It ends with the mean over time of what the third stage holds: 320 values of each of four bands.

    Raises
    ------
    MissingDependencyError
        When onnx is not installed.
    """
    return _cut(_TRUNK)


def stored_weights(model: Any) -> dict[str, Floats]:
    """Return an ONNX model's weights by name, as what is stored small stands for.

    Parameters
    ----------
    model : onnx.ModelProto
        Its int8 and float16 weights are widened by Cast, and by Mul with a scale.
    """
    from onnx import numpy_helper

    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Mul") and all(name in weights for name in node.input):
            first, *others = (weights[name].astype(np.float32) for name in node.input)
            weights[node.output[0]] = first * others[0] if others else first
    return weights


def run_layers(patches: Floats) -> Floats:
    """Return what `load_trunk` gives of patches and the last dense layer is given, (n, 1792).

    Parameters
    ----------
    patches : float32 (n, 96, 64)
        Log-mel.

    Returns
    -------
    float32 (n, 1792)
        1,280 values of the trunk, then the 512 of the hidden layer.

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


def _cut(*ends: str) -> Any:
    """Return the embedder up to some of its results, or their mean over time, as an ONNX model."""
    try:
        import onnx
        from onnx import TensorProto, helper, shape_inference, utils
    except ImportError as error:
        raise MissingDependencyError(
            "onnx", extra="tensorflow", purpose="Building on the bundled embedder"
        ) from error
    model = onnx.load(bundled_model("lite").path)
    graph = model.graph
    place = next(node for node in graph.node if node.name == _AFTER_TRUNK).input[0]
    graph.node.append(helper.make_node("ReduceMean", [place], ["over_time"], axes=[2], keepdims=0))
    graph.node.append(helper.make_node("Flatten", ["over_time"], [_TRUNK]))
    graph.output.append(
        helper.make_tensor_value_info(_TRUNK, TensorProto.FLOAT, ["n", _TRUNK_VALUES])
    )
    last = [node for node in graph.node if node.op_type == "Gemm"][-1]
    named = {_TRUNK: _TRUNK, _HIDDEN: last.input[0]}
    model = shape_inference.infer_shapes(model)
    extractor = utils.Extractor(model)
    return extractor.extract_model([graph.input[0].name], [named[end] for end in ends])


@functools.cache
def _session() -> Any:
    model = _cut(_TRUNK, _HIDDEN)
    return onnx_session(model.SerializeToString(), name="The model 'lite'")
