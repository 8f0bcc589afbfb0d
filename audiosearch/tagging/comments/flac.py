"""FLAC files: the comment is in the metadata block of Vorbis comments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from audiosearch.tagging.comments.pieces import Piece, Span, UntouchableError, length_of, read_at
from audiosearch.tagging.comments.vorbis import changed_comments, new_comments

__all__ = ["pieces"]

_COMMENTS = 4
_LAST = 0x80
_LARGEST = (1 << 24) - 1


def pieces(file: BinaryIO, change: Callable[[str], str]) -> Iterator[Piece]:
    """Yield the file with another comment; a new block of comments comes after the first block."""
    if read_at(file, 0, 4) != b"fLaC":
        raise UntouchableError("It does not begin as a FLAC file does, so it is not touched.")
    at, last = 4, False
    blocks: list[tuple[int, Piece]] = []
    found = False
    while not last:
        head = read_at(file, at, 4)
        kind, last = head[0] & ~_LAST, bool(head[0] & _LAST)
        end = at + 4 + int.from_bytes(head[1:], "big")
        body: Piece = Span(at + 4, end)
        if kind == _COMMENTS and not found:
            body = changed_comments(read_at(file, at + 4, end - at - 4), change)
            found = True
        blocks.append((kind, body))
        at = end
    if not found:
        blocks.insert(1, (_COMMENTS, new_comments(change)))
    yield b"fLaC"
    for number, (kind, body) in enumerate(blocks, start=1):
        size = len(body) if isinstance(body, bytes) else body.end - body.start
        if size > _LARGEST:
            raise UntouchableError("Its comments have no room for tags.")
        yield bytes([kind | (_LAST if number == len(blocks) else 0)]) + size.to_bytes(3, "big")
        yield body
    yield Span(at, length_of(file))
