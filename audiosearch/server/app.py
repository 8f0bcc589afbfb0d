"""The application factory: routes, checks, and error pages in one piece."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import AudioSearchError, InvalidArgumentError
from audiosearch.server import (
    api,
    api_page,
    browse,
    conditional,
    corrections,
    example_page,
    logs,
    media,
    metrics,
    pages,
    pictures,
    present,
    problems,
    security,
)
from audiosearch.server.access import Access, sign_in_page
from audiosearch.server.limits import Limits
from audiosearch.server.limits import register as set_limits
from audiosearch.server.resources import static_folder, template_folder
from audiosearch.server.state import State
from audiosearch.server.users import Users

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["create_app", "fetch_page"]

_KEPT_SECONDS = 365 * 24 * 3600


def create_app(
    library: Library,
    *,
    token: str | None = None,
    users: str | os.PathLike[str] | None = None,
    host: str | None = None,
    limits: Limits | None = None,
    classifiers: Sequence[str] = (),
) -> Flask:
    """Return the web application on one open library.

    Parameters
    ----------
    library : Library
        Open for reading; the application never closes it.
    token : str, optional
        What a client must know. Without it and `users` the application answers only to requests
        for this machine's own address.
    users : path-like, optional
        The file of those who may sign in by name and password; see `audiosearch.server.users`.
    host : str, optional
        The name that the server is bound to, where it is not an address.
    limits : Limits, optional
        What is taken from clients.
    classifiers : sequence of str
        Folders of classifiers of the user's own (`audiosearch.lab`) that tag uploads too; those
        of the library do anyway.

    Returns
    -------
    flask.Flask

    Raises
    ------
    InvalidArgumentError
        When the token is empty.
    ServerError
        When the installation lacks the pages, or the users file cannot be used.
    """
    if token is not None and not token.strip():
        raise InvalidArgumentError("The token is empty. Leave it out, or give a long random text.")
    app = Flask(
        "audiosearch.server",
        template_folder=str(template_folder()),
        static_folder=str(static_folder()),
    )
    chosen = limits or Limits()
    set_limits(app, chosen)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True
    State(library, limits=chosen, classifiers=classifiers).attach(app)
    # Functions after a request run in the reverse order: counted last, with the final status.
    metrics.register(app, library)
    conditional.register(app)
    present.register(app)
    access = Access(
        token=token.strip() if token else None, users=None if users is None else Users(users)
    )
    security.protect(app, access, host=host)
    logs.scrub(app.logger.name, secrets=[access.token] if access.token else [])
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(media.blueprint)
    pictures.register(app)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(api_page.blueprint)
    browse.register(app)
    corrections.register(app)
    app.register_blueprint(example_page.blueprint)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(AudioSearchError, _own_error)
    app.after_request(_cache)
    return app


def fetch_page(library: Library, path: str) -> tuple[int, dict[str, str], str]:
    """Answer one GET request without a server.

    Parameters
    ----------
    library : Library
        As for `create_app`.
    path : str
        Path and query string, for example ``/search.json?q=Car``.

    Returns
    -------
    status : int
    headers : dict of str to str
    body : str
        Decoded as UTF-8; what is not text is shown by replacement characters.

    Raises
    ------
    InvalidArgumentError
        When `path` does not start with a slash.
    """
    if not path.startswith("/") or path.startswith("//"):
        raise InvalidArgumentError(f"A page starts with a slash, as in /search.json?q=Car: {path}")
    with create_app(library).test_client() as client:
        response = client.get(path)
        body = response.get_data().decode("utf-8", "replace")
        return response.status_code, dict(response.headers), body


def _http_error(error: HTTPException) -> BaseResponse:
    """Show an HTTP error as a page in the same design, or as JSON for the ``.json`` twins."""
    if error.code is None or error.code < 400:
        return error.get_response()
    message = error.description or error.name
    if error.code == 404 and message == type(error).description:
        message = "There is no such page here."
    elif error.code == 413:
        message = pages.too_large()
    elif error.code == 500:
        message = "Something went wrong inside audiosearch. The server's terminal says what."
    response = _error_page(error.code, message)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "content-range", "retry-after"):
            response.headers[name] = value
    if error.code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="audiosearch"'
    return response


def _own_error(error: AudioSearchError) -> BaseResponse:
    """Show an error of the library: its message is written for people."""
    return _error_page(503, str(error))


def _error_page(status: int, message: str) -> BaseResponse:
    if problems.is_api():
        return problems.problem(status, message)
    if pages.wants_json():
        return make_response(jsonify(error=message, status=status), status)
    if status == 401:
        target = request.full_path.rstrip("?") if request.method == "GET" else "/"
        return sign_in_page(target, status=status)
    return make_response(render_template("error.html", status=status, message=message), status)


def _cache(response: Response) -> Response:
    """Let browsers keep static files for good (their URL changes with them), and pages not."""
    if request.endpoint == "static" and "v" in request.args and response.status_code == 200:
        response.headers["Cache-Control"] = f"public, max-age={_KEPT_SECONDS}, immutable"
    else:
        response.headers.setdefault("Cache-Control", "private, no-cache")
    return response
