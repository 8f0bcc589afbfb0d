"""What a request asks for: its query, its window, and what goes with an example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flask import Response, abort, current_app, jsonify, make_response, request

from audiosearch.errors import QueryError
from audiosearch.library.hits import SearchResult
from audiosearch.library.ordering import ORDERS
from audiosearch.server.state import PAGE_LIMIT, library_of, whole_number

__all__ = [
    "ByExample",
    "answer",
    "by_example",
    "is_folded",
    "is_grouped",
    "order_of",
    "query_refused",
    "seconds_of",
    "window",
]

_FARTHEST_OFFSET = 1_000_000_000
_MOST_HITS = 100
_MOST_EXAMPLES = 50


@dataclass(frozen=True)
class ByExample:
    """What a search by example asks for beside its first example.

    Attributes
    ----------
    also, unlike : list of int
        More clips of the library that are wanted, and clips that are not.
    query : str or None
        What hits must match.
    start, end : float or None
        Which part of the first example counts, in seconds.
    """

    also: list[int]
    unlike: list[int]
    query: str | None
    start: float | None
    end: float | None

    def url_values(self) -> dict[str, Any]:
        """Return the parameters of a URL that asks for the same."""
        values = {"also": self.also, "unlike": self.unlike, "q": self.query}
        values |= {"from": _plain(self.start), "to": _plain(self.end)}
        return {name: value for name, value in values.items() if value not in (None, [])}


def by_example() -> ByExample:
    """Return what the URL, or a form, asks for; answer 400 where it makes no sense."""
    query = request.values.get("q", "").strip() or None
    start, end = seconds_of("from"), seconds_of("to")
    if end is not None and end <= (start or 0.0):
        abort(400, "'to' must lie after 'from', in seconds.")
    return ByExample(_clips("also"), _clips("unlike"), query, start, end)


def answer(query: str, *, offset: int, limit: int) -> SearchResult:
    """Search by keyword as the request asks for."""
    options: dict[str, Any] = {"fold": is_folded(), "grouped": is_grouped(), "order": order_of()}
    return library_of(current_app).search(query, limit=limit, offset=offset, **options)


def query_refused(error: QueryError) -> Response:
    """Return the JSON answer to a query that cannot be understood."""
    return make_response(
        jsonify(
            error=str(error),
            status=400,
            query=error.query,
            position=error.position,
            suggestions=list(error.suggestions),
        ),
        400,
    )


def window() -> tuple[int, int]:
    """Return (offset, limit) of the URL."""
    offset = whole_number("offset", 0, smallest=0, largest=_FARTHEST_OFFSET)
    limit = whole_number("limit", PAGE_LIMIT, smallest=1, largest=_MOST_HITS)
    return offset, limit


def order_of() -> str:
    """Return the order that is asked for."""
    order = request.args.get("order", "score")
    if order not in ORDERS:
        abort(400, f"'order' must be one of {', '.join(ORDERS)}.")
    return order


def is_folded() -> bool:
    """Tell whether copies are asked for once."""
    return _flag("fold")


def is_grouped() -> bool:
    """Tell whether recordings are asked for, not clips."""
    return not _flag("ungrouped")


def _flag(name: str) -> bool:
    value = request.args.get(name, "0")
    if value not in ("0", "1"):
        abort(400, f"'{name}' must be 0 or 1.")
    return value == "1"


def _clips(name: str) -> list[int]:
    texts = request.values.getlist(name)
    if len(texts) > _MOST_EXAMPLES:
        abort(400, f"'{name}' may be given {_MOST_EXAMPLES} times, not {len(texts):,}.")
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            abort(400, f"'{name}' must be the number of a clip, as in {name}=12.")
    return [int(text) for text in texts]


def seconds_of(name: str) -> float | None:
    """Return a time in seconds of the URL or form, None where there is none."""
    text = request.values.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        abort(400, f"'{name}' must be a time in seconds, as in {name}=12.5.")
    return value


def _plain(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
