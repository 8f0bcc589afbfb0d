"""Answers: what a ranking found, as the hits of a page.

A ranking names recordings or clips by their numbers. Here these get their paths, times, tags,
reasons, and what the user said of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import load_labels
from audiosearch.library.blocks import Block
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.corrections import Corrections
from audiosearch.library.explanation import explain
from audiosearch.library.hits import Hit, Moment, Reason, Tag
from audiosearch.library.matching import Masks, match
from audiosearch.library.recordings import Recording
from audiosearch.library.snapshot import Snapshot, tags_of
from audiosearch.query import Node

__all__ = [
    "best_classes",
    "by_part",
    "clip_span",
    "hits_of",
    "label_names",
    "moment_of",
    "moments_of",
    "owners_of",
    "single_hits",
    "with_copies",
]


def hits_of(
    now: Snapshot,
    corrections: Corrections,
    found: list[tuple[Recording, list[Moment]]],
    node: Node | None = None,
) -> list[Hit]:
    """Return the hits of a page from the moments of each recording, best first.

    `node` is the query that found them, where there was one.
    """
    clips = [moments[0].clip for _, moments in found]
    why: list[list[Reason]] = [[] for _ in clips]
    tags: list[list[Tag]] = [[] for _ in clips]
    for block, at, rows in by_part(now, np.array(clips, np.int64)):
        entries, places = block.entries(rows), at.tolist()
        for place, best in zip(places, tags_of(block, rows, 5, entries=entries), strict=True):
            tags[place] = best
        if node is not None:
            for place, reasons in zip(places, explain(node, block, rows, entries), strict=True):
                why[place] = reasons
    hits = [
        _hit(recording, moments, best, reasons)
        for (recording, moments), best, reasons in zip(found, tags, why, strict=True)
    ]
    if not corrections.version:
        return hits
    return [
        _with_corrections(hit, corrections, recording, node)
        for hit, (recording, _) in zip(hits, found, strict=True)
    ]


def with_copies(
    catalogue: Catalogue, now: Snapshot, hit: Hit, copies: dict[int, tuple[int, ...]]
) -> Hit:
    """Return a hit that names the exact copies of its recording."""
    ids = copies.get(hit.recording_id, ())
    known = catalogue.recordings_at(ids, now.lengths["moves"])
    return replace(hit, copies=[known[number].name for number in ids if number in known])


def moments_of(
    now: Snapshot, node: Node, masks: Masks, recordings: list[Recording]
) -> dict[int, list[Moment]]:
    """Return the clips of some recordings that match, best first, by recording.

    One that another process removed meanwhile is left out.
    """
    places: dict[int, list[tuple[Recording, int]]] = {}
    for recording in recordings:
        where = now.place_of(recording)
        if where is not None:
            places.setdefault(where[0], []).append((recording, where[1]))
    names = now.class_names
    result: dict[int, list[Moment]] = {}
    for number, wanted in places.items():
        block = now.parts[number].block
        counts = np.array([recording.clips for recording, _ in wanted])
        ends = np.cumsum(counts)
        firsts = np.array([row for _, row in wanted]) - ends + counts
        rows = np.arange(ends[-1]) + np.repeat(firsts, counts)
        matched = match(node, block, rows, masks=masks)
        # A page has fifty recordings, mostly of one clip: lists are faster than arrays here.
        clips, found = block.clip_ids(rows).tolist(), matched.found.tolist()
        scores, labels = matched.score.tolist(), matched.label.tolist()
        stop = 0
        for recording, _ in wanted:
            start, stop = stop, stop + recording.clips
            at = [place for place in range(start, stop) if found[place]]
            if len(at) > 1:
                at.sort(key=scores.__getitem__, reverse=True)  # of equals the first stays first
            result[recording.id] = [
                moment_of(recording, clips[n], scores[n], names[labels[n]]) for n in at
            ]
    return {number: moments for number, moments in result.items() if moments}


def single_hits(
    ids: list[int], clips: list[int], known: dict[int, Recording], moments: dict[int, list[Moment]]
) -> list[tuple[Recording, list[Moment]]]:
    """Return the clips of a page, each as a hit of its own, of recordings `ids`."""
    at = {moment.clip: moment for found in moments.values() for moment in found}
    pairs = zip(ids, clips, strict=True)
    return [(known[number], [at[clip]]) for number, clip in pairs if clip in at]


def moment_of(recording: Recording, clip: int, score: float, label: str) -> Moment:
    """Return one clip of a recording as a match."""
    start, end = clip_span(recording, clip)
    return Moment(clip, start, end, score, label)


def clip_span(recording: Recording, clip: int) -> tuple[float, float]:
    """Return where a clip begins and ends, in seconds; for AudioSet's, from the video's start."""
    number = clip - recording.first_clip
    start = recording.start + number * CLIP_SPAN
    last = number == recording.clips - 1
    end = recording.start + (recording.duration if last else (number + 1) * CLIP_SPAN)
    return start, max(end, start)


def by_part(
    now: Snapshot, clips: npt.NDArray[np.int64]
) -> Iterator[tuple[Block, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Give for each block that holds some of the clips: it, their places in `clips`, their rows."""
    for part in now.parts:
        at = np.flatnonzero((clips >= part.block.first) & (clips < part.block.stop))
        if len(at):
            yield part.block, at, part.block.rows_of(clips[at])


def owners_of(now: Snapshot, clips: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of the recordings of some clips."""
    result = np.zeros(len(clips), np.int64)
    for block, at, rows in by_part(now, clips):
        result[at] = block.recordings[rows]
    return result


def best_classes(now: Snapshot, clips: npt.NDArray[np.int64]) -> list[int]:
    """Return the best class of each clip."""
    result = np.zeros(len(clips), np.int64)
    for block, at, rows in by_part(now, clips):
        offsets, classes, _ = block.entries(rows)
        result[at] = classes[offsets[:-1]]
    return result.tolist()


def _hit(recording: Recording, moments: list[Moment], tags: list[Tag], why: list[Reason]) -> Hit:
    """Return the hit of a recording whose best clip is the first of `moments`."""
    best = moments[0]
    return Hit(
        recording=recording.name,
        source=recording.source,
        recording_id=recording.id,
        clip=best.clip,
        start=best.start,
        end=best.end,
        score=best.score,
        label=best.label,
        tags=tags,
        labels=label_names(recording),
        moments=moments[1:],
        why=why,
    )


def _with_corrections(
    hit: Hit, corrections: Corrections, recording: Recording, node: Node | None
) -> Hit:
    """Return a hit with what the user said of its clip; found by that alone, it is called so."""
    said = corrections.of_clip(recording.id, recording.start, hit.clip)
    label = hit.label
    if node is not None and not any(not reason.excluded for reason in hit.why):
        own = corrections.asked_for(node, said)
        label = own or label
    return replace(hit, corrections=said, label=label)


def label_names(recording: Recording) -> list[str] | None:
    """Return the true classes of a recording by name; None where they are not known."""
    if recording.labels is None:
        return None
    return [load_labels()[index].name for index in recording.labels]
