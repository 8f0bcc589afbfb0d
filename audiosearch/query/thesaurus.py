"""Everyday words and the classes that they mean, ours and a user's own.

Ours is ``audiosearch/data/thesaurus.json``: one table a language, each entry one or several words
and one or several classes::

    "puppy, pup, doggy": ["Dog"],
    "kettle": ["Boiling", "~Whistle"]

A class is its display name, a group of the ontology, or a mid; ``~`` marks a weaker meaning. A
user's ``thesaurus.toml`` has the same entries as ``"puppy, pup" = "Dog"``, in tables or not.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosearch.errors import DataError, printable
from audiosearch.labels import Labels, load_labels, normalize, stem
from audiosearch.storage import resource_path

__all__ = ["THESAURUS", "Sense", "Thesaurus", "load_fillers", "load_thesaurus", "read_thesaurus"]

THESAURUS = "thesaurus.toml"
"""Name of a user's thesaurus in the folder of a library."""

WEAK = 0.5
"""Weight of a meaning that is marked with ``~``."""

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})


@dataclass(frozen=True)
class Sense:
    """One meaning of a word: a node of the ontology, and how strongly it is meant (0 to 1)."""

    mid: str
    weight: float = 1.0


class Thesaurus:
    """Words and their meanings.

    Parameters
    ----------
    entries : iterable of (str, sequence of Sense)
        Words and phrases as they are written; the meanings of one that comes again are added.
    """

    def __init__(self, entries: Iterable[tuple[str, tuple[Sense, ...]]] = ()) -> None:
        self._words: dict[str, tuple[Sense, ...]] = {}
        self._spelt: dict[str, str] = {}
        for word, senses in entries:
            key = normalize(word)
            if key in self._words:
                senses = tuple(dict.fromkeys(self._words[key] + senses))
            self._words[key] = senses
            self._spelt.setdefault(key, word)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, key: object) -> bool:
        return key in self._words

    def __iter__(self) -> Iterator[str]:
        """Iterate over the words and phrases, normalized."""
        return iter(self._words)

    def spelt(self, key: str) -> str:
        """Return a normalized word as it was written."""
        return self._spelt[key]

    def exact(self, text: str) -> tuple[Sense, ...]:
        """Return the meanings of a word or phrase as it stands; none where it is not known."""
        return self._words.get(normalize(text), ())

    def stemmed(self, text: str) -> tuple[Sense, ...]:
        """Return the meanings of the words with the same stem: "puppies" is "puppy"."""
        return self._by_stem.get(stem(normalize(text)), ())

    @functools.cached_property
    def _by_stem(self) -> dict[str, tuple[Sense, ...]]:
        found: dict[str, tuple[Sense, ...]] = {}
        for word, senses in self._words.items():
            key = stem(word)
            found[key] = tuple(dict.fromkeys(found.get(key, ()) + senses))
        return found


@functools.cache
def load_fillers() -> frozenset[str]:
    """Return the words, normalized, that say nothing about a sound: articles, "sound", "and"."""
    lists = _bundled()["fillers"].values()
    return frozenset(normalize(word) for words in lists for word in words.split())


@functools.cache
def load_thesaurus() -> tuple[Thesaurus, Thesaurus]:
    """Return the bundled thesaurus, read once: English, and all other languages together."""
    tables = _bundled()["words"]
    labels = load_labels()
    english = Thesaurus((word, senses) for _, word, senses in _entries(tables["en"], labels))
    others = Thesaurus(
        (word, senses)
        for language in tables.keys() - {"en"}
        for _, word, senses in _entries(tables[language], labels, umlauts=language == "de")
    )
    return english, others


def read_thesaurus(path: Path, *, labels: Labels | None = None) -> Thesaurus:
    """Read a user's own thesaurus.

    Parameters
    ----------
    path : Path
        A TOML file; a file that does not exist is an empty thesaurus.
    labels : Labels, optional
        The classes; AudioSet's where None.

    Raises
    ------
    DataError
        When it is no TOML or an entry names no class; the message gives the line.
    """
    name = printable(str(path))
    try:
        # Some editors begin UTF-8 with a mark.
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Thesaurus()
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise DataError(
            f"{name}, line {line}: this is no UTF-8. Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = re.search(r"\(at line (\d+), column \d+\)", str(error))
        at = f", line {where[1]}" if where else ""
        reason = re.sub(r" *\(at [^)]*\)", "", str(error))
        raise DataError(
            f'{name}{at}: {reason}. An entry is written like this: "puppy, pup" = "Dog"'
        ) from error
    seen: set[str] = set()
    entries: list[tuple[str, tuple[Sense, ...]]] = []
    try:
        for table in _tables(content):
            for key, word, senses in _entries(table, labels or load_labels()):
                if normalize(word) in seen:
                    raise _EntryError(
                        key, f"'{word}' is entered twice. Give all its classes in one entry."
                    )
                seen.add(normalize(word))
                entries.append((word, senses))
    except _EntryError as error:
        raise DataError(f"{name}{_line_of(text, error.key)}: {error}") from error
    return Thesaurus(entries)


@functools.cache
def _bundled() -> dict[str, dict[str, Any]]:
    path = resource_path("audiosearch.data", "thesaurus.json")
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


class _EntryError(ValueError):
    """An entry says nothing that can be used."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


def _tables(content: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the entries of a TOML file, and of every table in it."""
    yield {key: value for key, value in content.items() if not isinstance(value, dict)}
    for value in content.values():
        if isinstance(value, dict):
            yield from _tables(value)


def _entries(
    table: Mapping[str, object], labels: Labels, *, umlauts: bool = False
) -> Iterator[tuple[str, str, tuple[Sense, ...]]]:
    """Yield for every word of every entry the entry's key, the word, and its meanings."""
    known: dict[str, Sense] = {}
    for key, value in table.items():
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or any(type(n) is not str for n in names):
            raise _EntryError(
                key, f'\'{key}\' must be a class or a list of classes, such as ["Dog", "Bark"].'
            )
        for name in names:
            if name not in known:
                known[name] = _sense(key, name, labels)
        senses = tuple(dict.fromkeys(known[name] for name in names))
        words = [word.strip() for word in key.split(",")]
        if umlauts:  # German keyboards are not everywhere
            words += [spelt for word in words if (spelt := word.translate(_UMLAUTS)) != word]
        for word in words:
            if not normalize(word):
                raise _EntryError(key, f"'{key}' holds no word, or an empty one between commas.")
            yield key, word, senses


def _sense(key: str, name: str, labels: Labels) -> Sense:
    weight = WEAK if name.startswith("~") else 1.0
    mid = labels.node(name.removeprefix("~").strip())
    if mid is None:
        near = ", ".join(f'"{near}"' for near in labels.suggest(name, count=3))
        raise _EntryError(
            key,
            f"'{key}' names the class '{name}', which there is not. "
            + (f"Nearest: {near}." if near else "See `audiosearch classes`."),
        )
    if not labels.below(mid):
        raise _EntryError(key, f"'{key}': '{name}' is a group without any class that is scored.")
    return Sense(mid, weight)


def _line_of(text: str, key: str) -> str:
    """Return ", line N" where `key` is entered; nothing where it is written with escapes."""
    wanted = re.compile(rf"""\s*(?:[\w\s"'.-]+\.\s*)?["']?{re.escape(key)}["']?\s*=""")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if wanted.match(line)]
    # An entry that is wrong for being the second is the last.
    return f", line {lines[-1]}" if lines else ""
