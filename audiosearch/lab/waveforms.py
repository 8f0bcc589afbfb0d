"""The beginning of a labelled sound, as a waveform of the length that a training wants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.lab.sounds import LabelledSound
from audiosearch.own.waveforms import ClipLength

__all__ = ["load_clip"]


def load_clip(
    sound: LabelledSound, length: ClipLength, *, channels: int = 1
) -> npt.NDArray[np.float32]:
    """Decode the beginning of a sound, no more than is needed.

    Returns
    -------
    np.ndarray
        Float32 (samples,), or (samples, 2) where `channels` is 2.

    Raises
    ------
    AudioError
        When it cannot be read.
    """
    blocks, count = [], 0
    for block in audio.stream(sound.path, start=sound.start, end=sound.end, channels=channels):
        blocks.append(block)
        count += len(block)
        if count >= length.samples:
            break
    return length.fill(np.concatenate(blocks))
