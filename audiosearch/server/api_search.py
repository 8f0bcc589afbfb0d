"""Operations of the HTTP API that search: by words, by clips, by a sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import abort, current_app, jsonify
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.library.examples import Example
from audiosearch.library.ordering import ORDERS
from audiosearch.server import samples
from audiosearch.server.api_base import (
    FOLD,
    OPERATIONS,
    PART,
    UNGROUPED,
    analysed,
    clip_parameter,
    query_parameter,
    window,
)
from audiosearch.server.parameters import Parameter
from audiosearch.server.state import library_of


@OPERATIONS.add(
    "GET",
    "/search",
    tag="Search",
    schema="SearchResult",
    example=samples.SEARCH,
    cached=True,
    query=(
        query_parameter(required=True),
        *window(),
        FOLD,
        UNGROUPED,
        Parameter(
            "order",
            {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]},
            "What comes first.",
        ),
    ),
)
def search(q: str, limit: int, offset: int, fold: int, ungrouped: int, order: str) -> BaseResponse:
    """Search by keyword.

    Hits are recordings with their best clip at the top level, best first.
    """
    found = library_of(current_app).search(
        q, limit=limit, offset=offset, fold=bool(fold), grouped=not ungrouped, order=order
    )
    return jsonify(found.to_dict())


@OPERATIONS.add(
    "GET",
    "/facets",
    tag="Search",
    schema="Facets",
    cached=True,
    query=(query_parameter(required=True), FOLD),
)
def facets(q: str, fold: int) -> BaseResponse:
    """Count what the hits of a query have in common: classes, folders, lengths, years.

    Each comes with the query that narrows the search to it.
    """
    return jsonify(library_of(current_app).facets(q, fold=bool(fold)).to_dict())


@OPERATIONS.add(
    "GET",
    "/complete",
    tag="Library",
    schema="CompletionList",
    cached=True,
    query=(
        replace(
            query_parameter(required=True),
            description="A query as far as it was typed.",
            example="ra",
        ),
        window(8, 50)[0],
    ),
)
def complete(q: str, limit: int) -> BaseResponse:
    """Complete the last words of a query as it is typed."""
    found = library_of(current_app).complete(q, limit=limit)
    return jsonify(completions=[each.to_dict() for each in found])


@OPERATIONS.add(
    "GET",
    "/similar",
    tag="Search",
    schema="SearchResult",
    cached=True,
    problems=(404,),
    query=(
        clip_parameter("clip", "A clip that is wanted; several are combined.", required=True),
        clip_parameter("unlike", "A clip that is not wanted."),
        query_parameter(required=False),
        *PART,
        *window(),
        UNGROUPED,
    ),
)
def similar(
    clip: list[str],
    unlike: list[str],
    q: str | None,
    start: float | None,
    end: float | None,
    limit: int,
    offset: int,
    ungrouped: int,
) -> BaseResponse:
    """Search by clips of the library.

    A clip is its number, or number and weight, as in `clip=12&clip=40:0.5`. `from` and `to` choose
    a part of the one clip that is wanted, in seconds of its recording.
    """
    if (start is not None or end is not None) and len(clip) > 1:
        abort(400, "'from' and 'to' are for one example.")
    likes = [replace(_example(each), start=start, end=end) for each in clip]
    return _similar(likes, unlike, q, limit=limit, offset=offset, grouped=not ungrouped)


@OPERATIONS.add(
    "POST",
    "/similar",
    tag="Search",
    schema="SearchResult",
    file=True,
    problems=(404,),
    form=(
        clip_parameter("clip", "A clip of the library that is wanted, too."),
        clip_parameter("unlike", "A clip that is not wanted."),
        query_parameter(required=False),
        *PART,
        *window(),
        UNGROUPED,
    ),
)
def similar_to_file(
    clip: list[str],
    unlike: list[str],
    q: str | None,
    start: float | None,
    end: float | None,
    limit: int,
    offset: int,
    ungrouped: int,
) -> BaseResponse:
    """Search by a sound file.

    The file is deleted with the answer. `from` and `to` choose a part of it.
    """
    with analysed() as analysis:
        likes = [Example(analysis.frames, start, end), *map(_example, clip)]
        return _similar(likes, unlike, q, limit=limit, offset=offset, grouped=not ungrouped)


def _similar(
    likes: list[Example], unlike: list[str], query: str | None, **options: Any
) -> BaseResponse:
    unlikes = [_example(each) for each in unlike]
    found = library_of(current_app).similar(likes, unlike=unlikes, query=query, **options)
    return jsonify(found.to_dict())


def _example(text: str) -> Example:
    number, _, weight = text.partition(":")
    return Example(int(number), weight=float(weight or 1))
