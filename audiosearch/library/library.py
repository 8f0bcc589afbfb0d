"""A library on disk: opened, searched, described. `audiosearch.library.indexing` fills it.

A library is a folder::

    manifest.json     format, embedder, classifier, search vectors
    catalogue.sqlite  recordings, and how much of the files below counts
    scores.u8         (clips, 527) score codes
    vectors.i8        (clips, 128) search vectors
    frames.u8         (frames, 128) embeddings of sound files, to score them again later
    writer.lock       held by the one process that writes
    thesaurus.toml    words of the user's own, where there are any
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders import available_embedders
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, InvalidArgumentError, LibraryError, printable
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.catalogue import Catalogue, Recording, Skipped
from audiosearch.library.columns import Column, search_vector
from audiosearch.library.filters import Facts, evaluate, read_facts
from audiosearch.library.hits import Clip, Hit, Moment, SearchResult, Tag
from audiosearch.library.manifest import CATALOGUE, iso_time, read_manifest
from audiosearch.library.ranking import group, match
from audiosearch.library.snapshot import Snapshot, read_snapshot
from audiosearch.query import (
    THESAURUS,
    Vocabulary,
    load_vocabulary,
    parse,
    read_thesaurus,
)
from audiosearch.storage import Closing

if TYPE_CHECKING:
    from audiosearch.library.vectors import VectorIndex

__all__ = ["Library", "LibraryInfo"]


@dataclass(frozen=True)
class LibraryInfo:
    """What is in a library and what made it; `created` and `updated` are ISO 8601, UTC."""

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
        self.scores = Column(self.folder / "scores.u8", CLASS_COUNT)
        self.vectors = Column(self.folder / "vectors.i8", EMBEDDING_SIZE, np.int8)
        self.frames = Column(self.folder / "frames.u8", EMBEDDING_SIZE)
        self._lock = threading.RLock()
        self._snapshot_now: Snapshot | None = None
        self._index: tuple[int, VectorIndex] | None = None
        self._facts_now: tuple[int, Facts] | None = None
        self._own_words: tuple[tuple[int, int, int], Vocabulary] | None = None
        try:
            self._snapshot()
        except BaseException:
            self.catalogue.close()
            raise

    def close(self) -> None:
        """Close its files."""
        self.catalogue.close()

    def search(self, query: str, *, limit: int = 20, offset: int = 0) -> SearchResult:
        """Find the recordings that most surely hold what the query asks for.

        Parameters
        ----------
        query : str
            See `audiosearch.query`.
        limit, offset : int
            Which hits to return: `limit` from number `offset` on.

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
        now = self._snapshot()
        result = evaluate(
            node, now.recording, lambda: self._facts(now), lambda part: match(part, now.codes)
        )
        clips = np.flatnonzero(result.found & now.live)
        clips = clips[np.argsort(-result.score[clips], kind="stable")]
        label = result.label
        unnamed = clips[label[clips] < 0]  # found by a filter, or by what is not heard
        if len(unnamed):
            label[unnamed] = np.asarray(now.codes[unnamed]).argmax(axis=1)
        return self._page(now, query, clips, result.score, label, limit, offset)

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
        now = self._snapshot()
        vector, own = self._example(now, example)
        index = self._vector_index(now)
        # Several clips of a recording make one hit, and clips that are equally near may stand in
        # any order at the end: ask until what stands before them fills the page.
        count = 2 * (offset + limit) + 10
        while True:
            clips, cosines = index.search(vector, count)
            if own is not None:
                clips, cosines = clips[clips != own], cosines[clips != own]
            if count >= now.live_clips:
                break
            sure = clips[cosines > cosines.min(initial=2.0)]
            if len(np.unique(now.recording[sure])) >= offset + limit:
                break
            count *= 4
        order = np.lexsort((clips, -cosines))
        clips, cosines = clips[order], cosines[order]
        score = np.zeros(len(now.recording), np.float32)
        score[clips] = np.maximum(cosines, 0.0)
        label = np.full(len(now.recording), -1, np.int16)
        label[clips] = np.asarray(now.codes[clips]).argmax(axis=1)
        page = self._page(now, None, clips, score, label, limit, offset)
        total, total_clips = len(now.ids), now.live_clips
        if own is not None:
            total_clips -= 1
            # Its recording is still found by its other clips, if it has any.
            total -= int((now.recording == now.recording[own]).sum() == 1)
        return replace(page, total=total, total_clips=total_clips)

    def clip(self, clip_id: int, *, top: int = 5) -> Clip:
        """Return one clip with its `top` best classes.

        Raises
        ------
        LibraryError
            When there is no such clip.
        """
        if top < 1:
            raise InvalidArgumentError(f"top must be at least 1, not {top}.")
        now = self._snapshot()
        now.check(clip_id)
        number = int(now.ids[now.recording[clip_id]])
        recording = self.catalogue.recordings([number]).get(number)
        if recording is None:
            raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
        return Clip(
            recording=recording.name,
            source=recording.source,
            recording_id=recording.id,
            clip=int(clip_id),
            start=float(now.start[clip_id]),
            end=float(now.end[clip_id]),
            duration=recording.duration if recording.source == "file" else None,
            tags=now.tags(clip_id, top),
            labels=_label_names(recording),
        )

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
            bytes=size,
        )

    def _snapshot(self) -> Snapshot:
        """Return what the library holds now; another process may have added to it."""
        with self._lock:
            now = self._snapshot_now
            if now is None or now.changes != self.catalogue.lengths()["changes"]:
                now = read_snapshot(self.catalogue, self.scores, self.vectors)
                self._snapshot_now = now
            return now

    def _facts(self, now: Snapshot) -> Facts:
        with self._lock:
            if self._facts_now is None or self._facts_now[0] != now.changes:
                self._facts_now = now.changes, read_facts(self.catalogue, now.ids)
            return self._facts_now[1]

    def _vector_index(self, now: Snapshot) -> VectorIndex:
        with self._lock:
            if self._index is None or self._index[0] != now.changes:
                from audiosearch.library.vectors import VectorIndex

                self._index = (now.changes, VectorIndex(now.vectors, now.live))
            return self._index[1]

    def _example(
        self, now: Snapshot, example: int | str | os.PathLike[str] | npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], int | None]:
        """Return the search vector of an example, and its clip where it is one of ours."""
        if isinstance(example, int | np.integer):
            now.check(int(example))
            return np.asarray(now.vectors[example], np.float32), int(example)
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

    def _page(
        self,
        now: Snapshot,
        query: str | None,
        clips: npt.NDArray[np.int64],
        score: npt.NDArray[np.float32],
        label: npt.NDArray[np.int16],
        limit: int,
        offset: int,
    ) -> SearchResult:
        """Group ranked clips by recording and return the hits of one page."""
        order, of = group(now.recording[clips])
        on_page = np.flatnonzero((of >= offset) & (of < offset + limit))
        moments: dict[int, list[Moment]] = {}
        names = load_labels().names
        for clip, position in zip(clips[on_page].tolist(), of[on_page].tolist(), strict=True):
            start, end = float(now.start[clip]), float(now.end[clip])
            moments.setdefault(position, []).append(
                Moment(clip, start, end, float(score[clip]), names[label[clip]])
            )
        ids = now.ids[order[offset : offset + limit]].tolist()
        known = self.catalogue.recordings(ids)
        hits = [
            _hit(known[number], moments[position], now.tags(moments[position][0].clip, 5))
            for position, number in enumerate(ids, offset)
            if number in known  # else removed by another process a moment ago
        ]
        return SearchResult(query, len(order), len(clips), offset, limit, hits)


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
