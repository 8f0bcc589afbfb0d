"""Waveform to log-mel patches, as VGGish defines them.

25 ms frames (400 samples at 16 kHz) every 10 ms (160 samples), periodic Hann window, FFT of 512,
magnitude, 64 HTK mel bands from 125 to 7,500 Hz, natural log of (mel + 0.01), patches of 96 frames.
Source: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017, and
the parameters released with AudioSet's VGGish.

Which sounds give how many patches: VGGish itself needs 0.975 s for one patch and drops what does
not fill another. Here, a sound shorter than one patch is padded with silence at its end to exactly
one, so that even one sample gives a patch, and zero samples give none. In a longer sound, the patch
that runs over the end is padded and kept if at least half of it (48 frames) is sound, else dropped:
10 s give 10 patches, as in VGGish. With a hop shorter than a patch, the first patch that reaches
the end of the sound is the last one.

The frames are always transformed in the same groups, counted from the start of the sound. So the
result is the same to the bit, however the sound was cut into blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from audiosearch.audio import SAMPLE_RATE
from audiosearch.errors import InvalidArgumentError

__all__ = [
    "MEL_BANDS",
    "PATCH_FRAMES",
    "PATCH_SECONDS",
    "band_edges",
    "log_mel",
    "mel_matrix",
    "patches",
]

PATCH_FRAMES = 96
"""Frames in a patch."""

MEL_BANDS = 64
"""Mel bands in a frame."""

PATCH_SECONDS = 0.96
"""Time from the start of a patch to the start of the next one that does not overlap it."""

_WINDOW = 400
_HOP = 160
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7500.0
# The bins inside (125 Hz, 7,500 Hz): all others weigh 0.
_BINS = slice(5, 240)
_OFFSET = np.float32(0.01)
_FRAMES_PER_SECOND = SAMPLE_RATE // _HOP
# Frames transformed at once: small enough for the processor's cache.
_GROUP = PATCH_FRAMES
_GROUP_STEP = _GROUP * _HOP
_GROUP_SPAN = (_GROUP - 1) * _HOP + _WINDOW
_PATCHES_AT_ONCE = 32


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram of a sound, without any padding.

    Parameters
    ----------
    waveform : np.ndarray
        Mono samples at 16 kHz, shape (n,), floating point, finite, nominally in [-1, 1].

    Returns
    -------
    np.ndarray
        Shape (frames, 64), float32, where frames is 1 + (n - 400) // 160, or 0 if n < 400.

    Raises
    ------
    InvalidArgumentError
        When `waveform` has another shape or type, or holds NaN or infinity.
    """
    groups = list(_groups([waveform]))
    total = _frame_count(sum(size for size, _ in groups))
    if not total:
        return np.empty((0, MEL_BANDS), dtype=np.float32)
    return np.concatenate([frames for _, frames in groups])[:total]


def patches(
    sound: np.ndarray | Iterable[np.ndarray], *, hop: float = PATCH_SECONDS
) -> Iterator[np.ndarray]:
    """Cut a sound into log-mel patches, in memory that does not depend on its length.

    Parameters
    ----------
    sound : np.ndarray or iterable of np.ndarray
        Mono samples at 16 kHz, floating point, finite: one array, or consecutive blocks of any
        size, such as `audiosearch.audio.stream` gives.
    hop : float
        Seconds from the start of a patch to the start of the next, a multiple of 0.01.

    Yields
    ------
    np.ndarray
        Consecutive patches, shape (k, 96, 64), float32, 1 <= k <= 32; all but the last have k = 32.
        Patch i begins at i * hop seconds. The module's text says how the end is padded.

    Raises
    ------
    InvalidArgumentError
        When `hop` is not a positive multiple of 0.01 s, or a block is not a one-dimensional array
        of finite floating-point numbers.
    """
    hop_frames = round(hop * _FRAMES_PER_SECOND) if math.isfinite(hop) else 0
    if hop_frames < 1 or abs(hop * _FRAMES_PER_SECOND - hop_frames) > 1e-6:
        raise InvalidArgumentError(f"hop must be a positive multiple of 0.01 s, not {hop!r}.")
    blocks = [sound] if isinstance(sound, np.ndarray) else sound
    return _batched(_patches(blocks, hop_frames))


def _patches(blocks: Iterable[np.ndarray], hop: int) -> Iterator[np.ndarray]:
    """One patch (96, 64) at a time, every `hop` frames."""
    held = np.empty((0, MEL_BANDS), dtype=np.float32)
    first = 0  # the frame number of held[0]
    start = 0  # the frame number at which the next patch begins
    samples = 0
    for size, frames in _groups(blocks):
        samples += size
        held = np.concatenate([held, frames])
        # The last group may hold frames of mere padding.
        sure = min(first + len(held), _frame_count(samples))
        while start + PATCH_FRAMES <= sure:
            yield held[start - first : start - first + PATCH_FRAMES]
            start += hop
        drop = min(max(start - first, 0), len(held))
        held, first = held[drop:], first + drop
    if not samples:
        return
    total = _frame_count(samples)
    reached = start - hop + PATCH_FRAMES if start else -1
    if start and (reached >= total or total - start < PATCH_FRAMES // 2):
        return
    rest = held[start - first : start - first + PATCH_FRAMES]
    if len(rest) < PATCH_FRAMES:
        silence = np.full((PATCH_FRAMES - len(rest), MEL_BANDS), np.log(_OFFSET), dtype=np.float32)
        rest = np.concatenate([rest, silence])
    yield rest


def _batched(single: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    for patch in single:
        batch.append(patch)
        if len(batch) == _PATCHES_AT_ONCE:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _frame_count(samples: int) -> int:
    return 0 if samples < _WINDOW else 1 + (samples - _WINDOW) // _HOP


def _groups(blocks: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Groups of 96 frames: how many new samples each used, and frames (96, 64).

    After the end the sound is followed by silence for as long as frames touch its samples.
    """
    held: list[np.ndarray] = []
    size = 0
    fresh = 0  # samples in `held` that no group has counted
    for block in blocks:
        checked = _checked(block)
        if not checked.size:
            continue
        held.append(checked)
        size += checked.size
        fresh += checked.size
        if size < _GROUP_SPAN:
            continue
        joined = np.concatenate(held) if len(held) > 1 else held[0]
        at = 0
        while size - at >= _GROUP_SPAN:
            used = _GROUP_SPAN - (size - at - fresh)
            fresh -= used
            yield used, _transform(joined[at : at + _GROUP_SPAN])
            at += _GROUP_STEP
        # A copy, so that a long block is not kept for its tail.
        held, size = [joined[at:].copy()], size - at
    while fresh:
        joined = np.concatenate(held)
        padded = np.zeros(_GROUP_SPAN, dtype=np.float32)
        padded[: joined.size] = joined
        yield fresh, _transform(padded)
        fresh = 0


def _checked(block: np.ndarray) -> np.ndarray:
    if not isinstance(block, np.ndarray) or block.ndim != 1 or block.dtype.kind != "f":
        shape = getattr(block, "shape", type(block).__name__)
        raise InvalidArgumentError(
            "Sound must be a one-dimensional array of floating-point samples, not "
            f"{getattr(block, 'dtype', '')} {shape}."
        )
    samples = block.astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        raise InvalidArgumentError("Sound must be finite; it holds NaN or infinity.")
    return samples


def _transform(samples: np.ndarray) -> np.ndarray:
    """Log-mel (96, 64) of 15,600 samples. Always this size: vector code may round otherwise."""
    import scipy.fft

    window, matrix = _constants()
    framed = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    # The transform is in float64: in float32, the rounding of a full-scale tone fills the quiet
    # bands with errors of up to 5e-4 in the logarithm.
    spectrum = scipy.fft.rfft(framed * window, _FFT, axis=1, overwrite_x=True)
    # sqrt(re^2 + im^2), far faster than abs(), which guards against an overflow far from sound.
    heard = np.ascontiguousarray(spectrum[:, _BINS]).view(np.float64).astype(np.float32)
    np.square(heard, out=heard)
    magnitude = np.sqrt(heard[:, 0::2] + heard[:, 1::2])
    # In pieces that BLAS does not share out to threads: waking them costs more than the product.
    mel = (magnitude.reshape(_GROUP // 16, 16, -1) @ matrix).reshape(_GROUP, MEL_BANDS)
    mel += _OFFSET
    return np.log(mel, out=mel)


@functools.cache
def _constants() -> tuple[np.ndarray, np.ndarray]:
    """Window (400,) float64, and the rows of the mel matrix that are not 0, float32."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    return window, mel_matrix()[_BINS].astype(np.float32)


def mel_matrix() -> np.ndarray:
    """The weights of FFT bins in mel bands, as published with VGGish.

    Triangles that are linear in mel (HTK: 1127 ln(1 + f / 700)), of height 1, with centres evenly
    spaced in mel between 125 and 7,500 Hz; the weight of 0 Hz is 0.

    Returns
    -------
    np.ndarray
        Shape (257, 64), float64.
    """
    bins = _hertz_to_mel(np.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    edges = band_edges()
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights


def band_edges() -> np.ndarray:
    """Return the edges of the mel bands in mel, float64 (66,): band n lies from n to n + 2."""
    lowest, highest = _hertz_to_mel(np.array([_LOWEST_HZ, _HIGHEST_HZ]))
    return np.linspace(lowest, highest, MEL_BANDS + 2)


def _hertz_to_mel(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hertz / 700.0)
