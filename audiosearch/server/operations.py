"""The operations of the API: each is declared once, and from that it is routed and documented."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, make_response, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.server import conditional
from audiosearch.server.limits import takes_upload
from audiosearch.server.parameters import Parameter, read_form, read_json, read_query

__all__ = ["Operation", "Operations"]

View = Callable[..., Any]


@dataclass(frozen=True)
class Operation:
    """One thing that the API does.

    Attributes
    ----------
    name : str
        Unique; the name of the view.
    method, path : str
        ``GET`` and ``/clips/{clip}``.
    summary, description : str
        What it does, in a line and in sentences.
    tag : str
        The group that it is shown in.
    schema : str or None
        Name of the schema of what it answers; None where that is no JSON.
    media : str
        The media type of what it answers.
    example : any
        Of an answer.
    ids : tuple of Parameter
        What the path holds.
    query, form, body : tuple of Parameter
        Values of the query string, of a form, of a JSON object.
    file : bool
        Whether a form carries a sound file.
    problems : tuple of int
        Which errors it may answer with, beside those that everything may.
    cached : bool
        Whether an answer stays the same until the library changes.
    is_open : bool
        Whether nobody need sign in for it.
    ranges : bool
        Whether a part of what it answers can be asked for.
    """

    name: str
    method: str
    path: str
    summary: str
    description: str
    tag: str
    schema: str | None = None
    media: str = "application/json"
    example: Any = None
    ids: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()
    form: tuple[Parameter, ...] = ()
    body: tuple[Parameter, ...] = ()
    file: bool = False
    problems: tuple[int, ...] = ()
    cached: bool = False
    is_open: bool = False
    ranges: bool = False


@dataclass
class Operations:
    """All operations on one blueprint.

    Parameters
    ----------
    blueprint : Blueprint
        Where they are routed.
    converter : str
        The URL converter of ids.
    """

    blueprint: Blueprint
    converter: str
    all: list[Operation] = field(default_factory=list)

    def add(self, method: str, path: str, **facts: Any) -> Callable[[View], View]:
        """Return a decorator that makes a view the operation ``method path``.

        The view is called with the ids of the path and with the values that the request gives, all
        checked, by name. Its docstring is the summary, and what follows the description.
        """

        def decorate(view: View) -> View:
            summary, _, rest = (view.__doc__ or "").partition("\n\n")
            operation = Operation(
                name=view.__name__,
                method=method,
                path=path,
                summary=" ".join(summary.split()),
                description=" ".join(rest.split()),
                **facts,
            )
            self.all.append(operation)
            answer = _answering(operation, view)
            if operation.file:
                answer = takes_upload(answer)
            rule = path.replace("{", f"<{self.converter}:").replace("}", ">")
            self.blueprint.add_url_rule(rule, operation.name, answer, methods=[method])
            return view

        return decorate


def _answering(operation: Operation, view: View) -> View:
    given: Sequence[Parameter] = operation.query

    @functools.wraps(view)
    def answer(**ids: Any) -> BaseResponse:
        values = read_query(given)
        if operation.file or operation.form:
            values |= read_form(operation.form)
        if operation.body:
            values |= read_json(operation.body)
        tag = conditional.tag_of_request() if operation.cached else None
        if tag is not None and conditional.is_known(tag):
            unchanged = Response(status=304)
            unchanged.set_etag(tag, weak=True)
            return unchanged
        made = make_response(view(**ids, **values))
        if tag is not None and made.status_code == 200:
            made.set_etag(tag, weak=True)
            if request.method in ("GET", "HEAD"):
                made.make_conditional(request)
        return made

    return answer
