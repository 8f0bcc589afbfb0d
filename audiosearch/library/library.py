"""A library on disk: opened, searched, described. `audiosearch.library.indexing` fills it.

A library is a folder::

    manifest.json     format, embedder, classifier, search vectors
    catalogue.sqlite  recordings, and how much of the files below counts
    scores.u8         (clips, 527) score codes
    vectors.i8        (clips, 128) search vectors
    frames.u8         (frames, 128) embeddings of sound files, to score them again later
    writer.lock       held by the one process that writes
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import __version__
from audiosearch.embedders.base import EMBEDDING_SIZE, SPACE
from audiosearch.errors import (
    InvalidArgumentError,
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryVersionError,
    printable,
)
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.catalogue import Catalogue, Recording, Skipped
from audiosearch.library.columns import Column, decode_scores, search_vector
from audiosearch.library.hits import Clip, Hit, Moment, SearchResult, Tag
from audiosearch.library.ranking import group, match
from audiosearch.query import parse
from audiosearch.storage import read_json, storage_errors, write_json

__all__ = ["LIBRARY_FORMAT", "Library", "LibraryInfo", "create_library"]

LIBRARY_FORMAT = 1
MANIFEST = "manifest.json"
CATALOGUE = "catalogue.sqlite"
CLIP_SPAN = 9.6  # seconds from clip to clip of a sound file


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
    classifier: str
    classifier_hash: str
    created: str
    updated: str | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class _Snapshot:
    """What a library held at one moment, ready to be searched."""

    changes: int
    codes: npt.NDArray[np.uint8]
    vectors: npt.NDArray[np.int8]
    recording: npt.NDArray[np.int64]  # of each clip; -1 where it was removed
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        return self.recording >= 0


class Library:
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
        self.manifest = _read_manifest(self.folder)
        self.catalogue = Catalogue(self.folder / CATALOGUE, writable=writable)
        self.scores = Column(self.folder / "scores.u8", CLASS_COUNT)
        self.vectors = Column(self.folder / "vectors.i8", EMBEDDING_SIZE, np.int8)
        self.frames = Column(self.folder / "frames.u8", EMBEDDING_SIZE)
        self._lock = threading.RLock()
        self._snapshot_now: _Snapshot | None = None
        self._index: tuple[int, Any] | None = None
        try:
            self._snapshot()
        except BaseException:
            self.catalogue.close()
            raise

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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
        InvalidArgumentError
            When `limit` or `offset` is negative.
        """
        _check_page(limit, offset)
        node = parse(query)
        now = self._snapshot()
        result = match(node, now.codes)
        clips = np.flatnonzero(result.found & now.live)
        clips = clips[np.argsort(-result.score[clips], kind="stable")]
        return self._page(now, query, clips, result.score, result.label, limit, offset)

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
        with self._lock:
            if self._index is None or self._index[0] != now.changes:
                from audiosearch.library.vectors import VectorIndex

                self._index = (now.changes, VectorIndex(now.vectors, now.live))
            index = self._index[1]
        total = len(np.unique(now.recording[now.live]))
        # Several clips of a recording make one hit, so ask for more until the page is full.
        count = 2 * (offset + limit) + 10
        while True:
            clips, cosines = index.search(vector, count)
            if own is not None:
                clips, cosines = clips[clips != own], cosines[clips != own]
            enough = len(np.unique(now.recording[clips])) >= offset + limit
            if enough or count >= int(now.live.sum()):
                break
            count *= 4
        score = np.zeros(len(now.recording), np.float32)
        score[clips] = np.maximum(cosines, 0.0)
        label = np.full(len(now.recording), -1, np.int16)
        label[clips] = np.asarray(now.codes[clips]).argmax(axis=1)
        page = self._page(now, None, clips, score, label, limit, offset)
        others = int(now.live.sum()) - (own is not None)
        if own is not None and (now.recording == now.recording[own]).sum() == 1:
            total -= 1
        return SearchResult(None, total, others, offset, limit, page.hits)

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
        self._check_clip(now, clip_id)
        recording = self.catalogue.recordings([now.recording[clip_id]])[int(now.recording[clip_id])]
        return Clip(
            recording=recording.name,
            source=recording.source,
            recording_id=recording.id,
            clip=int(clip_id),
            start=float(now.start[clip_id]),
            end=float(now.end[clip_id]),
            duration=recording.duration if recording.source == "file" else None,
            tags=_tags(now, int(clip_id), top),
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
        size = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        return LibraryInfo(
            folder=printable(str(self.folder)),
            format=self.manifest["format_version"],
            version=self.manifest["audiosearch"],
            recordings=recordings,
            clips=clips,
            seconds=round(seconds, 3),
            skipped=len(self.skipped()),
            embedder=self.manifest["embedder"]["name"],
            embedder_hash=self.manifest["embedder"]["sha256"],
            classifier=self.manifest["classifier"]["name"],
            classifier_hash=self.manifest["classifier"]["sha256"],
            created=self.manifest["created"],
            updated=None if updated is None else iso_time(updated),
            bytes=size,
        )

    def _snapshot(self) -> _Snapshot:
        """Return what the library holds now; another process may have added to it."""
        with self._lock:
            lengths = self.catalogue.lengths()
            now = self._snapshot_now
            if now is None or now.changes != lengths["changes"]:
                now = self._snapshot_now = self._read_snapshot(lengths)
            return now

    def _read_snapshot(self, lengths: dict[str, int]) -> _Snapshot:
        rows = lengths["clips"]
        layout = self.catalogue.layout()
        first, counts = layout[:, 1].astype(np.int64), layout[:, 2].astype(np.int64)
        recording = np.full(rows, -1, np.int64)
        start, end = np.zeros(rows), np.zeros(rows)
        if len(layout) and (first + counts).max() > rows:
            # Written between the two reads; the next look finds them together.
            return self._read_snapshot(self.catalogue.lengths())
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(first, counts) + number
        recording[at] = np.repeat(layout[:, 0].astype(np.int64), counts)
        begin, duration = np.repeat(layout[:, 3], counts), np.repeat(layout[:, 4], counts)
        start[at] = begin + number * CLIP_SPAN
        is_last = number == np.repeat(counts, counts) - 1
        end[at] = np.where(is_last, begin + duration, begin + (number + 1) * CLIP_SPAN)
        end[at] = np.maximum(end[at], start[at])
        return _Snapshot(
            lengths["changes"],
            self.scores.read(rows),
            self.vectors.read(rows),
            recording,
            start,
            end,
        )

    def _example(
        self, now: _Snapshot, example: int | str | os.PathLike[str] | npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], int | None]:
        """Return the search vector of an example, and its clip where it is one of ours."""
        if isinstance(example, int | np.integer):
            self._check_clip(now, int(example))
            return np.asarray(now.vectors[example], np.float32), int(example)
        if isinstance(example, str | os.PathLike):
            from audiosearch.jobs.analysis import Analyzer, AnalyzerSettings

            embedder = self.manifest["embedder"]["name"]
            example = Analyzer(AnalyzerSettings(embedder=embedder)).embed(example)[0]
        frames = np.asarray(example)
        if frames.ndim != 2 or frames.shape[1] != EMBEDDING_SIZE or frames.dtype != np.uint8:
            raise InvalidArgumentError(
                f"An example is uint8 (n, {EMBEDDING_SIZE}) embedding frames, not {frames.dtype} "
                f"{frames.shape}."
            )
        if not len(frames):
            raise InvalidArgumentError("The example holds no frames.")
        return search_vector(frames), None

    def _check_clip(self, now: _Snapshot, clip_id: int) -> None:
        if not 0 <= clip_id < len(now.recording) or now.recording[clip_id] < 0:
            raise LibraryError(
                f"There is no clip {clip_id} in this library; it has {int(now.live.sum()):,} clips."
            )

    def _page(
        self,
        now: _Snapshot,
        query: str | None,
        clips: npt.NDArray[np.int64],
        score: npt.NDArray[np.float32],
        label: npt.NDArray[np.int16],
        limit: int,
        offset: int,
    ) -> SearchResult:
        """Group ranked clips by recording and return the hits of one page."""
        order, of = group(clips, now.recording[clips])
        wanted = order[offset : offset + limit]
        known = self.catalogue.recordings(wanted)
        members: dict[int, list[int]] = {
            position: [] for position in range(len(order))[offset:][:limit]
        }
        for clip, position in zip(clips.tolist(), of.tolist(), strict=True):
            if position in members:
                members[position].append(clip)
        names = load_labels().names

        def moment(clip: int) -> Moment:
            return Moment(
                clip,
                float(now.start[clip]),
                float(now.end[clip]),
                float(score[clip]),
                names[label[clip]],
            )

        hits = []
        for position, ours in members.items():
            recording = known.get(int(order[position]))
            if recording is None:  # removed by another process a moment ago
                continue
            best = moment(ours[0])
            hits.append(
                Hit(
                    recording=recording.name,
                    source=recording.source,
                    recording_id=recording.id,
                    clip=best.clip,
                    start=best.start,
                    end=best.end,
                    score=best.score,
                    label=best.label,
                    tags=_tags(now, best.clip, 5),
                    labels=_label_names(recording),
                    moments=[moment(clip) for clip in ours[1:]],
                )
            )
        return SearchResult(query, len(order), len(clips), offset, limit, hits)


def create_library(
    folder: str | os.PathLike[str],
    *,
    embedder: tuple[str, str | None],
    classifier: tuple[str, str],
) -> None:
    """Make an empty library.

    Parameters
    ----------
    folder : path-like
        Where; it must not hold a library, and is made where it is missing.
    embedder, classifier : (name, SHA-256 of the weights)
        What fills it. The embedder's hash is None for embeddings that AudioSet released.

    Raises
    ------
    LibraryError
        When the folder holds other things, which are left alone.
    StorageError
        When it cannot be written.
    """
    folder = Path(folder)
    name = printable(str(folder))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = [
            path.name
            for path in folder.iterdir()
            # What an earlier try left behind, before it wrote the manifest.
            if path.name not in (CATALOGUE, f"{CATALOGUE}-journal", "writer.lock")
            and not path.name.startswith(f".{MANIFEST}")
        ]
        if others:
            raise LibraryError(
                f"{name} is not empty and holds no library. Name a new or empty folder with "
                "--library."
            )
        (folder / CATALOGUE).unlink(missing_ok=True)
        Catalogue.create(folder / CATALOGUE)
    write_json(
        folder / MANIFEST,
        {
            "kind": "audiosearch library",
            "format_version": LIBRARY_FORMAT,
            "audiosearch": __version__,
            "created": iso_time(time.time()),
            "embedder": {"name": embedder[0], "sha256": embedder[1], "space": SPACE},
            "classifier": {"name": classifier[0], "sha256": classifier[1], "classes": CLASS_COUNT},
            "scores": {"type": "uint8", "logit": "code / 16 - 9"},
            "vectors": {"type": "int8", "size": EMBEDDING_SIZE, "of": "mean of a clip's frames"},
        },
    )


def iso_time(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _read_manifest(folder: Path) -> dict[str, Any]:
    name = printable(str(folder))
    try:
        manifest = read_json(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise LibraryNotFoundError(
            f"There is no library in {name}. Make one with: audiosearch index FOLDER --library "
            f"{name}"
        ) from None
    except (OSError, ValueError) as error:
        raise LibraryDamagedError(
            f"{name}/{MANIFEST} cannot be read ({error}). Restore it from a backup, or delete the "
            "library's folder and index the sounds again."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("kind") != "audiosearch library":
        raise LibraryNotFoundError(f"{name} holds something else than a library of audiosearch.")
    if manifest.get("format_version") != LIBRARY_FORMAT:
        raise LibraryVersionError(
            f"The library {name} has format {manifest.get('format_version')}, made by audiosearch "
            f"{manifest.get('audiosearch')}; this version ({__version__}) reads format "
            f"{LIBRARY_FORMAT}. Use that version, or index the sounds again into a new folder."
        )
    return manifest


def _check_page(limit: int, offset: int) -> None:
    if limit < 0 or offset < 0:
        raise InvalidArgumentError("limit and offset must not be negative.")


def _tags(now: _Snapshot, clip: int, top: int) -> list[Tag]:
    codes = np.asarray(now.codes[clip])
    labels = load_labels()
    return [
        Tag(labels[int(i)].name, labels[int(i)].mid, float(decode_scores(codes[i])))
        for i in np.argsort(-codes.astype(np.int16), kind="stable")[:top]
    ]


def _label_names(recording: Recording) -> list[str] | None:
    if recording.labels is None:
        return None
    return [load_labels()[index].name for index in recording.labels]
