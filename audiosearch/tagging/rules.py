"""Which tags of a file are wanted, and how they are made of its scores in a worker process."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.jobs import Collector
from audiosearch.labels import CLASS_COUNT, load_labels, name_key
from audiosearch.own.classifier import Track
from audiosearch.tagging.events import Event, EventFinder, EventRules

__all__ = ["UNITS", "ClassKey", "Row", "TagRules", "class_keys", "name_of"]

UNITS = ("file", "clip", "segment")
"""What a row may be about."""

ClassKey: TypeAlias = int | str
"""A class: its index among AudioSet's, or the name of one of the user's own."""

Row: TypeAlias = tuple[float, float, list[tuple[ClassKey, float]]]
"""Start and end in seconds, and (class, score) best first."""

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
    classes : tuple of (int or str) or None
        Only these classes, by index, own ones by name; all where None.
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
    classes: tuple[ClassKey, ...] | None = None
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

    def best(
        self,
        scores: npt.NDArray[np.floating],
        own: Iterable[tuple[str, float]] = (),
    ) -> list[tuple[ClassKey, float]]:
        """Return the wanted classes of scores (527,), and of own classes, best first.

        Of equals the first class comes first, and AudioSet's before own ones.
        """
        order = np.argsort(-scores, kind="stable")
        if self.classes is not None:
            order = order[np.isin(order, self.audioset)]
        if self.threshold is not None:
            order = order[scores[order] >= self.threshold]
        return self.merged([(int(i), float(scores[i])) for i in order[: self.top]], own)

    def merged(
        self, best: Sequence[tuple[ClassKey, float]], own: Iterable[tuple[str, float]]
    ) -> list[tuple[ClassKey, float]]:
        """Return wanted classes, best first, with those of some own classes that are wanted."""
        least = 0.0 if self.threshold is None else self.threshold
        more = [pair for pair in own if self.wants(pair[0]) and pair[1] >= least]
        return sorted([*best, *more], key=lambda pair: -pair[1])[: self.top]

    def wants(self, name: str) -> bool:
        """Tell whether a class of the user's own is wanted."""
        return self.classes is None or name in self.classes

    @property
    def audioset(self) -> list[int]:
        """The wanted classes of AudioSet."""
        if self.classes is None:
            return list(range(CLASS_COUNT))
        return [key for key in self.classes if isinstance(key, int)]

    def fingerprint(self, *models: str) -> str:
        """Return a SHA-256 over all that decides about the rows, `models` included."""
        facts = asdict(self)
        # What has no influence makes no difference.
        facts.pop("hop" if self.per == "segment" else "events")
        text = json.dumps([facts, *models], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def class_keys(names: Iterable[str], own: Iterable[str] = ()) -> tuple[ClassKey, ...]:
    """Return classes by display name or mid, in the order of the classes.

    Parameters
    ----------
    names : iterable of str
        Their names.
    own : iterable of str
        The names of the user's own classes. They come last, and one that is called as a class of
        AudioSet's stands for both.

    Raises
    ------
    InvalidArgumentError
        When no class is called so; the message names the nearest.
    """
    labels = load_labels()
    known = {name_key(name): name for name in own}
    indices, found = set(), set()
    for name in names:
        ours = known.get(name_key(name))
        if ours is not None:
            found.add(ours)
        try:
            indices.add(labels.by_name(name).index)
        except InvalidArgumentError:
            if ours is None:
                raise
    return (*sorted(indices), *(name for name in known.values() if name in found))


def name_of(key: ClassKey) -> tuple[str, str]:
    """Return name and mid of a class; the mid of an own class is empty."""
    if isinstance(key, str):
        return key, ""
    label = load_labels()[key]
    return label.name, label.mid


class _FileRow:
    def __init__(self, rules: TagRules) -> None:
        self._rules = rules
        self._best = np.zeros(CLASS_COUNT, np.float32)
        self._own: list[tuple[str, float]] = []

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        np.maximum(self._best, scores.max(axis=0), out=self._best)

    def add_own(self, track: Track) -> None:
        self._own += zip(track.classes, track.best().tolist(), strict=True)

    def finish(self, start: float, duration: float) -> list[Row]:
        return [(start, start + duration, self._rules.best(self._best, self._own))]


class _ClipRows:
    def __init__(self, rules: TagRules) -> None:
        self._rules = rules
        self._tags: list[list[tuple[ClassKey, float]]] = []
        self._tracks: list[Track] = []

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        self._tags.extend(self._rules.best(row) for row in scores)

    def add_own(self, track: Track) -> None:
        self._tracks.append(track)

    def finish(self, start: float, duration: float) -> list[Row]:
        firsts = [number * self._rules.step for number in range(len(self._tags))]
        span = self._rules.window * PATCH_SECONDS
        stops = [max(first, min(first + span, duration)) for first in firsts]
        own: list[list[tuple[str, float]]] = [[] for _ in firsts]
        for track in self._tracks:
            for row, scores in zip(own, track.over(np.array(firsts), np.array(stops)), strict=True):
                row += zip(track.classes, scores.tolist(), strict=True)
        return [
            (start + first, start + stop, self._rules.merged(tags, more))
            for first, stop, tags, more in zip(firsts, stops, self._tags, own, strict=True)
        ]


class _SegmentRows:
    def __init__(self, rules: TagRules) -> None:
        self._rules = rules
        self._classes = rules.audioset
        self._finder = self._events(len(self._classes))
        self._frames = 0
        self._tracks: list[Track] = []

    def add(self, scores: npt.NDArray[np.float32]) -> None:
        self._frames += len(scores)
        self._finder.add(scores[:, self._classes])

    def add_own(self, track: Track) -> None:
        self._tracks.append(track)

    def finish(self, start: float, duration: float) -> list[Row]:
        found: list[tuple[Event, int, ClassKey]] = [
            (event, event.column, self._classes[event.column])
            for event in self._finder.finish(duration)
        ]
        place = CLASS_COUNT
        frames = np.arange(self._frames) * PATCH_SECONDS
        for track in self._tracks:
            wanted = [n for n, name in enumerate(track.classes) if self._rules.wants(name)]
            finder = self._events(len(wanted))
            finder.add(track.over(frames, frames + PATCH_SECONDS)[:, wanted])
            found += [
                (event, place + event.column, track.classes[wanted[event.column]])
                for event in finder.finish(duration)
            ]
            place += len(track.classes)
        best: dict[int, float] = {}
        for event, number, _ in found:
            best[number] = max(best.get(number, 0.0), event.score)
        kept = set(sorted(best, key=lambda number: (-best[number], number))[: self._rules.top])
        rows: list[Row] = [
            (start + event.start, start + event.end, [(key, event.score)])
            for event, number, key in sorted(found, key=lambda each: (each[0].start, each[1]))
            if number in kept
        ]
        # A file without events has a row too, without tags, so that none is missing.
        return rows or [(start, start + duration, [])]

    def _events(self, columns: int) -> EventFinder:
        rules = self._rules
        threshold = SEGMENT_THRESHOLD if rules.threshold is None else rules.threshold
        return EventFinder(rules.events, threshold, columns, PATCH_SECONDS)
