"""Why a clip was found: for every term of the query its score, and which classes gave it."""

from __future__ import annotations

from collections.abc import Iterator

from audiosearch.library.blocks import Block, Rows
from audiosearch.library.hits import Reason, Tag
from audiosearch.library.matching import heard
from audiosearch.library.rollup import LEAST_CODE
from audiosearch.library.snapshot import tag_of
from audiosearch.query import All, Either, Node, Not, Term

__all__ = ["explain"]

_MOST_CLASSES = 3


def explain(node: Node, block: Block, rows: Rows) -> list[list[Reason]]:
    """Return why each of some clips was found by a query.

    Parameters
    ----------
    node : Node
        The query.
    block : Block
        What holds the clips.
    rows : int64 (n,)
        Which they are.

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
    entries = block.entries(rows)
    offsets, classes, codes = (array.tolist() for array in entries)
    for term, excluded in dict.fromkeys(_terms(node, False)):
        matches, scores = (array.tolist() for array in heard(term, block, rows))
        own = block.column(term.classes[0])[rows].tolist() if excluded else []
        members = frozenset(term.classes)
        for number, score in enumerate(scores):
            if excluded:
                # However little of it is heard: that is why the clip is here.
                tag = tag_of(term.classes[0], own[number])
                reason = Reason(term.text, max(score, tag.score), True, [tag])
                left_out[number].append(reason)
            elif matches[number]:
                tags = _best(members, classes, codes, offsets[number], offsets[number + 1])
                found[number].append(Reason(term.text, score, False, tags))
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


def _best(
    members: frozenset[int], classes: list[int], codes: list[int], start: int, stop: int
) -> list[Tag]:
    """Return the best classes of a term among a clip's entries, which are best first."""
    best = []
    for at in range(start, stop):
        if codes[at] < LEAST_CODE:
            break
        if classes[at] in members:
            best.append(tag_of(classes[at], codes[at]))
            if len(best) == _MOST_CLASSES:
                break
    return best
