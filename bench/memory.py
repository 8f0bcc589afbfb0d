"""Peak memory of embedding one file, by the file's length.

Run: ``python bench/memory.py [--minutes 1 60 600] [--embedder lite]``

Writes noise as 16-bit WAV (mono, 16 kHz; 115 MB an hour) to a temporary folder and embeds each file
in a process of its own. Prints the process's peak memory, what of it was there before the file was
opened, and the speed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

_RATE = 16000
_MINUTE = 60 * _RATE
_CODE = """
import resource, sys, time
import audiosearch as aus

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

aus.embed(sys.argv[1], embedder=sys.argv[3])
before, began = peak(), time.perf_counter()
frames = aus.embed(sys.argv[2], embedder=sys.argv[3])
print(before, peak(), len(frames) * 0.96 / (time.perf_counter() - began))
"""


def write_noise(path: Path, minutes: int) -> Path:
    """Write noise that differs from minute to minute."""
    with soundfile.SoundFile(path, "w", _RATE, 1, "PCM_16", format="WAV") as file:
        for minute in range(minutes):
            random = np.random.default_rng(minute)
            file.write(random.integers(-8000, 8000, _MINUTE, dtype=np.int16))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 60, 600])
    parser.add_argument("--embedder", default="lite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = write_noise(Path(folder) / "first.wav", 1)
        print("| minutes | peak MB | before MB | x real time |")
        print("|---|---|---|---|")
        for minutes in options.minutes:
            path = write_noise(Path(folder) / "long.wav", minutes)
            command = [sys.executable, "-c", _CODE, str(first), str(path), options.embedder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, peak, speed = map(float, done.stdout.split())
            print(f"| {minutes} | {peak:.0f} | {before:.0f} | {speed:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
