"""A flat layout of many vectors in which near ones lie together: t-SNE, in bounded time.

The objective is that of t-SNE (van der Maaten and Hinton, 2008): each point keeps its nearest
neighbours near, and all points push one another away with the heavy tail of Student's t. Pushing is
a sum over all pairs; as in FIt-SNE (Linderman et al., 2019) it is computed on a grid, as three
convolutions by FFT, so a step costs time in proportion to the points and not to their square.

The start is a projection on the two principal axes and there is no chance anywhere, so the same
vectors give the same picture.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft, sparse

from audiosearch.errors import InvalidArgumentError

__all__ = ["lay_out"]

_NEIGHBOURS = 40
_PERPLEXITY = 15.0
_STEPS = 400
_EARLY = 100  # steps in which attraction is exaggerated, so that groups form first
_EXAGGERATION = 12.0
_LEAST_CELLS, _MOST_CELLS = 32, 256
_NODES = 3  # of the interpolation in a cell, in each direction
_FEW = 800  # of so many points all pairs are summed
_LEAST = 1e-12

Floats = npt.NDArray[np.float64]


def lay_out(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Lay vectors out in the plane.

    Parameters
    ----------
    vectors : float (n, d)
        What is laid out; near is what has a large inner product.

    Returns
    -------
    float32 (n, 2)
        From -1 to 1 in the larger direction, centred.

    Raises
    ------
    InvalidArgumentError
        When the vectors are no table of finite numbers.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InvalidArgumentError(
            f"A layout is made of finite vectors (n, d), not of shape {vectors.shape}."
        )
    places = _principal(vectors)
    if len(vectors) > 3:
        places = _settled(places, _affinities(vectors))
    return _fitted(places)


def _principal(vectors: npt.NDArray[np.float32]) -> Floats:
    """Return the vectors on their two principal axes, of a small spread, float64 (n, 2)."""
    if not len(vectors):
        return np.empty((0, 2))
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    # An axis has no direction of its own: let its largest part be positive.
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    places = np.zeros((len(vectors), 2))
    places[:, : axes.shape[1]] = centred @ axes
    places *= 1e-4 / max(float(places[:, 0].std()), _LEAST)
    # Equal vectors would stay on one spot for good: set them off by their number.
    turn = 2.399963 * np.arange(len(places))
    return places + 1e-6 * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _affinities(vectors: npt.NDArray[np.float32]) -> sparse.csr_matrix:
    """Return how strongly each point holds each of its neighbours, symmetric, of sum 1."""
    import faiss

    count = min(_NEIGHBOURS, len(vectors) - 1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    near, found = index.search(vectors, count + 1)
    # Each is its own nearest, but for copies; of each the first of `count` others is kept.
    others = found != np.arange(len(vectors))[:, None]
    others[others.all(axis=1), -1] = False
    found, near = found[others].reshape(-1, count), near[others].reshape(-1, count)
    squares = np.maximum(near[:, :1] - near, 0.0).astype(np.float64)
    weights = _weights(squares, min(_PERPLEXITY, count / 2))
    rows = np.repeat(np.arange(len(vectors)), count)
    held = sparse.csr_matrix(
        (weights.reshape(-1), (rows, found.reshape(-1))), (len(vectors), len(vectors))
    )
    held = held + held.T
    return sparse.csr_matrix(held / held.sum())


def _weights(squares: Floats, perplexity: float) -> Floats:
    """Return weights of sum 1 for each row, each as even as `perplexity` equal ones."""
    low, high = np.zeros(len(squares)), np.full(len(squares), np.inf)
    beta = np.ones(len(squares))
    for _ in range(60):
        weights = np.exp(-squares * beta[:, None])
        total = weights.sum(axis=1)
        entropy = np.log(total) + beta * (squares * weights).sum(axis=1) / total
        wide = entropy > np.log(max(perplexity, 1.0))
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isfinite(high), (low + high) / 2, beta * 2)
        beta = np.minimum(beta, 1e12)
    weights = np.exp(-squares * beta[:, None])
    result: Floats = weights / weights.sum(axis=1, keepdims=True)
    return result


def _settled(places: Floats, held: sparse.csr_matrix) -> Floats:
    """Move points by gradient descent with momentum and a gain for each."""
    held.sort_indices()
    columns, starts, strength = held.indices, held.indptr, held.data.astype(np.float32)
    counts = np.diff(starts)
    gains, speed = np.ones_like(places), np.zeros_like(places)
    rate = max(len(places) / _EXAGGERATION, 50.0)
    for step in range(_STEPS):
        early = step < _EARLY
        small = places.astype(np.float32)
        apart = np.repeat(small, counts, axis=0) - small[columns]
        pull = strength / (1.0 + np.einsum("ij,ij->i", apart, apart))
        pairs = sparse.csr_matrix((pull, columns, starts), held.shape)
        pulled = places * np.asarray(pairs.sum(axis=1)) - pairs @ places
        gradient = 4.0 * ((_EXAGGERATION if early else 1.0) * pulled - _pushed(places))
        same = np.sign(gradient) == np.sign(speed)
        gains = np.maximum(np.where(same, gains * 0.8, gains + 0.2), 0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gains * gradient
        places = places + speed
        places -= places.mean(axis=0)
    return places


def _pushed(places: Floats) -> Floats:
    """Return how much all others push each point, normalised, float64 (n, 2)."""
    return _pushed_exactly(places) if len(places) <= _FEW else _pushed_on_grid(places)


def _pushed_exactly(places: Floats) -> Floats:
    squares = (places**2).sum(axis=1)
    weights = 1.0 / (1.0 + squares[:, None] + squares - 2.0 * (places @ places.T))
    np.fill_diagonal(weights, 0.0)
    total = max(float(weights.sum()), _LEAST)
    weights *= weights
    result: Floats = (places * weights.sum(axis=1, keepdims=True) - weights @ places) / total
    return result


def _pushed_on_grid(places: Floats) -> Floats:
    low = places.min(axis=0)
    side = max(float((places.max(axis=0) - low).max()), 1e-9) * (1 + 1e-9)
    # A cell is at most as wide as the kernel, so three nodes a cell follow it.
    cells = int(np.clip(np.ceil(side), _LEAST_CELLS, _MOST_CELLS))
    width = side / cells
    node = width / _NODES
    within = (places - low) / width
    cell = np.minimum(within.astype(np.int64), cells - 1)
    lagrange = _lagrange(within - cell)  # (n, nodes, 2)
    size = cells * _NODES
    offsets = np.arange(_NODES)
    xs = (cell[:, 0] * _NODES)[:, None] + offsets
    ys = (cell[:, 1] * _NODES)[:, None] + offsets
    at = (xs[:, :, None] * size + ys[:, None, :]).reshape(len(places), -1)
    share = (lagrange[:, :, None, 0] * lagrange[:, None, :, 1]).reshape(len(places), -1)
    spread = sparse.csr_matrix(
        (share.reshape(-1), at.reshape(-1), np.arange(len(places) + 1) * _NODES**2),
        (len(places), size * size),
    )
    # With charges (1, x, y) the sums over all points of k and of k^2 (x - y) follow.
    charges = np.column_stack([np.ones(len(places)), places - low])
    # Single precision halves the time; the pull knows no more digits either.
    grid = np.ascontiguousarray((spread.T @ charges).T, np.float32).reshape(3, size, size)
    length = fft.next_fast_len(2 * size - 1, real=True)
    step = np.minimum(np.arange(length), length - np.arange(length)) * np.float32(node)
    squares = np.float32(1) + step[:, None] ** 2 + step[None, :] ** 2
    seen = fft.rfft2(grid, (length, length))
    narrow = fft.rfft2(1.0 / squares**2)
    wide = fft.rfft2(1.0 / squares)
    sums = fft.irfft2(np.concatenate([seen * narrow, (seen[0] * wide)[None]]), (length, length))
    potential = spread @ sums[:, :size, :size].reshape(4, -1).T
    total = float(potential[:, 3].sum()) - len(places)  # none pushes itself
    moved = (places - low) * potential[:, :1] - potential[:, 1:3]
    result: Floats = moved / max(total, _LEAST)
    return result


def _lagrange(within: Floats) -> Floats:
    """Return the weights of the nodes of a cell for places from 0 to 1 in it, (n, nodes, 2)."""
    nodes = (np.arange(_NODES) + 0.5) / _NODES
    result = np.ones((len(within), _NODES, 2))
    for one in range(_NODES):
        for other in range(_NODES):
            if one != other:
                result[:, one] *= (within - nodes[other]) / (nodes[one] - nodes[other])
    return result


def _fitted(places: Floats) -> npt.NDArray[np.float32]:
    """Return places centred, from -1 to 1."""
    if not len(places):
        return np.empty((0, 2), np.float32)
    low, high = places.min(axis=0), places.max(axis=0)
    half = max(float((high - low).max()) / 2, _LEAST)
    return ((places - (low + high) / 2) / half).astype(np.float32)
