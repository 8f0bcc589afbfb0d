"""Which classifiers of the user's own a library keeps: added, brought by a merge, forgotten.

Each has a folder in the library's, ``own-`` and the beginning of its hash: the files that
`audiosearch.lab` wrote, and what it says of each clip. Scores that came from an exported file may
be there without the classifier, and then the manifest says ``scores_only``: their classes are
searched, but nothing new can be heard.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiosearch.errors import (
    InvalidArgumentError,
    LibraryMismatchError,
    ModelError,
    printable,
)
from audiosearch.labels import name_key, name_problem
from audiosearch.library.manifest import MANIFEST
from audiosearch.library.own_block import MOST_OWN
from audiosearch.library.own_classes import OwnClasses
from audiosearch.library.own_scores import MODEL_FILES, OwnClassifier, OwnMaker, own_folder
from audiosearch.own.classifier import LabClassifier, load_classifiers
from audiosearch.storage import atomic_path, storage_errors, write_json

if TYPE_CHECKING:
    from audiosearch.library.library import Library
    from audiosearch.library.recordings import KnownFile

__all__ = [
    "add_classifiers",
    "adopt",
    "check_classifiers",
    "drop_classifier",
    "joined_makers",
    "makers_in",
    "unheard_files",
]


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
    new = makers_in(folders)
    if not new:
        return
    remedy = (
        "Let the library forget the first with --drop-classifier {}, or index into another folder "
        "with --library."
    )
    have = f"The library {printable(str(library.folder))}", library.own.makers
    joined_makers([have, *((_shown(each), [each]) for each in new)], remedy=remedy)
    adopt(library, new)


def makers_in(
    folders: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None,
) -> list[OwnMaker]:
    """Return the classifiers that the lab wrote into folders; raise as `load_classifiers`."""
    return [
        OwnMaker(each.name, each.identity, each.classes, each.folder)
        for each in load_classifiers(folders)
    ]


def joined_makers(
    held: Iterable[tuple[str, Iterable[OwnMaker]]], *, remedy: str
) -> tuple[OwnMaker, ...]:
    """Return all classifiers of several places, each once, with its folder where one place has it.

    Parameters
    ----------
    held : iterable of (str, iterable of OwnMaker)
        What a message calls each place, and the classifiers there.
    remedy : str
        What to do where two cannot stand side by side; ``{}`` becomes the first one's name.

    Raises
    ------
    InvalidArgumentError
        When there are too many classes, or one has classes that queries cannot name.
    LibraryMismatchError
        When two have a class of one name, or one name themselves.
    """
    found: dict[str, tuple[str, OwnMaker]] = {}
    for place, makers in held:
        for new in makers:
            if problem := name_problem(new.classes):
                raise InvalidArgumentError(
                    f"{place}, classifier '{printable(new.name)}': {problem}, and train again."
                )
            for where, old in found.values():
                if (old.sha256, old.classes) != (new.sha256, new.classes):
                    _refuse_clash(where, old, place, new, remedy)
            if new.sha256 not in found or (new.folder and not found[new.sha256][1].folder):
                found[new.sha256] = place, new
    result = tuple(each for _, each in found.values())
    if sum(len(each.classes) for each in result) > MOST_OWN:
        raise InvalidArgumentError(f"A library takes at most {MOST_OWN} classes of your own.")
    return result


def _refuse_clash(where: str, old: OwnMaker, place: str, new: OwnMaker, remedy: str) -> None:
    clash = set(map(name_key, old.classes)) & set(map(name_key, new.classes))
    if clash or old.name == new.name:
        what = f"a class '{printable(min(clash))}'" if clash else "its name"
        raise LibraryMismatchError(
            f"{where} has {what} from the classifier '{printable(old.name)}' ({old.sha256[:12]}), "
            f"and {place} holds another one ({new.sha256[:12]}); their scores cannot be compared. "
            + remedy.format(printable(old.name))
        )


def adopt(library: Library, makers: Iterable[OwnMaker]) -> None:
    """Let a library keep classifiers that fit it, or the scores of those that are not at hand.

    Where it has the scores alone of one that is at hand now, it gets the classifier.

    Parameters
    ----------
    library : Library
        Open for writing; its lock is held.
    makers : iterable of OwnMaker
        As `joined_makers` lets them pass.

    Raises
    ------
    StorageError
        When one cannot be copied.
    """
    for each in makers:
        entries = list(library.manifest.get("own_classifiers", []))
        place = next((n for n, e in enumerate(entries) if e["sha256"] == each.sha256), None)
        if place is not None and not (entries[place].get("scores_only") and each.folder):
            continue
        folder = library.folder / own_folder(each.sha256)
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
            if place is None:
                for left in folder.glob("*.rows"):
                    left.unlink()
        entry: dict[str, Any] = {**each.to_dict(), "since": library.catalogue.lengths()["clips"]}
        if each.folder is None:
            entry["scores_only"] = True
        else:
            _copy_model(each.folder, folder)
        if place is None:
            entries.append(entry)
        else:
            entries[place] = {**entry, "since": entries[place]["since"]}
        _write(library, entries)


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


def check_classifiers(library: Library, folders: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Make sure that this version can use all classifiers of a library.

    Parameters
    ----------
    library : Library
        Open for writing; its lock is held.
    folders : sequence of path-like
        What the lab wrote; a classifier that lies in one of them and cannot be used, or of which
        the library has the scores alone, is copied from there.

    Raises
    ------
    LibraryMismatchError
        When one cannot be used.
    """
    given = {each.sha256: each for each in makers_in(folders)}
    adopt(library, [given[e.sha256] for e in library.own.classifiers if e.sha256 in given])
    for each in library.own.classifiers:
        reason = why_unusable(each)
        source = given.get(each.sha256)
        if reason is not None and source is not None and source.folder is not None:
            _copy_model(source.folder, each.folder)
            reason = why_unusable(each)
        if reason is not None:
            raise LibraryMismatchError(
                f"The library {printable(str(library.folder))} cannot use its classifier "
                f"'{printable(each.name)}' ({each.sha256[:12]}): {reason} Give it with "
                "--classifier FOLDER, or let the library forget it with --drop-classifier "
                f"{printable(each.name)}."
            )


def why_unusable(classifier: OwnClassifier) -> str | None:
    """Return why nothing new can be heard with a library's classifier; None where it can."""
    if classifier.scores_only:
        return "Its scores came from an exported file, without it."
    try:
        found = LabClassifier(classifier.folder).identity
    except ModelError as error:
        return str(error)
    if found != classifier.sha256:
        return f"Another one ({found[:12]}) lies in its place."
    return None


def unheard_files(library: Library, known: dict[bytes, KnownFile]) -> set[bytes]:
    """Return the files of a library that one of its own classifiers has not heard yet.

    Parameters
    ----------
    library : Library
        The library.
    known : dict
        Its files, as its catalogue knows them.
    """
    clips = {
        path: before.first_clip for path, before in known.items() if before.first_clip is not None
    }
    if not library.own.classifiers or not clips:
        return set()
    numbers = np.fromiter(clips.values(), np.int64, len(clips))
    heard = library.own.heard(numbers, library.catalogue.lengths()["clips"])
    unheard = np.flatnonzero(~heard.all(axis=0)).tolist()
    paths = list(clips)
    return {paths[number] for number in unheard}


def _shown(maker: OwnMaker) -> str:
    return printable(os.fspath(maker.folder or ""))


def _copy_model(source: Path, folder: Path) -> None:
    for name in MODEL_FILES:
        if (source / name).exists():
            with storage_errors(folder), atomic_path(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)


def _write(library: Library, entries: list[dict[str, Any]]) -> None:
    library.manifest["own_classifiers"] = entries
    write_json(library.folder / MANIFEST, library.manifest)
    library.own = OwnClasses(library.folder, library.manifest)
