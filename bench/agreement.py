"""How much of a sound's top 5 survives another sampling rate or a lossy format.

Run: ``python bench/agreement.py FOLDER [--limit 400]``

Each sound file of the folder is written as 16-bit WAV at its own rate, which is what the others are
compared with: resampled to 44.1 kHz (48 kHz where it is that already), to 8 kHz, as MP3 and as Ogg
Vorbis. Prints the mean share of the five best classes that stay among the five, how often the best
stays the best, and the mean cosine of the embeddings' mean frames.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

import audiosearch as aus
from audiosearch.audio import find_audio
from audiosearch.embedders import dequantize

_SECONDS = 20
_MP3_RATES = (16000, 22050, 24000, 32000, 44100, 48000)

Writer = Callable[[Path, np.ndarray, int], Path | None]


def as_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    target = path.with_suffix(".wav")
    soundfile.write(target, samples, rate, subtype="PCM_16")
    return target


def resampled(wanted: int) -> Writer:
    def write(path: Path, samples: np.ndarray, rate: int) -> Path:
        other = 48000 if wanted == rate == 44100 else wanted
        return as_wav(path, soxr.resample(samples, rate, other), other)

    return write


def as_mp3(path: Path, samples: np.ndarray, rate: int) -> Path | None:
    if rate not in _MP3_RATES:
        return None
    target = path.with_suffix(".mp3")
    soundfile.write(target, samples, rate, format="MP3")
    return target


def as_vorbis(path: Path, samples: np.ndarray, rate: int) -> Path:
    target = path.with_suffix(".ogg")
    soundfile.write(target, samples, rate, format="OGG", subtype="VORBIS")
    return target


def heard(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the five best classes and the mean frame."""
    names = [tag.label for tag in aus.tag(path).tags]
    return names, dequantize(aus.embed(path)).mean(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=400)
    options = parser.parse_args()
    writers: dict[str, Writer] = {
        "44.1 or 48 kHz": resampled(44100),
        "8 kHz": resampled(8000),
        "MP3": as_mp3,
        "Ogg Vorbis": as_vorbis,
    }
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in writers}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for path in list(find_audio(options.folder))[: options.limit]:
            try:
                samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                continue
            mono = samples[: _SECONDS * rate].mean(axis=1)
            before, vector = heard(as_wav(scratch / "original", mono, rate))
            for name, write in writers.items():
                other = write(scratch / "other", mono, rate)
                if other is None:
                    continue
                after, again = heard(other)
                lengths = np.linalg.norm(vector) * np.linalg.norm(again)
                rows[name].append(
                    (
                        len(set(before) & set(after)) / len(before),
                        float(before[0] == after[0]),
                        float(vector @ again / max(lengths, 1e-12)),
                    )
                )
    print("| as | recordings | top 5 kept | best kept | cosine |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        top, best, cosine = np.mean(found, axis=0) if found else (np.nan,) * 3
        print(f"| {name} | {len(found)} | {top:.3f} | {best:.3f} | {cosine:.4f} |")


if __name__ == "__main__":
    main()
