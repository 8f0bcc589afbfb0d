"""WAV files: the comment is the text ``ICMT`` of the chunk ``LIST`` ``INFO``."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from audiosearch.tagging.comments.pieces import Piece, Span, UntouchableError, length_of, read_at

__all__ = ["pieces"]

_LARGEST = 0xFFFFFFFF - 8


def pieces(file: BinaryIO, change: Callable[[str], str]) -> Iterator[Piece]:
    """Yield the file with another comment; a new list of texts comes after all chunks."""
    texts: list[tuple[bytes, bytes]] = []
    body: list[Piece] = []
    place = None
    for name, size, at in _chunks(file):
        if name == b"LIST" and read_at(file, at, min(size, 4)) == b"INFO":
            texts.extend(_texts(read_at(file, at + 4, size - 4)))
            place = len(body) if place is None else place
            continue
        body.append(Span(at - 8, at + size))
        if size % 2:
            body.append(b"\0")
    comment = b"".join(text for name, text in texts if name == b"ICMT").rstrip(b"\0")
    new = change(comment.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    kept = [(name, text) for name, text in texts if name != b"ICMT"]
    listed = b"INFO" + b"".join(map(_chunk, *zip(*kept, (b"ICMT", new + b"\0"), strict=True)))
    body.insert(len(body) if place is None else place, _chunk(b"LIST", listed))
    length = 4 + sum(len(p) if isinstance(p, bytes) else p.end - p.start for p in body)
    if length > _LARGEST:
        raise UntouchableError("A wav file of 4 GB has no room for tags.")
    yield b"RIFF" + struct.pack("<I", length) + b"WAVE"
    yield from body


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, size and place of each chunk; refuse a file whose chunks do not add up."""
    odd = UntouchableError("Its header does not fit its contents, so it is not touched.")
    length = length_of(file)
    head = read_at(file, 0, 12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise UntouchableError("It is no plain wav file.")
    if struct.unpack("<I", head[4:8])[0] + 8 not in (length, length - length % 2):
        raise odd
    at = 12
    while at < length:
        if at + 8 > length:
            raise odd
        name, size = struct.unpack("<4sI", read_at(file, at, 8))
        if at + 8 + size > length:
            raise odd
        yield name, size, at + 8
        at += 8 + size + size % 2


def _texts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while len(data) >= 8:
        size = struct.unpack("<I", data[4:8])[0]
        yield data[:4], data[8 : 8 + size]
        data = data[8 + size + size % 2 :]
