"""Features: what a model takes of a clip.

================== ============================ ====================================================
name               shape for a clip of S seconds what it is
================== ============================ ====================================================
``lite``           (1 + (S - 0.96) / 0.48, 128) embeddings of the bundled embedder
``vggish``         the same                     embeddings of the real VGGish, where it is fetched
``lite-hidden``    the same, 512 values         what the bundled embedder's last layer is given
``lite-layers``    the same, 1792 values        its third stage's mean over time, and the same
``log-mel``        (100 S, 64)                  log-mel spectrogram, frames of 10 ms
``log-mel-stereo`` (100 S, 64, 2)               those of left and right
``image``          (96, 96)                     the first as an 8-bit picture of one size
``waveform``       (16000 S,)                   samples
``librosa26``      (26,)                        means of chroma, RMS, spectral centroid, bandwidth,
                                                roll-off, zero-crossing rate and 20 MFCC
================== ============================ ====================================================

Of all but ``lite``, ``vggish`` and ``librosa26``, sounds are brought to one level first (RMS 0.1):
left and right together, so that it stays to be heard which is louder.

``log-mel-stereo`` is of left and right, not of middle (their sum) and side (their difference): a
spectrogram has no phase, so those of middle and side are the same whether a sound is on the left or
on the right. What is in both channels in opposite phase, which mono does not hear, is heard like
any other sound. What left and right do not tell is whether they are in phase.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import frontend
from audiosearch.embedders import dequantize, embedder_hash, get_embedder
from audiosearch.errors import InvalidArgumentError, MissingDependencyError
from audiosearch.models import bundled_model
from audiosearch.own.waveforms import ClipLength

__all__ = [
    "FEATURES",
    "LIBROSA26",
    "Feature",
    "channels_of",
    "get_feature",
    "grey_levels",
    "levelled",
    "log_mel_of_grey",
]

LIBROSA26 = (
    "chroma",
    "rms",
    "spectral_centroid",
    "spectral_bandwidth",
    "rolloff",
    "zero_crossing_rate",
    *(f"mfcc{number}" for number in range(1, 21)),
)
"""Names of the 26 parameters, as the columns of a table."""

HOP = 0.48
_LEVEL = np.float32(0.1)
_IMAGE = (96, 96)
# Log-mel values that become black and white.
_DARK, _BRIGHT = float(np.log(0.01)), 4.0
_VERSION = "1"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Feature:
    """A feature, ready to be computed.

    Attributes
    ----------
    name : str
        As `get_feature` takes it.
    identity : str
        What its values depend on beside the sound: other weights are another feature.
    compute : callable
        Takes samples at 16 kHz, float32 (n,), or (n, 2) where there are two channels, and returns
        float32 values.
    channels : int
        1 where it is of mono, 2 where it is of left and right.
    """

    name: str
    identity: str
    compute: Callable[[Floats], Floats]
    channels: int = 1


def get_feature(name: str) -> Feature:
    """Return a feature by its name.

    Raises
    ------
    InvalidArgumentError
        When there is none of that name.
    MissingDependencyError
        When it needs a package that is not installed.
    ModelError
        When its embedder is not there.
    """
    if name not in _MAKERS:
        raise InvalidArgumentError(f"feature must be one of {', '.join(FEATURES)}, not '{name}'.")
    identity, compute = _MAKERS[name]()
    return Feature(name, f"{name} {_VERSION} {identity}", compute, channels_of(name))


def channels_of(name: str) -> int:
    """Return how many channels a feature is of, without loading what it needs."""
    return _CHANNELS.get(name, 1)


def _embedded(name: str) -> tuple[str, Callable[[Floats], Floats]]:
    embedder = get_embedder(name)

    def compute(waveform: Floats) -> Floats:
        batches = frontend.patches(waveform, hop=HOP)
        return np.concatenate([dequantize(embedder.embed_patches(batch)) for batch in batches])

    return embedder_hash(name), compute


def _lite_inner(*, hidden: bool) -> tuple[str, Callable[[Floats], Floats]]:
    from audiosearch.own.layers import run_hidden, run_layers

    run = run_hidden if hidden else run_layers
    return bundled_model("lite").sha256, lambda waveform: run(_patches(waveform))


def _patches(waveform: Floats) -> Floats:
    return np.concatenate([*frontend.patches(levelled(waveform), hop=HOP)])


def _log_mel(waveform: Floats) -> Floats:
    return _spectrogram(levelled(waveform))


def _log_mel_stereo(waveform: Floats) -> Floats:
    return np.stack([_spectrogram(side) for side in levelled(waveform).T], axis=-1)


def _spectrogram(waveform: Floats) -> Floats:
    # A frame is 400 samples: what is shorter is followed by silence.
    return frontend.log_mel(np.pad(waveform, (0, max(240, 400 - len(waveform)))))


def _image(waveform: Floats) -> Floats:
    from scipy import ndimage

    spectrogram = _log_mel(waveform)
    factors = [new / old for new, old in zip(_IMAGE, spectrogram.shape, strict=True)]
    resized = ndimage.zoom(spectrogram, factors, order=1, mode="nearest", grid_mode=True)
    return grey_levels(resized)


def grey_levels(log_mel: Floats) -> Floats:
    """Return log-mel values as those of an 8-bit picture, from 0 to 1."""
    grey = np.rint(255 * np.clip((log_mel - _DARK) / (_BRIGHT - _DARK), 0, 1))
    return grey.astype(np.float32) / np.float32(255)


def log_mel_of_grey(grey: Floats) -> Floats:
    """Return the log-mel values that a picture's stand for."""
    return np.asarray(grey * (_BRIGHT - _DARK) + _DARK, np.float32)


def levelled(waveform: Floats) -> Floats:
    """Return a waveform at one level, RMS 0.1; of (n, 2), both channels by one factor."""
    loudness = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
    return np.asarray(waveform * (_LEVEL / np.float32(max(loudness, 1e-5))), np.float32)


def _librosa26() -> tuple[str, Callable[[Floats], Floats]]:
    try:
        import librosa
    except ImportError as error:
        raise MissingDependencyError(
            "librosa", extra="lab", purpose="Computing librosa's parameters"
        ) from error
    from audiosearch.audio import SAMPLE_RATE

    rated: dict[str, Any] = {"sr": SAMPLE_RATE}

    def compute(waveform: Floats) -> Floats:
        magnitude = np.abs(librosa.stft(waveform, n_fft=min(2048, len(waveform))))
        feature = librosa.feature
        tracks = [
            feature.chroma_stft(S=magnitude**2, tuning=0.0, **rated).mean(axis=0),
            feature.rms(y=waveform),
            feature.spectral_centroid(S=magnitude, **rated),
            feature.spectral_bandwidth(S=magnitude, **rated),
            feature.spectral_rolloff(S=magnitude, **rated),
            feature.zero_crossing_rate(waveform),
            *feature.mfcc(y=waveform, n_mfcc=20, n_fft=min(2048, len(waveform)), **rated),
        ]
        return np.array([np.mean(track) for track in tracks], np.float32)

    return version("librosa"), compute


_MAKERS: dict[str, Callable[[], tuple[str, Callable[[Floats], Floats]]]] = {
    "lite": functools.partial(_embedded, "lite"),
    "vggish": functools.partial(_embedded, "vggish"),
    "lite-hidden": functools.partial(_lite_inner, hidden=True),
    "lite-layers": functools.partial(_lite_inner, hidden=False),
    "log-mel": lambda: ("", _log_mel),
    "log-mel-stereo": lambda: ("", _log_mel_stereo),
    "image": lambda: ("", _image),
    "waveform": lambda: ("", levelled),
    "librosa26": _librosa26,
}

_CHANNELS = {"log-mel-stereo": 2}

FEATURES = tuple(_MAKERS)


def feature_key(feature: Feature, length: ClipLength) -> str:
    """Return what a stored value depends on beside the sound."""
    return f"{feature.identity} {length.seconds:.4f} {length.short}"
