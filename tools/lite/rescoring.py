"""The rescorer of the bundled embedder's clips: small networks on their scores and their frames.

The classifier was trained on released embeddings. What an embedder gets wrong, it gets wrong in its
own way, and that can be learnt: from the shards' clips, embedded, and the teacher's tags of them.

    clip  = slope * classifier's calibrated logit + share * dense(relu(dense(features)))
    logit = (clip + logit of what single frames say) / 2
    score = sigmoid(logit - (prior * log frequency - number) * (1 - sigmoid(logit)))

class by class. The features are the classifier's 527 logits, and mean, largest and smallest values
of the clip's frames; what single frames say is `tools.lite.frame_scores`. Clips are drawn by the
inverse root of how frequent their top class is, mixed ones more often. The embedder saw these
sounds in its training, so their embeddings are better than those of new ones: noise is put on the
features, and of what is learnt from them only a share counts.

Where little is known of a sound, a score tends to the frequency of its class among the tags, and
"Music" and "Vehicle" stand before what the sound is. The last step takes that back where a score is
unsure (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021) and adds one number to
all classes, so that scores are as high as before on the whole. The order of clips by one class
stays.
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
from audiosearch.datasets.packed import frame_mask
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.labels import CLASS_COUNT
from audiosearch.metrics import average_precision, macro_mean
from audiosearch.models import bundled_model
from tools.lite.embedded_clips import EmbeddedClips
from tools.lite.fitting import FitConfig, Layers, fit, hidden_layer, weights_of
from tools.lite.frame_scores import FrameScores, train_frames

__all__ = ["RescoringConfig", "Trained", "fit_lite", "train"]

Floats = npt.NDArray[np.float32]

_HEARD = 0.3  # from here on a teacher's tag counts as heard, where the order is judged
_FEWEST = 3  # clips that a class is judged by
_SMALL = 1e-6
_RAREST = 1e-3  # mean tag that is added to each class's
_STEEPEST = 4.0  # from here on the last step would turn the order of clips by a class around

_CLIPS = FitConfig(hidden=512, epochs=14, batch=256, noise=0.5, dropout=0.5, input_dropout=0.2)
_FRAMES = FitConfig(hidden=1024, epochs=4, batch=512, noise=0.3, dropout=0.4, input_dropout=0.1)

_LICENCE = (
    "Apache-2.0. Fitted to embeddings of freely licensed recordings, and of clips of AudioSet, "
    "whose features are by Google, CC BY 4.0; see NOTICE."
)


@dataclass(frozen=True)
class RescoringConfig:
    """Settings of the fit.

    Attributes
    ----------
    clips, frames : FitConfig
        Of what the clip says, and of what single frames say.
    mixed : float
        How much more often a mixed clip is drawn.
    share : float
        How much of what is learnt of clips counts, above 0, up to 1.
    prior : float
        How much of a class's log frequency is taken from a score that is unsure, from 0 to 1.
    validation : float
        Share of the packages that is held out, to compare settings.
    seed : int
        Seed of the first weights and of what is drawn.
    """

    clips: FitConfig = _CLIPS
    frames: FitConfig = _FRAMES
    mixed: float = 3.0
    share: float = 0.75
    prior: float = 0.8
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 <= self.prior <= 1:
            raise InvalidArgumentError(
                f"share must be above 0 and up to 1 and prior from 0 to 1, not {self.share} and "
                f"{self.prior}."
            )
        if not 0 <= self.validation < 1 or not self.mixed > 0:
            raise InvalidArgumentError(
                f"validation must be from 0 to less than 1 and mixed above 0, not "
                f"{self.validation} and {self.mixed}."
            )


@dataclass(frozen=True)
class Trained:
    """What was learnt.

    Attributes
    ----------
    slope : float32 (527,)
        Of the classifier's logits.
    clip : Layers
        On the features, 527 + 3 * 128.
    frames : FrameScores
        What single frames say.
    prior : float32 (527,)
        What is taken of a class's logit as far as the score is from 1: above 0 for frequent
        classes, below it for rare ones.
    """

    slope: Floats
    clip: Layers
    frames: FrameScores
    prior: Floats

    def logits(
        self, features: Floats, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[Any]
    ) -> Floats:
        """Return better logits (n, 527) of `clip_features` and the clips' frames."""
        clip = self.slope * features[:, :CLASS_COUNT] + self.clip.apply(features)
        found = (clip + self.frames.logits(x, n_frames)) / 2
        result: Floats = found - self.prior / (1 + np.exp(found))
        return result

    def graph(self) -> Any:
        """Return it as an ONNX model with the inputs and the output of a rescorer."""
        graph = ClipNodes()
        joined = graph.op(
            "Concat", "logits", graph.mean("frames"), graph.largest(), graph.smallest(), axis=1
        )
        own = graph.op("Mul", "logits", graph.constant(self.slope))
        clip = graph.op("Add", own, self.clip.nodes(graph, joined))
        # In odds, not in logits: ONNX Runtime's Log is not the same to the bit in any number of
        # threads.
        half = graph.op("Mul", clip, graph.number(0.5))
        root = graph.op("Sqrt", self.frames.nodes(graph))
        odds = graph.op("Mul", graph.op("Exp", half), root)
        one = graph.number(1)
        unsure = graph.op("Div", one, graph.op("Add", odds, one))
        taken = graph.op("Exp", graph.op("Mul", unsure, graph.constant(self.prior)))
        scores = graph.op("Div", odds, graph.op("Add", odds, taken))
        return graph.rescorer(scores, CLASS_COUNT)


def clip_features(x: npt.NDArray[np.uint8], n_frames: npt.NDArray[Any], logits: Floats) -> Floats:
    """Return what the rescorer reads of clips: logits, mean, largest and smallest values."""
    mean, _, largest, smallest = clip_statistics(x, n_frames)
    return np.concatenate([logits, mean, largest, smallest], axis=1)


def train(
    clips: EmbeddedClips,
    features: Floats,
    config: RescoringConfig,
    *,
    say: Callable[[str], None] = print,
) -> Trained:
    """Learn what makes the teacher's tags of clips.

    The result is that of the seed, to the bit on one machine with one number of threads.

    Parameters
    ----------
    clips : EmbeddedClips
        What to learn from.
    features : float32 (clips, 527 + 3 * 128)
        Of the same clips, as `clip_features` returns them.
    config : RescoringConfig
        Settings.
    say : callable
        Called with a line an epoch.

    Raises
    ------
    DataError
        When what a class's frequency adds cannot be taken back: see `balanced_prior`.
    """
    weights = _weights(clips.target, clips.mixed, config.mixed)
    by_frame = np.repeat(weights, clips.n_frames)
    frames = train_frames(
        clips.x[frame_mask(clips.n_frames) > 0],
        clips.heard,
        by_frame / by_frame.sum(),
        config.frames,
        seed=config.seed,
        say=say,
    )
    keras = import_keras()
    keras.utils.set_random_seed(config.seed)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + np.float32(_SMALL)

    def examples(rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        truth = clips.target[rows].astype(np.float32) / np.float32(255)
        return (features[rows] - mean) / deviation, features[rows, :CLASS_COUNT], truth

    network = _network(keras, features.shape[1], config.clips)
    random = np.random.default_rng(config.seed)
    fit(network, examples, weights, config.clips, random, name="clips", say=say)
    (slope,) = weights_of(network, "slope")
    share = config.share
    plain = Trained(
        slope=(1 + share * (slope - 1)).astype(np.float32),
        clip=Layers.of(network, "added", mean=mean, deviation=deviation, share=share),
        frames=frames,
        prior=np.zeros(CLASS_COUNT, np.float32),
    )
    log_frequency = np.log(clips.target.mean(axis=0) / 255 + _RAREST)
    logits = plain.logits(features, clips.x, clips.n_frames)
    return replace(plain, prior=balanced_prior(logits, config.prior * log_frequency))


def balanced_prior(logits: Floats, prior: npt.NDArray[np.float64]) -> Floats:
    """Return what is taken from each class, float32 (527,): `prior` and a number for all classes.

    With it, scores of the clips are as high as before, on the whole.

    Raises
    ------
    DataError
        When it would turn the order of clips by a class around.
    """
    unsure = 1 / (1 + np.exp(logits))
    wanted = (1 - unsure).sum()

    def excess(number: float) -> float:
        taken = (prior - number).astype(np.float32) * unsure
        return float((1 / (1 + np.exp(taken - logits))).sum() - wanted)

    number = brentq(excess, prior.min() - 1, prior.max() + 1, xtol=1e-6)
    taken = (prior - number).astype(np.float32)
    if taken.min() <= -_STEEPEST:
        raise DataError(
            "A class is so rare that the step would turn the order of clips by it around: take a "
            "smaller --prior."
        )
    return taken


def _network(keras: Any, size: int, config: FitConfig) -> Any:
    """Return the network; it begins as what leaves the classifier's logits as they are."""
    layers = keras.layers
    features = keras.Input((size,), name="features")
    logits = keras.Input((CLASS_COUNT,), name="logits")
    added = layers.Dense(CLASS_COUNT, kernel_initializer="zeros", name="added")(
        hidden_layer(features, config)
    )
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
    DataError
        As in `train`.
    MissingDependencyError
        When Keras or onnx is not installed.
    StorageError
        When the files cannot be written.
    """
    logits = logits_of(scorer.score_calibrated(clips.x, clips.n_frames))
    features = clip_features(clips.x, clips.n_frames, logits)
    held_out = clips.held_out(config.validation)
    used = ~held_out
    trained = train(clips.part(used), features[used], config, say=say)
    held_out &= ~clips.mixed
    if held_out.any():
        part = clips.part(held_out)
        rescored = trained.logits(features[held_out], part.x, part.n_frames)
        for name, found in (("calibrated", logits[held_out]), ("rescored", rescored)):
            say(f"held-out packages, {name}: {_judged(part.target, found)}")
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
