"""Pages for looking around: tree of classes, map, random and new clips, duplicates, numbers.

Each has a JSON twin of the same name with ``.json``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from flask import Blueprint, abort, current_app, jsonify, make_response, redirect, request, url_for
from flask import render_template as render
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.errors import LibraryError
from audiosearch.labels import load_labels
from audiosearch.library.collection_map import CollectionMap, collection_map
from audiosearch.library.counting import ClassCount
from audiosearch.library.duplicates import DuplicateGroup, duplicates
from audiosearch.library.hits import Clip
from audiosearch.library.statistics import Statistics, statistics
from audiosearch.server.background import Background
from audiosearch.server.pages import wants_json
from audiosearch.server.state import PAGE_LIMIT, library_of, whole_number

__all__ = ["blueprint", "register"]

blueprint = Blueprint("browse", __name__)

_EXTENSION = "audiosearch.browse"
_MOST_CLIPS = 100
_FARTHEST = 1_000_000_000
_LARGEST_SEED = 2**32 - 1
_LONGER_THAN_A_VISITOR_WAITS = 1.5
_GROUPS_A_PAGE = 20


class _Slow:
    """What takes long to find out about a library, each thing at most once for each state of it."""

    def __init__(self, library: Any) -> None:
        self.map: Background[CollectionMap | None] = Background(lambda: collection_map(library))
        self.duplicates: Background[list[DuplicateGroup]] = Background(lambda: duplicates(library))
        self.statistics: Background[Statistics] = Background(lambda: statistics(library))


def register(app: Any) -> None:
    """Put the pages on `app`, whose state is set."""
    app.extensions[_EXTENSION] = _Slow(library_of(app))
    app.register_blueprint(blueprint)
    app.jinja_env.filters["sort_nodes"] = _most_first


def _most_first(mids: Iterable[str], nodes: dict[str, ClassCount]) -> list[str]:
    return sorted(mids, key=lambda mid: (-nodes[mid].recordings, nodes[mid].label))


def _slow() -> _Slow:
    slow: _Slow = current_app.extensions[_EXTENSION]
    return slow


# --- Classes ----------------------------------------------------------------------------------


@blueprint.get("/browse")
@blueprint.get("/browse.json", endpoint="classes_json")
def classes() -> BaseResponse:
    """Show the ontology as a tree, with how many recordings a search for each class finds."""
    every_class = library_of(current_app).class_counts()
    own = [each for each in every_class if each.own_classifier is not None]
    counts = [each for each in every_class if each.own_classifier is None]
    if wants_json():
        return jsonify(classes=[each.to_dict() for each in every_class], roots=_roots(counts))
    every = request.args.get("all", "0")
    if every not in ("0", "1"):
        abort(400, "'all' must be 0 or 1.")
    page = render(
        "browse_classes.html",
        nodes={each.mid: each for each in counts},
        heard={each.mid for each in counts if each.recordings},
        roots=_roots(counts),
        own=sorted(own, key=lambda each: (-each.recordings, each.label)),
        every=every == "1",
        twin=url_for("browse.classes_json"),
    )
    return make_response(page)


def _roots(counts: list[ClassCount]) -> list[str]:
    below = {child for each in counts for child in each.children}
    return [each.mid for each in counts if each.mid not in below]


# --- The map ----------------------------------------------------------------------------------


@blueprint.get("/browse/map")
def map_page() -> BaseResponse:
    """Show the map of the collection, and the same as a list of classes."""
    found = _map()
    page = render(
        "browse_map.html",
        found=found,
        regions=[] if found is None else _regions(found),
        twin=url_for("browse.map_json"),
    )
    return make_response(page, 200 if found is not None else 202)


@blueprint.get("/browse/map.json")
def map_json() -> BaseResponse:
    """Return the points of the map; 202 while it is being laid out."""
    found = _map()
    if found is None:
        response = make_response(jsonify(state="being laid out"), 202)
        response.headers["Retry-After"] = "2"
        return response
    used = np.unique(found.labels)
    labels = load_labels()
    names, groups = list(_group_of().names), _group_of().of_class
    places = np.rint(found.places * 10_000).astype(int)
    return jsonify(
        state="ready",
        total=found.total,
        clips=found.clips.tolist(),
        x=places[:, 0].tolist(),
        y=places[:, 1].tolist(),
        label=np.searchsorted(used, found.labels).tolist(),
        labels=[labels[index].name for index in used.tolist()],
        group=[groups[index] for index in used.tolist()],
        groups=names,
    )


def _map() -> CollectionMap | None:
    library = library_of(current_app)
    if library.snapshot().live_clips == 0:
        return collection_map(library)
    return _slow().map.get(library.revision(), wait=_LONGER_THAN_A_VISITOR_WAITS)


class _Groups:
    """Which of the ontology's topmost groups each class is shown as one of."""

    def __init__(self) -> None:
        labels = load_labels()
        below = {child for mid in labels.nodes() for child in labels.children(mid)}
        roots = [mid for mid in labels.nodes() if mid not in below and labels.below(mid)]
        self.names = tuple(labels.node_name(mid) for mid in roots)
        self.of_class = [len(roots)] * len(labels)
        for number, mid in reversed(list(enumerate(roots))):
            for index in labels.below(mid):
                self.of_class[index] = number


_groups: list[_Groups] = []


def _group_of() -> _Groups:
    if not _groups:
        _groups.append(_Groups())
    return _groups[0]


def _regions(found: CollectionMap) -> list[tuple[int, str, int, list[tuple[str, int]]]]:
    """Return the map as a list: each group with its clips, and these by their best class."""
    groups, labels = _group_of(), load_labels()
    numbers, counts = np.unique(found.labels, return_counts=True)
    result = []
    for number, name in enumerate(groups.names):
        inside = [
            (labels[index].name, count)
            for index, count in zip(numbers.tolist(), counts.tolist(), strict=True)
            if groups.of_class[index] == number
        ]
        inside.sort(key=lambda item: (-item[1], item[0]))
        if inside:
            result.append((number, name, sum(count for _, count in inside), inside))
    return result


# --- Random, and added last -------------------------------------------------------------------


@blueprint.get("/browse/random")
@blueprint.get("/browse/random.json", endpoint="random_json")
def random() -> BaseResponse:
    """List clips drawn by chance; the URL's ``seed`` draws the same again."""
    limit = whole_number("limit", PAGE_LIMIT, smallest=1, largest=_MOST_CLIPS)
    if not request.args.get("seed"):
        values: dict[str, Any] = {"limit": limit} if limit != PAGE_LIMIT else {}
        target = "browse.random_json" if wants_json() else "browse.random"
        return redirect(url_for(target, seed=secrets.randbelow(1_000_000), **values), 303)
    seed = whole_number("seed", 0, smallest=0, largest=_LARGEST_SEED)
    found = library_of(current_app).random_clips(limit, seed=seed)
    if wants_json():
        return jsonify(seed=seed, clips=[clip.to_dict() for clip in found])
    page = render(
        "browse_clips.html",
        kind="random",
        clips=found,
        twin=_twin("browse.random_json"),
    )
    return make_response(page)


@blueprint.get("/browse/recent")
@blueprint.get("/browse/recent.json", endpoint="recent_json")
def recent() -> BaseResponse:
    """List the recordings that were added last, newest first."""
    offset = whole_number("offset", 0, smallest=0, largest=_FARTHEST)
    limit = whole_number("limit", PAGE_LIMIT, smallest=1, largest=_MOST_CLIPS)
    library = library_of(current_app)
    latest = library.catalogue.latest(limit, offset=offset)
    added = dict(latest)
    found = _clips([clip for clip, _ in latest])
    total = library.snapshot().live_recordings
    if wants_json():
        listed = [{**clip.to_dict(), "added": _iso(added[clip.clip])} for clip in found]
        return jsonify(total=total, offset=offset, limit=limit, clips=listed)

    def page_at(place: int) -> str:
        values: dict[str, Any] = {"limit": limit} if limit != PAGE_LIMIT else {}
        return url_for("browse.recent", offset=place or None, **values)

    page = render(
        "browse_clips.html",
        kind="recent",
        clips=found,
        added={clip: datetime.fromtimestamp(at, UTC) for clip, at in added.items()},
        before=page_at(max(0, offset - limit)) if offset else None,
        after=page_at(offset + limit) if offset + len(latest) < total and latest else None,
        offset=offset,
        total=total,
        twin=_twin("browse.recent_json"),
    )
    return make_response(page)


def _twin(endpoint: str) -> str:
    """Return the URL of this page as JSON."""
    values: dict[str, Any] = request.args.to_dict()
    return url_for(
        endpoint, **{k: v for k, v in values.items() if k in ("seed", "limit", "offset")}
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _clips(numbers: list[int]) -> list[Clip]:
    """Return clips by number, without those that were removed a moment ago."""
    library, found = library_of(current_app), []
    for number in numbers:
        try:
            found.append(library.clip(number))
        except LibraryError as error:
            if type(error) is not LibraryError:
                raise
    return found


# --- Duplicates, and the library in numbers ---------------------------------------------------


@blueprint.get("/browse/duplicates")
@blueprint.get("/browse/duplicates.json", endpoint="duplicates_json")
def duplicate_groups() -> BaseResponse:
    """List recordings that the library holds more than once: equal files first."""
    library = library_of(current_app)
    found = _slow().duplicates.get(library.revision(), wait=_LONGER_THAN_A_VISITOR_WAITS)
    if wants_json():
        if found is None:
            return _not_yet()
        return jsonify(groups=[group.to_dict() for group in found])
    offset = whole_number("offset", 0, smallest=0, largest=_FARTHEST)
    shown = [] if found is None else found[offset : offset + _GROUPS_A_PAGE]
    after = None
    if found is not None and offset + _GROUPS_A_PAGE < len(found):
        after = url_for("browse.duplicate_groups", offset=offset + _GROUPS_A_PAGE)
    page = render(
        "browse_duplicates.html",
        found=found,
        groups=[(group, _clips(group.clips[:50])) for group in shown],
        exact=sum(group.kind == "exact" for group in found or []),
        saved=sum(group.bytes for group in found or [] if group.kind == "exact"),
        before=url_for("browse.duplicate_groups", offset=max(0, offset - _GROUPS_A_PAGE) or None)
        if offset
        else None,
        after=after,
        offset=offset,
        twin=url_for("browse.duplicates_json"),
    )
    return make_response(page, 200 if found is not None else 202)


@blueprint.get("/browse/statistics")
@blueprint.get("/browse/statistics.json", endpoint="statistics_json")
def numbers() -> BaseResponse:
    """Show the library in numbers."""
    library = library_of(current_app)
    found = _slow().statistics.get(library.revision(), wait=_LONGER_THAN_A_VISITOR_WAITS)
    if wants_json():
        return _not_yet() if found is None else jsonify(found.to_dict())
    page = render("browse_statistics.html", found=found, twin=url_for("browse.statistics_json"))
    return make_response(page, 200 if found is not None else 202)


def _not_yet() -> BaseResponse:
    response = make_response(jsonify(state="being made"), 202)
    response.headers["Retry-After"] = "2"
    return response
