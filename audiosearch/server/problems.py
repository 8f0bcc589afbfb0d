"""Errors of the API as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, current_app, make_response, request

from audiosearch.errors import QueryError

__all__ = ["MEDIA_TYPE", "is_api", "of_query", "problem"]

MEDIA_TYPE = "application/problem+json"

QUERY_TYPE = "/api#query-error"
"""Names the problem of a query that cannot be understood; its page says what else it carries."""


def is_api() -> bool:
    """Tell whether the request is for the API."""
    return request.path.startswith("/api/")


def problem(
    status: int, detail: str, *, kind: str = "about:blank", title: str | None = None, **members: Any
) -> Response:
    """Return an answer that says what went wrong.

    Parameters
    ----------
    status : int
        The HTTP status.
    detail : str
        What happened and what to do, in sentences.
    kind : str
        The problem's ``type``; ``about:blank`` where it is no more than the status.
    title : str, optional
        The same for every problem of this type; the status's own phrase where None.
    **members
        More members, as its type has.
    """
    said = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    response = make_response(current_app.json.dumps(said), status)
    response.mimetype = MEDIA_TYPE
    return response


def of_query(error: QueryError) -> Response:
    """Return the answer to a query that cannot be understood."""
    return problem(
        400,
        str(error),
        kind=QUERY_TYPE,
        title="The query cannot be understood",
        query=error.query,
        position=error.position,
        suggestions=list(error.suggestions),
    )
