"""A query's text cut into tokens, each with its place in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from audiosearch.labels import plain

__all__ = ["FIELD", "Token", "Word", "label_query", "plain", "tokenize", "words_of"]

FIELD = "field"
"""Kind of a field's name; a ``phrase``, a ``value`` or a ``quote`` follows it, or nothing does."""

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<open>\()|(?P<close>\))"
    # A minus leaves out what it touches; any other dash outside a word is a slip.
    r"|(?P<minus>-)(?=[^\s)-])|(?P<dash>-+)"
    r"|(?P<field>[^\W\d]\w*):"
    r'|"(?P<phrase>[^"]*)"|(?P<quote>")'
    r"|(?P<bar>\|\|?)"
    r"|(?P<mid>/[a-z]/\w+)"
    r'|(?P<word>[^\s()"|]+)'
    r")"
)
_VALUE = re.compile(r'\s*(?:"(?P<phrase>[^"]*)"|(?P<quote>")|(?P<value>[^\s()"]+))')
_LETTERS = r"(?:[^\W_]|[\u0300-\u036f])+"
_WORD = re.compile(rf"{_LETTERS}(?:['’ʼ]{_LETTERS})*")
_IDEOGRAPHS = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


@dataclass(frozen=True)
class Token:
    """A piece of a query: ``kind`` is the name of its group in the pattern."""

    kind: str
    text: str
    position: int


@dataclass(frozen=True)
class Word:
    """A word of a query without punctuation; ``ideographs`` are words without spaces between."""

    text: str
    position: int
    ideographs: bool = False

    @property
    def end(self) -> int:
        """Where it ends in the query."""
        return self.position + len(self.text)


def tokenize(query: str) -> list[Token]:
    """Cut a query into tokens; every character but spaces belongs to one."""
    text = plain(query)
    tokens = []
    position = 0
    while match := _TOKEN.match(text, position):
        kind = str(match.lastgroup)
        tokens.append(Token(kind, query[match.start(kind) : match.end(kind)], match.start(kind)))
        position = match.end()
        if kind == FIELD and (match := _VALUE.match(text, position)):
            kind = str(match.lastgroup)
            start, stop = match.span(kind)
            tokens.append(Token(kind, query[start:stop], start))
            position = match.end()
    return tokens


def words_of(token: Token) -> list[Word]:
    """Return the words in a token: "clip-clop" has two, and Chinese stands apart from letters."""
    found = []
    for match in _WORD.finditer(token.text):
        start = match.start()
        for run in _IDEOGRAPHS.finditer(match[0]):
            at = match.start() + run.start()
            if at > start:
                found.append(Word(token.text[start:at], token.position + start))
            found.append(Word(run[0], token.position + at, ideographs=True))
            start = at + len(run[0])
        if start < match.end():
            found.append(Word(token.text[start : match.end()], token.position + start))
    return found


def label_query(name: str) -> str:
    """Return the query that finds one class or label by its name, which holds no quote."""
    return f'label:"{name}"'
