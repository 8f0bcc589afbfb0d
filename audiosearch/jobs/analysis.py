"""One sound file from end to end: decoded, cut into patches, embedded, scored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch import audio, frontend
from audiosearch.classifier.scorer import clip_frames, load_scorer
from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.embedders import get_embedder
from audiosearch.errors import EmptyAudioError

__all__ = ["CLIP_SPAN", "Analysis", "Analyzer", "AnalyzerSettings", "Segment"]

CLIP_SPAN = CLIP_FRAMES * frontend.PATCH_SECONDS
"""Seconds from the start of a clip to the start of the next: 9.6."""


@dataclass(frozen=True)
class AnalyzerSettings:
    """Which models analyse, and with how many threads (all cores where None)."""

    embedder: str = "lite"
    classifier: str | None = None
    threads: int | None = None


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
        samples = 0

        def counted(blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
            nonlocal samples
            for block in blocks:
                samples += len(block)
                if on_block:
                    on_block()
                yield block

        blocks = counted(audio.stream(path, start=start, end=end))
        frames = [self._embedder.embed_patches(patch) for patch in frontend.patches(blocks)]
        if not frames:
            raise EmptyAudioError(os.fspath(path), "It holds no sound: zero samples were decoded.")
        return np.concatenate(frames), samples / audio.SAMPLE_RATE

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
