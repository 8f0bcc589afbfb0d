"""Hits in another order than by score: by time, path or length of their recordings."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.filters import Facts
from audiosearch.library.matching import Masks
from audiosearch.library.ranking import Page, all_matches
from audiosearch.library.runs import distinct
from audiosearch.library.snapshot import Part, Snapshot
from audiosearch.query import Node

__all__ = ["ORDERS", "Order", "check_order"]

ORDERS = ("score", "newest", "path", "longest", "shortest")
"""By score, best first; by the time of the file's last change; by path; by length."""

Values = npt.NDArray[np.float64]


def check_order(name: str) -> None:
    """Refuse an order that there is not.

    Raises
    ------
    InvalidArgumentError
        Naming those that there are.
    """
    if name not in ORDERS:
        raise InvalidArgumentError(f"The order must be one of {', '.join(ORDERS)}, not '{name}'.")


class Order:
    """Puts recordings in order; what it needs to know of them is read once.

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
        self._ranks: tuple[tuple[int, int], npt.NDArray[np.int64], Values] | None = None

    def page(
        self,
        name: str,
        node: Node,
        now: Snapshot,
        parts: Sequence[Part],
        *,
        offset: int,
        limit: int,
        masks: Masks,
        grouped: bool,
    ) -> Page:
        """Find the hits from number `offset` on in an order of `ORDERS` other than "score".

        Of equals the one that was indexed first comes first. A recording without a time or path
        comes last.
        """
        clips, recordings = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for part, (rows, _) in zip(parts, all_matches(node, parts, masks=masks), strict=True):
            clips.append(part.block.clip_ids(rows))
            recordings.append(part.block.recordings[rows].astype(np.int64))
        owners = np.concatenate(recordings)
        ids = distinct(owners)
        found = np.concatenate(clips) if not grouped else ids
        keys = self._keys(name, now, owners if not grouped else ids)
        order = np.argsort(keys, kind="stable")[offset : offset + limit]
        return Page(len(ids), len(owners), found[order])

    def _keys(self, name: str, now: Snapshot, ids: npt.NDArray[np.int64]) -> Values:
        if name == "path":
            known, values = self._paths(now)
        elif name == "newest":
            known, times = self._facts.times(now)
            values = -times
        else:
            known, seconds = self._facts.seconds(now)
            values = seconds if name == "shortest" else -seconds
        if not len(known):
            return np.zeros(len(ids))
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        # A recording that was removed a moment ago has no facts any more. NaN is sorted last.
        return np.where(known[place] == ids, values[place], np.nan)

    def _paths(self, now: Snapshot) -> tuple[npt.NDArray[np.int64], Values]:
        """Return the numbers of all recordings, ascending, and where their paths stand in order."""
        stamp = (now.changes, now.lengths["moves"])
        with self._lock:
            if self._ranks is None or self._ranks[0] != stamp:
                ids, names = self._catalogue.names(0)
                plain = [name.casefold() for name in names]
                order = sorted(range(len(plain)), key=plain.__getitem__)
                ranks = np.empty(len(plain))
                ranks[order] = np.arange(len(plain))
                self._ranks = stamp, ids, ranks
            return self._ranks[1], self._ranks[2]
