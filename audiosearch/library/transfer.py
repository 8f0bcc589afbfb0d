"""Libraries that leave and come back: export to files, import of files, merging of libraries."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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
from audiosearch.library.bundles import Bundle, Makers, Source, makers_of, read_bundles, scorers_of
from audiosearch.library.columns import encode_scores
from audiosearch.library.compaction import tidy
from audiosearch.library.importing import Importer, ImportSummary
from audiosearch.library.indexing import writer_lock
from audiosearch.library.labelling import relink
from audiosearch.library.library import Library
from audiosearch.library.manifest import (
    MANIFEST,
    create_library,
    mixed_maker,
    read_manifest,
    refuse_foreign,
)
from audiosearch.library.own_classes import OwnClasses
from audiosearch.library.own_keeping import adopt, joined_makers, makers_in, unheard_files
from audiosearch.library.own_scores import OwnMaker
from audiosearch.library.packed_export import read_packed, write_packed
from audiosearch.library.scoring import Maker, are_comparable, scored_by
from audiosearch.library.table_reading import read_table
from audiosearch.library.tables import write_table
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
    own_classes: bool = True,
    classifier: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> ImportSummary:
    """Add what `export` wrote, or another library, to a library.

    A recording that the library has already (the same file, or the same row of a packed file) is
    kept as it is, unless that of the source was made from a newer file. Where it is of the same
    state of the file, and a classifier of the user's own heard it in the source and not here, it
    gets the scores of these classes; all else that is known of it stays.

    Parameters
    ----------
    source : path-like
        A file that `export` wrote, or the folder of a library.
    library : path-like
        The library's folder; made where it is missing.
    mix_embedders : bool
        Allow embeddings of two origins in one library.
    own_classes : bool
        Whether classes of the user's own come along; else they are left behind.
    classifier : path-like, or several, optional
        Folders that `audiosearch lab train` wrote, of classifiers whose scores the source holds. An
        exported file holds the scores alone; a library holds its classifiers too.
    on_progress : callable, optional
        Called with a `Progress` whenever something was committed; it counts recordings.

    Raises
    ------
    DataError
        When the file is not as it must be. What was committed before that stays.
    LibraryBusyError
        When another process is writing to the library.
    LibraryMismatchError
        When the library was made with another embedder or classifier, or has a class of one name
        by another classifier of the user's own.
    """
    return merge(
        [source],
        library,
        mix_embedders=mix_embedders,
        own_classes=own_classes,
        classifier=classifier,
        on_progress=on_progress,
    )


def merge(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    mix_embedders: bool = False,
    own_classes: bool = True,
    classifier: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
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
    given = makers_in(classifier)
    made_by = [_makers(path, own=own_classes) for path in paths]  # before anything is made
    if not (folder / MANIFEST).exists():
        refuse_foreign(folder)
        _check_match(folder, dict(scorers_of(made_by[0])[:1]), made_by, mix_embedders)
    _own_makers(folder, paths, made_by, given)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    summary = ImportSummary(printable(str(folder)))
    with writer_lock(folder):
        if not (folder / MANIFEST).exists():
            embedder, digest = scorers_of(made_by[0])[0]
            create_library(folder, embedder=embedder, classifier=(made_by[0].classifier[0], digest))
        with Library(folder, writable=True) as target:
            have = scored_by(target.manifest)
            added = _check_match(folder, have, made_by, mix_embedders)
            if added:
                new = [mixed_maker(embedder, digest) for embedder, digest in added.items()]
                target.manifest["mixed_with"] = [*target.manifest.get("mixed_with", []), *new]
                write_json(folder / MANIFEST, target.manifest)
            before = {each.sha256 for each in target.own.classifiers}
            # Again: another process may have let the library keep one before it was locked.
            adopt(target, _own_makers(folder, paths, made_by, given))
            summary.own_classifiers = [
                each.name for each in target.own.classifiers if each.sha256 not in before
            ]
            importer = Importer(target, summary, own_classes=own_classes, on_progress=on_progress)
            for path, makers in zip(paths, made_by, strict=True):
                if path.is_dir():
                    importer.take_library(path, makers)
                else:
                    importer.take_file(path, _read(path), makers)
            if importer.labels:
                relink(target)
            tidy(target)
            summary.unheard = len(unheard_files(target, target.catalogue.known_files()))
    summary.elapsed = round(time.monotonic() - began, 3)
    return summary


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


def _makers(path: Path, *, own: bool) -> Makers:
    if path.is_dir():
        with Library(path) as library:
            found = makers_of(library)
    else:
        found = _read(path).makers
    return found if own else replace(found, own=())


def _own_makers(
    folder: Path, paths: Sequence[Path], made_by: Sequence[Makers], given: Sequence[OwnMaker]
) -> tuple[OwnMaker, ...]:
    """Return the own classifiers that the library keeps from now on; refuse what does not fit."""
    remedy = (
        "Let one of the libraries forget its own with: audiosearch index FOLDER --drop-classifier "
        "{}. Or leave own classes behind with --no-own-classes."
    )
    held = []
    if (folder / MANIFEST).exists():
        have = OwnClasses(folder, read_manifest(folder)).makers
        held.append((f"The library {printable(str(folder))}", have))
    held += [(printable(str(path)), m.own) for path, m in zip(paths, made_by, strict=True)]
    known = joined_makers(held, remedy=remedy)
    for each in given:
        if each.sha256 not in {one.sha256 for one in known}:
            raise InvalidArgumentError(
                f"{printable(str(each.folder))}: nothing that is imported was scored by the "
                f"classifier '{printable(each.name)}'. Index with it instead: audiosearch index "
                "FOLDER --classifier DIR"
            )
    return joined_makers([*held, ("", given)], remedy=remedy)


def _check_match(
    folder: Path,
    have: dict[Maker, str],
    made_by: Sequence[Makers],
    mix: bool,
) -> dict[Maker, str]:
    """Refuse what does not fit; return the embedders that are new, and what scored their clips."""
    name = printable(str(folder))
    own, digest = next(iter(have.items()))
    scorers = [*have.items()]
    for makers in made_by:
        scorers += scorers_of(makers)
        what, scored = makers.classifier
        if not are_comparable(scorers):
            raise LibraryMismatchError(
                f"The library {name} was scored by another classifier or rescorer "
                f"({digest[:12]}) than this, by '{what}' ({str(scored)[:12]}); "
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
