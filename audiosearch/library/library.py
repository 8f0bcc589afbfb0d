"""A library on disk: opened, searched, described. `audiosearch.library.indexing` fills it.

Its files are explained in `audiosearch.library.segments`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import (
    DataError,
    InvalidArgumentError,
    LibraryError,
    QueryError,
    printable,
)
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import load_labels
from audiosearch.library.catalogue import Catalogue, Recording, Skipped
from audiosearch.library.completion import Completion, complete
from audiosearch.library.corrections import Corrections, label_key
from audiosearch.library.counting import ClassCount, count_classes
from audiosearch.library.diagnosis import QueryPart, parts_of
from audiosearch.library.examples import Examples, StoredFrames, listed, resolve
from audiosearch.library.explanation import explain
from audiosearch.library.facets import FacetCounter, Facets
from audiosearch.library.filters import Facts, Filters
from audiosearch.library.folding import Folding
from audiosearch.library.hits import (
    Clip,
    Hit,
    Moment,
    Reason,
    SearchResult,
    Span,
    Tag,
    UserLabel,
)
from audiosearch.library.labelling import LabelChange, Labelling, Target, clip_of, user_labels
from audiosearch.library.likeness import Probe, combined_probe
from audiosearch.library.manifest import CATALOGUE, iso_time, read_manifest
from audiosearch.library.neighbours import Neighbours, auto_factory, read_index_facts
from audiosearch.library.ordering import Order, check_order
from audiosearch.library.ranking import (
    Masks,
    first_of_each,
    in_range,
    match,
    matching_clips,
    rank,
)
from audiosearch.library.refinement import stretch
from audiosearch.library.segments import Block, Segment
from audiosearch.library.snapshot import Reader, Snapshot, tags_of
from audiosearch.library.tail import TailBlock, tail_columns
from audiosearch.library.timeline import Timeline, frame_timeline, outline
from audiosearch.query import (
    THESAURUS,
    Node,
    Range,
    Vocabulary,
    load_vocabulary,
    parse,
    read_thesaurus,
)
from audiosearch.storage import Closing

__all__ = ["Library", "LibraryInfo"]


@dataclass(frozen=True)
class LibraryInfo:
    """What is in a library and what made it; `created` and `updated` are ISO 8601, UTC.

    `vector_index` is FAISS's factory string, and `recall_at_10` the measured share of the true
    neighbours that it finds; None while every vector is compared.
    """

    folder: str
    format: int
    version: str
    recordings: int
    clips: int
    seconds: float
    skipped: int
    embedder: str
    embedder_hash: str | None
    mixed_with: list[str]
    classifier: str
    classifier_hash: str
    created: str
    updated: str | None
    segments: int
    vector_index: str
    recall_at_10: float | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


class Library(Closing):
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
        self.folder = Path(folder)
        self.writable = writable
        self.shipped = shipped
        self.manifest = read_manifest(self.folder)
        self.catalogue = Catalogue(self.folder / CATALOGUE, writable=writable)
        self._reader = Reader(self.folder, self.catalogue)
        self._neighbours = Neighbours(self.folder)
        self._lock = threading.Lock()
        self._facts = Facts(self.catalogue)
        self._folding = Folding(self.catalogue)
        self._order = Order(self.catalogue, self._facts)
        self._facets = FacetCounter(self.catalogue, self._facts)
        self._vocabulary: tuple[object, Vocabulary] | None = None
        self._labelling = Labelling(self)
        self._corrections = Corrections(self.catalogue, 0)
        self._corrected: tuple[Snapshot, Snapshot] | None = None
        self._counted: tuple[Snapshot, list[ClassCount]] | None = None
        try:
            self.snapshot()
        except BaseException:
            self.catalogue.close()
            raise

    def close(self) -> None:
        """Close its files."""
        self._labelling.close()
        self.catalogue.close()

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
        now, corrections = self._labelled(self.snapshot())
        node = parse(query, vocabulary=self._words(corrections))
        masks = Filters(self._facts, now, corrections)
        folded = self._folding.fold(now, node, masks) if fold else None
        parts = now.parts if folded is None else folded.parts
        window: dict[str, Any] = {"offset": offset, "limit": limit}
        window |= {"masks": masks, "grouped": grouped}
        if order == "score":
            page = rank(node, parts, **window)
        else:
            page = self._order.page(order, node, now, parts, **window)
        clips = None if grouped else page.recordings
        ids = (page.recordings if clips is None else _recordings_of(now, clips)).tolist()
        known = self.catalogue.recordings_at(ids, now.lengths["moves"])
        moments = _moments(now, node, masks, list(known.values()))
        found = [(known[n], moments[n]) for n in ids if n in moments]
        if clips is not None:
            found = _single(ids, clips.tolist(), known, moments)
        hits = self._hits(now, corrections, found, node)
        if folded is not None:
            hits = [self._with_copies(now, hit, folded.copies) for hit in hits]
        return SearchResult(query, page.total, page.total_clips, offset, limit, hits, grouped)

    def facets(self, query: str, *, fold: bool = False) -> Facets:
        """Count what else the hits of a query have in common: classes, folders, lengths, years.

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
        now, corrections = self._labelled(self.snapshot())
        node = parse(query, vocabulary=self._words(corrections))
        masks = Filters(self._facts, now, corrections)
        parts = self._folding.fold(now, node, masks).parts if fold else now.parts
        return self._facets.count(query, node, now, parts, masks)

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
        now, corrections = self._labelled(self.snapshot())
        vocabulary = self._words(corrections)
        masks = Filters(self._facts, now, corrections)

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
        now, corrections = self._labelled(self.snapshot())
        vocabulary = self._words(corrections)
        masks = Filters(self._facts, now, corrections)

        def count_of(text: str) -> int | None:
            try:
                node = parse(text, vocabulary=vocabulary)
            except QueryError:  # such as "-music" alone
                return None
            return rank(node, now.parts, offset=0, limit=0, masks=masks).total

        parse(query, vocabulary=vocabulary)
        return parts_of(query, vocabulary, count_of)

    def vocabulary(self) -> Vocabulary:
        """Return what words stand for here: with the user's own words and labels.

        Words are those of the library's ``thesaurus.toml``.

        Raises
        ------
        DataError
            When that file cannot be read; the message gives the line.
        """
        return self._words(self.corrections())

    def _words(self, corrections: Corrections) -> Vocabulary:
        path = self.folder / THESAURUS
        stamp, own_labels = None, corrections.own_labels
        try:
            state = path.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        if stamp is None and not own_labels:
            return load_vocabulary()
        with self._lock:
            if self._vocabulary is None or self._vocabulary[0] != (stamp, own_labels):
                own_words = None if stamp is None else read_thesaurus(path)
                vocabulary = Vocabulary(own_words=own_words, own_labels=own_labels)
                self._vocabulary = (stamp, own_labels), vocabulary
            return self._vocabulary[1]

    def confirm(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Say that a class, or a label of your own, is heard in a clip.

        A search knows it at once: there the clip's score for it is the highest that there is. It
        is kept in the library, belongs to the sound by its content, and so to its exact copies.

        Parameters
        ----------
        clip : int, Hit, Moment or Clip
            The clip.
        label : str
            A class by name or mid, or a label of your own that was added before.
        start, end : float, optional
            A stretch of the clip's recording, in seconds as hits give them, also beyond the clip.
            Where one of both is None, the clip's own.

        Returns
        -------
        bool
            Whether that was new.

        Raises
        ------
        LibraryError
            When there is no such clip, or it is the library that comes with audiosearch.
        LibraryBusyError
            When another process keeps the library locked.
        QueryError
            When no class and no label is called so; with suggestions.
        InvalidArgumentError
            When the stretch does not lie in the recording.
        StorageError
            When the library cannot be written to.
        """
        return self._said([LabelChange(clip_of(clip), label, "confirmed", start, end)])

    def reject(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Say that a class, or a label of your own, is not heard in a clip, nor any kind of it.

        As `confirm` in everything else; the newer of both counts.
        """
        return self._said([LabelChange(clip_of(clip), label, "rejected", start, end)])

    def add_label(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Give a clip a label of your own, used before or not; a class is confirmed.

        As `confirm` in everything else.

        Raises
        ------
        InvalidArgumentError
            When a label cannot be called so.
        """
        return self._said([LabelChange(clip_of(clip), label, "confirmed", start, end, new=True)])

    def remove_label(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Take back what was said of a label, confirmed or rejected, in a clip or stretch.

        As `confirm` in everything else.
        """
        return self._said([LabelChange(clip_of(clip), label, None, start, end)])

    def change_labels(self, changes: Sequence[LabelChange]) -> int:
        """Make several such changes at once, all or none; return how many changed anything."""
        return self._labelling.apply(list(changes)) if changes else 0

    def labels(self, clip: Target | None = None, *, label: str | None = None) -> list[UserLabel]:
        """Return what was confirmed, rejected and added, in the order of the clips.

        Parameters
        ----------
        clip : int, Hit, Moment or Clip, optional
            Only of the recording that this clip is of.
        label : str, optional
            Only this class or label.
        """
        _, corrections = self._labelled(self.snapshot())
        found = [each for each, _, _ in user_labels(self.catalogue, corrections)]
        if clip is not None:
            recording = self.clip(clip_of(clip)).recording_id
            found = [each for each in found if each.recording_id == recording]
        if label is not None:
            key = label_key(label)
            found = [each for each in found if key in (each.mid, label_key(each.label))]
        return found

    def _said(self, changes: Sequence[LabelChange]) -> bool:
        return self._labelling.apply(changes) > 0

    def corrections(self) -> Corrections:
        """Return the user's labels as searches use them now."""
        return self._labelled(self.snapshot())[1]

    def labelled_snapshot(self) -> Snapshot:
        """Return what the library holds now, with the user's labels in its scores."""
        return self._labelled(self.snapshot())[0]

    def _labelled(self, now: Snapshot) -> tuple[Snapshot, Corrections]:
        """Return a snapshot in which the user's labels count, and these."""
        with self._lock:
            if self._corrected is None or self._corrected[0] is not now:
                before = self._corrections
                if before.version != now.lengths["labels"]:
                    self._corrections = Corrections(self.catalogue, now.lengths["labels"])
                self._corrected = now, self._corrections.applied(now)
            return self._corrected[1], self._corrections

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
        likes, unlikes = listed(examples), listed(unlike)
        if not likes:
            raise InvalidArgumentError("Give at least one example of what is wanted.")
        node = None
        if query is not None:
            node = parse(query, vocabulary=self.vocabulary(), narrows=True)
        now = self.snapshot()
        labelled, corrections = self._labelled(now)
        wanted, unwanted = resolve(self, now, likes), resolve(self, now, unlikes)
        own = np.unique([clip for one in (*wanted, *unwanted) for clip in one.clips]).astype(int)
        among: npt.NDArray[np.int64] | None = None
        spans: list[Range] = []
        if node is not None:
            masks = Filters(self._facts, labelled, corrections)
            among, owners, spans = matching_clips(node, labelled.parts, masks=masks)
            left = ~np.isin(among, own)
            among, total = among[left], len(np.unique(owners[left]))
            total_clips = len(among)
        else:
            total, total_clips = now.live_recordings, now.live_clips - len(own)
            total -= _emptied(now, own)
        positive = combined_probe([(one.probe, one.weight) for one in wanted])
        probe = combined_probe([(positive, 1.0)], [(one.probe, one.weight) for one in unwanted])
        clips, near, sure = self._nearest(now, probe, own, among, spans, offset + limit, grouped)
        if spans:
            total, total_clips = sure
        owners = _recordings_of(now, clips)
        firsts = first_of_each(owners) if grouped else np.arange(len(clips))
        places = firsts[offset : offset + limit]
        known = self.catalogue.recordings_at(owners[places].tolist(), now.lengths["moves"])
        on_page = np.flatnonzero(np.isin(owners, owners[places])) if grouped else places
        tops = dict(zip(on_page.tolist(), _labels_of(labelled, clips[on_page]), strict=True))
        names = load_labels().names
        moments: dict[int, list[Moment]] = {}
        for at, top in tops.items():
            recording = known.get(int(owners[at]))
            if recording is not None:
                score = max(float(near[at]), 0.0)
                moments.setdefault(recording.id, []).append(
                    _moment(recording, int(clips[at]), score, names[top])
                )
        ids = owners[places].tolist()
        found = [(known[n], moments[n]) for n in ids if n in moments]
        if not grouped:
            found = _single(ids, clips[places].tolist(), known, moments)
        hits = self._hits(labelled, corrections, found)
        hits = self._refined(now, hits, known, positive)
        return SearchResult(query, total, total_clips, offset, limit, hits, grouped)

    def _nearest(
        self,
        now: Snapshot,
        probe: Probe,
        own: npt.NDArray[np.int64],
        among: npt.NDArray[np.int64] | None,
        spans: Sequence[Range],
        wanted: int,
        grouped: bool,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], tuple[int, int]]:
        """Return the nearest clips, best first, so many that `wanted` hits are sure.

        Also how many recordings and clips there are; right where there are ranges of scores, as
        every clip is looked at then.
        """
        search = self.neighbours(now)
        most = now.live_clips if among is None else len(among)
        # Several clips of a recording make one hit, and clips that are equally near may stand in
        # any order at the end: ask until what stands before them fills the page.
        count = max(most, 1) if spans else 2 * wanted + 10 + len(own)
        while True:
            clips, near = search.search(probe, count, among=among)
            kept = ~np.isin(clips, own)
            for span in spans:
                kept &= in_range(np.maximum(near, 0), span)
            clips, near = clips[kept], near[kept]
            if count >= most:
                break
            sure = clips[near > near.min(initial=2.0)]
            if len(np.unique(_recordings_of(now, sure)) if grouped else sure) >= wanted:
                break
            count *= 4
        if not spans:
            return clips, near, (0, 0)
        return clips, near, (len(np.unique(_recordings_of(now, clips))), len(clips))

    def _refined(
        self, now: Snapshot, hits: list[Hit], known: dict[int, Recording], positive: Probe
    ) -> list[Hit]:
        """Say of each hit where in its clip the likeness lies, as far as frames are at hand."""
        result = []
        with StoredFrames(self, now) as stored:
            for hit in hits:
                frames = stored.of(hit.clip, known[hit.recording_id])
                if len(frames):
                    first, stop = stretch(frames, positive[-EMBEDDING_SIZE:])
                    end = hit.end if stop == len(frames) else hit.start + stop * PATCH_SECONDS
                    match = Span(hit.start + first * PATCH_SECONDS, min(end, hit.end))
                    hit = replace(hit, match=match)
                result.append(hit)
        return result

    def clip(self, clip_id: int, *, top: int = 5) -> Clip:
        """Return one clip with its `top` best classes.

        Raises
        ------
        LibraryError
            When there is no such clip.
        """
        if top < 1:
            raise InvalidArgumentError(f"top must be at least 1, not {top}.")
        now, corrections = self._labelled(self.snapshot())
        part, row = now.find(clip_id)
        number = int(part.block.recordings[row])
        recording = self.catalogue.recordings([number]).get(number)
        if recording is None:
            raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
        start, end = _span(recording, clip_id)
        return Clip(
            recording=recording.name,
            source=recording.source,
            recording_id=recording.id,
            clip=int(clip_id),
            start=start,
            end=end,
            duration=recording.duration if recording.source == "file" else None,
            tags=tags_of(part.block, np.array([row]), top)[0],
            labels=_label_names(recording),
            corrections=corrections.of_clip(recording.id, recording.start, clip_id),
        )

    def timeline(
        self, clip_id: int, *, start: float | None = None, end: float | None = None, top: int = 6
    ) -> Timeline:
        """Return the scores of the frames of a clip's recording, or of a part of it, over time.

        Parameters
        ----------
        clip_id : int
            Any clip of the recording.
        start, end : float, optional
            The part, in seconds as hits give them; at most ten minutes.
        top : int
            How many classes: those that are heard most surely in the part.

        Returns
        -------
        Timeline
            Without curves where the frames are not at hand, as in the library that comes with
            audiosearch.

        Raises
        ------
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When the part does not lie in the recording or is too long, or `top` is not from 1 to
            527.
        """
        return frame_timeline(self, clip_id, start=start, end=end, top=top)

    def outline(self, clip_id: int, *, top: int = 4, most: int = 300) -> Timeline:
        """Return the stored scores of all clips of a clip's recording, over time.

        Parameters
        ----------
        clip_id : int
            Any clip of the recording.
        top : int
            How many classes: those that are heard most in it.
        most : int
            How many steps there are at most; of a longer recording several clips share one, which
            has the best of their scores.

        Raises
        ------
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When `top` is not from 1 to 527, or `most` below 1.
        """
        return outline(self, clip_id, top=top, most=most)

    def beside(self, clip_id: int, *, count: int = 3) -> tuple[list[Clip], list[Clip]]:
        """Return the clips before and after one in its recording, each in the order of time.

        Parameters
        ----------
        clip_id : int
            The clip.
        count : int
            How many of each at most.

        Raises
        ------
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When `count` is negative.
        """
        if count < 0:
            raise InvalidArgumentError(f"count must not be negative, but is {count}.")
        part, row = self.snapshot().find(clip_id)
        owner = part.block.recordings[row]
        rows = np.arange(max(row - count, 0), min(row + count + 1, part.block.rows))
        rows = rows[part.block.recordings[rows] == owner]
        clips = part.block.clip_ids(rows).tolist()
        place = clips.index(int(clip_id))
        return (
            [self.clip(each) for each in clips[:place]],
            [self.clip(each) for each in clips[place + 1 :]],
        )

    def frames(self, clip_id: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of a clip, uint8 (n, 128).

        Those of a row of a packed file are read from that file; n is 0 where it is no longer there,
        or was changed.

        Raises
        ------
        LibraryError
            When there is no such clip.
        LibraryDamagedError
            When the file of the frames is missing or too short.
        """
        now = self.snapshot()
        part, row = now.find(clip_id)
        number = int(part.block.recordings[row])
        recording = self.catalogue.recordings([number]).get(number)
        if recording is None:
            raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
        with StoredFrames(self, now) as stored:
            return stored.of(clip_id, recording)

    def frames_at(self, now: Snapshot, clip_id: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames that the library itself holds of a clip of a snapshot."""
        part, row = now.find(clip_id)
        if part.block.frame_counts()[row] == 0:
            return np.empty((0, EMBEDDING_SIZE), np.uint8)
        if not isinstance(part.block, TailBlock):
            return part.block.frames(row, row + 1)
        column = tail_columns(self.folder, now.lengths["tail"])[1]
        try:
            frames = column.read(now.lengths["tail_frames"])
        except FileNotFoundError:
            raise column.damaged("is missing") from None
        counts = np.concatenate(
            [p.block.frame_counts() for p in now.parts if isinstance(p.block, TailBlock)]
        )
        place = clip_id - now.lengths["tail"]
        first = int(counts[:place].sum(dtype=np.int64))
        return frames[first : first + int(counts[place])]

    def audio_path(self, recording_id: int) -> Path | None:
        """Return the sound file of a recording; None for AudioSet's, which lie on YouTube.

        Raises
        ------
        LibraryError
            When there is no such recording.
        """
        found = self.catalogue.recordings([recording_id])
        if recording_id not in found:
            raise LibraryError(f"There is no recording {recording_id} in this library.")
        return found[recording_id].path

    def duration(self, recording_id: int) -> float:
        """Return the length of a recording in seconds.

        Raises
        ------
        LibraryError
            When there is no such recording.
        """
        found = self.catalogue.recordings([recording_id])
        if recording_id not in found:
            raise LibraryError(f"There is no recording {recording_id} in this library.")
        return found[recording_id].duration

    def leads_elsewhere(self, recording_id: int) -> bool:
        """Tell whether links lead from a recording's path to another file than was indexed.

        Links in an indexed folder are followed. Whoever may write there could make one that leads
        to any file of this machine, so what stands behind a link must have the size and the time of
        change that it had.
        """
        found = self.catalogue.indexed_state(recording_id)
        if found is None:
            return False
        root, name, size, mtime_ns = found
        try:
            real_root = os.path.realpath(root)
            path = os.path.join(real_root, name)  # noqa: PTH118
            if os.path.realpath(path) == os.path.normpath(path):
                return False
            state = os.stat(path)  # noqa: PTH116
        except OSError:
            return False  # it is not there at all
        return (state.st_size, state.st_mtime_ns) != (size, mtime_ns)

    def skipped(self) -> list[Skipped]:
        """Return the files that could not be indexed, and why."""
        return self.catalogue.skipped()

    def info(self) -> LibraryInfo:
        """Say what is in it and what made it."""
        recordings, clips, seconds, updated = self.catalogue.totals()
        size = 0
        for path in self.folder.iterdir():
            # Another process may be writing, and its journal comes and goes.
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        now = self.snapshot()
        facts = read_index_facts(self.folder, now.lengths["neighbours"])
        return LibraryInfo(
            folder=printable(str(self.folder)),
            format=self.manifest["format_version"],
            version=self.manifest["audiosearch"],
            recordings=recordings,
            clips=clips,
            seconds=round(seconds, 3),
            skipped=self.catalogue.skipped_count(),
            embedder=self.manifest["embedder"]["name"],
            embedder_hash=self.manifest["embedder"]["sha256"],
            mixed_with=[model["name"] for model in self.manifest.get("mixed_with", [])],
            classifier=self.manifest["classifier"]["name"],
            classifier_hash=self.manifest["classifier"]["sha256"],
            created=self.manifest["created"],
            updated=None if updated is None else iso_time(updated),
            segments=sum(isinstance(part.block, Segment) for part in now.parts),
            vector_index=facts.factory if facts else auto_factory(0),
            recall_at_10=facts.recall_at_10 if facts else None,
            bytes=size,
        )

    def class_counts(self) -> list[ClassCount]:
        """Return each class and group of the ontology with what a search for it finds here.

        They stand in the order of the ontology's file; counted once for each state of the library.
        """
        now = self._labelled(self.snapshot())[0]
        counted = self._counted
        if counted is None or counted[0] is not now:
            self._counted = counted = now, count_classes(now)
        return list(counted[1])

    def revision(self) -> str:
        """Return a text that changes whenever an answer of this library could."""
        thesaurus = (0, 0)
        with contextlib.suppress(OSError):
            state = (self.folder / THESAURUS).stat()
            thesaurus = state.st_mtime_ns, state.st_size
        facts = (self.manifest, str(self.folder.absolute()), self.snapshot().changes, thesaurus)
        return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:16]

    def snapshot(self) -> Snapshot:
        """Return what the library holds now; another process may have added to it.

        While that is committing, this is what was there before.
        """
        return self._reader.snapshot()

    def neighbours(self, now: Snapshot) -> Neighbours:
        """Return what finds the nearest search vectors of a snapshot."""
        with self._lock:
            self._neighbours = self._neighbours.following(now)
            return self._neighbours

    def _with_copies(self, now: Snapshot, hit: Hit, copies: dict[int, tuple[int, ...]]) -> Hit:
        ids = copies.get(hit.recording_id, ())
        known = self.catalogue.recordings_at(ids, now.lengths["moves"])
        return replace(hit, copies=[known[number].name for number in ids if number in known])

    def _hits(
        self,
        now: Snapshot,
        corrections: Corrections,
        found: list[tuple[Recording, list[Moment]]],
        node: Node | None = None,
    ) -> list[Hit]:
        """Return the hits of a page from the moments of each recording, best first.

        `node` is the query that found them, where there was one.
        """
        clips = [moments[0].clip for _, moments in found]
        why: list[list[Reason]] = [[] for _ in clips]
        if node is not None:
            for block, at, rows in _by_part(now, np.array(clips, np.int64)):
                for place, reasons in zip(at.tolist(), explain(node, block, rows), strict=True):
                    why[place] = reasons
        hits = [
            _hit(recording, moments, best, reasons)
            for (recording, moments), best, reasons in zip(
                found, _tags_of(now, clips), why, strict=True
            )
        ]
        if not corrections.version:
            return hits
        return [
            _with_corrections(hit, corrections, recording, node)
            for hit, (recording, _) in zip(hits, found, strict=True)
        ]


def _moments(
    now: Snapshot, node: Node, masks: Masks, recordings: list[Recording]
) -> dict[int, list[Moment]]:
    """Return the clips of some recordings that match, best first, by recording.

    One that another process removed meanwhile is left out.
    """
    places: dict[int, list[tuple[Recording, int]]] = {}
    for recording in recordings:
        where = now.place_of(recording)
        if where is not None:
            places.setdefault(where[0], []).append((recording, where[1]))
    names = load_labels().names
    result: dict[int, list[Moment]] = {}
    for number, wanted in places.items():
        block = now.parts[number].block
        counts = np.array([recording.clips for recording, _ in wanted])
        ends = np.cumsum(counts)
        firsts = np.array([row for _, row in wanted]) - ends + counts
        rows = np.arange(ends[-1]) + np.repeat(firsts, counts)
        matched = match(node, block, rows, masks=masks)
        # A page has fifty recordings, mostly of one clip: lists are faster than arrays here.
        clips, found = block.clip_ids(rows).tolist(), matched.found.tolist()
        scores, labels = matched.score.tolist(), matched.label.tolist()
        stop = 0
        for recording, _ in wanted:
            start, stop = stop, stop + recording.clips
            at = [place for place in range(start, stop) if found[place]]
            if len(at) > 1:
                at.sort(key=scores.__getitem__, reverse=True)  # of equals the first stays first
            result[recording.id] = [
                _moment(recording, clips[n], scores[n], names[labels[n]]) for n in at
            ]
    return {number: moments for number, moments in result.items() if moments}


def _single(
    ids: list[int], clips: list[int], known: dict[int, Recording], moments: dict[int, list[Moment]]
) -> list[tuple[Recording, list[Moment]]]:
    """Return the clips of a page, each as a hit of its own, of recordings `ids`."""
    at = {moment.clip: moment for found in moments.values() for moment in found}
    pairs = zip(ids, clips, strict=True)
    return [(known[number], [at[clip]]) for number, clip in pairs if clip in at]


def _emptied(now: Snapshot, own: npt.NDArray[np.int64]) -> int:
    """Return how many recordings have no clip but those of `own`."""
    result = 0
    for block, _, rows in _by_part(now, own):
        numbers, counts = np.unique(block.recordings[rows], return_counts=True)
        first = np.searchsorted(block.recordings, numbers)
        result += int((np.searchsorted(block.recordings, numbers, "right") - first == counts).sum())
    return result


def _moment(recording: Recording, clip: int, score: float, label: str) -> Moment:
    start, end = _span(recording, clip)
    return Moment(clip, start, end, score, label)


def _span(recording: Recording, clip: int) -> tuple[float, float]:
    """Return where a clip begins and ends, in seconds; for AudioSet's, from the video's start."""
    number = clip - recording.first_clip
    start = recording.start + number * CLIP_SPAN
    last = number == recording.clips - 1
    end = recording.start + (recording.duration if last else (number + 1) * CLIP_SPAN)
    return start, max(end, start)


def _by_part(
    now: Snapshot, clips: npt.NDArray[np.int64]
) -> Iterator[tuple[Block, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Give for each block that holds some of the clips: it, their places in `clips`, their rows."""
    for part in now.parts:
        at = np.flatnonzero((clips >= part.block.first) & (clips < part.block.stop))
        if len(at):
            yield part.block, at, part.block.rows_of(clips[at])


def _recordings_of(now: Snapshot, clips: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    result = np.zeros(len(clips), np.int64)
    for block, at, rows in _by_part(now, clips):
        result[at] = block.recordings[rows]
    return result


def _labels_of(now: Snapshot, clips: npt.NDArray[np.int64]) -> list[int]:
    """Return the best class of each clip."""
    result = np.zeros(len(clips), np.int64)
    for block, at, rows in _by_part(now, clips):
        offsets, classes, _ = block.entries(rows)
        result[at] = classes[offsets[:-1]]
    return result.tolist()


def _tags_of(now: Snapshot, clips: list[int]) -> list[list[Tag]]:
    """Return the five best tags of each clip."""
    result: list[list[Tag]] = [[] for _ in clips]
    for block, at, rows in _by_part(now, np.array(clips, np.int64)):
        for place, tags in zip(at.tolist(), tags_of(block, rows, 5), strict=True):
            result[place] = tags
    return result


def _hit(recording: Recording, moments: list[Moment], tags: list[Tag], why: list[Reason]) -> Hit:
    """Return the hit of a recording whose best clip is the first of `moments`."""
    best = moments[0]
    return Hit(
        recording=recording.name,
        source=recording.source,
        recording_id=recording.id,
        clip=best.clip,
        start=best.start,
        end=best.end,
        score=best.score,
        label=best.label,
        tags=tags,
        labels=_label_names(recording),
        moments=moments[1:],
        why=why,
    )


def _with_corrections(
    hit: Hit, corrections: Corrections, recording: Recording, node: Node | None
) -> Hit:
    """Return a hit with what the user said of its clip; found by that alone, it is called so."""
    said = corrections.of_clip(recording.id, recording.start, hit.clip)
    label = hit.label
    if node is not None and not any(not reason.excluded for reason in hit.why):
        own = corrections.asked_for(node, said)
        label = own or label
    return replace(hit, corrections=said, label=label)


def _check_page(limit: int, offset: int) -> None:
    if limit < 0 or offset < 0:
        raise InvalidArgumentError("limit and offset must not be negative.")


def _label_names(recording: Recording) -> list[str] | None:
    if recording.labels is None:
        return None
    return [load_labels()[index].name for index in recording.labels]
