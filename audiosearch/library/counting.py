"""How much of each class and group a library holds: what a search for its name would find."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from audiosearch.labels import Labels, load_labels
from audiosearch.library.ranking import rank
from audiosearch.library.snapshot import Snapshot
from audiosearch.query import Group, Term

__all__ = ["ClassCount", "count_classes"]


@dataclass(frozen=True)
class ClassCount:
    """A node of the ontology, and what a library holds of it and of what is below.

    Attributes
    ----------
    mid, label : str
        Its id and its name.
    index : int or None
        Its column in score vectors; None of a group that AudioSet did not label.
    children : tuple of str
        The mids of the nodes right below it.
    recordings, clips : int
        How many recordings, and how many clips, a search for it finds.
    """

    mid: str
    label: str
    index: int | None
    children: tuple[str, ...]
    recordings: int
    clips: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {**asdict(self), "children": list(self.children)}


def count_classes(now: Snapshot) -> list[ClassCount]:
    """Count the classes and groups of a snapshot, in the order of the ontology's file.

    It takes some milliseconds: how often each score occurs is stored for each class and group.
    """
    labels = load_labels()
    index = {label.mid: label.index for label in labels}
    return [_counted(now, labels, mid, index.get(mid)) for mid in labels.nodes()]


def _counted(now: Snapshot, labels: Labels, mid: str, index: int | None) -> ClassCount:
    name, classes = labels.node_name(mid), labels.below(mid)
    recordings = clips = 0
    if classes:
        term = Term(name, (Group(mid, name, classes),))
        page = rank(term, now.parts, offset=0, limit=0)
        recordings, clips = page.total, page.total_clips
    return ClassCount(mid, name, index, labels.children(mid), recordings, clips)
