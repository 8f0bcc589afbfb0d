"""Stretches of a sound file, written as files of their own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.decoders import RefusedError, is_mpeg_audio, read_libav
from audiosearch.errors import AudioDecodeError
from audiosearch.storage import atomic_path, storage_errors
from audiosearch.tagging.exports import file_safe

__all__ = ["Cuts"]

_BLOCK = 1 << 16
# Subtypes of libsndfile that hold more than 16 bits.
_FINE = {"PCM_24": "PCM_24", "PCM_32": "PCM_32", "FLOAT": "FLOAT", "DOUBLE": "DOUBLE"}


@dataclass(frozen=True)
class Cuts:
    """A chore: write parts of a file as WAV files, at the rate of the original.

    What libsndfile reads keeps its channels and the depth of its samples; of what only FFmpeg reads
    (and of MPEG audio) the mean of the channels is written, with 16 bits.

    Attributes
    ----------
    path : str
        The sound file.
    folder : str
        Where a folder for each class is made.
    parts : tuple of (start, end, label)
        In seconds.
    """

    path: str
    folder: str
    parts: tuple[tuple[float, float, str], ...]

    def perform(self) -> None:
        """Write the files.

        Raises
        ------
        AudioDecodeError
            When the sound cannot be read, or the files not be written.
        """
        for start, end, label in self.parts:
            target = Path(self.folder) / file_safe(label) / self._name(start, end)
            with storage_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as temporary:
                _write(self.path, start, end, temporary)

    def _name(self, start: float, end: float) -> str:
        # Files of one name in different folders must not meet.
        mark = hashlib.sha256(os.fsencode(os.path.abspath(self.path))).hexdigest()[:6]  # noqa: PTH100
        return f"{os.path.basename(self.path)}-{mark}_{start:.3f}-{end:.3f}.wav"  # noqa: PTH119


def _write(path: str, start: float, end: float, target: Path) -> None:
    import soundfile

    found = None
    if not is_mpeg_audio(path):
        try:
            # As bytes: libsndfile's binding refuses names that are no valid text.
            found = soundfile.SoundFile(os.fsencode(path))
        except (soundfile.SoundFileError, OSError):
            found = None
    if found is not None and not found.seekable():  # GSM in wav
        found.close()
        found = None
    if found is not None:
        with found as source:
            first = round(start * source.samplerate)
            count = round(end * source.samplerate) - first
            source.seek(first)
            fine = _FINE.get(source.subtype, "PCM_16")
            _save(target, source.samplerate, source.channels, fine, _read(source, count))
        return
    try:
        blocks = read_libav(path, start, end)
        rate, block = next(blocks, (0, np.empty(0, np.float32)))
    except RefusedError as error:
        raise AudioDecodeError(path, f"No decoder could read it ({error}).") from error
    if not block.size:
        raise AudioDecodeError(path, f"There is no sound after {start:g} s.")

    def all_blocks() -> Iterator[np.ndarray]:
        yield block
        for other, more in blocks:
            if other != rate:  # a stream that changes its rate ends the cut
                return
            yield more

    _save(target, rate, 1, "PCM_16", all_blocks())


def _read(source: Any, count: int) -> Iterator[np.ndarray]:
    """Yield at most `count` frames; `blocks` would fill up with whatever was in the memory."""
    while count > 0:
        block = source.read(min(count, _BLOCK), dtype="float64", always_2d=True)
        if not len(block):
            return
        count -= len(block)
        yield block


def _save(
    target: Path, rate: int, channels: int, subtype: str, blocks: Iterator[np.ndarray]
) -> None:
    import soundfile

    with soundfile.SoundFile(
        os.fsencode(target), "w", rate, channels, subtype, format="WAV"
    ) as file:
        for block in blocks:
            file.write(block)
    if subtype in ("FLOAT", "DOUBLE"):
        _forget_the_time(target)


def _forget_the_time(path: Path) -> None:
    """Clear the time in a wav file's chunk ``PEAK``: the same sound is the same file."""
    with path.open("r+b") as file:
        at = file.read(256).find(b"PEAK")
        if at >= 0:
            file.seek(at + 12)  # behind its name, its size and its version
            file.write(bytes(4))
