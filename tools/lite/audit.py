"""Sounds that must not be trained on: copies of test recordings, however re-encoded or cut.

A window is suspected where a patch of it is near a patch of a test recording in YAMNet's embedding,
and found guilty where the fine detail of their log-mel spectrograms fits at some shift. Two
recordings of rain, or of a dog, are alike on average but not in detail; two copies of one are.
Measured on windows of this corpus: parts of a window, quieter and as poor Ogg Vorbis, fit with 0.73
to 0.98, pairs of other windows with 0.34 at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch import audio, frontend
from audiosearch.errors import AudioError
from tools.lite.shards import Shard, Sources, patches_of
from tools.lite.teacher import Teacher, decode_embedding

__all__ = ["Copy", "find_copies", "likeness"]

_SUSPECTS = 40
_SECONDS = 40.0
_LEAST_COSINE = 0.6
_FLOOR = -4.0  # log-mel below which there is silence
_SMOOTH = (4.0, 2.5)  # frames and bands over which detail is told from what is coarse
_ACTIVE = 0.5  # squared detail of a frame that has some
_SHORTEST_FRAMES = 30  # active frames that must lie over each other
_LEAST_SHARE = 0.2  # of the quieter one's detail that must lie in the overlap
GUILTY = 0.6
"""Correlation from which two spectrograms are of one recording."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Copy:
    """A window that holds what a test recording holds."""

    test: str
    source: int
    likeness: float


def find_copies(
    tests: Iterable[Path],
    sources: Sources,
    shards: Sequence[Path],
    teacher: Teacher,
    *,
    guilty: float = GUILTY,
    say: Callable[[str], None] = print,
) -> list[Copy]:
    """Return the windows that are copies of test recordings.

    Parameters
    ----------
    tests : iterable of Path
        The recordings; the first 40 s of each are compared.
    sources : Sources
        The windows.
    shards : sequence of Path
        Their clean shards.
    teacher : Teacher
        Who gives embeddings.
    guilty : float
        Likeness from which a window counts as a copy.
    say : callable
        Called with a line a copy.
    """
    units, owners = _embeddings(shards)
    copies = []
    for path in tests:
        try:
            waveform = audio.load(path, end=_SECONDS)
        except AudioError as error:
            say(str(error))
            continue
        log_mel = np.concatenate(list(frontend.patches(waveform)))
        embedding = _unit(teacher.answer(log_mel)[0])
        cosines = (units @ embedding.T.astype(np.float16).astype(np.float32)).max(axis=1)
        best = np.zeros(len(sources), np.float32)
        np.maximum.at(best, owners, cosines)
        frames = frontend.log_mel(waveform)
        for source in np.argsort(-best)[:_SUSPECTS].tolist():
            if best[source] < _LEAST_COSINE or source >= len(sources.windows):
                continue
            other = _frames_of(sources, source)
            found = likeness(frames, other)
            if found >= guilty:
                row = sources.windows.rows[source]
                say(f"{path.name}: {row.package} {row.path} window {row.window} ({found:.2f})")
                copies.append(Copy(path.name, source, found))
    return copies


def likeness(first: Floats, second: Floats) -> float:
    """Return the highest correlation of two spectrograms' detail over all shifts in time.

    Parameters
    ----------
    first, second : float32 (frames, 64)
        Log-mel.

    Returns
    -------
    float
        From -1 to 1; 0 where too little of them lies over each other at any shift.
    """
    from scipy.signal import fftconvolve

    short, long = (_detail(frames) for frames in sorted((first, second), key=len))
    product = fftconvolve(long, short[::-1], axes=0).sum(axis=1)
    long_energy, short_energy = np.square(long).sum(axis=1), np.square(short).sum(axis=1)
    # Of the overlap at each shift: both energies, and frames that are active in both.
    over_long = fftconvolve(long_energy, np.ones(len(short)))
    over_short = fftconvolve(np.ones(len(long)), short_energy[::-1])
    is_active = [(energy > _ACTIVE).astype(float) for energy in (long_energy, short_energy)]
    active = fftconvolve(is_active[0], is_active[1][::-1])
    scale = np.sqrt(np.maximum(over_long, 0) * np.maximum(over_short, 0))
    least = _LEAST_SHARE * min(long_energy.sum(), short_energy.sum())
    enough = (active >= _SHORTEST_FRAMES) & (scale > max(least, 1e-6))
    return float((product[enough] / scale[enough]).max()) if enough.any() else 0.0


def _detail(log_mel: Floats) -> Floats:
    """Return what of a spectrogram is finer than its envelope."""
    from scipy.ndimage import gaussian_filter

    heard = np.maximum(log_mel, _FLOOR)
    result: Floats = heard - gaussian_filter(heard, _SMOOTH, mode="nearest")
    return result


def _embeddings(shards: Sequence[Path]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return all patches' embeddings of length 1, and the source that each belongs to."""
    units, owners = [], []
    for folder in shards:
        shard = Shard(folder)
        units.append(_unit(decode_embedding(np.asarray(shard.embedding))))
        owners.append(np.repeat(shard.source, np.diff(shard.start)))
    return np.concatenate(units), np.concatenate(owners)


def _unit(values: Floats) -> Floats:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    result: Floats = (values / np.maximum(lengths, 1e-9)).astype(np.float32)
    return result


def _frames_of(sources: Sources, source: int) -> Floats:
    waveform = sources.windows.waveform(source)
    frames = frontend.log_mel(waveform)
    if len(frames):
        return frames
    return patches_of(waveform)[0]
