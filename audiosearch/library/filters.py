"""Facts about recordings in a query: path, length, confirmed labels.

Ranking knows sounds only. A filter is true or false for a whole recording, so the clips are split
by which filters hold for them; for each part the filters of the tree are replaced by true and
false, and what is left, a tree of sounds, is ranked.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.errors import QueryError
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.ranking import Match
from audiosearch.query import (
    All,
    DurationFilter,
    Either,
    Node,
    Not,
    PathFilter,
    Range,
    ScoreFilter,
    Term,
)

__all__ = ["Facts", "evaluate", "has_filters", "read_facts"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Facts:
    """What filters ask about recordings, in the order of a snapshot's `ids`.

    Attributes
    ----------
    paths : sequence of str
        As hits show them; empty for a recording that was removed a moment ago.
    seconds : float64 (recordings,)
        Their lengths.
    """

    paths: Sequence[str]
    seconds: npt.NDArray[np.float64]


def read_facts(catalogue: Catalogue, ids: npt.NDArray[np.int64]) -> Facts:
    """Read the facts about recordings."""
    known = catalogue.recordings(ids.tolist())
    found = [known.get(number) for number in ids.tolist()]
    return Facts(
        ["" if recording is None else recording.name for recording in found],
        np.array([0.0 if recording is None else recording.duration for recording in found]),
    )


def has_filters(node: Node) -> bool:
    """Tell whether a query asks for facts about recordings."""
    return any(not isinstance(leaf, Term | ScoreFilter) for leaf in _leaves(node))


def evaluate(
    node: Node,
    recording: npt.NDArray[np.int64],
    facts: Callable[[], Facts],
    match: Callable[[Node], Match],
) -> Match:
    """Match a query of sounds and filters.

    Parameters
    ----------
    node : Node
        The query.
    recording : int64 (clips,)
        The recording of each clip as a position in the facts; negative for removed clips.
    facts : callable
        Gives the facts; called only where the query has filters on recordings.
    match : callable
        Matches a tree of sounds alone against all clips.

    Returns
    -------
    Match
        A clip that matches by filters alone has score 1 and label -1.

    Raises
    ------
    QueryError
        When the query asks for confirmed or own labels, of which this library has none.
    """
    least: list[Range] = []
    if isinstance(node, All):
        least = [part.score for part in node.parts if isinstance(part, ScoreFilter)]
        parts = tuple(part for part in node.parts if not isinstance(part, ScoreFilter))
        node = parts[0] if len(parts) == 1 else All(parts)
    result = _filtered(node, recording, facts, match) if has_filters(node) else match(node)
    if not least:
        return result
    found = result.found.copy()
    for span in least:
        found &= _within(result.score, span)
    return Match(found, result.score, result.label)


def _filtered(
    node: Node,
    recording: npt.NDArray[np.int64],
    facts: Callable[[], Facts],
    match: Callable[[Node], Match],
) -> Match:
    filters = list(dict.fromkeys(leaf for leaf in _leaves(node) if not isinstance(leaf, Term)))
    known = facts()
    masks = np.stack([_mask(leaf, known) for leaf in filters])
    clips = len(recording)
    result = Match(
        np.zeros(clips, np.bool_), np.ones(clips, np.float32), np.full(clips, -1, np.int16)
    )
    if not masks.shape[1]:
        return result
    # Which filters hold is the same for many recordings: each case is ranked once.
    cases, case_of = np.unique(masks, axis=1, return_inverse=True)
    case = np.where(recording >= 0, case_of.reshape(-1)[recording], -1)
    for number in range(cases.shape[1]):
        rest = _resolved(node, dict(zip(filters, cases[:, number].tolist(), strict=True)))
        here = case == number
        if rest is True:
            result.found[here] = True
        elif rest is not False:
            part = match(rest)
            result.found[here] = part.found[here]
            result.score[here] = part.score[here]
            result.label[here] = part.label[here]
    return result


def _leaves(node: Node) -> Iterator[Node]:
    if isinstance(node, Not):
        yield from _leaves(node.part)
    elif isinstance(node, All | Either):
        for part in node.parts:
            yield from _leaves(part)
    else:
        yield node


def _resolved(node: Node, holds: Mapping[Node, bool]) -> Node | bool:
    """Replace the filters of a tree by what they are, and leave out what follows from it."""
    if isinstance(node, Not):
        part = _resolved(node.part, holds)
        return not part if isinstance(part, bool) else Not(part)
    if isinstance(node, All | Either):
        decisive = isinstance(node, Either)  # one true part decides OR, one false part AND
        parts = [_resolved(part, holds) for part in node.parts]
        if any(part is decisive for part in parts):
            return decisive
        rest = tuple(part for part in parts if not isinstance(part, bool))
        if not rest:
            return not decisive
        return rest[0] if len(rest) == 1 else type(node)(rest)
    return node if isinstance(node, Term) else holds[node]


def _mask(node: Node, facts: Facts) -> Mask:
    """Tell for every recording whether a filter holds."""
    if isinstance(node, PathFilter):
        matches = _path_matcher(node.text)
        return np.array([matches(path) for path in facts.paths], np.bool_)
    if isinstance(node, DurationFilter):
        return _within(facts.seconds, node.seconds)
    raise QueryError("This library has no confirmed labels and no labels of your own yet. Try: dog")


def _path_matcher(text: str) -> Callable[[str], bool]:
    wanted = _plain_path(text)
    if "*" not in wanted and "?" not in wanted:
        return lambda path: wanted in _plain_path(path)
    # fnmatch also knows sets in square brackets, which are common in file names.
    literal = wanted.replace("[", "[[]")
    pattern = re.compile(f"(?:.*/)?{fnmatch.translate(literal)}", re.DOTALL)
    return lambda path: pattern.match(_plain_path(path)) is not None


def _plain_path(path: str) -> str:
    return path.replace("\\", "/").casefold()


def _within(values: npt.NDArray[np.floating], span: Range) -> Mask:
    low = values > span.low if span.low_open else values >= span.low
    high = values < span.high if span.high_open else values <= span.high
    result: Mask = low & high
    return result
