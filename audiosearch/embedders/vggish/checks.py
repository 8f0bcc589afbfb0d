"""Is it VGGish? Google's smoke test; and how far the int8 variant agrees with it.

The smoke test is the published one (tensorflow/models, vggish_smoke_test.py, as of July 2023): the
mean and the standard deviation of the embedding of a 1 kHz tone, and of its bytes after the PCA,
each within 10 %. Weights that pass are VGGish's as far as can be told; no checksum is published.

The int8 variant is compared with the float32 one on made sounds, and on a user's own where given.
What is asked of it follows from a measurement on AudioSet's evaluation set: normal noise of a
standard deviation of 16 on the released bytes does not lower the mAP of the bundled classifier
(0.2965 to 0.2963 on 4,000 clips), noise of 24 does (0.2925). See docs/models/vggish.md.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import dequantize
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish.postprocess import Postprocessor
from audiosearch.embedders.vggish.probes import smoke_patches

__all__ = ["Agreement", "Figure", "SmokeTest", "compare", "run_smoke_test"]

# Expected mean and standard deviation of the embedding, then of its bytes; relative tolerance.
_EXPECTED = {
    "embedding mean": 0.000657,
    "embedding standard deviation": 0.343,
    "bytes mean": 126.0,
    "bytes standard deviation": 89.3,
}
_TOLERANCE = 0.1

MOST_MEDIAN_ERROR = 16.0
MOST_HIGH_ERROR = 24.0
_HIGH_PERCENTILE = 95


@dataclass(frozen=True)
class Figure:
    """One measured value of the smoke test and the published one."""

    name: str
    measured: float
    expected: float

    @property
    def passed(self) -> bool:
        """Whether it is within the published tolerance."""
        return abs(self.measured - self.expected) <= _TOLERANCE * abs(self.expected)


@dataclass(frozen=True)
class SmokeTest:
    """Result of Google's smoke test."""

    figures: tuple[Figure, ...]

    @property
    def passed(self) -> bool:
        """Whether every figure is within the published tolerance."""
        return all(figure.passed for figure in self.figures)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        figures = [asdict(figure) | {"passed": figure.passed} for figure in self.figures]
        return {"passed": self.passed, "tolerance": _TOLERANCE, "figures": figures}


@dataclass(frozen=True)
class Agreement:
    """How far the int8 variant agrees with VGGish, and what it gains.

    Attributes
    ----------
    frames : int
        How many frames of 0.96 s were compared.
    median_error, high_error : float
        Error of a frame's bytes (root of the mean square, 0 to 255): median and 95th percentile.
    median_cosine : float
        Cosine between the two embeddings of a frame, as searches take them: median.
    speed_ratio : float
        How many times as fast it was, in this run, on all cores.
    size_ratio : float
        Size of its file beside VGGish's.
    """

    frames: int
    median_error: float
    high_error: float
    median_cosine: float
    speed_ratio: float
    size_ratio: float

    @property
    def accepted(self) -> bool:
        """Whether it may take VGGish's place."""
        return self.median_error <= MOST_MEDIAN_ERROR and self.high_error <= MOST_HIGH_ERROR

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        limits = {"median_error": MOST_MEDIAN_ERROR, "high_error": MOST_HIGH_ERROR}
        return asdict(self) | {"accepted": self.accepted, "at_most": limits}


def run_smoke_test(network: PatchNetwork, postprocess: Postprocessor) -> SmokeTest:
    """Run Google's smoke test; the network is the one before PCA."""
    values = network.run(smoke_patches())
    measured = []
    for array in (values, postprocess(values)):
        exact = array.astype(np.float64)
        measured += [float(exact.mean()), float(exact.std())]
    return SmokeTest(
        tuple(
            Figure(name, value, expected)
            for (name, expected), value in zip(_EXPECTED.items(), measured, strict=True)
        )
    )


def compare(
    reference: PatchNetwork,
    other: PatchNetwork,
    postprocess: Postprocessor,
    patches: npt.NDArray[np.float32],
    *,
    size_ratio: float,
) -> Agreement:
    """Compare two networks on the same patches (n, 96, 64), n > 0."""
    seconds, rows = [], []
    for network in (reference, other):
        network.run(patches[:1])  # the first run of a session takes longer
        began = time.perf_counter()
        rows.append(postprocess(network.run(patches)))
        seconds.append(time.perf_counter() - began)
    error = np.sqrt(np.square(rows[0].astype(np.float64) - rows[1]).mean(axis=1))
    a, b = (dequantize(row).astype(np.float64) for row in rows)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return Agreement(
        frames=len(patches),
        median_error=float(np.median(error)),
        high_error=float(np.percentile(error, _HIGH_PERCENTILE)),
        median_cosine=float(np.median(cosine)),
        speed_ratio=seconds[0] / max(seconds[1], 1e-9),
        size_ratio=size_ratio,
    )
