"""Words beside each other, cut into the longest runs that mean something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audiosearch.labels import normalize
from audiosearch.query.thesaurus import load_fillers
from audiosearch.query.tokens import Word
from audiosearch.query.tree import Term
from audiosearch.query.vocabulary import Vocabulary

__all__ = ["Piece", "segment"]

# "dog noises" asks for dogs; "noise" alone asks for noise.
_WEAK = frozenset({"noise", "noises"})
_OPERATORS = {"or": "or", "not": "minus"}

_UNKNOWN_COST = 1000
_FILLER_COST = 2
_PIECE_COST = 3
_LONGEST_PHRASE = 12


@dataclass(frozen=True)
class Piece:
    """One piece of a run of words.

    Attributes
    ----------
    kind : str
        ``"term"``, ``"filler"``, ``"unknown"``, or an operator in small letters: ``"or"``,
        ``"minus"``.
    text : str
        As the user wrote it.
    position : int
        Where it begins in the query.
    term : Term or None
        What it stands for.
    """

    kind: str
    text: str
    position: int
    term: Term | None = None


def segment(query: str, words: Sequence[Word], vocabulary: Vocabulary) -> list[Piece]:
    """Cut words beside each other into pieces, from the left, the longest that mean something."""
    pieces: list[Piece] = []
    start = 0
    while start < len(words):
        word = words[start]
        for stop in range(min(len(words), start + vocabulary.longest), start, -1):
            text = " ".join(query[word.position : words[stop - 1].end].split())
            if term := vocabulary.term(text):
                pieces.append(Piece("term", text, word.position, term))
                start = stop
                break
        else:
            if word.ideographs:
                pieces.extend(_ideographs(word, vocabulary))
            else:
                pieces.append(_unmatched(word.text, word.position))
            start += 1
    if sum(piece.kind == "term" for piece in pieces) > 1:
        return [piece for piece in pieces if normalize(piece.text) not in _WEAK]
    return pieces


def _unmatched(text: str, position: int) -> Piece:
    key = normalize(text)
    kind = _OPERATORS.get(text.lower()) or (
        "filler" if key in load_fillers() or not key else "unknown"
    )
    return Piece(kind, text, position)


def _ideographs(word: Word, vocabulary: Vocabulary) -> Iterator[Piece]:
    """Cut Chinese, which has no spaces, so that little is unknown and the pieces are few."""
    text = word.text
    terms: dict[tuple[int, int], Term] = {}
    costs = [0] * (len(text) + 1)
    begins = [0] * (len(text) + 1)
    for stop in range(1, len(text) + 1):
        costs[stop], begins[stop] = costs[stop - 1] + _UNKNOWN_COST, stop - 1
        for start in range(max(0, stop - _LONGEST_PHRASE), stop):
            piece = text[start:stop]
            if term := vocabulary.term(piece):
                terms[start, stop] = term
                cost = costs[start] + _PIECE_COST
            elif piece in load_fillers():
                cost = costs[start] + _FILLER_COST
            else:
                continue
            if cost < costs[stop]:
                costs[stop], begins[stop] = cost, start
    cuts = []
    stop = len(text)
    while stop:
        cuts.append((begins[stop], stop))
        stop = begins[stop]
    unknown = ""
    for start, stop in reversed(cuts):
        piece, term = text[start:stop], terms.get((start, stop))
        known = term is not None or piece in load_fillers()
        if unknown and known:
            yield Piece("unknown", unknown, word.position + start - len(unknown))
            unknown = ""
        if term is not None:
            yield Piece("term", piece, word.position + start, term)
        elif not known:
            unknown += piece
        else:
            yield Piece("filler", piece, word.position + start)
    if unknown:
        yield Piece("unknown", unknown, word.position + len(text) - len(unknown))
