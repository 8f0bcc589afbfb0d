"""Labels of the user's as a CSV file: a training set, and a way into other libraries.

A row a label: ``path,start,end,label,verdict,mid,content``. Times are seconds from the start of the
file (of a video, for AudioSet's clips), ``verdict`` is ``confirmed`` or ``rejected``, ``mid`` is
empty for labels of the user's own, and ``content`` is what a library knows the sound by, so that
labels find it under another path, too. Of exact copies the first is listed.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiosearch.errors import DataError, InvalidArgumentError, StorageError, printable
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.library.label_table import Verdict
from audiosearch.library.labelling import LabelChange, contents_in, user_labels
from audiosearch.library.library import Library
from audiosearch.storage import atomic_path, storage_errors

__all__ = ["LabelExport", "LabelImport", "export_labels", "import_labels"]

COLUMNS = ("path", "start", "end", "label", "verdict", "mid", "content")


@dataclass(frozen=True)
class LabelExport:
    """What an export of labels wrote; `waiting` are those whose sounds the library has no more."""

    file: str
    labels: int
    recordings: int
    waiting: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class LabelImport:
    """What an import of labels did.

    Attributes
    ----------
    library : str
        The library's folder.
    added, unchanged : int
        Labels.
    unknown : int
        Labels of sounds that the library does not hold; they were left out.
    """

    library: str
    added: int
    unchanged: int
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def export_labels(
    library: str | os.PathLike[str] | Library,
    to: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> LabelExport:
    """Write the labels of a library to a CSV file, a row a label.

    Parameters
    ----------
    library : path-like or Library
        The library.
    to : path-like
        The file; its name ends in ``.csv``.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    InvalidArgumentError
        When the name ends otherwise.
    StorageError
        When the file exists or cannot be written.
    """
    target = Path(to)
    if target.suffix.lower() != ".csv":
        raise InvalidArgumentError(f"{printable(str(target))}: labels are written to a .csv file.")
    if target.exists() and not overwrite:
        raise StorageError(
            f"{printable(str(target))} exists already. Choose another name, or delete it first."
        )
    if not isinstance(library, Library):
        with Library(library) as opened:
            return export_labels(opened, to, overwrite=overwrite)
    corrections = library.corrections()
    first: dict[bytes, int] = {}
    count = 0
    with (
        atomic_path(target) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for each, recording, content in user_labels(library.catalogue, corrections):
            if first.setdefault(content, each.recording_id) != each.recording_id:
                continue
            name = recording.name if recording.file is None else os.fsdecode(recording.file)
            times = (f"{round(time, 3):.10g}" for time in (each.start, each.end))
            out.writerow([name, *times, each.label, each.verdict, each.mid or "", content.hex()])
            count += 1
    return LabelExport(printable(str(target)), count, len(first), corrections.waiting())


def import_labels(
    source: str | os.PathLike[str], library: str | os.PathLike[str] | Library
) -> LabelImport:
    """Enter labels of a CSV file in a library, all or none.

    Needed are the columns ``path``, ``start``, ``end``, ``label`` and ``verdict``; where there is
    ``content``, a sound is found by it before its path. Labels that are not known yet are added.

    Parameters
    ----------
    source : path-like
        What `export_labels` wrote, or a table like it. A relative path is taken from its folder;
        empty times stand for the whole recording.
    library : path-like or Library
        The library.

    Raises
    ------
    DataError
        When the file is not as it must be; the message names the line.
    """
    if not isinstance(library, Library):
        with Library(library) as opened:
            return import_labels(source, opened)
    path = Path(source)
    rows = _rows(path)
    places = _Places(library)
    changes, unknown = [], 0
    for line, row in rows:
        recording = places.find(row, path.absolute().parent)
        if recording is None:
            unknown += 1
            continue
        try:
            changes.append(_change(row, *recording))
        except ValueError as error:
            raise _broken(path, line, str(error)) from error
    try:
        added = library.change_labels(changes)
    except InvalidArgumentError as error:
        raise DataError(f"{printable(str(path))}: {error}") from error
    return LabelImport(printable(str(library.folder)), added, len(changes) - added, unknown)


class _Places:
    """Finds the recordings that a table names."""

    def __init__(self, library: Library) -> None:
        catalogue = library.catalogue
        now = library.snapshot()
        self._by_content: dict[str, list[int]] = {}
        for number, content in contents_in(now):
            self._by_content.setdefault(content.hex(), []).append(number)
        numbers = [number for found in self._by_content.values() for number in found]
        self._known = catalogue.recordings(numbers)
        self._by_path: dict[bytes, int] = {}
        for number, each in self._known.items():
            self._by_path.setdefault(each.file or os.fsencode(each.name), number)

    def find(self, row: dict[str, str], folder: Path) -> tuple[int, int, float, float] | None:
        """Return first clip, clips, start and length of the recording of a row."""
        names = [os.fsencode(row["path"]), os.fsencode(folder / row["path"])]
        named = [self._by_path[name] for name in names if name in self._by_path]
        same = self._by_content.get(row.get("content") or "", [])
        found = [number for number in named if number in same] or same or named
        if not found or found[0] not in self._known:
            return None
        each = self._known[found[0]]
        return each.first_clip, each.clips, each.start, each.duration


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    name = printable(str(path))
    if not path.is_file():
        raise DataError(f"{name}: there is no such file.")
    try:
        with (
            storage_errors(path),
            path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
        ):
            lines = csv.DictReader(file, strict=True)
            missing = [each for each in COLUMNS[:5] if each not in (lines.fieldnames or ())]
            if missing:
                raise DataError(f"{name} has no column '{missing[0]}'. Labels have {COLUMNS[:5]}.")
            rows = []
            for row in lines:
                if None in row or None in row.values():
                    raise _broken(path, lines.line_num, "it has more or fewer values than columns")
                rows.append((lines.line_num, row))
            return rows
    except csv.Error as error:
        raise DataError(f"{name} is no CSV file: {error}.") from error


def _change(
    row: dict[str, str], first_clip: int, clips: int, begin: float, duration: float
) -> LabelChange:
    start = float(row["start"]) if row["start"].strip() else begin
    end = float(row["end"]) if row["end"].strip() else begin + duration
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError("a time is no number")
    verdict: Verdict
    if row["verdict"] == "confirmed":
        verdict = "confirmed"
    elif row["verdict"] == "rejected":
        verdict = "rejected"
    else:
        raise ValueError(f"'{row['verdict']}' is neither confirmed nor rejected")
    clip = first_clip + min(max(int((start - begin) / CLIP_SPAN), 0), clips - 1)
    label = row.get("mid") or row["label"]
    return LabelChange(clip, label, verdict, start, end, new=True)


def _broken(path: Path, line: int, what: str) -> DataError:
    return DataError(f"{printable(str(path))}, line {line}: {printable(what)}.")
