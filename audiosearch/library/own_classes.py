"""Classes of the user's own in a library: their classifiers, and what these say of each clip.

A library keeps its classifiers, each in a folder of its own, ``own-`` and the beginning of its
hash: the files that `audiosearch.lab` wrote, and ``scores.rows``, a row of score codes for each
clip, counted from the clip that was the next when the classifier was added. Rows are written before
the catalogue commits their clips, as the tail is (`audiosearch.library.columns`); a row that is
missing is all zeros: nothing was heard, because nothing listened. Clips keep their numbers for
good, so segments may be sealed and merged without a look at these files.

The library's manifest lists name, hash and classes, under ``own_classifiers``. Their classes are
numbered behind AudioSet's in that order, and searches see them as more columns of every block.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import (
    InvalidArgumentError,
    LibraryDamagedError,
    LibraryMismatchError,
    ModelError,
    printable,
)
from audiosearch.labels import name_key
from audiosearch.library.blocks import Block
from audiosearch.library.columns import encode_scores
from audiosearch.library.manifest import MANIFEST
from audiosearch.library.own_block import MOST_OWN, OwnBlock
from audiosearch.own.classifier import LabClassifier, load_classifiers
from audiosearch.storage import atomic_path, storage_errors, write_json

if TYPE_CHECKING:
    from audiosearch.library.corrections import Corrections
    from audiosearch.library.library import Library
    from audiosearch.library.snapshot import Snapshot

__all__ = [
    "OwnClasses",
    "OwnClassifier",
    "add_classifiers",
    "check_classifiers",
    "drop_classifier",
]

_SCORES = "scores.rows"
_FILES = ("classifier.onnx", "classifier.json", "MODEL_CARD.md")

_UNHEARD = np.uint8(0)
"""Stands for a clip that a classifier has not heard; the least score of another is one more."""

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OwnClassifier:
    """A classifier of a library.

    Attributes
    ----------
    folder : Path
        Where it is kept.
    name, sha256 : str
        What it is called, and the hash of all that its scores depend on.
    classes : tuple of str
        Its classes.
    since : int
        The first clip that it heard.
    """

    folder: Path
    name: str
    sha256: str
    classes: tuple[str, ...]
    since: int

    def write(self, first: int, scores: npt.NDArray[np.float32] | None, count: int) -> None:
        """Write the rows of `count` new clips from number `first` on; without scores, unheard.

        What was written beyond them without being committed is overwritten.

        Raises
        ------
        StorageError
            When the disk is full; what was committed stays.
        """
        width = len(self.classes)
        rows = np.full((count, width), _UNHEARD)
        if scores is not None:
            rows = np.maximum(encode_scores(scores), _UNHEARD + 1)
        path = self.folder / _SCORES
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with os.fdopen(descriptor, "r+b") as file:
                file.truncate((first - self.since) * width)
                file.seek((first - self.since) * width)
                file.write(np.ascontiguousarray(rows).tobytes())
                file.flush()
                os.fsync(file.fileno())

    def read(self, clips: npt.NDArray[np.int64], stop: int) -> Codes:
        """Return the score codes of clips below number `stop`, class by class, uint8 (k, n)."""
        width = len(self.classes)
        result = np.zeros((width, len(clips)), np.uint8)
        path = self.folder / _SCORES
        try:
            rows = min(path.stat().st_size // width, max(stop - self.since, 0))
            if rows:
                stored = np.memmap(path, np.uint8, "r", shape=(rows, width))
                at = np.flatnonzero((clips >= self.since) & (clips < self.since + rows))
                result[:, at] = stored[clips[at] - self.since].T
        except FileNotFoundError:
            pass  # no clip was indexed since it was added
        except OSError as error:
            raise LibraryDamagedError(
                f"{printable(str(path))} cannot be read: {error.strerror}."
            ) from error
        return result


class OwnClasses:
    """The user's own classes in an open library.

    Parameters
    ----------
    folder : Path
        The library's folder.
    manifest : dict
        Its manifest.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.classifiers = tuple(
            OwnClassifier(
                folder / _folder_name(str(entry["sha256"])),
                str(entry["name"]),
                str(entry["sha256"]),
                tuple(map(str, entry["classes"])),
                int(entry["since"]),
            )
            for entry in manifest.get("own_classifiers", [])
        )
        self.names = tuple(name for each in self.classifiers for name in each.classes)
        self._by_key = {name_key(name): name for name in self.names}
        self._kept: tuple[int, dict[int, tuple[Block, Block, OwnBlock]]] = (0, {})

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the classifiers are, as `audiosearch.jobs.AnalyzerSettings` takes them."""
        return tuple(str(each.folder) for each in self.classifiers)

    def unheard(
        self, clips: npt.NDArray[np.int64], lengths: dict[str, int]
    ) -> npt.NDArray[np.bool_]:
        """Return which of some clips not all of the classifiers have heard, bool (n,).

        They were there before the classifier, or came from another library.
        """
        result = np.zeros(len(clips), np.bool_)
        for each in self.classifiers:
            result |= each.read(clips, lengths["clips"])[0] == _UNHEARD
        return result

    def name_of(self, name: str) -> str | None:
        """Return an own class as it was called in training; None where there is none."""
        return self._by_key.get(name_key(name))

    def write(self, first: int, scores: npt.NDArray[np.float32] | None, count: int) -> None:
        """Write the scores of new clips, float32 (count, classes), for all classifiers."""
        start = 0
        for each in self.classifiers:
            stop = start + len(each.classes)
            each.write(first, None if scores is None else scores[:, start:stop], count)
            start = stop

    def applied(self, stored: Snapshot, now: Snapshot, corrections: Corrections) -> Snapshot:
        """Return a snapshot in which the own classes are columns too.

        Parameters
        ----------
        stored : Snapshot
            As the library is stored.
        now : Snapshot
            The same with the user's labels in its scores.
        corrections : Corrections
            These labels.
        """
        if not self.classifiers:
            return now
        said = corrections.own_codes(self.names)
        known = self._kept[1] if self._kept[0] == corrections.version else {}
        parts, kept = [], {}
        for before, part in zip(stored.parts, now.parts, strict=True):
            found = known.get(id(before.block))
            if found is None or found[1] is not part.block:
                made = OwnBlock(part.block, self.names, self._reader(now.lengths["clips"]), said)
                # Both are kept with it, so that no other block gets their ids.
                found = before.block, part.block, made
            kept[id(before.block)] = found
            parts.append(dataclasses.replace(part, block=found[2]))
        self._kept = corrections.version, kept
        return dataclasses.replace(now, parts=tuple(parts), own=self.names)

    def _reader(self, stop: int) -> Any:
        def read(clips: npt.NDArray[np.int64]) -> Codes:
            return np.concatenate([each.read(clips, stop) for each in self.classifiers])

        return read


def add_classifiers(library: Library, folders: Sequence[str | os.PathLike[str]]) -> None:
    """Let a library keep classifiers; those that it has already are passed over.

    Parameters
    ----------
    library : Library
        Open for writing; its lock is held.
    folders : sequence of path-like
        What `audiosearch.lab.train_lab` wrote.

    Raises
    ------
    InvalidArgumentError
        When there would be too many own classes.
    LibraryMismatchError
        When the library has a class of one of the names by another classifier.
    ModelError
        When a folder holds no classifier.
    StorageError
        When it cannot be copied.
    """
    kept = {each.sha256 for each in library.own.classifiers}
    for each in load_classifiers(folders):
        if each.identity not in kept:
            _refuse_clash(library, each)
            _add(library, each)
            kept.add(each.identity)


def drop_classifier(library: Library, name: str) -> None:
    """Let a library forget a classifier of the user's own, and what it heard.

    Parameters
    ----------
    library : Library
        Open for writing; its lock is held.
    name : str
        What it is called.

    Raises
    ------
    InvalidArgumentError
        When the library has none of that name.
    """
    named = [each for each in library.own.classifiers if each.name == name]
    if not named:
        names = ", ".join(printable(each.name) for each in library.own.classifiers) or "none"
        raise InvalidArgumentError(
            f"The library {printable(str(library.folder))} has no classifier "
            f"'{printable(name)}'. It has: {names}."
        )
    gone = {each.sha256 for each in named}
    entries = [e for e in library.manifest["own_classifiers"] if e["sha256"] not in gone]
    _write(library, entries)
    for each in named:
        shutil.rmtree(each.folder, ignore_errors=True)


def check_classifiers(library: Library) -> None:
    """Make sure that this version can use all classifiers of a library.

    Raises
    ------
    LibraryMismatchError
        When one cannot be used.
    """
    for each in library.own.classifiers:
        try:
            found = LabClassifier(each.folder)
        except ModelError as error:
            raise LibraryMismatchError(
                f"The library {printable(str(library.folder))} cannot use its classifier "
                f"'{printable(each.name)}': {error} Let the library forget it with "
                f"--drop-classifier {printable(each.name)}, or train it again."
            ) from error
        if found.identity != each.sha256:
            raise LibraryMismatchError(
                f"The library {printable(str(library.folder))} was scored by another classifier "
                f"'{printable(each.name)}' ({each.sha256[:12]}) than lies in it now "
                f"({found.identity[:12]}). Let the library forget it with --drop-classifier "
                f"{printable(each.name)}."
            )


def _refuse_clash(library: Library, new: LabClassifier) -> None:
    for each in library.own.classifiers:
        clash = {name_key(name) for name in each.classes} & set(map(name_key, new.classes))
        if clash or each.name == new.name:
            what = f"a class '{printable(min(clash))}'" if clash else "its name"
            raise LibraryMismatchError(
                f"The library {printable(str(library.folder))} has {what} from the classifier "
                f"'{printable(each.name)}' ({each.sha256[:12]}), and "
                f"{printable(os.fspath(new.folder))} is another one ({new.identity[:12]}); their "
                "scores cannot be compared. Let the library forget the first with "
                f"--drop-classifier {printable(each.name)}, or index into another folder with "
                "--library."
            )


def _add(library: Library, new: LabClassifier) -> None:
    if len(library.own.names) + len(new.classes) > MOST_OWN:
        raise InvalidArgumentError(f"A library takes at most {MOST_OWN} classes of your own.")
    folder = library.folder / _folder_name(new.identity)
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        (folder / _SCORES).unlink(missing_ok=True)
    for name in _FILES:
        if (new.folder / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(new.folder / name, temporary)
    entry = {
        "name": new.name,
        "sha256": new.identity,
        "classes": list(new.classes),
        "since": library.catalogue.lengths()["clips"],
    }
    _write(library, [*library.manifest.get("own_classifiers", []), entry])


def _write(library: Library, entries: list[dict[str, Any]]) -> None:
    library.manifest["own_classifiers"] = entries
    write_json(library.folder / MANIFEST, library.manifest)
    library.own = OwnClasses(library.folder, library.manifest)


def _folder_name(sha256: str) -> str:
    return f"own-{sha256[:12]}"
