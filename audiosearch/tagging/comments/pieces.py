"""A changed file, as pieces of the old one and new bytes between them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Piece", "Span", "UntouchableError", "copy_pieces", "length_of", "read_at"]

_BLOCK = 1 << 20


class UntouchableError(Exception):
    """A file is better left as it is; the text says why."""


@dataclass(frozen=True)
class Span:
    """Bytes of the old file, from `start` to before `end`."""

    start: int
    end: int


Piece = bytes | Span


def length_of(file: BinaryIO) -> int:
    """Return a file's length in bytes."""
    return os.fstat(file.fileno()).st_size


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Return `count` bytes from `start`.

    Raises
    ------
    UntouchableError
        When the file ends before.
    """
    file.seek(start)
    data = file.read(count) if start + count <= length_of(file) else b""
    if len(data) < count:
        raise UntouchableError("It is cut off.")
    return data


def copy_pieces(source: BinaryIO, result: BinaryIO, pieces: Iterable[Piece]) -> None:
    """Write pieces one after another; memory does not depend on their length.

    Raises
    ------
    UntouchableError
        When the file became shorter meanwhile.
    """
    for piece in pieces:
        if isinstance(piece, bytes):
            result.write(piece)
            continue
        at = piece.start
        while at < piece.end:
            data = read_at(source, at, min(piece.end - at, _BLOCK))
            result.write(data)
            at += len(data)
