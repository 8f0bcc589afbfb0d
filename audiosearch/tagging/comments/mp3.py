"""MP3 files: the comment is the frame ``COMM`` of the ID3v2 tag before the sound.

All other frames stay as they are. A file that has no such tag gets one of version 2.3, with what
its ID3v1 tag says, because players that find the one do not look for the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from audiosearch.tagging.comments.pieces import Piece, Span, UntouchableError, length_of, read_at

__all__ = ["pieces"]

_UNSYNCHRONISED, _EXTENDED, _FOOTER = 0x80, 0x40, 0x10
_NAME = re.compile(rb"[A-Z0-9]{3,4}")
_ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")
_OLD = UntouchableError("Its ID3 tag is built in a way that is not known here; it is not touched.")


@dataclass
class _Tag:
    """An ID3v2 tag: `frames` as they stand in the file, `end` where the sound begins."""

    version: int = 3
    flags: int = 0
    frames: list[bytes] = field(default_factory=list)
    padding: int = 0
    end: int = 0


def pieces(file: BinaryIO, change: Callable[[str], str]) -> Iterator[Piece]:
    """Yield the file with another comment."""
    head = read_at(file, 0, 10)
    if head[:3] == b"ID3":
        tag = _read(file, head)
    elif head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        tag = _Tag(frames=_of_version_1(file))
    else:
        raise UntouchableError("It does not begin as an mp3 file does, so it is not touched.")
    _set_comment(tag, change)
    body = b"".join(tag.frames) + b"\0" * tag.padding
    if len(body) >= 1 << 28:
        raise UntouchableError("Its ID3 tag has no room for tags.")
    yield b"ID3" + bytes([tag.version, 0, tag.flags]) + _syncsafe(len(body)) + body
    yield Span(tag.end, length_of(file))


def _read(file: BinaryIO, head: bytes) -> _Tag:
    version, flags, size = head[3], head[5], _number(head[6:10], 7)
    tag = _Tag(version, flags & _UNSYNCHRONISED, end=10 + size)
    if version not in (2, 3, 4) or (version == 2 and flags & _EXTENDED):
        raise _OLD
    body = read_at(file, 10, size)
    if version < 4 and tag.flags:
        # Here the whole tag is written so; from version 2.4 on, each frame is.
        body, tag.flags = _synchronised(body), 0
    if flags & _EXTENDED:  # not kept: it holds a checksum of what is changed
        length = 4 + _number(body[:4], 8) if version == 3 else _number(body[:4], 7)
        body = body[length:]
    if flags & _FOOTER:
        tag.end += 10
    width = 3 if version == 2 else 4
    at = 0
    while at < len(body) and body[at]:
        name = body[at : at + width]
        length = _number(body[at + width : at + 2 * width], 7 if version == 4 else 8)
        end = at + (6 if version == 2 else 10) + length
        if not _NAME.fullmatch(name) or end > len(body):
            raise _OLD
        tag.frames.append(body[at:end])
        at = end
    if body[at:].strip(b"\0"):
        raise _OLD
    tag.padding = len(body) - at
    return tag


@dataclass(frozen=True)
class _Comment:
    """Where an ID3v2 tag has the comment, and how it is written there."""

    place: int
    name: bytes
    language: bytes
    encoding: int
    description: str
    text: str


def _set_comment(tag: _Tag, change: Callable[[str], str]) -> None:
    """Change the comment, or add one."""
    old = _comment(tag)
    body = _encoded(old.description, change(old.text), old.encoding, tag.version)
    data = body[:1] + old.language + body[1:]
    if tag.version == 2:
        frame = old.name + len(data).to_bytes(3, "big") + data
    else:
        size = _syncsafe(len(data)) if tag.version == 4 else len(data).to_bytes(4, "big")
        frame = old.name + size + b"\0\0" + data
    tag.frames[old.place : old.place + 1] = [frame]


def _comment(tag: _Tag) -> _Comment:
    """Return the comment: the one without a description, else what FFmpeg writes as such."""
    name, other = (b"COM", b"TXX") if tag.version == 2 else (b"COMM", b"TXXX")
    for wanted, language, description in ((name, 3, ""), (other, 0, "comment")):
        for place, frame in enumerate(tag.frames):
            if not frame.startswith(wanted):
                continue
            data = _contents(tag, frame)
            found, text = _texts(data[:1] + data[1 + language :])
            if found.lower() == description:
                return _Comment(place, wanted, data[1 : 1 + language], data[0], found, text)
    return _Comment(len(tag.frames), name, b"eng", 0, "", "")


def _contents(tag: _Tag, frame: bytes) -> bytes:
    if tag.version == 2:
        return frame[6:]
    data, form = frame[10:], frame[9]
    if tag.version == 4 and not form & 0x0C:
        data = data[4:] if form & 0x01 else data  # its length, once more
        return _synchronised(data) if (form & 0x02 or tag.flags) else data
    if form:
        raise _OLD  # compressed or encrypted
    return data


def _texts(data: bytes) -> tuple[str, str]:
    """Return description and text, which stand behind the number of their encoding."""
    if len(data) < 2 or data[0] >= len(_ENCODINGS):
        raise _OLD
    encoding, rest = _ENCODINGS[data[0]], data[1:]
    step = 2 if data[0] in (1, 2) else 1
    ends = (at for at in range(0, len(rest), step) if rest[at : at + step] == b"\0" * step)
    end = next(ends, None)
    if end is None:
        raise _OLD
    try:
        description, text = rest[:end].decode(encoding), rest[end + step :].decode(encoding)
    except UnicodeDecodeError:
        raise _OLD from None
    return description.strip("\ufeff"), text.rstrip("\0")


def _encoded(description: str, text: str, encoding: int, version: int) -> bytes:
    """Return the number of an encoding, description and text; never bytes that look like sound."""
    try:
        plain = f"{description}\0{text}".encode("latin-1")
    except UnicodeEncodeError:
        plain = b"\xff"
    if encoding == 0 and b"\xff" not in plain:
        return b"\0" + plain
    if version == 4:
        return b"\3" + f"{description}\0{text}".encode()
    return b"\1\xff\xfe" + f"{description}\0\ufeff{text}".encode("utf-16-le")


def _of_version_1(file: BinaryIO) -> list[bytes]:
    """Return what an ID3v1 tag says as frames of version 2.3."""
    length = length_of(file)
    data = read_at(file, length - 128, 128) if length > 128 else b""
    if data[:3] != b"TAG":
        return []
    comment, track, genre = data[97:127], b"", data[127]
    if comment[28] == 0 and comment[29]:
        comment, track = comment[:28], str(comment[29]).encode()
    texts = {
        b"TIT2": data[3:33],
        b"TPE1": data[33:63],
        b"TALB": data[63:93],
        b"TYER": data[93:97],
        b"TRCK": track,
        b"TCON": f"({genre})".encode() if genre < 192 else b"",
    }
    frames = [(name, b"\0" + _until_zero(text)) for name, text in texts.items()]
    frames.append((b"COMM", b"\0eng\0" + _until_zero(comment)))
    return [
        name + len(body).to_bytes(4, "big") + b"\0\0" + body
        for name, body in frames
        if len(body) > (5 if name == b"COMM" else 1)
    ]


def _until_zero(text: bytes) -> bytes:
    return text.partition(b"\0")[0].rstrip(b" ")


def _synchronised(data: bytes) -> bytes:
    return data.replace(b"\xff\0", b"\xff")


def _number(data: bytes, bits: int) -> int:
    value = 0
    for byte in data:
        if byte >> bits:
            raise _OLD
        value = value << bits | byte
    return value


def _syncsafe(value: int) -> bytes:
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))
