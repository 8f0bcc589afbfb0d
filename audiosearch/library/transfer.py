"""Libraries that leave and come back: export to files, import of files, merging of libraries."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.errors import (
    DataError,
    InvalidArgumentError,
    LibraryMismatchError,
    StorageError,
    printable,
)
from audiosearch.jobs import Progress
from audiosearch.library.bundles import Bundle, makers_of, read_bundles, scorers_of
from audiosearch.library.columns import decode_scores, encode_scores
from audiosearch.library.compaction import seal, tidy
from audiosearch.library.indexing import writer_lock
from audiosearch.library.labelling import copy_labels, relink
from audiosearch.library.library import Library
from audiosearch.library.manifest import MANIFEST, create_library, mixed_maker, refuse_foreign
from audiosearch.library.packed_export import read_packed, write_packed
from audiosearch.library.recordings import KnownFile, NewRecording, Origin
from audiosearch.library.scoring import Maker, are_comparable, scored_by
from audiosearch.library.tables import Source, read_table, write_table
from audiosearch.library.writer import append_clips
from audiosearch.query import THESAURUS
from audiosearch.storage import atomic_path, storage_errors, write_json

__all__ = ["ExportSummary", "ImportSummary", "export", "import_clips", "merge"]

SUFFIXES = {
    ".csv": ".csv",
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".parquet": ".parquet",
    ".h5": ".h5",
    ".hdf5": ".h5",
}


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote."""

    file: str
    recordings: int
    clips: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass
class ImportSummary:
    """What an import or a merge did.

    Attributes
    ----------
    library : str
        The library's folder.
    added, updated, unchanged : int
        Recordings. One that was there counts as updated when that of the source was made from a
        newer file, and as unchanged otherwise.
    clips : int
        How many clips were added.
    elapsed : float
        How long it took, in seconds.
    """

    library: str
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    clips: int = 0
    elapsed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def export(
    library: str | os.PathLike[str] | Library,
    to: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write all clips of a library to a file that other programs read, and `import_clips`.

    Parameters
    ----------
    library : path-like or Library
        The library.
    to : path-like
        The file. Its suffix says what it becomes: ``.csv``, ``.jsonl``, ``.parquet`` or ``.h5``.
    threshold : float, optional
        Leave scores below this out; all are written where None.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    InvalidArgumentError
        When the suffix or the threshold is none of these.
    DataError
        For ``.h5``, when the frames of a packed source are not to be had.
    StorageError
        When the file exists or cannot be written.
    MissingDependencyError
        For Parquet without pyarrow.
    """
    target = Path(to)
    kind = _kind(target)
    if threshold is not None and not 0 <= threshold <= 1:
        raise InvalidArgumentError(f"threshold must be from 0 to 1, not {threshold}.")
    if target.exists() and not overwrite:
        raise StorageError(
            f"{printable(str(target))} exists already. Choose another name, or delete it first."
        )
    if not isinstance(library, Library):
        with Library(library) as opened:
            return export(opened, to, threshold=threshold, overwrite=overwrite)
    least = 0 if threshold is None else int(encode_scores(np.array([threshold]))[0])
    makers, counts = makers_of(library), [0, 0]

    def counted() -> Iterator[Bundle]:
        for bundle in read_bundles(library):
            counts[0] += len(bundle.origins)
            counts[1] += len(bundle.codes)
            yield bundle

    with atomic_path(target) as temporary:
        if kind == ".h5":
            write_packed(
                temporary, list(counted()), library.catalogue.origins(0, -1), makers, least
            )
        else:
            write_table(temporary, kind, counted(), makers, least)
    return ExportSummary(printable(str(target)), counts[0], counts[1], target.stat().st_size)


def import_clips(
    source: str | os.PathLike[str],
    library: str | os.PathLike[str],
    *,
    mix_embedders: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> ImportSummary:
    """Add what `export` wrote, or another library, to a library.

    A recording that the library has already (the same file, or the same row of a packed file) is
    kept as it is, unless that of the source was made from a newer file.

    Parameters
    ----------
    source : path-like
        A file that `export` wrote, or the folder of a library.
    library : path-like
        The library's folder; made where it is missing.
    mix_embedders : bool
        Allow embeddings of two origins in one library.
    on_progress : callable, optional
        Called with a `Progress` whenever something was committed; it counts recordings.

    Raises
    ------
    DataError
        When the file is not as it must be. What was committed before that stays.
    LibraryBusyError
        When another process is writing to the library.
    LibraryMismatchError
        When the library was made with another embedder or classifier.
    """
    return merge([source], library, mix_embedders=mix_embedders, on_progress=on_progress)


def merge(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    mix_embedders: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> ImportSummary:
    """Bring several libraries, or files that `export` wrote, together in one library.

    Parameters, errors and what becomes of recordings that two of them hold are those of
    `import_clips`; the sources are left as they are. The user's own words come along where `out`
    has none; labels come along from libraries, and the newer word counts.
    """
    began = time.monotonic()
    paths, folder = [Path(source) for source in sources], Path(out)
    if not paths:
        raise InvalidArgumentError("Name at least one library or file.")
    for path in paths:
        if path.is_dir() and folder.exists() and os.path.samefile(path, folder):  # noqa: PTH121
            raise InvalidArgumentError(f"{printable(str(folder))} cannot be merged into itself.")
    made_by = [_makers(path) for path in paths]  # before anything is made
    if not (folder / MANIFEST).exists():
        refuse_foreign(folder)
        _check_match(folder, dict(scorers_of(*made_by[0])[:1]), made_by, mix_embedders)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    summary = ImportSummary(printable(str(folder)))
    with writer_lock(folder):
        if not (folder / MANIFEST).exists():
            embedder, digest = scorers_of(*made_by[0])[0]
            create_library(folder, embedder=embedder, classifier=(made_by[0][1][0], digest))
        with Library(folder, writable=True) as target:
            have = scored_by(target.manifest)
            added = _check_match(folder, have, made_by, mix_embedders)
            if added:
                new = [mixed_maker(embedder, digest) for embedder, digest in added.items()]
                target.manifest["mixed_with"] = [*target.manifest.get("mixed_with", []), *new]
                write_json(folder / MANIFEST, target.manifest)
            importer = _Importer(target, summary, on_progress)
            for path in paths:
                importer.take(path)
            if importer.labels:
                relink(target)
            tidy(target)
    summary.elapsed = round(time.monotonic() - began, 3)
    return summary


class _Importer:
    """Puts bundles into a library whose lock is held."""

    def __init__(
        self,
        library: Library,
        summary: ImportSummary,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._library = library
        self._summary = summary
        self._on_progress = on_progress
        self.labels = 0
        self._files = library.catalogue.known_files()
        self._rows: dict[tuple[bytes, int | None], Origin] = {}
        first = 0
        while origins := library.catalogue.origins(first, 5000):
            first = origins[-1].first_clip + 1
            for origin in origins:
                if origin.packed_file is not None:
                    self._rows[origin.packed_file[0], origin.packed_row] = origin

    def take(self, path: Path) -> None:
        """Add everything of a source."""
        if path.is_dir():
            with Library(path) as source:
                for bundle in read_bundles(source):
                    self._put(bundle)
                self.labels += copy_labels(source, self._library)
            words = path / THESAURUS
            if words.exists() and not (self._library.folder / THESAURUS).exists():
                with atomic_path(self._library.folder / THESAURUS) as temporary:
                    shutil.copyfile(words, temporary)
            return
        for bundle in _read(path)[2]:
            self._put(bundle)

    def _put(self, bundle: Bundle) -> None:
        catalogue, summary = self._library.catalogue, self._summary
        places = [
            origin.path or (origin.packed_file, origin.packed_row) for origin in bundle.origins
        ]
        firsts = {place: number for number, place in reversed(list(enumerate(places)))}
        wanted = np.array(
            [
                firsts[place] == number and self._is_new(origin)
                for number, (place, origin) in enumerate(zip(places, bundle.origins, strict=True))
            ],
            np.bool_,
        )
        origins = [origin for origin, new in zip(bundle.origins, wanted, strict=True) if new]
        summary.unchanged += len(wanted) - len(origins)
        clips = np.repeat(wanted, [origin.clips for origin in bundle.origins])
        counts = bundle.frame_counts[clips]
        if origins:
            frames = bundle.frames[np.repeat(clips, bundle.frame_counts)]
            contents = append_clips(
                self._library,
                [origin.clips for origin in origins],
                decode_scores(bundle.codes[clips]),
                bundle.vectors[clips].astype(np.float32),
                frame_counts=counts,
                frames=frames,
            )
            with catalogue.transaction():
                new = [self._new(origin) for origin in origins]
                catalogue.add(new, frames=len(frames), contents=contents)
        summary.clips += int(clips.sum())
        if self._on_progress:
            done = summary.added + summary.updated + summary.unchanged
            self._on_progress(Progress(done, done, 0.0, 0))
        seal(self._library)

    def _is_new(self, origin: Origin) -> bool:
        """Tell whether a recording is to be added: it is not there, or from an older file."""
        if origin.packed_file is not None:
            return (origin.packed_file[0], origin.packed_row) not in self._rows
        assert origin.path is not None
        known = self._files.get(origin.path)
        return known is None or known.reason is not None or (origin.mtime_ns or 0) > known.mtime_ns

    def _new(self, origin: Origin) -> NewRecording:
        """Forget what was known of a recording, and return what is to be added."""
        catalogue = self._library.catalogue
        root = number = None
        if origin.packed_file is not None:
            path, size, mtime_ns = origin.packed_file
            found = catalogue.packed_file(path)
            if found is not None and found[1:3] != (size, mtime_ns):
                raise LibraryMismatchError(
                    f"{printable(os.fsdecode(path))} is in both libraries, from two states of the "
                    "file. Index it again into one of them first."
                )
            number = found[0] if found else catalogue.add_packed_file(path, size, mtime_ns)
            self._rows[path, origin.packed_row] = origin
            name = origin.name
            self._summary.added += 1
        else:
            assert origin.root is not None
            assert origin.path is not None
            known = self._files.get(origin.path)
            if known is not None:
                catalogue.forget(known)
            root, name = catalogue.add_root(origin.root), origin.name
            was_there = known is not None and known.reason is None
            self._summary.updated += was_there
            self._summary.added += not was_there
            size, mtime_ns = origin.size or 0, origin.mtime_ns or 0
            self._files[origin.path] = KnownFile(1, root, name, origin.path, size, mtime_ns)
        return NewRecording(
            source=origin.source,
            name=name,
            start=origin.start,
            duration=origin.duration,
            clips=origin.clips,
            root=root,
            packed_file=number,
            packed_row=origin.packed_row,
            size=origin.size,
            mtime_ns=origin.mtime_ns,
            labels=origin.labels,
        )


def _kind(path: Path) -> str:
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InvalidArgumentError(
            f"{printable(str(path))}: a file ends in {', '.join(SUFFIXES)}, which says what it is."
        )
    return kind


def _read(path: Path) -> Source:
    kind = _kind(path)
    if not path.is_file():
        raise DataError(f"{printable(str(path))}: there is no such file or library.")
    return read_packed(path) if kind == ".h5" else read_table(path, kind)


def _makers(path: Path) -> tuple[list[Maker], Maker]:
    if path.is_dir():
        with Library(path) as library:
            return makers_of(library)
    return _read(path)[:2]


def _check_match(
    folder: Path,
    have: dict[Maker, str],
    made_by: Sequence[tuple[list[Maker], Maker]],
    mix: bool,
) -> dict[Maker, str]:
    """Refuse what does not fit; return the embedders that are new, and what scored their clips."""
    name = printable(str(folder))
    own, digest = next(iter(have.items()))
    scorers = [*have.items()]
    for makers in made_by:
        scorers += scorers_of(*makers)
        if not are_comparable(scorers):
            raise LibraryMismatchError(
                f"The library {name} was scored by another classifier or rescorer "
                f"({digest[:12]}) than this, by '{makers[1][0]}' ({str(makers[1][1])[:12]}); "
                "their scores cannot be compared. Index the sounds again instead."
            )
    new = {embedder: digest for embedder, digest in scorers if embedder not in have}
    if new and not mix:
        raise LibraryMismatchError(
            f"The library {name} holds embeddings by '{own[0]}', and these are by "
            f"'{next(iter(new))[0]}'. They differ in detail. Use another library, or mix them with "
            "--mix-embedders."
        )
    return new
