"""Sounds that must not be trained on: copies of test recordings, however re-encoded or cut.

A window is suspected where a patch of it is near a patch of a test recording in YAMNet's embedding,
and found guilty where their log-mel spectrograms, each freed of its mean over time, fit at some
shift. Two recordings of rain are alike on average but not moment by moment; two copies of one are.
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
_SHORTEST_FRAMES = 24
_LEAST_COSINE = 0.6
GUILTY = 0.7
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
    """Return the highest correlation of two log-mel spectrograms over all shifts in time.

    Each band is freed of its mean. Only shifts count at which a good part of the shorter one lies
    over the other.

    Parameters
    ----------
    first, second : float32 (frames, 64)

    Returns
    -------
    float
        From -1 to 1; 0 where one is shorter than a quarter of a second or does not change.
    """
    import scipy.signal

    short, long = sorted((first, second), key=len)
    if len(short) < _SHORTEST_FRAMES:
        return 0.0
    short = short - short.mean(axis=0)
    long = long - long.mean(axis=0)
    # At each shift, the product over the overlap, and both energies there.
    product = scipy.signal.fftconvolve(long, short[::-1], axes=0).sum(axis=1)
    long_energy = np.square(long).sum(axis=1)
    short_energy = np.square(short).sum(axis=1)
    ones_short, ones_long = np.ones(len(short)), np.ones(len(long))
    over_long = scipy.signal.fftconvolve(long_energy, ones_short)
    over_short = scipy.signal.fftconvolve(ones_long, short_energy[::-1])
    overlap = scipy.signal.fftconvolve(ones_long, ones_short)
    scale = np.sqrt(np.maximum(over_long, 0) * np.maximum(over_short, 0))
    enough = overlap >= max(_SHORTEST_FRAMES, 0.5 * len(short))
    # What hardly changes fits everything.
    enough &= scale > 0.05 * short_energy.sum()
    if not enough.any():
        return 0.0
    return float((product[enough] / scale[enough]).max())


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
