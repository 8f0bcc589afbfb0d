"""What a word or phrase stands for: names, aliases, stems, the thesaurus, the ontology below.

The first that knows the text gives its meanings:

1. the user's own thesaurus;
2. names and aliases, as they stand and by stem, with what the English thesaurus adds;
3. the thesaurus of other languages;
4. names and the English thesaurus by stem alone ("puppies").

So English wins where languages collide ("chat"), and a user over everybody.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from audiosearch.errors import InvalidArgumentError
from audiosearch.labels import CLASS_COUNT, Labels, load_labels, name_key, normalize
from audiosearch.query.thesaurus import Sense, Thesaurus, load_thesaurus
from audiosearch.query.tokens import label_query
from audiosearch.query.tree import Group, Term

__all__ = ["Completion", "Vocabulary", "load_vocabulary"]

_LEAST_ALIKE = 72.0


@dataclass(frozen=True)
class Completion:
    """A text that can be searched for, and the first class or group that it stands for.

    `own` tells a class or label of the user's own.
    """

    text: str
    label: str
    own: bool = False


class Vocabulary:
    """All words that a query may use.

    Parameters
    ----------
    labels : Labels, optional
        The classes; AudioSet's where None.
    own_words : Thesaurus, optional
        The user's own thesaurus.
    own_labels : iterable of str
        Labels of the user's that are no classes.
    own_classes : sequence of str
        Classes of the user's own; the first is class 527.
    """

    def __init__(
        self,
        labels: Labels | None = None,
        *,
        own_words: Thesaurus | None = None,
        own_labels: Iterable[str] = (),
        own_classes: Sequence[str] = (),
    ) -> None:
        self.labels = labels or load_labels()
        self._own_words = own_words or Thesaurus()
        self._english, self._others = load_thesaurus()
        names = list({name_key(name): name for name in (*own_labels, *own_classes)}.values())
        self._own_classes = {
            name_key(name): Group("", name, (CLASS_COUNT + number,), how="label")
            for number, name in enumerate(own_classes)
        }
        self._own_class_words = {
            normalize(group.name): group for group in reversed(self._own_classes.values())
        }
        # As they stand, and as words are compared: "C++" is not "C", but found by "my-machine".
        self._own_labels = {normalize(name): name for name in reversed(names)}
        self._own_labels |= {" ".join(name.split()).casefold(): name for name in names}
        self._own_names = names

    def find(self, text: str) -> tuple[Group, ...]:
        """Return what a word or phrase stands for, what is named before what is meant weakly.

        Letter case, accents and punctuation do not matter. Empty where it stands for nothing.
        """
        if text.startswith("/"):
            node = self.labels.node(text)
            return self._groups([(node, 1.0, "mid")]) if node else ()
        key = normalize(text)
        if not key:
            return ()
        if own := self._own_words.exact(key):
            return self._groups(_senses(own))
        named = [(mid, 1.0, "name") for mid in self.labels.named(key)]
        stems = [(mid, 1.0, "stem") for mid in self.labels.stemmed(key)]
        english = _senses(self._english.exact(key))
        for found in (
            [*named, *(stems if named else ()), *english],
            [*_senses(self._others.exact(key))],
            [*_senses(self._own_words.stemmed(key))],
            [*stems, *_senses(self._english.stemmed(key))],
        ):
            if groups := self._groups(found):
                return groups
        return ()

    def term(self, text: str) -> Term | None:
        """Return the term that a word or phrase is, None where it stands for nothing."""
        groups = self.find(text)
        own = self._own_class_words.get(normalize(text) or text)
        if own is not None:
            groups = (own, *groups)
        return Term(text, groups) if groups else None

    def label(self, name: str) -> Term | None:
        """Return the term for one class alone, by display name or mid; None if there is none.

        A class of the user's own comes before one of AudioSet's that is called alike.
        """
        own = self._own_classes.get(name_key(name))
        if own is not None:
            return Term(own.name, (own,))
        try:
            label = self.labels.by_name(name)
        except InvalidArgumentError:
            return None
        return Term(label.name, (Group(label.mid, label.name, (label.index,), how="label"),))

    def is_own_class(self, name: str) -> bool:
        """Tell whether a name is that of a class of the user's own."""
        return name_key(name) in self._own_classes

    def own_label(self, name: str) -> str | None:
        """Return a label of the user's as it was given, None where there is none of this name."""
        exact = self._own_labels.get(" ".join(name.split()).casefold())
        return exact or self._own_labels.get(normalize(name) or name)

    @functools.cached_property
    def longest(self) -> int:
        """How many words the longest name or phrase has."""
        sources: tuple[Iterable[str], ...] = (
            *(self.labels.texts(), self._own_words, self._english, self._others),
            self._own_labels,
        )
        return 1 + max(key.count(" ") for source in sources for key in source)

    def suggest(self, text: str, *, count: int = 5) -> list[str]:
        """Return what the user may have meant, best first; every one can be searched for.

        Names and words that are spelt alike, with the class that such a word stands for; then
        names and words that begin with the text, or with a word of it.
        """
        from rapidfuzz import fuzz, process

        key = normalize(text)[:100]
        if not key:
            return []
        alike = process.extract(
            key, list(self._texts), scorer=fuzz.ratio, limit=8 * count, score_cutoff=_LEAST_ALIKE
        )
        alike.sort(key=lambda item: -item[1] - self._nearness(item[0]))
        found: dict[str, None] = {}
        labels = set()
        for near, _, _ in alike:
            completion = self._texts[near]
            if completion.label not in labels:  # one word a class, not all its forms
                labels.add(completion.label)
                found[completion.text] = None
                if completion.label not in self._own_names:  # that alone is no word
                    found[completion.label] = None
        if len(found) < count and len(key) > 2:
            found |= dict.fromkeys(
                completion.text
                for near, completion in self._texts.items()
                if f" {key}" in f" {near}"
            )
        if not found:
            # Not one word of it need be unknown: "electric oboe".
            words = [word for word in key.split() if len(word) > 2] if " " in key else []
            for word in words:
                found |= dict.fromkeys(group.name for group in self.find(word)[:1])
        return list(found)[:count]

    def suggest_labels(self, text: str, *, count: int = 5) -> list[str]:
        """Return the classes and labels of the user's whose names are most like a text."""
        from rapidfuzz import fuzz, process

        known = [key for key in self._own_labels if key]
        own = process.extract(
            text.casefold(), known, scorer=fuzz.WRatio, limit=count, score_cutoff=_LEAST_ALIKE
        )
        names = [self._own_labels[key] for key, _, _ in own]
        names += [name for name in self.suggest(text, count=20) if self.label(name) is not None]
        return list(dict.fromkeys(names))[:count]

    def complete(self, text: str, *, count: int = 10) -> list[Completion]:
        """Return names and words that begin with `text`, or have a word that does; short first."""
        key = normalize(text)
        if not key:
            return []
        near = [known for known in self._texts if f" {key}" in f" {known}"]
        names = {k: k.removeprefix("label ") if self._texts[k].own else k for k in near}
        near.sort(key=lambda known: (not names[known].startswith(key), len(known), known))
        return [self._texts[known] for known in near[:count]]

    @functools.cached_property
    def _texts(self) -> dict[str, Completion]:
        """Every text that can be searched for, normalized, as it is shown."""
        texts: dict[str, Completion] = {}
        name = self.labels.node_name
        for words in (self._others, self._english):
            for key in words:
                texts[key] = Completion(words.spelt(key), name(words.exact(key)[0].mid))
        for key, mid in self.labels.texts().items():
            if self.labels.below(mid):
                texts[key] = Completion(name(mid), name(mid))
        for key in self._own_words:
            spelt, senses = self._own_words.spelt(key), self._own_words.exact(key)
            texts[key] = Completion(spelt, name(senses[0].mid))
        for own in self._own_names:
            key = normalize(own) or own.casefold()
            # A word that finds a class goes on to do so.
            key = f"label {key}" if key in texts else key
            texts[key] = Completion(label_query(own), own, own=True)
        return texts

    def _nearness(self, key: str) -> float:
        """Return how much more likely a word is meant than one that is spelt as much alike."""
        if key in self._own_words or self._texts[key].text == self._texts[key].label:
            return 10.0
        return 5.0 if key in self._english else 0.0

    def _groups(self, found: Iterable[tuple[str, float, str]]) -> tuple[Group, ...]:
        """Return the groups of nodes, each once, strong ones first."""
        groups: dict[str, Group] = {}
        for mid, weight, how in sorted(found, key=lambda item: -item[1]):
            classes = self.labels.below(mid)
            if classes and mid not in groups:
                groups[mid] = Group(mid, self.labels.node_name(mid), classes, weight, how)
        return tuple(groups.values())


@functools.cache
def load_vocabulary() -> Vocabulary:
    """Return the vocabulary without any words of a user, made once."""
    return Vocabulary()


def _senses(senses: Iterable[Sense]) -> Iterator[tuple[str, float, str]]:
    for sense in senses:
        yield sense.mid, sense.weight, "thesaurus"
