"""Which tags of a file are wanted, and how they are made of its scores in a worker process."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.jobs import Collector
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.tagging.events import EventFinder, EventRules

__all__ = ["UNITS", "Row", "TagRules", "class_indices"]

UNITS = ("file", "clip", "segment")
"""What a row may be about."""

Row = tuple[float, float, list[tuple[int, float]]]
"""Start and end in seconds, and (class index, score) best first."""

SEGMENT_THRESHOLD = 0.5
"""The threshold of segments where none is given."""


@dataclass(frozen=True)
class TagRules:
    """Which tags are wanted.

    Attributes
    ----------
    per : str
        ``"file"``: one row a file, a class's score is the maximum over its clips; ``"clip"``: one
        row a clip of 9.6 s; ``"segment"``: one row an event, see `audiosearch.tagging.events`.
    top : int
        At most so many classes a row; in segments, so many classes a file.
    threshold : float or None
        Only scores from here on; None means all, and for segments 0.5.
    classes : tuple of int or None
        Only these classes; all where None.
    hop : float
        Seconds from the start of a clip to the start of the next: a multiple of 0.96, up to 9.6.
        Less than 9.6 makes clips overlap. Segments do not use it.
    events : EventRules
        How segments are made.

    Raises
    ------
    InvalidArgumentError
        When one of them is outside of what is possible.
    """

    per: str = "file"
    top: int = 5
    threshold: float | None = None
    classes: tuple[int, ...] | None = None
    hop: float = CLIP_FRAMES * PATCH_SECONDS
    events: EventRules = field(default_factory=EventRules)

    def __post_init__(self) -> None:
        if self.per not in UNITS:
            raise InvalidArgumentError(f"per must be file, clip or segment, not '{self.per}'.")
        if not 1 <= self.top <= CLASS_COUNT:
            raise InvalidArgumentError(f"top must be from 1 to {CLASS_COUNT}, not {self.top}.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InvalidArgumentError(f"threshold must be from 0 to 1, not {self.threshold}.")
        if self.classes is not None and not self.classes:
            raise InvalidArgumentError("Name at least one class.")
        steps = self.hop / PATCH_SECONDS if math.isfinite(self.hop) else 0.0
        if not 1 <= round(steps) <= CLIP_FRAMES or abs(steps - round(steps)) > 1e-6:
            near = min(max(round(steps), 1), CLIP_FRAMES) * PATCH_SECONDS
            raise InvalidArgumentError(
                f"hop must be a multiple of {PATCH_SECONDS:g} s, from {PATCH_SECONDS:g} to "
                f"{CLIP_FRAMES * PATCH_SECONDS:g}, not {self.hop:g}; the nearest is {near:g}."
            )

    # as a Reduction

    @property
    def window(self) -> int:
        """Frames that a score is of."""
        return 1 if self.per == "segment" else CLIP_FRAMES

    @property
    def step(self) -> float:
        """Seconds from one window to the next."""
        return self.hop_frames * PATCH_SECONDS

    @property
    def hop_frames(self) -> int:
        """Frames from one window to the next."""
        return 1 if self.per == "segment" else round(self.hop / PATCH_SECONDS)

    def collector(self) -> Collector:
        """Return what collects the rows of one file."""
        if self.per == "segment":
            return _SegmentRows(self)
        return _ClipRows(self) if self.per == "clip" else _FileRow(self)

    def best(self, scores: npt.NDArray[np.floating]) -> list[tuple[int, float]]:
        """Return the wanted classes of scores (527,), best first; of equals the first class."""
        order = np.argsort(-scores, kind="stable")
        if self.classes is not None:
            order = order[np.isin(order, self.classes)]
        if self.threshold is not None:
            order = order[scores[order] >= self.threshold]
        return [(int(i), float(scores[i])) for i in order[: self.top]]

    def fingerprint(self, *models: str) -> str:
        """Return a SHA-256 over all that decides about the rows, `models` included."""
        facts = asdict(self)
        # What has no influence makes no difference.
        facts.pop("hop" if self.per == "segment" else "events")
        text = json.dumps([facts, *models], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def class_indices(names: Iterable[str]) -> tuple[int, ...]:
    """Return the indices of classes by display name or mid, in the order of the classes.

    Raises
    ------
    InvalidArgumentError
        When no class is called so; the message names the nearest.
    """
    labels = load_labels()
    return tuple(sorted({labels.by_name(name).index for name in names}))


class _FileRow:
    def __init__(self, rules: TagRules) -> None:
        self._rules = rules
        self._best = np.zeros(CLASS_COUNT, np.float32)

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        np.maximum(self._best, scores.max(axis=0), out=self._best)

    def finish(self, start: float, duration: float) -> list[Row]:
        return [(start, start + duration, self._rules.best(self._best))]


class _ClipRows:
    def __init__(self, rules: TagRules) -> None:
        self._rules = rules
        self._tags: list[list[tuple[int, float]]] = []

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        self._tags.extend(self._rules.best(row) for row in scores)

    def finish(self, start: float, duration: float) -> list[Row]:
        rows: list[Row] = []
        for number, tags in enumerate(self._tags):
            first = number * self._rules.step
            last = min(first + self._rules.window * PATCH_SECONDS, duration)
            rows.append((start + first, start + max(last, first), tags))
        return rows


class _SegmentRows:
    def __init__(self, rules: TagRules) -> None:
        self._rules = rules
        self._classes: Sequence[int] = rules.classes or range(CLASS_COUNT)
        threshold = SEGMENT_THRESHOLD if rules.threshold is None else rules.threshold
        self._finder = EventFinder(rules.events, threshold, len(self._classes), PATCH_SECONDS)

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        self._finder.add(scores[:, list(self._classes)])

    def finish(self, start: float, duration: float) -> list[Row]:
        events = self._finder.finish(duration)
        best: dict[int, float] = {}
        for event in events:
            best[event.column] = max(best.get(event.column, 0.0), event.score)
        kept = set(sorted(best, key=lambda column: (-best[column], column))[: self._rules.top])
        rows: list[Row] = [
            (
                start + event.start,
                start + event.end,
                [(self._classes[event.column], event.score)],
            )
            for event in events
            if event.column in kept
        ]
        # A file without events has a row too, without tags, so that none is missing.
        return rows or [(start, start + duration, [])]
