"""Operations of the HTTP API on single sounds: tags, scores over time, and the sound itself."""

from __future__ import annotations

from dataclasses import replace

from flask import current_app, jsonify, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.server import examples, media, samples
from audiosearch.server.api_base import OPERATIONS, SECONDS, TOP, analysed, flag, id_parameter
from audiosearch.server.parameters import Parameter
from audiosearch.server.state import library_of


@OPERATIONS.add(
    "POST",
    "/tag",
    tag="Sounds",
    schema="TagResult",
    example=samples.TAGS,
    file=True,
    form=(
        TOP,
        flag("clips", "1 adds the best classes of each clip of 9.6 s."),
        flag("frames", "1 adds the scores of the best classes in each frame of 0.96 s."),
    ),
)
def tag(top: int, clips: int, frames: int) -> BaseResponse:
    """Tag a sound file.

    The file is deleted with the answer.
    """
    from audiosearch.tagging.curves import clip_tags, frame_scores
    from audiosearch.tagging.tags import from_analysis

    with analysed() as analysis:
        name = examples.shown_name(request.files["file"].filename or "")
        said = replace(from_analysis(analysis, top=top), path=name).to_dict()
        if clips:
            parts = [each.to_dict() for each in clip_tags(analysis, top=top)]
            said["clips"] = [{key: part[key] for key in ("start", "end", "tags")} for part in parts]
        if frames:
            said["frames"] = frame_scores(analysis, top=top).to_dict()
        return jsonify(said)


@OPERATIONS.add(
    "GET",
    "/clips/{clip}",
    tag="Sounds",
    schema="Clip",
    cached=True,
    problems=(404,),
    ids=(id_parameter("clip"),),
    query=(TOP,),
)
def clip(clip: int, top: int) -> BaseResponse:
    """Describe a clip: its place, its tags, and what was said of it."""
    return jsonify(library_of(current_app).clip(clip, top=top).to_dict())


@OPERATIONS.add(
    "GET",
    "/clips/{clip}/timeline",
    tag="Sounds",
    schema="Timeline",
    cached=True,
    problems=(404,),
    ids=(id_parameter("clip"),),
    query=(
        Parameter("from", SECONDS, "Where to begin, in seconds as hits give them."),
        Parameter("to", SECONDS, "Where to end; at most 600 s later."),
        TOP,
    ),
)
def timeline(clip: int, start: float | None, end: float | None, top: int) -> BaseResponse:
    """Give the scores of the frames of a clip's recording over time.

    One a 0.96 s, of the classes that are heard most surely. There are no curves where the embedding
    frames are not at hand, as in the library that comes with audiosearch.
    """
    found = library_of(current_app).timeline(clip, start=start, end=end, top=top)
    return jsonify(found.to_dict())


@OPERATIONS.add(
    "GET",
    "/clips/{clip}/audio",
    tag="Sounds",
    media="audio/wav",
    ranges=True,
    problems=(422,),
    ids=(id_parameter("clip"),),
)
def clip_audio(clip: int) -> BaseResponse:
    """Send a clip as 16-bit mono WAV.

    AudioSet's clips lie on YouTube, so of them there is nothing to send (404).
    """
    return media.clip_audio(clip)


@OPERATIONS.add(
    "GET",
    "/recordings/{recording}/audio",
    tag="Sounds",
    media="audio/*",
    ranges=True,
    ids=(id_parameter("recording"),),
)
def recording_audio(recording: int) -> BaseResponse:
    """Send an indexed file as it is.

    An answer to a range carries at most 8 MiB of it.
    """
    return media.recording_audio(recording)
