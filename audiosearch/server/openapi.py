"""The OpenAPI 3.1 document, made of the operations and the schemas."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from audiosearch.server.operations import Operation
from audiosearch.server.parameters import Parameter
from audiosearch.server.schemas import SCHEMAS
from audiosearch.version import __version__

__all__ = ["OPENAPI_VERSION", "build_document", "curl_of"]

OPENAPI_VERSION = "3.1.0"

_TAGS = {
    "Search": "By keyword and by example.",
    "Sounds": "Clips, their tags, and the sound itself.",
    "Labels": "What is confirmed, rejected and added by those who listen.",
    "Library": "What is in it, and which words find it.",
    "Server": "How it is.",
}
_WHY = {
    400: "A parameter, or the query, cannot be understood.",
    401: "Nobody is signed in, and no right token came along.",
    403: "This may not be done, or the request came from another site.",
    404: "It is not in this library.",
    405: "This cannot be done with this method; `Allow` says what can.",
    413: "The body is larger than the server takes.",
    415: "The body is of another type.",
    416: "The file has no such range.",
    422: "The file is no sound that can be used: unreadable, empty, too long, or too costly.",
    429: "Too much came from this address; `Retry-After` says when to go on.",
    500: "The server made a mistake; its log says which.",
    503: "The server is busy, or the library cannot be read at the moment.",
}


def build_document(
    operations: Sequence[Operation], *, prefix: str, guarded: bool
) -> dict[str, Any]:
    """Return the document as JSON-ready values.

    Parameters
    ----------
    operations : sequence of Operation
        What the API does.
    prefix : str
        Where its paths begin, for example ``/api/v1``.
    guarded : bool
        Whether one must sign in.
    """
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(prefix + each.path, {})[each.method.lower()] = _operation(each, guarded)
    components: dict[str, Any] = {"schemas": SCHEMAS}
    if guarded:
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "The server's token."}
        }
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "audiosearch",
            "version": __version__,
            "summary": "Sounds, found by what is in them.",
            "description": (
                "Errors are `application/problem+json` (RFC 9457). Answers about the library have "
                "an `ETag` that changes with it. Unknown parameters are refused."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": components,
    }


def curl_of(operation: Operation, *, prefix: str, address: str, guarded: bool) -> str:
    """Return a command that asks an example of an operation."""
    path = prefix + operation.path
    for each in operation.ids:
        path = path.replace(f"{{{each.name}}}", str(each.example))
    words = ["curl"]
    if guarded and not operation.is_open:
        words.append('-H "Authorization: Bearer $AUDIOSEARCH_TOKEN"')
    shown = [each for each in operation.query if each.example is not None]
    if operation.method == "GET" and shown:
        words.append("-G")
        words += [f"--data-urlencode '{each.name}={each.example}'" for each in shown]
    if operation.file:
        words.append("-F file=@rain.wav")
        words += [f"-F {each.name}={each.example}" for each in operation.form if each.required]
    if operation.body:
        body = ", ".join(
            f'"{each.name}": {_json(each.example)}' for each in operation.body if each.required
        )
        words.append(f"--json '{{{body}}}'")
    words.append(f"{address}{path}")
    return " ".join(words)


def _json(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _operation(each: Operation, guarded: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.tag],
        "parameters": [
            *(_parameter(one, "path") for one in each.ids),
            *(_parameter(one, "query") for one in each.query),
        ],
        "responses": _responses(each, guarded),
    }
    if each.description:
        described["description"] = each.description
    if each.file or each.body:
        described["requestBody"] = _body(each)
    if guarded:
        described["security"] = [] if each.is_open else [{"token": []}]
    return described


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": parameter.name,
        "in": where,
        "description": parameter.description,
        "required": parameter.required or where == "path",
        "schema": _clean(parameter.schema),
    }
    if parameter.example is not None:
        is_list = parameter.schema["type"] == "array"
        made["example"] = [parameter.example] if is_list else parameter.example
    return made


def _body(each: Operation) -> dict[str, Any]:
    values = {one.name: _described(one) for one in (*each.form, *each.body)}
    required = [one.name for one in (*each.form, *each.body) if one.required]
    if each.file:
        sound = {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "A sound file of any usual format. It is not kept.",
        }
        values, required = {"file": sound, **values}, ["file", *required]
    schema = {
        "type": "object",
        "properties": values,
        "required": required,
        "additionalProperties": False,
    }
    media = "multipart/form-data" if each.file else "application/json"
    content: dict[str, Any] = {"schema": schema}
    if each.body:
        content["example"] = {one.name: one.example for one in each.body if one.required}
    return {"required": True, "content": {media: content}}


def _responses(each: Operation, guarded: bool) -> dict[str, Any]:
    if each.schema:
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{each.schema}"}}
        if each.example is not None:
            content["example"] = each.example
    elif each.media.startswith("text/"):
        content = {"schema": {"type": "string"}}
    elif each.media == "application/json":
        content = {"schema": {"type": "object"}}
    else:
        content = {"schema": {"type": "string", "contentMediaType": each.media}}
    answers: dict[str, Any] = {"200": {"description": "What was asked for."}}
    answers["200"]["content"] = {each.media.partition(";")[0]: content}
    if each.cached:
        answers["200"]["headers"] = {
            "ETag": {"schema": {"type": "string"}, "description": "Send it as `If-None-Match`."}
        }
        answers["304"] = {"description": "Nothing changed since the answer of that `ETag`."}
    if each.ranges:
        answers["206"] = {
            "description": "The range that was asked for, or the beginning of it.",
            "headers": {"Content-Range": {"schema": {"type": "string"}}},
            "content": answers["200"]["content"],
        }
        answers["304"] = {"description": "The file did not change."}
    statuses = {400, 500, 503, *each.problems}
    if guarded and not each.is_open:
        statuses |= {401, 429}
    if each.file:
        statuses |= {403, 413, 422, 429}
    if each.body:
        statuses |= {403, 413, 415}
    if each.ranges:
        statuses |= {404, 416}
    for status in sorted(statuses):
        answer: dict[str, Any] = {
            "description": _WHY.get(status, HTTPStatus(status).phrase),
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        if status == 429:
            answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        answers[str(status)] = answer
    return answers


def _described(parameter: Parameter) -> dict[str, Any]:
    schema = {**_clean(parameter.schema), "description": parameter.description}
    if parameter.example is not None:
        schema["examples"] = [parameter.example]
    return schema


def _clean(schema: dict[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in schema.items() if not name.startswith("x-")}
    if "items" in made:
        made["items"] = _clean(made["items"])
    return made
