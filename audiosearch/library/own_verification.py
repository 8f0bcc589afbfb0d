"""Checking what a library keeps of classifiers of the user's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from audiosearch.errors import LibraryDamagedError, printable
from audiosearch.library.findings import Finding
from audiosearch.library.manifest import read_manifest
from audiosearch.library.own_classes import OwnClasses
from audiosearch.library.own_keeping import why_unusable
from audiosearch.library.own_scores import OwnClassifier

__all__ = ["own_findings"]


def own_findings(folder: Path, clips: int | None, *, repair: bool) -> Iterator[Finding]:
    """Give what is wrong with a library's own classifiers and their scores.

    Parameters
    ----------
    folder : Path
        The library's folder.
    clips : int or None
        The number of the next clip; None where the catalogue does not tell, and then scores are
        not looked at.
    repair : bool
        Whether to delete what stopped processes left.
    """
    kept = OwnClasses(folder, read_manifest(folder)).classifiers
    for each in kept:
        name = printable(each.name)
        reason = None if each.scores_only else why_unusable(each)
        if reason is not None:
            yield _damaged(
                each,
                f"The classifier '{name}' cannot be used: {reason} Give it again, or let the "
                f"library forget it: audiosearch index FOLDER --drop-classifier {name}",
            )
        problem = None if clips is None else _problem(each, clips)
        if problem is not None:
            yield _damaged(
                each,
                f"What the classifier '{name}' heard is damaged: {problem}. Restore the folder "
                "from a backup, or let the sounds be heard anew: audiosearch index FOLDER "
                f"--drop-classifier {name} --classifier DIR",
            )
    for path in sorted(folder.glob("own-*")):
        if path not in [each.folder for each in kept]:
            if repair:
                shutil.rmtree(path, ignore_errors=True)
            text = "A process that was stopped left it; nothing uses it."
            yield Finding("leftover", printable(str(path)), text, not path.exists())


def _problem(classifier: OwnClassifier, clips: int) -> str | None:
    try:
        return classifier.problem(clips)
    except LibraryDamagedError as error:
        return str(error)


def _damaged(classifier: OwnClassifier, problem: str) -> Finding:
    return Finding("damaged", printable(str(classifier.folder)), problem)
