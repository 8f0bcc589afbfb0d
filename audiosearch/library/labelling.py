"""Labelling: what a user says of clips is entered in the library, and found again.

A label is one transaction of the catalogue. It needs no writer's lock, because it touches none of
the files beside the catalogue: clips can be labelled while another process indexes.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.errors import (
    InvalidArgumentError,
    LibraryBusyError,
    LibraryError,
    QueryError,
    printable,
)
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import load_labels, name_key
from audiosearch.library.blocks import Block
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.corrections import Corrections
from audiosearch.library.hits import Clip, Hit, Moment, UserLabel
from audiosearch.library.label_table import Statement, Verdict, content_of
from audiosearch.library.recordings import Recording
from audiosearch.library.snapshot import Part, Snapshot
from audiosearch.query.tokens import plain

if TYPE_CHECKING:
    from audiosearch.library.library import Library
    from audiosearch.library.opened import OpenedLibrary

__all__ = [
    "LabelChange",
    "Labelling",
    "Target",
    "clip_of",
    "contents_in",
    "copy_labels",
    "label_name",
    "relink",
    "user_labels",
    "wrong_links",
]

Target: TypeAlias = int | Hit | Moment | Clip
"""A clip of the library: its number, or what a search returned."""

_LONGEST_NAME = 100
_JOINERS = "\u200c\u200d"  # within words of some languages, and within emoji
_PATIENCE = 30.0


@dataclass(frozen=True)
class LabelChange:
    """Something to enter or to take back.

    Attributes
    ----------
    clip : int
        A clip of the recording.
    label : str
        A class by name or mid, or a label of the user's own.
    verdict : str or None
        ``"confirmed"`` or ``"rejected"``; None takes back what was said.
    start, end : float or None
        Which stretch, in seconds as hits give them; the clip where both are None.
    new : bool
        Whether `label` may be one that was never used.
    """

    clip: int
    label: str
    verdict: Verdict | None
    start: float | None = None
    end: float | None = None
    new: bool = False


class Labelling:
    """Changes the labels of an open library; safe to use from several threads.

    Parameters
    ----------
    library : Library
        It need not be open for writing.
    """

    def __init__(self, library: OpenedLibrary) -> None:
        self._library = library
        self._lock = threading.RLock()
        self._writable: Catalogue | None = None
        self._keys: weakref.WeakKeyDictionary[Block, npt.NDArray[np.int64]]
        self._keys = weakref.WeakKeyDictionary()

    def close(self) -> None:
        """Close what was opened for writing."""
        with self._lock:
            if self._writable is not None:
                self._writable.close()
                self._writable = None

    def apply(self, changes: Sequence[LabelChange]) -> int:
        """Make changes, all or none of them; return how many changed anything.

        Raises
        ------
        LibraryError
            When there is no such clip, or it is the library that comes with audiosearch.
        LibraryBusyError
            When another process keeps the catalogue locked.
        QueryError
            When no class and no label is called so; with suggestions.
        InvalidArgumentError
            When a stretch does not lie in the recording, or a name cannot be one.
        StorageError
            When the library cannot be written to.
        """
        library = self._library
        if library.shipped:
            raise LibraryError(
                "The library that comes with audiosearch takes no labels. Copy it first: "
                "audiosearch merge "
                f"{printable(str(library.folder))} --out FOLDER"
            )
        stop = time.monotonic() + _PATIENCE
        with self._lock:
            catalogue = self._catalogue()
            while True:
                now = library.snapshot()
                changed = self._attempt(catalogue, now, changes)
                if changed is not None:
                    self._catch_up(catalogue)
                    return changed
                # Another process committed since; it may have added a copy of a sound.
                if time.monotonic() > stop:
                    raise LibraryBusyError(
                        f"{printable(str(library.folder))} is being written to without a pause. "
                        "Try again."
                    )
                time.sleep(0.01)

    def _attempt(
        self, catalogue: Catalogue, now: Snapshot, changes: Sequence[LabelChange]
    ) -> int | None:
        """Enter changes as of a snapshot; None where that is not what there is any more."""
        recordings = self._recordings(now, [change.clip for change in changes])
        known: dict[str, str] = {}
        said: list[tuple[LabelChange, Statement]] = []
        for change in changes:
            recording, content, _ = recordings[change.clip]
            key, label, mid = self._named(catalogue, change, known)
            first, last = _stretch(recording, change)
            verdict: Verdict = change.verdict or "confirmed"
            said.append(
                (change, Statement(content, first, last, key, label, mid, verdict, time.time()))
            )
        copies = self._copies(now, {content: head for _, content, head in recordings.values()})
        with contextlib.suppress(_LateError), catalogue.transaction():
            if catalogue.lengths()["changes"] != now.changes:
                raise _LateError
            changed = 0
            for change, each in said:
                if change.verdict is None:
                    taken = catalogue.labels.take_back(
                        each.content, each.key, each.start, each.stop
                    )
                    changed += bool(taken)
                else:
                    changed += catalogue.labels.put(each)
            catalogue.labels.link(copies)
            return changed
        return None

    def _catalogue(self) -> Catalogue:
        library = self._library
        if library.writable:
            return library.catalogue
        if self._writable is None:
            self._writable = Catalogue(library.catalogue.path, writable=True)
        return self._writable

    def _catch_up(self, catalogue: Catalogue) -> None:
        """Let the library's next answer know of it, also while another process commits."""
        changes = catalogue.lengths()["changes"]
        stop = time.monotonic() + _PATIENCE
        while self._library.snapshot().changes < changes and time.monotonic() < stop:
            time.sleep(0.005)

    def _recordings(
        self, now: Snapshot, clips: Iterable[int]
    ) -> dict[int, tuple[Recording, bytes, int]]:
        """Return of each clip the recording, its content, and the key of its first vector."""
        places = {clip: now.find(clip) for clip in dict.fromkeys(clips)}
        numbers = {clip: int(part.block.recordings[row]) for clip, (part, row) in places.items()}
        known = self._library.catalogue.recordings_at(numbers.values(), now.lengths["moves"])
        contents: dict[int, tuple[bytes, int]] = {}
        for clip, (part, _) in places.items():
            recording = known.get(numbers[clip])
            if recording is None:
                raise LibraryError(f"Clip {clip} was removed from this library a moment ago.")
            if recording.id not in contents:
                first = part.block.row_of(recording.first_clip)
                content = content_of(part.block.vectors[first : first + recording.clips])
                contents[recording.id] = content, int(self._keys_of(part.block)[first])
        return {clip: (known[n], *contents[n]) for clip, n in numbers.items()}

    def _named(
        self, catalogue: Catalogue, change: LabelChange, known: dict[str, str]
    ) -> tuple[str, str, str | None]:
        """Return key, name and mid of a label."""
        try:
            label = load_labels().by_name(change.label)
            return label.mid, label.name, label.mid
        except InvalidArgumentError:
            name = label_name(change.label)
        key = name_key(name)
        if key not in known:
            used = catalogue.labels.name_of(key) or self._library.own.name_of(name)
            if used is None and not change.new:
                suggestions = self._library.vocabulary().suggest_labels(name)
                near = f" Nearest: {', '.join(suggestions)}." if suggestions else ""
                raise QueryError(
                    f"No class and no label of your own is called '{name}'.{near} A label of your "
                    "own must be added before it can be confirmed or rejected.",
                    query=name,
                    suggestions=suggestions,
                )
            known[key] = used or name
        return key, known[key], None

    def _copies(self, now: Snapshot, contents: dict[bytes, int]) -> list[tuple[int, bytes]]:
        """Return all recordings of some contents, of which the keys of their first vectors say."""
        heads = np.array(sorted(set(contents.values())), np.int64)
        found = []
        for part in now.parts:
            rows = np.flatnonzero(np.isin(self._keys_of(part.block), heads))
            found += [pair for pair in _contents_at(part, rows) if pair[1] in contents]
        return found

    def _keys_of(self, block: Block) -> npt.NDArray[np.int64]:
        """Return the first eight values of each vector, as one number, int64 (rows,)."""
        known = self._keys.get(block)
        if known is None:
            heads = np.ascontiguousarray(block.vectors[:, :8])
            known = self._keys[block] = heads.view(np.int64).reshape(-1)
        return known


class _LateError(Exception):
    """Another process committed something since the library was looked at."""


def label_name(name: str) -> str:
    """Return the name of a label of the user's own as it is stored and shown.

    Raises
    ------
    InvalidArgumentError
        When it cannot be one, or could not be searched for.
    """
    text = " ".join(unicodedata.normalize("NFC", name).split())
    bad = next(
        (c for c in text if unicodedata.category(c).startswith("C") and c not in _JOINERS), None
    )
    if not 0 < len(text) <= _LONGEST_NAME:
        raise InvalidArgumentError(
            f"A label has 1 to {_LONGEST_NAME} characters, not {len(text):,}."
        )
    if bad is not None:
        raise InvalidArgumentError(f"A label cannot hold the control character U+{ord(bad):04X}.")
    if '"' in plain(text):
        raise InvalidArgumentError(
            f"The label {printable(text)} holds a quotation mark, in which queries put labels. "
            "Leave it out."
        )
    if text == "*":
        raise InvalidArgumentError("'*' stands for any label, so none can be called so.")
    return text


def contents_in(now: Snapshot) -> Iterator[tuple[int, bytes]]:
    """Give number and content of all recordings of a snapshot."""
    for part in now.parts:
        starts = np.flatnonzero(np.diff(part.block.recordings, prepend=np.uint32(0)))
        yield from _contents_at(part, starts)


def relink(library: Library) -> None:
    """Tell anew which recordings hold labelled sounds; the library's lock is held."""
    links = list(contents_in(library.snapshot())) if library.catalogue.labels.version() else []
    if links:
        with library.catalogue.transaction():
            library.catalogue.labels.unlink_all()
            library.catalogue.labels.link(links)


def wrong_links(library: Library) -> int:
    """Return of how many recordings it is told wrongly whether their sounds have labels."""
    if not library.catalogue.labels.version():
        return 0
    said = {each.content for each in library.catalogue.labels.statements()}
    links = {(each.recording, each.content) for each in library.catalogue.labels.linked()}
    wanted = {pair for pair in contents_in(library.snapshot()) if pair[1] in said}
    return len({number for number, _ in links ^ wanted})


def copy_labels(source: Library, target: Library) -> int:
    """Bring the labels of a library into another, whose lock is held; return how many were new.

    Where both say something of a label and a sound, the newer word counts. Labels whose sounds
    `target` does not hold wait there for them.
    """
    said = source.catalogue.labels.statements()
    if not said:
        return 0
    with target.catalogue.transaction():
        return sum(target.catalogue.labels.put_older(each) for each in said)


def user_labels(
    catalogue: Catalogue, corrections: Corrections
) -> Iterator[tuple[UserLabel, Recording, bytes]]:
    """Give all labels of recordings that the library holds, each with recording and content."""
    every = list(corrections.all())
    known = catalogue.recordings({place.recording for place, _, _ in every})
    for place, clip, each in every:
        recording = known.get(place.recording)
        if recording is not None:
            yield (
                UserLabel(
                    recording=recording.name,
                    source=recording.source,
                    recording_id=recording.id,
                    clip=clip,
                    label=each.label,
                    mid=each.mid,
                    verdict=each.verdict,
                    start=recording.start + each.start,
                    end=recording.start + min(each.stop, max(place.duration, each.start)),
                ),
                recording,
                place.content,
            )


def clip_of(target: Target) -> int:
    """Return the number of a clip that may be given as a search returned it."""
    number = target.clip if isinstance(target, Hit | Moment | Clip) else target
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise InvalidArgumentError(f"A clip is a number or a hit, not {type(target).__name__}.")
    return int(number)


def _contents_at(part: Part, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
    """Give number and content of the recordings that begin at some rows of a part, and exist."""
    block = part.block
    numbers = block.recordings
    stops = np.searchsorted(numbers, numbers[rows], side="right")
    for row, stop in zip(rows.tolist(), stops.tolist(), strict=True):
        if (row == 0 or numbers[row - 1] != numbers[row]) and part.is_live(row):
            yield int(numbers[row]), content_of(block.vectors[row:stop])


def _stretch(recording: Recording, change: LabelChange) -> tuple[float, float]:
    """Return what a change is about, in seconds from the recording's beginning."""
    number = change.clip - recording.first_clip
    last = number == recording.clips - 1
    length = max(recording.duration, 0.01 + (recording.clips - 1) * CLIP_SPAN)
    start, stop = number * CLIP_SPAN, length if last else (number + 1) * CLIP_SPAN
    if change.start is not None:
        start = change.start - recording.start
    if change.end is not None:
        stop = change.end - recording.start
    rounding = 0.01  # of times that were printed
    within = -rounding <= start and stop <= length + rounding
    if within:
        start, stop = max(start, 0.0), min(stop, length)
    if not (math.isfinite(start) and math.isfinite(stop) and within and stop > start + 0.001):
        first, end = recording.start, recording.start + length
        raise InvalidArgumentError(
            f"The stretch from {start + recording.start:g} to {stop + recording.start:g} s does "
            f"not lie in {recording.name}, which has sound from {first:g} to {end:g} s."
        )
    return start, stop
