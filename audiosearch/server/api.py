"""The HTTP API, version 1: what a program asks, in the words of `audiosearch.library.hits`."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, current_app, jsonify, make_response, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import AudioError, InvalidArgumentError, QueryError
from audiosearch.library.examples import Example
from audiosearch.server import examples
from audiosearch.server.asking import answer, by_example, is_grouped, query_refused, window
from audiosearch.server.limits import takes_upload
from audiosearch.server.state import ID, library_of, no_such, state_of

__all__ = ["blueprint"]

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.get("/search")
def search() -> BaseResponse:
    """Search by keyword."""
    query = request.args.get("q", "").strip()
    if not query:
        abort(400, "Give a query, as in /api/v1/search?q=Car.")
    offset, limit = window()
    try:
        return jsonify(answer(query, offset=offset, limit=limit).to_dict())
    except QueryError as error:
        return query_refused(error)


@blueprint.get("/similar")
def similar() -> BaseResponse:
    """Search by clips of the library: ``also`` for each that is wanted."""
    asked = by_example()
    if not asked.also:
        abort(400, "Give an example, as in /api/v1/similar?also=12. A file is sent by POST.")
    if (asked.start is not None or asked.end is not None) and len(asked.also) > 1:
        abort(400, "'from' and 'to' are for one example.")
    likes = [Example(clip, asked.start, asked.end) for clip in asked.also]
    return _similar(likes, asked.unlike, asked.query)


@blueprint.post("/similar")
@takes_upload
def similar_file() -> BaseResponse:
    """Search by an uploaded file; it is deleted with the answer."""
    asked = by_example()
    upload = request.files.get("file")
    if upload is None or not upload.filename:
        abort(400, "No file came with the request. Send it as the field 'file' of a form.")
    state = state_of(current_app)
    try:
        with examples.received(upload, state.uploads) as path:
            frames = state.analyze(str(path)).frames
    except examples.TooManyUploadsError:
        return make_response(
            jsonify(error="Too many files are being analysed at the moment.", status=503),
            503,
            {"Retry-After": "5"},
        )
    except AudioError as error:
        message = f"{examples.shown_name(upload.filename)}: {error.reason}"
        return make_response(jsonify(error=message, status=422), 422)
    likes = [Example(frames, asked.start, asked.end), *map(Example, asked.also)]
    return _similar(likes, asked.unlike, asked.query)


@blueprint.get(f"/clips/<{ID}:clip_id>")
def clip(clip_id: int) -> BaseResponse:
    """Describe one clip."""
    with no_such("clip", clip_id):
        return jsonify(library_of(current_app).clip(clip_id).to_dict())


def _similar(likes: list[Example], unlike: list[int], query: str | None) -> BaseResponse:
    offset, limit = window()
    options: dict[str, Any] = {"limit": limit, "offset": offset, "grouped": is_grouped()}
    try:
        with no_such("clip", 0):
            found = library_of(current_app).similar(likes, unlike=unlike, query=query, **options)
    except QueryError as error:
        return query_refused(error)
    except InvalidArgumentError as error:
        abort(400, str(error))
    return jsonify(found.to_dict())
