"""AudioSet's embeddings as Google released them: TFRecord files of SequenceExamples.

TensorFlow is not needed. A file is a row of records, each framed by its length (8 bytes, little
endian), a checksum of the length, the payload, and a checksum of the payload; all checksums are
verified. A payload is a protocol buffer, ``tensorflow.SequenceExample``:

=================== ======================= =======================================
context             ``video_id``            one text
context             ``start_time_seconds``  one float
context             ``end_time_seconds``    one float
context             ``labels``              class indices, 0 to 526
feature list        ``audio_embedding``     128 bytes a frame of 0.96 s
=================== ======================= =======================================

How many frames a clip has is not checked here: the clips of AudioSet have 10, a few have fewer.
`audiosearch.pack` leaves out a clip without frames, and says so, and takes the first 10 frames of
a clip with more, since a packed row has room for 10.

Formats: https://www.tensorflow.org/tutorials/load_data/tfrecord,
https://protobuf.dev/programming-guides/encoding/, https://research.google.com/audioset/.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.crc32c import masked_crc32c
from audiosearch.datasets.packed import FRAME_VALUES
from audiosearch.errors import DataError, printable
from audiosearch.labels import CLASS_COUNT

__all__ = ["TFRECORD_SUFFIXES", "ReleasedClip", "read_clips", "read_records"]

TFRECORD_SUFFIXES = (".tfrecord", ".tfrecords")

# A clip of 10 frames takes 1.5 kB; what is far longer is none.
_LONGEST_RECORD = 1 << 26
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")

# Wire types of protocol buffers.
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_KINDS = {_BYTES_LIST: "bytes", _FLOAT_LIST: "floats", _INT64_LIST: "integers"}
_WIRES = {_BYTES_LIST: _BYTES, _FLOAT_LIST: _FOUR_BYTES, _INT64_LIST: _VARINT}

Feature = tuple[int, list[bytes]]


@dataclass(frozen=True)
class ReleasedClip:
    """One clip of AudioSet.

    Attributes
    ----------
    video_id : str
        YouTube's id.
    start, end : float
        Where the clip lies in the video, in seconds.
    labels : tuple of int
        Class indices.
    frames : uint8 (n, 128)
        Its embedding; n is 10 for most clips.
    """

    video_id: str
    start: float
    end: float
    labels: tuple[int, ...]
    frames: npt.NDArray[np.uint8]


class _WireError(ValueError):
    """A payload is not what it should be; the text completes "record 3 ..."."""


def read_clips(path: str | os.PathLike[str], *, skip: int = 0) -> Iterator[ReleasedClip]:
    """Yield the clips of a file.

    Parameters
    ----------
    path : path-like
        The file.
    skip : int
        How many records to pass over first, unread.

    Raises
    ------
    DataError
        When the file is missing, truncated, damaged, or not of this layout; the message names the
        record, counted from 0.
    """
    for number, payload in enumerate(read_records(path, skip=skip), start=skip):
        try:
            clip = _parse_clip(payload)
        except _WireError as error:
            raise _error(path, number, str(error)) from None
        yield clip


def read_records(path: str | os.PathLike[str], *, skip: int = 0) -> Iterator[bytes]:
    """Yield the payloads of any TFRecord file that is not compressed; as `read_clips`."""
    try:
        with Path(path).open("rb") as file:
            yield from _records(file, path, skip)
    except FileNotFoundError:
        raise DataError(f"{printable(os.fspath(path))}: there is no such file.") from None
    except OSError as error:
        raise DataError(
            f"{printable(os.fspath(path))} cannot be read: {error.strerror or error}."
        ) from error


def _records(file: BinaryIO, path: str | os.PathLike[str], skip: int) -> Iterator[bytes]:
    left = os.fstat(file.fileno()).st_size
    number = 0
    while head := file.read(_LENGTH.size + _CRC.size):
        left -= len(head)
        if len(head) < _LENGTH.size + _CRC.size:
            raise _error(path, number, "is cut off: the file is truncated")
        if masked_crc32c(head[: _LENGTH.size]) != _CRC.unpack_from(head, _LENGTH.size)[0]:
            what = "begins with a wrong checksum: "
            what += (
                "the file is damaged" if number else "this is no TFRecord file, or a damaged one"
            )
            raise _error(path, number, what)
        (length,) = _LENGTH.unpack_from(head)
        if length + _CRC.size > left:
            raise _error(path, number, "is cut off: the file is truncated")
        if length > _LONGEST_RECORD:
            raise _error(path, number, f"has {length:,} bytes, far too many for a clip")
        left -= length + _CRC.size
        if number < skip:
            file.seek(length + _CRC.size, os.SEEK_CUR)
        else:
            body = file.read(length + _CRC.size)
            if len(body) < length + _CRC.size:
                raise _error(path, number, "is cut off: the file is truncated")
            payload = body[:length]
            if masked_crc32c(payload) != _CRC.unpack_from(body, length)[0]:
                raise _error(path, number, "does not match its checksum: the file is damaged")
            yield payload
        number += 1


def _error(path: str | os.PathLike[str], number: int, what: str) -> DataError:
    return DataError(
        f"{printable(os.fspath(path))}: record {number} {what}. Download or copy the file again."
    )


def _parse_clip(payload: bytes) -> ReleasedClip:
    context: dict[bytes, Feature] = {}
    lists: dict[bytes, list[Feature]] = {}
    for number, value in _messages(payload):
        # Both are maps: entries of a key and a value. Of equal keys the last one holds.
        if number == 1:
            for key, entry in _entries(value):
                context[key] = _feature(entry)
        elif number == 2:
            for key, entry in _entries(value):
                lists[key] = [_feature(part) for field, part in _messages(entry) if field == 1]
    if b"audio_embedding" not in lists:
        found = ", ".join(sorted(_text(key) for key in (*context, *lists))) or "nothing"
        raise _WireError(
            f"has no feature list 'audio_embedding', so it is none of AudioSet ({found})"
        )
    frames = []
    for feature in lists[b"audio_embedding"]:
        values = _values(feature, "audio_embedding", _BYTES_LIST)
        if len(values) != 1 or len(values[0]) != FRAME_VALUES:
            raise _WireError(f"has a frame that is not {FRAME_VALUES} bytes long")
        frames.append(values[0])
    start, end = (
        _float(_one(context, name, _FLOAT_LIST))
        for name in ("start_time_seconds", "end_time_seconds")
    )
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end):
        raise _WireError(f"lies from {start:g} to {end:g} s, which cannot be")
    if b"labels" not in context:
        raise _WireError("has no 'labels'")
    labels = tuple(map(_signed, _values(context[b"labels"], "labels", _INT64_LIST)))
    for label in labels:
        if not 0 <= label < CLASS_COUNT:
            raise _WireError(
                f"has the label {label}; AudioSet's classes are 0 to {CLASS_COUNT - 1}"
            )
    return ReleasedClip(
        _text(_one(context, "video_id", _BYTES_LIST)),
        start,
        end,
        labels,
        np.frombuffer(b"".join(frames), np.uint8).reshape(-1, FRAME_VALUES),
    )


def _one(context: dict[bytes, Feature], name: str, kind: int) -> bytes:
    if name.encode() not in context:
        raise _WireError(f"has no '{name}'")
    values = _values(context[name.encode()], name, kind)
    if len(values) != 1:
        raise _WireError(f"has {len(values)} values of '{name}' instead of one")
    return values[0]


def _values(feature: Feature, name: str, kind: int) -> list[bytes]:
    # A feature without a kind is an empty list of any.
    if feature[0] not in (kind, 0):
        raise _WireError(f"has {_KINDS[feature[0]]} as '{name}' instead of {_KINDS[kind]}")
    return feature[1]


def _feature(message: bytes) -> Feature:
    """Return the kind of a feature and its values, as bytes; of several kinds the last holds."""
    kind = 0
    values: list[bytes] = []
    for number, content in _messages(message):
        if number not in _KINDS:
            continue
        if number != kind:
            kind, values = number, []
        for field, wire, value in _fields(content):
            if field != 1:
                continue
            if wire == _WIRES[kind]:
                values.append(value)
            elif kind == _FLOAT_LIST and wire == _BYTES:  # packed, as the next
                if len(value) % 4:
                    raise _WireError("cannot be parsed: a list of floats is cut off")
                values.extend(value[i : i + 4] for i in range(0, len(value), 4))
            elif kind == _INT64_LIST and wire == _BYTES:
                place = 0
                while place < len(value):
                    begin = place
                    _, place = _varint(value, place)
                    values.append(value[begin:place])
    return kind, values


def _entries(message: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a map of messages that is the message's first field."""
    for number, entry in _messages(message):
        if number == 1:
            parts = {1: b"", 2: b""}
            parts.update(_messages(entry))
            yield parts[1], parts[2]


def _messages(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the fields that hold bytes, text or messages."""
    for number, wire, value in _fields(message):
        if wire == _BYTES:
            yield number, value


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, wire type and content of a message's fields."""
    place, size = 0, len(message)
    while place < size:
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        begin = place
        if wire == _BYTES:
            length, begin = _varint(message, place)
            place = begin + length
        elif wire == _VARINT:
            _, place = _varint(message, place)
        elif wire == _FOUR_BYTES:
            place += 4
        elif wire == _EIGHT_BYTES:
            place += 8
        else:
            raise _WireError(f"cannot be parsed: it has a field of type {wire}")
        if place > size or number == 0:
            raise _WireError("cannot be parsed: a field does not fit")
        yield number, wire, message[begin:place]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it."""
    result = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, place
        shift += 7
        if shift > 63:
            break
    raise _WireError("cannot be parsed: a number is cut off")


def _signed(varint: bytes) -> int:
    value, _ = _varint(varint, 0)
    return value - (1 << 64) if value >> 63 else value


def _float(value: bytes) -> float:
    return float(struct.unpack("<f", value)[0])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
