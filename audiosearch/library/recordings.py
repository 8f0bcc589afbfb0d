"""Recordings as the catalogue knows them, and what is known of files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import printable
from audiosearch.labels import CLASS_COUNT

__all__ = [
    "Holdings",
    "KnownFile",
    "NewRecording",
    "Origin",
    "Recording",
    "Skipped",
    "Spread",
    "State",
    "origin_of",
    "recording_of",
]

_ALL_CLASSES = frozenset(range(CLASS_COUNT))


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as the catalogue knows it; times in seconds.

    `name` is what hits show: the path of a file, or the id of a packed row, for which `file` is
    None.
    """

    id: int
    source: str
    name: str
    file: bytes | None
    start: float
    duration: float
    first_clip: int
    clips: int
    packed_row: int | None
    labels: tuple[int, ...] | None

    @property
    def path(self) -> Path | None:
        """The sound file; None for a row of a packed file."""
        return None if self.file is None else Path(os.fsdecode(self.file))


@dataclass(frozen=True)
class Holdings:
    """All recordings in numbers, in the order of their clips; every array is (recordings,).

    Attributes
    ----------
    ids, first_clips, clips : int64
        Their numbers, first clips, and how many clips they have.
    seconds : float64
        Their lengths.
    sizes : int64
        Bytes of their files; -1 for rows of packed files.
    """

    ids: npt.NDArray[np.int64]
    first_clips: npt.NDArray[np.int64]
    clips: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spread:
    """How all recordings spread over lengths and years; every array is (recordings,).

    Attributes
    ----------
    ids : int64
        Their numbers, ascending.
    seconds : float64
        Their lengths.
    years : int64
        In which year their files were changed last (UTC); 0 for rows of packed files.
    """

    ids: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    years: npt.NDArray[np.int64]


@dataclass(frozen=True)
class NewRecording:
    """What is to be added; the columns get its rows before it is committed."""

    source: str
    name: bytes
    start: float
    duration: float
    clips: int
    root: int | None = None
    packed_file: int | None = None
    packed_row: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Origin:
    """A recording with all that is known of where it comes from; paths are bytes.

    `root` is None for a row of a packed file, and `packed_file` (path, size, modification time in
    ns) for a sound file.
    """

    id: int
    source: str
    root: bytes | None
    name: bytes
    size: int | None
    mtime_ns: int | None
    packed_file: tuple[bytes, int, int] | None
    packed_row: int | None
    start: float
    duration: float
    first_clip: int
    clips: int
    labels: tuple[int, ...] | None

    @property
    def path(self) -> bytes | None:
        """The sound file; None for a row of a packed file."""
        return None if self.root is None else os.path.join(self.root, self.name)  # noqa: PTH118


@dataclass(frozen=True)
class State:
    """What a library held at one moment, as far as a reader did not know it.

    Attributes
    ----------
    lengths : dict
        As `Catalogue.lengths` gives them.
    segments : list of (id, first clip, clips)
        All segments, in the order of their clips.
    removals : int64 (n, 3)
        Id, first clip and clips of the removals that the reader did not know, ascending.
    """

    lengths: dict[str, int]
    segments: list[tuple[int, int, int]]
    removals: npt.NDArray[np.int64]


@dataclass(frozen=True)
class KnownFile:
    """A file that was indexed, or skipped for a reason, and how it looked then.

    `root` and `name` say where it stands in the catalogue, `path` is both joined.
    """

    id: int | None
    root: int
    name: bytes
    path: bytes
    size: int
    mtime_ns: int
    reason: str | None = None
    first_clip: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used."""

    path: str
    reason: str


def recording_of(row: Sequence[Any]) -> Recording:
    """Return the recording of a row of the catalogue; `ValueError` where it makes no sense."""
    number, source, name, root, start, duration, first_clip, clips, packed_row, labels = row
    file = None if root is None else os.path.join(root, name)  # noqa: PTH118 - bytes
    classes = None if labels is None else tuple(json.loads(labels))
    if classes and not _ALL_CLASSES.issuperset(classes):
        raise ValueError(f"classes {classes}")
    return Recording(
        number,
        source,
        printable(os.fsdecode(name if file is None else file)),
        file,
        start,
        duration,
        first_clip,
        clips,
        packed_row,
        classes,
    )


def origin_of(row: Sequence[Any]) -> Origin:
    """Return the origin of a row of the catalogue."""
    number, source, root, name, size, mtime_ns, packed, packed_size, packed_mtime, *rest = row
    packed_row, start, duration, first_clip, clips, labels = rest
    return Origin(
        number,
        source,
        root,
        name,
        size,
        mtime_ns,
        None if packed is None else (packed, packed_size, packed_mtime),
        packed_row,
        start,
        duration,
        first_clip,
        clips,
        None if labels is None else tuple(json.loads(labels)),
    )
