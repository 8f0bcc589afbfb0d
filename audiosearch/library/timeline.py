"""How the scores of classes go through a recording: frame by frame, or clip by clip.

A frame is scored as if it were a sound of 0.96 s of its own, as
``audiosearch tag --per segment`` does it. That needs the embedding frames. The scores of whole
clips are stored, so an outline of a recording of any length costs next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.errors import InvalidArgumentError, LibraryError
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.columns import decode_scores
from audiosearch.library.examples import StoredFrames
from audiosearch.library.scoring import clip_scorer, sound_maker

if TYPE_CHECKING:
    from audiosearch.library.clip_details import ClipDetails
    from audiosearch.library.recordings import Recording
    from audiosearch.library.snapshot import Snapshot

__all__ = ["LONGEST_TIMELINE", "Curve", "Timeline", "frame_timeline", "outline"]

LONGEST_TIMELINE = 600.0
"""Seconds that a timeline of frames covers at most."""


@dataclass(frozen=True)
class Curve:
    """The scores of one class, one a step."""

    label: str
    mid: str
    scores: list[float]


@dataclass(frozen=True)
class Timeline:
    """Scores of a recording over time.

    Attributes
    ----------
    recording_id : int
        The recording.
    start, end : float
        Where the first step begins and the last one ends, in seconds, as hits give them.
    step : float
        Seconds from one score to the next.
    curves : list of Curve
        The classes that are heard most surely, best first. Empty where the recording's embedding
        frames are not at hand.
    """

    recording_id: int
    start: float
    end: float
    step: float
    curves: list[Curve]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, scores with four digits."""
        return {
            "recording_id": self.recording_id,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "step": round(self.step, 3),
            "curves": [
                {
                    "label": curve.label,
                    "mid": curve.mid,
                    "scores": [round(score, 4) for score in curve.scores],
                }
                for curve in self.curves
            ],
        }


def frame_timeline(
    library: ClipDetails, clip_id: int, *, start: float | None, end: float | None, top: int
) -> Timeline:
    """Score the frames of a part of a recording; see `Library.timeline`."""
    _check_top(top)
    now, recording = _found(library, clip_id)
    begins, length = recording.start, recording.duration
    first_second = begins if start is None else start
    last_second = begins + length if end is None else end
    if not begins - 1e-6 <= first_second < last_second <= begins + length + 0.01:
        raise InvalidArgumentError(
            f"The recording runs from {begins:g} to {begins + length:g} s; the part from "
            f"{first_second:g} to {last_second:g} s does not lie in it."
        )
    if last_second - first_second > LONGEST_TIMELINE + 0.01:
        raise InvalidArgumentError(
            f"A timeline of frames covers at most {LONGEST_TIMELINE:g} s, not "
            f"{last_second - first_second:g}. Ask for a part."
        )
    first = max(math.floor((first_second - begins) / PATCH_SECONDS + 1e-6), 0)
    stop = max(math.ceil((last_second - begins) / PATCH_SECONDS - 1e-6), first + 1)
    clips = range(first // CLIP_FRAMES, min(-(-stop // CLIP_FRAMES), recording.clips))
    with StoredFrames(library, now) as stored:
        pieces = [stored.of(recording.first_clip + number, recording) for number in clips]
    frames = np.concatenate([np.empty((0, FRAME_VALUES), np.uint8), *pieces])
    frames = frames[first - first // CLIP_FRAMES * CLIP_FRAMES :][: stop - first]
    from_second = begins + first * PATCH_SECONDS
    if not len(frames) or not all(len(piece) for piece in pieces):
        return Timeline(recording.id, from_second, last_second, PATCH_SECONDS, [])
    x = np.zeros((len(frames), CLIP_FRAMES, FRAME_VALUES), np.uint8)
    x[:, 0] = frames
    scorer = clip_scorer(library.manifest, sound_maker(library.manifest, recording.source))
    scores = scorer.score(x, np.ones(len(x), np.int64))
    to_second = min(from_second + len(frames) * PATCH_SECONDS, begins + length)
    # What is heard in several frames comes before what flares up in one.
    strongest = np.sort(scores, axis=0)[-min(3, len(scores)) :].mean(axis=0)
    curves = _curves(scores, np.argsort(-strongest, kind="stable")[:top])
    return Timeline(recording.id, from_second, max(to_second, from_second), PATCH_SECONDS, curves)


def outline(library: ClipDetails, clip_id: int, *, top: int, most: int) -> Timeline:
    """Return the stored scores of all clips of a recording; see `Library.outline`."""
    _check_top(top)
    if most < 1:
        raise InvalidArgumentError(f"most must be at least 1, not {most}.")
    now, recording = _found(library, clip_id)
    place = now.place_of(recording)
    if place is None:
        raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
    block = now.parts[place[0]].block
    rows = np.arange(place[1], place[1] + recording.clips)
    _, classes, codes = block.entries(rows)
    heard = np.bincount(classes, weights=decode_scores(codes), minlength=CLASS_COUNT)
    chosen = np.argsort(-heard, kind="stable")[:top]
    together = -(-recording.clips // most)
    starts = np.arange(0, recording.clips, together)
    scores = np.zeros((len(starts), CLASS_COUNT), np.float32)
    for column in chosen.tolist():
        scores[:, column] = np.maximum.reduceat(decode_scores(block.column(column)[rows]), starts)
    return Timeline(
        recording.id,
        recording.start,
        recording.start + recording.duration,
        together * CLIP_SPAN,
        _curves(scores, chosen),
    )


def _curves(scores: npt.NDArray[np.float32], chosen: npt.NDArray[np.intp]) -> list[Curve]:
    labels = load_labels()
    return [
        Curve(labels[column].name, labels[column].mid, scores[:, column].tolist())
        for column in chosen.tolist()
    ]


def _check_top(top: int) -> None:
    if not 1 <= top <= CLASS_COUNT:
        raise InvalidArgumentError(f"top must be from 1 to {CLASS_COUNT}, not {top}.")


def _found(library: ClipDetails, clip_id: int) -> tuple[Snapshot, Recording]:
    now = library.snapshot()
    part, row = now.find(clip_id)
    number = int(part.block.recordings[row])
    recording = library.catalogue.recordings([number]).get(number)
    if recording is None:
        raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
    return now, recording
