"""A stand-in for the published VGGish: random weights that pass Google's smoke test.

The weights cannot be had in a test, but everything around them can: files of the same three kinds
(SavedModel with TensorFlow Hub's signature, its archive, checkpoints of both formats with the
original names of the variables), and PCA parameters of the same layout. The last layer's bias and
the PCA's scale are chosen so that the 1 kHz tone gives the published figures.
"""

from __future__ import annotations

import functools
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch import frontend
from audiosearch.embedders.vggish.layers import LAYERS

Weights = dict[str, np.ndarray]

# From vggish_smoke_test.py: mean and standard deviation of the embedding, then of its bytes.
PUBLISHED = (0.000657, 0.343, 126.0, 89.3)


def tone_patches() -> np.ndarray:
    """The published test signal: 3 s of 1 kHz at 16 kHz."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(0, 3, 1 / 16000))
    return np.concatenate(list(frontend.patches(tone)))


def random_weights(seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)
    weights = {}
    for layer in LAYERS:
        fan_in = np.prod(layer.shape[:-1])
        scale = np.float32(np.sqrt(2 / fan_in))
        weights[layer.kernel] = random.standard_normal(layer.shape, dtype=np.float32) * scale
        weights[layer.bias] = random.standard_normal(layer.units, dtype=np.float32) * 0.1
    return weights


def passing_weights(network: Any, seed: int = 0) -> Weights:
    """Random weights whose output for the tone has the published mean and deviation.

    `network` is a `build_network`, whose weights are set.
    """
    weights = random_weights(seed)
    set_weights(network, weights)
    (before,) = np.asarray(network(tone_patches()[:1]))
    # What varies from sound to sound has the size of the published deviation, too.
    scale = np.float32(PUBLISHED[1] / before.std())
    weights["vggish/fc2/weights"] *= scale
    weights["vggish/fc2/biases"] *= scale
    before = before * scale
    wanted = np.random.default_rng(seed + 1).normal(size=128)
    wanted = (wanted - wanted.mean()) / wanted.std() * PUBLISHED[1] + PUBLISHED[0]
    weights["vggish/fc2/biases"] += (wanted - before).astype(np.float32)
    set_weights(network, weights)
    return weights


def set_weights(network: Any, weights: Weights) -> None:
    for layer in LAYERS:
        network.get_layer(layer.name).set_weights([weights[layer.kernel], weights[layer.bias]])


def passing_pca(output: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """PCA parameters that give the tone's `output` (128,) bytes of the published deviation."""
    random = np.random.default_rng(seed)
    matrix = np.linalg.qr(random.normal(size=(128, 128)))[0]
    means = random.normal(0, 0.1, 128)
    low, high = 0.1, 1000.0
    for _ in range(60):
        scale = np.sqrt(low * high)
        values = np.clip(scale * matrix @ (output - means), -2, 2)
        low, high = (scale, high) if ((values + 2) * 63.75).std() < PUBLISHED[3] else (low, scale)
    return {"pca_eigen_vectors": scale * matrix, "pca_means": means}


def write_saved_model(weights: Weights, folder: Path) -> None:
    """Write a SavedModel as the Hub's: waveform (samples,) in, (n, 128) out, before activation.

    Its variables are made as TensorFlow 1 makes them, inside a wrapped function, and tracked in a
    list.
    """
    import tensorflow as tf

    def variable(name: str) -> Any:
        initial = tf.compat.v1.constant_initializer(weights[name])
        return tf.compat.v1.get_variable(
            name, weights[name].shape, initializer=initial, use_resource=True
        )

    def log_mel(waveform: Any) -> Any:
        spectrum = tf.abs(tf.signal.stft(waveform, 400, 160, 512, window_fn=tf.signal.hann_window))
        mel = tf.signal.linear_to_mel_weight_matrix(64, 257, 16000, 125.0, 7500.0)
        return tf.signal.frame(tf.math.log(spectrum @ mel + 0.01), 96, 96, axis=0)

    def define(made: list[Any], waveform: Any) -> Any:
        def track(make: Any, **options: Any) -> Any:
            made.append(make(**options | {"initial_value": weights[options["name"]]}))
            return made[-1]

        x = log_mel(waveform)[..., None]
        with tf.variable_creator_scope(track):
            for layer in LAYERS:
                kernel, bias = variable(layer.kernel), variable(layer.bias)
                if len(layer.shape) == 4:
                    x = tf.nn.conv2d(x, kernel, 1, "SAME") + bias
                else:
                    x = tf.reshape(x, (-1, layer.shape[0])) @ kernel + bias
                if layer is not LAYERS[-1]:
                    x = tf.nn.relu(x)
                if layer.pooled:
                    x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        return x

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self._variables: list[Any] = []
            self._function = tf.compat.v1.wrap_function(
                functools.partial(define, self._variables), (tf.TensorSpec([None], tf.float32),)
            )

        @tf.function(input_signature=(tf.TensorSpec([None], tf.float32),))
        def __call__(self, waveform: Any) -> Any:
            return self._function(waveform)

    tf.saved_model.save(Module(), str(folder))


def write_archive(folder: Path, path: Path) -> None:
    """Pack a SavedModel as the Hub serves it; quickly, as random weights do not compress."""
    with tarfile.open(path, "w:gz", compresslevel=0) as archive:
        archive.add(folder, arcname=".")


def write_checkpoint(weights: Weights, prefix: Path, *, version: int) -> None:
    """Write a checkpoint of format 1 (one file, as the published one) or 2, and more in it."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        names = {name: tf1.placeholder(tf.float32, array.shape) for name, array in weights.items()}
        variables = {
            name: tf1.get_variable(name, initializer=slot, use_resource=False)
            for name, slot in names.items()
        }
        tf1.get_variable("global_step", initializer=tf.constant(7, tf.int64))
        feed = {names[name]: array for name, array in weights.items()}
        session.run(tf1.global_variables_initializer(), feed)
        saver = tf1.train.Saver(write_version=version)
        saver.save(session, str(prefix), write_meta_graph=False, latest_filename="latest")
        assert set(variables) == set(weights)


@dataclass(frozen=True)
class PublishedFiles:
    """The stand-in's files, and what the network makes of some patches.

    Attributes
    ----------
    folder : Path
        Holds ``saved_model/``, ``vggish_1.tar.gz``, ``vggish_model.ckpt`` (format 1) and
        ``vggish_pca_params.npz``, as they are published.
    network : keras.Model
        As `build_network` makes it, with the weights set.
    weights : dict
        By the names of the published variables.
    patches : np.ndarray
        Log-mel patches (n, 96, 64) of varied sounds.
    output : np.ndarray
        Keras's output (n, 128) for them.
    """

    folder: Path
    network: Any
    weights: Weights
    patches: np.ndarray
    output: np.ndarray


def write_published(folder: Path) -> PublishedFiles:
    """Write all files of the stand-in."""
    from audiosearch.embedders.vggish.network import build_network

    network = build_network()
    weights = passing_weights(network)
    write_saved_model(weights, folder / "saved_model")
    write_archive(folder / "saved_model", folder / "vggish_1.tar.gz")
    write_checkpoint(weights, folder / "vggish_model.ckpt", version=1)
    tone = np.asarray(network(tone_patches()[:1]))[0]
    np.savez(folder / "vggish_pca_params.npz", **passing_pca(tone))
    random = np.random.default_rng(3)
    level = np.repeat(10 ** random.uniform(-3, 0, 6), 15360)
    sound = level * np.sin(np.cumsum(random.uniform(0.01, 2, level.size)))
    patches = np.concatenate(list(frontend.patches(sound)))
    return PublishedFiles(folder, network, weights, patches, np.asarray(network(patches)))
