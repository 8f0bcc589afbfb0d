"""Which clips of a block match a query, how well, and by which class; `ranking` has the rules."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.library.blocks import Block, Entries, Rows
from audiosearch.library.columns import encode_scores, score_codes
from audiosearch.library.own_block import MOST_CLASSES
from audiosearch.library.rollup import EVIDENCE, LEAST_SCORE, codes_of, least_evidence
from audiosearch.query import All, Either, Node, Not, Range, ScoreFilter, Term

__all__ = [
    "EXCLUDE_SCORE",
    "MATCH_CODE",
    "MATCH_SCORE",
    "Masks",
    "Match",
    "Scores",
    "entered_codes",
    "evaluate",
    "heard",
    "in_range",
    "is_plain",
    "is_weighted",
    "least_codes",
    "mask_of",
    "match",
    "within_spans",
    "without_spans",
]

MATCH_SCORE = LEAST_SCORE
"""From which score on a clip is found."""

EXCLUDE_SCORE = 0.5
"""From which score on a clip is left out by NOT; chosen on validation clips, see docs/search.md."""

MATCH_CODE, _EXCLUDE_CODE = encode_scores(np.array([MATCH_SCORE, EXCLUDE_SCORE])).tolist()
_SCORES = score_codes()

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


def match(node: Node, block: Block, rows: Rows, *, masks: Masks | None = None) -> Match:
    """Match a query against some clips of a block, and say which class of each matched best."""
    node, spans = without_spans(node)
    entries = block.entries(rows)
    found, score, label = evaluate(node, block, rows, MATCH_CODE, masks=masks, entries=entries)
    assert label is not None  # entries were given
    if len(rows):
        # Found by a filter, or by what is not heard: named by its best class.
        label = np.where(label < 0, entries[1][entries[0][:-1]], label).astype(np.int16)
    return Match(found & within_spans(score, spans), score, label)


def heard(term: Term, block: Block, rows: Rows) -> tuple[Bools, Scores]:
    """Return which of some clips of a block match a term, and how well; both (n,)."""
    return evaluate(term, block, rows, MATCH_CODE, masks=None)[:2]


def mask_of(node: Node, block: Block, least: int, masks: Masks | None) -> Bools:
    """Return which of all rows match."""
    if isinstance(node, Term):
        columns = _columns(node, block)
        if least > MATCH_CODE and (len(columns) > 1 or columns[0][1] < 1):
            # Several that are unsure may be sure together.
            return codes_of(_evidence(block, columns, slice(None))) >= least
        found = [block.column(column) >= _least(weight, least) for column, weight in columns]
        return functools.reduce(operator.ior, found)
    if isinstance(node, Not):
        return ~mask_of(node.part, block, _EXCLUDE_CODE, masks)
    if isinstance(node, All | Either):
        found = [mask_of(part, block, least, masks) for part in node.parts]
        # Not `ufunc.reduce`, which copies them all into one array first.
        return functools.reduce(operator.and_ if isinstance(node, All) else operator.or_, found)
    return _asked(node, block, masks)


def evaluate(
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
        if entries is not None and is_plain(node) and block.posted_code <= least:
            # Without reading the column: it is as long as the block, and they are at hand.
            code = entered_codes(node.classes[0], entries)
            return (
                code >= least,
                _SCORES[code],
                np.where(code > 0, np.int16(node.classes[0]), np.int16(-1)),
            )
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
            part = evaluate(node.part, block, rows, _EXCLUDE_CODE, masks=masks)
            return ~part[0], np.ones(len(rows), np.float32), none
        return _asked(node, block, masks)[rows], np.ones(len(rows), np.float32), none
    results = [
        evaluate(part, block, rows, least, masks=masks, entries=entries) for part in node.parts
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


def least_codes(term: Term, block: Block, least: float) -> list[tuple[int, int]]:
    """Return columns of a block, each with a code: a term scores `least` only where one has it."""
    columns = _columns(term, block)
    code = int(np.searchsorted(_SCORES, np.float32(least)))
    if len(columns) == 1 and columns[0][1] == 1:
        return [(columns[0][0], code)]
    each = -(-least_evidence(code) // len(columns))  # of the columns together: one has its part
    return [
        (column, int(np.searchsorted(_weighted_evidence(weight), each)))
        for column, weight in columns
    ]


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


def is_weighted(term: Term) -> bool:
    """Tell whether a term has a meaning that counts less."""
    return min(term.weights) < 1


def is_plain(term: Term) -> bool:
    """Tell whether a term is one class as it is scored."""
    return len(term.classes) == 1 and not is_weighted(term)


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


def entered_codes(label: int, entries: Entries) -> npt.NDArray[np.uint8]:
    """Return the code of a class in each clip, as far as it is among the clip's entries; else 0."""
    offsets, classes, codes = entries
    result = np.zeros(len(offsets) - 1, np.uint8)
    at = np.flatnonzero(classes == label)
    result[np.searchsorted(offsets, at, side="right") - 1] = codes[at]
    return result


def _best_class(term: Term, entries: Entries) -> npt.NDArray[np.int16]:
    """Return which class of a term scores best in each clip; of equals the first of the term.

    -1 where none of them is among the clip's entries; such a clip does not match.
    """
    offsets, of, codes = entries
    classes = term.classes
    if not len(of):
        return np.empty(0, np.int16)
    place = np.full(MOST_CLASSES, -1, np.int64)
    place[list(classes)[::-1]] = np.arange(len(classes) - 1, -1, -1)
    places = place[of]
    if is_weighted(term):
        tables = np.stack([_weighted_codes(weight) for weight in term.weights])
        codes = np.where(places < 0, 0, tables[np.maximum(places, 0), codes])
    key = np.where(places < 0, -1, codes * np.int64(MOST_CLASSES) + (MOST_CLASSES - 1 - places))
    best = np.maximum.reduceat(key, offsets[:-1])
    which = np.asarray(classes)[MOST_CLASSES - 1 - best % MOST_CLASSES]
    return np.where(best < 0, -1, which).astype(np.int16)
