"""A library on disk: opened, searched, described. `audiosearch.library.indexing` fills it.

Its files are explained in `audiosearch.library.segments`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders import available_embedders
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, InvalidArgumentError, LibraryError, printable
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import load_labels
from audiosearch.library.catalogue import Catalogue, Recording, Skipped
from audiosearch.library.columns import search_vector
from audiosearch.library.filters import Facts, Filters
from audiosearch.library.folding import Folding
from audiosearch.library.hits import Clip, Hit, Moment, SearchResult, Tag
from audiosearch.library.manifest import CATALOGUE, iso_time, read_manifest
from audiosearch.library.neighbours import Neighbours, auto_factory, read_index_facts
from audiosearch.library.ranking import Masks, first_of_each, match, rank
from audiosearch.library.segments import Block, Segment
from audiosearch.library.snapshot import Reader, Snapshot, tags_of
from audiosearch.library.tail import TailBlock, tail_columns
from audiosearch.query import (
    THESAURUS,
    Node,
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
        self._own_words: tuple[tuple[int, int, int], Vocabulary] | None = None
        try:
            self.snapshot()
        except BaseException:
            self.catalogue.close()
            raise

    def close(self) -> None:
        """Close its files."""
        self.catalogue.close()

    def search(
        self, query: str, *, limit: int = 20, offset: int = 0, fold: bool = False
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

        Raises
        ------
        QueryError
            When the query cannot be understood.
        DataError
            When the library's thesaurus cannot be read.
        InvalidArgumentError
            When `limit` or `offset` is negative.
        """
        _check_page(limit, offset)
        node = parse(query, vocabulary=self.vocabulary())
        now = self.snapshot()
        masks = Filters(self._facts, now)
        folded = self._folding.fold(now, node, masks) if fold else None
        parts = now.parts if folded is None else folded.parts
        page = rank(node, parts, offset=offset, limit=limit, masks=masks)
        ids = page.recordings.tolist()
        known = self.catalogue.recordings_at(ids, now.lengths["moves"])
        moments = _moments(now, node, masks, [known[n] for n in ids if n in known])
        hits = self._hits(now, [(known[n], moments[n]) for n in ids if n in moments])
        if folded is not None:
            hits = [self._with_copies(now, hit, folded.copies) for hit in hits]
        return SearchResult(query, page.total, page.total_clips, offset, limit, hits)

    def vocabulary(self) -> Vocabulary:
        """Return what words stand for here: with the words of the library's ``thesaurus.toml``.

        Raises
        ------
        DataError
            When that file cannot be read; the message gives the line.
        """
        path = self.folder / THESAURUS
        try:
            state = path.stat()
        except FileNotFoundError:
            return load_vocabulary()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        with self._lock:
            if self._own_words is None or self._own_words[0] != stamp:
                self._own_words = stamp, Vocabulary(own_words=read_thesaurus(path))
            return self._own_words[1]

    def similar(
        self,
        example: int | str | os.PathLike[str] | npt.NDArray[np.uint8],
        *,
        limit: int = 20,
        offset: int = 0,
    ) -> SearchResult:
        """Find the recordings that sound most like an example.

        Parameters
        ----------
        example : int, path-like or uint8 (n, 128)
            A clip of this library (it is not among the hits), a sound file, or embedding frames.
        limit, offset : int
            Which hits to return.

        Raises
        ------
        AudioError
            When the sound file cannot be used.
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When frames are of another shape or type, or `limit` or `offset` is negative.
        """
        _check_page(limit, offset)
        now = self.snapshot()
        vector, own = self._example(now, example)
        search = self.neighbours(now)
        # Several clips of a recording make one hit, and clips that are equally near may stand in
        # any order at the end: ask until what stands before them fills the page.
        count = 2 * (offset + limit) + 10
        while True:
            clips, cosines = search.search(vector, count)
            if own is not None:
                clips, cosines = clips[clips != own], cosines[clips != own]
            recordings = _recordings_of(now, clips)
            if count >= now.live_clips:
                break
            sure = recordings[cosines > cosines.min(initial=2.0)]
            if len(np.unique(sure)) >= offset + limit:
                break
            count *= 4
        ids = recordings[first_of_each(recordings)][offset : offset + limit]
        known = self.catalogue.recordings_at(ids, now.lengths["moves"])
        on_page = np.flatnonzero(np.isin(recordings, ids))
        tops = _labels_of(now, clips[on_page])
        names = load_labels().names
        moments: dict[int, list[Moment]] = {}
        for at, top in zip(on_page.tolist(), tops, strict=True):
            recording = known.get(int(recordings[at]))
            if recording is not None:
                score = max(float(cosines[at]), 0.0)
                moments.setdefault(recording.id, []).append(
                    _moment(recording, int(clips[at]), score, names[top])
                )
        found = [(known[n], moments[n]) for n in ids.tolist() if n in moments]
        total, total_clips = now.live_recordings, now.live_clips
        if own is not None:
            total_clips -= 1
            # Its recording is still found by its other clips, if it has any.
            part, row = now.find(own)
            block, number = part.block, part.block.recordings[row]
            neighbours = block.recordings[max(row - 1, 0) : row + 2]
            total -= int((neighbours == number).sum() == 1)
        return SearchResult(None, total, total_clips, offset, limit, self._hits(now, found))

    def clip(self, clip_id: int, *, top: int = 5) -> Clip:
        """Return one clip with its `top` best classes.

        Raises
        ------
        LibraryError
            When there is no such clip.
        """
        if top < 1:
            raise InvalidArgumentError(f"top must be at least 1, not {top}.")
        now = self.snapshot()
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
        )

    def frames(self, clip_id: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of a clip, uint8 (n, 128).

        n is 0 for a row of a packed file: it keeps its frames itself.

        Raises
        ------
        LibraryError
            When there is no such clip.
        LibraryDamagedError
            When the file of the frames is missing or too short.
        """
        now = self.snapshot()
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

    def _example(
        self, now: Snapshot, example: int | str | os.PathLike[str] | npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], int | None]:
        """Return the search vector of an example, and its clip where it is one of ours."""
        if isinstance(example, int | np.integer):
            part, row = now.find(int(example))
            return np.asarray(part.block.vectors[row], np.float32), int(example)
        if isinstance(example, str | os.PathLike):
            from audiosearch.jobs.analysis import Analyzer, AnalyzerSettings

            # AudioSet's released embeddings have no embedder here; any of ours shares their space.
            made_by = [self.manifest["embedder"], *self.manifest.get("mixed_with", [])]
            names = [model["name"] for model in made_by if model["name"] in available_embedders()]
            settings = AnalyzerSettings(embedder=names[0]) if names else AnalyzerSettings()
            example = Analyzer(settings).embed(example)[0]
        frames = np.asarray(example)
        if frames.ndim != 2 or frames.shape[1] != EMBEDDING_SIZE or frames.dtype != np.uint8:
            raise InvalidArgumentError(
                f"An example is uint8 (n, {EMBEDDING_SIZE}) embedding frames, not {frames.dtype} "
                f"{frames.shape}."
            )
        if not len(frames):
            raise InvalidArgumentError("The example holds no frames.")
        return search_vector(frames), None

    def _hits(self, now: Snapshot, found: list[tuple[Recording, list[Moment]]]) -> list[Hit]:
        """Return the hits of a page from the moments of each recording, best first."""
        tags = _tags_of(now, [moments[0].clip for _, moments in found])
        return [
            _hit(recording, moments, best)
            for (recording, moments), best in zip(found, tags, strict=True)
        ]


def _moments(
    now: Snapshot, node: Node, masks: Masks, recordings: list[Recording]
) -> dict[int, list[Moment]]:
    """Return the clips of some recordings that match, best first, by recording.

    One that another process removed meanwhile is left out.
    """
    places: dict[int, list[tuple[Recording, npt.NDArray[np.int64]]]] = {}
    for recording in recordings:
        where = now.rows_of(recording)
        if where is not None:
            places.setdefault(where[0], []).append((recording, where[1]))
    names = load_labels().names
    result: dict[int, list[Moment]] = {}
    for number, wanted in places.items():
        block = now.parts[number].block
        rows = np.concatenate([rows for _, rows in wanted])
        matched = match(node, block, rows, masks=masks)
        clips = block.clip_ids(rows)
        stop = 0
        for recording, own in wanted:
            start, stop = stop, stop + len(own)
            at = start + np.flatnonzero(matched.found[start:stop])
            at = at[np.argsort(-matched.score[at], kind="stable")]
            triples = zip(
                clips[at].tolist(),
                matched.score[at].tolist(),
                matched.label[at].tolist(),
                strict=True,
            )
            result[recording.id] = [
                _moment(recording, clip, score, names[label]) for clip, score, label in triples
            ]
    return {number: moments for number, moments in result.items() if moments}


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


def _hit(recording: Recording, moments: list[Moment], tags: list[Tag]) -> Hit:
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
    )


def _check_page(limit: int, offset: int) -> None:
    if limit < 0 or offset < 0:
        raise InvalidArgumentError("limit and offset must not be negative.")


def _label_names(recording: Recording) -> list[str] | None:
    if recording.labels is None:
        return None
    return [load_labels()[index].name for index in recording.labels]
