"""How many clips a second the bundled classifier scores.

    python bench/scorer.py [--clips 20000] [--classifier RUN]

Prints the rate with one thread and with all cores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from audiosearch.classifier.scorer import load_scorer
from audiosearch.jobs import core_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--classifier")
    options = parser.parse_args()
    x = np.random.default_rng(0).integers(0, 256, (options.clips, 10, 128), dtype=np.uint8)
    rates = {}
    for threads in sorted({1, core_count()}):
        scorer = load_scorer(options.classifier, threads=threads)
        scorer.score(x[:320])  # the first batches also allocate
        began = time.perf_counter()
        scorer.score(x)
        rates[threads] = len(x) / (time.perf_counter() - began)
        ratio = rates[threads] / rates[1]
        print(f"{threads} threads: {rates[threads]:8,.0f} clips a second, {ratio:.2f} x one thread")


if __name__ == "__main__":
    main()
