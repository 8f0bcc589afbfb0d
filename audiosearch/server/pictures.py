"""Spectrograms of indexed files: of one clip for lists, and tiles for its page.

As with sound, what is asked for is a number in the library, never a path.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import NoReturn

from flask import Blueprint, Flask, Response, abort, current_app, make_response

from audiosearch.errors import AudioError
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.picture_cache import PictureCache
from audiosearch.server.media import existing_file
from audiosearch.server.state import ID, library_of, no_such

__all__ = ["STRIP_SIZE", "TILE_SIZE", "blueprint", "register"]

blueprint = Blueprint("pictures", __name__)

STRIP_SIZE = (320, 48)
"""Width and height of a clip's picture in a list."""

TILE_SIZE = (480, 128)
"""Width and height of a tile; it is as long as a clip."""

_STRIP_COLOURS = 12  # so that a page of twenty stays small
_EXTENSION = "audiosearch.pictures"
_KEPT_SECONDS = 24 * 3600
_AT_ONCE = 2
_WAITING = 10  # pictures; a browser asks for six at once, and threads must be left for searching
_PATIENCE = 30.0
_AGAIN = 3
_LAST_TILE = 10**7


class _Studio:
    """Draws few pictures at once, and lets few wait: threads must be left for searching."""

    def __init__(self) -> None:
        self.cache = PictureCache()
        self._queue = threading.BoundedSemaphore(_AT_ONCE + _WAITING)
        self._places = threading.BoundedSemaphore(_AT_ONCE)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place to draw at; answer 503 where too many wait already."""
        if not self._queue.acquire(blocking=False):
            _turn_away()
        try:
            if not self._places.acquire(timeout=_PATIENCE):
                _turn_away()
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._queue.release()


def _turn_away() -> NoReturn:
    response = make_response(
        "Too many pictures are being drawn at the moment. Try again soon.", 503
    )
    response.headers["Retry-After"] = str(_AGAIN)
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    abort(response)


def register(app: Flask) -> None:
    """Add the routes and the cache of pictures to an application."""
    app.extensions[_EXTENSION] = _Studio()
    app.register_blueprint(blueprint)


@blueprint.get(f"/clips/<{ID}:clip_id>/strip.png")
def strip(clip_id: int) -> Response:
    """Send the spectrogram of one clip, small."""
    with no_such("clip", clip_id):
        clip = library_of(current_app).clip(clip_id)
    width, height = STRIP_SIZE
    return _drawn(
        clip.recording_id,
        start=clip.start,
        end=max(clip.end, clip.start + 0.02),
        duration=clip.duration or clip.end,
        width=width,
        height=height,
        colours=_STRIP_COLOURS,
    )


@blueprint.get(f"/recordings/<{ID}:recording_id>/spectrogram/<int:number>.png")
def tile(recording_id: int, number: int) -> Response:
    """Send a tile of a recording's spectrogram; its number counts from the start."""
    if number > _LAST_TILE:
        abort(404, "There is no such tile: the recording ends before it.")
    width, height = TILE_SIZE
    with no_such("recording", recording_id):
        duration = library_of(current_app).duration(recording_id)
    start = number * CLIP_SPAN
    if start >= duration:
        abort(404, "There is no such tile: the recording ends before it.")
    return _drawn(
        recording_id,
        start=start,
        end=start + CLIP_SPAN,
        duration=duration,
        width=width,
        height=height,
        whole=True,
    )


def _drawn(
    recording_id: int,
    *,
    start: float,
    end: float,
    duration: float,
    width: int,
    height: int,
    colours: int = 32,
    whole: bool = False,
) -> Response:
    path = existing_file(recording_id)
    studio: _Studio = current_app.extensions[_EXTENSION]
    try:
        with studio.place():
            data = studio.cache.spectrogram(
                path,
                start=start,
                end=end,
                duration=duration,
                width=width,
                height=height,
                colours=colours,
                whole=whole,
            )
    except AudioError as error:
        abort(422, str(error))
    response = make_response(data)
    response.headers["Content-Type"] = "image/png"
    response.headers["Cache-Control"] = f"private, max-age={_KEPT_SECONDS}"
    return response
