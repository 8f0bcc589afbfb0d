"""Spectrograms of indexed files: of one clip for lists, and tiles for its page.

Of a clip whose sound is elsewhere, how surely a class is heard in it over time.

As with sound, what is asked for is a number in the library, never a path.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
from flask import Blueprint, Flask, Response, abort, current_app, g, make_response, request

from audiosearch import pictures
from audiosearch.errors import AudioError
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.hits import Clip, Hit
from audiosearch.picture_cache import PictureCache
from audiosearch.server.media import existing_file
from audiosearch.server.state import ID, library_of, no_such

__all__ = ["SCORES_SIZE", "STRIP_SIZE", "TILE_SIZE", "blueprint", "register"]

blueprint = Blueprint("pictures", __name__)

STRIP_SIZE = (320, 48)
"""Width and height of a clip's picture in a list."""

SCORES_SIZE = (320, 24)
"""Width and height of the picture of a class's scores over time."""

TILE_SIZE = (480, 128)
"""Width and height of a tile; it is as long as a clip."""

_STRIP_COLOURS = 12  # so that a page of twenty stays small
_BAR_LIGHTNESS = 0.6
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
    app.jinja_env.globals.update(class_over_time=_class_over_time, frames_at_hand=_frames_at_hand)


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


@blueprint.get(f"/clips/<{ID}:clip_id>/scores.png")
def scores(clip_id: int) -> Response:
    """Send the scores of one class in the frames of a clip as bars.

    ``label`` is its mid, or the name of a class of the user's own.
    """
    label = request.args.get("label", "")
    studio: _Studio = current_app.extensions[_EXTENSION]
    library = library_of(current_app)
    with no_such("clip", clip_id), studio.place():
        clip = library.clip(clip_id)
        found = library.timeline(
            clip_id, start=clip.start, end=clip.end, top=CLASS_COUNT + len(library.own.names)
        )
    own = library.own.name_of(label)
    curve = next(
        (each for each in found.curves if (each.mid == label if each.mid else each.label == own)),
        None,
    )
    if curve is None:
        abort(404, f"Clip {clip_id} has no scores over time of a class '{label}' here.")
    width, height = SCORES_SIZE
    bars = np.array(curve.scores)[np.arange(width) * len(curve.scores) // width]
    heights = np.rint(bars * height)
    # As light as what is loud in a spectrogram.
    values = np.where(np.arange(height)[::-1, None] < heights, _BAR_LIGHTNESS, 0.0)
    return _picture(pictures.png(values, colours=_STRIP_COLOURS))


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
    return _picture(data)


def _picture(data: bytes) -> Response:
    response = make_response(data)
    response.headers["Content-Type"] = "image/png"
    response.headers["Cache-Control"] = f"private, max-age={_KEPT_SECONDS}"
    return response


def _class_over_time(item: Hit | Clip) -> tuple[str, str] | None:
    """Return name and mid of the class whose scores over time stand for a sound that is elsewhere.

    It is what matched a query, else the clip's best. None where the frames are not at hand.
    """
    if item.source == "file" or not item.tags:
        return None
    if not _frames_at_hand():
        return None
    matched = [
        why.classes[0] for why in getattr(item, "why", ()) if why.classes and not why.excluded
    ]
    for tag in [*matched, *item.tags]:
        if tag.mid in _timed_classes():
            return tag.label, tag.mid
    return None


def _frames_at_hand() -> bool:
    """Tell, and find out once for a page, whether scores over time can be drawn."""
    if "frames_at_hand" not in g:
        g.frames_at_hand = library_of(current_app).packed_frames_at_hand()
    found: bool = g.frames_at_hand
    return found


@functools.cache
def _timed_classes() -> frozenset[str]:
    """Return the mids of the classes that frames are scored for."""
    return frozenset(label.mid for label in load_labels())
