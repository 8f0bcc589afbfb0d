"""What is in a library and what made it, in numbers and names."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from audiosearch.errors import printable
from audiosearch.library.index_building import auto_factory
from audiosearch.library.index_files import read_index_facts
from audiosearch.library.manifest import iso_time
from audiosearch.library.segments import Segment

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["LibraryInfo", "library_info"]


@dataclass(frozen=True)
class LibraryInfo:
    """What is in a library and what made it; `created` and `updated` are ISO 8601, UTC.

    `vector_index` is FAISS's factory string, and `recall_at_10` the measured share of the true
    neighbours that it finds; None while every vector is compared. `scores_only` names the own
    classifiers of which the library has what they heard, and not the classifiers; `unheard_clips`
    counts clips that not all of its own classifiers have heard.
    """

    folder: str
    format: int
    version: str
    recordings: int
    clips: int
    seconds: float
    skipped: int
    embedder: str
    embedder_hash: str | None
    mixed_with: list[str]
    classifier: str
    classifier_hash: str
    own_classifiers: list[str]
    own_classifier_hashes: list[str]
    scores_only: list[str]
    own_classes: list[str]
    unheard_clips: int
    created: str
    updated: str | None
    segments: int
    vector_index: str
    recall_at_10: float | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def library_info(library: Library) -> LibraryInfo:
    """Say what is in a library and what made it."""
    recordings, clips, seconds, updated = library.catalogue.totals()
    size = 0
    for path in [*library.folder.iterdir(), *library.folder.glob("own-*/*")]:
        # Another process may be writing, and its journal comes and goes.
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    now, own = library.snapshot(), library.own
    facts = read_index_facts(library.folder, now.lengths["neighbours"])
    return LibraryInfo(
        folder=printable(str(library.folder)),
        format=library.manifest["format_version"],
        version=library.manifest["audiosearch"],
        recordings=recordings,
        clips=clips,
        seconds=round(seconds, 3),
        skipped=library.catalogue.skipped_count(),
        embedder=library.manifest["embedder"]["name"],
        embedder_hash=library.manifest["embedder"]["sha256"],
        mixed_with=[model["name"] for model in library.manifest.get("mixed_with", [])],
        classifier=library.manifest["classifier"]["name"],
        classifier_hash=library.manifest["classifier"]["sha256"],
        own_classifiers=[each.name for each in own.classifiers],
        own_classifier_hashes=[each.sha256 for each in own.classifiers],
        scores_only=[each.name for each in own.classifiers if each.scores_only],
        own_classes=list(own.names),
        unheard_clips=own.unheard(now),
        created=library.manifest["created"],
        updated=None if updated is None else iso_time(updated),
        segments=sum(isinstance(part.block, Segment) for part in now.parts),
        vector_index=facts.factory if facts else auto_factory(0),
        recall_at_10=facts.recall_at_10 if facts else None,
        bytes=size,
    )
