"""The HTTP API, version 1: what a program asks, in the words of `audiosearch.library.hits`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, abort, current_app, jsonify, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import AudioError, InvalidArgumentError, LibraryError, QueryError
from audiosearch.jobs import Analysis
from audiosearch.library.examples import Example
from audiosearch.library.ordering import ORDERS
from audiosearch.server import examples, media, metrics, samples
from audiosearch.server.access import access_of
from audiosearch.server.openapi import build_document
from audiosearch.server.operations import Operations
from audiosearch.server.parameters import Parameter
from audiosearch.server.problems import of_query, problem
from audiosearch.server.state import ID, library_of, state_of

__all__ = ["OPERATIONS", "PREFIX", "blueprint"]

PREFIX = "/api/v1"

blueprint = Blueprint("api", __name__, url_prefix=PREFIX)
OPERATIONS = Operations(blueprint, ID)
"""Everything that the API does."""

_LARGEST_ID = 2**63 - 1
_EXAMPLE = r"^[0-9]{1,18}(:[0-9]{1,6}(\.[0-9]{1,6})?)?$"


def _query(*, required: bool) -> Parameter:
    schema = {"type": "string", "minLength": 1, "maxLength": 500}
    text = "What to search for; docs/search.md explains the language."
    if not required:
        text = "Only what matches this query, too."
    return Parameter("q", schema, text, "rain -music", required)


def _flag(name: str, description: str) -> Parameter:
    return Parameter(name, {"type": "integer", "enum": [0, 1], "default": 0}, description)


def _window(limit: int = 20, most: int = 100) -> tuple[Parameter, Parameter]:
    hits = {"type": "integer", "minimum": 1, "maximum": most, "default": limit}
    first = {"type": "integer", "minimum": 0, "maximum": 10**9, "default": 0}
    return (
        Parameter("limit", hits, "How many to return."),
        Parameter("offset", first, "How many to leave out first."),
    )


def _clips(name: str, description: str, *, required: bool = False) -> Parameter:
    each = {
        "type": "string",
        "pattern": _EXAMPLE,
        "x-form": "the number of a clip, with a weight or without, as in 12 or 12:0.5",
    }
    schema = {"type": "array", "items": each, "maxItems": 50}
    return Parameter(name, schema, description, "12" if required else None, required)


def _id(name: str) -> Parameter:
    schema = {"type": "integer", "minimum": 0, "maximum": _LARGEST_ID}
    return Parameter(name, schema, f"Number of the {name} in the library.", 1, required=True)


_SECONDS = {"type": "number", "minimum": 0, "maximum": 1e9}
_PART = (
    Parameter("from", _SECONDS, "Where the part begins that counts, in seconds."),
    Parameter("to", _SECONDS, "Where it ends, in seconds."),
)
_UNGROUPED = _flag("ungrouped", "1 lists clips, not recordings with their best clips.")
_FOLD = _flag("fold", "1 lets exact copies make one hit.")
_TOP = Parameter(
    "top",
    {"type": "integer", "minimum": 1, "maximum": 527, "default": 5},
    "How many classes to return.",
)


@OPERATIONS.add(
    "GET",
    "/search",
    tag="Search",
    schema="SearchResult",
    example=samples.SEARCH,
    cached=True,
    query=(
        _query(required=True),
        *_window(),
        _FOLD,
        _UNGROUPED,
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
    query=(_query(required=True), _FOLD),
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
        replace(_query(required=True), description="A query as far as it was typed.", example="ra"),
        _window(8, 50)[0],
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
        _clips("clip", "A clip that is wanted; several are combined.", required=True),
        _clips("unlike", "A clip that is not wanted."),
        _query(required=False),
        *_PART,
        *_window(),
        _UNGROUPED,
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
        _clips("clip", "A clip of the library that is wanted, too."),
        _clips("unlike", "A clip that is not wanted."),
        _query(required=False),
        *_PART,
        *_window(),
        _UNGROUPED,
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
    with _analysed() as analysis:
        likes = [Example(analysis.frames, start, end), *map(_example, clip)]
        return _similar(likes, unlike, q, limit=limit, offset=offset, grouped=not ungrouped)


@OPERATIONS.add(
    "POST",
    "/tag",
    tag="Sounds",
    schema="TagResult",
    example=samples.TAGS,
    file=True,
    form=(
        _TOP,
        _flag("clips", "1 adds the best classes of each clip of 9.6 s."),
        _flag("frames", "1 adds the scores of the best classes in each frame of 0.96 s."),
    ),
)
def tag(top: int, clips: int, frames: int) -> BaseResponse:
    """Tag a sound file.

    The file is deleted with the answer.
    """
    from audiosearch.tagging.curves import clip_tags, frame_scores
    from audiosearch.tagging.tags import from_analysis

    with _analysed() as analysis:
        name = examples.shown_name(request.files["file"].filename or "")
        said = replace(from_analysis(analysis, top=top), path=name).to_dict()
        if clips:
            parts = [each.to_dict() for each in clip_tags(analysis, top=top)]
            said["clips"] = [{key: part[key] for key in ("start", "end", "tags")} for part in parts]
        if frames:
            said["frames"] = frame_scores(analysis, top=top).to_dict()
        return jsonify(said)


@OPERATIONS.add(
    "GET",
    "/clips/{clip}",
    tag="Sounds",
    schema="Clip",
    cached=True,
    problems=(404,),
    ids=(_id("clip"),),
    query=(_TOP,),
)
def clip(clip: int, top: int) -> BaseResponse:
    """Describe a clip: its place, its tags, and what was said of it."""
    return jsonify(library_of(current_app).clip(clip, top=top).to_dict())


@OPERATIONS.add(
    "GET",
    "/clips/{clip}/timeline",
    tag="Sounds",
    schema="Timeline",
    cached=True,
    problems=(404,),
    ids=(_id("clip"),),
    query=(
        Parameter("from", _SECONDS, "Where to begin, in seconds as hits give them."),
        Parameter("to", _SECONDS, "Where to end; at most 600 s later."),
        _TOP,
    ),
)
def timeline(clip: int, start: float | None, end: float | None, top: int) -> BaseResponse:
    """Give the scores of the frames of a clip's recording over time.

    One a 0.96 s, of the classes that are heard most surely. There are no curves where the embedding
    frames are not at hand, as in the library that comes with audiosearch.
    """
    found = library_of(current_app).timeline(clip, start=start, end=end, top=top)
    return jsonify(found.to_dict())


@OPERATIONS.add(
    "GET",
    "/clips/{clip}/audio",
    tag="Sounds",
    media="audio/wav",
    ranges=True,
    problems=(422,),
    ids=(_id("clip"),),
)
def clip_audio(clip: int) -> BaseResponse:
    """Send a clip as 16-bit mono WAV.

    AudioSet's clips lie on YouTube, so of them there is nothing to send (404).
    """
    return media.clip_audio(clip)


@OPERATIONS.add(
    "GET",
    "/recordings/{recording}/audio",
    tag="Sounds",
    media="audio/*",
    ranges=True,
    ids=(_id("recording"),),
)
def recording_audio(recording: int) -> BaseResponse:
    """Send an indexed file as it is.

    An answer to a range carries at most 8 MiB of it.
    """
    return media.recording_audio(recording)


@OPERATIONS.add("GET", "/classes", tag="Library", schema="ClassList", cached=True)
def classes() -> BaseResponse:
    """List the classes and groups of the ontology with what the library holds of each."""
    counts = library_of(current_app).class_counts()
    return jsonify(classes=[each.to_dict() for each in counts])


@OPERATIONS.add("GET", "/library", tag="Library", schema="LibraryInfo", cached=True)
def library() -> BaseResponse:
    """Say what is in the library and what made it."""
    return jsonify(library_of(current_app).info().to_dict())


@OPERATIONS.add(
    "GET",
    "/labels",
    tag="Labels",
    schema="LabelList",
    cached=True,
    problems=(404,),
    query=(
        Parameter("clip", _id("clip").schema, "Only of the recording that this clip is of."),
        Parameter(
            "label", {"type": "string", "minLength": 1, "maxLength": 100}, "Only this label."
        ),
        *_window(100, 1000),
    ),
)
def labels(clip: int | None, label: str | None, limit: int, offset: int) -> BaseResponse:
    """List what was confirmed, rejected and added."""
    found = library_of(current_app).labels(clip, label=label)
    page = [each.to_dict() for each in found[offset : offset + limit]]
    return jsonify(total=len(found), offset=offset, limit=limit, labels=page)


@OPERATIONS.add(
    "POST",
    "/labels",
    tag="Labels",
    schema="LabelChange",
    problems=(404,),
    body=(
        Parameter("clip", _id("clip").schema, "The clip.", 1, required=True),
        Parameter(
            "label",
            {"type": "string", "minLength": 1, "maxLength": 100},
            "A class by name or mid, or a label of your own.",
            "Dog",
            required=True,
        ),
        Parameter(
            "action",
            {"type": "string", "enum": ["confirm", "reject", "add", "remove"]},
            "Whether it is heard there (confirm) or not (reject); add gives a label of your own, "
            "used before or not; remove takes back what was said.",
            "confirm",
            required=True,
        ),
        Parameter("start", _SECONDS, "Where it is heard, in seconds; the clip where not given."),
        Parameter("end", _SECONDS, "Until when."),
    ),
)
def change_label(
    clip: int, label: str, action: str, start: float | None, end: float | None
) -> BaseResponse:
    """Say that a label is heard in a clip or not, or take that back.

    Searches know it at once. The library that comes with audiosearch takes no labels (403).
    """
    library = library_of(current_app)
    if library.shipped:
        abort(403, "The library that comes with audiosearch takes no labels. Copy it first.")
    change = {
        "confirm": library.confirm,
        "reject": library.reject,
        "add": library.add_label,
        "remove": library.remove_label,
    }[action]
    changed = change(clip, label, start=start, end=end)
    said = library.clip(clip).to_dict()["corrections"]
    return jsonify(changed=changed, clip=clip, corrections=said)


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


@contextlib.contextmanager
def _analysed() -> Iterator[Analysis]:
    """Analyse the request's file, which is deleted at once; answer 422 where it is no sound."""
    upload = request.files.get("file")
    if upload is None or not upload.filename:
        abort(400, "No file came with the request. Send it as the field 'file' of a form.")
    state = state_of(current_app)
    try:
        with examples.received(upload, state.uploads) as path:
            analysis = state.analyze(str(path))
    except AudioError as error:
        abort(422, f"{examples.shown_name(upload.filename)}: {error.reason}")
    yield analysis


def _similar(
    likes: list[Example], unlike: list[str], query: str | None, **options: Any
) -> BaseResponse:
    unlikes = [_example(each) for each in unlike]
    found = library_of(current_app).similar(likes, unlike=unlikes, query=query, **options)
    return jsonify(found.to_dict())


def _example(text: str) -> Example:
    number, _, weight = text.partition(":")
    return Example(int(number), weight=float(weight or 1))
