"""How near copies of a sound come to it, and how near other sounds: what `duplicates` may call one.

    python bench/duplicates.py SOUNDS --packed bal_train.h5

Copies of a fixed sample of SOUNDS are made in other formats, rates, loudnesses and cuts, and
embedded. The likeness of two recordings is the least cosine of their clips' search vectors, as
`audiosearch duplicates` compares them; recordings of other lengths are never compared. The table
shows which share of the copies reach each cosine, and which share of recordings have another one
that reaches it although it is no copy: among the sounds, and among the clips of the packed file,
which are of one length all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

import audiosearch as aus
from audiosearch.audio import SAMPLE_RATE, find_audio, load
from audiosearch.datasets.packed import CLIP_FRAMES, PackedFile
from audiosearch.errors import AudioError
from audiosearch.library.columns import search_vector
from audiosearch.library.duplicates import SECONDS_APART

THRESHOLDS = (0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
Samples = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("--packed", type=Path, help="a packed file of other recordings")
    parser.add_argument("--count", type=int, default=100, help="how many sounds")
    parser.add_argument("--seconds", type=float, nargs=2, default=(2.0, 30.0))
    arguments = parser.parse_args()
    paths = find_audio(arguments.sounds)
    order = np.random.default_rng(0).permutation(len(paths))
    originals: list[tuple[float, Vectors]] = []
    copies: dict[str, list[float]] = {name: [] for name in COPIES}
    with tempfile.TemporaryDirectory() as scratch:
        for place in order.tolist():
            if len(originals) == arguments.count:
                break
            try:
                samples = load(paths[place])
            except AudioError:
                continue
            low, high = arguments.seconds
            if not low <= len(samples) / SAMPLE_RATE <= high or np.abs(samples).max() < 0.01:
                continue
            own = vectors_of(samples, Path(scratch) / "a.wav", write_wav)
            for name, (change, write, suffix) in COPIES.items():
                other = vectors_of(change(samples), Path(scratch) / f"b{suffix}", write)
                copies[name].append(likeness(own, other))
            originals.append((len(samples) / SAMPLE_RATE, own))
    rows = [
        (name, [share(values, least) for least in THRESHOLDS]) for name, values in copies.items()
    ]
    nearest = nearest_others(originals)
    rows.append((f"another of {len(nearest)} sounds", [share(nearest, t) for t in THRESHOLDS]))
    if arguments.packed:
        nearest = nearest_rows(arguments.packed)
        name = f"another of {len(nearest):,} clips of {arguments.packed.name}"
        rows.append((name, [share(nearest, t) for t in THRESHOLDS]))
    print("| reach a cosine of | " + " | ".join(str(least) for least in THRESHOLDS) + " |")
    print("|---|" + "---:|" * len(THRESHOLDS))
    for name, shares in rows:
        print(f"| {name} | " + " | ".join(f"{100 * value:.2f} %" for value in shares) + " |")
    print(f"\n{len(originals)} sounds of {arguments.sounds.name}, embedder lite.")


def same(samples: Samples) -> Samples:
    return samples


def telephone(samples: Samples) -> Samples:
    return soxr.resample(soxr.resample(samples, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)


def write_wav(path: Path, samples: Samples) -> None:
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")


def write_fast(path: Path, samples: Samples) -> None:
    soundfile.write(path, soxr.resample(samples, SAMPLE_RATE, 44100), 44100, subtype="PCM_16")


def write_compressed(path: Path, samples: Samples) -> None:
    # libsndfile's Vorbis writer overruns its stack on long arrays: write in blocks.
    with soundfile.SoundFile(path, "w", samplerate=SAMPLE_RATE, channels=1) as file:
        for start in range(0, len(samples), 8192):
            file.write(samples[start : start + 8192])


COPIES: dict[str, tuple[Callable[[Samples], Samples], Callable[[Path, Samples], None], str]] = {
    "WAV of 44.1 kHz": (same, write_fast, ".wav"),
    "Ogg Vorbis": (same, write_compressed, ".ogg"),
    "MP3": (same, write_compressed, ".mp3"),
    "MP3, 0.7 times the loudness": (lambda x: np.float32(0.7) * x, write_compressed, ".mp3"),
    "MP3, a quarter of the loudness": (lambda x: np.float32(0.25) * x, write_compressed, ".mp3"),
    "without what is above 4 kHz": (telephone, write_wav, ".wav"),
    "the first 0.1 s cut off": (lambda x: x[round(0.1 * SAMPLE_RATE) :], write_wav, ".wav"),
    "the first 0.4 s cut off": (lambda x: x[round(0.4 * SAMPLE_RATE) :], write_wav, ".wav"),
}


def vectors_of(samples: Samples, path: Path, write: Callable[[Path, Samples], None]) -> Vectors:
    """Return the search vectors, clip by clip, of samples as a file."""
    write(path, samples)
    frames = aus.embed(path)
    starts = range(0, len(frames), CLIP_FRAMES)
    return np.stack([search_vector(frames[n : n + CLIP_FRAMES]) for n in starts])


def likeness(one: Vectors, other: Vectors) -> float:
    """Return the least cosine of two recordings' clips; -1 where they have not as many."""
    return float((one * other).sum(axis=1).min()) if len(one) == len(other) else -1.0


def nearest_others(sounds: list[tuple[float, Vectors]]) -> list[float]:
    """Return for each sound how near the nearest other one of its length is."""
    return [
        max(
            [
                likeness(own, other)
                for place, (length, other) in enumerate(sounds)
                if place != number and abs(length - seconds) <= SECONDS_APART
            ],
            default=-1.0,
        )
        for number, (seconds, own) in enumerate(sounds)
    ]


def nearest_rows(path: Path) -> list[float]:
    """Return for each clip of a packed file how near the nearest other one is."""
    with PackedFile(path) as file:
        rows = file.read(0, len(file), labels=False)
    vectors = np.stack([search_vector(x[:n]) for x, n in zip(rows.x, rows.n_frames, strict=True)])
    nearest: list[float] = []
    for start in range(0, len(vectors), 2048):
        cosines = vectors[start : start + 2048] @ vectors.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -1
        nearest.extend(cosines.max(axis=1).tolist())
    return nearest


def share(values: list[float], least: float) -> float:
    return float(np.mean(np.array(values) >= least))


if __name__ == "__main__":
    main()
