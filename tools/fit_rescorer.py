"""Fit the rescorer of released embeddings: what makes the bundled classifier's scores better.

    python tools/fit_rescorer.py bal_train.h5 [--out audiosearch/data]

To be run again whenever the bundled classifier or its calibration changes; then
``tools/build_shipped_library.py``, and for the bundled embedder's clips ``python -m tools.lite
rescore``. docs/search.md says what it does and how good it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from audiosearch.classifier.rescoring_fit import fit_rescorer

DATA = Path(__file__).resolve().parent.parent / "audiosearch" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--ridge", type=float, default=1.0)
    parser.add_argument("--share", type=float, default=32.0)
    options = parser.parse_args()
    fit = fit_rescorer(options.data, options.out, ridge=options.ridge, share=options.share)
    print(
        f"{fit.weights}: fitted on {fit.train_clips:,} clips, calibrated on "
        f"{fit.validation_clips:,}"
    )


if __name__ == "__main__":
    main()
