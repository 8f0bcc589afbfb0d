"""Ogg Vorbis and Opus: the comment is in the second packet, which is put into pages anew.

Where that takes more or fewer pages than before, those behind are numbered anew, which changes
their checksums too; the packets of sound stay as they are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from audiosearch.tagging.comments.pieces import Piece, Span, UntouchableError, length_of, read_at
from audiosearch.tagging.comments.vorbis import changed_comments

__all__ = ["pieces"]

_HEAD = struct.Struct("<4sBBqIIIB")  # magic, version, flags, time, stream, number, CRC, segments
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_SEGMENTS = 255
# How the first packet begins, how the second does, and how many there are before the sound.
_KINDS = ((b"\x01vorbis", b"\x03vorbis", 2), (b"OpusHead", b"OpusTags", 1))
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Page:
    start: int
    end: int
    flags: int
    time: int
    stream: int
    number: int
    lacing: bytes

    @property
    def body(self) -> int:
        return self.start + _HEAD.size + len(self.lacing)


def pieces(file: BinaryIO, change: Callable[[str], str]) -> Iterator[Piece]:
    """Yield the file with another comment in its first stream."""
    first = _page(file, 0)
    begin = read_at(file, first.body, first.end - first.body)
    kind = next((each for each in _KINDS if begin.startswith(each[0])), None)
    if kind is None or not first.flags & _FIRST:
        raise UntouchableError("It is neither Ogg Vorbis nor Opus, so it is not touched.")
    _, marker, count = kind
    packets, at, old = _headers(file, first, count)
    if not packets[0].startswith(marker):
        raise UntouchableError("Its comments are damaged, so it is not touched.")
    packets[0] = marker + changed_comments(packets[0][len(marker) :], change)
    yield Span(0, first.end)
    new = list(_pages(packets, first.stream, first.number + 1))
    yield from new
    if len(new) == old:
        yield Span(at, length_of(file))
        return
    yield from _renumbered(file, at, first.stream, len(new) - old)


def _headers(file: BinaryIO, first: _Page, count: int) -> tuple[list[bytes], int, int]:
    """Return `count` packets after the first page, where they end, and how many pages they take."""
    packets, held, at, pages = list[bytes](), b"", first.end, 0
    while len(packets) < count or held:
        page = _page(file, at)
        if page.stream != first.stream or page.flags & _FIRST:
            raise UntouchableError("It holds several streams, so it is not touched.")
        data, place = read_at(file, page.body, page.end - page.body), 0
        for length in page.lacing:
            held += data[place : place + length]
            place += length
            if length < _SEGMENTS:
                packets.append(held)
                held = b""
        at, pages = page.end, pages + 1
        if len(packets) > count:
            raise UntouchableError("Its headers do not end with a page, so it is not touched.")
    return packets, at, pages


def _renumbered(file: BinaryIO, at: int, stream: int, shift: int) -> Iterator[Piece]:
    """Yield the pages of a stream with other numbers, and what follows as it is."""
    length = length_of(file)
    while at < length:
        page = _page(file, at)
        at = page.end
        if page.stream != stream:
            yield Span(page.start, page.end)
            continue
        number = (page.number + shift) % (1 << 32)
        data = read_at(file, page.body, page.end - page.body)
        yield _page_bytes(page.flags, page.time, stream, number, page.lacing, data)
        if page.flags & _LAST:
            yield Span(at, length)
            return


def _page(file: BinaryIO, at: int) -> _Page:
    head = read_at(file, at, _HEAD.size)
    magic, version, flags, time, stream, number, _, segments = _HEAD.unpack(head)
    if magic != b"OggS" or version:
        raise UntouchableError("Its pages are damaged, so it is not touched.")
    lacing = read_at(file, at + _HEAD.size, segments)
    end = at + _HEAD.size + segments + sum(lacing)
    return _Page(at, end, flags, time, stream, number, lacing)


def _pages(packets: Sequence[bytes], stream: int, number: int) -> Iterator[bytes]:
    """Yield pages that hold packets of headers."""
    lacing = b"".join(
        b"\xff" * (len(packet) // _SEGMENTS) + bytes([len(packet) % _SEGMENTS])
        for packet in packets
    )
    data, place = b"".join(packets), 0
    for first in range(0, len(lacing), _SEGMENTS):
        part = lacing[first : first + _SEGMENTS]
        goes_on = first > 0 and lacing[first - 1] == _SEGMENTS
        time = 0 if min(part) < _SEGMENTS else -1  # no packet ends in the page
        body = data[place : place + sum(part)]
        place += len(body)
        yield _page_bytes(_CONTINUED if goes_on else 0, time, stream, number, part, body)
        number += 1


def _page_bytes(
    flags: int, time: int, stream: int, number: int, lacing: bytes, data: bytes
) -> bytes:
    head = _HEAD.pack(b"OggS", 0, flags, time, stream, number, 0, len(lacing))
    page = head + lacing + data
    return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


def _checksum(page: bytes) -> int:
    """Return Ogg's CRC-32: zlib's, but with mirrored bits, and without inverting any."""
    crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
