"""Which clips match a query, and which recordings stand on a page.

A clip matches a term when one of the term's classes scores at least `MATCH_SCORE`; the term's score
is the noisy-or of its classes (`audiosearch.library.rollup`), that of a weaker meaning weighted
down. AND multiplies the scores of its terms, OR is the noisy-or of those that match, and NOT leaves
out what surely holds its part: a score of at least `EXCLUDE_SCORE`. Finding a little too much only
makes the list longer at its end; leaving out a little too much loses a clip.

What is no sound (a path, a length) is answered by `audiosearch.library.filters` with a mask; it
counts as NOT does: it lets a clip pass, and leaves its score alone. A range of scores cuts the
finished score.

A recording stands where its best clip stands; of equals the first clip comes first.

**How a page is found.** One term that has a column of its own, which is nearly every query, reads
the head of its posting lists, and its totals are sums of the stored counts. Everything else is
looked at clip by clip, in memory order: where one required term is rare, at the clips that it
posted; else at the columns of all clips, a byte each. Of many clips that match only those are
scored that may stand on the page (`audiosearch.library.contenders`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.library.blocks import Block, Rows
from audiosearch.library.contenders import best_matches
from audiosearch.library.matching import (
    MATCH_CODE,
    Masks,
    Scores,
    evaluate,
    is_weighted,
    mask_of,
    within_spans,
    without_spans,
)
from audiosearch.library.snapshot import Part
from audiosearch.query import All, Node, Range, ScoreFilter, Term

__all__ = ["Page", "all_matches", "first_of_each", "matching_clips", "rank"]

# Looking at the rows that one term posted pays while they are few: they are read in no order.
_RARE = 32


@dataclass(frozen=True)
class Page:
    """The recordings of one page, best first, and how many matched in all.

    Attributes
    ----------
    total, total_clips : int
        How many recordings and how many clips match.
    recordings : int64 (n,)
        The catalogue's numbers of those on the page; of a page of clips the numbers of the clips.
    """

    total: int
    total_clips: int
    recordings: npt.NDArray[np.int64]


def rank(
    node: Node,
    parts: Sequence[Part],
    *,
    offset: int,
    limit: int,
    masks: Masks | None = None,
    grouped: bool = True,
) -> Page:
    """Find the recordings from number `offset` on that match a query best.

    Parameters
    ----------
    node : Node
        The query.
    parts : sequence of Part
        What is searched, in the order of the clips.
    offset, limit : int
        Which recordings to return.
    masks : callable, optional
        Answers the leaves of the query that are no sounds; needed where it has such.
    grouped : bool
        Whether the page is of recordings, else of clips.
    """
    term, spans = without_spans(node)
    if isinstance(term, Term) and not spans and not is_weighted(term):
        columns = [part.block.columns.cover(term.classes) for part in parts]
        posted = all(part.block.posted_code <= MATCH_CODE for part in parts)
        if posted and all(len(column) == 1 for column in columns):
            return _term_page(parts, [column[0] for column in columns], offset, limit, grouped)
    if not spans:
        return _best_page(term, parts, offset, limit, masks, grouped)
    bests, recordings, total, total_clips = [], [], 0, 0
    for part, (rows, scores) in zip(parts, all_matches(node, parts, masks=masks), strict=True):
        ids, best = _hits_of(part, rows, scores, grouped)
        total_clips += len(rows)
        total += len(ids) if grouped else len(first_of_each(part.block.recordings[rows]))
        bests.append(best)
        recordings.append(ids)
    page = _best_first(_joined(bests, np.float32), offset + limit)[offset : offset + limit]
    return Page(total, total_clips, _joined(recordings, np.uint32)[page].astype(np.int64))


def all_matches(
    node: Node, parts: Sequence[Part], *, masks: Masks | None = None
) -> Iterator[tuple[Rows, Scores]]:
    """Yield for each part the rows of the clips that match a query, ascending, and their scores."""
    node, spans = without_spans(node)
    for part in parts:
        rows, scores = _matches(node, part, masks)
        if spans:
            within = within_spans(scores, spans)
            rows, scores = rows[within], scores[within]
        yield rows, scores


def matching_clips(
    node: Node, parts: Sequence[Part], *, masks: Masks | None = None
) -> tuple[Rows, Rows, list[Range]]:
    """Find all clips that match a query, for an order of another kind.

    Returns
    -------
    clips : int64 (n,)
        Their numbers, ascending.
    recordings : int64 (n,)
        The catalogue's numbers of their recordings.
    spans : list of Range
        The ranges of scores that the query asks for; they are not applied.
    """
    if isinstance(node, ScoreFilter):  # alone, it leaves everything to the other order
        node = All((node,))
    node, spans = without_spans(node)
    clips, recordings = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in parts:
        if node == All(()):
            rows = np.arange(part.block.rows)
            rows = rows if part.removed is None else rows[part.removed.live]
        else:
            rows, _ = _matches(node, part, masks)
        clips.append(part.block.clip_ids(rows))
        recordings.append(part.block.recordings[rows].astype(np.int64))
    return np.concatenate(clips), np.concatenate(recordings), spans


def first_of_each(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return where each value stands first, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])


# One term with a column of its own.


def _term_page(
    parts: Sequence[Part], columns: Sequence[int], offset: int, limit: int, grouped: bool
) -> Page:
    wanted = offset + limit
    clip_counts = np.zeros(256, np.int64)
    recording_counts = np.zeros(256, np.int64)
    for part, column in zip(parts, columns, strict=True):
        clips, recordings = part.block.clip_counts(column), part.block.recording_counts(column)
        if part.removed is not None:
            codes = part.block.column(column)[part.removed.rows]
            clips = clips - np.bincount(codes, minlength=256)
            best = np.maximum.reduceat(codes, part.removed.starts)
            recordings = recordings - np.bincount(best, minlength=256)
        clip_counts += clips
        recording_counts += recordings
    total = int(recording_counts[MATCH_CODE:].sum())
    total_clips = int(clip_counts[MATCH_CODE:].sum())
    count = total if grouped else total_clips
    if limit == 0 or offset >= count:
        return Page(total, total_clips, np.empty(0, np.int64))
    # The largest code that enough recordings, or clips, reach.
    reach = np.cumsum((recording_counts if grouped else clip_counts)[::-1])[::-1]
    least = max(int(np.flatnonzero(reach >= min(wanted, count))[-1]), MATCH_CODE)
    codes_, recordings_ = [], []
    for part, column in zip(parts, columns, strict=True):
        counts = part.block.clip_counts(column)
        rows = part.block.posting(column, int(counts[least:].sum()))
        codes = np.repeat(np.arange(255, least - 1, -1, dtype=np.uint8), counts[least:][::-1])
        if part.removed is not None:
            live = part.removed.live[rows]
            rows, codes = rows[live], codes[live]
        codes_.append(codes)
        block = part.block
        recordings_.append(
            block.recordings[rows] if grouped else block.clip_ids(rows.astype(np.int64))
        )
    codes, ids = _joined(codes_, np.uint8), _joined(recordings_, np.uint32)
    if len(parts) > 1:
        # Each list is sorted already, and a stable sort of bytes is a radix sort.
        ids = ids[np.argsort(255 - codes, kind="stable")]
    if grouped and not all(part.block.single for part in parts):
        ids = _distinct(ids, wanted)
    return Page(total, total_clips, ids[offset:wanted].astype(np.int64))


def _distinct(ids: npt.NDArray[np.uint32], wanted: int) -> npt.NDArray[np.uint32]:
    """Return the first `wanted` different values, or all, in the order in which they come."""
    look = 2 * wanted
    while True:
        found = first_of_each(ids[:look])
        if len(found) >= wanted or look >= len(ids):
            return ids[found]
        look *= 4


# Everything else.


def _best_page(
    node: Node,
    parts: Sequence[Part],
    offset: int,
    limit: int,
    masks: Masks | None,
    grouped: bool,
) -> Page:
    """Find a page of a query without ranges of scores, scoring few of the clips that match."""
    matching = [_matching(node, part, masks) for part in parts]
    total = sum(part.block.runs.count(mask) for part, mask in zip(parts, matching, strict=True))
    total_clips = sum(int(np.count_nonzero(mask)) for mask in matching)
    wanted = min(offset + limit, total if grouped else total_clips)
    ids, best = np.empty(0, np.uint32), np.empty(0, np.float32)
    if wanted > offset:
        for found in best_matches(node, parts, matching, wanted, masks=masks):
            hits = [
                _hits_of(part, rows, scores, grouped)
                for part, (rows, scores) in zip(parts, found, strict=True)
            ]
            ids = _joined([each for each, _ in hits], np.uint32)
            best = _joined([each for _, each in hits], np.float32)
            if len(ids) >= wanted:
                break
    page = _best_first(best, wanted)[offset:wanted]
    return Page(total, total_clips, ids[page].astype(np.int64))


def _matching(node: Node, part: Part, masks: Masks | None) -> npt.NDArray[np.bool_]:
    """Return which rows of a part match."""
    rows = _rare_rows(node, part.block)
    if rows is None:
        mask = mask_of(node, part.block, MATCH_CODE, masks)
    else:
        mask = np.zeros(part.block.rows, np.bool_)
        mask[rows] = evaluate(node, part.block, rows, MATCH_CODE, masks=masks)[0]
    return mask if part.removed is None else mask & part.removed.live


def _hits_of(
    part: Part, rows: Rows, scores: Scores, grouped: bool
) -> tuple[npt.NDArray[np.integer], Scores]:
    """Return the recordings of clips and the score of the best clip of each, or the clips."""
    if not grouped:
        return part.block.clip_ids(rows), scores
    ids = part.block.recordings[rows]
    if part.block.single or not len(rows):
        return ids, scores
    starts = np.flatnonzero(np.diff(ids, prepend=np.uint32(0)))
    return ids[starts], np.maximum.reduceat(scores, starts)


def _matches(node: Node, part: Part, masks: Masks | None) -> tuple[Rows, Scores]:
    """Return the rows of a part that match, ascending, and their scores."""
    block = part.block
    rows = _rare_rows(node, block)
    if rows is None:
        mask = mask_of(node, block, MATCH_CODE, masks)
        if part.removed is not None:
            mask = mask & part.removed.live
        rows = np.flatnonzero(mask)
        return rows, evaluate(node, block, rows, MATCH_CODE, masks=masks)[1]
    if part.removed is not None:
        rows = rows[part.removed.live[rows]]
    found, score, _ = evaluate(node, block, rows, MATCH_CODE, masks=masks)
    return rows[found], score[found]


def _rare_rows(node: Node, block: Block) -> Rows | None:
    """Return rows that hold all matches, ascending, where one required term is rare."""
    if block.posted_code > MATCH_CODE:
        return None
    best: tuple[int, int] | None = None
    for term in node.parts if isinstance(node, All) else (node,):
        if isinstance(term, Term) and not is_weighted(term):
            cover = block.columns.cover(term.classes)
            if len(cover) == 1:
                count = int(block.clip_counts(cover[0])[MATCH_CODE:].sum())
                best = min(best or (count, cover[0]), (count, cover[0]))
    if best is None or best[0] * _RARE > block.rows:
        return None
    return np.sort(block.posting(best[1], best[0])).astype(np.int64)


def _best_first(scores: Scores, count: int) -> Rows:
    """Return where the `count` largest scores stand, best first, of equals the first first."""
    if 0 < count < len(scores) // 4:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        among = np.flatnonzero(scores >= least)
    else:
        among = np.arange(len(scores))
    return among[np.argsort(-scores[among], kind="stable")][:count]


def _joined(parts: Sequence[np.ndarray], dtype: npt.DTypeLike) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)
