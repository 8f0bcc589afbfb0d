"""Sounds as waveforms of one length, which is what features are computed from.

Any format, rate and number of channels: `audiosearch.audio` decodes to 16 kHz, mono, or left and
right where a feature wants both. A sound that is shorter than the clip length is repeated until it
fills it, or followed by silence; of a longer one, training takes the beginning, and prediction
takes all of it in consecutive windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.audio import SAMPLE_RATE
from audiosearch.errors import InvalidArgumentError

__all__ = ["SHORT", "ClipLength", "Window", "Windows", "windows"]

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
        """Return a waveform (n,) or (n, 2) of exactly this length: cut, repeated or padded."""
        missing = self.samples - len(waveform)
        if missing <= 0:
            return waveform[: self.samples]
        if self.short == "repeat":
            times = -(-self.samples // len(waveform))
            return np.concatenate([waveform] * times)[: self.samples]
        return np.pad(waveform, [(0, missing), *[(0, 0)] * (waveform.ndim - 1)])


Window: TypeAlias = tuple[float, float, Floats]
"""Start and end of what of it is sound, in seconds, and the waveform of exactly the clip length."""


class Windows:
    """Cuts a sound that comes block by block into consecutive windows, in bounded memory.

    Parameters
    ----------
    length : ClipLength
        How long each is.
    """

    def __init__(self, length: ClipLength) -> None:
        self._length = length
        self._held: list[Floats] = []
        self._count = self._number = 0

    def add(self, block: Floats) -> Iterator[Window]:
        """Take samples at 16 kHz, (n,) or (n, 2), and yield the windows that they complete."""
        self._held.append(block)
        self._count += len(block)
        if self._count < self._length.samples:
            return
        held = np.concatenate(self._held)
        first = 0
        while len(held) - first >= self._length.samples:
            yield self._window(held[first : first + self._length.samples])
            first += self._length.samples
        self._held, self._count = [held[first:]], len(held) - first

    def finish(self) -> Iterator[Window]:
        """Yield the last window, if at least half of it is sound, or it is the only one."""
        if self._count and (not self._number or self._count >= math.ceil(self._length.samples / 2)):
            yield self._window(np.concatenate(self._held))

    def _window(self, taken: Floats) -> Window:
        begin = self._number * self._length.samples / SAMPLE_RATE
        self._number += 1
        return begin, begin + len(taken) / SAMPLE_RATE, self._length.fill(taken)


def windows(path: str, length: ClipLength, *, channels: int = 1) -> Iterator[Window]:
    """Yield the windows of a file, mono or stereo; see `Windows`.

    Raises
    ------
    AudioError
        When the file cannot be read.
    """
    cut = Windows(length)
    for block in audio.stream(path, channels=channels):
        yield from cut.add(block)
    yield from cut.finish()
