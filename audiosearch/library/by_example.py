"""Search by example: the recordings that sound most like sounds, and least like others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.library.answers import (
    best_classes,
    by_part,
    hits_of,
    moment_of,
    owners_of,
    single_hits,
)
from audiosearch.library.examples import Examples, StoredFrames, listed, resolve
from audiosearch.library.filters import Filters
from audiosearch.library.hits import Hit, Moment, SearchResult, Span
from audiosearch.library.likeness import Probe, combined_probe
from audiosearch.library.matching import in_range
from audiosearch.library.ranking import first_of_each, matching_clips
from audiosearch.library.recordings import Recording
from audiosearch.library.refinement import stretch
from audiosearch.library.runs import distinct
from audiosearch.library.snapshot import Snapshot
from audiosearch.query import Range, parse

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["find_similar"]


def find_similar(
    library: Library,
    examples: Examples,
    *,
    unlike: Examples,
    query: str | None,
    limit: int,
    offset: int,
    grouped: bool,
) -> SearchResult:
    """Answer `Library.similar`, which says what is what."""
    likes, unlikes = listed(examples), listed(unlike)
    if not likes:
        raise InvalidArgumentError("Give at least one example of what is wanted.")
    node = None
    if query is not None:
        node = parse(query, vocabulary=library.vocabulary(), narrows=True)
    now = library.snapshot()
    labelled, corrections = library.labelled(now)
    wanted, unwanted = resolve(library, now, likes), resolve(library, now, unlikes)
    own = np.unique([clip for one in (*wanted, *unwanted) for clip in one.clips]).astype(int)
    among: npt.NDArray[np.int64] | None = None
    spans: list[Range] = []
    if node is not None:
        masks = Filters(library.facts, labelled, corrections)
        among, owners, spans = matching_clips(node, labelled.parts, masks=masks)
        left = ~np.isin(among, own)
        among, total = among[left], len(distinct(owners[left]))
        total_clips = len(among)
    else:
        total, total_clips = now.live_recordings, now.live_clips - len(own)
        total -= _emptied(now, own)
    positive = combined_probe([(one.probe, one.weight) for one in wanted])
    probe = combined_probe([(positive, 1.0)], [(one.probe, one.weight) for one in unwanted])
    clips, near, sure = _nearest(library, now, probe, own, among, spans, offset + limit, grouped)
    if spans:
        total, total_clips = sure
    owners = owners_of(now, clips)
    firsts = first_of_each(owners) if grouped else np.arange(len(clips))
    places = firsts[offset : offset + limit]
    known = library.catalogue.recordings_at(owners[places].tolist(), now.lengths["moves"])
    on_page = np.flatnonzero(np.isin(owners, owners[places])) if grouped else places
    tops = dict(zip(on_page.tolist(), best_classes(labelled, clips[on_page]), strict=True))
    names = labelled.class_names
    moments: dict[int, list[Moment]] = {}
    for at, top in tops.items():
        recording = known.get(int(owners[at]))
        if recording is not None:
            score = max(float(near[at]), 0.0)
            moments.setdefault(recording.id, []).append(
                moment_of(recording, int(clips[at]), score, names[top])
            )
    ids = owners[places].tolist()
    found = [(known[n], moments[n]) for n in ids if n in moments]
    if not grouped:
        found = single_hits(ids, clips[places].tolist(), known, moments)
    hits = hits_of(labelled, corrections, found)
    hits = _refined(library, now, hits, known, positive)
    return SearchResult(query, total, total_clips, offset, limit, hits, grouped)


def _nearest(
    library: Library,
    now: Snapshot,
    probe: Probe,
    own: npt.NDArray[np.int64],
    among: npt.NDArray[np.int64] | None,
    spans: Sequence[Range],
    wanted: int,
    grouped: bool,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], tuple[int, int]]:
    """Return the nearest clips, best first, so many that `wanted` hits are sure.

    Also how many recordings and clips there are; right where there are ranges of scores, as
    every clip is looked at then.
    """
    search = library.neighbours(now)
    most = now.live_clips if among is None else len(among)
    # Several clips of a recording make one hit, and clips that are equally near may stand in
    # any order at the end: ask until what stands before them fills the page.
    count = max(most, 1) if spans else 2 * wanted + 10 + len(own)
    while True:
        clips, near = search.search(probe, count, among=among)
        kept = ~np.isin(clips, own)
        for span in spans:
            kept &= in_range(np.maximum(near, 0), span)
        clips, near = clips[kept], near[kept]
        if count >= most:
            break
        sure = clips[near > near.min(initial=2.0)]
        if len(distinct(owners_of(now, sure)) if grouped else sure) >= wanted:
            break
        count *= 4
    if not spans:
        return clips, near, (0, 0)
    return clips, near, (len(distinct(owners_of(now, clips))), len(clips))


def _refined(
    library: Library,
    now: Snapshot,
    hits: list[Hit],
    known: dict[int, Recording],
    positive: Probe,
) -> list[Hit]:
    """Say of each hit where in its clip the likeness lies, as far as frames are at hand."""
    result = []
    with StoredFrames(library, now) as stored:
        for hit in hits:
            frames = stored.of(hit.clip, known[hit.recording_id])
            if len(frames):
                first, stop = stretch(frames, positive[-EMBEDDING_SIZE:])
                end = hit.end if stop == len(frames) else hit.start + stop * PATCH_SECONDS
                match = Span(hit.start + first * PATCH_SECONDS, min(end, hit.end))
                hit = replace(hit, match=match)
            result.append(hit)
    return result


def _emptied(now: Snapshot, own: npt.NDArray[np.int64]) -> int:
    """Return how many recordings have no clip but those of `own`."""
    result = 0
    for block, _, rows in by_part(now, own):
        numbers, counts = np.unique(block.recordings[rows], return_counts=True)
        first = np.searchsorted(block.recordings, numbers)
        result += int((np.searchsorted(block.recordings, numbers, "right") - first == counts).sum())
    return result
