"""A pair's features as they might have been, so near to what they are that its embedding holds.

There are few pairs, and each is seen dozens of times: variants keep the adaptor from learning them
by heart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["VARIANTS", "variants_of"]

Floats = npt.NDArray[np.float32]

VARIANTS = 8
"""How many there are of a pair, itself among them."""

_SHIFT = 10  # frames of 10 ms
_GAIN_DB = 3.0
_BEND_DB = 1.5
_KNOTS = 5
_OFFSET = 0.01  # inside the logarithm


def variants_of(log_mel: Floats, random: np.random.Generator, count: int) -> list[Floats]:
    """Return patches, and variants of them: begun a little earlier or later, louder, duller.

    Parameters
    ----------
    log_mel : float32 (n, 96, 64)
        Patches in a row.
    random : numpy.random.Generator
        What is drawn from.
    count : int
        How many, the patches themselves first.

    Returns
    -------
    list of float32 (n, 96, 64)
    """
    found = [log_mel]
    rows = log_mel.reshape(-1, log_mel.shape[-1])
    bands = np.linspace(0, _KNOTS - 1, rows.shape[1])
    for _ in range(count - 1):
        shift = int(random.integers(-_SHIFT, _SHIFT + 1))
        places = np.clip(np.arange(len(rows)) + shift, 0, len(rows) - 1)
        bend = np.interp(bands, np.arange(_KNOTS), random.normal(0.0, _BEND_DB, _KNOTS))
        decibels = bend + random.uniform(-_GAIN_DB, _GAIN_DB)
        mel = np.maximum(np.exp(rows[places]) - np.float32(_OFFSET), 0.0)
        mel = mel * (10 ** (decibels / 20)).astype(np.float32)
        changed = np.log(mel + np.float32(_OFFSET)).astype(np.float32)
        found.append(changed.reshape(log_mel.shape))
    return found
