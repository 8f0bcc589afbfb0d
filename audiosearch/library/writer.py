"""Adding to a library: the tail's files first, then one transaction of the catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import AudioDecodeError, AudioError, InvalidArgumentError, printable
from audiosearch.jobs import Analysis, Meter, Progress
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.columns import encode_scores, encode_vectors, search_vector
from audiosearch.library.compaction import seal
from audiosearch.library.label_table import contents_of
from audiosearch.library.library import Library
from audiosearch.library.own_scores import OwnCodes, own_codes
from audiosearch.library.recordings import KnownFile, NewRecording, Skipped
from audiosearch.library.segments import SEAL_CLIPS
from audiosearch.library.sources import SoundFile, is_below
from audiosearch.library.tail import ROW, tail_columns

__all__ = ["FileResult", "IndexSummary", "Writer", "append_clips"]

FileResult = tuple[SoundFile, Analysis | AudioError, KnownFile | None]
"""A file, its result, and what the catalogue knew of it before."""


@dataclass
class IndexSummary:
    """What a run did.

    Attributes
    ----------
    library : str
        The library's folder.
    added, updated, unchanged, removed : int
        Recordings. Those found again as they were count as unchanged.
    skipped : list of Skipped
        Files that could not be used, in this run or in an earlier one and unchanged since.
    seconds : float
        Seconds of sound that were added or updated.
    elapsed : float
        How long the run took, in seconds.
    """

    library: str
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0
    elapsed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


class Writer:
    """Commits groups of results.

    Parameters
    ----------
    library : Library
        Open for writing; the caller holds the writer's lock.
    on_progress : callable, optional
        Called at the start of the work, and whenever something was committed.
    """

    def __init__(
        self, library: Library, *, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        self.library = library
        self.summary = IndexSummary(printable(str(library.folder)))
        self.meter = Meter(on_progress)
        self._roots = {path: number for number, path in library.catalogue.roots().items()}

    def add_roots(self, folders: Sequence[bytes]) -> None:
        """Make sure that files in these folders have a root to be relative to."""
        with self.library.catalogue.transaction():
            # Parents first: they serve what is below them too.
            for folder in sorted(set(folders)):
                if self._root_of(folder) is None:
                    self._roots[folder] = self.library.catalogue.add_root(folder)

    def commit(self, group: Sequence[FileResult]) -> None:
        """Commit results of files."""
        group = [(file, _checked(result), known) for file, result, known in group]
        results = [result for _, result, _ in group if isinstance(result, Analysis)]
        frames = 0
        contents: list[bytes] = []
        if results:
            embedded = np.concatenate([result.frames for result in results])
            frames = len(embedded)
            contents = append_clips(
                self.library,
                [len(result.scores) for result in results],
                np.concatenate([result.scores for result in results]),
                np.stack([vector for result in results for vector in _clip_vectors(result)]),
                frame_counts=np.concatenate([_frame_counts(result) for result in results]),
                frames=embedded,
                own=_heard(results),
            )
        catalogue, summary = self.library.catalogue, self.summary
        with catalogue.transaction():
            rows = []
            for file, result, known in group:
                if known is not None:
                    catalogue.forget(known)
                root, name = self._place(file.path)
                if isinstance(result, AudioError):
                    catalogue.skip(root, name, file.size, file.mtime_ns, result.reason)
                else:
                    rows.append(_recording(result, root, name, file))
            catalogue.add(rows, frames=frames, contents=contents)
        skipped, seconds = 0, 0.0
        for file, result, known in group:
            if isinstance(result, AudioError):
                skipped += 1
                name_ = printable(os.fsdecode(file.path))
                summary.skipped.append(Skipped(name_, printable(result.reason)))
                continue
            seconds += result.duration
            if known is not None and known.id is not None:
                summary.updated += 1
            else:
                summary.added += 1
        summary.seconds += seconds
        size = sum(file.size for file, _, _ in group)
        self.meter.add(len(group), skipped=skipped, seconds=seconds, size=size)
        self._seal()

    def add_rows(
        self,
        recordings: Sequence[NewRecording],
        scores: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
    ) -> None:
        """Commit recordings that bring no frames, and the scores and vectors of all their clips."""
        clips = [new.clips for new in recordings]
        contents = append_clips(self.library, clips, scores, vectors)
        with self.library.catalogue.transaction():
            self.library.catalogue.add(recordings, contents=contents)
        seconds = sum(recording.duration for recording in recordings)
        self.summary.seconds += seconds
        self.meter.add(len(recordings), seconds=seconds)
        self._seal()

    def _seal(self) -> None:
        if self.library.catalogue.lengths()["tail_rows"] >= SEAL_CLIPS:
            seal(self.library)

    def _root_of(self, path: bytes) -> bytes | None:
        """Return the longest root that a path lies below."""
        return max((root for root in self._roots if is_below(path, root)), key=len, default=None)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the root of a path, and the path below it."""
        root = self._root_of(path)
        assert root is not None
        return self._roots[root], path[len(os.path.join(root, b"")) :]  # noqa: PTH118 - bytes


def append_clips(
    library: Library,
    clips: Sequence[int],
    scores: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    *,
    frame_counts: npt.NDArray[np.uint8] | None = None,
    frames: npt.NDArray[np.uint8] | None = None,
    own: OwnCodes | None = None,
) -> list[bytes]:
    """Write clips to the end of the tail; they count once `Catalogue.add` has committed them.

    Parameters
    ----------
    library : Library
        Writable; its lock is held.
    clips : sequence of int
        How many clips each recording has, in the order in which they will be committed.
    scores : float32 (n, 527)
        Class scores.
    vectors : float32 (n, 128)
        Search vectors.
    frame_counts : uint8 (n,), optional
        How many frames each clip brings; none where None.
    frames : uint8 (m, 128), optional
        All of them.
    own : OwnCodes, optional
        What the library's own classifiers say; where None, they have not heard these clips.

    Returns
    -------
    list of bytes
        The content of each recording, for `Catalogue.add`.

    Raises
    ------
    InvalidArgumentError
        When an array has another size, or values that are no numbers.
    LibraryDamagedError
        When the tail's files are missing or shorter than what was committed.
    StorageError
        When the disk is full; what was committed stays.
    """
    count = sum(clips)
    for name, values, width in (
        ("Scores", scores, CLASS_COUNT),
        ("Search vectors", vectors, EMBEDDING_SIZE),
    ):
        if values.shape != (count, width):
            raise InvalidArgumentError(
                f"{name} of {count} clips have the shape ({count}, {width}), not {values.shape}."
            )
        if not np.isfinite(values).all():
            raise InvalidArgumentError(f"{name} must be finite numbers.")
    if own is not None and own.clips.shape != (count, len(library.own.names)):
        raise InvalidArgumentError(
            f"Own scores of {count} clips have the shape ({count}, {len(library.own.names)}), not "
            f"{own.clips.shape}."
        )
    catalogue = library.catalogue
    lengths, first = catalogue.lengths(), catalogue.next_recording()
    rows = np.zeros(count, ROW)
    rows["recording"] = np.repeat(np.arange(first, first + len(clips)), clips)
    rows["scores"] = encode_scores(scores)
    rows["vector"] = encode_vectors(vectors)
    rows_file, frames_file = tail_columns(library.folder, lengths["tail"])
    if frames is not None and frame_counts is not None:
        if frames.shape != (int(frame_counts.sum(dtype=np.int64)), EMBEDDING_SIZE):
            raise InvalidArgumentError(f"Frames of the shape {frames.shape} do not fit the clips.")
        rows["frames"] = frame_counts
        frames_file.append(lengths["tail_frames"], frames)
    library.own.write(lengths["clips"], own, count)
    rows_file.append(lengths["tail_rows"], rows)
    return contents_of(rows["vector"], clips)


def _checked(result: Analysis | AudioError) -> Analysis | AudioError:
    if isinstance(result, Analysis) and not np.isfinite(result.scores).all():
        return AudioDecodeError(result.path, "Its scores are no numbers, so it was not indexed.")
    return result


def _recording(result: Analysis, root: int, name: bytes, file: SoundFile) -> NewRecording:
    return NewRecording(
        source="file",
        root=root,
        name=name,
        size=file.size,
        mtime_ns=file.mtime_ns,
        start=0.0,
        duration=result.duration,
        clips=len(result.scores),
    )


def _heard(results: Sequence[Analysis]) -> OwnCodes:
    return own_codes(
        np.concatenate([result.own_scores() for result in results]),
        np.concatenate([result.own_frame_scores() for result in results]),
        np.concatenate([_frame_counts(result) for result in results]),
    )


def _clip_vectors(result: Analysis) -> list[npt.NDArray[np.float32]]:
    return [
        search_vector(result.frames[first : first + CLIP_FRAMES])
        for first in range(0, len(result.frames), CLIP_FRAMES)
    ]


def _frame_counts(result: Analysis) -> npt.NDArray[np.uint8]:
    counts = np.full(len(result.scores), CLIP_FRAMES, np.uint8)
    counts[-1] = len(result.frames) - CLIP_FRAMES * (len(counts) - 1)
    return counts
