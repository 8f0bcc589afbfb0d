"""The page that explains the API and lets one try it; it is made of the same operations."""

from __future__ import annotations

from flask import Blueprint, current_app, make_response, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.server.access import access_of
from audiosearch.server.api import OPERATIONS, PREFIX
from audiosearch.server.openapi import curl_of
from audiosearch.server.operations import Operation

__all__ = ["blueprint"]

blueprint = Blueprint("api_page", __name__)


@blueprint.get("/api")
def page() -> BaseResponse:
    """Show every operation with its parameters, and a form that sends it."""
    guarded = not access_of(current_app).is_open

    def curl(operation: Operation) -> str:
        address = request.host_url.rstrip("/")
        return curl_of(operation, prefix=PREFIX, address=address, guarded=guarded)

    groups: dict[str, list[Operation]] = {}
    for each in OPERATIONS.all:
        groups.setdefault(each.tag, []).append(each)
    return make_response(
        render_template("api.html", groups=groups, prefix=PREFIX, curl=curl, guarded=guarded)
    )
