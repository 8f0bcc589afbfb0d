"""What a clip's page draws: spectrogram tiles, scores over time, and an outline of the recording.

A page shows a window of at most `WINDOW_SECONDS`, so that its size does not grow with the
recording. Windows begin where clips do, because the tiles of the spectrogram are as long as a clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiosearch.errors import InvalidArgumentError
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.library.hits import Clip
from audiosearch.library.timeline import Curve, Timeline

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["UNITS", "WINDOW_SECONDS", "ClipView", "Lane", "Tick", "view_of"]

WINDOW_CLIPS = 10
WINDOW_SECONDS = WINDOW_CLIPS * CLIP_SPAN
"""Seconds of a recording that a page shows at once."""

UNITS = 50
"""Units of the drawings' coordinates in a second."""

_LANES = 6
_OUTLINE_LANES = 3
_OUTLINE_STEPS = 120
_TICKS = (0.5, 1, 2, 5, 10, 15, 30, 60)
_MOST_TICKS = 9
_MIDDLE_OF_VIEW = 0.35


@dataclass(frozen=True)
class Tick:
    """A mark on the time axis: its place in percent, and its time in seconds."""

    percent: float
    seconds: float


@dataclass(frozen=True)
class Lane:
    """The scores of one class over time, ready to draw.

    Attributes
    ----------
    label : str
        The class.
    path : str
        The outline of an area, in units, from 0 (top, score 1) to 100.
    peak, peak_score : float
        Where the highest score begins, in seconds, and that score.
    scores : str
        The scores as whole hundredths, separated by commas.
    own : bool
        Whether it is a class of the user's own.
    """

    label: str
    path: str
    peak: float
    peak_score: float
    scores: str
    own: bool


@dataclass(frozen=True)
class Step:
    """A step of the outline: from where to where in units, how strong, and the window it opens."""

    x: float
    width: float
    strength: int
    url: str


@dataclass(frozen=True)
class ClipView:
    """What a clip's page draws; times in seconds as hits give them.

    Attributes
    ----------
    start, end : float
        The window.
    length : float
        The whole recording's.
    begins : float
        Where the recording begins.
    tiles : list of (float, str)
        Where each tile of the spectrogram stands, in units, and its URL. Empty without a sound.
    lanes : list of Lane
        Empty where no frames are at hand.
    step : float
        Seconds from one score of a lane to the next.
    ticks : list of Tick
        Of the time axis.
    clip_x, clip_width : float
        Where the clip stands, in units; the width is 0 where it lies outside of the window.
    earlier, later : str or None
        URLs of the windows before and after.
    outline : list of (str, list of Step, bool)
        Classes of the whole recording, and whether each is the user's own; empty where the window
        shows it whole.
    unheard_by : list of str
        The user's own classifiers that have not heard the window.
    marker : (float, float)
        Where the window stands in the outline, in units.
    """

    start: float
    end: float
    length: float
    begins: float
    tiles: list[tuple[float, str]]
    lanes: list[Lane]
    step: float
    ticks: list[Tick]
    clip_x: float
    clip_width: float
    earlier: str | None
    later: str | None
    outline: list[tuple[str, list[Step], bool]]
    marker: tuple[float, float]
    unheard_by: list[str]

    @property
    def width(self) -> float:
        """Width of the drawings, in units."""
        return round((self.end - self.start) * UNITS, 1)

    @property
    def whole_width(self) -> float:
        """Width of the outline, in units."""
        return round(self.length * UNITS, 1)


def view_of(
    library: Library, clip_id: int, *, start: float | None, script_root: str = ""
) -> ClipView:
    """Return what the page of a clip draws.

    Parameters
    ----------
    library : Library
        Where the clip is.
    clip_id : int
        The clip.
    start : float, optional
        Where the window begins, in seconds; it moves to the next clip's begin before that. Around
        the clip where None.
    script_root : str
        What the URLs begin with.

    Raises
    ------
    LibraryError
        When there is no such clip.
    InvalidArgumentError
        When the recording ends before `start`.
    """
    clip = library.clip(clip_id)
    outline = library.outline(clip_id, top=_OUTLINE_LANES, most=_OUTLINE_STEPS)
    begins, length = outline.start, outline.end - outline.start
    if start is not None and not begins <= start < outline.end:
        raise InvalidArgumentError(
            f"The recording runs from {begins:g} to {outline.end:g} s; {start:g} s lies outside."
        )
    first = _first_clip(clip, begins, length, start)
    from_ = begins + first * CLIP_SPAN
    to = min(from_ + WINDOW_SECONDS, outline.end)
    timeline = library.timeline(clip_id, start=from_, end=to, top=_LANES)
    page = f"{script_root}/clip/{clip_id}"

    def window(number: int) -> str:
        return f"{page}?from={begins + number * CLIP_SPAN:g}#view"

    has_sound = clip.source == "file"
    tiles = [
        (
            (number - first) * CLIP_SPAN * UNITS,
            f"{script_root}/recordings/{clip.recording_id}/spectrogram/{number}.png",
        )
        for number in range(first, first + WINDOW_CLIPS)
        if has_sound and number * CLIP_SPAN < length - 1e-3
    ]
    clip_x = max(clip.start - from_, 0.0)
    clip_end = min(clip.end, to) - from_
    whole = length <= WINDOW_SECONDS + 1e-6
    last = max(math.ceil(length / CLIP_SPAN - 1e-6) - 1, 0)
    return ClipView(
        start=from_,
        end=to,
        length=length,
        begins=begins,
        tiles=tiles,
        lanes=[_lane(curve, timeline) for curve in timeline.curves],
        step=timeline.step,
        ticks=_ticks(from_, to),
        clip_x=round(clip_x * UNITS, 1),
        clip_width=round(max(clip_end - clip_x, 0.0) * UNITS, 1),
        earlier=None if first == 0 else window(max(first - WINDOW_CLIPS, 0)),
        later=None if first + WINDOW_CLIPS > last else window(first + WINDOW_CLIPS),
        outline=[] if whole else _outline(outline, page),
        marker=(round((from_ - begins) * UNITS, 1), round((to - from_) * UNITS, 1)),
        unheard_by=timeline.unheard_by,
    )


def _first_clip(clip: Clip, begins: float, length: float, start: float | None) -> int:
    """Return the number of the first clip of the window."""
    if start is not None:
        return math.floor((start - begins) / CLIP_SPAN + 1e-6)
    if length <= WINDOW_SECONDS + 1e-6:
        return 0
    own = round((clip.start - begins) / CLIP_SPAN)
    last = math.ceil(length / CLIP_SPAN - 1e-6) - WINDOW_CLIPS
    return max(min(own - int(WINDOW_CLIPS * _MIDDLE_OF_VIEW), last), 0)


def _lane(curve: Curve, timeline: Timeline) -> Lane:
    width = timeline.step * UNITS
    pieces = ["M0 100"]
    for number, score in enumerate(curve.scores):
        pieces.append(f"V{100 - 100 * score:.0f}H{(number + 1) * width:g}")
    best = max(range(len(curve.scores)), key=curve.scores.__getitem__)
    return Lane(
        curve.label,
        "".join(pieces) + "V100Z",
        timeline.start + best * timeline.step,
        curve.scores[best],
        ",".join(f"{100 * score:.0f}" for score in curve.scores),
        not curve.mid,
    )


def _outline(outline: Timeline, page: str) -> list[tuple[str, list[Step], bool]]:
    rows = []
    for curve in outline.curves:
        steps = []
        for number, score in enumerate(curve.scores):
            at = number * outline.step
            strength = min(int(score * 5 + 0.5), 5)
            if strength:
                url = f"{page}?from={outline.start + at:g}#view"
                width = min(outline.step, outline.end - outline.start - at) * UNITS
                steps.append(Step(round(at * UNITS, 1), round(width, 1), strength, url))
        rows.append((curve.label, steps, not curve.mid))
    return rows


def _ticks(start: float, end: float) -> list[Tick]:
    span = max(end - start, 1e-6)
    step = next((step for step in _TICKS if span / step <= _MOST_TICKS), _TICKS[-1])
    ticks, at = [], math.ceil(start / step - 1e-6)
    while at * step < end - span * 0.02:
        ticks.append(Tick(round(100 * (at * step - start) / span, 2), at * step))
        at += 1
    return ticks
