"""How the scores of classes go through a recording: frame by frame, or clip by clip.

A frame is scored as if it were a sound of 0.96 s of its own, as
``audiosearch tag --per segment`` does it. That needs the embedding frames. Of the user's own
classes the scores of frames are stored, as those of whole clips are of all; so an outline of a
recording of any length costs next to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.errors import InvalidArgumentError, LibraryError
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.blocks import POSTED_CODE
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
    """The scores of one class, one a step; a class of the user's own has no mid."""

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
        The classes that are heard most surely, best first. Where the recording's embedding frames
        are not at hand, these are the user's own classes alone, as far as they were heard.
    unheard_by : list of str
        Classifiers of the user's own that have not heard this part, so that their classes are
        missing.
    """

    recording_id: int
    start: float
    end: float
    step: float
    curves: list[Curve]
    unheard_by: list[str] = field(default_factory=list)

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
            "unheard_by": self.unheard_by,
        }


def frame_timeline(
    library: ClipDetails, clip_id: int, *, start: float | None, end: float | None, top: int
) -> Timeline:
    """Score the frames of a part of a recording; see `Library.timeline`."""
    _check_top(library, top)
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
    within = slice(first % CLIP_FRAMES, first % CLIP_FRAMES + stop - first)
    frames = frames[within]
    own, unheard_by = _own_frames(library, now, recording.first_clip + np.array(clips))
    from_second = begins + first * PATCH_SECONDS
    if not len(frames) or not all(len(piece) for piece in pieces):
        # Behind a recording's last frame there are zeros, which no frame that was heard has.
        own = own[within][: np.flatnonzero(own[within].any(axis=1)).max(initial=-1) + 1]
        curves = _own_curves(library, own, unheard_by, top)
        if curves:
            last_second = min(from_second + len(own) * PATCH_SECONDS, begins + length)
        return Timeline(recording.id, from_second, last_second, PATCH_SECONDS, curves, unheard_by)
    x = np.zeros((len(frames), CLIP_FRAMES, FRAME_VALUES), np.uint8)
    x[:, 0] = frames
    scorer = clip_scorer(library.manifest, sound_maker(library.manifest, recording.source))
    scores = scorer.score(x, np.ones(len(x), np.int64))
    scores = np.concatenate([scores, own[within][: len(scores)]], axis=1)
    to_second = min(from_second + len(frames) * PATCH_SECONDS, begins + length)
    curves = _curves(library, scores, np.argsort(-_strength(scores), kind="stable")[:top])
    to_second = max(to_second, from_second)
    return Timeline(recording.id, from_second, to_second, PATCH_SECONDS, curves, unheard_by)


def _strength(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return how surely each class is heard: what is heard in several frames comes first."""
    best: npt.NDArray[np.float32] = np.sort(scores, axis=0)[-min(3, len(scores)) :].mean(axis=0)
    return best


def _own_curves(
    library: ClipDetails, own: npt.NDArray[np.float32], unheard_by: list[str], top: int
) -> list[Curve]:
    """Return the curves of the own classes of all classifiers that have heard the frames."""
    heard = [each.name not in unheard_by for each in library.own.classifiers for _ in each.classes]
    if not any(heard) or not len(own):
        return []
    strongest = np.where(heard, _strength(own), -1)
    chosen = np.argsort(-strongest, kind="stable")[: min(top, sum(heard))]
    scores = np.zeros((len(own), CLASS_COUNT + own.shape[1]), np.float32)
    scores[:, CLASS_COUNT:] = own
    return _curves(library, scores, CLASS_COUNT + chosen)


def _own_frames(
    library: ClipDetails, now: Snapshot, clips: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Return the scores of own classes in the frames of clips, and who has not heard them all."""
    parts = [np.empty((len(clips) * CLIP_FRAMES, 0), np.float32)]
    unheard_by = []
    for each in library.own.classifiers:
        codes = each.read_frames(clips, now.lengths["clips"])
        if not codes.any(axis=(1, 2)).all():
            unheard_by.append(each.name)
        scores = np.where(codes, decode_scores(codes), np.float32(0))
        parts.append(scores.reshape(len(clips) * CLIP_FRAMES, -1))
    return np.concatenate(parts, axis=1), unheard_by


def outline(library: ClipDetails, clip_id: int, *, top: int, most: int) -> Timeline:
    """Return the stored scores of all clips of a recording; see `Library.outline`."""
    _check_top(library, top)
    if most < 1:
        raise InvalidArgumentError(f"most must be at least 1, not {most}.")
    now, recording = _found(library, clip_id)
    place = now.place_of(recording)
    if place is None:
        raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
    block = now.parts[place[0]].block
    rows = np.arange(place[1], place[1] + recording.clips)
    _, classes, codes = block.entries(rows)
    clips = recording.first_clip + np.arange(recording.clips)
    own = library.own.read(clips, now.lengths["clips"]).clips
    totals = np.concatenate(
        [
            np.bincount(classes, weights=decode_scores(codes), minlength=CLASS_COUNT),
            np.where(own >= POSTED_CODE, decode_scores(own), np.float32(0)).sum(axis=0),
        ]
    )
    chosen = np.argsort(-totals, kind="stable")[:top]
    together = -(-recording.clips // most)
    starts = np.arange(0, recording.clips, together)
    scores = np.zeros((len(starts), len(totals)), np.float32)
    for number in chosen.tolist():
        is_own = number >= CLASS_COUNT
        column = own[:, number - CLASS_COUNT] if is_own else block.column(number)[rows]
        scores[:, number] = np.maximum.reduceat(decode_scores(column), starts)
    heard = library.own.heard(clips, now.lengths["clips"])
    return Timeline(
        recording.id,
        recording.start,
        recording.start + recording.duration,
        together * CLIP_SPAN,
        _curves(library, scores, chosen),
        [
            each.name
            for each, clips_heard in zip(library.own.classifiers, heard, strict=True)
            if not clips_heard.all()
        ],
    )


def _curves(
    library: ClipDetails, scores: npt.NDArray[np.float32], chosen: npt.NDArray[np.intp]
) -> list[Curve]:
    labels, own = load_labels(), library.own.names
    return [
        Curve(
            labels[number].name if number < CLASS_COUNT else own[number - CLASS_COUNT],
            labels[number].mid if number < CLASS_COUNT else "",
            scores[:, number].tolist(),
        )
        for number in chosen.tolist()
    ]


def _check_top(library: ClipDetails, top: int) -> None:
    most = CLASS_COUNT + len(library.own.names)
    if not 1 <= top <= most:
        raise InvalidArgumentError(f"top must be from 1 to {most}, not {top}.")


def _found(library: ClipDetails, clip_id: int) -> tuple[Snapshot, Recording]:
    now = library.snapshot()
    part, row = now.find(clip_id)
    number = int(part.block.recordings[row])
    recording = library.catalogue.recordings([number]).get(number)
    if recording is None:
        raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
    return now, recording
