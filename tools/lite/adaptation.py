"""Stages 2 and 3: the adaptor finds VGGish's space, then trunk and adaptor are tuned together.

Losses:

============= ==================================================================================
pairs         squared error of the standardised embedding, frame by frame, of the clips of AudioSet
              whose features and released embedding are both known
agreement     cross-entropy between the scores that our classifier, which stays as it is, gives the
              student's frames, and the teachers' scores of the clip; a mean over classes
moments       squared difference between mean and covariance of the student's embeddings and those
              of the released ones
distillation  stage 3 only: stage 1's loss, so that the trunk does not forget
============= ==================================================================================

Stage 2 leaves the trunk as it is: its features of a shard are computed once, and kept in
``features`` of the stage before it. In both stages a fold of the pairs can be held out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError
from audiosearch.storage import atomic_path, sha256_file
from tools.lite.batching import BatchShape, ClipBatch, PairPool, clip_batches
from tools.lite.distillation import embedding_statistics, mixed_shards
from tools.lite.judging import Judge
from tools.lite.network import StudentConfig, build_adaptor, build_head, build_trunk
from tools.lite.released import Pairs, Released
from tools.lite.run import StageFolder, load_parts, run_stage
from tools.lite.shards import Shard, decode_log_mel, shard_folders

__all__ = ["AdaptationConfig", "Material", "adapt", "tune"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AdaptationConfig:
    """Settings of stages 2 and 3.

    Attributes
    ----------
    student : StudentConfig
        Shape of the network.
    epochs : int
        How often a shard is read.
    batch : BatchShape
        How large a step is.
    learning_rate : float
        Peak; falls as a cosine.
    pairs, agreement, moments, distillation : float
        Weights of the losses; `distillation` counts in stage 3 only.
    score_weight : float
        As in stage 1.
    clean : float
        Share of epochs, about, that read a clean shard instead of a mixed one.
    first : int
        The first mixed shard that is read.
    held_out : int or None
        Fold of the pairs, 0 to 4, that is not trained on.
    precision : str
        Keras dtype policy of the convolutions.
    seed : int
        Seed of the first weights and of the orders.
    """

    student: StudentConfig = field(default_factory=StudentConfig)
    epochs: int = 20
    batch: BatchShape = field(default_factory=BatchShape)
    learning_rate: float = 1e-3
    pairs: float = 0.5
    agreement: float = 60.0
    moments: float = 0.1
    distillation: float = 0.3
    score_weight: float = 20.0
    clean: float = 0.3
    first: int = 0
    held_out: int | None = None
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.clean <= 1:
            raise InvalidArgumentError("epochs must be at least 1 and clean from 0 to 1.")
        if self.held_out is not None and not 0 <= self.held_out < 5:
            raise InvalidArgumentError(f"held_out must be a fold from 0 to 4, not {self.held_out}.")


@dataclass(frozen=True)
class Material:
    """What both stages read.

    Attributes
    ----------
    shards : Path
        Folder of shards.
    pairs : Pairs
        Clips whose released embedding is known.
    released : Released
        All released embeddings.
    judges : sequence of Judge
        Classifiers whose scores must agree; the loss is their mean.
    last_layer : tuple
        As `teacher.last_layer` gives it; stage 3 only.
    """

    shards: Path
    pairs: Pairs
    released: Released
    judges: Sequence[Judge]
    last_layer: tuple[Floats, Floats]


def adapt(
    material: Material,
    start: Path,
    out: Path,
    config: AdaptationConfig,
    *,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train an adaptor behind the trunk of a finished stage 1, which stays as it is.

    Parameters
    ----------
    material : Material
        What to train on.
    start : Path
        Folder of the finished stage.
    out : Path
        This stage's folder.
    config : AdaptationConfig
        Settings.
    say : callable
        Called with a line an epoch.

    Returns
    -------
    list of dict
        A row an epoch.
    """
    return _Stage("adaptation", material, start, config, frozen=True).run(out, say)


def tune(
    material: Material,
    start: Path,
    out: Path,
    config: AdaptationConfig,
    *,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train trunk, head and adaptor together, from the weights of a finished stage 2.

    Parameters and result are those of `adapt`.
    """
    return _Stage("tuning", material, start, config, frozen=False).run(out, say)


class _Stage:
    """Stage 2 or 3."""

    def __init__(
        self,
        name: str,
        material: Material,
        start: Path,
        config: AdaptationConfig,
        *,
        frozen: bool,
    ) -> None:
        keras = import_keras()
        keras.utils.set_random_seed(config.seed)
        self._name, self._material, self._start = name, material, start
        self._config, self._frozen = config, frozen
        self._mixed = mixed_shards(material.shards, config.first)
        self._clean = shard_folders(material.shards, "clean")
        precision = "float32" if frozen else config.precision
        self.parts: dict[str, Any] = {
            "trunk": build_trunk(config.student, precision=precision),
            "head": build_head(config.student),
            "adaptor": build_adaptor(
                config.student,
                mean=material.released.mean,
                deviation=material.released.deviation,
            ),
        }
        before = dict(self.parts)
        if frozen:
            del before["adaptor"]
        load_parts(start, before)
        self._pool = PairPool.of(material.pairs, held_out=config.held_out, seed=config.seed)
        if frozen:
            self._pool = self._as_features(self._pool)

    def _as_features(self, pool: PairPool) -> PairPool:
        """Return the same pairs with the trunk's features of every variant."""
        sizes = [len(codes) for variants in pool.inputs for codes in variants]
        every = np.concatenate([codes for variants in pool.inputs for codes in variants])
        parts = np.split(self.features(decode_log_mel(every)), np.cumsum(sizes)[:-1])
        found = iter(parts)
        return PairPool([[next(found) for _ in v] for v in pool.inputs], pool.values)

    def features(self, log_mel: Floats) -> Floats:
        """Return the trunk's features of patches."""
        found = self.parts["trunk"].predict(log_mel, batch_size=256, verbose=0)
        return np.asarray(found, np.float32)

    def run(self, out: Path, say: Callable[[str], None]) -> list[dict[str, float]]:
        config = self._config
        keras = import_keras()
        folder = StageFolder(out)
        folder.begin(
            {
                "stage": self._name,
                "start": self._start.name,
                "shards": len(self._mixed),
                "classifiers": [judge.weights_hash for judge in self._material.judges],
                "values": {
                    "mean": self._material.released.mean.tolist(),
                    "deviation": self._material.released.deviation.tolist(),
                },
                **asdict(config),
            }
        )
        trainer = _trainer_class()(self, self._material, config, frozen=self._frozen)
        steps = sum(1 for _ in self.batches(1))
        rate = keras.optimizers.schedules.CosineDecay(
            config.learning_rate / 20,
            max(1, steps * config.epochs - min(200, steps)),
            alpha=0.01,
            warmup_target=config.learning_rate,
            warmup_steps=min(200, steps),
        )
        trainer.compile(keras.optimizers.Adam(rate))
        trainer(next(iter(self.batches(1)))[0])
        return run_stage(
            folder, trainer, self.parts, epochs=config.epochs, batches=self.batches, say=say
        )

    def batches(self, epoch: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the inputs and targets of an epoch."""
        random = np.random.default_rng((self._config.seed, epoch))
        folder = self.shard_of(epoch, random)
        shard = Shard(folder)
        inputs = self.features_of(folder) if self._frozen else np.asarray(shard.log_mel)
        for batch in clip_batches(shard, inputs, self._pool, self._config.batch, random):
            yield _as_tensors(batch)

    def shard_of(self, epoch: int, random: np.random.Generator) -> Path:
        """Return the shard of an epoch: the next mixed one, or now and then a clean one."""
        if random.random() < self._config.clean:
            return self._clean[int(random.integers(len(self._clean)))]
        return self._mixed[(epoch - 1) % len(self._mixed)]

    def features_of(self, folder: Path) -> npt.NDArray[np.float16]:
        """Return the trunk's features of a shard; kept beside the trunk, for all folds."""
        digest = sha256_file(folder / "clips.npz")[:12]  # of a shard made anew it is another
        path = self._start / "features" / f"{folder.name}-{digest}.npy"
        if not path.exists():
            codes = Shard(folder).log_mel
            parts = [
                self.features(decode_log_mel(np.asarray(codes[begin : begin + 2048])))
                for begin in range(0, len(codes), 2048)
            ]
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.concatenate(parts).astype(np.float16))
        found: npt.NDArray[np.float16] = np.load(path)
        return found


def _as_tensors(batch: ClipBatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a batch as what the network is given, and what it is compared with."""
    everything = {name: getattr(batch, name) for name in ClipBatch.__dataclass_fields__}
    return {"patches": everything.pop("inputs")}, everything


@functools.cache
def _trainer_class() -> Any:
    """Return the model that is trained; a class of Keras, which is imported only when needed."""
    keras = import_keras()
    ops = keras.ops

    base: Any = keras.Model

    class Trainer(base):
        def __init__(
            self, stage: _Stage, material: Material, config: AdaptationConfig, *, frozen: bool
        ) -> None:
            super().__init__()
            self.adaptor = stage.parts["adaptor"]
            self._frozen = frozen
            if not frozen:
                self.trunk, self.head = stage.parts["trunk"], stage.parts["head"]
            self._config = config
            self._judges = tuple(material.judges)
            released = material.released
            teacher = embedding_statistics(Shard(shard_folders(material.shards, "mixed")[0]))
            tensor = ops.convert_to_tensor
            self._mean, self._deviation = tensor(released.mean), tensor(released.deviation)
            self._covariance = tensor(released.covariance)
            self._kernel, self._bias = map(tensor, material.last_layer)
            self._teacher_mean, self._teacher_deviation = map(tensor, teacher)
            names = ["pairs", "agreement", "moments", *([] if frozen else ["distillation"])]
            self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

        def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
            patches = inputs["patches"]
            features = patches if self._frozen else self.trunk(patches, training=training)
            embedding = self.adaptor(features, training=training)
            if self._frozen:
                return {"embedding": embedding}
            return {"embedding": embedding, "answer": self.head(features, training=training)}

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            y = {name: ops.convert_to_tensor(values) for name, values in y.items()}
            embedding = y_pred["embedding"]
            losses = {
                "pairs": self._pair_loss(embedding, y),
                "agreement": self._agreement_loss(embedding, y),
                "moments": self._moment_loss(embedding, y),
            }
            if not self._frozen:
                losses["distillation"] = self._distillation_loss(y_pred["answer"], y)
            total = 0.0
            for name, loss in losses.items():
                self.trackers[name].update_state(loss)
                total = total + getattr(self._config, name) * loss
            return total

        def _pair_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            count = y["is_pair"].shape[0]
            if not count:
                return ops.zeros(())
            error = (embedding[-count:] - y["released"]) / self._deviation
            weight = y["is_pair"]
            return ops.sum(ops.mean(ops.square(error), axis=1) * weight) / ops.maximum(
                ops.sum(weight), 1.0
            )

        def _agreement_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            clipped = ops.clip(embedding, -1.0, 127 / 128)
            frames = ops.take(clipped, y["frames"], axis=0) * ops.expand_dims(y["mask"], -1)
            total = 0.0
            for judge in self._judges:
                logits = judge.logits(frames, y["mask"])
                entropy = ops.mean(ops.softplus(logits) - y["target"] * logits, axis=1)
                total = total + ops.sum(entropy * y["is_clip"]) / ops.sum(y["is_clip"])
            return total / len(self._judges)

        def _moment_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            weight = ops.expand_dims(y["is_patch"], -1)
            count = ops.sum(weight)
            standard = (embedding - self._mean) / self._deviation * weight
            mean = ops.sum(standard, axis=0) / count
            centred = (standard - mean) * weight
            covariance = ops.matmul(ops.transpose(centred), centred) / count
            # A batch is small: what it must spread by chance is not an error. Off the diagonal the
            # differences are many and small, so they are summed by row.
            spread = ops.sum(ops.square(covariance - self._covariance), axis=1)
            return ops.mean(ops.square(mean)) + ops.mean(spread) / 16.0

        def _distillation_loss(self, answer: Any, y: Mapping[str, Any]) -> Any:
            embedding, weight = y["embedding"], y["is_patch"]
            wanted = (embedding - self._teacher_mean) / self._teacher_deviation
            error = ops.mean(ops.square(wanted - answer), axis=1)
            truth = ops.sigmoid(ops.matmul(embedding, self._kernel) + self._bias)
            guessed = answer * self._teacher_deviation + self._teacher_mean
            logits = ops.matmul(guessed, self._kernel) + self._bias
            entropy = ops.mean(ops.softplus(logits) - truth * logits, axis=1)
            loss = error + self._config.score_weight * entropy
            return ops.sum(loss * weight) / ops.sum(weight)

    return Trainer
