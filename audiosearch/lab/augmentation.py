"""Augmentation of a batch of features, drawn anew in every epoch.

=============== ==================================================================================
time shift      spectrograms and waveforms are turned round by up to a quarter of their length
gain            spectrograms by up to 6 dB either way, waveforms as well
noise           white noise on waveforms, 20 to 50 dB below them
SpecAugment     a stretch of time and a band of frequencies are masked (Park et al.,
                arXiv:1904.08779)
mixup           two clips and their labels are mixed (Zhang et al., arXiv:1710.09412)
=============== ==================================================================================
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["augment", "mix"]

Floats = npt.NDArray[np.float32]

_GAIN = 0.7  # 6 dB in natural logarithms of a magnitude
_TIME_MASK, _BAND_MASK = 1 / 6, 1 / 6
_SHIFT = 4


def augment(random: np.random.Generator, clips: Floats, feature: str) -> Floats:
    """Return changed copies of clips, float32 (n, *shape); embeddings stay as they are.

    Parameters
    ----------
    random : numpy.random.Generator
        Draws everything.
    clips : float32 (n, *shape)
        Features before they are standardised.
    feature : str
        Their name.
    """
    if feature in ("log-mel", "image"):
        return _spectrograms(random, clips, 1.0 if feature == "log-mel" else 0.12)
    if feature == "waveform":
        return _waveforms(random, clips)
    return clips


def _spectrograms(random: np.random.Generator, clips: Floats, unit: float) -> Floats:
    result = clips.copy()
    _, frames, bands = clips.shape
    for clip in result:
        farthest = frames // _SHIFT
        clip[:] = np.roll(clip, random.integers(-farthest, farthest + 1), axis=0)
        clip += np.float32(random.uniform(-_GAIN, _GAIN) * unit)
        filling = clip.mean()
        for axis, size, share in ((0, frames, _TIME_MASK), (1, bands, _BAND_MASK)):
            width = int(random.integers(0, int(size * share) + 1))
            begin = int(random.integers(0, size - width + 1))
            np.moveaxis(clip, axis, 0)[begin : begin + width] = filling
    return result


def _waveforms(random: np.random.Generator, clips: Floats) -> Floats:
    result = clips.copy()
    samples = clips.shape[1]
    for clip in result:
        clip[:] = np.roll(clip, random.integers(-(samples // _SHIFT), samples // _SHIFT + 1))
        clip *= np.float32(10 ** random.uniform(-0.3, 0.3))
        below = 10 ** (random.uniform(-50, -20) / 20) * float(clip.std())
        clip += np.float32(below) * random.standard_normal(samples, np.float32)
    return result


def mix(
    random: np.random.Generator, clips: Floats, targets: Floats, strength: float
) -> tuple[Floats, Floats]:
    """Mix each clip with another of the batch, and their targets alike."""
    if not strength:
        return clips, targets
    share = random.beta(strength, strength, len(clips)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    other = random.permutation(len(clips))
    column = share.reshape(-1, *[1] * (clips.ndim - 1))
    return (
        column * clips + (1 - column) * clips[other],
        share[:, None] * targets + (1 - share[:, None]) * targets[other],
    )
