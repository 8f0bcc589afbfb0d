"""Sounds as they might have been recorded: mixes, levels, filters, rooms, noise and speed.

Everything is drawn from the random generator that is given, so that a seed gives the same sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.audio import SAMPLE_RATE
from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import PATCH_SECONDS
from tools.lite.windows import WINDOW_SAMPLES

__all__ = ["Mixing", "Mixture", "mix"]

Floats = npt.NDArray[np.float32]

_PATCH_SAMPLES = round(PATCH_SECONDS * SAMPLE_RATE)
_SILENCE = 1e-5  # level (RMS) below which there is nothing to mix
_LOUDEST_SHARE = 0.2  # the level of a sound is that of its loudest fifth


@dataclass(frozen=True)
class Mixing:
    """How often and how strongly a sound is changed.

    Attributes
    ----------
    second : float
        Share of sounds that get a second sound.
    ratio_db : tuple of float
        Range of the first sound's level above the second's, in dB.
    speed : float
        Share of sounds that are played faster or slower.
    speeds : tuple of float
        Range of the factor.
    filtered : float
        Share of sounds whose spectrum is bent.
    band_limited : float
        Share of sounds of which high or low frequencies are cut off.
    room : float
        Share of sounds that get an artificial room.
    noise : float
        Share of sounds that get noise.
    noise_db : tuple of float
        Range of the sound's level above the noise, in dB.
    peak_db : tuple of float
        Range of the result's peak in dB of full scale.
    """

    second: float = 0.5
    ratio_db: tuple[float, float] = (-5.0, 20.0)
    speed: float = 0.25
    speeds: tuple[float, float] = (0.8, 1.25)
    filtered: float = 0.35
    band_limited: float = 0.2
    room: float = 0.25
    noise: float = 0.25
    noise_db: tuple[float, float] = (5.0, 40.0)
    peak_db: tuple[float, float] = (-24.0, 0.0)

    def __post_init__(self) -> None:
        shares = (self.second, self.speed, self.filtered, self.band_limited, self.room, self.noise)
        if not all(0 <= share <= 1 for share in shares):
            raise InvalidArgumentError("Shares of sounds must be from 0 to 1.")


@dataclass(frozen=True)
class Mixture:
    """A changed sound.

    Attributes
    ----------
    waveform : float32 (n,)
        Mono, 16 kHz, n at most 160,000.
    ratio_db : float
        Level of the first sound above the second; infinite without a second.
    """

    waveform: Floats
    ratio_db: float


def mix(
    random: np.random.Generator, first: Floats, second: Floats | None, settings: Mixing
) -> Mixture:
    """Change a sound, and mix it with a second one where there is one.

    Parameters
    ----------
    random : numpy.random.Generator
        What is drawn from.
    first, second : float32 (n,)
        Mono, 16 kHz.
    settings : Mixing
        How often and how strongly; `second` is the caller's to decide.
    """
    sound = _moved(random, _respeeded(random, first, settings))
    ratio = float("inf")
    if second is not None and _level(sound) > _SILENCE and _level(second) > _SILENCE:
        ratio = float(random.uniform(*settings.ratio_db))
        sound = _added(random, sound, _respeeded(random, second, settings), ratio)
    sound = _coloured(random, sound, settings)
    if random.random() < settings.noise and _level(sound) > _SILENCE:
        below = 10 ** (-random.uniform(*settings.noise_db) / 20)
        sound = sound + _noise(random, len(sound)) * np.float32(_level(sound) * below)
    peak = float(np.abs(sound).max(initial=0.0))
    wanted = 10 ** (random.uniform(*settings.peak_db) / 20)
    if peak > _SILENCE:
        sound = sound * np.float32(wanted / peak)
    return Mixture(sound.astype(np.float32)[:WINDOW_SAMPLES], ratio)


def _respeeded(random: np.random.Generator, sound: Floats, settings: Mixing) -> Floats:
    """Play some sounds faster or slower; pitch changes with it."""
    if random.random() >= settings.speed:
        return sound
    factor = float(np.exp(random.uniform(*np.log(settings.speeds))))
    places = np.arange(0, len(sound) - 1, factor)
    if len(places) < SAMPLE_RATE // 100:
        return sound
    result: Floats = np.interp(places, np.arange(len(sound)), sound).astype(np.float32)
    return result


def _moved(random: np.random.Generator, sound: Floats) -> Floats:
    """Begin somewhere else, so that patches never fall on the same places again.

    A long sound loses its beginning; a short one gets silence before it.
    """
    if len(sound) > 2 * _PATCH_SAMPLES:
        return sound[random.integers(_PATCH_SAMPLES) :][:WINDOW_SAMPLES]
    room = max(_PATCH_SAMPLES - len(sound), _PATCH_SAMPLES // 4)
    silence = np.zeros(random.integers(room), np.float32)
    return np.concatenate([silence, sound])[:WINDOW_SAMPLES]


def _added(random: np.random.Generator, sound: Floats, other: Floats, ratio: float) -> Floats:
    """Add `other` at a level of `ratio` dB below `sound`; half the time the longer one sets how
    long it lasts.
    """
    length = len(sound)
    if len(other) > length and random.random() < 0.5:
        length = min(len(other), WINDOW_SAMPLES)
    result = np.zeros(length, np.float32)
    start = random.integers(length - len(sound) + 1)
    result[start : start + len(sound)] += sound
    gain = np.float32(_level(sound) / max(_level(other), _SILENCE) * 10 ** (-ratio / 20))
    if len(other) >= length:
        begin = random.integers(len(other) - length + 1)
        result += gain * other[begin : begin + length]
    else:
        start = random.integers(length - len(other) + 1)
        result[start : start + len(other)] += gain * other
    return result


def _coloured(random: np.random.Generator, sound: Floats, settings: Mixing) -> Floats:
    """Bend the spectrum, cut off its ends, and let it sound in a room, in one transform."""
    draws = random.random(3)
    is_filtered, is_limited = draws[0] < settings.filtered, draws[1] < settings.band_limited
    has_room = draws[2] < settings.room
    if not (is_filtered or is_limited or has_room):
        return sound
    import scipy.fft

    response = _room(random) if has_room else np.ones(1, np.float32)
    size = scipy.fft.next_fast_len(len(sound) + len(response), real=True)
    spectrum = scipy.fft.rfft(sound, size)
    octaves = np.log2(np.maximum(np.arange(len(spectrum)) * SAMPLE_RATE / size, 20.0))
    decibels = np.zeros(len(spectrum), np.float32)
    if is_filtered:
        knots = np.linspace(np.log2(60.0), np.log2(8000.0), 7)
        decibels += np.interp(octaves, knots, random.normal(0.0, 5.0, 7)).astype(np.float32)
    if is_limited:
        high = np.log2(random.uniform(2000.0, 7500.0))
        low = np.log2(random.uniform(30.0, 400.0))
        slope = random.uniform(12.0, 48.0)  # dB an octave
        decibels -= slope * np.maximum(octaves - high, 0.0) + slope * np.maximum(low - octaves, 0.0)
    spectrum *= np.exp(decibels * np.float32(np.log(10) / 20))
    if has_room:
        spectrum *= scipy.fft.rfft(response, size)
    result: Floats = scipy.fft.irfft(spectrum, size)[: len(sound)].astype(np.float32)
    return result


def _room(random: np.random.Generator) -> Floats:
    """Return the impulse response of a made-up room: the direct sound, then decaying noise."""
    seconds = float(np.exp(random.uniform(np.log(0.1), np.log(1.2))))  # until 60 dB below
    size = round(seconds * SAMPLE_RATE)
    times = np.arange(size) / SAMPLE_RATE
    tail = random.standard_normal(size) * np.exp(-6.9 * times / seconds)
    tail[: random.integers(20, 400)] = 0.0
    tail *= 10 ** (random.uniform(-15.0, 3.0) / 20) / max(float(np.linalg.norm(tail)), 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)


def _noise(random: np.random.Generator, size: int) -> Floats:
    """Return noise of level 1 whose power falls by 0 to 6 dB an octave."""
    import scipy.fft

    spectrum = scipy.fft.rfft(random.standard_normal(size).astype(np.float32))
    slope = random.uniform(0.0, 1.0)
    spectrum *= np.maximum(np.arange(len(spectrum)), 20.0) ** -slope
    noise = scipy.fft.irfft(spectrum, size)
    result: Floats = (noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)).astype(np.float32)
    return result


def _level(sound: Floats) -> float:
    """Return the RMS of the loudest fifth of a sound, in pieces of 20 ms."""
    pieces = len(sound) // 320
    if not pieces:
        return float(np.sqrt(np.mean(np.square(sound)))) if len(sound) else 0.0
    power = np.square(sound[: pieces * 320]).reshape(pieces, 320).mean(axis=1)
    loudest = np.sort(power)[-max(1, round(pieces * _LOUDEST_SHARE)) :]
    return float(np.sqrt(loudest.mean()))
