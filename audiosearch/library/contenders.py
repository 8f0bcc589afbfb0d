"""Which clips can be on a page: those that may score enough, found without scoring all that match.

A query of several terms may match most of a library, of which a page shows fifty. A sample of the
matching clips says about how well the last one of the page scores. Only clips that may reach that
score are then scored: a product is at most the least of its factors, and a noisy-or of n parts is
at least s only where one of them is at least 1 - (1 - s)^(1/n). Where fewer clips reach it than the
page needs, the score is lowered and they are looked for again, so the page is exact.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence

import numpy as np

from audiosearch.library.blocks import Block, Rows
from audiosearch.library.matching import (
    MATCH_CODE,
    Bools,
    Masks,
    Scores,
    evaluate,
    least_codes,
)
from audiosearch.library.runs import distinct
from audiosearch.library.snapshot import Part
from audiosearch.query import All, Either, Node, Term

__all__ = ["FEW", "best_matches", "may_reach"]

FEW = 1 << 14
"""So many matching clips are scored as they are."""

_STRIDE = 61  # of the sample; a prime, so that it does not run with how recordings are cut
_RARE = 256  # reading posted rows, in no order, pays while they are few
_SURPLUS = 4  # so many more than needed are expected above the first threshold
_SLACK = 1e-6  # a part, for the rounding of noisy-ors


def best_matches(
    node: Node,
    parts: Sequence[Part],
    matching: Sequence[Bools],
    wanted: int,
    *,
    masks: Masks | None,
) -> Iterator[list[tuple[Rows, Scores]]]:
    """Give the best clips of parts, more and more of them: rows, ascending, and scores.

    Parameters
    ----------
    node : Node
        The query, without ranges of scores.
    parts : sequence of Part
        What is searched.
    matching : sequence of bool (rows,)
        Which rows of each part match.
    wanted : int
        How many clips are needed at first.

    Yields
    ------
    list of (rows, scores)
        For each part all matching clips that reach some score; at last all that match.
    """
    total = sum(int(np.count_nonzero(mask)) for mask in matching)
    place = _SURPLUS + 2 * (wanted // _STRIDE + 1)
    sample = np.empty(0, np.float32)
    if total > max(FEW, 2 * wanted):
        sample = _sampled(node, parts, matching, masks)
    while place < len(sample):
        least = float(sample[place])
        yield [
            _scored(node, part.block, here, least, masks)
            for part, here in zip(parts, matching, strict=True)
        ]
        place *= 4
    yield [
        _scored(node, part.block, here, 0.0, masks)
        for part, here in zip(parts, matching, strict=True)
    ]


def may_reach(node: Node, block: Block, least: float) -> Bools | None:
    """Return which rows may score at least `least`, bool (rows,); None where all may.

    It asks about what is heard alone: filters, and what is left out, let everything pass.
    """
    if isinstance(node, Term):
        found = [block.column(column) >= code for column, code in least_codes(node, block, least)]
        return functools.reduce(operator.ior, found)
    if isinstance(node, All):
        masks = [may_reach(part, block, least) for part in node.parts]
        known = [mask for mask in masks if mask is not None]
        return functools.reduce(operator.and_, known) if known else None
    if isinstance(node, Either):
        each = _each(least, len(node.parts))
        masks = [may_reach(part, block, each) for part in node.parts]
        known = [mask for mask in masks if mask is not None]
        return functools.reduce(operator.or_, known) if len(known) == len(masks) else None
    return None


def _posted(node: Node, block: Block, least: float) -> Rows | None:
    """Return rows, ascending, with all that may score at least `least`; None where they are many.

    They stand at the head of posting lists: no column is read.
    """
    if isinstance(node, All):
        found = [_posted(part, block, least) for part in node.parts]
        return min((rows for rows in found if rows is not None), key=len, default=None)
    if isinstance(node, Either):
        each = _each(least, len(node.parts))
        found = [_posted(part, block, each) for part in node.parts]
        known = [rows for rows in found if rows is not None]
        return distinct(np.concatenate(known)) if len(known) == len(found) else None
    if not isinstance(node, Term):
        return None
    heads = []
    for column, code in least_codes(node, block, least):
        if code < block.posted_code:
            return None
        heads.append((column, int(block.clip_counts(column)[code:].sum())))
    if _RARE * sum(count for _, count in heads) > block.rows:
        return None
    rows = np.concatenate([block.posting(column, count) for column, count in heads])
    return distinct(rows).astype(np.int64)


def _each(least: float, count: int) -> float:
    """Return what one of `count` parts reaches at least where their noisy-or is `least`."""
    return 1 - (1 - least + count * _SLACK) ** (1 / count)


def _sampled(
    node: Node, parts: Sequence[Part], matching: Sequence[Bools], masks: Masks | None
) -> Scores:
    """Return the scores of a sample of the matching clips, best first."""
    scores = [np.empty(0, np.float32)]
    for part, here in zip(parts, matching, strict=True):
        rows = np.flatnonzero(here[::_STRIDE]) * _STRIDE
        scores.append(evaluate(node, part.block, rows, MATCH_CODE, masks=masks)[1])
    return np.sort(np.concatenate(scores))[::-1]


def _scored(
    node: Node, block: Block, matching: Bools, least: float, masks: Masks | None
) -> tuple[Rows, Scores]:
    rows = _posted(node, block, least) if least > 0 else None
    if rows is not None:
        rows = rows[matching[rows]]
    else:
        reach = may_reach(node, block, least) if least > 0 else None
        rows = np.flatnonzero(matching if reach is None else matching & reach)
    scores = evaluate(node, block, rows, MATCH_CODE, masks=masks)[1]
    if least > 0:
        enough = scores >= least
        rows, scores = rows[enough], scores[enough]
    return rows, scores
