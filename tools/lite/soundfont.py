"""The recorded samples of a SoundFont 2 file, as WAV files.

A sample that is meant to be held is played through its loop for a few seconds and faded out, as a
synthesiser would. Source: SoundFont Technical Specification 2.04 (E-mu Systems).
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator

import numpy as np

__all__ = ["read_soundfont"]

_RECORD = struct.Struct("<20s5IBbHH")
_RIGHT, _READ_ONLY_MEMORY = 2, 0x8000
_HELD_SECONDS = 3.0
_FADE_SECONDS = 0.4
_SHORTEST_SECONDS = 0.05


def read_soundfont(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Read the samples of a SoundFont; of stereo pairs the left one.

    Parameters
    ----------
    content : bytes
        The file.

    Yields
    ------
    tuple of (str, bytes)
        Number and name of a sample with the ending ``.wav``, and a mono 16-bit WAV file.

    Raises
    ------
    ValueError
        When it is no SoundFont.
    """
    chunks = _chunks(content)
    if "smpl" not in chunks or "shdr" not in chunks:
        raise ValueError("a SoundFont without samples")
    samples = np.frombuffer(chunks["smpl"], "<i2", count=len(chunks["smpl"]) // 2)
    records = list(_RECORD.iter_unpack(chunks["shdr"]))[:-1]  # the last one marks the end
    for number, record in enumerate(records):
        name, start, end, loop_start, loop_end, rate = record[:6]
        kind = record[-1]
        if kind & _READ_ONLY_MEMORY or kind == _RIGHT or not 4000 <= rate <= 96000:
            continue
        if not start < end <= len(samples) or end - start < _SHORTEST_SECONDS * rate:
            continue
        sound = _held(samples[start:end], loop_start - start, loop_end - start, rate)
        title = name.split(b"\0")[0].decode("ascii", "replace").strip().replace("/", "-")
        yield f"{number:04d} {title}.wav", _wav(sound, rate)


def _chunks(content: bytes) -> dict[str, bytes]:
    """Return the innermost chunks of a RIFF file by name."""
    if content[:4] != b"RIFF" or content[8:12] != b"sfbk":
        raise ValueError("not a SoundFont")
    found: dict[str, bytes] = {}
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        if name == b"LIST":
            at += 12
            continue
        found[name.decode("ascii", "replace")] = content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return found


def _held(sound: np.ndarray, loop_start: int, loop_end: int, rate: int) -> np.ndarray:
    """Return the sound, played on through its loop where it has one near its end."""
    wanted = round(_HELD_SECONDS * rate)
    length = loop_end - loop_start
    if not 0 <= loop_start < loop_end <= len(sound) or length < 32 or len(sound) >= wanted:
        return sound
    rounds = -(-(wanted - loop_end) // length)
    held = np.concatenate([sound[:loop_end], np.tile(sound[loop_start:loop_end], rounds)])[:wanted]
    fade = round(_FADE_SECONDS * rate)
    faded = held.astype(np.float64)
    faded[-fade:] *= np.linspace(1.0, 0.0, fade)
    return np.rint(faded).astype(np.int16)


def _wav(sound: np.ndarray, rate: int) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(sound.astype("<i2").tobytes())
    return target.getvalue()
