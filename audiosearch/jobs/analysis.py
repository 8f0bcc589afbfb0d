"""One sound file from end to end: decoded, cut into patches, embedded, scored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from audiosearch import audio, frontend
from audiosearch.classifier.scorer import clip_frames, load_scorer
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.embedders import get_embedder
from audiosearch.errors import EmptyAudioError, InvalidArgumentError

__all__ = [
    "CLIP_SPAN",
    "Analysis",
    "Analyzer",
    "AnalyzerSettings",
    "Chore",
    "Collector",
    "Reduced",
    "Reduction",
    "Segment",
]

CLIP_SPAN = CLIP_FRAMES * frontend.PATCH_SECONDS
"""Seconds from the start of a clip to the start of the next: 9.6."""


_WINDOWS = 32  # clips scored at once


class Collector(Protocol):
    """Takes the scores of one file in the order of time, and makes something small of them."""

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Take scores (k, 527) of the next k windows."""

    def finish(self, start: float, duration: float) -> Any:
        """Return the result; the sound began at `start` and lasted `duration` seconds."""


class Reduction(Protocol):
    """What a worker makes of a file's scores, so that they need not all be kept or sent.

    Attributes
    ----------
    window, hop_frames : int
        Frames that a score is of, 1 to 10, and frames from one window to the next.
    """

    @property
    def window(self) -> int:
        """Frames in a window."""

    @property
    def hop_frames(self) -> int:
        """Frames from the start of a window to the start of the next."""

    def collector(self) -> Collector:
        """Return a collector for one file."""


class Chore(Protocol):
    """Other work on one file that is better done in a process that may be lost."""

    @property
    def path(self) -> str:
        """The file."""

    def perform(self) -> Any:
        """Do it; raise an `AudioError` where that is not possible."""


@dataclass(frozen=True)
class AnalyzerSettings:
    """Which models analyse, and within which bounds.

    Attributes
    ----------
    embedder : str
        Name of the embedder.
    classifier : str or None
        Folder of a classifier; the bundled one where None.
    threads : int or None
        Threads of the models; all cores where None.
    reduction : Reduction or None
        What worker processes answer with; an `Analysis` where None.
    memory_limit : int or None
        Megabytes that a worker process may take for a file, beyond what the models take (Linux).
    """

    embedder: str = "lite"
    classifier: str | None = None
    threads: int | None = None
    reduction: Reduction | None = None
    memory_limit: int | None = None


@dataclass(frozen=True)
class Segment:
    """A part of a sound file, from `start` to `end` in seconds; to the file's end where None."""

    path: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Analysis:
    """What a sound file holds.

    Attributes
    ----------
    path : str
        The file as the caller named it.
    duration : float
        Its length in seconds, or that of the part that was analysed.
    frames : uint8 (n, 128)
        Its embedding, one row each 0.96 s.
    scores : float32 (clips, 527)
        Class scores of each clip of 10 frames; the last clip may be shorter.
    """

    path: str
    duration: float
    frames: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]

    def clip_times(self, clip: int) -> tuple[float, float]:
        """Return start and end of a clip in seconds."""
        return clip_times(clip, self.duration)


@dataclass(frozen=True)
class Reduced:
    """What a `Reduction` made of a file, and the seconds of sound that were read."""

    path: str
    duration: float
    value: Any


def clip_times(clip: int, duration: float) -> tuple[float, float]:
    """Return start and end, in seconds, of clip number `clip` of a recording of `duration`."""
    start = clip * CLIP_SPAN
    return round(start, 3), round(max(min(start + CLIP_SPAN, duration), start), 3)


class Analyzer:
    """Runs the whole chain on one file at a time; loading the models takes a moment."""

    def __init__(self, settings: AnalyzerSettings | None = None) -> None:
        self.settings = settings or AnalyzerSettings()
        self._embedder = get_embedder(self.settings.embedder, threads=self.settings.threads)
        self._scorer = load_scorer(self.settings.classifier, threads=self.settings.threads)

    def embed(
        self,
        path: str | os.PathLike[str],
        *,
        start: float = 0.0,
        end: float | None = None,
        on_block: Callable[[], None] | None = None,
    ) -> tuple[npt.NDArray[np.uint8], float]:
        """Return the embedding of a file, uint8 (n, 128), and the seconds that were read.

        Memory does not depend on the length of the file, but for the result: 133 bytes a second.

        Raises
        ------
        AudioError
            When the file is missing, unreadable or empty.
        """
        blocks = _Counted(audio.stream(path, start=start, end=end), on_block)
        frames = [self._embedder.embed_patches(patch) for patch in frontend.patches(blocks)]
        if not frames:
            raise _silent(path)
        return np.concatenate(frames), blocks.seconds

    def analyze(
        self, path: str | os.PathLike[str] | Segment, *, on_block: Callable[[], None] | None = None
    ) -> Analysis:
        """Embed and score a file, or a part of one.

        Parameters
        ----------
        path : path-like or Segment
            The file, or the part.
        on_block : callable, optional
            Called about every 10 s of sound, as a sign of life.

        Raises
        ------
        AudioError
            When the file is missing, unreadable or empty.
        """
        part = path if isinstance(path, Segment) else Segment(os.fspath(path))
        frames, duration = self.embed(part.path, start=part.start, end=part.end, on_block=on_block)
        x, n_frames = clip_frames(frames)
        return Analysis(part.path, duration, frames, self._scorer.score_calibrated(x, n_frames))

    def reduce(
        self, path: str | os.PathLike[str] | Segment, *, on_block: Callable[[], None] | None = None
    ) -> Reduced:
        """Make of a file what the settings' reduction asks for, in memory that is the same for all.

        Parameters
        ----------
        path : path-like or Segment
            The file, or the part.
        on_block : callable, optional
            As in `analyze`.

        Raises
        ------
        AudioError
            When the file is missing, unreadable or empty.
        InvalidArgumentError
            When the settings name no reduction.
        """
        reduction = self.settings.reduction
        if reduction is None:
            raise InvalidArgumentError("reduce needs settings with a reduction.")
        part = path if isinstance(path, Segment) else Segment(os.fspath(path))
        blocks = _Counted(audio.stream(part.path, start=part.start, end=part.end), on_block)
        frames = (self._embedder.embed_patches(patch) for patch in frontend.patches(blocks))
        collector = reduction.collector()
        x = np.zeros((_WINDOWS, CLIP_FRAMES, FRAME_VALUES), np.uint8)
        counts = np.zeros(_WINDOWS, np.int64)
        filled = scored = 0
        for window in windows(frames, reduction.window, reduction.hop_frames):
            x[filled] = 0
            x[filled, : len(window)] = window
            counts[filled] = len(window)
            filled += 1
            if filled == _WINDOWS:
                collector.add(self._scorer.score_calibrated(x, counts))
                scored, filled = scored + filled, 0
        if filled:
            collector.add(self._scorer.score_calibrated(x[:filled], counts[:filled]))
        if not scored + filled:
            raise _silent(part.path)
        return Reduced(part.path, blocks.seconds, collector.finish(part.start, blocks.seconds))


def windows(
    blocks: Iterable[npt.NDArray[np.uint8]], window: int, hop: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Cut frames, which come in blocks (k, 128), into windows (n, 128), n up to `window`.

    The first window that reaches the end is the last; it may be shorter.
    """
    held = np.empty((0, FRAME_VALUES), np.uint8)
    for block in blocks:
        held = np.concatenate([held, block])
        # One frame more than the window: only then is it sure that it is not the last.
        while len(held) > window:
            yield held[:window]
            held = held[hop:]
    if len(held):
        yield held


class _Counted:
    """Blocks of sound, counted as they pass."""

    def __init__(
        self, blocks: Iterable[npt.NDArray[np.float32]], on_block: Callable[[], None] | None
    ) -> None:
        self._blocks, self._on_block = blocks, on_block
        self._samples = 0

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        for block in self._blocks:
            self._samples += len(block)
            if self._on_block:
                self._on_block()
            yield block

    @property
    def seconds(self) -> float:
        """Seconds of sound so far."""
        return self._samples / audio.SAMPLE_RATE


def _silent(path: str | os.PathLike[str]) -> EmptyAudioError:
    return EmptyAudioError(os.fspath(path), "It holds no sound: zero samples were decoded.")
