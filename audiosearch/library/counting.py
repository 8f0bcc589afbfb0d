"""How much of each class and group a library holds: what a search for it would find."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from audiosearch.labels import CLASS_COUNT, Labels, load_labels
from audiosearch.library.own_classes import OwnClasses
from audiosearch.library.ranking import rank
from audiosearch.library.snapshot import Snapshot
from audiosearch.query import Group, Term

__all__ = ["ClassCount", "count_classes"]


@dataclass(frozen=True)
class ClassCount:
    """A class, and what a library holds of it and of what is below it in the ontology.

    Attributes
    ----------
    mid, label : str
        Its id, empty for a class of the user's own, and its name.
    index : int or None
        Its number, that of its column in score vectors; None of a group that AudioSet did not
        label. Classes of the user's own follow AudioSet's.
    children : tuple of str
        The mids of the nodes right below it.
    recordings, clips : int
        How many recordings, and how many clips, a search for it finds.
    own_classifier : str or None
        The classifier of a class of the user's own; None for AudioSet's.
    """

    mid: str
    label: str
    index: int | None
    children: tuple[str, ...]
    recordings: int
    clips: int
    own_classifier: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {**asdict(self), "children": list(self.children)}


def count_classes(now: Snapshot, own: OwnClasses) -> list[ClassCount]:
    """Count the classes and groups of a snapshot: the ontology's in their order, then the own ones.

    It takes some milliseconds: how often each score occurs is stored for each class and group.
    """
    labels = load_labels()
    index = {label.mid: label.index for label in labels}
    counts = [_counted(now, labels, mid, index.get(mid)) for mid in labels.nodes()]
    for number, name in enumerate(now.own, CLASS_COUNT):
        page = rank(Term(name, (Group("", name, (number,)),)), now.parts, offset=0, limit=0)
        found = page.total, page.total_clips
        counts.append(ClassCount("", name, number, (), *found, own.classifier_of(name)))
    return counts


def _counted(now: Snapshot, labels: Labels, mid: str, index: int | None) -> ClassCount:
    name, classes = labels.node_name(mid), labels.below(mid)
    recordings = clips = 0
    if classes:
        term = Term(name, (Group(mid, name, classes),))
        page = rank(term, now.parts, offset=0, limit=0)
        recordings, clips = page.total, page.total_clips
    return ClassCount(mid, name, index, labels.children(mid), recordings, clips)
