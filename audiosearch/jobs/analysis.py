"""One sound file from end to end: decoded, cut into patches, embedded, scored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from audiosearch import audio, frontend
from audiosearch.classifier.clip_scorer import load_clip_scorer
from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.embedders import get_embedder
from audiosearch.errors import InvalidArgumentError
from audiosearch.jobs.batches import Batches, Collector, Reduction, Work, silent
from audiosearch.own.classifier import LabClassifier, Listener, Track, load_classifiers

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
    "Sound",
    "result_of",
    "work_on",
]

CLIP_SPAN = CLIP_FRAMES * frontend.PATCH_SECONDS
"""Seconds from the start of a clip to the start of the next: 9.6."""


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
        Folder of a classifier of AudioSet's classes; the bundled one where None.
    own : tuple of str
        Folders of classifiers of the user's own classes, which hear every file too.
    rescored : bool
        Whether the bundled classifier's scores are rescored, where a rescorer fits the embedder.
    threads : int or None
        Threads of the models; all cores where None.
    reduction : Reduction or None
        What worker processes answer with; an `Analysis` where None.
    memory_limit : int or None
        Megabytes that a worker process may take for a file, beyond what the models take (Linux).
    """

    embedder: str = "lite"
    classifier: str | None = None
    own: tuple[str, ...] = ()
    rescored: bool = True
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
    own : tuple of Track
        What the user's own classifiers say of it.
    embedder : str
        Name of what embedded it.
    """

    path: str
    duration: float
    frames: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    own: tuple[Track, ...] = ()
    embedder: str = AnalyzerSettings.embedder

    def clip_times(self, clip: int) -> tuple[float, float]:
        """Return start and end of a clip in seconds."""
        return clip_times(clip, self.duration)

    def own_scores(self) -> npt.NDArray[np.float32]:
        """Return the scores of each clip for the classes of all of `own`, float32 (clips, n)."""
        times = np.array([self.clip_times(clip) for clip in range(len(self.scores))])
        return self._own_over(times[:, 0], times[:, 1])

    def own_frame_scores(self) -> npt.NDArray[np.float32]:
        """Return the same of each frame, float32 (n, own classes)."""
        starts = np.arange(len(self.frames)) * frontend.PATCH_SECONDS
        return self._own_over(starts, starts + frontend.PATCH_SECONDS)

    def _own_over(
        self, starts: npt.NDArray[np.floating], ends: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float32]:
        parts = [track.over(starts, ends) for track in self.own]
        return np.concatenate([np.empty((len(starts), 0), np.float32), *parts], axis=1)


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
        threads = self.settings.threads
        self._embedder = get_embedder(self.settings.embedder, threads=threads)
        self._scorer = load_clip_scorer(
            self._embedder.name,
            self._embedder.weights_hash,
            classifier=self.settings.classifier,
            rescored=self.settings.rescored,
            threads=threads,
        )
        self.own = load_classifiers(self.settings.own)

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
        sound = Sound(Segment(os.fspath(path), start, end), on_block)
        frames = [self._embedder.embed_patches(patches) for patches in sound.patches()]
        if not frames:
            raise silent(path)
        return np.concatenate(frames), sound.seconds

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
        result: Analysis = self._run(path, None, on_block)
        return result

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
        if self.settings.reduction is None:
            raise InvalidArgumentError("reduce needs settings with a reduction.")
        result: Reduced = self._run(path, self.settings.reduction, on_block)
        return result

    def batches(self) -> Batches:
        """Return what takes the patches of many files through the models."""
        return Batches(self._embedder, self._scorer)

    def _run(
        self,
        path: str | os.PathLike[str] | Segment,
        reduction: Reduction | None,
        on_block: Callable[[], None] | None,
    ) -> Any:
        part = path if isinstance(path, Segment) else Segment(os.fspath(path))
        batches, work = self.batches(), work_on(part, reduction, self.own)
        sound = Sound(part, on_block, work)
        for patches in sound.patches():
            batches.add(work, patches)
        batches.end(work, sound.seconds)
        batches.flush()
        for _, error in batches.finished():
            if error is not None:
                raise error
        return result_of(part, work, self.settings)


class Sound:
    """A file, or a part of it, on its way to patches.

    Parameters
    ----------
    part : Segment
        The file.
    on_block : callable, optional
        Called about every 10 s of sound.
    work : Work, optional
        Whose listeners hear it.

    Attributes
    ----------
    seconds : float
        Seconds of sound so far.
    """

    def __init__(
        self,
        part: Segment,
        on_block: Callable[[], None] | None = None,
        work: Work | None = None,
    ) -> None:
        self._part, self._on_block = part, on_block
        self._listeners = () if work is None else work.listeners
        self.seconds = 0.0

    def patches(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield log-mel patches (k, 96, 64), k up to 32.

        Raises
        ------
        AudioError
            When the file is missing, unreadable or empty.
        """
        return frontend.patches(self._blocks())

    def _blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        samples = 0
        for mono, stereo in self._decoded():
            samples += len(mono)
            self.seconds = samples / audio.SAMPLE_RATE
            if self._on_block:
                self._on_block()
            for listener in self._listeners:
                listener.add(mono if listener.channels == 1 else stereo)
            yield mono

    def _decoded(self) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Yield blocks as mono and, where a listener hears left and right, as stereo."""
        part = self._part
        if any(listener.channels == 2 for listener in self._listeners):
            yield from audio.stream_both(part.path, start=part.start, end=part.end)
        else:
            for block in audio.stream(part.path, start=part.start, end=part.end):
                yield block, block


class _Whole:
    """The reduction to an `Analysis`: the scores of each clip, all kept."""

    window = hop_frames = CLIP_FRAMES

    def collector(self) -> _Scores:
        return _Scores()


class _Scores:
    def __init__(self) -> None:
        self._scores: list[npt.NDArray[np.float32]] = []

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        self._scores.append(scores)

    def add_own(self, track: Track) -> None:
        pass  # an `Analysis` has the tracks themselves

    def finish(self, start: float, duration: float) -> npt.NDArray[np.float32]:
        return np.concatenate(self._scores)


def work_on(part: Segment, reduction: Reduction | None, own: Sequence[LabClassifier] = ()) -> Work:
    """Return the work on a file: what the reduction asks for, an `Analysis` where it is None."""
    listeners = [Listener(classifier) for classifier in own]
    return Work(
        part.path, reduction or _Whole(), keep_frames=reduction is None, listeners=listeners
    )


def result_of(part: Segment, work: Work, settings: AnalyzerSettings) -> Analysis | Reduced:
    """Return what a finished work has come to under the settings of its `Analyzer`."""
    seconds = work.seconds or 0.0
    tracks = tuple(listener.finish() for listener in work.listeners)
    for track in tracks:
        work.collector.add_own(track)
    value = work.collector.finish(part.start, seconds)
    if work.frames is None:
        return Reduced(part.path, seconds, value)
    frames = np.concatenate(work.frames)
    return Analysis(part.path, seconds, frames, value, tracks, settings.embedder)
