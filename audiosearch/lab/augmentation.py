"""Augmentation of a batch of features, drawn anew in every epoch.

============== ===================================================================================
``shift``      spectrograms and waveforms are turned round by up to a quarter of their length
``gain``       up to 6 dB either way
``noise``      white noise on waveforms, 20 to 50 dB below them
``mask``       of spectrograms a stretch of time and a band of frequencies are masked (SpecAugment;
               Park et al., arXiv:1904.08779)
``pitch``      up to three semitones up or down, at the same length
``stretch``    slower or faster by up to a quarter, at the same pitch; what is too long is cut, what
               is too short is repeated
``background`` another clip of the batch is heard behind it, 10 to 30 dB below
mixup          two clips and their labels are mixed (Zhang et al., arXiv:1710.09412)
============== ===================================================================================

What has two channels is changed in both alike: a sound stays where it is. On waveforms, librosa's
phase vocoder changes pitch and length, which takes some 10 ms for a second
of sound. On spectrograms the same is done by reading their frames or bands in between, which takes
next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.audio import SAMPLE_RATE
from audiosearch.errors import InvalidArgumentError, MissingDependencyError
from audiosearch.frontend import MEL_BANDS, band_edges
from audiosearch.own.features import grey_levels, log_mel_of_grey

__all__ = ["AUGMENTATIONS", "USUAL_AUGMENTATIONS", "augment", "check_augmentations", "mix"]

Floats = npt.NDArray[np.float32]

AUGMENTATIONS = ("shift", "gain", "noise", "mask", "pitch", "stretch", "background")
"""All of them, in the order in which they are listed above."""

USUAL_AUGMENTATIONS = ("shift", "gain", "noise", "mask")
"""Those that suit any kind of sound."""

_GAIN = 0.7  # 6 dB in natural logarithms of a magnitude
_TIME_MASK, _BAND_MASK = 1 / 6, 1 / 6
_SHIFT = 4
_SEMITONES, _STRETCH = 3.0, 1.25
_BEHIND = (10.0, 30.0)  # dB
_OFFSET = np.float32(0.01)  # within the front end's logarithm


def check_augmentations(names: Sequence[str]) -> None:
    """Make sure that there are augmentations of these names.

    Raises
    ------
    InvalidArgumentError
        When there are not; the message lists them.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise InvalidArgumentError(
                f"augmentations must be of {', '.join(AUGMENTATIONS)}, not '{name}'."
            )


def augment(
    random: np.random.Generator,
    clips: Floats,
    feature: str,
    names: Sequence[str] = USUAL_AUGMENTATIONS,
) -> Floats:
    """Return changed copies of clips, float32 (n, *shape); embeddings stay as they are.

    Parameters
    ----------
    random : numpy.random.Generator
        Draws everything.
    clips : float32 (n, *shape)
        Features before they are standardised.
    feature : str
        Their name.
    names : sequence of str
        Which changes, of `AUGMENTATIONS`.

    Raises
    ------
    InvalidArgumentError
        When there is no such augmentation.
    MissingDependencyError
        When pitch or length of waveforms is to change and librosa is not installed.
    """
    check_augmentations(names)
    if feature in ("log-mel", "log-mel-stereo"):
        return _spectrograms(random, clips, set(names))
    if feature == "image":
        return grey_levels(_spectrograms(random, log_mel_of_grey(clips), set(names)))
    if feature == "waveform":
        return _waveforms(random, clips, set(names))
    return clips


def _spectrograms(random: np.random.Generator, clips: Floats, names: set[str]) -> Floats:
    result = clips.copy()
    frames, bands = clips.shape[1:3]
    if "background" in names:
        result = _with_background(random, result)
    for clip in result:
        if "stretch" in names:
            clip[:] = _read_at(clip, _stretched(random, frames), 0)
        if "pitch" in names:
            clip[:] = _read_at(clip, _transposed(random, bands), 1)
        if "shift" in names:
            farthest = frames // _SHIFT
            clip[:] = np.roll(clip, random.integers(-farthest, farthest + 1), axis=0)
        if "gain" in names:
            clip += np.float32(random.uniform(-_GAIN, _GAIN))
        if "mask" in names:
            filling = clip.mean(axis=(0, 1))  # of each channel
            for axis, size, share in ((0, frames, _TIME_MASK), (1, bands, _BAND_MASK)):
                width = int(random.integers(0, int(size * share) + 1))
                begin = int(random.integers(0, size - width + 1))
                np.moveaxis(clip, axis, 0)[begin : begin + width] = filling
    return result


def _with_background(random: np.random.Generator, clips: Floats) -> Floats:
    """Return log-mel spectrograms with others of them behind; powers add."""
    power = np.square(np.maximum(np.exp(clips) - _OFFSET, 0))
    behind = power[random.permutation(len(clips))]
    level = 10 ** (-random.uniform(*_BEHIND, len(clips)) / 10)
    inner = tuple(range(1, clips.ndim))
    loudness = power.mean(axis=inner) / np.maximum(behind.mean(axis=inner), 1e-12)
    weight = _column(level * loudness, clips.ndim)
    return np.asarray(np.log(np.sqrt(power + weight * behind) + _OFFSET), np.float32)


def _stretched(random: np.random.Generator, frames: int) -> npt.NDArray[np.float64]:
    """Return where each frame of a clip is read that is slower or faster, and repeats."""
    speed = _STRETCH ** random.uniform(-1, 1)
    return np.mod(np.arange(frames) * speed, max(frames - 1, 1))


def _transposed(random: np.random.Generator, bands: int) -> npt.NDArray[np.float64]:
    """Return where each band of a clip is read that is higher or lower."""
    edges = band_edges()
    # Images have other bands than the front end, evenly spaced over the same mels.
    centres = np.interp(np.linspace(0, MEL_BANDS - 1, bands), np.arange(MEL_BANDS), edges[1:-1])
    factor = 2 ** (random.uniform(-_SEMITONES, _SEMITONES) / 12)
    mels = 1127 * np.log1p(700 * np.expm1(centres / 1127) / factor / 700)
    return np.interp(mels, centres, np.arange(bands))


def _read_at(clip: Floats, places: npt.NDArray[np.float64], axis: int) -> Floats:
    """Return a spectrogram read at places between its frames or bands."""
    rows = np.moveaxis(clip, axis, 0)
    lower = np.minimum(places.astype(np.int64), len(rows) - 1)
    upper = np.minimum(lower + 1, len(rows) - 1)
    part = _column(places - lower, clip.ndim)
    return np.moveaxis(rows[lower] * (1 - part) + rows[upper] * part, 0, axis)


def _column(values: npt.NDArray[np.floating], ndim: int) -> Floats:
    """Return values (n,) in as many dimensions as there are, to be taken for each row."""
    return np.asarray(values, np.float32).reshape(-1, *[1] * (ndim - 1))


def _waveforms(random: np.random.Generator, clips: Floats, names: set[str]) -> Floats:
    result = clips.copy()
    samples = clips.shape[1]
    inner = tuple(range(1, clips.ndim))
    if "stretch" in names or "pitch" in names:
        effects = _librosa_effects()
        for clip in result:
            clip[:] = _vocoded(random, clip, names, effects)
    if "background" in names:
        behind = result[random.permutation(len(result))]
        level = 10 ** (-random.uniform(*_BEHIND, len(result)) / 20)
        loudness = result.std(axis=inner) / np.maximum(behind.std(axis=inner), 1e-6)
        result += _column(level * loudness, clips.ndim) * behind
    for clip in result:
        if "shift" in names:
            places = random.integers(-(samples // _SHIFT), samples // _SHIFT + 1)
            clip[:] = np.roll(clip, places, axis=0)
        if "gain" in names:
            clip *= np.float32(10 ** random.uniform(-0.3, 0.3))
        if "noise" in names:
            below = 10 ** (random.uniform(-50, -20) / 20) * float(clip.std())
            # The same in all channels.
            drawn = np.asarray(random.standard_normal((samples,), np.float32))
            clip += np.float32(below) * drawn.reshape(-1, *[1] * (clip.ndim - 1))
    return result


def _vocoded(random: np.random.Generator, clip: Floats, names: set[str], effects: Any) -> Floats:
    """Return a waveform with another pitch or speed, of the same length."""
    options = {"n_fft": min(2048, len(clip))}
    wave = clip.T  # librosa has time last
    if "stretch" in names:
        rate = _STRETCH ** random.uniform(-1, 1)
        wave = effects.time_stretch(wave, rate=rate, **options)
        wave = np.take(wave, np.arange(len(clip)) % wave.shape[-1], axis=-1)
    if "pitch" in names:
        steps = random.uniform(-_SEMITONES, _SEMITONES)
        wave = effects.pitch_shift(wave, sr=SAMPLE_RATE, n_steps=steps, **options)
    return np.asarray(wave.T, np.float32)


def _librosa_effects() -> Any:
    librosa: Any
    try:
        import librosa
    except ImportError as error:
        raise MissingDependencyError(
            "librosa", extra="lab", purpose="Changing pitch or length of waveforms"
        ) from error
    return librosa.effects


def mix(
    random: np.random.Generator, clips: Floats, targets: Floats, strength: float
) -> tuple[Floats, Floats]:
    """Mix each clip with another of the batch, and their targets alike."""
    if not strength:
        return clips, targets
    share = random.beta(strength, strength, len(clips)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    other = random.permutation(len(clips))
    column = _column(share, clips.ndim)
    return (
        column * clips + (1 - column) * clips[other],
        share[:, None] * targets + (1 - share[:, None]) * targets[other],
    )
