"""Batches of whole clips of the same shape: patches in a row, and where each clip's frames are.

Clips have from 1 to 10 patches. Padding each to 10 would have the trunk work on silence half of the
time, so a batch is a fixed number of patches, filled with clips until the next one would not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.labels import CLASS_COUNT
from tools.lite.released import Pairs
from tools.lite.shards import CLIP_PATCHES, Shard, decode_log_mel, encode_log_mel
from tools.lite.teacher import EMBEDDING, decode_embedding
from tools.lite.variants import VARIANTS, variants_of

__all__ = ["BatchShape", "ClipBatch", "PairPool", "clip_batches", "count_batches"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class BatchShape:
    """How large a batch is.

    Attributes
    ----------
    patches : int
        Patches of clips.
    clips : int
        Places for clips; what is not filled counts for nothing.
    pairs : int
        Pairs added to the batch, 10 patches each.
    """

    patches: int = 256
    clips: int = 96
    pairs: int = 6


@dataclass(frozen=True)
class ClipBatch:
    """A batch of clips, then of pairs.

    Attributes
    ----------
    inputs : float32 (patches + 10 pairs, ...)
        What the network is given for each patch.
    embedding : float32 (patches + 10 pairs, 1024)
        YAMNet's embedding; of pairs, zeros.
    is_patch : float32 (patches + 10 pairs,)
        1 for a patch of a clip, 0 for a pair's and for what fills up.
    frames : int32 (clips, 10)
        Which row of `inputs` is each frame of a clip.
    mask : float32 (clips, 10)
        1 where there is a frame.
    target : float32 (clips, 527)
        Class scores.
    is_clip : float32 (clips,)
        0 where a place is not filled.
    released : float32 (10 pairs, 128)
        Values of the pairs' frames.
    is_pair : float32 (10 pairs,)
        0 where a pair has no such frame.
    """

    inputs: Floats
    embedding: Floats
    is_patch: Floats
    frames: Integers
    mask: Floats
    target: Floats
    is_clip: Floats
    released: Floats
    is_pair: Floats


class PairPool:
    """Pairs to draw from: inputs and released values by pair.

    Parameters
    ----------
    inputs : list of list of (n, ...)
        What the network is given for each patch of a pair, in several variants: codes of log-mel
        (uint8), which are decoded, or features.
    values : list of float32 (n, 128)
        Released values.
    """

    def __init__(self, inputs: list[list[npt.NDArray[np.generic]]], values: list[Floats]) -> None:
        self.inputs, self.values = inputs, values

    @classmethod
    def of(cls, pairs: Pairs, *, held_out: int | None, seed: int = 0) -> PairPool:
        """Return the log-mel of all pairs but those of a fold."""
        chosen = [index for index in range(len(pairs)) if pairs.fold[index] != held_out]
        inputs: list[list[npt.NDArray[np.generic]]] = []
        values = []
        for index in chosen:
            log_mel, released = pairs.patches(index)
            random = np.random.default_rng((seed, index))
            inputs.append([encode_log_mel(v) for v in variants_of(log_mel, random, VARIANTS)])
            values.append(released)
        return cls(inputs, values)

    def __len__(self) -> int:
        return len(self.inputs)

    def draw(self, random: np.random.Generator, pair: int) -> Floats:
        """Return one variant of a pair's inputs."""
        variants = self.inputs[pair]
        return _decoded(variants[int(random.integers(len(variants)))])


def _decoded(values: npt.NDArray[np.generic]) -> Floats:
    if values.dtype == np.uint8:
        return decode_log_mel(values.astype(np.uint8))
    return values.astype(np.float32)


def clip_batches(
    shard: Shard,
    inputs: npt.NDArray[np.generic],
    pool: PairPool,
    shape: BatchShape,
    random: np.random.Generator,
) -> Iterator[ClipBatch]:
    """Yield the clips of a shard in a random order, with pairs drawn beside them.

    Parameters
    ----------
    shard : Shard
        The clips.
    inputs : (patches, ...)
        What the network is given for each patch of the shard: its log-mel codes (uint8), which
        are decoded, or features.
    pool : PairPool
        The pairs; may be empty where `shape.pairs` is 0.
    shape : BatchShape
        How large a batch is.
    random : numpy.random.Generator
        What is drawn from.
    """
    for clips in _groups(shard, shape, random):
        yield _batch(shard, inputs, clips, pool, shape, random)


def count_batches(shard: Shard, shape: BatchShape, random: np.random.Generator) -> int:
    """Return how many batches `clip_batches` makes with a generator in the same state."""
    return sum(1 for _ in _groups(shard, shape, random))


def _groups(shard: Shard, shape: BatchShape, random: np.random.Generator) -> Iterator[list[int]]:
    """Yield the clips of each batch; what does not fill one at the end is left out."""
    waiting: list[int] = []
    count = 0
    for clip in random.permutation(len(shard)).tolist():
        size = int(shard.start[clip + 1] - shard.start[clip])
        if count + size > shape.patches or len(waiting) == shape.clips:
            yield waiting
            waiting, count = [], 0
        waiting.append(clip)
        count += size


def _batch(
    shard: Shard,
    inputs: npt.NDArray[np.generic],
    clips: list[int],
    pool: PairPool,
    shape: BatchShape,
    random: np.random.Generator,
) -> ClipBatch:
    rows = np.concatenate([np.arange(shard.start[clip], shard.start[clip + 1]) for clip in clips])
    total = shape.patches + shape.pairs * CLIP_PATCHES
    decoded = _decoded(inputs[rows])
    full = np.zeros((total, *decoded.shape[1:]), np.float32)
    full[: len(rows)] = decoded
    embedding = np.zeros((total, EMBEDDING), np.float32)
    embedding[: len(rows)] = decode_embedding(np.asarray(shard.embedding[rows]))
    is_patch = np.zeros(total, np.float32)
    is_patch[: len(rows)] = 1.0
    frames = np.zeros((shape.clips, CLIP_PATCHES), np.int32)
    mask = np.zeros((shape.clips, CLIP_PATCHES), np.float32)
    target = np.zeros((shape.clips, CLASS_COUNT), np.float32)
    is_clip = np.zeros(shape.clips, np.float32)
    at = 0
    for place, clip in enumerate(clips):
        size = int(shard.start[clip + 1] - shard.start[clip])
        frames[place, :size] = np.arange(at, at + size)
        mask[place, :size] = 1.0
        at += size
    target[: len(clips)] = shard.target[clips].astype(np.float32) / np.float32(255)
    is_clip[: len(clips)] = 1.0
    # A place without a clip has a frame all the same, so that nothing is divided by zero.
    mask[len(clips) :, 0] = 1.0
    released = np.zeros((shape.pairs * CLIP_PATCHES, 128), np.float32)
    is_pair = np.zeros(shape.pairs * CLIP_PATCHES, np.float32)
    drawn = random.choice(len(pool), shape.pairs, replace=len(pool) < shape.pairs)
    for place, pair in enumerate(drawn.tolist() if shape.pairs else []):
        begin = place * CLIP_PATCHES
        size = len(pool.values[pair])
        full[shape.patches + begin : shape.patches + begin + size] = pool.draw(random, pair)
        released[begin : begin + size] = pool.values[pair]
        is_pair[begin : begin + size] = 1.0
    return ClipBatch(full, embedding, is_patch, frames, mask, target, is_clip, released, is_pair)
