"""How long the light commands take to start, beside Python itself and beside importing TensorFlow.

python bench/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

REPEATS = 7
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "audiosearch --help": [sys.executable, "-m", "audiosearch", "--help"],
    "audiosearch search Car": [sys.executable, "-m", "audiosearch", "search", "Car"],
    "import tensorflow": [sys.executable, "-c", "import tensorflow"],
}


def best_time(command: list[str]) -> float | None:
    """Return the best of some runs in seconds; None where the command fails."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            return None
        best = min(best, time.perf_counter() - began)
    return best


def main() -> None:
    plain = best_time(COMMANDS["python -c pass"])
    assert plain is not None
    for name, command in COMMANDS.items():
        best = best_time(command)
        if best is None:
            print(f"{name:<24}  not available")
        else:
            print(f"{name:<24}  {best:6.3f} s  {best / plain:6.1f} x python itself")


if __name__ == "__main__":
    main()
