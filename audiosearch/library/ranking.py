"""Which clips match a query, and in what order.

A clip matches a term when one of the term's classes scores at least `MATCH_SCORE`; the term's score
is that of its best class. AND multiplies the scores of its terms, OR takes the best, and NOT leaves
out what surely holds its part: a score of at least `EXCLUDE_SCORE`. Finding a little too much only
makes the list longer at its end; leaving out a little too much loses a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.library.columns import decode_scores, encode_scores
from audiosearch.query import All, Either, Node, Not, Term

__all__ = ["EXCLUDE_SCORE", "MATCH_SCORE", "Match", "group", "match"]

MATCH_SCORE = 0.02
"""From which score on a clip is found."""

EXCLUDE_SCORE = 0.2
"""From which score on a clip is left out by NOT."""

_MATCH_CODE, _EXCLUDE_CODE = encode_scores(np.array([MATCH_SCORE, EXCLUDE_SCORE])).tolist()


@dataclass(frozen=True)
class Match:
    """How clips stand to a query; every array has one value a clip.

    Attributes
    ----------
    found : bool (clips,)
        Whether the clip matches.
    score : float32 (clips,)
        How well; only that of clips that match means anything.
    label : int16 (clips,)
        The class that matched best, -1 where none did.
    """

    found: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float32]
    label: npt.NDArray[np.int16]


def match(node: Node, codes: npt.NDArray[np.uint8]) -> Match:
    """Match a query against score codes, uint8 (clips, 527)."""
    return _match(node, codes, _MATCH_CODE)


def group(
    recordings: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Group ranked clips by recording.

    Parameters
    ----------
    recordings : int64 (n,)
        The recording of each clip, best clip first; small numbers, 0 or more.

    Returns
    -------
    order : int64 (groups,)
        Recordings in the order of their best clips.
    of : int64 (n,)
        For each clip, the position of its recording in `order`.
    """
    if not len(recordings):
        return recordings, recordings
    place = np.arange(len(recordings))
    # No sort: this runs over all matching clips at every search.
    first = np.full(recordings.max() + 1, len(recordings))
    np.minimum.at(first, recordings, place)
    order = recordings[first[recordings] == place]
    position = first  # its values are not needed any more
    position[order] = np.arange(len(order))
    return order, position[recordings]


def _match(node: Node, codes: npt.NDArray[np.uint8], least: int) -> Match:
    if isinstance(node, Term):
        return _term(node, codes, least)
    if isinstance(node, Not):
        found = ~_match(node.part, codes, _EXCLUDE_CODE).found
        return Match(found, np.ones(len(codes), np.float32), np.full(len(codes), -1, np.int16))
    if not isinstance(node, All | Either):  # `audiosearch.library.filters` resolves them before
        raise TypeError(f"{type(node).__name__} is about recordings, not about scores.")
    parts = [_match(part, codes, least) for part in node.parts]
    return _all(parts) if isinstance(node, All) else _any(parts)


def _term(term: Term, codes: npt.NDArray[np.uint8], least: int) -> Match:
    columns = codes[:, list(term.classes)]
    # The first of equals wins, and the classes that the user named stand first.
    best = columns.argmax(axis=1)
    code = columns[np.arange(len(codes)), best]
    label = np.asarray(term.classes, np.int16)[best]
    return Match(code >= least, decode_scores(code), label)


def _all(parts: list[Match]) -> Match:
    found = np.logical_and.reduce([part.found for part in parts])
    score = np.multiply.reduce([part.score for part in parts])
    label = parts[0].label
    for part in parts[1:]:
        label = np.where(label < 0, part.label, label)
    return Match(found, score, label)


def _any(parts: list[Match]) -> Match:
    found, score, label = parts[0].found, parts[0].score, parts[0].label
    for part in parts[1:]:
        better = part.found & (~found | (part.score > score))
        score = np.where(better, part.score, score)
        label = np.where(better, part.label, label)
        found = found | part.found
    return Match(found, score, label)
