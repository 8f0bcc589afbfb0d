"""What is done to features before a model: pooling over time, and standardising."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.graph import LabGraph, pooled
from audiosearch.lab.settings import LabConfig

__all__ = ["AT_ONCE", "Scaling"]

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

AT_ONCE = 64
"""Sounds whose features are in memory at a time."""


class Scaling:
    """Pools and standardises, by the mean and the deviation of what is learned from.

    A pretrained network's input is scaled as it was when that was trained.

    Parameters
    ----------
    features : FeatureSet
        The features.
    rows : int64 (n,)
        Those that are learned from.
    config : LabConfig
        Settings.
    """

    def __init__(self, features: FeatureSet, rows: Rows, config: LabConfig) -> None:
        self.pools = config.spec.pooled
        if config.spec.scaling is not None:
            # What a pretrained network was trained with.
            self.mean, self.scale = (np.asarray(each, np.float32) for each in config.spec.scaling)
            return
        total: Any = 0.0
        squares: Any = 0.0
        count = 0
        for start in range(0, len(rows), AT_ONCE):
            values = self._pooled(features.take(rows[start : start + AT_ONCE])).astype(np.float64)
            # Spectrograms by band and channel and frames by value, over time; waveforms as a whole.
            axes = (0,) if values.ndim == 2 and config.spec.feature != "waveform" else (0, 1)
            total = total + values.sum(axis=axes)
            squares = squares + np.square(values).sum(axis=axes)
            count += math.prod(values.shape[axis] for axis in axes)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
        self.mean = np.asarray(mean, np.float32)
        # A value that is the same in all sounds tells nothing; it must not become infinite. Of one
        # or two examples a class, no deviation can be told.
        is_scaled = (deviation > 1e-6) & (config.spec.kind != "prototypes")
        self.scale = np.asarray(1 / np.where(is_scaled, deviation, 1), np.float32)

    def _pooled(self, values: Floats) -> Floats:
        return pooled(values) if self.pools else values

    def apply(self, values: Floats) -> Floats:
        """Return what a model takes of features, float32 (n, *shape)."""
        return np.asarray((self._pooled(values) - self.mean) * self.scale, np.float32)

    def write(self, graph: LabGraph, clip: str) -> str:
        """Do the same in a graph."""
        values = graph.pooled(clip) if self.pools else clip
        return graph.standardised(values, self.mean, self.scale)
