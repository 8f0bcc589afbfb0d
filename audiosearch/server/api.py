"""The HTTP API, version 1: what a program asks, in the words of `audiosearch.library.hits`."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, jsonify
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import InvalidArgumentError, LibraryError, QueryError

# Importing them adds their operations.
from audiosearch.server import api_labels, api_search, api_sounds, examples, metrics
from audiosearch.server.access import access_of
from audiosearch.server.api_base import OPERATIONS, PREFIX, blueprint
from audiosearch.server.openapi import build_document
from audiosearch.server.problems import of_query, problem
from audiosearch.server.state import library_of

__all__ = ["OPERATIONS", "PREFIX", "api_labels", "api_search", "api_sounds", "blueprint"]


@OPERATIONS.add("GET", "/classes", tag="Library", schema="ClassList", cached=True)
def classes() -> BaseResponse:
    """List the classes and groups of the ontology with what the library holds of each.

    The user's own classes stand behind them.
    """
    counts = library_of(current_app).class_counts()
    return jsonify(classes=[each.to_dict() for each in counts])


@OPERATIONS.add("GET", "/library", tag="Library", schema="LibraryInfo", cached=True)
def library() -> BaseResponse:
    """Say what is in the library and what made it."""
    return jsonify(library_of(current_app).info().to_dict())


@OPERATIONS.add("GET", "/health", tag="Server", schema="Health", is_open=True)
def health() -> BaseResponse:
    """Say that the server answers; it tells nothing about the library."""
    return jsonify(status="ok")


@OPERATIONS.add("GET", "/metrics", tag="Server", media=metrics.MEDIA_TYPE)
def prometheus() -> BaseResponse:
    """Give figures of the server in the text format of Prometheus."""
    return Response(metrics.exposition(), content_type=metrics.MEDIA_TYPE)


@OPERATIONS.add("GET", "/openapi.json", tag="Server")
def openapi() -> BaseResponse:
    """Give this document."""
    return jsonify(document())


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the application that answers this request."""
    guarded = not access_of(current_app).is_open
    return build_document(OPERATIONS.all, prefix=PREFIX, guarded=guarded)


@blueprint.errorhandler(QueryError)
def _query_refused(error: QueryError) -> Response:
    return of_query(error)


@blueprint.errorhandler(InvalidArgumentError)
def _argument_refused(error: InvalidArgumentError) -> Response:
    return problem(400, str(error))


@blueprint.errorhandler(LibraryError)
def _not_there(error: LibraryError) -> Response:
    # Errors of the library itself (damaged, busy, of another version) have classes of their own.
    return problem(404 if type(error) is LibraryError else 503, str(error))


@blueprint.errorhandler(examples.TooManyUploadsError)
def _busy(error: examples.TooManyUploadsError) -> Response:
    response = problem(503, str(error))
    response.headers["Retry-After"] = "5"
    return response
