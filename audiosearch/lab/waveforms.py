"""Sounds as waveforms of one length, which is what features are computed from.

Any format, rate and number of channels: `audiosearch.audio` decodes to mono at 16 kHz. A sound that
is shorter than the clip length is repeated until it fills it, or followed by silence; of a longer
one, training takes the beginning, and prediction takes all of it in consecutive windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.audio import SAMPLE_RATE
from audiosearch.errors import InvalidArgumentError
from audiosearch.lab.sounds import LabelledSound

__all__ = ["SHORT", "ClipLength", "load_clip", "windows"]

SHORT = ("repeat", "pad")
_LONGEST = 60.0

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClipLength:
    """The length that every sound is brought to.

    Attributes
    ----------
    seconds : float
        From 0.05 to 60.
    short : str
        What happens to a shorter sound: ``repeat`` or ``pad`` (with silence, at its end).
    """

    seconds: float
    short: str = "repeat"

    def __post_init__(self) -> None:
        if not 0.05 <= self.seconds <= _LONGEST:
            raise InvalidArgumentError(
                f"A clip must be from 0.05 to {_LONGEST:g} s long, not {self.seconds:g} s."
            )
        if self.short not in SHORT:
            raise InvalidArgumentError(
                f"short must be one of {', '.join(SHORT)}, not '{self.short}'."
            )

    @property
    def samples(self) -> int:
        """How many samples at 16 kHz that is."""
        return round(self.seconds * SAMPLE_RATE)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)

    def fill(self, waveform: Floats) -> Floats:
        """Return a waveform of exactly this length: cut, repeated or padded."""
        if len(waveform) >= self.samples:
            return waveform[: self.samples]
        if self.short == "repeat":
            return np.tile(waveform, -(-self.samples // len(waveform)))[: self.samples]
        return np.pad(waveform, (0, self.samples - len(waveform)))


def load_clip(sound: LabelledSound, length: ClipLength) -> Floats:
    """Decode the beginning of a sound, no more than is needed, to float32 (samples,).

    Raises
    ------
    AudioError
        When it cannot be read.
    """
    blocks, count = [], 0
    for block in audio.stream(sound.path, start=sound.start, end=sound.end):
        blocks.append(block)
        count += len(block)
        if count >= length.samples:
            break
    return length.fill(np.concatenate(blocks))


def windows(path: str, length: ClipLength) -> Iterator[tuple[float, float, Floats]]:
    """Yield consecutive windows of a file as (start, end, waveform), in bounded memory.

    The last one is kept where at least half of it is sound, or it is the only one; its end is that
    of the sound.

    Raises
    ------
    AudioError
        When the file cannot be read.
    """
    held = np.empty(0, np.float32)
    for number in itertools.count():
        if number == 0:
            stream = audio.stream(path)
        parts, count = [held], len(held)
        while count < length.samples and (block := next(stream, None)) is not None:
            parts.append(block)
            count += len(block)
        held = np.concatenate(parts)
        if not len(held) or (number and len(held) < math.ceil(length.samples / 2)):
            return
        taken = held[: length.samples]
        begin = number * length.samples / SAMPLE_RATE
        yield begin, begin + len(taken) / SAMPLE_RATE, length.fill(taken)
        held = held[length.samples :]
