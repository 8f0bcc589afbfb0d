"""How much alike two clips are: by what is heard in them, and by how it sounds.

A clip has two traits. The first is its class scores to the power of `POWER`, those below the
score at which clips are found left out; the second is its search vector, the mean of its embedding
frames. Likeness is the cosine of the first, counted `SCORES_SHARE`, plus the cosine of the second,
counted for the rest. Scores know what matters to people, and the mean tells two dogs apart.
``bench/pooling.py`` compares this with other ways; docs/search.md has the table.

Both traits are stored already, clip by clip, so nothing else is. What is looked for is a direction
in the space of both, a *probe*: float32 (`SIZE`,), its likeness to a clip an inner product. So
probes may be averaged and subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.blocks import POSTED_CODE, Block, Rows
from audiosearch.library.columns import encode_scores, score_codes, search_vector

if TYPE_CHECKING:
    from scipy import sparse

__all__ = [
    "POWER",
    "SCORES_SHARE",
    "SIZE",
    "UNLIKE",
    "Floats",
    "Probe",
    "Traits",
    "clip_probe",
    "combined_probe",
    "joined_traits",
    "probe_of",
    "projected_probe",
    "traits_in",
    "traits_of",
]

SIZE = CLASS_COUNT + EMBEDDING_SIZE
"""Values of a probe."""

POWER = 0.5
"""Scores are raised to this power: what is less sure counts, but less."""

SCORES_SHARE = 2 / 3
"""The share of the class scores in a likeness."""

UNLIKE = 0.75
"""How much of the likeness to what is not wanted is taken off."""

Floats: TypeAlias = npt.NDArray[np.float32]
Probe: TypeAlias = npt.NDArray[np.float32]

_VALUES = score_codes() ** np.float32(POWER)
_VALUES[:POSTED_CODE] = 0.0
# Both traits of a clip are scaled by the roots of their shares where they make one vector.
_ROOTS = np.repeat(np.sqrt([SCORES_SHARE, 1 - SCORES_SHARE]), [CLASS_COUNT, EMBEDDING_SIZE])
_ROOTS = _ROOTS.astype(np.float32)


@dataclass(frozen=True)
class Traits:
    """Both traits of some clips, each of length 1, or 0 where a clip has none.

    Attributes
    ----------
    scores : sparse float32 (n, 527)
        Powers of class scores.
    means : float32 (n, 128)
        Search vectors.
    """

    scores: sparse.csr_matrix
    means: Floats

    def __len__(self) -> int:
        return len(self.means)

    def likeness(self, probe: Probe) -> Floats:
        """Return how much each clip is like a probe, float32 (n,)."""
        result: Floats = self.scores @ probe[:CLASS_COUNT] + self.means @ probe[CLASS_COUNT:]
        return result

    def projected(self, basis: Floats) -> Floats:
        """Return the clips as vectors of fewer values.

        Parameters
        ----------
        basis : float32 (SIZE, d)
            Orthonormal columns.

        Returns
        -------
        float32 (n, d)
            Their inner product with `projected_probe` is about the likeness.
        """
        weighted = basis * _ROOTS[:, None]
        result = self.scores @ weighted[:CLASS_COUNT] + self.means @ weighted[CLASS_COUNT:]
        return np.ascontiguousarray(result, np.float32)

    def gram(self) -> npt.NDArray[np.float64]:
        """Return the inner products of the values over the clips, float64 (SIZE, SIZE)."""
        dense = np.concatenate([self.scores.toarray(), self.means], axis=1) * _ROOTS
        return (dense.T @ dense).astype(np.float64)


def projected_probe(probe: Probe, basis: Floats) -> Floats:
    """Return a probe for `Traits.projected`, float32 (d,)."""
    result: Floats = (probe / _ROOTS) @ basis
    return result


def traits_of(block: Block, rows: Rows) -> Traits:
    """Return the traits of some clips of a block; the rows ascend."""
    return traits_in([(block, rows)])


def traits_in(places: Sequence[tuple[Block, Rows]]) -> Traits:
    """Return the traits of some clips of several blocks, in this order; rows ascend."""
    from scipy import sparse

    entries = [block.entries(rows) for block, rows in places]
    counts = np.concatenate([np.diff(each[0]) for each in entries])
    offsets = np.concatenate(([0], np.cumsum(counts)))
    values = _VALUES[np.concatenate([each[2] for each in entries])]
    classes = np.concatenate([each[1] for each in entries])
    own = classes >= CLASS_COUNT
    if own.any():  # likeness is of what every library has
        values, classes = np.where(own, 0, values), np.where(own, 0, classes)
    lengths = np.sqrt(_sums(values * values, offsets))
    values = values / np.repeat(np.maximum(lengths, 1e-12), counts)
    shape = (len(counts), CLASS_COUNT)
    scores = sparse.csr_matrix((values.astype(np.float32), classes, offsets), shape)
    vectors = [_vectors(block, rows).astype(np.float32) for block, rows in places]
    return Traits(scores, _unit(np.concatenate(vectors)))


def joined_traits(parts: Sequence[Traits]) -> Traits:
    """Return the traits of all clips of some parts, in their order."""
    from scipy import sparse

    if not parts:
        empty = np.empty((0, EMBEDDING_SIZE), np.float32)
        return Traits(sparse.csr_matrix((0, CLASS_COUNT), dtype=np.float32), empty)
    if len(parts) == 1:
        return parts[0]
    scores = sparse.vstack([part.scores for part in parts], format="csr", dtype=np.float32)
    return Traits(scores, np.concatenate([part.means for part in parts]))


def probe_of(scores: npt.NDArray[np.floating], frames: npt.NDArray[np.uint8]) -> Probe:
    """Return the probe that looks for what is like a sound.

    Parameters
    ----------
    scores : float (clips, 527)
        Calibrated class scores of its clips.
    frames : uint8 (n, 128)
        Its embedding frames.

    Returns
    -------
    float32 (SIZE,)
    """
    values = _VALUES[encode_scores(np.atleast_2d(scores))]
    return _weighed(_unit(values).sum(axis=0), search_vector(frames))


def clip_probe(traits: Traits, row: int) -> Probe:
    """Return the probe that looks for what is like one of some clips."""
    return _weighed(traits.scores[row].toarray()[0], traits.means[row])


def combined_probe(
    like: Sequence[tuple[Probe, float]], unlike: Sequence[tuple[Probe, float]] = ()
) -> Probe:
    """Return one probe for several examples.

    Parameters
    ----------
    like, unlike : sequence of (probe, weight)
        What is wanted, at least one, and what is not. Weights are above 0; only their ratios
        within each of the two count.

    Returns
    -------
    float32 (SIZE,)
    """
    wanted = _centre(like)
    if unlike:
        wanted = wanted - np.float32(UNLIKE) * _centre(unlike)
    return wanted


def _centre(examples: Sequence[tuple[Probe, float]]) -> Probe:
    total = np.sum([np.float32(weight) * probe for probe, weight in examples], axis=0)
    return _weighed(total[:CLASS_COUNT], total[CLASS_COUNT:])


def _weighed(scores: Floats, mean: Floats) -> Probe:
    """Return a probe of two traits; without scores the mean decides alone."""
    share = SCORES_SHARE if scores.any() else 0.0
    parts = [share * _unit(scores[None])[0], (1 - share) * _unit(mean[None])[0]]
    return np.concatenate(parts).astype(np.float32)


def _vectors(block: Block, rows: Rows) -> npt.NDArray[np.int8]:
    """Return the search vectors of rows: a slice of what is mapped, where that is what it is."""
    whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    return block.vectors[rows[0] : rows[-1] + 1] if whole else block.vectors[rows]


def _sums(values: Floats, offsets: npt.NDArray[np.int64]) -> Floats:
    """Return the sum of each run of values; no run is empty."""
    return np.add.reduceat(values, offsets[:-1]) if len(values) else np.empty(0, np.float32)


def _unit(vectors: Floats) -> Floats:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-12), np.float32)
