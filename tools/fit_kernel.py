"""Fit kernel ridge regression, a teacher for distillation.

    python tools/fit_kernel.py bal_train.h5 runs/kernel [--ridge 0.4]

The folder then serves `audiosearch train --teacher` and `audiosearch evaluate --classifier`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from audiosearch.classifier.kernel import fit_kernel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ridge", type=float, default=0.4)
    parser.add_argument("--validation", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fit = fit_kernel(
        options.data,
        options.out,
        ridge=options.ridge,
        validation=options.validation,
        seed=options.seed,
    )
    print(
        f"validation mAP {fit.validation_mAP:.4f}; fitted on {fit.train_clips:,} clips, measured "
        f"on {fit.validation_clips:,}; written to {fit.folder}"
    )


if __name__ == "__main__":
    main()
