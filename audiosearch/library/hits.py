"""What a search returns, and the one serializer for all of it.

The CLI's ``--json``, the ``.json`` pages and the HTTP API print what ``to_dict`` returns.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "Clip",
    "Correction",
    "Hit",
    "Moment",
    "Reason",
    "SearchResult",
    "Span",
    "Tag",
    "UserLabel",
    "tags_to_dicts",
]


@dataclass(frozen=True)
class Tag:
    """A class and its score, a number from 0 to 1 that grows with certainty (no probability)."""

    label: str
    mid: str
    score: float


@dataclass(frozen=True)
class Span:
    """A stretch of time in a recording, in seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class Moment:
    """One more clip of a hit's recording that matches too; times in seconds."""

    clip: int
    start: float
    end: float
    score: float
    label: str


@dataclass(frozen=True)
class Correction:
    """What a user said of a label, in a stretch of a recording; times in seconds, as a hit's.

    Attributes
    ----------
    label : str
        A class, or a label of the user's own.
    mid : str or None
        The class's id in AudioSet; None for a label of the user's own.
    verdict : str
        ``"confirmed"`` or ``"rejected"``.
    start, end : float
        Where.
    """

    label: str
    mid: str | None
    verdict: str
    start: float
    end: float


@dataclass(frozen=True)
class UserLabel:
    """One label of the user's, as `Library.labels` lists them.

    Attributes
    ----------
    recording, source : str
        As a hit names them.
    recording_id : int
        Its number in the library.
    clip : int
        The first clip that the stretch lies in.
    label, mid, verdict, start, end
        As those of a `Correction`.
    """

    recording: str
    source: str
    recording_id: int
    clip: int
    label: str
    mid: str | None
    verdict: str
    start: float
    end: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return _rounded(asdict(self))


@dataclass(frozen=True)
class Reason:
    """What a clip's scores say of one term of a query.

    Attributes
    ----------
    term : str
        The term as the user wrote it.
    score : float
        How surely it is heard, from 0 to 1.
    excluded : bool
        Whether the query leaves it out.
    classes : list of Tag
        The classes that gave the score, best first, at most three; of a term that is left out the
        class that it names.
    """

    term: str
    score: float
    excluded: bool
    classes: list[Tag]

    def __str__(self) -> str:
        if self.excluded:
            return f"not {self.term} {self.score:.2f}"
        return ", ".join(f"{tag.label} {tag.score:.2f}" for tag in self.classes)


@dataclass(frozen=True)
class Hit:
    """One recording that matches, with its best clip at the top level.

    Attributes
    ----------
    recording : str
        Path of the file as it was indexed, or the id of a packed row: AudioSet's is a YouTube id.
    source : str
        ``"file"``, ``"audioset"``, or ``"packed"`` for a row of another packed file.
    recording_id, clip : int
        Ids in the library.
    start, end : float
        Where the clip lies in the recording, in seconds.
    score : float
        From 0 to 1. Of a keyword search: how surely the query is heard. Of a search by
        example: the likeness (`audiosearch.library.likeness`), negative values cut off at 0.
    label : str
        The class that matched best; of a search by example the clip's first tag.
    tags : list of Tag
        The clip's five best classes.
    labels : list of str or None
        The true classes, where the source came with labels.
    moments : list of Moment
        Its other matching clips, best first.
    copies : list of str
        Recordings that are exact copies of this one, where a search folds them; named as
        `recording` is.
    why : list of Reason
        Of a keyword search: what the clip's scores say of each term, those that are left out last.
    match : Span or None
        Of a search by example: where in the clip the likeness lies. None where the clip's frames
        are not at hand.
    corrections : list of Correction
        What the user confirmed and rejected in the clip, by time.
    """

    recording: str
    source: str
    recording_id: int
    clip: int
    start: float
    end: float
    score: float
    label: str
    tags: list[Tag] = field(default_factory=list)
    labels: list[str] | None = None
    moments: list[Moment] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    why: list[Reason] = field(default_factory=list)
    match: Span | None = None
    corrections: list[Correction] = field(default_factory=list)

    @property
    def explanation(self) -> str:
        """Say why it was found: ``Car 0.93, Vehicle 0.97; not music 0.02; Dog confirmed``."""
        said = dict.fromkeys(f"{each.label} {each.verdict}" for each in self.corrections)
        return "; ".join([*map(str, self.why), *said])

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as JSON-ready values, scores with four digits."""
        return _rounded(asdict(self))


@dataclass(frozen=True)
class SearchResult:
    """A page of hits.

    Attributes
    ----------
    query : str or None
        The keyword query; None for a search by example alone.
    total : int
        How many recordings match.
    total_clips : int
        How many clips match.
    offset, limit : int
        Which hits these are.
    hits : list of Hit
        Best first.
    grouped : bool
        Whether a hit is a recording; else it is a clip, and has no moments.
    """

    query: str | None
    total: int
    total_clips: int
    offset: int
    limit: int
    hits: list[Hit]
    grouped: bool = True

    @property
    def count(self) -> int:
        """How many hits there are on all pages."""
        return self.total if self.grouped else self.total_clips

    def to_dict(self) -> dict[str, Any]:
        """Return the page as JSON-ready values."""
        return {
            "query": self.query,
            "total": self.total,
            "total_clips": self.total_clips,
            "grouped": self.grouped,
            "offset": self.offset,
            "limit": self.limit,
            "hits": [hit.to_dict() for hit in self.hits],
        }


@dataclass(frozen=True)
class Clip:
    """One clip of a library; times in seconds, `duration` of the whole recording if known."""

    recording: str
    source: str
    recording_id: int
    clip: int
    start: float
    end: float
    duration: float | None
    tags: list[Tag]
    labels: list[str] | None = None
    corrections: list[Correction] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the clip as JSON-ready values, scores with four digits."""
        return _rounded(asdict(self))


def tags_to_dicts(tags: list[Tag]) -> list[dict[str, Any]]:
    """Return tags as JSON-ready values, scores with four digits."""
    return [_rounded(asdict(tag)) for tag in tags]


def _rounded(value: Any) -> Any:
    """Round every score to four digits and every time to milliseconds, at any depth."""
    if isinstance(value, dict):
        return {
            key: (
                round(item, 4 if key == "score" else 3)
                if isinstance(item, float)
                else _rounded(item)
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
