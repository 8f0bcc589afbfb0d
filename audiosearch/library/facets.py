"""What else the hits of a query have in common: counts that narrow it, each a piece of a query.

A count is the number of recordings that the narrowed query finds, exactly, because it is counted as
the search counts: a class where a clip that matches also scores at least `MATCH_SCORE` for it.
Where very many clips match, classes are counted in an even sample of them, and these counts are
estimates.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.labels import CLASS_COUNT, load_labels, name_key
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.columns import decode_scores
from audiosearch.library.filters import Facts, years_of
from audiosearch.library.matching import MATCH_CODE, Masks, Scores, within_spans, without_spans
from audiosearch.library.ranking import all_matches
from audiosearch.library.runs import distinct
from audiosearch.library.snapshot import Part, Snapshot
from audiosearch.query import (
    All,
    DurationFilter,
    Either,
    Node,
    Not,
    PathFilter,
    Range,
    Term,
    YearFilter,
    label_query,
)

__all__ = ["FACET_CLIPS", "WEAK_SCORE", "Facet", "FacetCounter", "Facets", "narrowed"]

WEAK_SCORE = 0.1
"""What scores less is weak evidence; the last of the scores that narrow a query."""

FACET_CLIPS = 50_000
"""In how many clips classes are counted at most."""

_CLASSES, _FOLDERS, _YEARS = 12, 10, 8
_KEPT = 128
_SCORES = 0.5, WEAK_SCORE
_LENGTHS = (
    ("under 2 s", "duration:<2", 0.0, 2.0),
    ("2 to 10 s", "duration:>=2 duration:<10", 2.0, 10.0),
    ("10 s to 1 min", "duration:>=10 duration:<60", 10.0, 60.0),
    ("1 to 10 min", "duration:>=60 duration:<600", 60.0, 600.0),
    ("10 min and longer", "duration:>=600", 600.0, np.inf),
)


@dataclass(frozen=True)
class Facet:
    """One thing that some of the hits have in common.

    Attributes
    ----------
    text : str
        What it is.
    narrows : str
        The piece of a query that asks for it.
    query : str
        The whole query with it.
    count : int
        How many recordings that finds.
    own : bool
        Whether it is a class of the user's own.
    """

    text: str
    narrows: str
    query: str
    count: int
    own: bool = False


@dataclass(frozen=True)
class Facets:
    """What narrows a query: scores from high to low, classes and folders with the most hits first,
    lengths from short to long, years from the last to the first.

    Attributes
    ----------
    scores, classes, folders, lengths, years : list of Facet
        Empty where all hits are alike in it, or the query names it already.
    estimated : bool
        Whether the counts of the classes come from a sample.
    """

    scores: list[Facet]
    classes: list[Facet]
    folders: list[Facet]
    lengths: list[Facet]
    years: list[Facet]
    estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def narrowed(query: str, node: Node, piece: str) -> str:
    """Return a query that asks for one thing more.

    Parameters
    ----------
    query : str
        What was asked.
    node : Node
        What it was understood as.
    piece : str
        A piece of a query.
    """
    text = query.strip()
    if isinstance(node, Either):
        text = f"({text})"
    elif isinstance(node, Term) and '"' not in text and not text.startswith("/"):
        # A class's whole name is understood as it stands, but not with more words behind it.
        text = text if re.fullmatch(r"\w+", text) else f'"{text}"'
    return f"{text} {piece}"


class FacetCounter:
    """Counts facets, and keeps the last.

    Parameters
    ----------
    catalogue : Catalogue
        The library's catalogue.
    facts : Facts
        About its recordings.
    """

    def __init__(self, catalogue: Catalogue, facts: Facts) -> None:
        self._catalogue, self._facts = catalogue, facts
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, Facets] = OrderedDict()
        self._folders: tuple[tuple[int, int], npt.NDArray[np.int64], list[str]] | None = None
        self._folder_ids = np.empty(0, np.int64)

    def count(
        self,
        query: str,
        node: Node,
        now: Snapshot,
        parts: Sequence[Part],
        masks: Masks,
        *,
        folded: bool,
    ) -> Facets:
        """Return the facets of the hits of a query in `parts`, which may be without copies."""
        key = query, node, now.changes, folded
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        facets = self._counted(query, node, now, parts, masks)
        with self._lock:
            self._kept[key] = facets
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return facets

    def _counted(
        self, query: str, node: Node, now: Snapshot, parts: Sequence[Part], masks: Masks
    ) -> Facets:
        # A range of scores is about the product of all terms, so one more term moves it.
        plain, spans = without_spans(node)
        found = list(all_matches(plain, parts, masks=masks))
        total = sum(len(rows) for rows, _ in found)
        step = -(-total // FACET_CLIPS) or 1
        names = now.class_names
        counts, heard = np.zeros(len(names), np.int64), np.zeros(len(names))
        recordings = [np.empty(0, np.int64)]
        for part, (rows, scores) in zip(parts, found, strict=True):
            owners = part.block.recordings[rows].astype(np.int64)
            recordings.append(owners[within_spans(scores, spans)])
            # Whole recordings: what is counted are they.
            one = slice(None) if step == 1 else _every(step, owners)
            offsets, classes, codes = part.block.entries(rows[one], ordered=False)
            lengths = np.diff(offsets)
            sure = codes >= MATCH_CODE
            if spans:
                both = np.repeat(scores[one], lengths) * decode_scores(codes)
                sure &= within_spans(both, spans)
            whose = np.repeat(owners[one], lengths)[sure]
            classes, codes = classes[sure], codes[sure]
            heard += np.bincount(classes, weights=decode_scores(codes), minlength=len(names))
            if not part.block.single:
                classes = distinct(whose * len(names) + classes) % len(names)
            counts += np.bincount(classes, minlength=len(names)) * step
        ids = distinct(np.concatenate(recordings))
        counts = np.minimum(counts, len(ids))

        def facet(text: str, piece: str, count: int, own: bool = False) -> Facet:
            return Facet(text, piece, narrowed(query, node, piece), count, own)

        scores_ = []
        if not spans:
            scores_ = [facet(*each) for each in _by_score(parts, found) if 0 < each[2] < len(ids)]
        asked = _asked(node)
        named = {index for term in asked if isinstance(term, Term) for index in term.classes[:1]}
        chosen = [
            index
            for index in np.argsort(-heard, kind="stable")[: _CLASSES + len(named)].tolist()
            if index not in named and counts[index] > 0 and (counts[index] < len(ids) or step > 1)
        ][:_CLASSES]
        classes_ = [
            facet(names[i], _class_piece(i, now), int(counts[i]), i >= CLASS_COUNT)
            for i in sorted(chosen, key=lambda i: -counts[i])
        ]
        folders, lengths_, years = [], [], []
        if not any(isinstance(each, PathFilter) for each in asked):
            folders = [facet(*each) for each in self._by_folder(now, ids)]
        if not any(isinstance(each, DurationFilter) for each in asked):
            seconds = _of(ids, *self._facts.seconds(now))
            lengths_ = [
                facet(text, piece, count)
                for text, piece, low, high in _LENGTHS
                if (count := int(((seconds >= low) & (seconds < high)).sum()))
            ]
        if not any(isinstance(each, YearFilter) for each in asked):
            each_year, many = np.unique(
                years_of(_of(ids, *self._facts.times(now))), return_counts=True, equal_nan=True
            )
            pairs_ = [
                (int(year), int(count))
                for year, count in zip(each_year.tolist(), many.tolist(), strict=True)
                if np.isfinite(year) and 1000 <= year <= 9999
            ]
            years = [facet(str(y), f"year:{y}", n) for y, n in sorted(pairs_, reverse=True)]
            years = years[:_YEARS]

        def unless_all(facets: list[Facet]) -> list[Facet]:
            return [] if len(facets) == 1 and facets[0].count == len(ids) else facets

        return Facets(scores_, classes_, folders, unless_all(lengths_), unless_all(years), step > 1)

    def _by_folder(self, now: Snapshot, ids: npt.NDArray[np.int64]) -> list[tuple[str, str, int]]:
        """Return text, piece of a query and count of the folders below what all have in common."""
        known, codes, names = self._folder_codes(now)
        if not len(names) or not len(ids):
            return []
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        here = codes[place][known[place] == ids]
        counts = np.bincount(here[here >= 0], minlength=len(names))
        used = {names[i]: int(counts[i]) for i in np.flatnonzero(counts).tolist()}
        if not used:
            return []
        common = _common([name.casefold().split("/") for name in used])
        below: dict[str, int] = {}
        shown: dict[str, str] = {}
        for name, count in used.items():
            parts = name.split("/")
            if len(parts) > len(common):
                # As a query sees it: without regard to case.
                name = "/".join(parts[: len(common) + 1])
                key = shown.setdefault(name.casefold(), name)
                below[key] = below.get(key, 0) + count
        best = sorted(below.items(), key=lambda item: (-item[1], item[0]))[:_FOLDERS]
        return [
            (key.rsplit("/", 1)[-1], f'path:"{key}/*"', count)
            for key, count in best
            # What a query cannot say, no link can ask for.
            if not re.search(r'["*?\\\0]', key) and key.isprintable()
        ]

    def _folder_codes(
        self, now: Snapshot
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[str]]:
        """Return all recordings' numbers, which folder each is in (-1: none), and the folders."""
        stamp = now.changes, now.lengths["moves"]
        with self._lock:
            if self._folders is None or self._folders[0] != stamp:
                ids, shown = self._catalogue.names(0)
                index: dict[str, int] = {}
                codes = np.empty(len(ids), np.int64)
                for at, name in enumerate(shown):
                    folder, slash, _ = name.replace("\\", "/").rpartition("/")
                    codes[at] = index.setdefault(folder, len(index)) if slash else -1
                self._folders, self._folder_ids = (stamp, codes, list(index)), ids
            return self._folder_ids, self._folders[1], self._folders[2]


def _by_score(
    parts: Sequence[Part], found: Sequence[tuple[npt.NDArray[np.int64], Scores]]
) -> Iterator[tuple[str, str, int]]:
    """Give text, piece of a query and count of the recordings above some scores."""
    for score in _SCORES:
        span = Range(low=score, low_open=True)
        above = [
            part.block.recordings[rows[within_spans(scores, [span])]]
            for part, (rows, scores) in zip(parts, found, strict=True)
        ]
        count = len(distinct(np.concatenate([np.empty(0, np.int64), *above])))
        yield f"above {score:g}", f"score:>{score:g}", count


def _class_piece(index: int, now: Snapshot) -> str:
    """Return the piece of a query that asks for one class."""
    name = now.class_names[index]
    if index < CLASS_COUNT and name_key(name) in set(map(name_key, now.own)):
        # By its name it would be the user's.
        return f"label:{load_labels()[index].mid}"
    return label_query(name)


def _every(step: int, owners: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which clips are of every so manieth recording; those of one stand together."""
    number = np.cumsum(np.diff(owners, prepend=owners[:1]) != 0)
    chosen: npt.NDArray[np.bool_] = number % step == 0
    return chosen


def _common(paths: list[list[str]]) -> list[str]:
    """Return the first parts that all paths have."""
    first, last = min(paths), max(paths)
    count = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        count += 1
    return first[:count]


def _of(
    ids: npt.NDArray[np.int64], known: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the values of some recordings, NaN where nothing is known."""
    if not len(known):
        return np.full(len(ids), np.nan)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[place] == ids, values[place], np.nan)


def _asked(node: Node) -> list[Node]:
    """Return the leaves of a query that a hit must have, or may."""
    if isinstance(node, All | Either):
        return [leaf for part in node.parts for leaf in _asked(part)]
    return [] if isinstance(node, Not) else [node]
