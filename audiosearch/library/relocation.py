"""Sounds that were moved: a library is told, and nothing is analysed again."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiosearch.errors import AudioNotFoundError, LibraryError, printable
from audiosearch.library.indexing import writer_lock
from audiosearch.library.library import Library
from audiosearch.library.sources import absolute, is_below

__all__ = ["Relocation", "relocate"]


@dataclass(frozen=True)
class Relocation:
    """What `relocate` did: how many files it moved, and how many of them are at the new place."""

    library: str
    moved: int
    found: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def relocate(
    library: str | os.PathLike[str],
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    force: bool = False,
) -> Relocation:
    """Tell a library that sounds which lay in one folder lie in another.

    Parameters
    ----------
    library : path-like
        The library's folder.
    old, new : path-like
        The folder, or the file, as it was and as it is now; relative to the working folder.
    force : bool
        Also where none of the files is at the new place, such as on a drive to be mounted later.

    Raises
    ------
    AudioNotFoundError
        When none of the files is at the new place.
    LibraryError
        When nothing was indexed from `old`, or a file at the new place was indexed as well.
    LibraryBusyError
        When another process is writing to the library.
    """
    before, after = absolute(old), absolute(new)
    with Library(library) as opened:  # there must be one before its lock is made
        folder = opened.folder
    with writer_lock(folder), Library(folder, writable=True) as target:
        catalogue = target.catalogue
        known = catalogue.known_files()
        files = {path: file for path, file in known.items() if is_below(path, before)}
        packed = {n: p for n, p in catalogue.packed_paths().items() if is_below(p, before)}
        if not files and not packed:
            raise LibraryError(
                f"Nothing in the library {printable(str(folder))} was indexed from "
                f"{_shown(before)}."
            )

        def moved(path: bytes) -> bytes:
            return after + path[len(before) :]

        others = (set(known) | set(catalogue.packed_paths().values())) - set(files)
        others -= set(packed.values())
        for path in (*files, *packed.values()):
            if moved(path) in others:
                raise LibraryError(
                    f"{_shown(moved(path))} was indexed as well. Index {_shown(before)} again "
                    "instead: what is gone there leaves the library."
                )
        everything = [*files, *packed.values()]
        found = sum(os.path.exists(moved(path)) for path in everything)  # noqa: PTH110 - bytes
        if not found and not force:
            raise AudioNotFoundError(
                os.fsdecode(after),
                f"None of the {len(everything):,} files indexed from {_shown(before)} is there. "
                "Nothing was changed.",
            )
        inner = {n: root for n, root in catalogue.roots().items() if is_below(root, before)}
        # Where a new place is an old one, that is emptied first.
        order = sorted(
            inner.items(), key=lambda item: len(item[1]), reverse=is_below(after, before)
        )
        with catalogue.transaction():
            for path, file in files.items():
                if file.root not in inner:
                    place = moved(path)
                    root = os.path.dirname(place) if path == before else after  # noqa: PTH120
                    catalogue.move_file(file, root, os.path.relpath(place, root))
            for number, root in order:
                if moved(root) != root:
                    catalogue.move_root(number, moved(root))
            for number, path in packed.items():
                catalogue.move_packed_file(number, moved(path))
    return Relocation(printable(str(Path(folder))), len(everything), found)


def _shown(path: bytes) -> str:
    return printable(os.fsdecode(path))
