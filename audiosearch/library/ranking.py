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
posted; else at the columns of all clips, a byte each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.labels import CLASS_COUNT
from audiosearch.library.columns import encode_scores, score_codes
from audiosearch.library.rollup import EVIDENCE, LEAST_SCORE, codes_of
from audiosearch.library.segments import Block, Entries, Rows
from audiosearch.library.snapshot import Part
from audiosearch.query import All, Either, Node, Not, Range, ScoreFilter, Term

__all__ = [
    "EXCLUDE_SCORE",
    "MATCH_CODE",
    "MATCH_SCORE",
    "Masks",
    "Match",
    "Page",
    "all_matches",
    "first_of_each",
    "heard",
    "in_range",
    "match",
    "matching_clips",
    "rank",
    "within_spans",
    "without_spans",
]

MATCH_SCORE = LEAST_SCORE
"""From which score on a clip is found."""

EXCLUDE_SCORE = 0.5
"""From which score on a clip is left out by NOT; chosen on validation clips, see docs/search.md."""

MATCH_CODE, _EXCLUDE_CODE = encode_scores(np.array([MATCH_SCORE, EXCLUDE_SCORE])).tolist()
_SCORES = score_codes()
# Looking at the rows that one term posted pays while they are few: they are read in no order.
_RARE = 32

Bools: TypeAlias = npt.NDArray[np.bool_]
Scores: TypeAlias = npt.NDArray[np.float32]
Masks: TypeAlias = Callable[[object, Block], Bools]
"""Given a leaf of the query that is no sound, and a block: which of its rows pass."""


@dataclass(frozen=True)
class Match:
    """How some clips stand to a query; every array has one value a clip.

    Attributes
    ----------
    found : bool (clips,)
        Whether the clip matches.
    score : float32 (clips,)
        How well; only that of clips that match means anything.
    label : int16 (clips,)
        The class that matched best; the clip's best class where no term did.
    """

    found: Bools
    score: Scores
    label: npt.NDArray[np.int16]


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
    if isinstance(term, Term) and not spans and not _weighted(term):
        columns = [part.block.columns.cover(term.classes) for part in parts]
        posted = all(part.block.posted_code <= MATCH_CODE for part in parts)
        if posted and all(len(column) == 1 for column in columns):
            return _term_page(parts, [column[0] for column in columns], offset, limit, grouped)
    bests, recordings, total, total_clips = [], [], 0, 0
    for part, (rows, scores) in zip(parts, all_matches(node, parts, masks=masks), strict=True):
        total_clips += len(rows)
        ids: npt.NDArray[Any] = part.block.recordings[rows]
        starts = None
        if not part.block.single and len(rows):
            starts = np.flatnonzero(np.diff(ids, prepend=np.uint32(0)))
        total += len(rows) if starts is None else len(starts)
        if not grouped:
            ids = part.block.clip_ids(rows)
        elif starts is not None:
            ids, scores = ids[starts], np.maximum.reduceat(scores, starts)
        bests.append(scores)
        recordings.append(ids)
    best = _joined(bests, np.float32)
    order = _best_first(best, offset + limit)[offset : offset + limit]
    return Page(total, total_clips, _joined(recordings, np.uint32)[order].astype(np.int64))


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


def match(node: Node, block: Block, rows: Rows, *, masks: Masks | None = None) -> Match:
    """Match a query against some clips of a block, and say which class of each matched best."""
    node, spans = without_spans(node)
    entries = block.entries(rows)
    found, score, label = _evaluate(node, block, rows, MATCH_CODE, masks=masks, entries=entries)
    assert label is not None  # entries were given
    if len(rows):
        # Found by a filter, or by what is not heard: named by its best class.
        label = np.where(label < 0, entries[1][entries[0][:-1]], label).astype(np.int16)
    return Match(found & within_spans(score, spans), score, label)


def heard(term: Term, block: Block, rows: Rows) -> tuple[Bools, Scores]:
    """Return which of some clips of a block match a term, and how well; both (n,)."""
    return _evaluate(term, block, rows, MATCH_CODE, masks=None)[:2]


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


def _matches(node: Node, part: Part, masks: Masks | None) -> tuple[Rows, Scores]:
    """Return the rows of a part that match, ascending, and their scores."""
    block = part.block
    rows = _rare_rows(node, block)
    if rows is None:
        mask = _mask(node, block, MATCH_CODE, masks)
        if part.removed is not None:
            mask = mask & part.removed.live
        rows = np.flatnonzero(mask)
        return rows, _evaluate(node, block, rows, MATCH_CODE, masks=masks)[1]
    if part.removed is not None:
        rows = rows[part.removed.live[rows]]
    found, score, _ = _evaluate(node, block, rows, MATCH_CODE, masks=masks)
    return rows[found], score[found]


def _rare_rows(node: Node, block: Block) -> Rows | None:
    """Return rows that hold all matches, ascending, where one required term is rare."""
    if block.posted_code > MATCH_CODE:
        return None
    best: tuple[int, int] | None = None
    for term in node.parts if isinstance(node, All) else (node,):
        if isinstance(term, Term) and not _weighted(term):
            cover = block.columns.cover(term.classes)
            if len(cover) == 1:
                count = int(block.clip_counts(cover[0])[MATCH_CODE:].sum())
                best = min(best or (count, cover[0]), (count, cover[0]))
    if best is None or best[0] * _RARE > block.rows:
        return None
    return np.sort(block.posting(best[1], best[0])).astype(np.int64)


def _mask(node: Node, block: Block, least: int, masks: Masks | None) -> Bools:
    """Return which of all rows match."""
    if isinstance(node, Term):
        columns = _columns(node, block)
        if least > MATCH_CODE and (len(columns) > 1 or columns[0][1] < 1):
            # Several that are unsure may be sure together.
            return codes_of(_evidence(block, columns, slice(None))) >= least
        found = [block.column(column) >= _least(weight, least) for column, weight in columns]
        return np.logical_or.reduce(found)
    if isinstance(node, Not):
        return ~_mask(node.part, block, _EXCLUDE_CODE, masks)
    if isinstance(node, All | Either):
        found = [_mask(part, block, least, masks) for part in node.parts]
        return (np.logical_and if isinstance(node, All) else np.logical_or).reduce(found)
    return _asked(node, block, masks)


def _evaluate(
    node: Node,
    block: Block,
    rows: Rows,
    least: int,
    *,
    masks: Masks | None,
    entries: Entries | None = None,
) -> tuple[Bools, Scores, npt.NDArray[np.int16] | None]:
    """Return which of some rows match, how well, and, where their entries are given, by what."""
    none = None if entries is None else np.full(len(rows), -1, np.int16)
    if isinstance(node, Term):
        columns = _columns(node, block)
        if len(columns) == 1 and columns[0][1] == 1:
            code = block.column(columns[0][0])[rows]
        else:
            # As codes, so that it is no matter which groups a segment has rolled up.
            code = codes_of(_evidence(block, columns, rows))
        label = None if entries is None else _best_class(node, entries)
        return code >= least, _SCORES[code], label
    if not isinstance(node, All | Either):
        if isinstance(node, Not):
            part = _evaluate(node.part, block, rows, _EXCLUDE_CODE, masks=masks)
            return ~part[0], np.ones(len(rows), np.float32), none
        return _asked(node, block, masks)[rows], np.ones(len(rows), np.float32), none
    results = [
        _evaluate(part, block, rows, least, masks=masks, entries=entries) for part in node.parts
    ]
    found, score, label = results[0]
    best = score
    for other_found, other_score, other_label in results[1:]:
        if isinstance(node, All):
            found, score = found & other_found, score * other_score
            if label is not None and other_label is not None:
                label = np.where(label < 0, other_label, label)
        else:
            better = other_found & (~found | (other_score > best))
            both = 1 - (1 - score) * (1 - other_score)
            score = np.where(found & other_found, both, np.where(found, score, other_score))
            best = np.where(better, other_score, best)
            if label is not None and other_label is not None:
                label = np.where(better, other_label, label)
            found = found | other_found
    return found, score, label


def without_spans(node: Node) -> tuple[Node, list[Range]]:
    """Return a query without its ranges of scores, and these."""
    if not isinstance(node, All):
        return node, []
    spans = [part.score for part in node.parts if isinstance(part, ScoreFilter)]
    parts = tuple(part for part in node.parts if not isinstance(part, ScoreFilter))
    return (parts[0] if len(parts) == 1 else All(parts)), spans


def in_range(values: npt.NDArray[np.floating], span: Range) -> Bools:
    """Return which values lie in a range."""
    low = values > span.low if span.low_open else values >= span.low
    high = values < span.high if span.high_open else values <= span.high
    result: Bools = low & high
    return result


def within_spans(scores: Scores, spans: Sequence[Range]) -> Bools:
    """Return which scores lie in all of some ranges."""
    found = np.ones(len(scores), np.bool_)
    for span in spans:
        found &= in_range(scores, span)
    return found


def _asked(node: object, block: Block, masks: Masks | None) -> Bools:
    if masks is None:
        raise TypeError(f"{node!r} is no sound, and nothing answers it")
    return masks(node, block)


def _weighted(term: Term) -> bool:
    return min(term.weights) < 1


def _columns(term: Term, block: Block) -> list[tuple[int, float]]:
    """Return few columns whose noisy-or is a term's score, and the weight of each."""
    weights = set(term.weights)
    if len(weights) == 1:
        return [(column, term.weights[0]) for column in block.columns.cover(term.classes)]
    return [
        (column, weight)
        for weight in sorted(weights, reverse=True)
        for column in block.columns.cover(
            tuple(c for c, w in zip(term.classes, term.weights, strict=True) if w == weight)
        )
    ]


def _evidence(
    block: Block, columns: Sequence[tuple[int, float]], rows: Rows | slice
) -> npt.NDArray[np.int32]:
    """Return the evidence of columns together, int32 (rows,)."""
    parts = [_weighted_evidence(weight)[block.column(column)[rows]] for column, weight in columns]
    result: npt.NDArray[np.int32] = np.add.reduce(parts, dtype=np.int32)
    return result


@functools.cache
def _weighted_evidence(weight: float) -> npt.NDArray[np.int32]:
    return EVIDENCE if weight == 1 else EVIDENCE[_weighted_codes(weight)]


@functools.cache
def _weighted_codes(weight: float) -> npt.NDArray[np.uint8]:
    """Return what each code becomes when its score is multiplied by a weight."""
    return encode_scores(_SCORES * np.float32(weight))


def _least(weight: float, least: int) -> int:
    """Return the least code that is still `least` when it is weighted; 256 where none is."""
    return least if weight == 1 else int(np.searchsorted(_weighted_codes(weight), least))


def _best_class(term: Term, entries: Entries) -> npt.NDArray[np.int16]:
    """Return which class of a term scores best in each clip; of equals the first of the term.

    -1 where none of them is among the clip's entries; such a clip does not match.
    """
    offsets, of, codes = entries
    classes = term.classes
    if not len(of):
        return np.empty(0, np.int16)
    place = np.full(CLASS_COUNT, -1, np.int64)
    place[list(classes)[::-1]] = np.arange(len(classes) - 1, -1, -1)
    places = place[of]
    if _weighted(term):
        tables = np.stack([_weighted_codes(weight) for weight in term.weights])
        codes = np.where(places < 0, 0, tables[np.maximum(places, 0), codes])
    key = np.where(places < 0, -1, codes * np.int64(CLASS_COUNT) + (CLASS_COUNT - 1 - places))
    best = np.maximum.reduceat(key, offsets[:-1])
    which = np.asarray(classes)[CLASS_COUNT - 1 - best % CLASS_COUNT]
    return np.where(best < 0, -1, which).astype(np.int16)


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
