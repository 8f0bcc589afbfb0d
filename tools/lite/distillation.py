"""Stage 1: the trunk learns to answer as YAMNet does, patch by patch.

Each part of the trunk is compared with the map of YAMNet's that it shall give (Romero et al.,
"FitNets", ICLR 2015), the whole with YAMNet's embedding. In the first epochs, as many as ``apart``
says, the parts learn side by side, each given YAMNet's map before it (Li et al., "Blockwisely
supervised neural architecture search with knowledge distillation", CVPR 2020). Then each is given
what the part before it says.

Loss: squared error of the maps, each by its variance; of the standardised embedding; and
cross-entropy of the scores that YAMNet's own last layer makes of it, so that errors count by what
they change in the scores.
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
from audiosearch.errors import InvalidArgumentError, printable
from tools.lite.network import PARTS, StudentConfig, build_trunk
from tools.lite.optimizer import build_optimizer, check_optimizer
from tools.lite.run import (
    StageFolder,
    check_steps,
    load_parts,
    run_stage,
    student_of,
    weights_digest,
)
from tools.lite.shards import Shard, decode_log_mel, shard_folders
from tools.lite.teacher import Teacher, decode_embedding

__all__ = ["DistillationConfig", "answer_errors", "distil", "embedding_statistics", "mixed_shards"]

_JUDGED = 4096  # patches of the clean shard that are judged after each epoch
_MEASURED = 1024  # patches by which the maps' variances are measured
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
        How often a mixed shard is read; when there are fewer they are read again, in new orders.
    apart : int
        How many epochs, from the first, the parts learn side by side.
    batch : int
        Patches of a step.
    optimizer : str
        ``adam``, or ``muon``, which learns more from as many patches.
    learning_rate : float
        Peak; warmed up over the first part of the first epoch, then falling as a cosine.
    last_rate : float
        What part of the peak it falls to, from 0 to 1: little to finish, much for a run that
        another goes on from.
    map_weight : float
        Weight of each map's error, beside the embedding's.
    score_weight : float
        Weight of the scores' cross-entropy, a mean over classes, beside the embedding's error.
    clean : float
        Share of the patches of each epoch that are of a clean shard, below 1. Not whole epochs: the
        last ones would decide what normalisation is like.
    first : int
        The first mixed shard that is read.
    precision : str
        Keras dtype policy of the convolutions.
    seed : int
        Seed of the first weights and of the orders.
    """

    student: StudentConfig = field(default_factory=StudentConfig)
    epochs: int = 40
    apart: int = 0
    batch: int = 256
    optimizer: str = "adam"
    learning_rate: float = 2e-3
    last_rate: float = 0.01
    map_weight: float = 1.0
    score_weight: float = 20.0
    clean: float = 0.25
    first: int = 0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or not 0 <= self.clean < 1:
            raise InvalidArgumentError(
                "epochs must be at least 1, batch at least 2 and clean from 0 to below 1."
            )
        if not 0 <= self.apart <= self.epochs:
            raise InvalidArgumentError(
                f"apart must be from 0 to {self.epochs}, the epochs there are, not {self.apart}."
            )
        if not 0 <= self.last_rate <= 1:
            raise InvalidArgumentError(f"last_rate must be from 0 to 1, not {self.last_rate}.")
        check_optimizer(self.optimizer)


def distil(
    shards: Path,
    teacher: Teacher,
    last_layer: tuple[Floats, Floats],
    out: Path,
    config: DistillationConfig,
    *,
    start: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train a trunk; go on where the folder holds an unfinished run.

    Parameters
    ----------
    shards : Path
        Folder of shards.
    teacher : Teacher
        Who shows its maps.
    last_layer : tuple
        As `teacher.last_layer` gives it.
    out : Path
        The stage's folder.
    config : DistillationConfig
        Settings.
    start : Path, optional
        A finished stage of the same shape whose weights to begin with.
    say : callable
        Called with a line an epoch.

    Returns
    -------
    list of dict
        A row an epoch.

    Raises
    ------
    InvalidArgumentError
        When there is no such mixed shard or one is too small, the folder holds a stage with other
        settings, or `start` holds a student of another shape.
    DataError
        When there are no clean shards, `start` is no finished stage, or training diverges.
    """
    keras = import_keras()
    keras.utils.set_random_seed(config.seed)
    mixed = mixed_shards(shards, config.first)
    clean = shard_folders(shards, "clean")
    judged = Shard(clean[0])
    orders = [PatchOrder(epoch, mixed, clean, config) for epoch in range(1, config.epochs + 1)]
    steps = [len(order) // config.batch for order in orders]
    check_steps(steps, config.batch)
    parts = {"trunk": build_trunk(config.student, precision=config.precision)}
    if start is not None:
        _check_shape(start, config.student)
        load_parts(start, parts)
    folder = StageFolder(out)
    folder.begin(
        {
            "stage": "distillation",
            "start": weights_digest(start) if start else None,
            "shards": len(mixed),
            **asdict(config),
        }
    )
    measured = patches_of_shard(Shard(mixed[0]), _MEASURED)
    maps = teacher.maps(measured)
    variances = [float(values.var(dtype=np.float64)) for values in maps]
    trainer = _trainer_class()(
        parts["trunk"], variances, embedding_statistics(Shard(mixed[0])), last_layer, config
    )
    warmup = min(500, steps[0] // 2)
    optimizer = build_optimizer(
        config.optimizer, config.learning_rate, sum(steps), warmup=warmup, last=config.last_rate
    )
    trainer.compile(optimizer)

    def batches(epoch: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for log_mel in orders[epoch - 1].batches(config.batch):
            yield as_tensors(log_mel, teacher.maps(log_mel), apart=epoch <= config.apart)

    # Two patches, so that it has its weights.
    trainer(as_tensors(measured[:2], [values[:2] for values in maps], apart=False)[0])
    return run_stage(
        folder,
        trainer,
        parts,
        epochs=config.epochs,
        batches=batches,
        judge=functools.partial(trainer.judge, judged),
        say=say,
    )


def _check_shape(start: Path, wanted: StudentConfig) -> None:
    found = student_of(start)
    if found != wanted:
        options = " ".join(
            f"--{name}={','.join(map(str, numbers))}" for name, numbers in asdict(found).items()
        )
        raise InvalidArgumentError(
            f"{printable(str(start))} holds a student of another shape. Add {options}."
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
        raise InvalidArgumentError(
            f"{printable(str(folder))} holds no mixed shard from number {first} on. Name a lower "
            "one (--first), or make more (shards --mixed)."
        )
    return found


class PatchOrder:
    """The patches of an epoch: all of a mixed shard and some of a clean one, in a random order.

    Parameters
    ----------
    epoch : int
        From 1; the mixed shards are read in turn.
    mixed, clean : sequence of Path
        The shards.
    config : DistillationConfig
        Share of clean ones, and seed.

    Raises
    ------
    InvalidArgumentError
        When the clean shard has fewer patches than that.
    """

    def __init__(
        self, epoch: int, mixed: Sequence[Path], clean: Sequence[Path], config: DistillationConfig
    ) -> None:
        self._random = (config.seed, epoch)
        self._mixed = Shard(mixed[(epoch - 1) % len(mixed)])
        self._clean = Shard(clean[(epoch - 1) % len(clean)])
        count = len(self._mixed.log_mel)
        self._clean_count = round(count * config.clean / (1 - config.clean))
        if self._clean_count > len(self._clean.log_mel):
            raise InvalidArgumentError(
                f"{clean[(epoch - 1) % len(clean)]} has {len(self._clean.log_mel)} patches, not "
                f"the {self._clean_count} that a share of {config.clean} takes. Lower --clean."
            )

    def __len__(self) -> int:
        return len(self._mixed.log_mel) + self._clean_count

    def batches(self, size: int) -> Iterator[Floats]:
        """Yield log-mel (size, 96, 64); what does not fill a last batch is left out."""
        random = np.random.default_rng(self._random)
        rows = random.permutation(len(self._clean.log_mel))[: self._clean_count]
        every = np.concatenate([self._mixed.log_mel, self._clean.log_mel[np.sort(rows)]])
        order = random.permutation(len(every))
        for begin in range(0, len(order) - size + 1, size):
            yield decode_log_mel(every[order[begin : begin + size]])


def as_tensors(
    log_mel: Floats, maps: Sequence[Floats], *, apart: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return patches and the teacher's maps as what is given, and what it is compared with."""
    answers = dict(zip(PARTS, maps, strict=True))
    # What a part is given of the teacher's map; a number, so that no backend compiles it in.
    share = np.full((len(log_mel), 1, 1, 1), apart, np.float32)
    return {"log_mel": log_mel, "share": share, **answers}, answers


def patches_of_shard(shard: Shard, count: int) -> Floats:
    """Return the first patches of a shard, float32 (count, 96, 64)."""
    return decode_log_mel(np.asarray(shard.log_mel[:count]))


def embedding_statistics(shard: Shard) -> tuple[Floats, Floats]:
    """Return mean and deviation of the teacher's embedding, (1024,) each."""
    values = decode_embedding(np.asarray(shard.embedding))
    deviation = np.maximum(values.std(axis=0, dtype=np.float64), _DEVIATION_FLOOR)
    return values.mean(axis=0, dtype=np.float64).astype(np.float32), deviation.astype(np.float32)


def answer_errors(
    embedding: Any, guess: Any, deviation: Any, last_layer: tuple[Any, Any]
) -> tuple[Any, Any]:
    """Return how far a guess of the teacher's embedding is from it, two numbers a patch (n,).

    Parameters
    ----------
    embedding, guess : tensor (n, 1024)
        What is wanted, and what was found.
    deviation : tensor (1024,)
        By which the embedding is standardised.
    last_layer : tuple of tensors
        As `teacher.last_layer` gives it.

    Returns
    -------
    error : tensor (n,)
        Squared error of the standardised embedding, mean over its values.
    entropy : tensor (n,)
        Cross-entropy of the scores that the teacher's last layer makes of both, mean over classes.
    """
    ops = import_keras().ops
    kernel, bias = last_layer
    error = ops.mean(ops.square((guess - embedding) / deviation), axis=1)
    truth = ops.sigmoid(ops.matmul(embedding, kernel) + bias)
    logits = ops.matmul(guess, kernel) + bias
    return error, ops.mean(ops.softplus(logits) - truth * logits, axis=1)


@functools.cache
def _trainer_class() -> Any:
    """Return the model that is trained; a class of Keras, which is imported only when needed."""
    keras = import_keras()
    ops = keras.ops

    base: Any = keras.Model

    class Trainer(base):
        def __init__(
            self,
            trunk: Any,
            variances: Sequence[float],
            statistics: tuple[Floats, Floats],
            last_layer: tuple[Floats, Floats],
            config: DistillationConfig,
        ) -> None:
            super().__init__()
            self.trunk = trunk
            self._variances = dict(zip(PARTS, variances, strict=True))
            self._config = config
            self._mean, self._deviation, self._kernel, self._bias = (
                ops.convert_to_tensor(values) for values in (*statistics, *last_layer)
            )
            names = [*PARTS, "embedding_error", "score_error"]
            self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

        def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
            given, answers = inputs["log_mel"], {}
            for part in PARTS:
                answers[part] = given = self.trunk.get_layer(part)(given, training=training)
                given = given + inputs["share"] * (inputs[part] - given)
            return answers

        def losses_of(self, embedding: Any, guess: Any) -> tuple[Any, Any]:
            """Return mean squared error and mean cross-entropy of a batch."""
            error, entropy = answer_errors(
                embedding, guess, self._deviation, (self._kernel, self._bias)
            )
            return ops.mean(error), ops.mean(entropy)

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            total = 0.0
            y = {part: ops.convert_to_tensor(values) for part, values in y.items()}
            y_pred = {part: ops.cast(values, "float32") for part, values in y_pred.items()}
            for part in PARTS:
                error = ops.mean(ops.square(y_pred[part] - y[part])) / self._variances[part]
                self.trackers[part].update_state(error)
                total = total + self._config.map_weight * error
            embedding, guess = (ops.mean(maps[PARTS[-1]], axis=(1, 2)) for maps in (y, y_pred))
            error, entropy = self.losses_of(embedding, guess)
            self.trackers["embedding_error"].update_state(error)
            self.trackers["score_error"].update_state(entropy)
            return total + error + self._config.score_weight * entropy

        def judge(self, shard: Shard) -> dict[str, float]:
            """Return the errors on the first patches of a clean shard."""
            embedding = decode_embedding(np.asarray(shard.embedding[:_JUDGED]))
            guess = self.trunk.predict(patches_of_shard(shard, _JUDGED), batch_size=256, verbose=0)
            error, entropy = self.losses_of(embedding, ops.convert_to_tensor(guess))
            return {"clean_error": float(error), "clean_score_error": float(entropy)}

    return Trainer
