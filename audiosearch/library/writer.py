"""Adding to a library: the columns first, then one transaction of the catalogue."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.errors import AudioError, printable
from audiosearch.jobs import Analysis, Progress
from audiosearch.library.catalogue import KnownFile, NewRecording, Skipped
from audiosearch.library.columns import encode_scores, encode_vectors, search_vector
from audiosearch.library.library import Library
from audiosearch.library.sources import SoundFile, is_below

__all__ = ["IndexSummary", "Writer"]

_GROUP_SECONDS = 1.0
_GROUP_FILES = 200


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
    """Collects results and commits them in groups.

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
        self._on_progress = on_progress
        self._done = self._total = self._skipped = 0
        self._roots = {path: number for number, path in library.catalogue.roots().items()}
        self._pending: list[tuple[SoundFile, Analysis | AudioError, KnownFile | None]] = []
        self._last = time.monotonic()

    def expect(self, count: int) -> None:
        """Say that there are `count` more files or rows to do."""
        self._total += count
        self._advance(0)

    def add_roots(self, folders: Sequence[bytes]) -> None:
        """Make sure that files in these folders have a root to be relative to."""
        with self.library.catalogue.transaction():
            # Parents first: they serve what is below them too.
            for folder in sorted(set(folders)):
                if self._root_of(folder) is None:
                    self._roots[folder] = self.library.catalogue.add_root(folder)

    def put(self, file: SoundFile, result: Analysis | AudioError, known: KnownFile | None) -> None:
        """Take one file's result, and what the catalogue knew of the file before."""
        self._pending.append((file, result, known))
        late = time.monotonic() - self._last >= _GROUP_SECONDS
        if late or len(self._pending) >= _GROUP_FILES:
            self.flush()

    def flush(self) -> None:
        """Commit what was put."""
        pending, self._pending = self._pending, []
        self._last = time.monotonic()
        if not pending:
            return
        results = [result for _, result, _ in pending if isinstance(result, Analysis)]
        if results:
            self._append(
                np.concatenate([result.scores for result in results]),
                np.stack([vector for result in results for vector in _clip_vectors(result)]),
                np.concatenate([result.frames for result in results]),
            )
        catalogue, summary = self.library.catalogue, self.summary
        with catalogue.transaction():
            rows = []
            for file, result, known in pending:
                if known is not None:
                    catalogue.forget(known)
                root, name = self._place(file.path)
                if isinstance(result, AudioError):
                    catalogue.skip(root, name, file.size, file.mtime_ns, result.reason)
                else:
                    rows.append(_recording(result, root, name, file))
            catalogue.add(rows)
        for file, result, known in pending:
            if isinstance(result, AudioError):
                self._skipped += 1
                name_ = printable(os.fsdecode(file.path))
                summary.skipped.append(Skipped(name_, printable(result.reason)))
                continue
            summary.seconds += result.duration
            if known is not None and known.id is not None:
                summary.updated += 1
            else:
                summary.added += 1
        self._advance(len(pending))

    def add_rows(
        self,
        recordings: Sequence[NewRecording],
        scores: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
    ) -> None:
        """Commit recordings of one clip each that bring no frames."""
        self._append(scores, vectors, None)
        with self.library.catalogue.transaction():
            self.library.catalogue.add(recordings)
        self.summary.seconds += sum(recording.duration for recording in recordings)
        self._advance(len(recordings))

    def _append(
        self,
        scores: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
        frames: npt.NDArray[np.uint8] | None,
    ) -> None:
        library = self.library
        lengths = library.catalogue.lengths()
        library.scores.append(lengths["clips"], encode_scores(scores))
        library.vectors.append(lengths["clips"], encode_vectors(vectors))
        if frames is not None:
            library.frames.append(lengths["frames"], frames)

    def _advance(self, done: int) -> None:
        self._done += done
        if self._on_progress:
            self._on_progress(
                Progress(self._done, self._total, round(self.summary.seconds, 3), self._skipped)
            )

    def _root_of(self, path: bytes) -> bytes | None:
        """Return the longest root that a path lies below."""
        return max((root for root in self._roots if is_below(path, root)), key=len, default=None)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the root of a path, and the path below it."""
        root = self._root_of(path)
        assert root is not None
        return self._roots[root], path[len(os.path.join(root, b"")) :]  # noqa: PTH118 - bytes


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
        frames=len(result.frames),
    )


def _clip_vectors(result: Analysis) -> list[npt.NDArray[np.float32]]:
    return [
        search_vector(result.frames[first : first + CLIP_FRAMES])
        for first in range(0, len(result.frames), CLIP_FRAMES)
    ]
