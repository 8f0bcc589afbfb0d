"""Sounds to measure and calibrate with: made here, varied, and the same at every run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from audiosearch import frontend
from audiosearch.audio import SAMPLE_RATE

__all__ = ["made_patches", "patches_of", "smoke_patches"]

Sound = npt.NDArray[np.float64]

# Two patches each: 30,720 samples and the rest of the second one's last frame.
_SAMPLES = 2 * 15360 + 240


def smoke_patches() -> npt.NDArray[np.float32]:
    """Return the patches of the signal of Google's smoke test: 3 s of 1 kHz, of height 1."""
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    return patches_of([np.sin(2 * np.pi * 1000 * time)])


def made_patches(count: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Return patches of `count` made sounds, two of each sound; another seed, other sounds.

    Tones, chords with vibrato, sweeps, coloured noise, bursts, clicks, plucks, beats and mixes of
    them, from loud to 40 dB below.
    """
    random = np.random.default_rng(seed)
    kinds = (_tone, _chord, _sweep, _noise, _bursts, _clicks, _pluck, _beats)
    sounds = []
    for number in range(count):
        sound = kinds[number % len(kinds)](random)
        if number // len(kinds) % 2:
            other = kinds[random.integers(len(kinds))](random)
            sound = sound + other * 10 ** random.uniform(-1, 0)
        sounds.append(sound / np.abs(sound).max() * 10 ** random.uniform(-2, -0.1))
    return patches_of(sounds)


def patches_of(sounds: Iterable[npt.NDArray[np.floating]]) -> npt.NDArray[np.float32]:
    """Return the log-mel patches of sounds, one after the other, shape (n, 96, 64)."""
    return np.concatenate([batch for sound in sounds for batch in frontend.patches(sound)])


def _time() -> Sound:
    return np.arange(_SAMPLES) / SAMPLE_RATE


def _tone(random: np.random.Generator) -> Sound:
    return np.sin(2 * np.pi * 10 ** random.uniform(2, 3.8) * _time())


def _chord(random: np.random.Generator) -> Sound:
    time, sound = _time(), np.zeros(_SAMPLES)
    for _ in range(random.integers(1, 4)):
        pitch = random.uniform(80, 600)
        phase = pitch * time + random.uniform(0, 3) * np.sin(2 * np.pi * 5 * time)
        for harmonic in range(1, 12):
            sound += np.sin(2 * np.pi * harmonic * phase) / harmonic ** random.uniform(0.5, 2)
    return sound


def _sweep(random: np.random.Generator) -> Sound:
    low, high = np.sort(10 ** random.uniform(2, 3.8, 2))
    octaves = np.linspace(np.log(low), np.log(high), _SAMPLES)[:: random.choice([-1, 1])]
    return np.sin(2 * np.pi * np.cumsum(np.exp(octaves)) / SAMPLE_RATE)


def _noise(random: np.random.Generator) -> Sound:
    """Noise whose power falls by a random number of decibels an octave."""
    spectrum = np.fft.rfft(random.standard_normal(_SAMPLES))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** random.uniform(-0.2, 1.2)
    return np.fft.irfft(spectrum, _SAMPLES)


def _bursts(random: np.random.Generator) -> Sound:
    rate = random.uniform(1, 12)
    return _noise(random) * (np.sin(2 * np.pi * rate * _time()) > random.uniform(-0.5, 0.8))


def _clicks(random: np.random.Generator) -> Sound:
    sound = 1e-3 * random.standard_normal(_SAMPLES)
    sound[:: int(SAMPLE_RATE / random.uniform(2, 60))] += 1
    return sound


def _pluck(random: np.random.Generator) -> Sound:
    time = _time() % random.uniform(0.2, 1.0)
    return _chord(random) * np.exp(-time * random.uniform(3, 20))


def _beats(random: np.random.Generator) -> Sound:
    tremolo = 1 + np.sin(2 * np.pi * random.uniform(0.5, 20) * _time())
    return (_tone(random) + 0.3 * _noise(random)) * tremolo
