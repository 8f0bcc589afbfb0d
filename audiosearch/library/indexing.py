"""Filling a library: what is new or changed in the sources is added, what is gone is removed.

Files are analysed by what batch tagging runs on: the same isolated processes, limits, groups and
progress. The library's catalogue is the journal: it holds each file's size and modification time,
and a reason where it was skipped. A second journal, such as batch tagging keeps beside its output,
could only disagree with it: what is found in a file, and that it is done, are one commit here.
Results are committed in the order of the files, in groups, about once a second while they come.
Killing the process at any moment leaves a library that opens and holds every group that was
reported; the next run goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

from audiosearch.datasets.packed import PackedFile
from audiosearch.embedders import available_embedders, embedder_hash
from audiosearch.errors import (
    AudioNotFoundError,
    InvalidArgumentError,
    LibraryBusyError,
    LibraryMismatchError,
    printable,
)
from audiosearch.jobs import (
    MEMORY_LIMIT,
    TIME_LIMIT,
    AnalyzerSettings,
    Groups,
    Progress,
    WorkerPool,
    core_count,
)
from audiosearch.library.compaction import tidy
from audiosearch.library.index_building import check_factory
from audiosearch.library.library import Library
from audiosearch.library.manifest import (
    LOCK,
    MANIFEST,
    create_library,
    mixed_maker,
    refuse_foreign,
)
from audiosearch.library.own_keeping import add_classifiers, check_classifiers, unheard_files
from audiosearch.library.own_keeping import drop_classifier as forget_classifier
from audiosearch.library.packed_source import index_packed
from audiosearch.library.recordings import KnownFile, Skipped
from audiosearch.library.scoring import (
    Maker,
    are_comparable,
    is_rescored,
    known_scorers,
    library_scorer,
    new_scorer,
    packed_by,
    scored_by,
)
from audiosearch.library.sources import SoundFile, Sources, absolute, find, is_below
from audiosearch.library.writer import IndexSummary, Writer
from audiosearch.own.classifier import load_classifiers
from audiosearch.storage import storage_errors, write_json

__all__ = ["IndexSummary", "index", "writer_lock"]

_REMOVED_AT_ONCE = 10_000  # while they are committed, readers wait for names


def index(
    sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    library: str | os.PathLike[str],
    *,
    keep_missing: bool = False,
    retry_skipped: bool = False,
    mix_embedders: bool = False,
    embedder: str = "lite",
    classifier: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    drop_classifier: Iterable[str] = (),
    vector_index: str | None = None,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
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
    classifier : path-like, or several, optional
        Folders that `audiosearch lab train` wrote. The library keeps them, and later runs go on
        with them: their classes are searched beside AudioSet's. Files of the sources that were
        indexed before are analysed again.
    drop_classifier : iterable of str
        Names of such classifiers that the library is to forget, with what they heard.
    vector_index : str, optional
        FAISS's factory string for the search by example, such as ``"IVF1024,SQ8"``; ``"auto"``
        leaves it to the library. It is kept for later runs; None changes nothing.
    workers : int, optional
        How many processes analyse; one a core where None.
    time_limit : float
        Seconds after which a file is given up.
    memory_limit : int
        Megabytes that a process may take for a file beyond what the models take (Linux only).
    on_progress : callable, optional
        Called with a `Progress` at the start, and whenever something was committed. Files that
        are in the library already count as done earlier.

    Raises
    ------
    AudioNotFoundError
        When a source does not exist, or nothing in the sources can be indexed.
    DataError
        When a packed file is not as it must be.
    LibraryBusyError
        When another process is indexing into the library.
    LibraryMismatchError
        When the library was made with another embedder or classifier, or has a class of one name
        by another classifier of the user's own.
    ModelError
        When a folder holds no classifier.
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
    if workers is not None and workers < 1:
        raise InvalidArgumentError(f"workers must be at least 1, not {workers}.")
    if not time_limit > 0:
        raise InvalidArgumentError(f"time_limit must be above 0 seconds, not {time_limit}.")
    if memory_limit < 1:
        raise InvalidArgumentError(f"memory_limit must be at least 1 MB, not {memory_limit}.")
    if vector_index is not None:
        check_factory(vector_index)
    folders = [classifier] if isinstance(classifier, str | os.PathLike) else list(classifier or ())
    load_classifiers(folders)
    found = find([Path(source) for source in listed])
    # Opened before anything is made: a file that cannot be used leaves nothing behind.
    made_by = []
    for path in found.packed:
        with PackedFile(path) as file:
            made_by.append(packed_by(file))
    folder = Path(library)
    if not (folder / MANIFEST).exists():
        if not found.files and not found.packed:
            raise _nothing_found(found)
        refuse_foreign(folder)
    wanted: list[Maker] = []
    if found.sounds:
        wanted.append((embedder, embedder_hash(embedder)))
    wanted.extend(made_by)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder):
        if not (folder / MANIFEST).exists():
            create_library(folder, embedder=wanted[0], classifier=library_scorer(wanted[0]))
        with Library(folder, writable=True) as target:
            _check_match(target, wanted, mix_embedders)
            if vector_index is not None and target.manifest["vectors"]["factory"] != vector_index:
                target.manifest["vectors"]["factory"] = vector_index
                write_json(folder / MANIFEST, target.manifest)
            for name in drop_classifier:
                forget_classifier(target, name)
            check_classifiers(target, folders)
            add_classifiers(target, folders)
            writer = Writer(target, on_progress=on_progress)
            for path in found.packed:
                index_packed(writer, path)
            if found.sounds:
                _index_sounds(
                    writer,
                    found,
                    keep_missing=keep_missing,
                    retry_skipped=retry_skipped,
                    settings=AnalyzerSettings(
                        embedder=embedder,
                        rescored=is_rescored(target.manifest, wanted[0]),
                        own=target.own.folders,
                        memory_limit=memory_limit,
                    ),
                    workers=workers,
                    time_limit=time_limit,
                )
            tidy(target)
    writer.summary.elapsed = round(time.monotonic() - began, 3)
    return writer.summary


def _index_sounds(
    writer: Writer,
    sources: Sources,
    *,
    keep_missing: bool,
    retry_skipped: bool,
    settings: AnalyzerSettings,
    workers: int | None,
    time_limit: float,
) -> None:
    summary = writer.summary
    known = writer.library.catalogue.known_files()
    summary.skipped.extend(
        Skipped(printable(error.path), error.reason) for error in sources.unreadable
    )
    if not keep_missing:
        _remove_gone(writer, sources, known)
    todo: list[SoundFile] = []
    unchanged = skipped = 0
    unheard = unheard_files(writer.library, known)
    for path, file in sources.files.items():
        before = known.get(path)
        if (
            before is None
            or (before.size, before.mtime_ns) != (file.size, file.mtime_ns)
            or path in unheard
        ):
            todo.append(file)
        elif before.reason is None:
            unchanged += 1
        elif retry_skipped:
            todo.append(file)
        else:
            skipped += 1
            summary.skipped.append(Skipped(printable(os.fsdecode(path)), before.reason))
    summary.unchanged += unchanged
    if not sources.files and not summary.removed and not summary.skipped:
        raise _nothing_found(sources)
    writer.meter.expect(
        len(todo),
        size=sum(file.size for file in todo),
        earlier=unchanged + skipped,
        skipped=skipped,
    )
    if not todo:
        return
    writer.add_roots(sources.roots)
    workers = min(core_count(), len(todo)) if workers is None else workers
    with (
        WorkerPool(settings, workers=workers, time_limit=time_limit) as pool,
        Groups(writer.commit) as groups,
    ):
        results = pool.map(os.fsdecode(file.path) for file in todo)
        for file, result in zip(todo, results, strict=True):
            groups.put((file, result, known.get(file.path)))


def _remove_gone(writer: Writer, sources: Sources, known: dict[bytes, KnownFile]) -> None:
    hidden = [absolute(error.path) for error in sources.unreadable]
    gone = [
        before
        for path, before in known.items()
        if path not in sources.files
        and any(is_below(path, folder) for folder in sources.folders)
        and not any(is_below(path, place) for place in hidden)
    ]
    for folder in sources.folders:
        lost = [before for before in gone if before.id and is_below(before.path, folder)]
        # An empty folder is what an unmounted drive looks like.
        if lost and not any(os.scandir(folder)):
            raise AudioNotFoundError(
                os.fsdecode(folder),
                f"The folder is empty, but {len(lost):,} recordings were indexed from it, so a "
                "drive may not be mounted. Nothing was removed. If the sounds are gone for good, "
                "remove the folder too and index the one above it.",
            )
    for start in range(0, len(gone), _REMOVED_AT_ONCE):
        with writer.library.catalogue.transaction():
            for before in gone[start : start + _REMOVED_AT_ONCE]:
                writer.library.catalogue.forget(before)
    if gone:
        writer.summary.removed += sum(before.id is not None for before in gone)


def _check_match(library: Library, wanted: list[Maker], mix: bool) -> None:
    """Refuse what would mix embedders, or scores that cannot be compared, in one library."""
    manifest, name = library.manifest, printable(str(library.folder))
    have = scored_by(manifest)
    for embedder in wanted:
        if embedder in have and have[embedder] not in known_scorers(embedder):
            raise _other_scores(name, manifest, have[embedder], embedder)
    own = next(iter(have))
    added = {embedder: "" for embedder in wanted if embedder not in have}
    if not added:
        return
    new = next(iter(added))
    if not mix:
        raise LibraryMismatchError(
            f"The library {name} holds embeddings by '{own[0]}', and these would be by "
            f"'{new[0]}'{_hashes(own, new)}. Both lie in one space but differ "
            "in detail. Index into another folder with --library, or mix them with "
            "--mix-embedders."
        )
    added = {embedder: new_scorer(manifest, embedder) for embedder in added}
    if not are_comparable([*have.items(), *added.items()]):
        raise _other_scores(name, manifest, have[own], own)
    manifest["mixed_with"] = [
        *manifest.get("mixed_with", []),
        *(mixed_maker(embedder, digest) for embedder, digest in added.items()),
    ]
    write_json(library.folder / MANIFEST, manifest)


def _other_scores(
    name: str, manifest: dict[str, Any], digest: str, embedder: Maker
) -> LibraryMismatchError:
    return LibraryMismatchError(
        f"The library {name} was scored by another classifier or rescorer "
        f"({manifest['classifier']['name']}, {digest[:12]}) than this version brings for "
        f"embeddings by '{embedder[0]}' ({library_scorer(embedder)[1][:12]}); their scores cannot "
        "be compared. Index the sounds into a new folder with --library."
    )


def _hashes(old: Maker, new: Maker) -> str:
    """Tell two versions of one embedder apart."""
    if old[0] != new[0]:
        return ""
    return f" with other weights ({str(old[1])[:12]} and {str(new[1])[:12]})"


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold a library's lock; the system frees it when the process ends, however it ends.

    Raises
    ------
    LibraryBusyError
        When another process holds it.
    StorageError
        When the folder may not be written.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    with storage_errors(folder):
        try:
            lock.acquire()
        except filelock.Timeout:
            raise LibraryBusyError(
                f"Another process is writing to {printable(str(folder))}. Wait until it has "
                "finished, or name another library with --library."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _nothing_found(sources: Sources) -> AudioNotFoundError:
    return AudioNotFoundError(
        os.fspath(sources.sounds[0]),
        "There are no sound files in it. Name a folder with audio or video files.",
    )
