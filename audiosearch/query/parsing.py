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

import functools
from typing import NoReturn

from audiosearch.errors import QueryError
from audiosearch.query.leaves import EXAMPLES, FIELDS, Item, read_items
from audiosearch.query.tree import All, Either, Node, Not, ScoreFilter, Term
from audiosearch.query.vocabulary import Vocabulary, load_vocabulary

__all__ = ["MAX_LENGTH", "parse"]

MAX_LENGTH = 1000
"""How many characters a query may have."""

MAX_DEPTH = 40


def parse(query: str, *, vocabulary: Vocabulary | None = None, narrows: bool = False) -> Node:
    """Parse a query.

    Parameters
    ----------
    query : str
        What the user wrote, at most `MAX_LENGTH` characters.
    vocabulary : Vocabulary, optional
        What words stand for; without any words of a user where None.
    narrows : bool
        Whether it only narrows what is found and ordered otherwise. Then it may do nothing but
        leave out.

    Returns
    -------
    Node
        The tree; something in it is asked for, not only left out, unless it narrows.

    Raises
    ------
    QueryError
        When it is empty, cannot be parsed, holds an unknown word or field, or only leaves out.

    Examples
    --------
    >>> [group.name for group in parse("puppy").groups]
    ['Dog']
    >>> type(parse("car -music")).__name__
    'All'
    """
    return _parsed(query, vocabulary or load_vocabulary(), narrows)


@functools.lru_cache(maxsize=256)  # a tree depends on these alone, and never changes
def _parsed(query: str, vocabulary: Vocabulary, narrows: bool) -> Node:
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
    items = read_items(query, vocabulary)
    if not items:
        raise QueryError("There is no word in the query. Try: Car", query=query)
    return _Parser(query, items, narrows=narrows).parse()


def _display_name(text: str, vocabulary: Vocabulary) -> Term | None:
    mid = vocabulary.labels.node(text)
    if mid is None or vocabulary.labels.node_name(mid).casefold() != text.casefold():
        return None
    return vocabulary.term(text)


class _Parser:
    """Recursive descent over the items."""

    def __init__(self, query: str, items: list[Item], *, narrows: bool) -> None:
        self._narrows = narrows
        self._query = query
        self._items = items
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._either()
        item = self._peek()
        if item is not None:
            self._fail(f"This bracket closes nothing. Try: {EXAMPLES['brackets']}", item)
        self._check_scores(node)
        if not (self._narrows or _asks(node)):
            raise QueryError(
                "The query only says what to leave out. Add what to look for. Try: "
                f"{EXAMPLES['not']}",
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

    def _all(self, *, after: Item | None = None) -> Node:
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
                self._fail(f"This bracket closes nothing. Try: {EXAMPLES['brackets']}", item)
            opening = self._items[self._next - 1]
            self._fail(f"There is nothing in the brackets. Try: {EXAMPLES['brackets']}", opening)
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

    def _negated(self, minus: Item) -> Node:
        item = self._peek()
        if item is None or item.kind not in ("leaf", "open", "minus"):
            self._fail(f"Nothing follows to leave out. Try: {EXAMPLES['not']}", minus)
        self._deeper(minus)
        node = Not(self._part())
        self._depth -= 1
        return node

    def _bracket(self, opening: Item) -> Node:
        if self._peek() is None:
            self._fail(f"This bracket is not closed. Try: {EXAMPLES['brackets']}", opening)
        self._deeper(opening)
        node = self._either()
        self._depth -= 1
        if self._peek() is None:
            self._fail(f"This bracket is not closed. Try: {EXAMPLES['brackets']}", opening)
        self._next += 1
        return node

    def _check_scores(self, node: Node) -> None:
        """Refuse conditions on the score that are not about the whole query."""
        top = node.parts if isinstance(node, All) else ()
        for item in self._items:
            if not isinstance(item.leaf, ScoreFilter):
                continue
            if node is item.leaf and self._narrows:
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

    def _peek(self) -> Item | None:
        return self._items[self._next] if self._next < len(self._items) else None

    def _deeper(self, item: Item) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(
                f"The query is nested more than {MAX_DEPTH} deep. Write it flatter. Try: "
                f"{EXAMPLES['brackets']}",
                item,
            )

    def _lacks_side(self, operator: str, item: Item) -> NoReturn:
        self._fail(
            f"{operator} needs something on both sides. Try: {EXAMPLES[operator.lower()]}", item
        )

    def _fail(self, message: str, item: Item) -> NoReturn:
        raise QueryError(message, query=self._query, position=item.position)


def _asks(node: Node) -> bool:
    """Tell whether something must hold for a clip to match, beside what must not."""
    if isinstance(node, All):
        return any(_asks(part) for part in node.parts)
    if isinstance(node, Either):
        return all(_asks(part) for part in node.parts)
    return not isinstance(node, Not | ScoreFilter)
