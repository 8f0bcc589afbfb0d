"""Runs: the recordings of a block, as bits, to count those with a clip that matches.

Neighbouring rows of one recording are a run of bits in one long number. Of each run all bits but
the last are added to the same bits of the rows that match: the sum carries into the last bit where
one of them does, and never beyond it. So millions of rows are counted by one addition.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Runs", "distinct"]


_Integer = TypeVar("_Integer", bound=np.integer)


class Runs:
    """Counts runs of equal values.

    Parameters
    ----------
    values : (n,)
        Equal ones stand together.
    """

    def __init__(self, values: npt.NDArray[np.integer]) -> None:
        last = np.ones(len(values), np.bool_)
        np.not_equal(values[1:], values[:-1], out=last[:-1])
        self._last = _bits(last)
        self._others = _bits(~last)

    def count(self, mask: npt.NDArray[np.bool_]) -> int:
        """Return how many runs have a place where `mask`, bool (n,), is true."""
        bits = _bits(mask)
        return ((((bits & self._others) + self._others) | bits) & self._last).bit_count()


def distinct(values: npt.NDArray[_Integer]) -> npt.NDArray[_Integer]:
    """Return each value once, ascending.

    `numpy.unique` does the same by hashing since version 2.3, which takes a second for a million
    values that stand in order; sorting takes a hundredth.
    """
    ordered = np.sort(values)
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def _bits(mask: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")
