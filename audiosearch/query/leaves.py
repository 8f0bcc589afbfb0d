"""The leaves of a query: words become terms, fields become filters, each with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from audiosearch.errors import QueryError
from audiosearch.labels import normalize
from audiosearch.query.ranges import parse_range
from audiosearch.query.segments import Piece, segment
from audiosearch.query.tokens import FIELD, Token, plain, tokenize, words_of
from audiosearch.query.tree import (
    Confirmed,
    DurationFilter,
    Node,
    OwnLabel,
    PathFilter,
    Range,
    ScoreFilter,
    Term,
    YearFilter,
)
from audiosearch.query.vocabulary import Vocabulary

__all__ = ["EXAMPLES", "FIELDS", "Item", "read_items"]

FIELDS = {
    "label": 'label:"Car alarm"',
    "path": "path:holiday",
    "duration": "duration:>30",
    "year": "year:2024",
    "score": "rain score:>0.5",
    "confirmed": "confirmed:dog",
}
"""The fields, each with a query that uses it."""

EXAMPLES = {
    "and": "rain AND thunder",
    "brackets": "(rain OR thunder) -speech",
    "not": "car -music",
    "or": "dog OR wolf",
    "phrase": '"police car"',
}
_LONGEST_QUOTE = 60
_OPERATORS = {"AND": "and", "OR": "or", "NOT": "minus"}


@dataclass(frozen=True)
class Item:
    """What the grammar is about: a bracket, an operator, or a whole leaf of the tree."""

    kind: str
    text: str
    position: int
    leaf: Node | None = None


def read_items(query: str, vocabulary: Vocabulary) -> list[Item]:
    """Return the items of a query, in its order.

    Raises
    ------
    QueryError
        When a word or a field is unknown, or a field's value is not as it must be.
    """
    return _Reader(query, vocabulary).items()


class _Reader:
    """Turns tokens into items: words become terms, fields become filters."""

    def __init__(self, query: str, vocabulary: Vocabulary) -> None:
        self._query = query
        self._vocabulary = vocabulary
        self._tokens = tokenize(query)
        self._next = 0

    def items(self) -> list[Item]:
        items: list[Item] = []
        while (token := self._take()) is not None:
            if token.kind == "word" and token.text not in _OPERATORS:
                items.extend(self._words(token))
            else:
                items.append(self._item(token))
        return items

    def _item(self, token: Token) -> Item:
        text, position = token.text, token.position
        if token.kind == "word":
            return Item(_OPERATORS[text], text, position)
        if token.kind == "bar":
            return Item("or", text, position)
        if token.kind == FIELD:
            return Item("leaf", text, position, self._field(token))
        if token.kind in ("phrase", "mid"):
            return Item("leaf", text, position, self._term(token))
        if token.kind == "quote":
            self._fail(f"This quote is not closed. Try: {EXAMPLES['phrase']}", position)
        if token.kind == "dash":
            self._fail(
                "A minus must stand right before the word that it leaves out. Try: "
                f"{EXAMPLES['not']}",
                position,
            )
        return Item(token.kind, text, position)

    def _words(self, token: Token) -> list[Item]:
        """Read words beside each other, up to anything else."""
        words = words_of(token)
        while (after := self._peek()) and after.kind == "word" and after.text not in _OPERATORS:
            words.extend(words_of(after))
            self._next += 1
        pieces = segment(self._query, words, self._vocabulary)
        for piece in pieces:
            if piece.kind == "unknown":
                self._unknown(piece.text, piece.position)
        fillers = [piece for piece in pieces if piece.kind == "filler"]
        if fillers and len(fillers) == len(pieces):
            self._fail(f"'{fillers[0].text}' alone names no sound. Try: Car", fillers[0].position)
        return [_piece_item(piece) for piece in pieces if piece.kind != "filler"]

    def _term(self, token: Token) -> Term:
        if token.kind == "phrase" and not normalize(token.text):
            self._fail(
                f"There is no word between the quotes. Try: {EXAMPLES['phrase']}", token.position
            )
        term = self._vocabulary.term(token.text)
        if term is None and token.kind == "phrase":
            pieces = segment(self._query, words_of(token), self._vocabulary)
            terms = [piece for piece in pieces if piece.term is not None]
            if terms and all(piece.kind in ("term", "filler") for piece in pieces):
                if len(terms) > 1:
                    self._fail(
                        f"No sound is called '{_short(token.text)}' as a whole. To find where all "
                        "of it is heard, leave out the quotes. Try: "
                        + " ".join(piece.text for piece in terms),
                        token.position,
                    )
                term = terms[0].term
        return term or self._unknown(token.text, token.position)

    def _field(self, field: Token) -> Node:
        name = field.text.lower()
        readers: dict[str, Callable[[Token], Node]] = {
            "label": self._label,
            "confirmed": self._confirmed,
            "path": self._path,
            "duration": self._duration,
            "year": self._year,
            "score": self._score,
        }
        if name not in readers:
            from rapidfuzz import process

            near = process.extractOne(name, list(FIELDS), score_cutoff=60)
            known = ", ".join(f"{other}:" for other in FIELDS)
            self._fail(
                f"There is no field '{_short(field.text)}:'. The fields are {known}. "
                f"Try: {FIELDS[near[0] if near else 'label']}",
                field.position,
            )
        if name == "confirmed" and self._stands_alone():
            return Confirmed("*", None)
        value = self._peek()
        if value is not None and value.kind == "quote":
            self._fail(f"This quote is not closed. Try: {FIELDS[name]}", value.position)
        if value is None or value.kind not in ("phrase", "value") or not value.text.strip():
            self._fail(
                f"Something must follow '{field.text}:'. Try: {FIELDS[name]}", field.position
            )
        self._next += 1
        return readers[name](value)

    def _label(self, value: Token) -> Node:
        found = self._longest(value, self._exact)
        if found is None:
            raise QueryError(
                f"No class and no label is called '{_short(value.text)}'. `audiosearch classes` "
                f"lists the classes. Try: {FIELDS['label']}",
                query=self._query,
                position=value.position,
                suggestions=self._vocabulary.suggest_labels(value.text),
            )
        return found

    def _confirmed(self, value: Token) -> Node:
        if value.text == "*":
            return Confirmed("*", None)
        found = self._longest(value, self._exact_or_term)
        if found is None:
            self._unknown(value.text, value.position)
        return Confirmed(found.text if isinstance(found, Term) else found.name, found)

    def _stands_alone(self) -> bool:
        """Tell whether a field has no value: it ends the query, or an operator follows it."""
        value = self._peek()
        if value is None or value.kind not in ("phrase", "value", "quote"):
            return True
        first = plain(value.text)[:1]
        if value.kind == "value" and (value.text in _OPERATORS or first in ("-", "|")):
            # What a field took for its value begins what follows it.
            self._tokens[self._next : self._next + 1] = [
                Token(token.kind, token.text, token.position + value.position)
                for token in tokenize(value.text)
            ]
            return True
        return False

    def _path(self, value: Token) -> Node:
        return PathFilter(value.text)

    def _duration(self, value: Token) -> Node:
        return DurationFilter(self._range(value, "duration", seconds=True))

    def _year(self, value: Token) -> Node:
        if re.fullmatch(r"\d{4}", plain(value.text), re.ASCII):
            year = float(plain(value.text))
            return YearFilter(Range(year, year))
        return YearFilter(self._range(value, "year", seconds=False))

    def _score(self, value: Token) -> Node:
        found = self._range(value, "score", seconds=False)
        if max(x for x in (found.low, found.high, 0.0) if abs(x) < float("inf")) > 1:
            self._fail(f"A score lies between 0 and 1. Try: {FIELDS['score']}", value.position)
        return ScoreFilter(found)

    def _range(self, value: Token, name: str, *, seconds: bool) -> Range:
        text = plain(value.text)
        # "> 30", with a space.
        if text in (">", "<", ">=", "<=") and (after := self._peek()) and after.kind == "word":
            self._next += 1
            text += after.text
        found = parse_range(text, seconds=seconds)
        if found is None:
            what = "seconds, or minutes as 1:30" if seconds else "a number from 0 to 1"
            bounds = "10..30" if seconds else "0.2..0.5"
            if name == "year":
                what, bounds = "a year", "2020..2024"
            self._fail(
                f"'{_short(text)}' is no range for {name}: a comparison (>, >=, <, <=) with "
                f"{what}, or from..to, as in {name}:{bounds}. Try: {FIELDS[name]}",
                value.position,
            )
        return found

    def _longest(
        self, value: Token, find: Callable[[str], Term | OwnLabel | None]
    ) -> Term | OwnLabel | None:
        """Find the value of a field, with the words after it that belong to its name.

        A shell takes the quotes away: label:"Car alarm" arrives as label:Car alarm.
        """
        if value.kind == "phrase":
            return find(value.text)
        texts = [value.text]
        for token in self._tokens[self._next : self._next + self._vocabulary.longest]:
            if token.kind != "word" or token.text in _OPERATORS:
                break
            texts.append(token.text)
        for count in range(len(texts), 0, -1):
            found = find(" ".join(texts[:count]))
            if found is not None:
                self._next += count - 1
                return found
        return None

    def _exact(self, name: str) -> Term | OwnLabel | None:
        own = self._vocabulary.own_label(name)
        if own is not None and not self._vocabulary.is_own_class(own):
            return OwnLabel(own)
        return self._vocabulary.label(own or name)

    def _exact_or_term(self, name: str) -> Term | OwnLabel | None:
        own = self._vocabulary.own_label(name)
        return OwnLabel(own) if own is not None else self._vocabulary.term(name)

    def _take(self) -> Token | None:
        token = self._peek()
        self._next += 1
        return token

    def _peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _unknown(self, text: str, position: int) -> NoReturn:
        raise QueryError(
            f"No sound is called '{_short(text)}'. `audiosearch classes` lists what can be found.",
            query=self._query,
            position=position,
            suggestions=self._vocabulary.suggest(text),
        )

    def _fail(self, message: str, position: int) -> NoReturn:
        raise QueryError(message, query=self._query, position=position)


def _piece_item(piece: Piece) -> Item:
    kind = "leaf" if piece.kind == "term" else piece.kind
    return Item(kind, piece.text, piece.position, piece.term)


def _short(text: str) -> str:
    """Return a text as a message quotes it."""
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."
