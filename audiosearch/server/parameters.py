"""What a request of the API may give: read by the same schemas that the document shows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import abort, request
from werkzeug.datastructures import MultiDict

__all__ = ["Parameter", "read_form", "read_json", "read_query"]

_EXACT = 2**53
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?", re.ASCII)
# What signs somebody in may stand in any URL; see `audiosearch.server.access`.
_ALWAYS = frozenset({"token"})
_FORM_ALWAYS = frozenset({"csrf_token"})


@dataclass(frozen=True)
class Parameter:
    """One value of a query string, a form or a JSON object.

    Attributes
    ----------
    name : str
        As the client writes it.
    schema : dict
        JSON Schema: a ``string``, ``integer`` or ``number``, or an ``array`` of strings.
    description : str
        What it is.
    example : any
        A value that works.
    required : bool
        Whether it must be given.
    """

    name: str
    schema: dict[str, Any]
    description: str
    example: Any = None
    required: bool = False

    @property
    def argument(self) -> str:
        """The name of the argument that takes it: ``from`` is a word of Python's."""
        return "start" if self.name == "from" else "end" if self.name == "to" else self.name

    def of_texts(self, texts: Sequence[str]) -> Any:
        """Return the value that was given as text; answer 400 where it cannot be."""
        if self.schema["type"] == "array":
            if len(texts) > self.schema["maxItems"]:
                most = self.schema["maxItems"]
                abort(400, f"'{self.name}' may be given {most} times, not {len(texts):,}.")
            return [self._checked(text, self.schema["items"]) for text in texts]
        if len(texts) > 1:
            abort(400, f"'{self.name}' may be given once, not {len(texts):,} times.")
        kind, text = self.schema["type"], texts[0]
        if kind == "integer":
            return self._checked(int(text) if _WHOLE.fullmatch(text) else text, self.schema)
        if kind == "number":
            return self._checked(float(text) if _NUMBER.fullmatch(text) else text, self.schema)
        return self._checked(text, self.schema)

    def of_json(self, value: Any) -> Any:
        """Return a value of a JSON object; answer 400 where it cannot be."""
        if self.schema["type"] == "number" and type(value) is int and abs(value) <= _EXACT:
            value = float(value)
        return self._checked(value, self.schema)

    def default(self) -> Any:
        """Return what stands for a value that was not given."""
        return self.schema.get("default", [] if self.schema["type"] == "array" else None)

    def _checked(self, value: Any, schema: dict[str, Any]) -> Any:
        kind = {"string": str, "integer": int, "number": float}[schema["type"]]
        if not isinstance(value, kind) or isinstance(value, bool):
            self._refuse(schema)
        if "enum" in schema and value not in schema["enum"]:
            self._refuse(schema)
        if isinstance(value, str):
            longest = schema.get("maxLength", math.inf)
            if not schema.get("minLength", 0) <= len(value) <= longest:
                self._refuse(schema)
            if "pattern" in schema and not re.search(schema["pattern"], value, re.ASCII):
                self._refuse(schema)
        else:
            low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
            # A whole number of any length can be compared, but not always turned into another.
            if not (low <= value <= high and (isinstance(value, int) or math.isfinite(value))):
                self._refuse(schema)
        return value

    def _refuse(self, schema: dict[str, Any]) -> None:
        abort(400, f"'{self.name}' must be {_described(schema)}.")


def read_query(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the values of the query string by argument; answer 400 where it is not as it must."""
    return _read(request.args, parameters, _ALWAYS)


def read_form(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the values of a form, without its files."""
    return _read(request.form, parameters, _FORM_ALWAYS)


def read_json(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the values of a JSON object; answer 400, or 415 where it is no JSON."""
    if not request.is_json:
        abort(415, "Send a JSON object, with the header 'Content-Type: application/json'.")
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError):
        abort(400, "The body is no JSON.")
    if not isinstance(body, dict):
        abort(400, "The body must be a JSON object.")
    known = {each.name: each for each in parameters}
    for name in body:
        if name not in known:
            abort(400, _unknown(name, known))
    values = {}
    for each in parameters:
        there = each.name in body
        values[each.argument] = each.of_json(body[each.name]) if there else _missing(each)
    return values


def _read(
    given: MultiDict[str, str], parameters: Sequence[Parameter], always: frozenset[str]
) -> dict[str, Any]:
    known = {each.name: each for each in parameters}
    for name in given:
        if name not in known and name not in always:
            abort(400, _unknown(name, known))
    values = {}
    for each in parameters:
        texts = given.getlist(each.name)
        values[each.argument] = each.of_texts(texts) if texts else _missing(each)
    return values


def _missing(parameter: Parameter) -> Any:
    if parameter.required:
        abort(400, f"'{parameter.name}' is missing: {parameter.description}")
    return parameter.default()


def _unknown(name: str, known: dict[str, Parameter]) -> str:
    there = ", ".join(f"'{each}'" for each in known) or "none"
    return f"There is no parameter '{name[:50]}' here. There is: {there}."


def _described(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    if schema["type"] == "string":
        if "x-form" in schema:
            return str(schema["x-form"])
        return (
            f"a text of {schema.get('minLength', 0)} to {schema.get('maxLength', 0):,} characters"
        )
    noun = "a whole number" if schema["type"] == "integer" else "a number"
    if "maximum" in schema:
        return f"{noun} from {schema['minimum']:,} to {schema['maximum']:,}"
    return f"{noun} from {schema.get('minimum', 0):,} on"
