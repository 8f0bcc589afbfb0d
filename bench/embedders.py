"""Speed of the embedders, beside YAMNet, VGGish in TensorFlow, and librosa's log-mel.

Run: ``python bench/embedders.py [--seconds 300] [--threads 2] [--yamnet yamnet.tflite]``

All work on the same made sound, in one run, in turns; the best of several turns counts. In a turn
each works twice, and only the second time counts: threads of the one before still wait for work,
which takes a core from the first. Prints seconds of sound per second of work, and the ratio to
`lite`. VGGish has random weights, which changes no speed. YAMNet takes the waveform, one window
each 0.96 s, so its front end is in its figure; the others take log-mel patches, whose making is a
line of its own.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch import frontend
from audiosearch.audio import SAMPLE_RATE
from audiosearch.embedders import get_embedder
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish.graph import write_graph, write_quantised
from audiosearch.embedders.vggish.layers import SHAPES
from audiosearch.embedders.vggish.probes import made_patches

_TURNS = 3
_BATCH = 16


def vggish_graphs(threads: int) -> dict[str, Callable[[np.ndarray], object]]:
    """Return VGGish with random weights: in ONNX Runtime, as int8, and in TensorFlow."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for name, shape in SHAPES.items():
        weights[name] = random.standard_normal(shape, dtype=np.float32)
        weights[name] *= math.sqrt(2 / math.prod(shape[:-1]))
    with tempfile.TemporaryDirectory() as scratch:
        exact, int8 = Path(scratch) / "vggish.onnx", Path(scratch) / "int8.onnx"
        write_graph(weights, exact)
        write_quantised(exact, int8, patches=made_patches(8, seed=0))
        found: dict[str, Callable[[np.ndarray], object]] = {
            "vggish, ONNX Runtime": PatchNetwork(exact, name="vggish", threads=threads).run,
            "vggish, int8": PatchNetwork(int8, name="int8", threads=threads).run,
        }
    try:
        import tensorflow as tf
    except ImportError:
        print("TensorFlow is not installed: VGGish is not measured in it.")
        return found
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    from audiosearch.embedders.vggish.network import build_network

    network = tf.function(build_network(weights))

    def run(patches: np.ndarray) -> None:
        for first in range(0, len(patches), _BATCH):
            network(patches[first : first + _BATCH])

    return found | {"vggish, TensorFlow": run}


def yamnet(path: Path, threads: int) -> Callable[[np.ndarray], object]:
    """Return YAMNet in LiteRT, from a model that takes one window of a waveform at a time."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    interpreter: Any = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    window = int(source["shape"][-1])
    step = round(frontend.PATCH_SECONDS * SAMPLE_RATE)

    def run(sound: np.ndarray) -> None:
        for first in range(0, len(sound) - window + 1, step):
            piece = sound[first : first + window].reshape(source["shape"])
            interpreter.set_tensor(source["index"], piece)
            interpreter.invoke()

    return run


def librosa_log_mel(sound: np.ndarray) -> np.ndarray:
    import librosa

    mel = librosa.feature.melspectrogram(
        y=sound, sr=SAMPLE_RATE, n_fft=512, win_length=400, hop_length=160, center=False,
        power=1.0, n_mels=64, fmin=125.0, fmax=7500.0, htk=True, norm=None,
    )  # fmt: skip
    return np.log(mel + 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=300, help="length of the sound (300)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="all cores")
    parser.add_argument("--yamnet", type=Path, help="YAMNet for LiteRT that takes a waveform")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    sound = random.standard_normal(options.seconds * SAMPLE_RATE).astype(np.float32) / 10
    patches = np.concatenate(list(frontend.patches(sound)))
    lite = get_embedder("lite", threads=options.threads)

    works: dict[str, Callable[[], object]] = {"lite": lambda: lite.embed_patches(patches)}
    for name, run in vggish_graphs(options.threads).items():
        works[name] = functools.partial(run, patches)
    if options.yamnet:
        tagger = yamnet(options.yamnet, options.threads)
        works["YAMNet, LiteRT"] = lambda: tagger(sound)
    works["log-mel, audiosearch"] = lambda: sum(map(len, frontend.patches(sound)))
    works["log-mel, librosa"] = lambda: librosa_log_mel(sound)

    best = dict.fromkeys(works, float("inf"))
    for _ in range(_TURNS):
        for name, work in works.items():
            work()
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    for name, seconds in best.items():
        speed, ratio = options.seconds / seconds, best["lite"] / seconds
        print(f"{name:<22} {speed:8.0f} x real time  {ratio:7.3f} of lite")


if __name__ == "__main__":
    main()
