"""The page for searching by a sound: a file, a recording from the microphone, or a clip."""

from __future__ import annotations

import re

from flask import Blueprint, abort, current_app, jsonify, make_response, redirect, request, url_for
from flask import render_template as render
from werkzeug.datastructures import FileStorage
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import AudioError, LibraryError, LibraryMismatchError
from audiosearch.library.additions import add_sound, added_folder
from audiosearch.server import examples
from audiosearch.server.asking import by_example
from audiosearch.server.limits import takes_upload
from audiosearch.server.pages import wants_json
from audiosearch.server.state import library_of, state_of

__all__ = ["blueprint"]

blueprint = Blueprint("example_page", __name__)

_CLIP = re.compile(r"(?:clip:|.*/(?:clip|clips|similar)/)?(\d{1,18})(?:\.json|[/?#].*)?", re.DOTALL)


@blueprint.get("/example")
def start() -> BaseResponse:
    """Show the forms; with ``clip`` go on to the sounds like that clip."""
    given = request.args.get("clip", "").strip()
    if given:
        found = _CLIP.fullmatch(given)
        if found is None:
            abort(
                400,
                "That is no clip. Give its number, as in clip:123, or the address of its page.",
            )
        values = {k: v for k, v in by_example().url_values().items() if k in ("from", "to")}
        return redirect(url_for("pages.similar", clip_id=int(found[1]), **values), 303)
    library = library_of(current_app)
    folder = None if library.shipped else str(added_folder(library))
    return make_response(render("by_example.html", added_folder=folder))


@blueprint.post("/examples/peaks.json")
@takes_upload
def peaks() -> BaseResponse:
    """Return the outline of a file's waveform; the file is deleted with the answer."""
    upload = _upload()
    state = state_of(current_app)
    try:
        with examples.received(upload, state.uploads) as path:
            found = state.peaks(str(path))
    except examples.TooManyUploadsError:
        return _busy()
    except AudioError as error:
        abort(422, f"{examples.shown_name(upload.filename or '')}: {error.reason}")
    values = [round(value, 3) for value in found.values.tolist()]
    return jsonify(duration=round(found.duration, 3), peaks=values)


@blueprint.post("/examples/add")
@blueprint.post("/examples/add.json", endpoint="add_json")
@takes_upload
def add() -> BaseResponse:
    """Copy a file to the library's folder for added sounds, and index it."""
    upload = _upload()
    state = state_of(current_app)
    name = examples.shown_name(upload.filename or "")
    if state.library.shipped:
        abort(
            403,
            "The library that comes with audiosearch takes no sounds. Make one of your own: "
            "audiosearch index FOLDER",
        )
    try:
        with examples.received(upload, state.uploads) as path:
            # What the server does not take as an example it does not take for good, either.
            state.analyze(str(path))
            clip = add_sound(state.library, path, name=name)
    except examples.TooManyUploadsError:
        return _busy()
    except AudioError as error:
        abort(422, f"{name}: {error.reason}")
    except LibraryMismatchError as error:
        abort(409, str(error))
    except LibraryError as error:
        if type(error) is not LibraryError:
            raise
        abort(403, str(error))
    if wants_json():
        return make_response(jsonify(clip.to_dict()), 201)
    return redirect(url_for("pages.clip", clip_id=clip.clip), 303)


def _upload() -> FileStorage:
    upload = request.files.get("file")
    if upload is None or not upload.filename:
        abort(400, "No file came with the request. Choose a sound file first.")
    return upload


def _busy() -> BaseResponse:
    message = "Too many files are being analysed at the moment. Try again soon."
    if wants_json():
        response = make_response(jsonify(error=message, status=503), 503)
    else:
        response = make_response(render("error.html", status=503, message=message), 503)
    response.headers["Retry-After"] = "5"
    return response
