"""Training material on the disk: log-mel patches, and the teachers' answers to them.

A shard is a folder of some thousand clips that are ready to be trained on; an epoch reads one. It
is mapped into memory, so that what is not read costs nothing.

================= ==============================================================================
``log_mel.npy``   uint8 (patches, 96, 64): log-mel = code / 255 * 12.7 - 4.7
``embedding.npy`` uint8 (patches, 1024): YAMNet's embedding, see `teacher.encode_embedding`
``clips.npz``     ``start`` int64 (clips + 1): clip i has the patches start[i] up to start[i + 1];
                  ``target`` uint8 (clips, 527): class scores times 255; ``source`` int64 (clips,):
                  the first sound's row among the sources
================= ==============================================================================

Clean shards (``clean-0000`` ...) hold every source once, as it is. Mixed shards (``mixed-0000``
...) hold sources drawn by the inverse root (or another power) of how frequent their top class is,
changed and mixed as `mixing` says, with the teacher's answers to the result. Each shard depends on
its own seed alone, so that a run that was stopped goes on with the next shard.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch import frontend
from audiosearch.errors import DataError, InvalidArgumentError, printable
from audiosearch.labels import CLASS_COUNT
from tools.lite.mixing import Mixing, mix
from tools.lite.released import AudioSetClips
from tools.lite.targets import Scores, key_of, mixed_target
from tools.lite.teacher import Teacher, encode_embedding
from tools.lite.windows import Windows

__all__ = [
    "Shard",
    "Sources",
    "build_shards",
    "decode_log_mel",
    "encode_log_mel",
    "gather_targets",
    "mix_log_mel",
    "patches_of",
    "score_windows",
    "shard_folders",
]

CLIP_PATCHES = 10
_SPAN, _LOWEST = 12.7, -4.7

Floats = npt.NDArray[np.float32]


def encode_log_mel(log_mel: Floats) -> npt.NDArray[np.uint8]:
    """Return log-mel as bytes, in steps of 0.05."""
    codes = np.rint((log_mel - np.float32(_LOWEST)) * np.float32(255 / _SPAN))
    return np.clip(codes, 0, 255).astype(np.uint8)


def decode_log_mel(codes: npt.NDArray[np.uint8]) -> Floats:
    """Return what `encode_log_mel` was given, float32, to 0.025."""
    return codes.astype(np.float32) * np.float32(_SPAN / 255) + np.float32(_LOWEST)


@dataclass(frozen=True)
class Sources:
    """Everything that can be trained on: windows of waveform, then clips of AudioSet as features.

    Attributes
    ----------
    windows : Windows
        The sounds.
    clips : AudioSetClips or None
        Real clips of AudioSet as log-mel.
    targets : uint8 (sources, 527)
        Their class scores times 255.
    rarity : float
        Power of a class's count that a draw is divided by: 0 draws every source alike often, 1
        every class.
    """

    windows: Windows
    clips: AudioSetClips | None
    targets: Scores
    rarity: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rarity <= 1:
            raise InvalidArgumentError(f"rarity must be from 0 to 1, not {self.rarity}.")

    def __len__(self) -> int:
        return len(self.targets)

    def weights(self) -> npt.NDArray[np.float64]:
        """Return how often each is drawn, sum 1: 1 / count ** rarity, of its top class."""
        top = self.targets.argmax(axis=1)
        counts = np.bincount(top, minlength=CLASS_COUNT)
        weights = 1.0 / counts[top] ** self.rarity
        result: npt.NDArray[np.float64] = weights / weights.sum()
        return result

    def log_mel(self, row: int) -> Floats:
        """Return a source's patches as they are, float32 (n, 96, 64), n from 1 to 10."""
        if row < len(self.windows):
            return patches_of(self.windows.waveform(row))
        assert self.clips is not None
        return self.clips.log_mel(row - len(self.windows))


class Shard:
    """One shard, mapped into memory.

    Parameters
    ----------
    folder : path-like
        Its folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        path = Path(folder)
        self.log_mel = np.load(path / "log_mel.npy", mmap_mode="r")
        self.embedding = np.load(path / "embedding.npy", mmap_mode="r")
        with np.load(path / "clips.npz") as data:
            self.start = data["start"]
            self.target = data["target"]
            self.source = data["source"]

    def __len__(self) -> int:
        return len(self.target)


def shard_folders(folder: str | os.PathLike[str], kind: str) -> list[Path]:
    """Return the finished shards of a kind, ``clean`` or ``mixed``, in order.

    Raises
    ------
    DataError
        When there is none.
    """
    found = sorted(Path(folder).glob(f"{kind}-[0-9][0-9][0-9][0-9]"))
    if not found:
        raise DataError(f"There are no {kind} shards in {printable(os.fspath(folder))}.")
    return found


def gather_targets(
    windows: Windows,
    clips: AudioSetClips | None,
    known: dict[str, Scores],
) -> Scores:
    """Return the targets of all sources in their order, uint8 (sources, 527).

    Raises
    ------
    DataError
        When a window has none.
    """
    try:
        rows = [known[key_of(row.sha1, row.window)] for row in windows.rows]
    except KeyError as error:
        raise DataError(f"Window {error} has no target. Score the windows first.") from None
    own = np.array(rows, np.uint8).reshape(-1, CLASS_COUNT)
    return own if clips is None else np.concatenate([own, clips.teacher])


def score_windows(
    windows: Windows,
    teacher: Teacher,
    known: dict[str, Scores],
    *,
    say: Callable[[str], None] = print,
) -> dict[str, Scores]:
    """Return the targets of all windows: what is known, else the teacher's mean over patches."""
    found = {}
    for index, row in enumerate(windows.rows):
        key = key_of(row.sha1, row.window)
        if key in known:
            found[key] = known[key]
        else:
            scores = teacher.answer(patches_of(windows.waveform(index)))[1].mean(axis=0)
            found[key] = np.rint(scores * 255).astype(np.uint8)
    say(f"{len(found):,} windows scored, {len(found.keys() & known.keys()):,} of them known before")
    return found


def patches_of(waveform: Floats) -> Floats:
    """Return the patches of a sound of at most 10 s, (n, 96, 64), n from 1 to 10."""
    return np.concatenate(list(frontend.patches(waveform)))[:CLIP_PATCHES]


def build_shards(
    sources: Sources,
    teacher: Teacher,
    folder: str | os.PathLike[str],
    *,
    mixed: int,
    clips: int = 8192,
    settings: Mixing | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Write all clean shards, and mixed shards up to a number; those that are there are kept.

    Parameters
    ----------
    sources : Sources
        What to train on.
    teacher : Teacher
        Who answers.
    folder : path-like
        Where to write.
    mixed : int
        How many mixed shards there shall be.
    clips : int
        Clips of a shard.
    settings : Mixing, optional
        How clips are mixed.
    seed : int
        Seed of what is drawn.
    say : callable
        Called with a line a shard.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(sources), clips)):
        rows = range(first, min(first + clips, len(sources)))
        _write(target / f"clean-{number:04d}", _clean(sources, teacher, rows), say)
    for number in range(mixed):
        material = _mixed(sources, teacher, clips, settings or Mixing(), (seed, number))
        _write(target / f"mixed-{number:04d}", material, say)


_Clip = tuple[Floats, Floats, Floats, int]  # patches, embedding, target, source


def _clean(sources: Sources, teacher: Teacher, rows: range) -> Iterator[_Clip]:
    for row in rows:
        log_mel = sources.log_mel(row)
        target = sources.targets[row].astype(np.float32) / np.float32(255)
        yield log_mel, teacher.answer(log_mel)[0], target, row


def _mixed(
    sources: Sources, teacher: Teacher, clips: int, settings: Mixing, seed: tuple[int, int]
) -> Iterator[_Clip]:
    random = np.random.default_rng(seed)
    drawn = random.choice(len(sources), (clips, 2), p=sources.weights())
    for row, other in drawn.tolist():
        has_second = random.random() < settings.second
        log_mel, ratio = _mixture(random, sources, row, other if has_second else None, settings)
        embedding, scores = teacher.answer(log_mel)
        first = sources.targets[row].astype(np.float32) / np.float32(255)
        second = sources.targets[other].astype(np.float32) / np.float32(255)
        mixed = second if has_second and np.isfinite(ratio) else None
        yield log_mel, embedding, mixed_target(first, mixed, ratio, scores.mean(axis=0)), row


def _mixture(
    random: np.random.Generator,
    sources: Sources,
    row: int,
    other: int | None,
    settings: Mixing,
) -> tuple[Floats, float]:
    """Return the patches of a changed source, and by how much it is louder than the second."""
    count = len(sources.windows)
    if row < count and (other is None or other < count):
        second = None if other is None else sources.windows.waveform(other)
        mixture = mix(random, sources.windows.waveform(row), second, settings)
        return patches_of(mixture.waveform), mixture.ratio_db
    added = None if other is None else sources.log_mel(other)
    return mix_log_mel(random, sources.log_mel(row), added, settings)


def mix_log_mel(
    random: np.random.Generator, first: Floats, second: Floats | None, settings: Mixing
) -> tuple[Floats, float]:
    """Mix patches where there is no waveform: magnitudes add, bands are bent, the level changes.

    Parameters
    ----------
    random : numpy.random.Generator
        What is drawn from.
    first, second : float32 (n, 96, 64)
        Log-mel patches; the result is as long as the first.
    settings : Mixing
        How strongly.

    Returns
    -------
    log_mel : float32 (n, 96, 64)
    ratio_db : float
        Level of the first above the second; infinite without a second.
    """
    mel = np.exp(first) - np.float32(0.01)
    ratio = float("inf")
    if second is not None:
        ratio = float(random.uniform(*settings.ratio_db))
        other = np.exp(second) - np.float32(0.01)
        repeated = np.resize(other, mel.shape)
        scale = float(mel.mean()) / max(float(repeated.mean()), 1e-6) * 10 ** (-ratio / 20)
        mel = mel + repeated * np.float32(scale)
    if random.random() < settings.filtered:
        knots = random.normal(0.0, 4.0, 7)
        bend = np.interp(np.linspace(0, 6, mel.shape[-1]), np.arange(7), knots)
        mel = mel * (10 ** (bend / 20)).astype(np.float32)
    mel = mel * np.float32(10 ** (random.uniform(-12.0, 6.0) / 20))
    result: Floats = np.log(np.maximum(mel, 0) + np.float32(0.01)).astype(np.float32)
    return result, ratio


def _write(target: Path, material: Iterator[_Clip], say: Callable[[str], None]) -> None:
    """Write one shard, unless it is there; it appears under its name only when it is whole."""
    if target.exists():
        return
    began = time.perf_counter()
    log_mel, embedding, targets, sources, start = [], [], [], [], [0]
    for patches, answer, target_scores, source in material:
        log_mel.append(encode_log_mel(patches))
        embedding.append(encode_embedding(answer))
        targets.append(np.rint(np.clip(target_scores, 0, 1) * 255).astype(np.uint8))
        sources.append(source)
        start.append(start[-1] + len(patches))
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".shard-"))
    try:
        np.save(scratch / "log_mel.npy", np.concatenate(log_mel))
        np.save(scratch / "embedding.npy", np.concatenate(embedding))
        np.savez(
            scratch / "clips.npz",
            start=np.array(start, np.int64),
            target=np.array(targets),
            source=np.array(sources, np.int64),
        )
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = time.perf_counter() - began
    say(f"{target.name}: {len(sources):,} clips, {start[-1]:,} patches, {seconds:.0f} s")
