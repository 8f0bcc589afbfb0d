"""Patches of any number of files through the models, in batches that cross files.

Embedder and scorer run batches of one fixed size, padded, so that a row's bytes depend on that row
alone. A file of one second fills a sixteenth of one and a thirty-second of the other; filled from
many files they cost as much a second of sound as those of a long recording do.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.clip_scorer import ClipScorer
from audiosearch.classifier.scorer import BATCH
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.embedders import Embedder
from audiosearch.errors import EmptyAudioError
from audiosearch.own.classifier import Listener, Track

__all__ = ["Batches", "Collector", "MixedBatchError", "Reduction", "Work"]

_PATCHES = 32  # embedded at once: as many as the front end gives, two of the embedder's batches


class Collector(Protocol):
    """Takes the scores of one file in the order of time, and makes something small of them."""

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Take scores (k, 527) of the next k windows."""

    def add_own(self, track: Track) -> None:
        """Take what a classifier of the user's own says of the whole file; before `finish`."""

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


class MixedBatchError(Exception):
    """A batch of several files failed, and nobody knows by which; each may be tried alone."""


class Work:
    """One file on its way through the models.

    Parameters
    ----------
    path : str
        The file.
    reduction : Reduction
        What its scores are for.
    keep_frames : bool
        Whether its embedding is wanted too.
    listeners : sequence of Listener
        Classifiers of the user's own, which hear the file as it is decoded.

    Attributes
    ----------
    collector : Collector
        What got its scores.
    frames : list of uint8 (k, 128), or None
        Its embedding, where it is kept.
    seconds : float or None
        How long it lasts; None until it is decoded.
    is_over : bool
        Whether it is finished or given up; more patches of it are for nothing.
    """

    def __init__(
        self,
        path: str,
        reduction: Reduction,
        *,
        keep_frames: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.path = path
        self.listeners = tuple(listeners)
        self.collector = reduction.collector()
        self.frames: list[npt.NDArray[np.uint8]] | None = [] if keep_frames else None
        self.seconds: float | None = None
        self.is_over = False
        self._window, self._hop = reduction.window, reduction.hop_frames
        self._held = np.empty((0, FRAME_VALUES), np.uint8)
        # What waits for a batch; whether all windows are known; whether there were any.
        self._patches = self._windows = 0
        self._is_cut = self._is_scored = False

    def _cut(self, frames: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the windows (n, 128), n up to the reduction's, that further frames complete.

        The first window that reaches the end is the last; it may be shorter.
        """
        if self.frames is not None:
            self.frames.append(frames)
        self._held = np.concatenate([self._held, frames])
        # One frame more than the window: only then is it sure that it is not the last.
        while len(self._held) > self._window:
            yield self._held[: self._window]
            self._held = self._held[self._hop :]

    def _rest(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the last window, if there are frames for one."""
        if len(self._held):
            yield self._held
            self._held = self._held[:0]


@dataclass(frozen=True)
class _Pending:
    work: Work
    patches: npt.NDArray[np.float32]


class Batches:
    """Embeds and scores; what is decoded goes in, finished files come out.

    Parameters
    ----------
    embedder : Embedder
        Makes frames of patches.
    scorer : ClipScorer
        Makes scores of windows of frames.

    Not to be used by several threads at once.
    """

    def __init__(self, embedder: Embedder, scorer: ClipScorer) -> None:
        self._embedder, self._scorer = embedder, scorer
        self._patches: deque[_Pending] = deque()
        self._count = 0
        self._x = np.zeros((BATCH, CLIP_FRAMES, FRAME_VALUES), np.uint8)
        self._lengths = np.zeros(BATCH, np.int64)
        self._owners: list[Work] = []
        self._finished: list[tuple[Work, Exception | None]] = []
        self._ended = 0

    @property
    def waiting(self) -> bool:
        """Whether a file that is decoded waits for others to fill its batch."""
        return self._ended > 0

    def add(self, work: Work, patches: npt.NDArray[np.float32]) -> None:
        """Take the next patches (k, 96, 64) of a file."""
        if work.is_over or not len(patches):
            return
        self._patches.append(_Pending(work, patches))
        work._patches += len(patches)
        self._count += len(patches)
        while self._count >= _PATCHES:
            self._embed(_PATCHES)

    def end(self, work: Work, seconds: float) -> None:
        """Say that a file has no more patches, and lasts `seconds`."""
        if work.is_over:
            return
        work.seconds = seconds
        self._ended += 1
        if not work._patches:
            self._end_frames(work)

    def give_up(self, work: Work, error: Exception) -> None:
        """Forget a file; it comes out with `error`."""
        if work.is_over:
            return
        work.is_over = True
        if work.seconds is not None:
            self._ended -= 1
        self._finished.append((work, error))
        self._patches = deque(pending for pending in self._patches if pending.work is not work)
        self._count = sum(len(pending.patches) for pending in self._patches)
        kept = [row for row, owner in enumerate(self._owners) if owner is not work]
        self._x[: len(kept)] = self._x[kept]
        self._lengths[: len(kept)] = self._lengths[kept]
        self._owners = [self._owners[row] for row in kept]

    def flush(self) -> None:
        """Run batches that are not full."""
        if self._count:
            self._embed(self._count)
        if self._owners:
            self._score()

    def finished(self) -> Iterator[tuple[Work, Exception | None]]:
        """Yield the files that are through, each with the error that it failed with, if any.

        A `MixedBatchError` means that it was in a batch with others when that failed.
        """
        while self._finished:
            yield self._finished.pop(0)

    def _embed(self, count: int) -> None:
        taken: list[_Pending] = []
        left = count
        while left:
            pending = self._patches.popleft()
            if len(pending.patches) > left:
                self._patches.appendleft(_Pending(pending.work, pending.patches[left:]))
                pending = _Pending(pending.work, pending.patches[:left])
            taken.append(pending)
            left -= len(pending.patches)
        self._count -= count
        try:
            frames = self._embedder.embed_patches(
                taken[0].patches
                if len(taken) == 1
                else np.concatenate([pending.patches for pending in taken])
            )
        except Exception as error:
            self._fail({id(pending.work): pending.work for pending in taken}.values(), error)
            return
        at = 0
        for pending in taken:
            work, number = pending.work, len(pending.patches)
            work._patches -= number
            self._take_windows(work, work._cut(frames[at : at + number]))
            at += number
            if work.seconds is not None and not work._patches:
                self._end_frames(work)

    def _end_frames(self, work: Work) -> None:
        self._take_windows(work, work._rest())
        work._is_cut = True
        self._finish(work)

    def _take_windows(self, work: Work, windows: Iterable[npt.NDArray[np.uint8]]) -> None:
        for window in windows:
            if work.is_over:  # a batch failed meanwhile
                return
            row = len(self._owners)
            self._x[row] = 0
            self._x[row, : len(window)] = window
            self._lengths[row] = len(window)
            self._owners.append(work)
            work._windows += 1
            if len(self._owners) == BATCH:
                self._score()

    def _score(self) -> None:
        owners, self._owners = self._owners, []
        works = {id(work): work for work in owners}
        try:
            scores = self._scorer.score(self._x[: len(owners)], self._lengths[: len(owners)])
        except Exception as error:
            self._fail(works.values(), error)
            return
        at = 0
        for name, rows in itertools.groupby(map(id, owners)):
            work, number = works[name], len(list(rows))
            work.collector.add(scores[at : at + number])
            work._windows -= number
            work._is_scored = True
            at += number
            self._finish(work)

    def _finish(self, work: Work) -> None:
        if work.is_over or work._windows or not work._is_cut:
            return
        work.is_over = True
        self._ended -= 1
        self._finished.append((work, None if work._is_scored else silent(work.path)))

    def _fail(self, works: Iterable[Work], error: Exception) -> None:
        works = list(works)
        for work in works:
            self.give_up(work, error if len(works) == 1 else MixedBatchError(str(error)))


def silent(path: str | os.PathLike[str]) -> EmptyAudioError:
    """Return the error of a file that decodes to nothing."""
    return EmptyAudioError(os.fspath(path), "It holds no sound: zero samples were decoded.")
