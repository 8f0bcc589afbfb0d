"""Why a query finds nothing: how much each part of it finds alone, and what the others find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from audiosearch.query import Vocabulary
from audiosearch.query.leaves import read_items

__all__ = ["QueryPart", "parts_of"]

_MOST_PARTS = 8


@dataclass(frozen=True)
class QueryPart:
    """A part of a query all of whose parts must hold.

    Attributes
    ----------
    text : str
        As it stands in the query.
    count : int or None
        How many recordings it finds alone; None where it only leaves out.
    without : str
        The query without it.
    count_without : int or None
        How many recordings that finds; None where nothing is left, or nothing that can be asked.
    """

    text: str
    count: int | None
    without: str
    count_without: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def parts_of(
    query: str, vocabulary: Vocabulary, count_of: Callable[[str], int | None]
) -> list[QueryPart]:
    """Return the parts of a query; none where it has brackets, OR, or one part only.

    Parameters
    ----------
    query : str
        A query that can be understood.
    vocabulary : Vocabulary
        The words that there are.
    count_of : callable
        Given a query, how many recordings it finds; None where it cannot be asked.
    """
    items = read_items(query, vocabulary)
    if any(item.kind not in ("leaf", "minus", "and") for item in items):
        return []
    starts: list[int] = []
    for number, item in enumerate(items):
        if item.kind == "and" or (number and items[number - 1].kind == "minus"):
            continue
        starts.append(item.position)
    joints = [item.position for item in items if item.kind == "and"]
    ends = [min(at for at in (*starts, *joints, len(query)) if at > start) for start in starts]
    texts = [query[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    if not 1 < len(texts) <= _MOST_PARTS:
        return []
    found = []
    for number, text in enumerate(texts):
        without = " ".join(texts[:number] + texts[number + 1 :])
        found.append(QueryPart(text, count_of(text), without, count_of(without)))
    return found
