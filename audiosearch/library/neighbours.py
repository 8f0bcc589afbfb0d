"""The clips that are most like a probe: exact in a small library, through FAISS in a large one.

What likeness is, `audiosearch.library.likeness` says. The newest clips, up to `EXACT_CLIPS`, are
compared one by one. Once there are more, the writer puts those there are into an index of FAISS,
which is derived and may be deleted at any time::

    neighbours-N.faiss    what FAISS wrote; clips have their own numbers in it
    neighbours-N.json     its manifest: factory string, recall, how it is searched, a checksum

For the index the 655 values of a clip are turned into `INDEX_SIZE`: their principal components, of
a sample of the library itself. The index only chooses candidates; their likeness is computed from
the library's own data, so a compressed index costs recall but never an order. Recall is measured
when the index is written: for
a sample of clips, how many of the 10 nearest others it finds that an exact search finds. `nprobe`,
the number of lists that are looked at, and the number of candidates are raised until that is
`RECALL`.

An index that is missing or broken is searched without: exactly, which takes longer. The next writer
makes it again.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError
from audiosearch.library.index_files import IndexFacts, faiss_module, load_index, selector_of
from audiosearch.library.likeness import SIZE, Floats, Probe, Traits, joined_traits, projected_probe
from audiosearch.library.nearest import (
    Clips,
    best_first,
    exact_nearest,
    is_among,
    largest,
    likeness_of,
    live_mask,
    live_traits,
    same_below,
)
from audiosearch.library.snapshot import Snapshot

__all__ = ["EXACT_CLIPS", "Neighbours"]

EXACT_CLIPS = 50_000
"""How many vectors are compared one by one before FAISS takes them."""

_FEW = 50_000  # of so many clips, and fewer, each is compared
_MOST_IN_MEMORY = 4 * EXACT_CLIPS


class Neighbours:
    """Finds the clips that are most like a probe.

    One object serves one snapshot; `following` makes that of the next, which keeps what both have
    in common.

    Parameters
    ----------
    folder : Path
        The library's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._index: Any = None
        self._facts: IndexFacts | None = None
        self._now: Snapshot | None = None
        self._selector: Any = None
        self._basis: Floats | None = None
        self._recent: list[Traits] = []  # one, or none
        self._recent_clips: Clips = np.empty(0, np.int64)
        self._has_recent = True
        self._recent_live: npt.NDArray[np.bool_] = np.empty(0, np.bool_)

    @classmethod
    def of_index(
        cls, folder: Path, now: Snapshot, index: Any, basis: Floats, facts: IndexFacts
    ) -> Neighbours:
        """Return what searches a snapshot through an index that is not written yet."""
        new = cls(folder)
        new._index, new._basis, new._facts = index, basis, facts
        new._selector, new._now = True, now
        return new

    @property
    def facts(self) -> IndexFacts | None:
        """The manifest of the index that is searched; None for an exact search."""
        return self._facts

    def following(self, now: Snapshot) -> Neighbours:
        """Return what searches a snapshot; this object stays as it is, for who still uses it."""
        if self._now is now:
            return self
        new = copy.copy(self)
        new._take(now)
        return new

    def _take(self, now: Snapshot) -> None:
        before, number = self._now, now.lengths["neighbours"]
        if before is None or number != self._number:
            loaded = load_index(self._folder, number) if number else None
            self._index, self._basis, self._facts = loaded or (None, None, None)
            self._number, before = number, None
            self._recent = []
            self._recent_clips = np.empty(0, np.int64)
        stop = self._facts.stop if self._facts else 0
        self._has_recent = now.lengths["clips"] - stop <= _MOST_IN_MEMORY
        if self._has_recent:
            first = int(self._recent_clips[-1]) + 1 if len(self._recent_clips) else stop
            new = list(live_traits(now.parts, first))
            if new:
                joined = joined_traits([*self._recent, *(traits for _, traits in new)])
                self._recent = [joined]
                self._recent_clips = np.concatenate([self._recent_clips, *(ids for ids, _ in new)])
        else:  # they are read at each search
            self._recent, self._recent_clips = [], np.empty(0, np.int64)
        self._recent_live = live_mask(now.parts, self._recent_clips)
        self._selector = self._removed_selector(now, before)
        self._now = now

    def search(
        self, probe: Probe, count: int, *, among: Clips | None = None
    ) -> tuple[Clips, Floats]:
        """Return the `count` clips most like a probe, best first, and their likeness.

        Of equally near clips the first comes first; there may be fewer than `count`.

        Parameters
        ----------
        probe : float32 (SIZE,)
            What is looked for.
        count : int
            How many clips.
        among : int64 (n,), optional
            Numbers of clips that exist, ascending: only these are looked at.

        Raises
        ------
        InvalidArgumentError
            When the probe has another size or is not finite, or `count` is below 1.
        """
        probe = np.asarray(probe, np.float32)
        if probe.shape != (SIZE,) or not np.isfinite(probe).all():
            raise InvalidArgumentError(
                f"A probe has {SIZE} finite values, not shape {probe.shape}"
                f"{'' if np.isfinite(probe).all() else ' with values that are no numbers'}."
            )
        if count < 1:
            raise InvalidArgumentError(f"count must be at least 1, not {count}.")
        assert self._now is not None  # `following` comes first
        count = min(count, self._now.live_clips if among is None else len(among))
        if not count:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if among is not None and len(among) <= _FEW:
            return best_first(among, likeness_of(self._now.parts, among, probe), count)
        covered = self._facts is not None and self._selector is not None
        whole = self._now.live_clips <= len(self._recent_clips)
        if not self._has_recent or not (covered or whole):
            return self._exactly(probe, count, among)
        near = np.concatenate([np.empty(0, np.float32), *(r.likeness(probe) for r in self._recent)])
        near[~self._recent_live] = -np.inf
        if among is not None:
            near[~is_among(self._recent_clips, among)] = -np.inf
        found = largest(near, count)
        clips, near = self._recent_clips[found], near[found]
        clips, near = clips[near > -np.inf], near[near > -np.inf]
        if covered:
            assert self._facts is not None
            effort = self._facts.nprobe, self._facts.candidates
            known = self.candidates(probe, count, *effort, among=among)
            if known is None:
                return self._exactly(probe, count, among)
            clips = np.concatenate([known, clips])
            near = np.concatenate([likeness_of(self._now.parts, known, probe), near])
        return best_first(clips, near, count)

    def candidates(
        self, probe: Probe, count: int, nprobe: int, factor: int, *, among: Clips | None = None
    ) -> Clips | None:
        """Return clips of the index that may be near; None where it finds too few."""
        faiss = faiss_module()

        assert self._facts is not None
        assert self._basis is not None  # it comes with the index
        selector = self._selector if self._selector is not True else None
        if among is not None:
            known = among[among < self._facts.stop]
            selector = selector_of(known, self._facts.stop)
        wanted = min(factor * count + 16, self._index.ntotal)
        options: dict[str, Any] = {} if selector is None else {"sel": selector[1]}
        if nprobe:
            parameters = faiss.SearchParametersIVF(nprobe=nprobe, **options)
        else:
            parameters = faiss.SearchParameters(**options)
        query = projected_probe(probe, self._basis)[None]
        clips = self._index.search(query, wanted, params=parameters)[1][0]
        clips = np.sort(clips[clips >= 0])
        live = self._index.ntotal if selector is None else selector[2]
        return clips if len(clips) >= min(count, live) else None

    def _exactly(self, probe: Probe, count: int, among: Clips | None) -> tuple[Clips, Floats]:
        assert self._now is not None
        return exact_nearest(self._now.parts, probe[None], count, among)[0]

    def _removed_selector(self, now: Snapshot, before: Snapshot | None) -> Any:
        """Return what keeps removed clips out: True for nothing, else FAISS's selector.

        None where there is no index.
        """
        if self._facts is None:
            return None
        if before is not None and same_below(before, now, self._facts.stop):
            return self._selector
        live = np.flatnonzero(live_mask(now.parts, np.arange(self._facts.stop)))
        return True if len(live) == self._facts.vectors else selector_of(live, self._facts.stop)
