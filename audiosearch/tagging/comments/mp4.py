"""M4A files: the comment is the item ``©cmt`` of ``moov.udta.meta.ilst``.

The box ``moov`` is written anew. Where it stands before the sound, the places of the sound's chunks
that it names are moved with them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from audiosearch.tagging.comments.pieces import Piece, Span, UntouchableError, length_of, read_at

__all__ = ["pieces"]

_COMMENT = b"\xa9cmt"
_DAMAGED = UntouchableError("Its boxes are damaged, so it is not touched.")
_TEXT = 1  # UTF-8
# What a new box of metadata begins with: its version, and who can read it.
_NEW_META = bytes(4) + struct.pack(">I4s8x4s4s9x", 33, b"hdlr", b"mdir", b"appl")
_LARGEST = 0xFFFFFFFF


def pieces(file: BinaryIO, change: Callable[[str], str]) -> Iterator[Piece]:
    """Yield the file with another comment."""
    length = length_of(file)
    places = list(_top(file, length))
    names = [name for name, _, _ in places]
    if names.count(b"moov") != 1 or names[0] != b"ftyp":
        raise UntouchableError("It is no plain m4a file, so it is not touched.")
    if b"moof" in names:
        raise UntouchableError("It is written in fragments, so it is not touched.")
    _, start, end = places[names.index(b"moov")]
    whole = read_at(file, start, end - start)
    if whole[:4] == bytes(4):  # "up to the end of the file"
        whole = struct.pack(">I", len(whole)) + whole[4:]
    ((_, body),) = _boxes(whole)
    new = _with_comment(body, change)
    shift = len(_box(b"moov", new)) - (end - start)
    yield Span(0, start)
    yield _box(b"moov", _moved(new, end, shift))
    yield Span(end, length)


def _top(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each box of the file."""
    at = 0
    while at < length:
        size, name = struct.unpack(">I4s", read_at(file, at, 8))
        if size == 1:
            (size,) = struct.unpack(">Q", read_at(file, at + 8, 8))
        end = at + size if size else length
        if (size and size < 8) or end > length:
            raise _DAMAGED
        yield name, at, end
        at = end


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and contents of each box in `data`."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if size < head or at + size > len(data):
            raise _DAMAGED
        yield name, data[at + head : at + size]
        at += size
    if data[at:].strip(b"\0"):  # some boxes end with a zero number
        raise _DAMAGED


def _box(name: bytes, body: bytes) -> bytes:
    if len(body) + 8 > _LARGEST:
        raise _DAMAGED
    return struct.pack(">I4s", len(body) + 8, name) + body


def _child(body: bytes, name: bytes, new: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return boxes with the first one called `name` changed; with one made of `new` if none is."""
    parts, found = [], False
    for each, inside in _boxes(body):
        if each == name and not found:
            inside, found = change(inside), True
        parts.append(_box(each, inside))
    if not found:
        parts.append(_box(name, change(new)))
    return b"".join(parts)


def _with_comment(moov: bytes, change: Callable[[str], str]) -> bytes:
    def item(data: bytes) -> bytes:
        old = next((inside for name, inside in _boxes(data) if name == b"data"), bytes(8))
        text = change(old[8:].decode("utf-8", "surrogateescape"))
        return _box(b"data", struct.pack(">II", _TEXT, 0) + text.encode("utf-8", "surrogateescape"))

    def items(data: bytes) -> bytes:
        return _child(data, _COMMENT, b"", item)

    def meta(data: bytes) -> bytes:
        # QuickTime's own kind of this box has no version in front.
        head = 0 if data[4:8] == b"hdlr" else 4
        return data[:head] + _child(data[head:], b"ilst", b"", items)

    def user_data(data: bytes) -> bytes:
        return _child(data, b"meta", _NEW_META, meta)

    return _child(moov, b"udta", b"", user_data)


def _moved(moov: bytes, behind: int, shift: int) -> bytes:
    """Return a ``moov`` whose chunks from `behind` on lie `shift` bytes later."""
    parts = []
    for name, inside in _boxes(moov):
        if name in (b"trak", b"mdia", b"minf", b"stbl"):
            inside = _moved(inside, behind, shift)
        elif name in (b"stco", b"co64"):
            inside = _moved_places(inside, ">I" if name == b"stco" else ">Q", behind, shift)
        parts.append(_box(name, inside))
    return b"".join(parts)


def _moved_places(data: bytes, form: str, behind: int, shift: int) -> bytes:
    (count,) = struct.unpack_from(">I", data, 4) if len(data) >= 8 else (0,)
    size = struct.calcsize(form)
    if len(data) < 8 + count * size:
        raise _DAMAGED
    places = [place for (place,) in struct.iter_unpack(form, data[8 : 8 + count * size])]
    moved = [place + shift if place >= behind else place for place in places]
    if size == 4 and any(place > _LARGEST for place in moved):
        raise UntouchableError("An m4a file of 4 GB has no room for tags.")
    return data[:8] + struct.pack(f">{count}{form[1]}", *moved) + data[8 + count * size :]
