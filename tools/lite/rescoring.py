"""The rescorer of the bundled embedder's clips: a small network on their scores and their frames.

The classifier was trained on released embeddings. What an embedder gets wrong, it gets wrong in its
own way, and that can be learnt: from the shards' clips, embedded, and the teacher's tags of them.

    logit = slope * classifier's calibrated logit + share * dense(relu(dense(features)))
    score = sigmoid(logit - (prior * log frequency - number) * (1 - sigmoid(logit)))

class by class. The features are the classifier's 527 logits, and mean, largest and smallest values
of the clip's frames. Clips are drawn by the inverse root of how frequent their top class is, mixed
ones more often. The embedder saw these sounds in its training, so their embeddings are better than
those of new ones: noise is put on the features, and of what is learnt only a share counts.

Where little is known of a sound, a score tends to the frequency of its class among the tags, and
"Music" and "Vehicle" stand before what the sound is. The last step takes a part of that back where
a score is unsure (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021) and adds one
number to all classes, so that scores are as high as before on the whole. The order of clips by one
class stays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from audiosearch.classifier.clip_statistics import ClipNodes, clip_statistics
from audiosearch.classifier.network import import_keras
from audiosearch.classifier.rescoring import logits_of
from audiosearch.classifier.rescoring_fit import write_rescorer
from audiosearch.classifier.scorer import Scorer, classifier_identity
from audiosearch.errors import InvalidArgumentError
from audiosearch.labels import CLASS_COUNT
from audiosearch.metrics import average_precision, macro_mean
from audiosearch.models import bundled_model
from tools.lite.embedded_clips import EmbeddedClips

__all__ = ["RescoringConfig", "Trained", "fit_lite", "train"]

Floats = npt.NDArray[np.float32]

_HEARD = 0.3  # from here on a teacher's tag counts as heard, where the order is judged
_FEWEST = 3  # clips that a class is judged by
_SMALL = 1e-6
_RAREST = 1e-3  # mean tag that is added to each class's

_LICENCE = (
    "Apache-2.0. Fitted to embeddings of freely licensed recordings, and of clips of AudioSet, "
    "whose features are by Google, CC BY 4.0; see NOTICE."
)


@dataclass(frozen=True)
class RescoringConfig:
    """Settings of the fit.

    Attributes
    ----------
    hidden : int
        Units of the hidden layer.
    epochs : int
        How often as many clips are drawn as there are.
    batch : int
        Clips of a step.
    learning_rate : float
        Peak; falls as a cosine.
    weight_decay, dropout, input_dropout : float
        What keeps the weights small.
    noise : float
        Deviation of what is added to the features, which are standardised.
    mixed : float
        How much more often a mixed clip is drawn.
    share : float
        How much of what is learnt counts, above 0, up to 1.
    prior : float
        How much of a class's log frequency is taken from a score that is unsure, from 0 to 0.5.
    validation : float
        Share of the packages that is held out, to compare settings.
    seed : int
        Seed of the first weights and of what is drawn.
    """

    hidden: int = 512
    epochs: int = 14
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    dropout: float = 0.5
    input_dropout: float = 0.2
    noise: float = 0.5
    mixed: float = 3.0
    share: float = 0.75
    prior: float = 0.4
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.hidden, self.epochs, self.batch) < 1 or not 0 < self.share <= 1:
            raise InvalidArgumentError(
                "hidden, epochs and batch must be at least 1, and share above 0 and up to 1."
            )
        if not 0 <= self.prior <= 0.5:
            raise InvalidArgumentError(f"prior must be from 0 to 0.5, not {self.prior}.")
        if not 0 <= self.validation < 1 or not self.mixed > 0 or self.noise < 0:
            raise InvalidArgumentError(
                "validation must be from 0 to less than 1, mixed above 0 and noise not below it."
            )


@dataclass(frozen=True)
class Trained:
    """What was learnt: ``slope * logits + relu(features @ first + first_bias) @ second + bias``.

    Of a class's logit, `prior` is taken as far as the score is from 1.

    Attributes
    ----------
    slope : float32 (527,)
    first, first_bias, second, bias : float32
        (527 + 3 * 128, hidden), (hidden,), (hidden, 527), (527,).
    prior : float32 (527,)
        Above 0 for frequent classes, below it for rare ones.
    """

    slope: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    bias: Floats
    prior: Floats

    def logits(self, features: Floats) -> Floats:
        """Return better logits (n, 527) of `clip_features`."""
        hidden = np.maximum(features @ self.first + self.first_bias, 0)
        found = self.slope * features[:, :CLASS_COUNT] + hidden @ self.second + self.bias
        result: Floats = found - self.prior / (1 + np.exp(found))
        return result

    def graph(self) -> Any:
        """Return it as an ONNX model with the inputs and the output of a rescorer."""
        graph = ClipNodes()
        joined = graph.op(
            "Concat", "logits", graph.mean("frames"), graph.largest(), graph.smallest(), axis=1
        )
        dense = graph.op(
            "Gemm", joined, graph.constant(self.first), graph.constant(self.first_bias)
        )
        added = graph.op(
            "Gemm",
            graph.op("Relu", dense),
            graph.constant(self.second),
            graph.constant(self.bias),
        )
        own = graph.op("Mul", "logits", graph.constant(self.slope))
        found = graph.op("Add", own, added)
        unsure = graph.op("Sigmoid", graph.op("Neg", found))
        taken = graph.op("Mul", unsure, graph.constant(self.prior))
        scores = graph.op("Sigmoid", graph.op("Sub", found, taken))
        return graph.rescorer(scores, CLASS_COUNT)


def clip_features(x: npt.NDArray[np.uint8], n_frames: npt.NDArray[Any], logits: Floats) -> Floats:
    """Return what the rescorer reads of clips: logits, mean, largest and smallest values."""
    mean, _, largest, smallest = clip_statistics(x, n_frames)
    return np.concatenate([logits, mean, largest, smallest], axis=1)


def train(
    features: Floats,
    target: npt.NDArray[np.uint8],
    mixed: npt.NDArray[np.bool_],
    config: RescoringConfig,
    *,
    say: Callable[[str], None] = print,
) -> Trained:
    """Learn what makes the teacher's tags of features.

    The result is that of the seed, to the bit on one machine with one number of threads.

    Parameters
    ----------
    features : float32 (clips, 527 + 3 * 128)
        As `clip_features` returns them.
    target : uint8 (clips, 527)
        The teacher's tags times 255.
    mixed : bool (clips,)
        Whether a clip is a mix.
    config : RescoringConfig
        Settings.
    say : callable
        Called with a line an epoch.
    """
    keras = import_keras()
    keras.utils.set_random_seed(config.seed)
    random = np.random.default_rng(config.seed)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + np.float32(_SMALL)
    steps = max(1, len(features) // config.batch)
    network = _network(keras, features.shape[1], config)
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps * config.epochs)
    network.compile(
        keras.optimizers.AdamW(rate, weight_decay=config.weight_decay),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    weights = _weights(target, mixed, config.mixed)
    for epoch in range(1, config.epochs + 1):
        losses = []
        for _ in range(steps):
            rows = random.choice(len(features), config.batch, p=weights)
            standard = (features[rows] - mean) / deviation
            noise = random.standard_normal(standard.shape, np.float32)
            standard += np.float32(config.noise) * noise
            truth = target[rows].astype(np.float32) / np.float32(255)
            inputs = [standard, features[rows, :CLASS_COUNT]]
            losses.append(float(network.train_on_batch(inputs, truth)))
        say(f"epoch {epoch}: loss {np.mean(losses):.5f}")
    first, first_bias, slope, second, bias = (
        np.asarray(keras.ops.convert_to_numpy(weight), np.float64)
        for layer in ("hidden", "slope", "added")
        for weight in network.get_layer(layer).weights
    )
    # What scales and moves the features becomes a part of the first layer; the share, of the last.
    first = first / deviation[:, None]
    first_bias = first_bias - mean @ first
    share = config.share
    none = np.zeros(CLASS_COUNT)
    found = [1 + share * (slope - 1), first, first_bias, share * second, share * bias, none]
    plain = Trained(*(array.astype(np.float32) for array in found))
    log_frequency = np.log(target.mean(axis=0) / 255 + _RAREST)
    prior = balanced_prior(plain.logits(features), config.prior * log_frequency)
    return replace(plain, prior=prior)


def balanced_prior(logits: Floats, prior: npt.NDArray[np.float64]) -> Floats:
    """Return what is taken from each class, float32 (527,): `prior` and a number for all classes.

    With it, scores of the clips are as high as before, on the whole.
    """
    unsure = 1 / (1 + np.exp(logits))
    wanted = (1 - unsure).sum()

    def excess(number: float) -> float:
        taken = (prior - number).astype(np.float32) * unsure
        return float((1 / (1 + np.exp(taken - logits))).sum() - wanted)

    number = brentq(excess, prior.min() - 1, prior.max() + 1, xtol=1e-6)
    return (prior - number).astype(np.float32)


def _network(keras: Any, size: int, config: RescoringConfig) -> Any:
    """Return the network; it begins as what leaves the classifier's logits as they are."""
    layers = keras.layers
    features = keras.Input((size,), name="features")
    logits = keras.Input((CLASS_COUNT,), name="logits")
    hidden = layers.Dropout(config.input_dropout)(features)
    hidden = layers.Dense(config.hidden, activation="relu", name="hidden")(hidden)
    hidden = layers.Dropout(config.dropout)(hidden)
    added = layers.Dense(CLASS_COUNT, kernel_initializer="zeros", name="added")(hidden)
    own = layers.EinsumDense("bc,c->bc", (CLASS_COUNT,), kernel_initializer="ones", name="slope")
    return keras.Model([features, logits], layers.Add()([own(logits), added]))


def _weights(
    target: npt.NDArray[np.uint8], mixed: npt.NDArray[np.bool_], factor: float
) -> npt.NDArray[np.float64]:
    """Return how often each clip is drawn, sum 1."""
    top = target.argmax(axis=1)
    weights = 1 / np.sqrt(np.bincount(top, minlength=CLASS_COUNT)[top])
    weights = np.where(mixed, weights * factor, weights)
    result: npt.NDArray[np.float64] = weights / weights.sum()
    return result


def fit_lite(
    clips: EmbeddedClips,
    scorer: Scorer,
    embedder: str,
    target: str | os.PathLike[str],
    config: RescoringConfig,
    *,
    say: Callable[[str], None] = print,
) -> Path:
    """Fit the rescorer of an embedder's clips to the bundled classifier, and write it.

    Parameters
    ----------
    clips : EmbeddedClips
        What to fit to.
    scorer : Scorer
        The bundled classifier.
    embedder : str
        SHA-256 of the embedder's weights.
    target : path-like
        The ONNX file; its manifest is written beside it.
    config : RescoringConfig
        Settings.
    say : callable
        Called with a line an epoch, and with how good the order is on what was held out.

    Raises
    ------
    MissingDependencyError
        When Keras or onnx is not installed.
    StorageError
        When the files cannot be written.
    """
    logits = logits_of(scorer.score_calibrated(clips.x, clips.n_frames))
    features = clip_features(clips.x, clips.n_frames, logits)
    held_out = clips.held_out(config.validation)
    used = ~held_out
    trained = train(features[used], clips.target[used], clips.mixed[used], config, say=say)
    held_out &= ~clips.mixed
    if held_out.any():
        truth = clips.target[held_out]
        for name, found in (
            ("calibrated", logits[held_out]),
            ("rescored", trained.logits(features[held_out])),
        ):
            say(f"held-out packages, {name}: {_judged(truth, found)}")
    facts = {
        "classifier_identity": classifier_identity(bundled_model("classifier")),
        "embedder": "lite",
        "embedder_sha256": embedder,
        "train_clips": int(used.sum()),
        "shards": hashlib.sha256(clips.target.tobytes()).hexdigest()[:12],
        "config": asdict(config),
        "licence": _LICENCE,
    }
    return write_rescorer(trained.graph(), Path(target), facts)


def _judged(target: npt.NDArray[np.uint8], logits: Floats) -> str:
    """Say how near the order of clips by each class, and their scores, are to the teacher's."""
    heard = target > 255 * _HEARD
    judged = heard.sum(axis=0) >= _FEWEST
    if not judged.any():
        return "too few clips"
    order = macro_mean(average_precision(heard[:, judged], logits[:, judged]))
    truth = target.astype(np.float64) / 255
    loss = (np.logaddexp(0, logits) - truth * logits).sum(axis=1).mean()
    return f"AP {order:.4f} over {int(judged.sum())} classes, cross-entropy {loss:.4f}"
