"""Filling a library: what is new or changed in the sources is added, what is gone is removed.

Results are committed in groups, at most a second apart. Killing the process at any moment leaves a
library that opens and holds every group that was reported; the next run goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from audiosearch.audio import find_audio
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.packed import PackedClips, PackedFile
from audiosearch.embedders import available_embedders
from audiosearch.errors import (
    AudioDecodeError,
    AudioError,
    AudioNotFoundError,
    InvalidArgumentError,
    LibraryBusyError,
    LibraryMismatchError,
    printable,
)
from audiosearch.jobs import Analysis, AnalyzerSettings, Progress, WorkerPool, core_count
from audiosearch.library.catalogue import KnownFile, NewRecording, Skipped
from audiosearch.library.columns import encode_scores, encode_vectors, search_vector
from audiosearch.library.library import MANIFEST, Library, create_library
from audiosearch.models import bundled_model
from audiosearch.storage import storage_errors, write_json

__all__ = ["RELEASED", "IndexSummary", "index"]

RELEASED = "audioset-release"
"""Stands in a manifest for the embeddings that AudioSet released; no weights here make them."""

PACKED_SUFFIXES = (".h5", ".hdf5")
_GROUP_SECONDS = 1.0
_GROUP_FILES = 200
_PACKED_ROWS = 512


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
        return asdict(self)


@dataclass(frozen=True)
class _File:
    """A sound file as it was found."""

    path: bytes
    size: int
    mtime_ns: int


def index(
    sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    library: str | os.PathLike[str],
    *,
    keep_missing: bool = False,
    retry_skipped: bool = False,
    mix_embedders: bool = False,
    embedder: str = "lite",
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> IndexSummary:
    """Bring a library up to date with folders, sound files and packed HDF5 files.

    Parameters
    ----------
    sources : path-like, or several
        Folders (searched recursively), sound files, or packed files (``.h5``).
    library : path-like
        The library's folder; made where it is missing.
    keep_missing : bool
        Keep what was indexed from files that are gone.
    retry_skipped : bool
        Try unchanged files again that an earlier run skipped.
    mix_embedders : bool
        Allow embeddings of two origins in one library, such as AudioSet's own and the bundled
        embedder's.
    embedder : str
        What embeds sound files.
    workers : int, optional
        How many processes analyse; one a core where None.
    on_progress : callable, optional
        Called with a `Progress` whenever something was committed.

    Raises
    ------
    AudioNotFoundError
        When a source does not exist, or nothing in the sources can be indexed.
    DataError
        When a packed file is not as it must be.
    LibraryBusyError
        When another process is indexing into the library.
    LibraryMismatchError
        When the library was made with another embedder or classifier.
    StorageError
        When the disk is full; what was reported is safe.
    """
    began = time.monotonic()
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not listed:
        raise InvalidArgumentError("Name at least one folder or file to index.")
    if embedder not in available_embedders():
        raise InvalidArgumentError(
            f"There is no embedder '{embedder}'; there is: {', '.join(available_embedders())}."
        )
    paths = [Path(source) for source in listed]
    for path in paths:
        if not path.exists():
            raise AudioNotFoundError(os.fspath(path), "There is no such file or folder.")
    packed = [path for path in paths if path.suffix.lower() in PACKED_SUFFIXES and path.is_file()]
    sounds = [path for path in paths if path not in packed]
    for path in packed:
        PackedFile(path).close()  # refused before anything is made
    unreadable: list[AudioError] = []
    files = _find(sounds, unreadable)
    folder = Path(library)
    exists = (folder / MANIFEST).exists()
    if not files and not packed and not exists:
        raise _nothing_found(sounds)

    made_by = (embedder, bundled_model(embedder).sha256) if sounds else (RELEASED, None)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _writer_lock(folder):
        if not exists:
            scorer = bundled_model("classifier")
            create_library(
                folder,
                embedder=made_by,
                classifier=(str(scorer.manifest["name"]), scorer.sha256),
            )
        with Library(folder, writable=True) as target:
            _check_match(target, sounds, packed, embedder, mix_embedders)
            writer = _Writer(target, on_progress, IndexSummary(printable(str(folder))))
            writer.summary.skipped.extend(
                Skipped(printable(error.path), error.reason) for error in unreadable
            )
            for path in packed:
                _index_packed(writer, path)
            if sounds:
                _index_sounds(
                    writer,
                    sounds,
                    files,
                    keep_missing=keep_missing,
                    retry_skipped=retry_skipped,
                    embedder=embedder,
                    workers=workers,
                )
    writer.summary.elapsed = round(time.monotonic() - began, 3)
    return writer.summary


class _Writer:
    """Collects results and commits them in groups: columns first, then the catalogue."""

    def __init__(
        self,
        library: Library,
        on_progress: Callable[[Progress], None] | None,
        summary: IndexSummary,
    ) -> None:
        self.library = library
        self.summary = summary
        self.total = 0
        self._done = 0
        self._on_progress = on_progress
        self._roots = {path: number for number, path in library.catalogue.roots().items()}
        self._pending: list[tuple[_File, Analysis | AudioError, KnownFile | None]] = []
        self._last = time.monotonic()

    def put(self, file: _File, result: Analysis | AudioError, known: KnownFile | None) -> None:
        """Take one file's result."""
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
        library, summary = self.library, self.summary
        lengths = library.catalogue.lengths()
        if results:
            library.scores.append(
                lengths["clips"], encode_scores(np.concatenate([r.scores for r in results]))
            )
            library.vectors.append(lengths["clips"], encode_vectors(_clip_vectors(results)))
            library.frames.append(lengths["frames"], np.concatenate([r.frames for r in results]))
        with library.catalogue.transaction():
            rows = []
            for file, result, known in pending:
                library.catalogue.forget(file.path)
                root, name = self._place(file.path)
                if isinstance(result, AudioError):
                    library.catalogue.skip(root, name, file.size, file.mtime_ns, result.reason)
                else:
                    rows.append(_recording(result, root, name, file))
            library.catalogue.add(rows)
        for file, result, known in pending:
            if isinstance(result, AudioError):
                summary.skipped.append(Skipped(printable(os.fsdecode(file.path)), result.reason))
            else:
                summary.seconds += result.duration
                if known is not None and known.id is not None:
                    summary.updated += 1
                else:
                    summary.added += 1
        self.advance(len(pending))

    def advance(self, done: int) -> None:
        """Report `done` more files or rows."""
        self._done += done
        if self._on_progress:
            skipped = len(self.summary.skipped)
            self._on_progress(Progress(self._done, self.total, self.summary.seconds, skipped))

    def start_at(self, root: bytes) -> None:
        """Make sure that files below the folder `root` have a root to be relative to."""
        if not any(_is_below(root, known) for known in self._roots):
            with self.library.catalogue.transaction():
                self._roots[root] = self.library.catalogue.add_root(root)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return the root of a path, the longest that fits, and the path below it."""
        root = max((known for known in self._roots if _is_below(path, known)), key=len)
        return self._roots[root], path[len(os.path.join(root, b"")) :]  # noqa: PTH118 - bytes


def _index_sounds(
    writer: _Writer,
    sources: list[Path],
    files: dict[bytes, _File],
    *,
    keep_missing: bool,
    retry_skipped: bool,
    embedder: str,
    workers: int | None,
) -> None:
    summary, catalogue = writer.summary, writer.library.catalogue
    known = catalogue.known_files()
    folders = [_absolute(path) for path in sources if path.is_dir()]
    if not keep_missing:
        _remove_gone(writer, folders, files, known)
    todo = []
    for path, file in files.items():
        before = known.get(path)
        if before is None or (before.size, before.mtime_ns) != (file.size, file.mtime_ns):
            todo.append(file)
        elif before.reason is None:
            summary.unchanged += 1
        elif retry_skipped:
            todo.append(file)
        else:
            summary.skipped.append(Skipped(printable(os.fsdecode(path)), before.reason))
    if not files and not summary.removed and not summary.skipped:
        raise _nothing_found(sources)
    for source in sources:
        writer.start_at(_absolute(source if source.is_dir() else source.parent))
    writer.total += len(todo)
    if not todo:
        return
    workers = workers or min(core_count(), len(todo))
    with WorkerPool(AnalyzerSettings(embedder=embedder), workers=workers) as pool:
        results = pool.map(os.fsdecode(file.path) for file in todo)
        for file, result in zip(todo, results, strict=True):
            writer.put(file, result, known.get(file.path))
        writer.flush()


def _remove_gone(
    writer: _Writer,
    folders: list[bytes],
    files: dict[bytes, _File],
    known: dict[bytes, KnownFile],
) -> None:
    gone = [
        before
        for path, before in known.items()
        if path not in files and any(_is_below(path, folder) for folder in folders)
    ]
    for folder in folders:
        lost = [before for before in gone if before.id and _is_below(before.path, folder)]
        # An empty folder is what an unmounted drive looks like.
        if lost and not any(os.scandir(folder)):
            raise AudioNotFoundError(
                os.fsdecode(folder),
                f"The folder is empty, but {len(lost):,} recordings were indexed from it. Is a "
                "drive not mounted? Nothing was removed. If the sounds are gone for good, delete "
                "the folder's library, or remove the folder itself and index its parent.",
            )
    if gone:
        with writer.library.catalogue.transaction():
            for before in gone:
                writer.library.catalogue.forget(before.path)
        writer.summary.removed += sum(before.id is not None for before in gone)


def _index_packed(writer: _Writer, path: Path) -> None:
    """Add the rows of a packed file, going on where an earlier run was stopped."""
    catalogue, summary = writer.library.catalogue, writer.summary
    absolute, status = _absolute(path), path.stat()
    scorer = load_scorer()
    with PackedFile(path) as file:
        names, times = file.video_ids(), file.times()
        before = catalogue.packed_file(absolute)
        changed = before is not None and before[1:3] != (status.st_size, status.st_mtime_ns)
        if before is None or changed:
            with catalogue.transaction():
                number = catalogue.add_packed_file(absolute, status.st_size, status.st_mtime_ns)
            done = 0
        else:
            number, done = before[0], before[3]
        summary.unchanged += done
        writer.total += len(file) - done
        for start in range(done, len(file), _PACKED_ROWS):
            stop = min(start + _PACKED_ROWS, len(file))
            rows = file.read(start, stop)
            scores = scorer.score(rows.x, rows.n_frames)
            vectors = np.stack(
                [search_vector(x[:n]) for x, n in zip(rows.x, rows.n_frames, strict=True)]
            )
            clips = catalogue.lengths()["clips"]
            writer.library.scores.append(clips, encode_scores(scores))
            writer.library.vectors.append(clips, encode_vectors(vectors))
            with catalogue.transaction():
                catalogue.add(
                    [
                        NewRecording(
                            source="audioset",
                            name=names[row].encode("utf-8", "surrogateescape"),
                            start=float(times[row, 0]),
                            duration=float(times[row, 1] - times[row, 0]),
                            clips=1,
                            packed_file=number,
                            packed_row=row,
                            labels=_true_classes(rows, row - start),
                        )
                        for row in range(start, stop)
                    ]
                )
            summary.seconds += float((times[start:stop, 1] - times[start:stop, 0]).sum())
            if changed:
                summary.updated += stop - start
            else:
                summary.added += stop - start
            writer.advance(stop - start)


def _check_match(
    library: Library, sounds: list[Path], packed: list[Path], embedder: str, mix: bool
) -> None:
    """Refuse what would mix embedders or classifiers in one library."""
    manifest, name = library.manifest, printable(str(library.folder))
    scorer = bundled_model("classifier")
    if manifest["classifier"]["sha256"] != scorer.sha256:
        raise LibraryMismatchError(
            f"The library {name} was scored by another classifier "
            f"({manifest['classifier']['name']}, {manifest['classifier']['sha256'][:12]}) than "
            f"this version brings ({scorer.sha256[:12]}); their scores cannot be compared. Index "
            "the sounds into a new folder with --library."
        )
    wanted: list[tuple[str, str | None]] = []
    if sounds:
        wanted.append((embedder, bundled_model(embedder).sha256))
    if packed:
        wanted.append((RELEASED, None))
    have = [manifest["embedder"], *manifest.get("mixed_with", [])]
    added = [
        {"name": new, "sha256": digest, "space": manifest["embedder"]["space"]}
        for new, digest in wanted
        if not any((old["name"], old["sha256"]) == (new, digest) for old in have)
    ]
    if not added:
        return
    if not mix:
        raise LibraryMismatchError(
            f"The library {name} holds embeddings by '{have[0]['name']}', and these would be by "
            f"'{added[0]['name']}'{_hashes(have[0], added[0])}. Both lie in one space but differ "
            "in detail. Index into another folder with --library, or mix them with "
            "--mix-embedders."
        )
    manifest["mixed_with"] = [*manifest.get("mixed_with", []), *added]
    write_json(library.folder / MANIFEST, manifest)


def _hashes(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Tell two versions of one embedder apart."""
    if old["name"] != new["name"]:
        return ""
    return f" with other weights ({old['sha256'][:12]} and {new['sha256'][:12]})"


@contextlib.contextmanager
def _writer_lock(folder: Path) -> Iterator[None]:
    """Hold the library's lock; the system frees it when the process ends, however it ends."""
    lock = filelock.FileLock(folder / "writer.lock", timeout=0)
    with storage_errors(folder):
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LibraryBusyError(
                f"Another process is indexing into {printable(str(folder))}. Wait until it has "
                "finished, or name another library with --library."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _find(sources: list[Path], unreadable: list[AudioError]) -> dict[bytes, _File]:
    """Return the sound files of the sources by absolute path, in the order of their paths."""
    found: dict[bytes, _File] = {}

    def refused(error: OSError) -> None:
        unreadable.append(AudioDecodeError(os.fsdecode(error.filename or ""), f"{error.strerror}."))

    for source in sources:
        listed = find_audio(source, on_error=refused) if source.is_dir() else [source]
        for path in listed:
            try:
                status = path.stat()
            except OSError as error:
                refused(error)
                continue
            absolute = _absolute(path)
            found[absolute] = _File(absolute, status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items()))


def _recording(result: Analysis, root: int, name: bytes, file: _File) -> NewRecording:
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


def _clip_vectors(results: list[Analysis]) -> np.ndarray:
    return np.stack(
        [
            search_vector(result.frames[10 * clip : 10 * clip + 10])
            for result in results
            for clip in range(len(result.scores))
        ]
    )


def _true_classes(rows: PackedClips, row: int) -> list[int] | None:
    return None if rows.y is None else np.flatnonzero(rows.y[row]).tolist()


def _absolute(path: Path) -> bytes:
    return os.path.abspath(os.fsencode(path))  # noqa: PTH100 - bytes


def _is_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(os.path.join(folder, b""))  # noqa: PTH118 - bytes


def _nothing_found(sources: list[Path]) -> AudioNotFoundError:
    return AudioNotFoundError(
        os.fspath(sources[0]),
        "There are no sound files in it. Name a folder with audio or video files.",
    )
