"""The pages and their JSON twins: search, similar sounds, one clip, an example, the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    jsonify,
    make_response,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import AudioError, InvalidArgumentError, LibraryError, QueryError
from audiosearch.library.examples import Example
from audiosearch.library.hits import Clip, SearchResult
from audiosearch.server import clip_page, examples, search_page
from audiosearch.server.asking import (
    ByExample,
    by_example,
    is_grouped,
    query_refused,
    window,
)
from audiosearch.server.limits import takes_upload
from audiosearch.server.present import marked
from audiosearch.server.state import (
    ID,
    PAGE_LIMIT,
    library_of,
    no_such,
    state_of,
)

__all__ = ["blueprint", "too_large", "wants_json"]

blueprint = Blueprint("pages", __name__)
search_page.register(blueprint)
clip_page.register(blueprint)


def wants_json() -> bool:
    """Tell whether the answer should be JSON: by the URL's ending, else by the Accept header."""
    if request.path.endswith((".json", "/health")) or request.path.startswith("/api/"):
        return True
    accepted = request.accept_mimetypes
    return accepted["application/json"] > accepted["text/html"]


def too_large() -> str:
    """Return the sentence about a file beyond the limit."""
    megabytes = current_app.config["UPLOAD_LIMIT"] / 1e6
    return (
        f"The file is larger than {megabytes:g} MB, the most that can be uploaded. "
        "Give a shorter piece of it, or index it: audiosearch index FOLDER."
    )


@blueprint.get(f"/similar/<{ID}:clip_id>")
def similar(clip_id: int) -> BaseResponse:
    """List the clips that sound most like one of the library."""
    asked = by_example()
    try:
        example, result = _similar(clip_id, asked)
    except QueryError as error:
        query = asked.query or ""
        where = marked(query, error.position)
        page = render_template("query_error.html", query=query, error=error, marked=where)
        return make_response(page, 400)
    values = {"clip_id": clip_id, **asked.url_values()}
    page = render_template(
        "similar.html",
        example=example,
        asked=asked,
        result=result,
        more=_with_more(clip_id, asked),
        twin=_twin("pages.similar_json", **values),
        **_neighbours("pages.similar", result, **values),
    )
    return make_response(page)


@blueprint.get(f"/similar/<{ID}:clip_id>.json")
def similar_json(clip_id: int) -> BaseResponse:
    """List the clips that sound most like one of the library, as JSON."""
    try:
        return jsonify(_similar(clip_id, by_example())[1].to_dict())
    except QueryError as error:
        return query_refused(error)


def _similar(clip_id: int, asked: ByExample) -> tuple[Clip, SearchResult]:
    offset, limit = window()
    with no_such("clip", clip_id):
        library = library_of(current_app)
        example = library.clip(clip_id)
        likes = [Example(clip_id, asked.start, asked.end), *map(Example, asked.also)]
        try:
            result = library.similar(
                likes,
                unlike=asked.unlike,
                query=asked.query,
                limit=limit,
                offset=offset,
                grouped=is_grouped(),
            )
        except InvalidArgumentError as error:
            abort(400, str(error))
    return example, result


def _with_more(clip_id: int, asked: ByExample) -> Callable[[str, int], str]:
    """Return what gives the URL of this search with one more clip, wanted or not."""

    def more(name: str, clip: int) -> str:
        values = asked.url_values()
        values[name] = [*values.get(name, []), clip]
        return url_for("pages.similar", clip_id=clip_id, **values)

    return more


@blueprint.get("/examples")
def examples_start() -> BaseResponse:
    """Send a reload of an example's page to the front page: nothing of the upload was kept."""
    return redirect(url_for("pages.search"), 303)


@blueprint.post("/examples")
@blueprint.post("/examples.json", endpoint="example_json")
@takes_upload
def example() -> BaseResponse:
    """Tag an uploaded file and list its nearest clips; the file is deleted with the answer."""
    upload = request.files.get("file")
    if upload is None or not upload.filename:
        abort(400, "No file came with the request. Choose a sound file first.")
    asked = by_example()
    try:
        state = state_of(current_app)
        with examples.received(upload, state.uploads) as path:
            tags, result = examples.analyze(
                state, path, asked, name=upload.filename, limit=PAGE_LIMIT
            )
    except examples.TooManyUploadsError:
        response = _refusal(503, "Too many files are being analysed at the moment. Try again soon.")
        response.headers["Retry-After"] = "5"
        return response
    except QueryError as error:
        return _refusal(400, str(error))
    except InvalidArgumentError as error:
        return _refusal(400, str(error))
    except LibraryError as error:
        # A damaged or busy library has errors of classes of their own.
        if type(error) is not LibraryError:
            raise
        return _refusal(404, str(error))
    except AudioError as error:
        return _refusal(422, f"{examples.shown_name(upload.filename)}: {error.reason}")
    if wants_json():
        return jsonify({**result.to_dict(), "example": tags.to_dict()})
    return make_response(render_template("example.html", example=tags, result=result))


@blueprint.get("/about")
def about() -> BaseResponse:
    """Say what is in the library, which versions made it, and what was skipped."""
    library = library_of(current_app)
    return make_response(
        render_template(
            "about.html", info=library.info(), shipped=library.shipped, skipped=library.skipped()
        )
    )


@blueprint.get("/health")
def health() -> BaseResponse:
    """Say that the server answers; open to all, so it tells nothing about the library."""
    return jsonify(status="ok")


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Send the icon to browsers that ask for it by its old name."""
    folder = current_app.static_folder or ""
    return send_from_directory(folder, "favicon.svg", mimetype="image/svg+xml", max_age=86_400)


def _twin(endpoint: str, **values: Any) -> str:
    """Return the URL of this page as JSON, with the same window."""
    for name in ("offset", "limit", "fold", "ungrouped"):
        if name in request.args:
            values[name] = request.args[name]
    return url_for(endpoint, **values)


def _neighbours(endpoint: str, result: SearchResult, **values: Any) -> dict[str, str | None]:
    """Return the URLs of the pages before and after this one, None where there is none."""
    if result.limit != PAGE_LIMIT:
        values["limit"] = result.limit
    for name in ("fold", "ungrouped"):
        if name in request.args:
            values[name] = request.args[name]
    before = after = None
    if result.offset > 0:
        offset = max(0, result.offset - result.limit)
        before = url_for(endpoint, **values, offset=offset or None)
    if result.offset + len(result.hits) < result.count and result.hits:
        after = url_for(endpoint, **values, offset=result.offset + result.limit)
    return {"before": before, "after": after}


def _refusal(status: int, message: str) -> Response:
    if wants_json():
        return make_response(jsonify(error=message, status=status), status)
    return make_response(render_template("error.html", status=status, message=message), status)
