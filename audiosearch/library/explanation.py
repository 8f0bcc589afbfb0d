"""Why a clip was found: for every term of the query its score, and which classes gave it."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from audiosearch.library.blocks import Block, Entries, Rows
from audiosearch.library.hits import Reason, Tag
from audiosearch.library.matching import MATCH_CODE, entered_codes, heard, is_plain
from audiosearch.library.own_block import MOST_CLASSES
from audiosearch.library.rollup import LEAST_CODE
from audiosearch.library.snapshot import tag_of
from audiosearch.query import All, Either, Node, Not, Term

__all__ = ["explain"]

_MOST_CLASSES = 3


def explain(node: Node, block: Block, rows: Rows, entries: Entries) -> list[list[Reason]]:
    """Return why each of some clips was found by a query.

    Parameters
    ----------
    node : Node
        The query.
    block : Block
        What holds the clips.
    rows : int64 (n,)
        Which they are.
    entries : tuple of arrays
        The block's entries of these rows.

    Returns
    -------
    list of list of Reason
        For each clip one reason a term, in the order of the query: terms that match, then those
        that the query leaves out. Filters say nothing about what is heard, and are not among them.
    """
    found: list[list[Reason]] = [[] for _ in range(len(rows))]
    left_out: list[list[Reason]] = [[] for _ in range(len(rows))]
    if not len(rows):
        return found
    for term, excluded in dict.fromkeys(_terms(node, False)):
        if not excluded and is_plain(term) and block.posted_code <= MATCH_CODE:
            # Nearly every query: one class, whose code is at hand.
            label = term.classes[0]
            for number, code in enumerate(entered_codes(label, entries).tolist()):
                if code >= MATCH_CODE:
                    tag = tag_of(label, code, block.own)
                    found[number].append(Reason(term.text, tag.score, False, [tag]))
            continue
        matches, scores = (array.tolist() for array in heard(term, block, rows))
        named = block.columns.cover(term.classes[:1])[0]
        own = block.column(named)[rows].tolist() if excluded else []
        best = [] if excluded else _best(term.classes, entries, block.own)
        for number, score in enumerate(scores):
            if excluded:
                # However little of it is heard: that is why the clip is here.
                tag = tag_of(term.classes[0], own[number], block.own)
                reason = Reason(term.text, max(score, tag.score), True, [tag])
                left_out[number].append(reason)
            elif matches[number]:
                found[number].append(Reason(term.text, score, False, best[number]))
    return [[*ours, *others] for ours, others in zip(found, left_out, strict=True)]


def _terms(node: Node, excluded: bool) -> Iterator[tuple[Term, bool]]:
    """Give the terms of a query, each with whether it stands under a NOT."""
    if isinstance(node, Term):
        yield node, excluded
    elif isinstance(node, Not):
        yield from _terms(node.part, not excluded)
    elif isinstance(node, All | Either):
        for part in node.parts:
            yield from _terms(part, excluded)


def _best(wanted: tuple[int, ...], entries: Entries, own: tuple[str, ...]) -> list[list[Tag]]:
    """Return the best of some classes among the entries of each clip, which are best first."""
    offsets, classes, codes = entries
    at = np.flatnonzero(_members(wanted)[classes] & (codes >= LEAST_CODE))
    owners = np.searchsorted(offsets, at, side="right") - 1
    best: list[list[Tag]] = [[] for _ in range(len(offsets) - 1)]
    for owner, label, code in zip(
        owners.tolist(), classes[at].tolist(), codes[at].tolist(), strict=True
    ):
        if len(best[owner]) < _MOST_CLASSES:
            best[owner].append(tag_of(label, code, own))
    return best


@functools.lru_cache(maxsize=1 << 10)
def _members(classes: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which of all classes are among some."""
    result = np.zeros(MOST_CLASSES, np.bool_)
    result[list(classes)] = True
    return result
