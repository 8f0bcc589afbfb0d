"""The page of one clip: its recording, its scores over time, and what is near it."""

from __future__ import annotations

from flask import (
    Blueprint,
    abort,
    current_app,
    jsonify,
    make_response,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import InvalidArgumentError
from audiosearch.server.asking import seconds_of
from audiosearch.server.clip_view import ClipView, view_of
from audiosearch.server.state import ID, library_of, no_such

__all__ = ["register"]

_ALIKE = 6
_BESIDE = 3


def register(blueprint: Blueprint) -> None:
    """Add the routes to the blueprint of the pages."""

    @blueprint.get(f"/clip/<{ID}:clip_id>")
    def clip(clip_id: int) -> BaseResponse:
        """Show one clip: its recording, tags, true labels where they are known, and its sound."""
        library = library_of(current_app)
        with no_such("clip", clip_id):
            found = library.clip(clip_id)
            before, after = library.beside(clip_id, count=_BESIDE)
            alike = library.similar(clip_id, limit=_ALIKE)
            view = _view(clip_id)
        return make_response(
            render_template(
                "clip.html",
                clip=found,
                view=view,
                at=seconds_of("at"),
                before=before,
                after=after,
                alike=alike,
                twin=url_for("pages.clip_json", clip_id=clip_id),
            )
        )

    @blueprint.get(f"/clip/<{ID}:clip_id>.json")
    def clip_json(clip_id: int) -> BaseResponse:
        """Show one clip, as JSON."""
        with no_such("clip", clip_id):
            return jsonify(library_of(current_app).clip(clip_id).to_dict())

    @blueprint.get(f"/clip/<{ID}:clip_id>/timeline.json")
    def timeline_json(clip_id: int) -> BaseResponse:
        """Give the scores of the frames of a clip's recording, or of a part of it."""
        with no_such("clip", clip_id):
            try:
                found = library_of(current_app).timeline(
                    clip_id, start=seconds_of("from"), end=seconds_of("to")
                )
            except InvalidArgumentError as error:
                abort(400, str(error))
        return jsonify(found.to_dict())


def _view(clip_id: int) -> ClipView:
    try:
        return view_of(
            library_of(current_app),
            clip_id,
            start=seconds_of("from"),
            script_root=request.script_root,
        )
    except InvalidArgumentError as error:
        abort(400, str(error))
