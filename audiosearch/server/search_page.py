"""The search page, its JSON twin, and what completes a query as it is typed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

from flask import Blueprint, abort, current_app, jsonify, make_response, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import QueryError
from audiosearch.library.facets import Facet, Facets
from audiosearch.library.hits import SearchResult
from audiosearch.query.leaves import EXAMPLES, FIELDS
from audiosearch.server.asking import (
    answer,
    is_folded,
    is_grouped,
    order_of,
    query_refused,
    window,
)
from audiosearch.server.present import marked
from audiosearch.server.state import PAGE_LIMIT, library_of

__all__ = ["SearchState", "facet_groups", "register", "state_of_request"]

_VIEWS = ("list", "grid")
_COMPLETED = 8
_LONGEST_TYPED = 200
_COMPLETION_SECONDS = 60
_ORDER_NAMES = {
    "score": "Best",
    "newest": "Newest",
    "path": "Path",
    "longest": "Longest",
    "shortest": "Shortest",
}
_HELP = (
    (EXAMPLES["and"], "both are heard; AND may be left out"),
    (EXAMPLES["or"], "either is heard"),
    (EXAMPLES["not"], "the first, but not where the second is heard"),
    (EXAMPLES["phrase"], "the words are one name"),
    (EXAMPLES["brackets"], "brackets group"),
    (FIELDS["label"], "exactly this class, without its kinds"),
    ("dog score:>0.5", "only what is heard rather surely"),
    ("rain duration:>30", "only recordings longer than 30 seconds; also duration:10..60"),
    ("rain path:holiday", "only files with this in their path; also path:*.mp3"),
    ("rain year:2024", "only files that were changed in this year"),
)


@dataclass(frozen=True)
class SearchState:
    """All that the URL of a search says; other URLs are made from it by changing a part."""

    query: str
    order: str = "score"
    view: str = "list"
    fold: bool = False
    grouped: bool = True
    limit: int = PAGE_LIMIT
    offset: int = 0

    def url(self, path: str = "/", **changes: Any) -> str:
        """Return the URL of this state with changes; it begins at the first hit unless told."""
        at = SearchState(**{**vars(self), "offset": 0, **changes})
        parts = [f"{quote(request.script_root)}{path}?q={quote_plus(at.query, safe=',')}"]
        if at.order != "score":
            parts.append(f"order={at.order}")
        if at.view != "list" and path == "/":
            parts.append(f"view={at.view}")
        if at.fold:
            parts.append("fold=1")
        if not at.grouped:
            parts.append("ungrouped=1")
        if at.limit != PAGE_LIMIT:
            parts.append(f"limit={at.limit}")
        if at.offset:
            parts.append(f"offset={at.offset}")
        return "&".join(parts)

    def orders(self) -> list[tuple[str, str, bool]]:
        """Return name, URL and whether it is this one, of each order."""
        return [
            (name, self.url(order=order), order == self.order)
            for order, name in _ORDER_NAMES.items()
        ]

    def views(self) -> list[tuple[str, str, bool]]:
        """Return name, URL and whether it is this one, of each view."""
        return [
            (name.capitalize(), self.url(view=name, offset=self.offset), name == self.view)
            for name in _VIEWS
        ]

    def pages(self, result: SearchResult) -> dict[str, str | None]:
        """Return the URLs of the pages before and after this one, None where there is none."""
        before = after = None
        if result.offset > 0:
            before = self.url(offset=max(0, result.offset - result.limit))
        if result.offset + len(result.hits) < result.count and result.hits:
            after = self.url(offset=result.offset + result.limit)
        return {"before": before, "after": after}


def state_of_request(query: str) -> SearchState:
    """Return what the request's URL says, or answer 400 where it makes no sense."""
    view = request.args.get("view", "list")
    if view not in _VIEWS:
        abort(400, f"'view' must be one of {', '.join(_VIEWS)}.")
    offset, limit = window()
    return SearchState(query, order_of(), view, is_folded(), is_grouped(), limit, offset)


def register(blueprint: Blueprint) -> None:
    """Add the routes to the blueprint of the pages."""

    @blueprint.get("/")
    def search() -> BaseResponse:
        """Search by keyword; the front page without a query."""
        library = library_of(current_app)
        query = request.args.get("q", "").strip()
        if not query:
            page = render_template(
                "home.html", info=library.info(), shipped=library.shipped, help=_HELP
            )
            return make_response(page)
        state = state_of_request(query)
        try:
            result = answer(query, offset=state.offset, limit=state.limit)
            facets = library.facets(query, fold=state.fold) if result.total else None
            parts = [] if result.total else library.query_parts(query)
        except QueryError as error:
            where = marked(query, error.position)
            page = render_template(
                "query_error.html", query=query, error=error, marked=where, help=_HELP
            )
            return make_response(page, 400)
        page = render_template(
            "results.html",
            query=query,
            state=state,
            result=result,
            groups=facet_groups(facets) if facets else [],
            estimated=facets is not None and facets.estimated,
            parts=parts,
            empty=not result.total and not library.info().clips,
            twin=state.url("/search.json", offset=state.offset),
            help=_HELP,
            **state.pages(result),
        )
        return make_response(page)

    @blueprint.get("/search.json")
    def search_json() -> BaseResponse:
        """Search by keyword, as JSON; with ``facets=1`` also what narrows it."""
        query = request.args.get("q", "").strip()
        if not query:
            abort(400, "Give a query, as in /search.json?q=Car.")
        state = state_of_request(query)
        with_facets = request.args.get("facets", "0")
        if with_facets not in ("0", "1"):
            abort(400, "'facets' must be 0 or 1.")
        try:
            found = answer(query, offset=state.offset, limit=state.limit).to_dict()
            if with_facets == "1":
                facets = library_of(current_app).facets(query, fold=state.fold)
                found["facets"] = facets.to_dict()
        except QueryError as error:
            return query_refused(error)
        return jsonify(found)

    @blueprint.get("/complete.json")
    def complete_json() -> BaseResponse:
        """Return what the last words of a query may become."""
        typed = request.args.get("q", "")
        if len(typed) > _LONGEST_TYPED:
            typed = ""
        found = library_of(current_app).complete(typed, limit=_COMPLETED)
        response = make_response(
            jsonify(query=typed, completions=[each.to_dict() for each in found])
        )
        response.headers["Cache-Control"] = f"private, max-age={_COMPLETION_SECONDS}"
        return response


def facet_groups(facets: Facets) -> Iterable[tuple[str, list[Facet]]]:
    """Return the groups of facets that have any, with their headings."""
    groups = (
        ("Score", facets.scores),
        ("Also heard", facets.classes),
        ("Folder", facets.folders),
        ("Length", facets.lengths),
        ("Year", facets.years),
    )
    return [(name, found) for name, found in groups if found]
