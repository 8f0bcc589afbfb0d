"""The outline of a sound's waveform, for pages that show it: few numbers, however long it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.errors import InvalidArgumentError

__all__ = ["Peaks", "PeaksOf"]

_RATE = 16_000
_STEP = 320  # samples: 20 ms


@dataclass(frozen=True)
class Peaks:
    """A waveform's outline.

    Attributes
    ----------
    duration : float
        Seconds of sound that were looked at.
    values : float32 (n,)
        The largest magnitude in each of n equal stretches, from 0 to 1 of the largest of all.
    """

    duration: float
    values: npt.NDArray[np.float32]


@dataclass(frozen=True)
class PeaksOf:
    """The work of finding a file's peaks, for a worker process; see `Chore`.

    Attributes
    ----------
    path : str
        The file.
    longest : float
        Seconds after which no more is decoded.
    count : int
        How many values to give at most.
    """

    path: str
    longest: float
    count: int = 1000

    def perform(self) -> Peaks:
        """Decode the file as a stream, so that memory does not grow with its length.

        Raises
        ------
        AudioError
            When the file cannot be used.
        """
        if self.count < 1 or not self.longest > 0:
            raise InvalidArgumentError("Peaks need a count and a length above 0.")
        found: list[npt.NDArray[np.float32]] = []
        rest = np.empty(0, np.float32)
        samples = 0
        for block in audio.stream(self.path):
            samples += len(block)
            rest = np.concatenate([rest, np.abs(block)])
            whole = len(rest) // _STEP * _STEP
            found.append(rest[:whole].reshape(-1, _STEP).max(axis=1))
            rest = rest[whole:]
            if samples >= self.longest * _RATE:
                break
        if len(rest):
            found.append(rest.max(keepdims=True))
        values = np.concatenate([np.empty(0, np.float32), *found])
        if len(values) > self.count:
            starts = np.linspace(0, len(values), self.count, endpoint=False).astype(np.int64)
            values = np.maximum.reduceat(values, starts)
        largest = float(values.max(initial=0.0))
        return Peaks(samples / _RATE, (values / largest if largest else values).astype(np.float32))
