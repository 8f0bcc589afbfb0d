"""Facts about recordings in a query: path, length, confirmed labels.

Ranking knows sounds only. A filter holds or does not hold for a whole recording; here it becomes a
mask of the rows of a block, which ranking takes as it takes NOT.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.errors import QueryError
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.ranking import in_range
from audiosearch.library.segments import Block
from audiosearch.query import DurationFilter, PathFilter

__all__ = ["Facts", "Filters", "read_facts"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Facts:
    """What filters ask about recordings.

    Attributes
    ----------
    ids : int64 (recordings,)
        Their numbers, ascending.
    paths : sequence of str
        As hits show them.
    seconds : float64 (recordings,)
        Their lengths.
    """

    ids: npt.NDArray[np.int64]
    paths: Sequence[str]
    seconds: npt.NDArray[np.float64]


def read_facts(catalogue: Catalogue) -> Facts:
    """Read the facts about all recordings."""
    ids, seconds, paths = catalogue.facts()
    return Facts(ids, paths, seconds)


class Filters:
    """Answers the filters of one query.

    Parameters
    ----------
    facts : callable
        Gives the facts; called only where the query has filters on recordings.
    """

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts
        self._held: dict[object, Mask] = {}

    def __call__(self, node: object, block: Block) -> Mask:
        """Return for which rows of a block a filter holds, bool (rows,).

        Raises
        ------
        QueryError
            When it asks for confirmed or own labels, of which this library has none.
        """
        facts = self._facts()
        if node not in self._held:
            self._held[node] = _mask(node, facts)
        held = self._held[node]
        if not len(held):
            return np.zeros(block.rows, np.bool_)
        # A recording that was removed a moment ago has no facts any more.
        place = np.minimum(np.searchsorted(facts.ids, block.recordings), len(held) - 1)
        return held[place] & (facts.ids[place] == block.recordings)


def _mask(node: object, facts: Facts) -> Mask:
    """Tell for every recording whether a filter holds."""
    if isinstance(node, PathFilter):
        matches = _path_matcher(node.text)
        return np.array([matches(path) for path in facts.paths], np.bool_)
    if isinstance(node, DurationFilter):
        return in_range(facts.seconds, node.seconds)
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
