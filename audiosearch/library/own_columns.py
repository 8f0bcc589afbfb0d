"""What the user's own classifiers say of clips, as columns of an exported table.

====================  ========================================================================
``own: NAME``         the score of an own class; in JSON lines all in one object, ``own_scores``
``own_classifiers``   name, hash and classes of each classifier, a list in JSON; alike in all rows
``own_frames``        the score codes of ten frames, a byte for each class in each
====================  ========================================================================

They stand in tables of libraries that have own classes, and in no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.errors import printable
from audiosearch.library.columns import encode_scores
from audiosearch.library.own_scores import OwnCodes, OwnMaker, unheard_codes

__all__ = ["OWN_CLASSIFIERS", "OWN_FRAMES", "makers_of_text", "own_column", "own_of_rows"]

OWN_CLASSIFIERS, OWN_FRAMES, OWN_SCORES = "own_classifiers", "own_frames", "own_scores"
_COLUMN = "own: "


def own_column(name: str) -> str:
    """Return the name of an own class's column."""
    return _COLUMN + printable(name)


def own_values(row: Mapping[str | None, Any]) -> dict[str, Any]:
    """Return the own scores of a row that has a column for each."""
    return {
        key.removeprefix(_COLUMN): value
        for key, value in row.items()
        if key and key.startswith(_COLUMN) and value not in (None, "")
    }


def makers_text(makers: Sequence[OwnMaker]) -> str:
    """Return classifiers as the text of a column."""
    return json.dumps([each.to_dict() for each in makers])


def makers_of_text(text: Any) -> tuple[OwnMaker, ...]:
    """Return the classifiers that a text names; raise ``ValueError`` where it makes no sense."""
    if text in (None, ""):
        return ()
    found = []
    for each in json.loads(text):
        name, sha256, classes = each["name"], each["sha256"], each["classes"]
        if not (isinstance(classes, list) and classes and len(str(sha256)) == 64):
            raise ValueError("an own classifier without classes, or of no hash")
        int(sha256, 16)
        found.append(OwnMaker(str(name), str(sha256), tuple(map(str, classes))))
    if len({each.sha256 for each in found}) < len(found):
        raise ValueError("an own classifier that is listed twice")
    return tuple(found)


def own_of_rows(rows: Sequence[Mapping[str, Any]], makers: Sequence[OwnMaker]) -> OwnCodes:
    """Return what checked rows say of own classes."""
    names = [printable(name) for each in makers for name in each.classes]
    result = unheard_codes(len(rows), len(names))
    if not names:
        return result
    places = {name: number for number, name in enumerate(names)}
    scores = np.zeros((len(rows), len(names)))
    for number, row in enumerate(rows):
        for name, score in row[OWN_SCORES].items():
            scores[number, places[name]] = score
        result.frames[number] = np.frombuffer(row[OWN_FRAMES], np.uint8).reshape(CLIP_FRAMES, -1)
    return heard_codes(scores, result.frames, makers)


def heard_codes(
    scores: np.ndarray[Any, Any], frames: np.ndarray[Any, Any], makers: Sequence[OwnMaker]
) -> OwnCodes:
    """Return exported scores as codes; small ones may have been left out.

    Parameters
    ----------
    scores : float (n, own classes)
        Of clips; 0 where it was left out.
    frames : uint8 (n, 10, own classes)
        Codes of their frames; all 0 where the classifier has not heard the clip.
    makers : sequence of OwnMaker
        The classifiers.
    """
    codes, start = np.where(scores > 0, encode_scores(scores), 0).astype(np.uint8), 0
    for each in makers:
        here = slice(start, start + len(each.classes))
        heard = frames[:, :, here].any(axis=(1, 2)) | codes[:, here].any(axis=1)
        codes[heard, here] = np.maximum(codes[heard, here], 1)
        start = here.stop
    return OwnCodes(codes, frames)


def check_own(row: dict[str, Any], names: Sequence[str]) -> None:
    """Make sure that a row's own values can be; raise ``ValueError`` where not."""
    if not names:
        return
    known = set(map(printable, names))
    scores = {printable(key): float(value) for key, value in row[OWN_SCORES].items()}
    if not all(0 <= score <= 1 for score in scores.values()):  # NaN is not
        raise ValueError("an own score is not from 0 to 1")
    if not known.issuperset(scores):
        raise ValueError("an own class that no classifier of the row has")
    if len(row[OWN_FRAMES]) != CLIP_FRAMES * len(names):
        raise ValueError(f"own frames have {CLIP_FRAMES} bytes a class")
    row[OWN_SCORES] = scores
