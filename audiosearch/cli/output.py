"""How results look on a terminal and as JSON."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from audiosearch.errors import printable

if TYPE_CHECKING:
    from audiosearch.library.hits import Hit, SearchResult, Tag

__all__ = [
    "clock",
    "count",
    "echo_json",
    "hit_lines",
    "one_line",
    "result_lines",
    "size",
    "span",
    "speed_line",
    "tags_text",
    "tenths",
    "warn",
    "warn_skipped",
    "youtube_link",
]

_CONTROLS = ("Cc", "Zl", "Zp")


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print `value` as UTF-8 JSON, whatever the terminal's encoding.

    A file name that is no valid text holds lone surrogates; JSON can carry them as escapes, and
    Python's ``os.fsencode`` of what is read back is the name on the disk.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace"))


def one_line(text: str) -> str:
    """Return a text, such as a file's name, that takes one line and cannot steer a terminal.

    Control characters and line separators are shown escaped.
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _CONTROLS else c
        for c in printable(text)
    )


def warn(message: str) -> None:
    """Print one line on stderr."""
    click.echo(one_line(message), err=True)


def clock(seconds: float) -> str:
    """Return a time as people read it on a player: ``0:07``, ``12:30``, ``1:02:03``."""
    whole = math.floor(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def tenths(seconds: float) -> str:
    """Return a time as `clock` does, to a tenth of a second: ``0:07.2``."""
    whole, tenth = divmod(round(seconds * 10), 10)
    return f"{clock(whole)}.{tenth}"


def span(start: float, end: float) -> str:
    """Return a stretch of time: ``0:30-0:40``."""
    return f"{clock(start)}-{clock(math.ceil(end))}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 file``, ``2,000 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Return a number of bytes as people read it: ``45.1 kB``, ``6.2 MB``, ``1.9 GB``."""
    if number < 1000:
        return count(number, "byte")
    for unit, length in (("kB", 1e3), ("MB", 1e6)):
        if number < 999.95 * length:
            return f"{number / length:.1f} {unit}"
    return f"{number / 1e9:,.1f} GB"


def tags_text(tags: Iterable[Tag]) -> str:
    """Return tags with their scores: ``Car 0.93, Vehicle 0.97``."""
    return ", ".join(f"{tag.label} {tag.score:.2f}" for tag in tags)


def youtube_link(video: str, start: float) -> str:
    """Return the address of a video that starts at `start` seconds."""
    return f"https://www.youtube.com/watch?v={video}&t={math.floor(start)}s"


def speed_line(seconds: float, elapsed: float) -> str:
    """Return how much sound a job went through, and how fast."""
    sound, took = (tenths(each) if each < 60 else clock(each) for each in (seconds, elapsed))
    return f"{sound} of audio in {took} ({seconds / elapsed:,.0f} x real time)."


def warn_skipped(skipped: Sequence[tuple[str, str]], *, total: int | None = None) -> None:
    """List on stderr what was skipped, as (path, reason); `total` where these are the first."""
    total = len(skipped) if total is None else total
    warn(f"{count(total, 'file')} skipped:")
    for path, reason in skipped:
        warn(f"  {printable(path)}: {reason}")
    if total > len(skipped):
        warn(f"  and {total - len(skipped):,} more")


def hit_lines(number: int, hit: Hit, *, keyword: bool) -> list[str]:
    """Return the lines that show one hit; the score is its label's only for a keyword search."""
    indent = " " * 6
    label = f"{hit.label}  " if keyword else ""
    lines = [
        (
            f"{number:>4}. {hit.score:.2f}  {label}{span(hit.start, hit.end)}  "
            f"{one_line(hit.recording)}"
        ),
    ]
    if keyword and hit.explanation:
        lines.append(f"{indent}why: {one_line(hit.explanation)}")
    lines.append(f"{indent}{tags_text(hit.tags)}")
    if hit.labels is not None:
        lines.append(f"{indent}true labels: {', '.join(hit.labels) or 'none'}")
    if hit.moments:
        times = ", ".join(clock(moment.start) for moment in hit.moments[:5])
        more = ", ..." if len(hit.moments) > 5 else ""
        lines.append(f"{indent}{count(len(hit.moments), 'more moment')}: {times}{more}")
    if hit.match is not None and (hit.match.start, hit.match.end) != (hit.start, hit.end):
        lines.append(f"{indent}alike at {tenths(hit.match.start)}-{tenths(hit.match.end)}")
    if hit.copies:
        names = ", ".join(one_line(name) for name in hit.copies[:5])
        more = ", ..." if len(hit.copies) > 5 else ""
        lines.append(f"{indent}{count(len(hit.copies), 'copy', 'copies')}: {names}{more}")
    if hit.source == "audioset":
        lines.append(f"{indent}{youtube_link(hit.recording, hit.start)}")
    return lines


def result_lines(result: SearchResult, *, subject: str, by_example: bool = False) -> Sequence[str]:
    """Return the lines that show a page of hits; `subject` says what was searched for."""
    recordings, clips = count(result.total, "recording"), count(result.total_clips, "clip")
    first, second = (recordings, clips) if result.grouped else (clips, recordings)
    found = f"{first} for {one_line(subject)} ({second})"
    if not result.hits:
        return [f"{found}, none at offset {result.offset:,}." if result.count else f"{found}."]
    lines = [found + (":" if result.offset == 0 else f", from number {result.offset + 1:,}:")]
    for number, hit in enumerate(result.hits, start=result.offset + 1):
        lines += hit_lines(number, hit, keyword=not by_example)
    return lines
