"""From scores of consecutive frames to events: which class, from when to when.

The scores of each class go through a running median; an event begins where the result reaches the
threshold and lasts as long as it stays above a lower one (hysteresis). Events of one class with a
short gap between them are one; what is shorter than the minimum after that is dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError

__all__ = ["Event", "EventFinder", "EventRules"]

_ROUNDING = 1e-6  # seconds


@dataclass(frozen=True)
class EventRules:
    """How events are made.

    Attributes
    ----------
    low : float
        What part of the threshold an event may fall to without ending, over 0 up to 1.
    median : int
        Frames that the running median is over; odd, 1 for none. At the ends of the sound, the first
        and last frame stand for those beyond.
    min_length : float
        Seconds that an event must last.
    merge_gap : float
        Events of one class with at most so many seconds between them are one.

    Raises
    ------
    InvalidArgumentError
        When one of them is outside of that.
    """

    low: float = 0.7
    median: int = 3
    min_length: float = 0.0
    merge_gap: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= 1:
            raise InvalidArgumentError(f"low must be over 0 and at most 1, not {self.low}.")
        if self.median < 1 or self.median % 2 == 0:
            raise InvalidArgumentError(f"median must be odd and 1 or more, not {self.median}.")
        for name, value in (("min_length", self.min_length), ("merge_gap", self.merge_gap)):
            if not math.isfinite(value) or value < 0:
                raise InvalidArgumentError(f"{name} must be 0 or more seconds, not {value}.")


@dataclass(frozen=True)
class Event:
    """A class, by its column, from `start` to `end` in seconds, with its highest score."""

    start: float
    end: float
    column: int
    score: float


@dataclass
class _Open:
    """An event that goes on, or may be merged with the next; in frames, `end` exclusive."""

    start: int
    end: int
    score: float


class EventFinder:
    """Takes scores frame by frame and gives the events.

    Parameters
    ----------
    rules : EventRules
        How events are made.
    threshold : float
        Where an event begins.
    columns : int
        How many classes.
    frame : float
        Seconds that a frame lasts.

    Memory does not grow with the length of the sound, but for the events.
    """

    def __init__(self, rules: EventRules, threshold: float, columns: int, frame: float) -> None:
        self._rules, self._frame = rules, frame
        self._high, self._low = threshold, threshold * rules.low
        self._held = np.empty((0, columns), np.float32)
        self._active = np.zeros(columns, bool)
        self._open: dict[int, _Open] = {}
        self._done: list[tuple[int, _Open]] = []
        self._count = 0  # frames that went through the median

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        """Take the scores (k, columns) of the next k frames."""
        half = self._rules.median // 2
        if not len(self._held) and not self._count and len(scores):
            self._held = np.repeat(scores[:1], half, axis=0)
        self._held = np.concatenate([self._held, scores])
        self._filter()

    def finish(self, duration: float) -> list[Event]:
        """Return the events of a sound of `duration` seconds, by start, then column."""
        if len(self._held):
            half = self._rules.median // 2
            self._held = np.concatenate([self._held, np.repeat(self._held[-1:], half, axis=0)])
            self._filter()
        self._done.extend(self._open.items())
        self._open = {}
        events = []
        for column, event in self._done:
            # A frame that is mostly padding ends with the sound; so does the last one's rest.
            last = duration if event.end >= self._count else event.end * self._frame
            start, end = event.start * self._frame, min(last, duration)
            # Ten frames are 9.6 s, whatever the last bit of a difference says.
            if end - start >= self._rules.min_length - _ROUNDING:
                events.append(Event(start, end, column, event.score))
        return sorted(events, key=lambda event: (event.start, event.column))

    def _filter(self) -> None:
        width = self._rules.median
        if len(self._held) < width:
            return
        views = np.lib.stride_tricks.sliding_window_view(self._held, width, axis=0)
        for row in np.median(views, axis=2):
            self._step(row)
        self._held = self._held[len(self._held) - width + 1 :]

    def _step(self, scores: npt.NDArray[np.float32]) -> None:
        now = self._count
        self._count += 1
        self._active = (scores >= self._high) | (self._active & (scores >= self._low))
        for column in np.flatnonzero(self._active):
            at, score = int(column), float(scores[column])
            event = self._open.get(at)
            if event is not None and (now - event.end) * self._frame <= self._rules.merge_gap:
                event.end, event.score = now + 1, max(event.score, score)
                continue
            if event is not None:
                self._done.append((at, event))
            self._open[at] = _Open(now, now + 1, score)
