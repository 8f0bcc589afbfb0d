"""How good the order of a search is, on clips whose classes are known.

Every query is ranked by the search itself, over an index in memory, and by two simpler methods
over the same classifier's scores:

- ``all``: every clip, by the class's raw score; the product of both for AND, and of one and
  1 minus the other for AND NOT;
- ``top5``: what IBM's MAX audio sample application did: only clips among whose five best classes
  the class is, by its score; for AND NOT the other class must not be among them.

There are two tables. ``exact`` asks ``label:"X"`` and takes the labels as they are. ``closed`` asks
the bare name, and a clip is relevant when it is labelled with X or anything below it, because
AudioSet mostly leaves the parent out. Two-class queries are pairs of classes that occur together,
neither below the other, drawn once with a fixed seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.rescoring import load_rescorer
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import DataError, printable
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.columns import encode_scores
from audiosearch.library.ranking import rank
from audiosearch.library.scoring import packed_by
from audiosearch.library.snapshot import Part
from audiosearch.library.tail import ROW, TailBlock
from audiosearch.query import All, Node, Not, Term, load_vocabulary

__all__ = ["METHODS", "SearchEvaluation", "SearchMeasure", "evaluate_search", "measures_of"]

METHODS = ("search", "all", "top5")
"""The search, and what stands beside it."""

_PAIRS = 200
_FEWEST_TOGETHER = 10
_SEED = 0
_DEPTH = 10
_DISCOUNTS = 1 / np.log2(np.arange(2, _DEPTH + 2))

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Order = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SearchMeasure:
    """Means over the queries of one kind.

    Attributes
    ----------
    kind : str
        ``"class"``, ``"parent"`` (those classes that have others below them), ``"and"`` or
        ``"and not"``.
    method : str
        One of `METHODS`.
    queries : int
        How many; those without a relevant clip are left out.
    average_precision, precision_at_10, ndcg_at_10 : float
        Relevant clips that a method does not return count as missed.
    """

    kind: str
    method: str
    queries: int
    average_precision: float
    precision_at_10: float
    ndcg_at_10: float


@dataclass(frozen=True)
class SearchEvaluation:
    """How good the search is on a file: what each table says, and on how many clips."""

    clips: int
    classes: int
    exact: list[SearchMeasure]
    closed: list[SearchMeasure]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def evaluate_search(
    path: str | os.PathLike[str], *, on_progress: Callable[[int, int], None] | None = None
) -> SearchEvaluation:
    """Measure the order of the search on a packed file with labels.

    Parameters
    ----------
    path : path-like
        A packed HDF5 file with ``x`` and ``y``.
    on_progress : callable, optional
        Called with the clips scored and the clips in all.

    Raises
    ------
    DataError
        When the file is not as it must be, or has no labelled clip.
    ModelError
        When the classifier cannot be used.
    """
    scorer = load_scorer()
    raw, stored, truth = [], [], []
    with PackedFile(path, labels=True) as file:
        rescorer = load_rescorer(*packed_by(file))
        for start, clips in file.blocks():
            assert clips.y is not None  # labels were asked for
            scores = scorer.score(clips.x, clips.n_frames)
            better = scorer.calibrated(scores).astype(np.float32)
            if rescorer is not None:
                better = rescorer.rescore(better, clips.x, clips.n_frames)
            raw.append(scores)
            stored.append(encode_scores(better))
            truth.append(clips.y)
            if on_progress:
                on_progress(start + len(clips.x), len(file))
    if not any(part.any() for part in truth):
        raise DataError(f"{printable(os.fspath(path))}: no clip has a label.")
    return measure(np.concatenate(raw), np.concatenate(stored), np.concatenate(truth))


def measure(raw: Floats, codes: npt.NDArray[np.uint8], truth: Bools) -> SearchEvaluation:
    """Measure the search on clips whose scores are known.

    Parameters
    ----------
    raw : float32 (clips, 527)
        The classifier's scores, which the simpler methods use.
    codes : uint8 (clips, 527)
        What a library stores of the clips.
    truth : bool (clips, 527)
        Their labels.
    """
    labels = load_labels()
    below = [(index, *labels.descendants(index)) for index in range(CLASS_COUNT)]
    closed = np.stack([truth[:, list(classes)].any(axis=1) for classes in below], axis=1)
    data = np.zeros(len(raw), ROW)
    data["recording"], data["scores"] = np.arange(1, len(raw) + 1), codes
    part = Part(TailBlock(0, data))
    best = np.argsort(-raw, axis=1, kind="stable")[:, :5]
    top5 = np.zeros(raw.shape, np.bool_)
    np.put_along_axis(top5, best, True, axis=1)
    pairs = _pairs(truth, below)
    parents = {index for index, classes in enumerate(below) if len(classes) > 1}
    tables = []
    for relevant, terms in ((truth, _exact_terms()), (closed, _bare_terms())):
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for kind, wanted, node, score, listed in _queries(terms, relevant, raw, top5, pairs):
            total = int(wanted.sum())
            if not total:
                continue
            kinds = [kind, "parent"] if isinstance(node, Term) and _own(node) in parents else [kind]
            for method, order in zip(METHODS, _orders(node, part, score, listed), strict=True):
                values = measures_of(wanted[order], total)
                for name in kinds:
                    found.setdefault((name, method), []).append(values)
        tables.append(
            [
                SearchMeasure(kind, method, len(rows), *np.mean(rows, axis=0).tolist())
                for kind in ("class", "parent", "and", "and not")
                for method in METHODS
                if (rows := found.get((kind, method)))
            ]
        )
    return SearchEvaluation(len(raw), int(truth.any(axis=0).sum()), tables[0], tables[1])


def measures_of(relevant: Bools, total: int) -> tuple[float, float, float]:
    """Return average precision, precision at 10 and nDCG at 10 of one ranked list.

    Parameters
    ----------
    relevant : bool (n,)
        Which of the clips returned are relevant, best first.
    total : int
        How many relevant clips there are, at least 1.
    """
    places = np.flatnonzero(relevant)
    precision = float((np.arange(1, len(places) + 1) / (places + 1)).sum() / total)
    first = relevant[:_DEPTH]
    gain = float(_DISCOUNTS[: len(first)][first].sum())
    return precision, float(first.sum() / _DEPTH), gain / float(_DISCOUNTS[:total].sum())


_Query = tuple[str, Bools, Node, Floats, Bools]


def _queries(
    terms: Sequence[Term],
    relevant: Bools,
    raw: Floats,
    top5: Bools,
    pairs: Sequence[tuple[int, int]],
) -> Iterator[_Query]:
    """Give each query: its kind, relevant clips, tree, and what the simpler methods rank by."""
    for index, term in enumerate(terms):
        yield "class", relevant[:, index], term, raw[:, index], top5[:, index]
    for one, two in pairs:
        both = All((terms[one], terms[two]))
        wanted = relevant[:, one] & relevant[:, two]
        yield "and", wanted, both, raw[:, one] * raw[:, two], top5[:, one] & top5[:, two]
        without = All((terms[one], Not(terms[two])))
        wanted = relevant[:, one] & ~relevant[:, two]
        score = raw[:, one] * (1 - raw[:, two])
        yield "and not", wanted, without, score, top5[:, one] & ~top5[:, two]


def _orders(node: Node, part: Part, score: Floats, listed: Bools) -> tuple[Order, Order, Order]:
    """Return the clips that each method returns, best first."""
    page = rank(node, [part], offset=0, limit=part.block.rows)
    every = np.argsort(-score, kind="stable")
    return page.recordings - 1, every, every[listed[every]]


def _pairs(truth: Bools, below: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Return pairs of classes that occur together, at most `_PAIRS`, ascending."""
    counted = truth.astype(np.float32)
    together = np.triu(counted.T @ counted, 1) >= _FEWEST_TOGETHER
    apart = [
        (one, two)
        for one, two in np.argwhere(together).tolist()
        if not set(below[one]) & set(below[two])
    ]
    if len(apart) <= _PAIRS:
        return apart
    drawn = np.random.default_rng(_SEED).choice(len(apart), _PAIRS, replace=False)
    return [apart[number] for number in sorted(drawn.tolist())]


def _exact_terms() -> list[Term]:
    found = [load_vocabulary().label(label.name) for label in load_labels()]
    return [term for term in found if term is not None]


def _bare_terms() -> list[Term]:
    found = [load_vocabulary().term(label.name) for label in load_labels()]
    return [term for term in found if term is not None]


def _own(term: Term) -> int:
    return term.classes[0]
