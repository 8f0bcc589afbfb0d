"""The 527 AudioSet classes: names, mids, aliases, and the ontology above and below them.

A class is one of the 527 that AudioSet labels. The ontology has 632 nodes: the 527 classes, and
105 more that group them ("Human voice") or were left out of the release ("Yawn").

Source: AudioSet's ``class_labels_indices.csv`` (CC BY 4.0) and ``ontology.json`` (CC BY-SA 4.0),
https://research.google.com/audioset/.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from audiosearch.errors import InvalidArgumentError, printable
from audiosearch.storage import resource_path

__all__ = [
    "CLASS_COUNT",
    "Label",
    "Labels",
    "load_labels",
    "name_key",
    "name_problem",
    "normalize",
    "plain",
    "stem",
]

CLASS_COUNT = 527
"""How many classes AudioSet's released labels have."""

# What keyboards of other countries and word processors write, each as the one character it means.
_SAME = str.maketrans("（）“”„«»「」＂：－−–—＞＜＝｜　", '()"""""""":----><=| ')

# Endings that split no meaning: "dogs" is "dog", "barking" is "bark". Longest first.
_ENDINGS = ("ing", "es", "s", "ed")
_SHORTEST_STEM = 3
# Letters that English words end in twice.
_DOUBLED = "aeiouflsz"
# French and Italian articles that lean on their noun: "l'eau" is "eau".
_ELISION = re.compile(r"\b(?:l|d|qu|dell|all|nell|un)['’](?=\w)", re.IGNORECASE)
_APOSTROPHES = str.maketrans("", "", "'’ʼ")
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "hooves": "hoof",
    "knives": "knife",
    "leaves": "leaf",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "wolves": "wolf",
    "women": "woman",
}


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes
    ----------
    index : int
        Its column in AudioSet's score vectors, 0 to 526.
    mid : str
        Its Knowledge Graph id, for example ``/m/0k4j``.
    name : str
        Its display name, for example ``Car``.
    """

    index: int
    mid: str
    name: str


class Labels:
    """The classes and the tree above them.

    Parameters
    ----------
    classes : sequence of (mid, name)
        In the order of the score columns.
    nodes : sequence of (mid, name, child mids)
        The ontology; parents stand for any of their descendants.
    """

    def __init__(
        self,
        classes: Sequence[tuple[str, str]],
        nodes: Sequence[tuple[str, str, Sequence[str]]],
    ) -> None:
        self._labels = tuple(Label(i, mid, name) for i, (mid, name) in enumerate(classes))
        self._by_mid = {label.mid: label for label in self._labels}
        self._children = {mid: tuple(children) for mid, _, children in nodes}
        self._node_names = {mid: name for mid, name, _ in nodes}
        self._nodes_by_name = {normalize(name): mid for mid, name, _ in reversed(nodes)}
        # Of two nodes with one name the class comes first: it has a score.
        self._nodes_by_name |= {
            normalize(label.name): label.mid for label in reversed(self._labels)
        }
        # Every way to write a node: its name, and the parts of the name between commas,
        # without brackets. A full name beats a part, so names are entered first.
        self._nodes_by_text: dict[str, list[str]] = {}
        for mid, name, _ in nodes:
            self._nodes_by_text.setdefault(normalize(name), []).append(mid)
        full_names = set(self._nodes_by_text)
        self.alias_count = 0
        for mid, name, _ in nodes:
            for part in _name_parts(name):
                key = normalize(part)
                if key and key not in full_names:
                    self._nodes_by_text.setdefault(key, []).append(mid)
                    self.alias_count += 1
        self._nodes_by_stem: dict[str, list[str]] = {}
        for key, mids in self._nodes_by_text.items():
            self._nodes_by_stem.setdefault(stem(key), []).extend(mids)

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels)

    def __getitem__(self, index: int) -> Label:
        return self._labels[index]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Display names in the order of the score columns."""
        return tuple(label.name for label in self._labels)

    @functools.cached_property
    def mids(self) -> tuple[str, ...]:
        """Mids in the order of the score columns."""
        return tuple(label.mid for label in self._labels)

    def by_name(self, name: str) -> Label:
        """Return the class with this display name or mid; letter case does not matter.

        Raises
        ------
        InvalidArgumentError
            When no class is called so; the message names the nearest.
        """
        mid = name if name in self._by_mid else self._nodes_by_name.get(normalize(name))
        if mid in self._by_mid:
            return self._by_mid[mid]
        near = ", ".join(self.suggest(name)) or "see `audiosearch classes`"
        raise InvalidArgumentError(f"No class is called '{name}'. Nearest: {near}.")

    def node(self, name: str) -> str | None:
        """Return the mid of the ontology's node with this display name or mid, None if none has."""
        return name if name in self._node_names else self._nodes_by_name.get(normalize(name))

    def node_name(self, mid: str) -> str:
        """Return the display name of a node of the ontology."""
        return self._node_names[mid]

    def nodes(self) -> tuple[str, ...]:
        """Return the mids of all nodes of the ontology, in the order of its file."""
        return tuple(self._node_names)

    def children(self, mid: str) -> tuple[str, ...]:
        """Return the mids of the nodes right below a node of the ontology."""
        return self._children[mid]

    def below(self, mid: str) -> tuple[int, ...]:
        """Return the classes at and below a node of the ontology, its own first."""
        return self._below(mid)

    def named(self, text: str) -> tuple[str, ...]:
        """Return the mids of the nodes with this name or alias, as it stands."""
        return tuple(self._nodes_by_text.get(normalize(text), ()))

    def stemmed(self, text: str) -> tuple[str, ...]:
        """Return the mids of the nodes with a name or alias of the same stem: "dogs", "barking"."""
        return tuple(self._nodes_by_stem.get(stem(normalize(text)), ()))

    def texts(self) -> dict[str, str]:
        """Return every name and alias, normalized, with the mid of its first node."""
        return {key: mids[0] for key, mids in self._nodes_by_text.items()}

    def resolve(self, text: str) -> tuple[int, ...]:
        """Return the classes that a word or phrase stands for: the named ones and all their kinds.

        The text is compared with names and with the parts of names between commas and before
        brackets, as they stand and by stem ("dogs", "barking"). What matched is widened to
        everything below it in the ontology, so "vehicle" gives every kind of vehicle. A name of a
        group that has no score of its own ("human voice") gives the classes below it.

        Parameters
        ----------
        text : str
            A word or a phrase; letter case, accents and punctuation do not matter.

        Returns
        -------
        tuple of int
            Class indices, those that were named first; empty when nothing matches.
        """
        key = normalize(text)
        if not key:
            return ()
        mids = self.named(text) + self.stemmed(text)
        found: dict[int, None] = {}
        for mid in mids:
            if mid in self._by_mid:
                found[self._by_mid[mid].index] = None
        for mid in mids:
            for index in self._below(mid):
                found[index] = None
        return tuple(found)

    def descendants(self, index: int) -> tuple[int, ...]:
        """Return the classes below class `index` in the ontology, itself not included."""
        return tuple(i for i in self._below(self._labels[index].mid) if i != index)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the different sets of two classes or more that a node of the ontology stands for.

        Each set is sorted; the sets stand in the order of the ontology's file.
        """
        sets = (tuple(sorted(self._below(mid))) for mid in self._node_names)
        return tuple(dict.fromkeys(classes for classes in sets if len(classes) > 1))

    def suggest(self, text: str, *, count: int = 5) -> list[str]:
        """Return the display names that are nearest to `text` in spelling, best first."""
        from rapidfuzz import fuzz, process, utils

        choices = self.texts()
        found = process.extract(
            normalize(text),
            list(choices),
            scorer=fuzz.WRatio,
            processor=utils.default_process,
            limit=4 * count,
            score_cutoff=60,
        )
        names = dict.fromkeys(self._node_names[choices[key]] for key, _, _ in found)
        return list(names)[:count]

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - one long-lived instance a process
    def _below(self, mid: str) -> tuple[int, ...]:
        """Return the class indices at and below a node, nearest first; nodes may be shared."""
        found: dict[int, None] = {}
        seen = set()
        queue = [mid]
        while queue:
            current = queue.pop(0)
            if current in seen:
                continue
            seen.add(current)
            if current in self._by_mid:
                found[self._by_mid[current].index] = None
            queue.extend(self._children.get(current, ()))
        return tuple(found)


def plain(text: str) -> str:
    """Return a text with the usual brackets, quotes and signs; its length stays."""
    return text.translate(_SAME)


def name_problem(names: Iterable[str]) -> str | None:
    """Return why classes of the user's own cannot be told apart in queries; None where they can."""
    known: dict[str, str] = {}
    for name in names:
        if '"' in plain(name):
            return (
                f"The class {printable(name)} holds a quotation mark, in which queries put names. "
                "Give it a name without one"
            )
        other = known.setdefault(name_key(name), name)
        if other != name:
            return (
                f"The classes '{printable(other)}' and '{printable(name)}' are one in a query. "
                "Give one of them another name"
            )
    return None


def name_key(name: str) -> str:
    """Return the form in which names that users gave (own classes, own labels) are compared."""
    return " ".join(name.split()).casefold()


def normalize(text: str) -> str:
    """Return `text` in the form in which names are compared.

    Lower case, no accents, no punctuation, single spaces: "Beep, bleep" gives "beep bleep". An
    apostrophe joins ("dentist's" gives "dentists") but for French and Italian articles: "l'eau"
    gives "eau".
    """
    if "'" in text or "’" in text or "ʼ" in text:
        text = _ELISION.sub(" ", text).translate(_APOSTROPHES)
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        text = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


@functools.cache
def load_labels() -> Labels:
    """Return AudioSet's classes and ontology, read once from the bundled data file."""
    path = resource_path("audiosearch.data", "audioset.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    return Labels(data["classes"], data["nodes"])


def _name_parts(name: str) -> list[str]:
    """Split a name at commas, without what is in brackets: "Gunshot, gunfire" gives two parts."""
    outside = re.sub(r"\([^)]*\)", " ", name)
    parts = [part.strip() for part in outside.split(",")]
    return [part for part in parts if part and part != name]


def stem(key: str) -> str:
    """Return a normalized text with the common English endings of each word cut off."""
    return " ".join(_stem_word(word) for word in key.split())


@functools.lru_cache(maxsize=65536)
def _stem_word(word: str) -> str:
    if not word.isascii():
        return word
    word = _IRREGULAR.get(word, word)
    for ending in _ENDINGS:
        if ending == "s" and word.endswith("ss"):  # "hiss" is no plural
            continue
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            word = word[: -len(ending)]
            # "drumming" is "drum", but "buzzing" is "buzz".
            if len(word) > _SHORTEST_STEM and word[-1] == word[-2] and word[-1] not in _DOUBLED:
                word = word[:-1]
            break
    if word.endswith("e") and len(word) > _SHORTEST_STEM:
        word = word[:-1]
    # "cry", "cries", "crying"; "fly", "flies".
    return word[:-1] + "i" if word.endswith("y") and len(word) >= _SHORTEST_STEM else word
