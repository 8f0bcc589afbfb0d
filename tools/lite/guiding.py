"""Training of the guide: stage 2's losses, on the teacher's own embeddings.

There are few recordings of many classes. What the teacher would say of an embedding is known of any
embedding, also of one that no recording gave: some clips are pushed towards a class, by the
teacher's last layer, and the target is what that layer says of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.lite.adaptation import AdaptationConfig, Material, Stage, as_tensors
from tools.lite.batching import ClipBatch, clip_batches
from tools.lite.network import build_adaptor
from tools.lite.shards import Shard
from tools.lite.teacher import HIGHEST, Teacher, decode_embedding, scores_of

__all__ = ["push", "train_guide"]

_PUSHED = 0.25  # share of clips
_LOGITS = (-2.0, 3.0)  # range of where a class' logit is pushed to

Floats = npt.NDArray[np.float32]


def train_guide(
    material: Material,
    teacher: Teacher,
    out: Path,
    config: AdaptationConfig,
    *,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train a guide.

    Parameters
    ----------
    material : Material
        What to train on.
    teacher : Teacher
        Who answers to the pairs' patches.
    out : Path
        The stage's folder.
    config : AdaptationConfig
        Settings; of the student's shape only the hidden layers count.
    say : callable
        Called with a line an epoch.

    Returns
    -------
    list of dict
        A row an epoch.

    Raises
    ------
    InvalidArgumentError
        When the folder holds a stage with other settings, or there is no such mixed shard
        or one is too small.
    DataError
        When there are no clean shards, or training diverges.
    """
    return _GuideStage(material, teacher, config).run(out, say)


class _GuideStage(Stage):
    """Stage 2 without a trunk: what goes in is the teacher's embedding."""

    def __init__(self, material: Material, teacher: Teacher, config: AdaptationConfig) -> None:
        self._teacher = teacher
        super().__init__("guide", material, Path("teacher"), config, frozen=True)

    def origin(self) -> str:
        return "teacher"

    def build(self) -> dict[str, Any]:
        released = self._material.released
        adaptor = build_adaptor(
            self._config.student, mean=released.mean, deviation=released.deviation
        )
        return {"adaptor": adaptor}

    def features(self, log_mel: Floats) -> Floats:
        return self._teacher.answer(log_mel)[0]

    def features_of(self, folder: Path) -> npt.NDArray[np.float16]:
        codes = np.asarray(Shard(folder).embedding)
        return decode_embedding(codes).astype(np.float16)

    def batches(self, epoch: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        random = np.random.default_rng((self._config.seed, epoch))
        folder = self.shard_of(epoch, random)
        inputs = self.features_of(folder)
        shape = self._config.batch
        for batch in clip_batches(Shard(folder), inputs, self._pool, shape, random):
            push(batch, self._material.last_layer, self._teacher.columns, random)
            yield as_tensors(batch)


def push(
    batch: ClipBatch,
    last_layer: tuple[Floats, Floats],
    columns: npt.NDArray[np.intp],
    random: np.random.Generator,
    *,
    share: float = _PUSHED,
) -> None:
    """Push some clips of a batch towards a class each, in place.

    Parameters
    ----------
    batch : ClipBatch
        Its inputs are the teacher's embeddings.
    last_layer : tuple
        As `teacher.last_layer` gives it.
    columns : (521,)
        Our column of each of the teacher's classes.
    random : numpy.random.Generator
        What is drawn from.
    share : float
        Share of clips.
    """
    kernel, bias = last_layer
    lengths = np.square(kernel).sum(axis=0)
    for clip in np.flatnonzero(batch.is_clip).tolist():
        if random.random() >= share:
            continue
        rows = batch.frames[clip][batch.mask[clip] > 0]
        chosen = rows[random.random(len(rows)) < random.uniform(0.3, 1.0)]
        column = int(random.integers(len(columns)))
        wanted = random.uniform(*_LOGITS)
        values = batch.inputs[chosen]
        for _ in range(3):  # values end at 0 and 6: what is cut off is asked for again
            missing = np.maximum(wanted - values @ kernel[:, column] - bias[column], 0.0)
            values = values + (missing / lengths[column])[:, None] * kernel[:, column]
            values = np.clip(values, 0.0, HIGHEST)
        batch.inputs[chosen] = values
        batch.is_patch[rows] = 0.0
        batch.target[clip] = scores_of(batch.inputs[rows], last_layer, columns).mean(axis=0)
