"""Tags inside sound files: the names of the classes, in the file's comment.

A file's comment keeps what it said; the classes stand behind it as ``[audiosearch: Dog; Bark]``,
and replace those of an earlier run. The sound itself stays the same, byte for byte. That is
checked before the new file takes the old one's place:

- WAV: all chunks are copied as they are, but for the list of texts (``LIST`` ``INFO``), which comes
  last. Broadcast, cue and sampler chunks stay.
- FLAC, MP3, Ogg Vorbis, Opus, M4A: FFmpeg's libraries (PyAV) copy the packets. Files with a cover
  picture or more than one stream are refused, because a copy might lose some of that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from audiosearch.errors import AudioDecodeError, StorageError
from audiosearch.storage import atomic_path

__all__ = ["FileTags", "with_classes"]

_OURS = re.compile(r"\s*\[audiosearch: [^\]]*\]")
_REMUXED = (".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus")
_STREAM_TEXTS = (".oga", ".ogg", ".opus")
_LARGEST = 0xFFFFFFFF - 8


@dataclass(frozen=True)
class FileTags:
    """A chore: write the names of classes into a file's comment.

    Attributes
    ----------
    path : str
        The sound file.
    labels : tuple of str
        Names of classes, best first.
    """

    path: str
    labels: tuple[str, ...]

    def perform(self) -> tuple[int, int]:
        """Write them; return the file's new size and modification time in nanoseconds.

        Raises
        ------
        AudioDecodeError
            When the file cannot carry them, or cannot be written. It is left as it was.
        """
        # A link stays a link.
        target = Path(os.path.realpath(self.path))
        ending = target.suffix.lower()
        mode = target.stat().st_mode
        try:
            with contextlib.suppress(_AlreadyThereError), atomic_path(target) as temporary:
                if ending in (".wav", ".wave"):
                    _write_wav(self.path, temporary, self.labels)
                elif ending in _REMUXED:
                    _remux(self.path, temporary, self.labels, ending)
                else:
                    raise AudioDecodeError(
                        self.path, "Tags can be written into wav, flac, mp3, ogg, opus and m4a."
                    )
            target.chmod(mode)
        except StorageError as error:
            raise AudioDecodeError(self.path, str(error)) from error
        found = target.stat()
        return found.st_size, found.st_mtime_ns


class _AlreadyThereError(Exception):
    """The comment says this already: a file that has two names, or was written before a stop."""


def with_classes(comment: str, labels: tuple[str, ...]) -> str:
    """Return a comment with the names of classes behind it, in place of earlier ones."""
    return f"{_OURS.sub('', comment)} [audiosearch: {'; '.join(labels)}]".lstrip()


def _write_wav(path: str, target: Path, labels: tuple[str, ...]) -> None:
    texts: list[tuple[bytes, bytes]] = []
    with open(path, "rb") as source, target.open("wb") as result:  # noqa: PTH123
        result.write(b"RIFF\0\0\0\0WAVE")
        for name, size, at in _chunks(path, source):
            if name == b"LIST":
                source.seek(at)
                data = source.read(size)
                if data[:4] == b"INFO":
                    texts.extend(_texts(data[4:]))
                    continue
            source.seek(at - 8)
            _copy(source, result, 8 + size)
            if size % 2:
                result.write(b"\0")
        comment = b"".join(text for name, text in texts if name == b"ICMT").rstrip(b"\0")
        old = comment.decode("utf-8", "surrogateescape")
        new = with_classes(old, labels)
        if new == old:
            raise _AlreadyThereError
        kept = [(name, text) for name, text in texts if name != b"ICMT"]
        kept.append((b"ICMT", new.encode("utf-8", "surrogateescape") + b"\0"))
        body = b"INFO" + b"".join(
            name + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
            for name, text in kept
        )
        result.write(b"LIST" + struct.pack("<I", len(body)) + body)
        length = result.tell() - 8
        if length > _LARGEST:
            raise AudioDecodeError(path, "A wav file of 4 GB has no room for tags.")
        result.seek(4)
        result.write(struct.pack("<I", length))


def _chunks(path: str, file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, size and place of each chunk; refuse a file whose chunks do not add up."""
    odd = AudioDecodeError(path, "Its header does not fit its contents, so it is not touched.")
    length = os.fstat(file.fileno()).st_size
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise AudioDecodeError(path, "It is no plain wav file.")
    if struct.unpack("<I", head[4:8])[0] + 8 not in (length, length - length % 2):
        raise odd
    at = 12
    while at < length:
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            raise odd
        size = struct.unpack("<I", header[4:])[0]
        if at + 8 + size > length:
            raise odd
        yield header[:4], size, at + 8
        at += 8 + size + size % 2


def _texts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while len(data) >= 8:
        size = struct.unpack("<I", data[4:8])[0]
        yield data[:4], data[8 : 8 + size]
        data = data[8 + size + size % 2 :]


def _copy(source: BinaryIO, result: BinaryIO, count: int) -> None:
    while count:
        data = source.read(min(count, 1 << 20))
        if not data:
            raise OSError("the file became shorter")
        result.write(data)
        count -= len(data)


def _remux(path: str, target: Path, labels: tuple[str, ...], ending: str) -> None:
    import av

    named = target.with_name(target.name + ending)
    try:
        with av.open(path, metadata_errors="replace") as source:
            if len(source.streams) != 1 or source.streams[0].type != "audio":
                raise AudioDecodeError(
                    path, "It holds a picture or several streams, so it is not touched."
                )
            stream = source.streams.audio[0]
            texts = dict(source.metadata)
            inner = dict(stream.metadata)
            home = inner if ending in _STREAM_TEXTS else texts
            key = next((name for name in home if name.lower() == "comment"), "comment")
            old = home.get(key, "")
            home[key] = with_classes(old, labels)
            if home[key] == old:
                raise _AlreadyThereError
            options = {"movflags": "use_metadata_tags"} if ending == ".m4a" else {}
            with av.open(os.fspath(named), "w", options=options) as result:
                copy: Any = result.add_stream_from_template(stream)
                result.metadata.update(texts)
                copy.metadata.update(inner)
                for packet in source.demux(stream):
                    if packet.size:
                        packet.stream = copy
                        result.mux(packet)
        if _digest(path) != _digest(os.fspath(named)):
            raise AudioDecodeError(path, "A copy would change its sound, so it is not touched.")
        shutil.move(named, target)
    except (av.FFmpegError, ValueError) as error:
        raise AudioDecodeError(path, f"It cannot be copied with tags ({error}).") from error
    finally:
        named.unlink(missing_ok=True)


def _digest(path: str) -> tuple[int, str]:
    """Return the number of packets of sound in a file, and a SHA-256 over them."""
    import av

    count, digest = 0, hashlib.sha256()
    with av.open(path, metadata_errors="replace") as file:
        for packet in file.demux(file.streams.audio[0]):
            if packet.size:
                count += 1
                digest.update(bytes(packet))
    return count, digest.hexdigest()
