"""The sound itself: indexed files with ranges, and single clips rendered as WAV.

Only what is in the library is served, and only by its number in the library: no path of a client's
reaches the file system.
"""

from __future__ import annotations

import io
import re
import wave
from pathlib import Path

import numpy as np
from flask import Blueprint, Response, abort, current_app, request, send_file

from audiosearch.errors import AudioError, AudioNotFoundError, printable
from audiosearch.server.present import MIME_TYPES
from audiosearch.server.state import ID, library_of, no_such

__all__ = ["blueprint", "existing_file"]

blueprint = Blueprint("media", __name__)

RANGE_BYTES = 8 * 2**20
"""The longest part of a file that one answer carries.

A media element asks for everything to the end and then stops reading. A longer answer would fill
the server's output buffer (16 MiB) and hold its thread for as long as the listener pauses; with
less the browser asks again when it needs more.
"""

_RENDERED_RATE = 44_100


@blueprint.get(f"/recordings/<{ID}:recording_id>/audio")
def recording_audio(recording_id: int) -> Response:
    """Send an indexed file, or the range of it that was asked for."""
    path = existing_file(recording_id)
    _shorten_range()
    mimetype = MIME_TYPES.get(path.suffix.lower(), "application/octet-stream")
    try:
        return send_file(path, mimetype=mimetype, conditional=True, max_age=0)
    except OSError as error:
        abort(404, f"{printable(str(path))} cannot be read: {error.strerror}.")


@blueprint.get(f"/clips/<{ID}:clip_id>/audio.wav")
def clip_audio(clip_id: int) -> Response:
    """Send one clip as 16-bit mono WAV: some formats are played by no browser."""
    from audiosearch.audio import load

    with no_such("clip", clip_id):
        clip = library_of(current_app).clip(clip_id)
    path = existing_file(clip.recording_id)
    try:
        samples = load(path, start=clip.start, end=clip.end, rate=_RENDERED_RATE)
    except AudioNotFoundError:
        abort(404, f"{printable(str(path))} is gone. Index its folder again.")
    except AudioError as error:
        abort(422, str(error))
    return send_file(
        _as_wav(samples),
        mimetype="audio/wav",
        download_name=f"clip-{clip_id}.wav",
        conditional=True,
        max_age=0,
    )


def existing_file(recording_id: int) -> Path:
    """Return the file of a recording, or answer 404 with the reason."""
    with no_such("recording", recording_id):
        path = library_of(current_app).audio_path(recording_id)
    if path is None:
        abort(404, f"Recording {recording_id} has no sound file in this library.")
    if not path.is_file():
        abort(
            404,
            f"{printable(str(path))} is gone: it was moved or deleted after it was indexed. "
            "Index its folder again.",
        )
    if library_of(current_app).leads_elsewhere(recording_id):
        abort(
            404,
            f"{printable(str(path))} is a link that leads to another file than was indexed. "
            "Index its folder again.",
        )
    return path.resolve()


def _shorten_range() -> None:
    """Cut a request for a long range down to its first `RANGE_BYTES`; see there for the reason."""
    asked = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", request.headers.get("Range", "").strip())
    if asked:
        start = int(asked[1])
        last = start + RANGE_BYTES - 1
        if not asked[2] or int(asked[2]) > last:
            request.environ["HTTP_RANGE"] = f"bytes={start}-{last}"


def _as_wav(samples: np.ndarray) -> io.BytesIO:
    """Return float samples from -1 to 1 as a WAV file in memory."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(_RENDERED_RATE)
        # A sample beyond full scale is played at full scale, as every sound card does it.
        out.writeframes((np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes())
    file.seek(0)
    return file
