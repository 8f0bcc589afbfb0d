"""A library on disk: opened, searched, described. `audiosearch.library.indexing` fills it.

Its files are explained in `audiosearch.library.segments`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any

from audiosearch.errors import InvalidArgumentError, QueryError
from audiosearch.library.answers import hits_of, moments_of, owners_of, single_hits, with_copies
from audiosearch.library.by_example import find_similar
from audiosearch.library.clip_details import ClipDetails
from audiosearch.library.completion import Completion, complete
from audiosearch.library.counting import ClassCount, count_classes
from audiosearch.library.diagnosis import QueryPart, parts_of
from audiosearch.library.examples import Examples
from audiosearch.library.facets import FacetCounter, Facets
from audiosearch.library.filters import Filters
from audiosearch.library.folding import Folding
from audiosearch.library.hits import SearchResult
from audiosearch.library.info import LibraryInfo, library_info
from audiosearch.library.labelled import LabelledLibrary
from audiosearch.library.ordering import Order, check_order
from audiosearch.library.ranking import rank
from audiosearch.library.recordings import Skipped
from audiosearch.library.snapshot import Snapshot
from audiosearch.query import THESAURUS, parse

__all__ = ["Library", "LibraryInfo"]


class Library(ClipDetails, LabelledLibrary):
    """An open library. Searching is safe from several threads.

    Parameters
    ----------
    folder : path-like
        The library's folder.
    writable : bool
        Whether `audiosearch.library.indexing` may change it.
    shipped : bool
        Whether it is the one that comes with audiosearch.

    Raises
    ------
    LibraryNotFoundError
        When the folder holds no library.
    LibraryVersionError
        When this version cannot read it.
    LibraryDamagedError
        When a file of it is missing or broken.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, writable: bool = False, shipped: bool = False
    ) -> None:
        super().__init__(folder, writable=writable, shipped=shipped)
        self._folding = Folding(self.catalogue)
        self._order = Order(self.catalogue, self.facts)
        self._facets = FacetCounter(self.catalogue, self.facts)
        self._counted: tuple[Snapshot, list[ClassCount]] | None = None

    def search(
        self,
        query: str,
        *,
        limit: int = 20,
        offset: int = 0,
        fold: bool = False,
        grouped: bool = True,
        order: str = "score",
    ) -> SearchResult:
        """Find the recordings that most surely hold what the query asks for.

        Parameters
        ----------
        query : str
            See `audiosearch.query`.
        limit, offset : int
            Which hits to return: `limit` from number `offset` on.
        fold : bool
            Let recordings that are exact copies of one another make one hit, which names the
            others in ``copies``; totals count it once. See `audiosearch.library.folding`.
        grouped : bool
            Whether a hit is a recording, with its other clips in ``moments``; else every clip is a
            hit of its own.
        order : str
            What comes first: ``"score"``, or ``"newest"`` (by the time of the file's last change),
            ``"path"``, ``"longest"`` or ``"shortest"``.

        Raises
        ------
        QueryError
            When the query cannot be understood.
        DataError
            When the library's thesaurus cannot be read.
        InvalidArgumentError
            When `limit` or `offset` is negative, or there is no such order.
        """
        _check_page(limit, offset)
        check_order(order)
        now, corrections = self.labelled(self.snapshot())
        node = parse(query, vocabulary=self.words(corrections))
        masks = Filters(self.facts, now, corrections)
        folded = self._folding.fold(now, node, masks) if fold else None
        parts = now.parts if folded is None else folded.parts
        window: dict[str, Any] = {"offset": offset, "limit": limit}
        window |= {"masks": masks, "grouped": grouped}
        if order == "score":
            page = rank(node, parts, **window)
        else:
            page = self._order.page(order, node, now, parts, **window)
        clips = None if grouped else page.recordings
        ids = (page.recordings if clips is None else owners_of(now, clips)).tolist()
        known = self.catalogue.recordings_at(ids, now.lengths["moves"])
        moments = moments_of(now, node, masks, list(known.values()))
        found = [(known[n], moments[n]) for n in ids if n in moments]
        if clips is not None:
            found = single_hits(ids, clips.tolist(), known, moments)
        hits = hits_of(now, corrections, found, node)
        if folded is not None:
            hits = [with_copies(self.catalogue, now, hit, folded.copies) for hit in hits]
        return SearchResult(query, page.total, page.total_clips, offset, limit, hits, grouped)

    def facets(self, query: str, *, fold: bool = False) -> Facets:
        """Count what narrows a query: scores, classes, folders, lengths and years of its hits.

        Parameters
        ----------
        query, fold
            As for `search`.

        Raises
        ------
        QueryError
            When the query cannot be understood.
        DataError
            When the library's thesaurus cannot be read.
        """
        now, corrections = self.labelled(self.snapshot())
        node = parse(query, vocabulary=self.words(corrections))
        masks = Filters(self.facts, now, corrections)
        parts = self._folding.fold(now, node, masks).parts if fold else now.parts
        return self._facets.count(query, node, now, parts, masks, folded=fold)

    def complete(self, query: str, *, limit: int = 8) -> list[Completion]:
        """Return what the last words of a query may become, as it is typed.

        Names of classes and groups, parts of names, and words of the thesaurus, each with how many
        recordings it finds alone. Empty while a path, a number or an exact name is typed.

        Parameters
        ----------
        query : str
            What was typed so far.
        limit : int
            How many to return at most.

        Raises
        ------
        DataError
            When the library's thesaurus cannot be read.
        InvalidArgumentError
            When `limit` is below 1.
        """
        if limit < 1:
            raise InvalidArgumentError(f"limit must be at least 1, not {limit}.")
        now, corrections = self.labelled(self.snapshot())
        vocabulary = self.words(corrections)
        masks = Filters(self.facts, now, corrections)

        def count_of(text: str) -> int:
            node = parse(text, vocabulary=vocabulary)
            return rank(node, now.parts, offset=0, limit=0, masks=masks).total

        return complete(query, vocabulary, count_of, limit=limit)

    def query_parts(self, query: str) -> list[QueryPart]:
        """Return how much each part of a query finds, alone and left out: why nothing was found.

        Empty where the query has one part only, brackets or OR.

        Raises
        ------
        QueryError
            When the query cannot be understood.
        DataError
            When the library's thesaurus cannot be read.
        """
        now, corrections = self.labelled(self.snapshot())
        vocabulary = self.words(corrections)
        masks = Filters(self.facts, now, corrections)

        def count_of(text: str) -> int | None:
            try:
                node = parse(text, vocabulary=vocabulary)
            except QueryError:  # such as "-music" alone
                return None
            return rank(node, now.parts, offset=0, limit=0, masks=masks).total

        parse(query, vocabulary=vocabulary)
        return parts_of(query, vocabulary, count_of)

    def similar(
        self,
        examples: Examples,
        *,
        unlike: Examples = (),
        query: str | None = None,
        limit: int = 20,
        offset: int = 0,
        grouped: bool = True,
    ) -> SearchResult:
        """Find the recordings that sound most like an example, or like several.

        Parameters
        ----------
        examples : int, path-like, uint8 (n, 128), Hit, Moment, Clip or Example, or several
            What is wanted: a clip of this library, by number or as a search returned it (it is not
            among the hits), a sound file, or embedding frames. `Example` names a part of one, or
            gives it a weight.
        unlike : the same
            What is not wanted.
        query : str, optional
            Only clips that match it are found; see `audiosearch.query`. It may do nothing but leave
            out; ``score:`` is about the likeness.
        limit, offset : int
            Which hits to return.
        grouped : bool
            As for `search`.

        Raises
        ------
        AudioError
            When a sound file cannot be used.
        LibraryError
            When there is no such clip, or a part of a clip is asked for whose frames are not at
            hand.
        QueryError
            When the query cannot be understood.
        InvalidArgumentError
            When there is no example, frames are of another shape or type, a part lies outside of
            its recording, or `limit` or `offset` is negative.
        """
        _check_page(limit, offset)
        return find_similar(
            self,
            examples,
            unlike=unlike,
            query=query,
            limit=limit,
            offset=offset,
            grouped=grouped,
        )

    def skipped(self) -> list[Skipped]:
        """Return the files that could not be indexed, and why."""
        return self.catalogue.skipped()

    def info(self) -> LibraryInfo:
        """Say what is in it and what made it."""
        return library_info(self)

    def class_counts(self) -> list[ClassCount]:
        """Return each class with what a search for it finds here, and each group of the ontology.

        Those of the ontology stand in the order of its file, the user's own classes behind them.
        Counted once for each state of the library.
        """
        now = self.labelled(self.snapshot())[0]
        counted = self._counted
        if counted is None or counted[0] is not now:
            self._counted = counted = now, count_classes(now, self.own)
        return list(counted[1])

    def revision(self) -> str:
        """Return a text that changes whenever an answer of this library could."""
        thesaurus = (0, 0)
        with contextlib.suppress(OSError):
            state = (self.folder / THESAURUS).stat()
            thesaurus = state.st_mtime_ns, state.st_size
        facts = (self.manifest, str(self.folder.absolute()), self.snapshot().changes, thesaurus)
        return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _check_page(limit: int, offset: int) -> None:
    if limit < 0 or offset < 0:
        raise InvalidArgumentError("limit and offset must not be negative.")
