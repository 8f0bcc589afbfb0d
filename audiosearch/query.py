"""Queries: text to a tree of terms, each resolved to classes.

Grammar::

    query   = any
    any     = all { "OR" all }
    all     = part { ["AND"] part }
    part    = ("-" | "NOT") part | "(" any ")" | "label:" word-or-phrase | phrase | words

Words beside each other that make a name together count as one term (``police car``), else each is
a term, and all must match. ``"..."`` is one term. ``label:"..."`` is exactly one class, without its
kinds. Letter case matters only for OR, AND and NOT.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from audiosearch.errors import InvalidArgumentError, QueryError
from audiosearch.labels import Labels, load_labels, normalize

__all__ = ["All", "Any", "Node", "Not", "Term", "parse"]

MAX_LENGTH = 1000
MAX_DEPTH = 40

# Words that say nothing about a sound; they are passed over unless a class is called so.
_FILLERS = frozenset(
    {"a", "an", "and", "the", "of", "with", "in", "on", "at", "to"}
    | {"sound", "sounds", "noise", "noises", "audio"}
)
_TOKEN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|(?P<minus>-)(?=[^\s-])|(?P<dash>-+(?=[\s-]|$))|(?P<field>[A-Za-z_]+):(?=\S)"
    r'|"(?P<phrase>[^"]*)"|(?P<quote>")|(?P<word>[^\s()":]+:?)|(?P<colon>:))'
)


@dataclass(frozen=True)
class Term:
    """Something to be heard: what the user wrote, and the classes that it stands for."""

    text: str
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Not:
    """Matches what its part does not."""

    part: Node


@dataclass(frozen=True)
class All:
    """Matches what every part does."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Any:
    """Matches what one part does, or several."""

    parts: tuple[Node, ...]


Node: TypeAlias = Term | Not | All | Any


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(query: str, *, labels: Labels | None = None) -> Node:
    """Parse a query.

    Parameters
    ----------
    query : str
        What the user wrote, at most 1,000 characters.
    labels : Labels, optional
        The classes; AudioSet's where None.

    Returns
    -------
    Term, Not, All or Any
        At least one term of it is not negated.

    Raises
    ------
    QueryError
        When it is empty, cannot be parsed, names an unknown class, or excludes only.
    """
    labels = labels or load_labels()
    if len(query) > MAX_LENGTH:
        raise QueryError(
            f"The query has {len(query):,} characters; at most {MAX_LENGTH:,} are read.",
            query=query[:MAX_LENGTH],
            position=MAX_LENGTH,
        )
    if not query.strip():
        raise QueryError("The query is empty. Try: Car", query=query)
    if not normalize(query):
        raise QueryError("There is no word in the query. Try: Car", query=query)
    # A display name is taken whole, whatever brackets and commas it holds.
    whole = _named(query.strip(), labels)
    if whole is not None:
        return whole
    parser = _Parser(query, _tokens(query), labels)
    node = parser.parse()
    if not _asks(node):
        raise QueryError(
            "The query only says what to leave out. Add what to look for, for example: rain -music",
            query=query,
            position=0,
        )
    return node


def _named(text: str, labels: Labels) -> Term | None:
    for label in labels:
        if label.name.casefold() == text.casefold():
            return Term(text, labels.resolve(text))
    return None


def _asks(node: Node) -> bool:
    """Tell whether a clip must have something to match."""
    if isinstance(node, All):
        return any(_asks(part) for part in node.parts)
    if isinstance(node, Any):
        return all(_asks(part) for part in node.parts)
    return isinstance(node, Term)


def _tokens(query: str) -> list[_Token]:
    tokens = []
    position = 0
    while position < len(query):
        match = _TOKEN.match(query, position)
        if match is None:  # only spaces are left
            break
        kind = str(match.lastgroup)
        if kind != "dash":  # a minus that touches nothing is punctuation
            tokens.append(_Token(kind, match[kind], match.start(kind)))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, query: str, tokens: list[_Token], labels: Labels) -> None:
        self._query = query
        self._tokens = tokens
        self._labels = labels
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._any()
        token = self._peek()
        if token is not None:
            self._fail("This bracket closes nothing. Try: (rain OR thunder) -speech", token)
        if node is None:
            raise QueryError("There is nothing to look for. Try: Car", query=self._query)
        return node

    def _any(self) -> Node | None:
        parts = [self._all()]
        while (token := self._peek()) and token.kind == "word" and token.text == "OR":
            self._next += 1
            if parts[-1] is None:
                self._fail("OR needs something on both sides. Try: dog OR wolf", token)
            parts.append(self._all())
            if parts[-1] is None:
                self._fail("OR needs something on both sides. Try: dog OR wolf", token)
        found = tuple(part for part in parts if part is not None)
        return found[0] if len(found) == 1 else Any(found) if found else None

    def _all(self) -> Node | None:
        parts: list[Node] = []
        while (token := self._peek()) is not None and token.kind != "close":
            if token.kind == "word" and token.text == "OR":
                break
            if token.kind == "word" and token.text == "AND":
                self._next += 1
                continue
            if token.kind == "word" and token.text != "NOT":
                parts.extend(self._words())
            else:
                parts.append(self._part())
        return parts[0] if len(parts) == 1 else All(tuple(parts)) if parts else None

    def _part(self) -> Node:
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "minus" or (token.kind == "word" and token.text == "NOT"):
            return self._negated(token)
        if token.kind == "open":
            return self._bracket(token)
        if token.kind == "phrase":
            if not normalize(token.text):
                self._fail('There is nothing between the quotes. Try: "police car"', token)
            return self._term(token.text, token)
        if token.kind == "field":
            return self._field(token)
        if token.kind == "quote":
            self._fail('This quote is not closed. Try: "police car"', token)
        if token.kind == "colon":
            self._fail('A field is written like this: label:"Car alarm"', token)
        return self._term(token.text, token)

    def _negated(self, minus: _Token) -> Node:
        token = self._peek()
        if token is None or token.kind == "close":
            self._fail("Nothing follows to leave out. Try: car -music", minus)
        self._deeper(minus)
        node = Not(self._part())
        self._depth -= 1
        return node

    def _bracket(self, opening: _Token) -> Node:
        self._deeper(opening)
        node = self._any()
        self._depth -= 1
        token = self._peek()
        if token is None:
            self._fail("This bracket is not closed. Try: (rain OR thunder) -speech", opening)
        self._next += 1
        if node is None:
            self._fail("There is nothing in the brackets. Try: (rain OR thunder)", opening)
        return node

    def _field(self, field: _Token) -> Node:
        if field.text.lower() != "label":
            self._fail(
                f"There is no field '{field.text}:'. Fields: label. Try: label:\"Car alarm\"",
                field,
            )
        value = self._peek()
        if value is None or value.kind not in ("word", "phrase"):
            self._fail('A class must follow. Try: label:"Car alarm"', field)
        self._next += 1
        try:
            label = self._labels.by_name(value.text)
        except InvalidArgumentError:
            self._unknown(value.text, value)
        return Term(label.name, (label.index,))

    def _words(self) -> list[Node]:
        """Take words beside each other, the longest runs that make a name first."""
        words = []
        while (token := self._peek()) and token.kind == "word":
            if token.text in ("OR", "AND", "NOT"):
                break
            words.append(token)
            self._next += 1
        nodes: list[Node] = []
        fillers = []
        start = 0
        while start < len(words):
            for stop in range(len(words), start, -1):
                text = " ".join(token.text for token in words[start:stop])
                classes = self._labels.resolve(text)
                if classes:
                    nodes.append(Term(text, classes))
                    start = stop
                    break
            else:
                if normalize(words[start].text) not in _FILLERS:
                    self._unknown(words[start].text, words[start])
                fillers.append(words[start])
                start += 1
        if fillers and not nodes:
            self._fail(f"'{fillers[0].text}' alone names no sound. Try: Car", fillers[0])
        return nodes

    def _term(self, text: str, token: _Token) -> Term:
        classes = self._labels.resolve(text)
        if not classes:
            self._unknown(text, token)
        return Term(text, classes)

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"The query is nested more than {MAX_DEPTH} deep; write it flatter.", token)

    def _unknown(self, text: str, token: _Token) -> NoReturn:
        suggestions = [name for name in self._labels.suggest(text) if self._labels.resolve(name)]
        raise QueryError(
            f"No class of sound is called '{text}'. `audiosearch classes` lists them all.",
            query=self._query,
            position=token.position,
            suggestions=suggestions,
        )

    def _fail(self, message: str, token: _Token) -> NoReturn:
        raise QueryError(message, query=self._query, position=token.position)
