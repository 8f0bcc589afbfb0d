"""What single frames say of their clip: a small network that answers frames as the teacher does.

A rescorer that reads a clip's mean, largest and smallest values learns from a tag a clip. The
teacher says more: it scores every patch. This network learns that, frame by frame, and a clip's
score is the mean over its frames.

    score = mean over frames of sigmoid(dense(relu(dense(frame))))

Frames are drawn by the inverse root of how frequent their clip's top class is, and the embedder saw
these sounds in its training, so noise is put on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.clip_statistics import ClipNodes
from audiosearch.classifier.network import import_keras
from audiosearch.datasets.packed import FRAME_VALUES, frame_mask
from audiosearch.embedders.base import dequantize
from audiosearch.labels import CLASS_COUNT
from tools.lite.fitting import FitConfig, Layers, fit, hidden_layer

__all__ = ["FrameScores", "train_frames"]

Floats = npt.NDArray[np.float32]

_SMALL = 1e-6
_ALWAYS = 1e-4  # mean score that is added to each class's
_CLIPS_AT_ONCE = 4096


@dataclass(frozen=True)
class FrameScores:
    """What was learnt.

    Attributes
    ----------
    layers : Layers
        For the values ``(uint8 - 128) / 128`` of a frame.
    """

    layers: Layers

    def logits(self, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[Any]) -> Floats:
        """Return the logits of clips' scores, float32 (n, 527), of frames uint8 (n, 10, 128)."""
        counts = np.asarray(n_frames)
        result = np.empty((len(x), CLASS_COUNT), np.float32)
        for begin in range(0, len(x), _CLIPS_AT_ONCE):
            rows = slice(begin, begin + _CLIPS_AT_ONCE)
            frames = dequantize(x[rows][frame_mask(counts[rows]) > 0])
            heard = 1 / (1 + np.exp(-self.layers.apply(frames)))
            starts = np.cumsum(counts[rows]) - counts[rows]
            mean = np.add.reduceat(heard, starts) / counts[rows][:, None]
            result[rows] = np.log(mean + _SMALL) - np.log1p(_SMALL - mean)
        return result

    def nodes(self, graph: ClipNodes) -> str:
        """Add it to a rescorer's graph and return the name of its scores' odds, (n, 527)."""
        mean = graph.mean(graph.op("Sigmoid", self.layers.nodes(graph, "frames")))
        against = graph.op("Sub", graph.number(1 + _SMALL), mean)
        return graph.op("Div", graph.op("Add", mean, graph.number(_SMALL)), against)


def train_frames(
    frames: npt.NDArray[np.uint8],
    heard: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float64],
    config: FitConfig,
    *,
    seed: int,
    say: Callable[[str], None] = print,
) -> FrameScores:
    """Learn what the teacher says of each frame.

    The result is that of the seed, to the bit on one machine with one number of threads.

    Parameters
    ----------
    frames : uint8 (frames, 128)
        Embedding frames.
    heard : uint8 (frames, 527)
        The teacher's scores of the same patches times 255.
    weights : float64 (frames,)
        How often each is drawn, sum 1.
    config : FitConfig
        Settings.
    seed : int
        Seed of the first weights and of what is drawn.
    say : callable
        Called with a line an epoch.
    """
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    # Not one float32 array of all frames: there are hundreds of thousands.
    mean = (frames.mean(axis=0) - 128) / 128
    deviation = frames.std(axis=0) / 128 + _SMALL

    def examples(rows: npt.NDArray[np.int64]) -> tuple[Floats, None, Floats]:
        values = ((dequantize(frames[rows]) - mean) / deviation).astype(np.float32)
        return values, None, heard[rows].astype(np.float32) / np.float32(255)

    frame = keras.Input((FRAME_VALUES,), name="frame")
    hidden = hidden_layer(frame, config)
    scores = keras.layers.Dense(CLASS_COUNT, name="scores")
    network = keras.Model(frame, scores(hidden))
    share = heard.mean(axis=0) / 255 + _ALWAYS
    scores.bias.assign(np.log(share / (1 - share)).astype(np.float32))
    random = np.random.default_rng(seed)
    fit(network, examples, weights, config, random, name="frames", say=say)
    return FrameScores(Layers.of(network, "scores", mean=mean, deviation=deviation))
