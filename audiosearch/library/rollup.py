"""Noisy-or: how surely a clip holds any of several classes.

Each class is a witness that may be wrong; all of them are wrong with the product of their doubts,

    score = 1 - product(1 - score of each class).

So a clip that scores 0.5 for "Car" and 0.5 for "Truck" is a surer vehicle (0.75) than one with a
single 0.5. A class that scores less than `LEAST_SCORE` is no witness: hundreds of them would make
noise look like music.

Sums of logarithms are taken in whole numbers, so that a result does not depend on their order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from audiosearch.library.columns import encode_scores

__all__ = [
    "EVIDENCE",
    "LEAST_CODE",
    "LEAST_SCORE",
    "ROLLUP",
    "codes_of",
    "least_evidence",
    "roll_up",
]

LEAST_SCORE = 0.01
"""From which score on a class counts."""

LEAST_CODE = int(encode_scores(np.array([LEAST_SCORE]))[0])

ROLLUP = "noisy-or"
"""What segments say of their columns of groups."""

# -log(1 - score) in steps of 2**-19: all 527 classes at the highest code still fit int32.
_STEPS = float(1 << 19)
_LOWEST, _CODES_PER_LOGIT = -9.0, 16.0


def _evidence(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return np.rint(np.logaddexp(0.0, logits) * _STEPS).astype(np.int32)


_LOGITS = np.arange(256) / _CODES_PER_LOGIT + _LOWEST
EVIDENCE = np.where(np.arange(256) < LEAST_CODE, 0, _evidence(_LOGITS)).astype(np.int32)
"""What each score code adds to the evidence for a group, int32 (256,)."""

# The least evidence of each code from 1 on: half a step below its own.
_BOUNDS = _evidence(_LOGITS[1:] - 0.5 / _CODES_PER_LOGIT)


def roll_up(columns: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return the noisy-or of columns of score codes, as codes, uint8 (n,); 0 where none counts."""
    total: npt.NDArray[np.int32] | None = None
    for column in columns:
        if total is None:
            total = EVIDENCE[column]
        else:
            total += EVIDENCE[column]
    if total is None:
        raise ValueError("there is no column to roll up")
    return codes_of(total)


def codes_of(evidence: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Return the score codes, uint8, of sums of `EVIDENCE`."""
    return np.searchsorted(_BOUNDS, evidence, side="right").astype(np.uint8)


def least_evidence(code: int) -> int:
    """Return the least sum of `EVIDENCE` that is worth a score code, or more than any for 256."""
    if code <= 0:
        return 0
    return int(_BOUNDS[code - 1]) if code < 256 else int(np.iinfo(np.int32).max)
