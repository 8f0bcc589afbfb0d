"""What the operations of the HTTP API share: their list, their parameters, a request's file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flask import Blueprint, abort, current_app, request

from audiosearch.errors import AudioError
from audiosearch.jobs import Analysis
from audiosearch.query import MAX_LENGTH
from audiosearch.server import examples
from audiosearch.server.operations import Operations
from audiosearch.server.parameters import Parameter
from audiosearch.server.state import ID, state_of

__all__ = [
    "FOLD",
    "OPERATIONS",
    "PART",
    "PREFIX",
    "SECONDS",
    "TOP",
    "UNGROUPED",
    "analysed",
    "blueprint",
    "clip_parameter",
    "flag",
    "id_parameter",
    "query_parameter",
    "window",
]

PREFIX = "/api/v1"

blueprint = Blueprint("api", __name__, url_prefix=PREFIX)
OPERATIONS = Operations(blueprint, ID)
"""Everything that the API does."""

_LARGEST_ID = 2**63 - 1
_EXAMPLE = r"^[0-9]{1,18}(:[0-9]{1,6}(\.[0-9]{1,6})?)?$"


def query_parameter(*, required: bool) -> Parameter:
    """Return the parameter ``q``."""
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH}
    text = "What to search for; docs/search.md explains the language."
    if not required:
        text = "Only what matches this query, too."
    return Parameter("q", schema, text, "rain -music", required)


def flag(name: str, description: str) -> Parameter:
    """Return a parameter that is 0 or 1."""
    return Parameter(name, {"type": "integer", "enum": [0, 1], "default": 0}, description)


def window(limit: int = 20, most: int = 100) -> tuple[Parameter, Parameter]:
    """Return the parameters ``limit`` and ``offset``."""
    hits = {"type": "integer", "minimum": 1, "maximum": most, "default": limit}
    first = {"type": "integer", "minimum": 0, "maximum": 10**9, "default": 0}
    return (
        Parameter("limit", hits, "How many to return."),
        Parameter("offset", first, "How many to leave out first."),
    )


def clip_parameter(name: str, description: str, *, required: bool = False) -> Parameter:
    """Return a parameter that names clips of the library, with weights or without."""
    each = {
        "type": "string",
        "pattern": _EXAMPLE,
        "x-form": "the number of a clip, with a weight or without, as in 12 or 12:0.5",
    }
    schema = {"type": "array", "items": each, "maxItems": 50}
    return Parameter(name, schema, description, "12" if required else None, required)


def id_parameter(name: str) -> Parameter:
    """Return the number of something in the library, a part of the path."""
    schema = {"type": "integer", "minimum": 0, "maximum": _LARGEST_ID}
    return Parameter(name, schema, f"Number of the {name} in the library.", 1, required=True)


SECONDS = {"type": "number", "minimum": 0, "maximum": 1e9}
PART = (
    Parameter("from", SECONDS, "Where the part begins that counts, in seconds."),
    Parameter("to", SECONDS, "Where it ends, in seconds."),
)
UNGROUPED = flag("ungrouped", "1 lists clips, not recordings with their best clips.")
FOLD = flag("fold", "1 lets exact copies make one hit.")
TOP = Parameter(
    "top",
    {"type": "integer", "minimum": 1, "maximum": 527, "default": 5},
    "How many classes to return.",
)


@contextlib.contextmanager
def analysed() -> Iterator[Analysis]:
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
