"""Operations of the HTTP API on labels: what was confirmed, rejected and added."""

from __future__ import annotations

from flask import abort, current_app, jsonify
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.server.api_base import OPERATIONS, SECONDS, id_parameter, window
from audiosearch.server.parameters import Parameter
from audiosearch.server.state import library_of


@OPERATIONS.add(
    "GET",
    "/labels",
    tag="Labels",
    schema="LabelList",
    cached=True,
    problems=(404,),
    query=(
        Parameter(
            "clip", id_parameter("clip").schema, "Only of the recording that this clip is of."
        ),
        Parameter(
            "label", {"type": "string", "minLength": 1, "maxLength": 100}, "Only this label."
        ),
        *window(100, 1000),
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
        Parameter("clip", id_parameter("clip").schema, "The clip.", 1, required=True),
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
        Parameter("start", SECONDS, "Where it is heard, in seconds; the clip where not given."),
        Parameter("end", SECONDS, "Until when."),
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
