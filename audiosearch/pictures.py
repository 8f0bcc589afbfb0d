"""Spectrograms of sound files as PNG pictures, for people to look at.

Decoded as a stream, so that a part of a long file costs no more than the part: 128 mel bands from
40 Hz to 11 kHz (HTK), a column every 20 ms, decibels in 32 or 16 steps. The colours go from dark to
light with even lightness, so that loud is light also in grey and to the colour-blind.

The brightness follows the sound: the top of the scale is near its loudest, so that a quiet
recording is not a black picture. `level` finds it for a whole recording from a few places, so that
the tiles of one recording fit together.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import zlib

import numpy as np
import numpy.typing as npt

from audiosearch.audio import load
from audiosearch.errors import EmptyAudioError, InvalidArgumentError

__all__ = ["PICTURE_VERSION", "level", "palette", "png", "spectrogram"]

PICTURE_VERSION = 1
"""Changes when the same sound gives another picture."""

_RATE = 24_000
_HOP = 480
_FFT = 1024
_BANDS = 128
_LOWEST_HZ, _HIGHEST_HZ = 40.0, 11_000.0
_RANGE_DB = 62.0
_QUIETEST_TOP_DB = -62.0
_LOUD = 99.0
_PLACES = 5
_PLACE_SECONDS = 0.8
_LONGEST = 600.0
_PIECE = 8
# Dark to light; the lightness of the steps is even.
_STOPS = (
    (13, 17, 23),
    (22, 36, 58),
    (18, 62, 88),
    (10, 92, 107),
    (25, 125, 116),
    (76, 157, 116),
    (142, 185, 113),
    (207, 209, 126),
    (250, 237, 176),
)


def spectrogram(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    end: float,
    width: int = 480,
    height: int = 128,
    top: float | None = None,
) -> npt.NDArray[np.float32]:
    """Return a part of a sound file as a mel spectrogram.

    Parameters
    ----------
    path : path-like
        Any sound file.
    start, end : float
        Which part, in seconds; at most ten minutes. What lies beyond the end of the sound is
        silence, so that parts of one length make pictures of one width.
    width, height : int
        Columns and rows of the result; at most 4096 and 128. Columns and bands that do not fit are
        averaged.
    top : float, optional
        Decibels of the brightest value, as `level` gives it; that of this part where None.

    Returns
    -------
    float32 (height, width)
        From 0 to 1, the lowest band in the last row.

    Raises
    ------
    AudioError
        When the file cannot be decoded, or holds no sound after `start`.
    InvalidArgumentError
        When the part or the size cannot be.
    """
    if not (math.isfinite(start) and math.isfinite(end)) or not 0 <= start < end:
        raise InvalidArgumentError(f"end must be later than start ({start!r} s), not {end!r}.")
    if end - start > _LONGEST:
        raise InvalidArgumentError(
            f"A picture shows at most {_LONGEST:g} s, not {end - start:g}. Ask for a part."
        )
    if not 1 <= width <= 4096 or not 1 <= height <= _BANDS:
        raise InvalidArgumentError(
            f"width must be from 1 to 4096 and height from 1 to {_BANDS}, not {width} x {height}."
        )
    power = _mel_power(load(path, start=start, end=end, rate=_RATE))
    columns = max(round((end - start) * _RATE / _HOP), 1)
    whole = np.zeros((columns, _BANDS), np.float32)
    whole[: len(power)] = power[:columns]
    decibels = _decibels(_averaged(_averaged(whole, width).T, height))
    if top is None:
        top = _loud(_decibels(power))
    shown = (decibels[::-1] - np.float32(top)) / np.float32(_RANGE_DB) + 1
    return np.clip(shown, 0, 1, dtype=np.float32)


def level(path: str | os.PathLike[str], *, duration: float) -> float:
    """Return the decibels of what is loud in a recording, from a few places of it.

    Parameters
    ----------
    path : path-like
        The sound file.
    duration : float
        Its length in seconds.

    Raises
    ------
    AudioError
        When the file cannot be decoded.
    """
    found = []
    for place in range(_PLACES):
        start = max(duration - _PLACE_SECONDS, 0.0) * (place + 0.5) / _PLACES
        try:
            samples = load(path, start=start, end=start + _PLACE_SECONDS, rate=_RATE)
        except EmptyAudioError:  # shorter than its header says
            continue
        found.append(_loud(_decibels(_mel_power(samples))))
    return max(found, default=_QUIETEST_TOP_DB)


def png(values: npt.NDArray[np.floating], *, colours: int = 32) -> bytes:
    """Return values from 0 to 1 as a PNG picture in the colours of `palette`.

    Parameters
    ----------
    values : float (height, width)
        From 0 to 1.
    colours : int
        How many steps: 2 to 256. Up to 16 take half a byte a pixel.

    Raises
    ------
    InvalidArgumentError
        When the array is not as it must be.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not values.size or not 2 <= colours <= 256:
        raise InvalidArgumentError(
            f"A picture has two dimensions and 2 to 256 colours, not {values.shape} and {colours}."
        )
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InvalidArgumentError("The values of a picture lie between 0 and 1.")
    height, width = values.shape
    codes = np.rint(values * (colours - 1)).astype(np.uint8)
    depth = 8
    if colours <= 16:
        depth = 4
        codes = np.pad(codes, ((0, 0), (0, width % 2)))
        codes = codes[:, 0::2] << 4 | codes[:, 1::2]
    rows = np.zeros((height, codes.shape[1] + 1), np.uint8)  # the first byte: no filter
    rows[:, 1:] = codes
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)),
            _chunk(b"PLTE", palette(colours).tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


@functools.cache
def palette(colours: int) -> npt.NDArray[np.uint8]:
    """Return the colours from dark to light, uint8 (colours, 3), sRGB."""
    places = np.linspace(0, len(_STOPS) - 1, colours)
    stops = np.array(_STOPS, float).T
    mixed = [np.interp(places, np.arange(len(_STOPS)), channel) for channel in stops]
    return np.rint(np.stack(mixed, axis=1)).astype(np.uint8)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _mel_power(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the power of mel bands, float32 (frames, 128), one frame a hop that begins in it."""
    import scipy.fft

    frames = max(-(-len(samples) // _HOP), 1)
    padded = np.zeros((frames - 1) * _HOP + _FFT, np.float32)
    ahead = _FFT // 2 - _HOP // 2  # the middle of a frame is the middle of its hop
    padded[ahead : ahead + len(samples)] = samples[: len(padded) - ahead]
    window, matrix = _constants()
    framed = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    result = np.empty((frames, _BANDS), np.float32)
    # In pieces that BLAS does not share out to threads: waking them costs more than the product.
    for first in range(0, frames, _PIECE):
        rows = slice(first, first + _PIECE)
        spectrum = scipy.fft.rfft(framed[rows] * window, axis=1)
        result[rows] = (spectrum.real**2 + spectrum.imag**2) @ matrix
    return result


def _averaged(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Return `count` rows: averages of neighbours, or repeats where there are fewer."""
    rows = len(values)
    if rows <= count:
        return values[np.arange(count) * rows // count]
    starts = np.arange(count) * rows // count
    sums = np.add.reduceat(values, starts, axis=0)
    return (sums / np.diff(starts, append=rows)[:, None]).astype(np.float32)


def _decibels(power: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return 10 * np.log10(np.maximum(power, np.float32(1e-13)))


def _loud(decibels: npt.NDArray[np.float32]) -> float:
    return max(float(np.percentile(decibels, _LOUD)), _QUIETEST_TOP_DB)


@functools.cache
def _constants() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the window (1024,) and the weights of FFT bins in bands (513, 128).

    Both are scaled so that a full-scale sine has about 0 dB.
    """
    window = np.hanning(_FFT + 1)[:-1]
    window = window * (2 / window.sum())
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), _BANDS + 2)
    bins = _mel(np.linspace(0, _RATE / 2, _FFT // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    # Low bands are narrower than the distance of two bins: what falls between takes the nearest.
    for band in np.flatnonzero(weights.max(axis=0) < 0.5):
        weights[np.abs(bins[:, 0] - edges[band + 1]).argmin(), band] = 1.0
    return window.astype(np.float32), weights.astype(np.float32)


def _mel(hertz: float | npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
