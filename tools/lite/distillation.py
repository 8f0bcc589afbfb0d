"""Stage 1: the trunk learns to answer as YAMNet does, patch by patch.

Loss: squared error of the standardised embedding, and cross-entropy of the scores that YAMNet's own
last layer makes of it, so that errors count by what they change in the scores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError
from tools.lite.growth import grow
from tools.lite.network import StudentConfig, build_head, build_trunk
from tools.lite.optimizer import build_optimizer, check_optimizer
from tools.lite.run import StageFolder, run_stage
from tools.lite.shards import Shard, decode_log_mel, shard_folders
from tools.lite.teacher import decode_embedding

__all__ = ["DistillationConfig", "distil", "embedding_statistics", "mixed_shards"]

_JUDGED = 4096  # patches of the clean shard that are judged after each epoch
_DEVIATION_FLOOR = 0.02

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DistillationConfig:
    """Settings of stage 1.

    Attributes
    ----------
    student : StudentConfig
        Shape of the network.
    epochs : int
        How often a shard is read; when there are fewer shards they are read again, in new orders.
    batch : int
        Patches of a step.
    optimizer : str
        ``adam``, or ``muon``, which learns more from as many patches.
    learning_rate : float
        Peak; warmed up over the first part of the first epoch, then falling as a cosine.
    last_rate : float
        What part of the peak it falls to, from 0 to 1: little to finish, much for a run that
        another goes on from.
    score_weight : float
        Weight of the scores' cross-entropy, a mean over classes, beside the embedding's error.
    clean : float
        Share of epochs, about, that read a clean shard instead of a mixed one.
    first : int
        The first mixed shard that is read.
    precision : str
        Keras dtype policy of the convolutions.
    seed : int
        Seed of the first weights and of the orders.
    """

    student: StudentConfig = field(default_factory=StudentConfig)
    epochs: int = 40
    batch: int = 256
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    last_rate: float = 0.01
    score_weight: float = 20.0
    clean: float = 0.25
    first: int = 0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or not 0 <= self.clean <= 1:
            raise InvalidArgumentError(
                "epochs must be at least 1, batch at least 2 and clean from 0 to 1."
            )
        if not 0 <= self.last_rate <= 1:
            raise InvalidArgumentError(f"last_rate must be from 0 to 1, not {self.last_rate}.")
        check_optimizer(self.optimizer)


def distil(
    shards: Path,
    last_layer: tuple[Floats, Floats],
    out: Path,
    config: DistillationConfig,
    *,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train trunk and head; go on where the folder holds an unfinished run.

    Parameters
    ----------
    shards : Path
        Folder of shards.
    last_layer : tuple
        As `teacher.last_layer` gives it.
    out : Path
        The stage's folder.
    config : DistillationConfig
        Settings.
    start : Path, optional
        A finished stage whose weights to begin with; it may have fewer blocks (growth.py).
    say : callable
        Called with a line an epoch.

    Returns
    -------
    list of dict
        A row an epoch.
    """
    keras = import_keras()
    keras.utils.set_random_seed(config.seed)
    mixed = mixed_shards(shards, config.first)
    clean = shard_folders(shards, "clean")
    judged = Shard(clean[0])
    mean, deviation = embedding_statistics(Shard(mixed[0]))
    parts = {
        "trunk": build_trunk(config.student, precision=config.precision),
        "head": build_head(config.student),
    }
    folder = StageFolder(out)
    folder.begin({"stage": "distillation", "shards": len(mixed), **asdict(config)})
    if start is not None:
        grow(start, config.student, parts)
    read = [shard_of(epoch, mixed, clean, config) for epoch in range(1, config.epochs + 1)]
    steps = [len(Shard(path).log_mel) // config.batch for path in read]
    trainer = _trainer_class()(parts, mean, deviation, last_layer, config)
    trainer.compile(
        build_optimizer(
            config.optimizer,
            config.learning_rate,
            sum(steps),
            warmup=min(500, steps[0] // 2),
            last=config.last_rate,
        )
    )
    trainer(np.zeros((2, *judged.log_mel.shape[1:]), np.float32))

    def batches(epoch: int) -> Iterator[tuple[Floats, Floats]]:
        return patch_batches(read[epoch - 1], epoch, config.batch, config.seed)

    return run_stage(
        folder,
        trainer,
        parts,
        epochs=config.epochs,
        batches=batches,
        judge=functools.partial(trainer.judge, judged),
        say=say,
    )


def mixed_shards(folder: Path, first: int) -> list[Path]:
    """Return the mixed shards from a number on.

    Raises
    ------
    InvalidArgumentError
        When there is none.
    """
    found = shard_folders(folder, "mixed")[first:]
    if not found:
        raise InvalidArgumentError(f"There is no mixed shard from number {first} on.")
    return found


def shard_of(
    epoch: int, mixed: Sequence[Path], clean: Sequence[Path], config: DistillationConfig
) -> Path:
    """Return the shard of an epoch: the next mixed one, or now and then a clean one."""
    random = np.random.default_rng((config.seed, epoch))
    if random.random() < config.clean:
        return clean[int(random.integers(len(clean)))]
    return mixed[(epoch - 1) % len(mixed)]


def patch_batches(
    folder: Path, epoch: int, batch: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """Yield log-mel (batch, 96, 64) and embeddings (batch, 1024) of a shard, in a random order."""
    shard = Shard(folder)
    log_mel, embedding = np.asarray(shard.log_mel), np.asarray(shard.embedding)
    order = np.random.default_rng((seed, epoch)).permutation(len(log_mel))
    for begin in range(0, len(order) - batch + 1, batch):
        rows = order[begin : begin + batch]
        yield decode_log_mel(log_mel[rows]), decode_embedding(embedding[rows])


def embedding_statistics(shard: Shard) -> tuple[Floats, Floats]:
    """Return mean and deviation of the teacher's embedding, (1024,) each."""
    values = decode_embedding(np.asarray(shard.embedding))
    deviation = np.maximum(values.std(axis=0, dtype=np.float64), _DEVIATION_FLOOR)
    return values.mean(axis=0, dtype=np.float64).astype(np.float32), deviation.astype(np.float32)


@functools.cache
def _trainer_class() -> Any:
    """Return the model that is trained; a class of Keras, which is imported only when needed."""
    keras = import_keras()
    ops = keras.ops

    base: Any = keras.Model

    class Trainer(base):
        def __init__(
            self,
            parts: dict[str, Any],
            mean: Floats,
            deviation: Floats,
            last_layer: tuple[Floats, Floats],
            config: DistillationConfig,
        ) -> None:
            super().__init__()
            self.trunk, self.head = parts["trunk"], parts["head"]
            self._score_weight = config.score_weight
            self._mean, self._deviation, self._kernel, self._bias = (
                ops.convert_to_tensor(values) for values in (mean, deviation, *last_layer)
            )
            self.embedding_error = keras.metrics.Mean(name="embedding_error")
            self.score_error = keras.metrics.Mean(name="score_error")

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.head(self.trunk(inputs, training=training), training=training)

        def losses_of(self, embedding: Any, answer: Any) -> tuple[Any, Any]:
            """Return mean squared error and mean cross-entropy of a batch."""
            embedding = ops.convert_to_tensor(embedding)
            wanted = (embedding - self._mean) / self._deviation
            error = ops.mean(ops.square(wanted - answer))
            truth = ops.sigmoid(ops.matmul(embedding, self._kernel) + self._bias)
            guessed = answer * self._deviation + self._mean
            logits = ops.matmul(guessed, self._kernel) + self._bias
            entropy = ops.mean(ops.softplus(logits) - truth * logits)
            return error, entropy

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            error, entropy = self.losses_of(y, y_pred)
            self.embedding_error.update_state(error)
            self.score_error.update_state(entropy)
            return error + self._score_weight * entropy

        def judge(self, shard: Shard) -> dict[str, float]:
            """Return the errors on the first patches of a clean shard."""
            log_mel = decode_log_mel(np.asarray(shard.log_mel[:_JUDGED]))
            embedding = decode_embedding(np.asarray(shard.embedding[:_JUDGED]))
            answer = self.predict(log_mel, batch_size=256, verbose=0)
            error, entropy = self.losses_of(embedding, ops.convert_to_tensor(answer))
            return {"clean_error": float(error), "clean_score_error": float(entropy)}

    return Trainer
