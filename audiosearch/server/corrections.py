"""What a visitor says of tags: confirmed, rejected, own labels; all of it listed and undone.

A form sends ``confirm``, ``reject``, ``remove`` or ``add`` with ``CLIP:START:END:LABEL``; times are
seconds and may be empty for the clip's own. With ``add`` the label comes in the field ``label``.
Without scripts the answer leads back to where the form was; with them it is JSON.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    jsonify,
    make_response,
    redirect,
    request,
    url_for,
)
from flask import render_template as render
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import InvalidArgumentError, LibraryError, QueryError
from audiosearch.labels import name_key
from audiosearch.library.hits import Clip, Hit, Tag, UserLabel
from audiosearch.library.label_files import export_labels
from audiosearch.library.label_table import Verdict
from audiosearch.library.labelling import LabelChange
from audiosearch.server.access import access_of, local
from audiosearch.server.pages import wants_json
from audiosearch.server.state import library_of, no_such, whole_number

__all__ = ["blueprint", "register"]

blueprint = Blueprint("corrections", __name__)

_VERDICTS: dict[str, Verdict | None] = {
    "confirm": "confirmed",
    "reject": "rejected",
    "add": "confirmed",
    "remove": None,
}
_VALUE = re.compile(r"(\d{1,18}):((?:\d+(?:\.\d+)?)?):((?:\d+(?:\.\d+)?)?):(.*)", re.DOTALL)
_A_PAGE = 50
_FARTHEST = 1_000_000_000


def register(app: Flask) -> None:
    """Put the pages on `app`, and tell its templates what they need for the forms."""
    app.register_blueprint(blueprint)
    app.jinja_env.globals.update(takes_labels=_takes_labels)
    app.jinja_env.filters.update(said_of=_said_of, undo_value=_undo_value)


@blueprint.post("/labels")
@blueprint.post("/labels.json", endpoint="say_json")
def say() -> BaseResponse:
    """Enter what was said of a clip, or take it back."""
    action, change = _change()
    library = library_of(current_app)
    try:
        with no_such("clip", change.clip):
            library.clip(change.clip)
        changed = library.change_labels([change]) > 0
        said = library.clip(change.clip)
    except QueryError as error:
        abort(400, str(error))
    except InvalidArgumentError as error:
        abort(400, str(error))
    except LibraryError as error:
        if type(error) is not LibraryError:
            raise
        abort(403, str(error))
    if wants_json():
        return jsonify(action=action, changed=changed, clip=said.to_dict())
    target = local(request.form.get("next", "") or url_for("pages.clip", clip_id=change.clip))
    anchor = "" if "#" in target else f"#clip-{change.clip}"
    return redirect(target + anchor, 303)


@blueprint.get("/corrections")
@blueprint.get("/corrections.json", endpoint="corrections_json")
def corrections() -> BaseResponse:
    """List everything that was said, with a way to take each back."""
    verdict = request.args.get("verdict", "")
    if verdict not in ("", "confirmed", "rejected"):
        abort(400, "'verdict' must be confirmed or rejected.")
    label = request.args.get("label", "").strip()
    offset = whole_number("offset", 0, smallest=0, largest=_FARTHEST)
    library = library_of(current_app)
    every = library.labels(label=label or None)
    found = [each for each in every if not verdict or each.verdict == verdict]
    if wants_json():
        shown = found[offset : offset + _A_PAGE]
        return jsonify(
            total=len(found), offset=offset, limit=_A_PAGE, labels=[one.to_dict() for one in shown]
        )
    values: dict[str, Any] = {"verdict": verdict or None, "label": label or None}

    def page_at(place: int) -> str:
        return url_for("corrections.corrections", **values, offset=place or None)

    page = render(
        "corrections.html",
        labels=found[offset : offset + _A_PAGE],
        total=len(found),
        offset=offset,
        verdict=verdict,
        label=label,
        before=page_at(max(0, offset - _A_PAGE)) if offset else None,
        after=page_at(offset + _A_PAGE) if offset + _A_PAGE < len(found) else None,
        counts={
            name: sum(one.verdict == name for one in every) for name in ("confirmed", "rejected")
        },
        library_folder=str(library.folder),
        shipped=library.shipped,
        waiting=library.corrections().waiting(),
        twin=url_for("corrections.corrections_json", **values, offset=offset or None),
    )
    return make_response(page)


@blueprint.get("/corrections.csv")
def corrections_csv() -> BaseResponse:
    """Send all labels as the training set that `export_labels` writes."""
    with tempfile.TemporaryDirectory(prefix="audiosearch-") as folder:
        path = Path(folder, "labels.csv")
        export_labels(library_of(current_app), path)
        text = path.read_bytes()
    response = make_response(text)
    response.mimetype = "text/csv"
    response.headers["Content-Disposition"] = 'attachment; filename="labels.csv"'
    return response


def _change() -> tuple[str, LabelChange]:
    """Return what a form asks for; answer 400 where it makes no sense."""
    asked = [name for name in _VERDICTS if name in request.form]
    if len(asked) != 1:
        abort(400, f"Give one of {', '.join(_VERDICTS)}, as in confirm=12:::Car.")
    action = asked[0]
    parts = _VALUE.fullmatch(request.form[action])
    if parts is None:
        abort(400, f"'{action}' must be CLIP:START:END:LABEL, as in {action}=12:::Car.")
    clip, start, end, label = parts.groups()
    if action == "add":
        label = request.form.get("label", "")
    if not label.strip():
        abort(400, "Give the label a name.")
    return action, LabelChange(
        int(clip),
        label.strip(),
        _VERDICTS[action],
        float(start) if start else None,
        float(end) if end else None,
        new=action == "add",
    )


def _takes_labels() -> bool:
    """Tell whether this user may label the library; the one that is shipped takes none."""
    return not library_of(current_app).shipped and not access_of(current_app).listens_only()


def _said_of(item: Hit | Clip, tag: Tag) -> str | None:
    """Return what was said of a tag of an item: confirmed, rejected, or None."""
    for each in getattr(item, "corrections", ()):
        if each.mid == tag.mid or (not tag.mid and name_key(each.label) == name_key(tag.label)):
            return str(each.verdict)
    return None


def _undo_value(said: Any, clip: int | None = None) -> str:
    """Return what a form sends to take something back."""
    number = said.clip if isinstance(said, UserLabel) else clip
    return f"{number}:{said.start:.10g}:{said.end:.10g}:{said.mid or said.label}"
