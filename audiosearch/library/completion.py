"""Completing a query as it is typed: what its last word may become, and how much that finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from audiosearch.labels import normalize, stem
from audiosearch.query import Completion as Word
from audiosearch.query import Vocabulary

__all__ = ["Completion", "complete"]

_MOST_WORDS = 6
_LOOKED_AT = 60
_A_LABEL = 2
_MORE = 4  # are looked at, in case some find nothing
# What ends one term and begins another: brackets, bars, operators, a minus before a word.
_BETWEEN = re.compile(r"[()|]|(?:^|(?<=\s))(?:AND|OR|NOT)\s+|(?:^|(?<=[\s(]))-(?=\S)")
_FIELD = re.compile(r"(?:^|(?<=[\s(-]))[^\W\d]\w*:\s*[^\s()\"]+\s+")
_FIELD_BEGUN = re.compile(r"[^\W\d]\w*:")


@dataclass(frozen=True)
class Completion:
    """What a query may become.

    Attributes
    ----------
    text : str
        The word or phrase that stands for what was typed.
    label : str
        The class or group that it finds first; often the same.
    count : int
        How many recordings it finds alone.
    query : str
        The whole query with it.
    own : bool
        Whether it is a class, or a label, of the user's own.
    """

    text: str
    label: str
    count: int
    query: str
    own: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def complete(
    query: str, vocabulary: Vocabulary, count_of: Callable[[str], int], *, limit: int
) -> list[Completion]:
    """Return what the last words of a query may become; see `Library.complete`.

    Parameters
    ----------
    query : str
        What was typed.
    vocabulary : Vocabulary
        The words that there are.
    count_of : callable
        Given a query, how many recordings it finds.
    limit : int
        How many to return.
    """
    before, typed = _last_term(query)
    words = typed.split(" ")
    # As many of the last words as begin something that is known: "police c", then "c".
    for first in range(max(len(words) - _MOST_WORDS, 0), len(words)):
        key = " ".join(words[first:])
        if not key.strip():
            return []
        found = _best(vocabulary.complete(key, count=_LOOKED_AT), key, limit + _MORE)
        if found:
            head = before + "".join(f"{word} " for word in words[:first])
            made = [_made(word, head, count_of) for word in found]
            # What finds nothing comes last.
            return sorted(made, key=lambda each: not each.count)[:limit]
    return []


def _last_term(query: str) -> tuple[str, str]:
    """Split a query into what stays and what is to be completed; the latter may be empty."""
    quotes = [match.start() for match in re.finditer('"', query)]
    if len(quotes) % 2:  # within a phrase
        before, typed = query[: quotes[-1]], query[quotes[-1] + 1 :]
        return (before, "") if before.rstrip().endswith(":") else (before, typed)
    start = 1 + quotes[-1] if quotes else 0
    for pattern in (_BETWEEN, _FIELD):
        for match in pattern.finditer(query, start):
            start = match.end()
    typed = query[start:].lstrip()
    if _FIELD_BEGUN.match(typed):  # a path, a number, or a name that must be exact
        return query, ""
    return query[: len(query) - len(typed)], " ".join(typed.split())


def _best(words: list[Word], typed: str, limit: int) -> list[Word]:
    """Return the likeliest: what begins so, names of classes, short ones; few words a class."""
    key = normalize(typed)

    def place(word: Word) -> tuple[bool, bool, bool, int, str]:
        text = word.label if word.own else word.text
        known = normalize(text)
        return (
            # With its accents: "ra" is not yet all of "rã".
            text.casefold() != typed.casefold(),
            not known.startswith(key),
            word.text != word.label,
            len(known),
            known,
        )

    result: list[Word] = []
    seen: dict[tuple[str, bool], set[str]] = {}
    for word in sorted(words, key=place):
        stems = seen.setdefault((word.label, word.own), set())
        form = stem(normalize(word.text))
        if form not in stems and len(stems) < _A_LABEL:
            stems.add(form)
            result.append(word)
    return result[:limit]


def _made(word: Word, head: str, count_of: Callable[[str], int]) -> Completion:
    # A name of several words may hold one that joins: "Rock and roll".
    alone = word.text if re.fullmatch(r"\w+|label:.*", word.text) else f'"{word.text}"'
    return Completion(word.text, word.label, count_of(alone), head + alone, word.own)
