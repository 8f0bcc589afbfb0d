"""Speed of the log-mel front end on one core, beside librosa's mel spectrogram.

Run: ``python bench/frontend.py [--seconds 120]``. Prints seconds of sound per second of work.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

# One core for both, before any library starts its threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import time
from collections.abc import Callable

import numpy as np

from audiosearch import frontend
from audiosearch.audio import SAMPLE_RATE


def best_of(work: Callable[[], object], repeats: int = 5) -> float:
    """Shortest time of several runs, in seconds; the first run, which warms up, is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="length of the noise (120)")
    seconds = parser.parse_args().seconds
    sound = np.random.default_rng(0).standard_normal(seconds * SAMPLE_RATE).astype(np.float32) / 10
    blocks = np.array_split(sound, max(1, seconds // 5))

    ours = seconds / best_of(lambda: sum(len(batch) for batch in frontend.patches(blocks)))
    print(f"audiosearch.frontend.patches  {ours:8.0f} x real time")
    try:
        import librosa
    except ImportError:
        print("librosa is not installed: nothing to compare with.")
        return

    def theirs() -> np.ndarray:
        mel = librosa.feature.melspectrogram(
            y=sound, sr=SAMPLE_RATE, n_fft=512, win_length=400, hop_length=160, center=False,
            power=1.0, n_mels=64, fmin=125.0, fmax=7500.0, htk=True, norm=None,
        )  # fmt: skip
        return np.log(mel + 0.01)

    other = seconds / best_of(theirs)
    print(f"librosa.feature.melspectrogram{other:8.0f} x real time")
    print(f"ratio                         {ours / other:8.1f}")


if __name__ == "__main__":
    main()
