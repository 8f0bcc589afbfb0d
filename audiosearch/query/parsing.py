"""Text to a tree.

Grammar::

    query   = either
    either  = all { "OR" all }
    all     = part { ["AND"] part }
    part    = { "-" | "NOT" } ( "(" either ")" | field | phrase | term )
    field   = NAME ":" ( phrase | value )

Words beside each other that mean something together count as one term (``police car``), else each
is a term, and all must match. ``"..."`` is one term. Operators are capital letters; "or" and "not"
in small ones are read as operators too, because they name no sound. ``|`` is OR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from audiosearch.errors import QueryError
from audiosearch.labels import normalize
from audiosearch.query.ranges import parse_range
from audiosearch.query.segments import Piece, segment
from audiosearch.query.tokens import FIELD, Token, plain, tokenize, words_of
from audiosearch.query.tree import (
    All,
    Confirmed,
    DurationFilter,
    Either,
    Node,
    Not,
    OwnLabel,
    PathFilter,
    Range,
    ScoreFilter,
    Term,
)
from audiosearch.query.vocabulary import Vocabulary, load_vocabulary

__all__ = ["FIELDS", "MAX_LENGTH", "parse"]

MAX_LENGTH = 1000
"""How many characters a query may have."""

MAX_DEPTH = 40

FIELDS = {
    "label": 'label:"Car alarm"',
    "path": "path:holiday",
    "duration": "duration:>30",
    "score": "rain score:>0.5",
    "confirmed": "confirmed:dog",
}
"""The fields, each with a query that uses it."""

_EXAMPLES = {
    "and": "rain AND thunder",
    "brackets": "(rain OR thunder) -speech",
    "not": "car -music",
    "or": "dog OR wolf",
    "phrase": '"police car"',
}
_OPERATORS = {"AND": "and", "OR": "or", "NOT": "minus"}


@dataclass(frozen=True)
class _Item:
    """What the grammar is about: a bracket, an operator, or a whole leaf of the tree."""

    kind: str
    text: str
    position: int
    leaf: Node | None = None


def parse(query: str, *, vocabulary: Vocabulary | None = None) -> Node:
    """Parse a query.

    Parameters
    ----------
    query : str
        What the user wrote, at most `MAX_LENGTH` characters.
    vocabulary : Vocabulary, optional
        What words stand for; without any words of a user where None.

    Returns
    -------
    Node
        The tree; something in it is asked for, not only left out.

    Raises
    ------
    QueryError
        When it is empty, cannot be parsed, holds an unknown word or field, or only leaves out.

    Examples
    --------
    >>> parse("car -music")
    All(parts=(Term(text='car', ...), Not(part=Term(text='music', ...))))
    """
    vocabulary = vocabulary or load_vocabulary()
    if len(query) > MAX_LENGTH:
        raise QueryError(
            f"The query has {len(query):,} characters; at most {MAX_LENGTH:,} are read.",
            query=query[:MAX_LENGTH],
            position=MAX_LENGTH,
        )
    if not query.strip():
        raise QueryError("The query is empty. Try: Car", query=query)
    # A display name is taken whole, whatever brackets and commas it holds.
    whole = _display_name(query.strip(), vocabulary)
    if whole is not None:
        return whole
    items = _Reader(query, vocabulary).items()
    if not items:
        raise QueryError("There is no word in the query. Try: Car", query=query)
    return _Parser(query, items).parse()


def _display_name(text: str, vocabulary: Vocabulary) -> Term | None:
    mid = vocabulary.labels.node(text)
    if mid is None or vocabulary.labels.node_name(mid).casefold() != text.casefold():
        return None
    return vocabulary.term(text)


class _Reader:
    """Turns tokens into items: words become terms, fields become filters."""

    def __init__(self, query: str, vocabulary: Vocabulary) -> None:
        self._query = query
        self._vocabulary = vocabulary
        self._tokens = tokenize(query)
        self._next = 0

    def items(self) -> list[_Item]:
        items: list[_Item] = []
        while (token := self._take()) is not None:
            if token.kind == "word" and token.text not in _OPERATORS:
                items.extend(self._words(token))
            else:
                items.append(self._item(token))
        return items

    def _item(self, token: Token) -> _Item:
        text, position = token.text, token.position
        if token.kind == "word":
            return _Item(_OPERATORS[text], text, position)
        if token.kind == "bar":
            return _Item("or", text, position)
        if token.kind == FIELD:
            return _Item("leaf", text, position, self._field(token))
        if token.kind in ("phrase", "mid"):
            return _Item("leaf", text, position, self._term(token))
        if token.kind == "quote":
            self._fail(f"This quote is not closed. Try: {_EXAMPLES['phrase']}", position)
        if token.kind == "dash":
            self._fail(
                "A minus must stand right before the word that it leaves out. Try: "
                f"{_EXAMPLES['not']}",
                position,
            )
        return _Item(token.kind, text, position)

    def _words(self, token: Token) -> list[_Item]:
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
                f"There is no word between the quotes. Try: {_EXAMPLES['phrase']}", token.position
            )
        term = self._vocabulary.term(token.text)
        if term is None and token.kind == "phrase":
            pieces = segment(self._query, words_of(token), self._vocabulary)
            terms = [piece for piece in pieces if piece.term is not None]
            if terms and all(piece.kind in ("term", "filler") for piece in pieces):
                if len(terms) > 1:
                    self._fail(
                        f"No sound is called '{token.text}' as a whole. To find where all of it "
                        "is heard, leave out the quotes. Try: "
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
            "score": self._score,
        }
        if name not in readers:
            from rapidfuzz import process

            near = process.extractOne(name, list(FIELDS), score_cutoff=60)
            known = ", ".join(f"{field}:" for field in FIELDS)
            self._fail(
                f"There is no field '{field.text}:'. The fields are {known}. "
                f"Try: {FIELDS[near[0] if near else 'label']}",
                field.position,
            )
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
            suggestions = [
                name
                for name in self._vocabulary.suggest(value.text, count=20)
                if self._exact(name) is not None
            ]
            raise QueryError(
                f"No class and no label is called '{value.text}'. `audiosearch classes` lists "
                f"the classes. Try: {FIELDS['label']}",
                query=self._query,
                position=value.position,
                suggestions=suggestions[:5],
            )
        return found

    def _confirmed(self, value: Token) -> Node:
        if value.text == "*":
            return Confirmed("*", None)
        found = self._longest(value, self._exact_or_term)
        if found is None:
            self._unknown(value.text, value.position)
        return Confirmed(value.text, found)

    def _path(self, value: Token) -> Node:
        return PathFilter(value.text)

    def _duration(self, value: Token) -> Node:
        return DurationFilter(self._range(value, "duration", seconds=True))

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
            self._fail(
                f"'{text}' is no range for {name}: a comparison (>, >=, <, <=) with {what}, or "
                f"from..to, as in {name}:{bounds}. Try: {FIELDS[name]}",
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
        return OwnLabel(own) if own is not None else self._vocabulary.label(name)

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
            f"No sound is called '{text}'. `audiosearch classes` lists what can be found.",
            query=self._query,
            position=position,
            suggestions=self._vocabulary.suggest(text),
        )

    def _fail(self, message: str, position: int) -> NoReturn:
        raise QueryError(message, query=self._query, position=position)


def _piece_item(piece: Piece) -> _Item:
    kind = "leaf" if piece.kind == "term" else piece.kind
    return _Item(kind, piece.text, piece.position, piece.term)


class _Parser:
    """Recursive descent over the items."""

    def __init__(self, query: str, items: list[_Item]) -> None:
        self._query = query
        self._items = items
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._either()
        item = self._peek()
        if item is not None:
            self._fail(f"This bracket closes nothing. Try: {_EXAMPLES['brackets']}", item)
        self._check_scores(node)
        if not _asks(node):
            raise QueryError(
                "The query only says what to leave out. Add what to look for. Try: "
                f"{_EXAMPLES['not']}",
                query=self._query,
                position=self._items[0].position,
            )
        return node

    def _either(self) -> Node:
        parts = [self._all()]
        while (item := self._peek()) and item.kind == "or":
            self._next += 1
            parts.append(self._all(after=item))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self, *, after: _Item | None = None) -> Node:
        parts: list[Node] = []
        while (item := self._peek()) is not None and item.kind not in ("close", "or"):
            if item.kind == "and":
                self._next += 1
                if not parts or self._at_end():
                    self._lacks_side("AND", item)
                if (again := self._peek()) and again.kind == "and":
                    self._lacks_side("AND", again)
            parts.append(self._part())
        if not parts:
            if after is not None:
                self._lacks_side("OR", after)
            if item is not None and item.kind == "or":
                self._lacks_side("OR", item)
            if item is not None and not self._depth:
                self._fail(f"This bracket closes nothing. Try: {_EXAMPLES['brackets']}", item)
            opening = self._items[self._next - 1]
            self._fail(f"There is nothing in the brackets. Try: {_EXAMPLES['brackets']}", opening)
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _part(self) -> Node:
        item = self._items[self._next]
        self._next += 1
        if item.kind == "minus":
            return self._negated(item)
        if item.kind == "open":
            return self._bracket(item)
        if item.leaf is None:
            raise AssertionError(f"an item of the kind {item.kind} is no part")
        return item.leaf

    def _negated(self, minus: _Item) -> Node:
        item = self._peek()
        if item is None or item.kind not in ("leaf", "open", "minus"):
            self._fail(f"Nothing follows to leave out. Try: {_EXAMPLES['not']}", minus)
        self._deeper(minus)
        node = Not(self._part())
        self._depth -= 1
        return node

    def _bracket(self, opening: _Item) -> Node:
        if self._peek() is None:
            self._fail(f"This bracket is not closed. Try: {_EXAMPLES['brackets']}", opening)
        self._deeper(opening)
        node = self._either()
        self._depth -= 1
        if self._peek() is None:
            self._fail(f"This bracket is not closed. Try: {_EXAMPLES['brackets']}", opening)
        self._next += 1
        return node

    def _check_scores(self, node: Node) -> None:
        """Refuse conditions on the score that are not about the whole query."""
        top = node.parts if isinstance(node, All) else ()
        for item in self._items:
            if not isinstance(item.leaf, ScoreFilter):
                continue
            if node is item.leaf:
                self._fail(f"Say what to look for, too. Try: {FIELDS['score']}", item)
            if not any(part is item.leaf for part in top):
                self._fail(
                    "score: is about the whole query, so it cannot stand in brackets, beside OR or "
                    f"after NOT. Try: {FIELDS['score']}",
                    item,
                )

    def _at_end(self) -> bool:
        item = self._peek()
        return item is None or item.kind in ("close", "or")

    def _peek(self) -> _Item | None:
        return self._items[self._next] if self._next < len(self._items) else None

    def _deeper(self, item: _Item) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(
                f"The query is nested more than {MAX_DEPTH} deep. Write it flatter. Try: "
                f"{_EXAMPLES['brackets']}",
                item,
            )

    def _lacks_side(self, operator: str, item: _Item) -> NoReturn:
        self._fail(
            f"{operator} needs something on both sides. Try: {_EXAMPLES[operator.lower()]}", item
        )

    def _fail(self, message: str, item: _Item) -> NoReturn:
        raise QueryError(message, query=self._query, position=item.position)


def _asks(node: Node) -> bool:
    """Tell whether something must hold for a clip to match, beside what must not."""
    if isinstance(node, All):
        return any(_asks(part) for part in node.parts)
    if isinstance(node, Either):
        return all(_asks(part) for part in node.parts)
    return not isinstance(node, Not | ScoreFilter)
