"""Stages 2 and 3: the adaptor finds VGGish's space, then trunk and adaptor are tuned together.

The losses are those of losses.py. Stage 2 leaves the trunk as it is: its features of a shard are
computed once, and kept in ``features`` of the stage before it. In both stages a fold of the pairs
can be held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError
from audiosearch.storage import atomic_path, sha256_file
from tools.lite.batching import BatchShape, ClipBatch, PairPool, clip_batches, count_batches
from tools.lite.distillation import mixed_shards
from tools.lite.guide import Guide
from tools.lite.judging import Judge
from tools.lite.losses import trainer_class
from tools.lite.network import StudentConfig, build_adaptor, build_trunk
from tools.lite.optimizer import build_optimizer, check_optimizer
from tools.lite.released import Pairs, Released
from tools.lite.run import StageFolder, check_steps, load_parts, run_stage, weights_digest
from tools.lite.shards import Shard, decode_log_mel, shard_folders

__all__ = ["AdaptationConfig", "Material", "Stage", "adapt", "as_tensors", "tune"]

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
    optimizer : str
        ``adam`` or ``muon``.
    learning_rate : float
        Peak; falls as a cosine.
    pairs, agreement, moments, distillation, guidance : float
        Weights of the losses; `distillation` counts in stage 3 only.
    balance : float
        How much more agreement on rare classes counts: by this power of how much of a class there
        is, inversely.
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
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    pairs: float = 0.5
    agreement: float = 60.0
    moments: float = 0.1
    distillation: float = 0.3
    guidance: float = 0.0
    balance: float = 0.0
    score_weight: float = 20.0
    clean: float = 0.3
    first: int = 0
    held_out: int | None = None
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 <= self.clean <= 1:
            raise InvalidArgumentError("epochs must be at least 1 and clean from 0 to 1.")
        check_optimizer(self.optimizer)
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
        As `teacher.last_layer` gives it.
    guide : Guide, optional
        What leads the student: the way from the teacher's embedding to the released ones.
    """

    shards: Path
    pairs: Pairs
    released: Released
    judges: Sequence[Judge]
    last_layer: tuple[Floats, Floats]
    guide: Guide | None = None


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

    Raises
    ------
    InvalidArgumentError
        When the folder holds a stage with other settings, there is no such mixed shard or one is
        too small, or the guide's hidden layers have other widths.
    DataError
        When the stage before it is not finished, there are no clean shards, or training diverges.
    """
    return Stage("adaptation", material, start, config, frozen=True).run(out, say)


def tune(
    material: Material,
    start: Path,
    out: Path,
    config: AdaptationConfig,
    *,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train trunk and adaptor together, from the weights of a finished stage 2.

    Parameters, result and errors are those of `adapt`.
    """
    return Stage("tuning", material, start, config, frozen=False).run(out, say)


class Stage:
    """Stage 2 or 3.

    Parameters
    ----------
    name : str
        What it is called.
    material, start, config
        As in `adapt`.
    frozen : bool
        Whether the trunk stays as it is.
    """

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
        self._origin = self.origin()
        self.parts: dict[str, Any] = self.build()
        self._pool = PairPool.of(material.pairs, held_out=config.held_out, seed=config.seed)
        if frozen:
            self._pool = self._as_features(self._pool)

    def origin(self) -> str:
        """Return what tells the weights that the stage begins with from all others."""
        return weights_digest(self._start)

    def build(self) -> dict[str, Any]:
        """Return the parts as they are at the beginning."""
        config, material = self._config, self._material
        precision = "float32" if self._frozen else config.precision
        parts = {
            "trunk": build_trunk(config.student, precision=precision),
            "adaptor": build_adaptor(
                config.student,
                mean=material.released.mean,
                deviation=material.released.deviation,
            ),
        }
        before = dict(parts)
        if self._frozen:
            del before["adaptor"]
        load_parts(self._start, before)
        if self._frozen and material.guide is not None:
            material.guide.lead(parts["adaptor"])
        return parts

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
        """Train, from the last checkpoint on where there is one; return a row an epoch."""
        config = self._config
        folder = StageFolder(out)
        folder.begin(
            {
                "stage": self._name,
                "start": self._origin,
                "shards": len(self._mixed),
                "classifiers": [judge.weights_hash for judge in self._material.judges],
                "guide": self._material.guide.name if self._material.guide else None,
                "values": {
                    "mean": self._material.released.mean.tolist(),
                    "deviation": self._material.released.deviation.tolist(),
                },
                **asdict(config),
            }
        )
        trainer = trainer_class()(self.parts, self._material, config, frozen=self._frozen)
        # Shards differ in size.
        steps = [self._step_count(epoch) for epoch in range(1, config.epochs + 1)]
        check_steps(steps, config.batch.patches)
        warmup = min(200, steps[0], sum(steps) // 2)
        trainer.compile(
            build_optimizer(config.optimizer, config.learning_rate, sum(steps), warmup=warmup)
        )
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
            yield as_tensors(batch)

    def _step_count(self, epoch: int) -> int:
        random = np.random.default_rng((self._config.seed, epoch))
        return count_batches(Shard(self.shard_of(epoch, random)), self._config.batch, random)

    def shard_of(self, epoch: int, random: np.random.Generator) -> Path:
        """Return the shard of an epoch: the next mixed one, or now and then a clean one."""
        if random.random() < self._config.clean:
            return self._clean[int(random.integers(len(self._clean)))]
        return self._mixed[(epoch - 1) % len(self._mixed)]

    def features_of(self, folder: Path) -> npt.NDArray[np.float16]:
        """Return the trunk's features of a shard; kept beside the trunk, for all folds."""
        # Of a shard that was made anew, or a trunk that went on, they are others.
        digest = sha256_file(folder / "clips.npz")[:12]
        path = self._start / "features" / f"{folder.name}-{digest}-{self._origin}.npy"
        if not path.exists():
            for former in path.parent.glob(f"{folder.name}-*.npy"):
                former.unlink()
            codes = Shard(folder).log_mel
            parts = [
                self.features(decode_log_mel(np.asarray(codes[begin : begin + 2048])))
                for begin in range(0, len(codes), 2048)
            ]
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.concatenate(parts).astype(np.float16))
        found: npt.NDArray[np.float16] = np.load(path)
        return found


def as_tensors(batch: ClipBatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a batch as what the network is given, and what it is compared with."""
    everything = {name: getattr(batch, name) for name in ClipBatch.__dataclass_fields__}
    return {"patches": everything.pop("inputs")}, everything
