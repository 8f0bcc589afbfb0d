"""How a hit is shown: names, times, scores, links, and which player plays it."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from flask import Flask, request
from markupsafe import Markup, escape

from audiosearch.errors import printable
from audiosearch.library.facets import WEAK_SCORE
from audiosearch.library.hits import Clip, Hit, Moment, Tag
from audiosearch.query import MAX_LENGTH, label_query
from audiosearch.server.resources import asset_version

if TYPE_CHECKING:
    from audiosearch.library.library import LibraryInfo

__all__ = ["MIME_TYPES", "Player", "clock", "marked", "player", "query_of", "register"]

MIME_TYPES = {
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".wave": "audio/wav",
    ".webm": "video/webm",
}
"""Media types of the file endings that browsers play; the others are rendered as WAV."""

_TAGS, _MOST_MATCHED = 5, 4
_OWN_MARK = Markup('<abbr class="mine" title="A class of your own">own</abbr>')
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


@dataclass(frozen=True)
class Player:
    """What plays a clip.

    Attributes
    ----------
    kind : str
        ``"youtube"``, ``"audio"``, or ``"none"`` where there is no sound to play.
    src : str
        The URL to frame or to play, from the clip's start to its end.
    link : str
        YouTube: the plain page of the video, at the clip's start.
    fallback : str
        Audio: the clip as WAV, for a browser that cannot play the file.
    """

    kind: str
    src: str = ""
    link: str = ""
    fallback: str = ""


def register(app: Flask) -> None:
    """Make the functions of this module known to the templates of `app`."""
    app.jinja_env.filters.update(
        clock=clock,
        score=lambda value: f"{value:.2f}",
        percent=lambda value: f"{100 * value:.1f}",
        number=lambda value: f"{value:,}",
        hours=hours,
        printable=printable,
        coded=coded,
        breakable=breakable,
        recording_name=recording_name,
        recording_folder=recording_folder,
        last_folders=last_folders,
        search_url=search_url,
        class_url=class_url,
        query_url=query_url,
        clip_url=lambda clip: f"{request.script_root}/clip/{clip}",
        strip_url=lambda clip: f"{request.script_root}/clips/{clip}/strip.png",
        scores_url=lambda clip, mid: (
            f"{request.script_root}/clips/{clip}/scores.png?label={quote_plus(mid, safe='/')}"
        ),
        similar_url=lambda clip: f"{request.script_root}/similar/{clip}",
        facts=facts,
    )
    app.jinja_env.globals.update(
        player=player,
        asset=asset,
        matched_tags=matched_tags,
        own_mark=_OWN_MARK,
        longest_query=MAX_LENGTH,
        weak_score=WEAK_SCORE,
    )


def asset(name: str) -> str:
    """Return the URL of a static file, which changes with its content."""
    return f"{request.script_root}/static/{name}?v={asset_version(name)}"


def clock(seconds: float) -> str:
    """Return a time as people write it: 0:30, 0:09.6, 1:02:03."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hour, minute = divmod(minutes, 60)
    second = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hour}:{minute:02d}:{second}" if hour else f"{minute}:{second}"


def hours(seconds: float) -> str:
    """Return a length in the unit that suits it: 0.01 seconds, 12 minutes, 27.1 hours."""
    if seconds >= 3600:
        text, unit = f"{seconds / 3600:,.1f}", "hour"
    elif seconds >= 60:
        text, unit = f"{seconds / 60:.1f}", "minute"
    else:
        text, unit = f"{seconds:.2f}", "second"
    text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"


def facts(info: LibraryInfo) -> list[tuple[str, str]]:
    """Return what is known about a library as pairs of a name and a text."""
    shown = []
    for key, value in info.to_dict().items():
        name = key.replace("_", " ").capitalize()
        if value is None or (key == "unheard_clips" and not info.own_classifiers):
            continue
        if key in ("own_classifiers", "own_classes", "scores_only") and value:
            shown.append((name, printable(f"{len(value):,}: {', '.join(value)}")))
        if isinstance(value, dict | list):
            continue
        if key == "seconds":
            shown.append(("Length", hours(value)))
        elif key == "bytes":
            shown.append(("Size", f"{value / 1e6:,.1f} MB"))
        elif isinstance(value, int) and not isinstance(value, bool):
            shown.append((name, f"{value:,}"))
        else:
            shown.append((name, printable(str(value))))
    return shown


def coded(text: object) -> Markup:
    """Return a message in which what stands between backticks is shown as code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    shown = [Markup("<code>{}</code>").format(part) if at % 2 else escape(part)
             for at, part in enumerate(parts)]  # fmt: skip
    return Markup("").join(shown)


def breakable(path: str) -> Markup:
    """Return a path that a narrow column may break behind its slashes."""
    return Markup("/<wbr>").join(path.split("/"))


def matched_tags(item: Hit | Clip, matched: str | None) -> list[tuple[Tag, bool]]:
    """Return the classes to show of a hit, and whether each is what matched; those come first.

    What matched is what the hit says of each term, or `matched` where it says nothing.
    """
    reasons = getattr(item, "why", [])
    found = {_key(tag): tag for why in reasons if not why.excluded for tag in why.classes[:2]}
    first = list(found.values())[:_MOST_MATCHED]
    shown = {_key(tag) for tag in first}
    rest = [tag for tag in item.tags if _key(tag) not in shown][: max(_TAGS - len(first), 2)]
    # Of two classes of one name the better one matched.
    named = next((tag for tag in rest if tag.label == matched), None)
    return [(tag, True) for tag in first] + [(tag, tag is named) for tag in rest]


def _key(tag: Tag) -> str:
    return tag.mid or tag.label  # own classes have no mid


def marked(query: str, position: int | None) -> tuple[str, str, str] | None:
    """Split a query into what is before, at and after the place of an error."""
    if position is None or not 0 <= position < len(query):
        return None
    word = re.match(r"\S+|\s", query[position:])
    end = position + (word.end() if word else 1)
    return query[:position], query[position:end], query[end:]


def recording_name(item: Hit | Clip) -> str:
    """Return the file's name, or the video's id."""
    name = PurePath(item.recording).name if item.source == "file" else item.recording
    return printable(name or item.recording)


def recording_folder(item: Hit | Clip) -> str:
    """Return the folder of the file, or an empty text for a video."""
    if item.source != "file":
        return ""
    folder = str(PurePath(item.recording).parent)
    return "" if folder == "." else printable(folder)


def last_folders(folder: str) -> str:
    """Return the end of a long path, for where there is little room."""
    parts = re.split(r"[/\\]", folder)
    return folder if len(parts) < 5 else "…/" + "/".join(parts[-2:])


def search_url(label: str) -> str:
    """Return the URL of the search for one class. A page has a hundred, so it is put together."""
    return f"{request.script_root}/?q={_quoted(label)}"


def class_url(label: str, *, own: bool) -> str:
    """Return the same, of a class of the user's own where AudioSet may have one of that name."""
    if not own:
        return search_url(label)
    return query_url(label_query(label))


@functools.cache
def _quoted(label: str) -> str:
    return quote_plus(query_of(label), safe=",")


def query_url(query: str) -> str:
    """Return the URL of the search for a query."""
    return f"{request.script_root}/?q={quote_plus(query, safe='()')}"


def query_of(label: str) -> str:
    """Return the query that finds one class: its name, in quotes where it is not one word.

    A suggestion may be such a query already.
    """
    return label if re.fullmatch(r'\w+|label:".*"', label) else f'"{label}"'


def player(item: Hit | Clip, moment: Moment | None = None) -> Player:
    """Return what plays a hit or a clip, or another moment of its recording."""
    at = moment or item
    if item.source != "file":
        if item.source != "audioset" or not _YOUTUBE_ID.fullmatch(item.recording):
            return Player("none")
        start, end = math.floor(at.start), math.ceil(at.end)
        return Player(
            "youtube",
            src=f"https://www.youtube-nocookie.com/embed/{item.recording}"
            f"?start={start}&end={end}&autoplay=1",
            link=f"https://www.youtube.com/watch?v={item.recording}&t={start}s",
        )
    # Put together, as a page has many; `url_for` takes ten times as long.
    rendered = f"{request.script_root}/clips/{at.clip}/audio.wav"
    if PurePath(item.recording).suffix.lower() not in MIME_TYPES:
        return Player("audio", src=rendered, fallback=rendered)
    whole = f"{request.script_root}/recordings/{item.recording_id}/audio"
    return Player("audio", src=f"{whole}#t={at.start:g},{at.end:g}", fallback=rendered)
