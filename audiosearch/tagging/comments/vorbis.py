"""Vorbis comments, which FLAC, Ogg Vorbis and Opus share: ``NAME=text``, one after another."""

from __future__ import annotations

import struct
from collections.abc import Callable

from audiosearch.tagging.comments.pieces import UntouchableError

__all__ = ["changed_comments", "new_comments"]

# FFmpeg calls the comment DESCRIPTION, as the format's text does; most programs say COMMENT.
_NAMES = (b"COMMENT", b"DESCRIPTION")


def new_comments(change: Callable[[str], str]) -> bytes:
    """Return comments that hold the new comment only."""
    return changed_comments(struct.pack("<II", 0, 0), change)


def changed_comments(data: bytes, change: Callable[[str], str]) -> bytes:
    """Return Vorbis comments with another comment; what stands behind them stays.

    Raises
    ------
    UntouchableError
        When they are not built as they should be.
    """
    at = 0

    def number() -> int:
        nonlocal at
        if at + 4 > len(data):
            raise UntouchableError("Its comments are damaged, so it is not touched.")
        (value,) = struct.unpack_from("<I", data, at)
        at += 4
        return int(value)

    def text() -> bytes:
        nonlocal at
        length = number()
        if at + length > len(data):
            raise UntouchableError("Its comments are damaged, so it is not touched.")
        at += length
        return data[at - length : at]

    vendor = text()
    fields = [text() for _ in range(number())]
    names = [field.partition(b"=")[0].upper() for field in fields]
    place = next((names.index(name) for name in _NAMES if name in names), None)
    if place is None:
        place = len(fields)
        fields.append(b"COMMENT=")
    name, _, old = fields[place].partition(b"=")
    new = change(old.decode("utf-8", "surrogateescape"))
    fields[place] = name + b"=" + new.encode("utf-8", "surrogateescape")
    parts = [_sized(vendor), struct.pack("<I", len(fields)), *map(_sized, fields), data[at:]]
    return b"".join(parts)


def _sized(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text
