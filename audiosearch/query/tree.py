"""What a query means, as a tree: sounds, facts about recordings, and how they are joined.

Sounds are `Term`; `Not`, `All` and `Either` join. The other leaves are filters: they say nothing
about what is heard, and a library turns them into "holds" or "does not hold" for every recording
before it ranks. A `ScoreFilter` is about the finished score, so it stands only beside everything
else: at the top, or in an `All` at the top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

__all__ = [
    "All",
    "Confirmed",
    "DurationFilter",
    "Either",
    "Filter",
    "Group",
    "Node",
    "Not",
    "OwnLabel",
    "PathFilter",
    "Range",
    "ScoreFilter",
    "Term",
    "YearFilter",
]


@dataclass(frozen=True)
class Group:
    """One meaning of a term: a node of the ontology and the classes that it stands for.

    Attributes
    ----------
    mid, name : str
        The node.
    classes : tuple of int
        Its own class first, if it has one, then those below it; the one class where `exact`.
    weight : float
        From 0 to 1; 1 for what the user named, less for a weaker meaning out of a thesaurus.
    how : str
        How it was found: ``"label"``, ``"mid"``, ``"name"`` (or alias), ``"stem"`` or
        ``"thesaurus"``.
    """

    mid: str
    name: str
    classes: tuple[int, ...]
    weight: float = 1.0
    how: str = "name"

    @property
    def exact(self) -> bool:
        """Whether it is one class without its kinds."""
        return self.how == "label"


@dataclass(frozen=True)
class Term:
    """Something to be heard: what the user wrote, and its meanings, any of which matches."""

    text: str
    groups: tuple[Group, ...]

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes of all groups; those that the user named stand before their kinds."""
        named = [group.classes[0] for group in self.groups]
        return tuple(dict.fromkeys([*named, *(i for g in self.groups for i in g.classes)]))

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The weight of each of `classes`: the highest of the groups that it is in."""
        weights: dict[int, float] = {}
        for group in self.groups:
            for index in group.classes:
                weights[index] = max(weights.get(index, 0.0), group.weight)
        return tuple(weights[index] for index in self.classes)


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an open end does not belong to it."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True)
class PathFilter:
    """Holds for recordings whose path, as hits show it, has this in it.

    Letter case and the kind of slash do not matter. With ``*`` or ``?`` the text is a pattern for
    the end of the path, beginning at a folder's or the file's name: ``*.mp3``, ``holiday/*``.
    """

    text: str


@dataclass(frozen=True)
class DurationFilter:
    """Holds for recordings of this length, in seconds."""

    seconds: Range


@dataclass(frozen=True)
class YearFilter:
    """Holds for sound files that were last changed in one of these years, UTC."""

    years: Range


@dataclass(frozen=True)
class ScoreFilter:
    """Holds for clips whose score for the whole query lies in this range."""

    score: Range


@dataclass(frozen=True)
class Confirmed:
    """Holds for clips for which a user confirmed a label.

    `term` says which: a class or one of its kinds, or an own label; any label where it is None.
    """

    text: str
    term: Term | OwnLabel | None


@dataclass(frozen=True)
class OwnLabel:
    """Holds for clips to which a user gave this label, which is no class of AudioSet."""

    name: str


@dataclass(frozen=True)
class Not:
    """Matches what its part does not."""

    part: Node


@dataclass(frozen=True)
class All:
    """Matches what every part does."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """Matches what one part does, or several."""

    parts: tuple[Node, ...]


Filter: TypeAlias = PathFilter | DurationFilter | YearFilter | ScoreFilter | Confirmed | OwnLabel
Node: TypeAlias = Term | Not | All | Either | Filter
