"""CSV files that list sounds, or parts of sounds, and their classes.

The first line names the columns; others than these are ignored:

=========== ===========================================================================
``path``    a sound file; a relative path is taken from the folder of the CSV
``start``   optional, where the sound begins in the file, in seconds; 0 where empty
``end``     optional, where it ends; the end of the file where empty
``labels``  optional, also called ``label``: display names or mids of AudioSet's classes,
            separated by semicolons; empty for a sound that has none of them
=========== ===========================================================================

UTF-8, separated by commas; a value with a comma stands in quotes. The same file may be listed
several times.
"""

from __future__ import annotations

import csv
import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

from audiosearch.errors import DataError, InvalidArgumentError, printable
from audiosearch.labels import load_labels

__all__ = ["TableRow", "read_clip_table"]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One line of a table.

    Attributes
    ----------
    path : str
        As it stands in the table.
    start : float
        In seconds.
    end : float or None
        In seconds; None for the end of the file.
    labels : tuple of int or None
        Class indices, ascending; None where the table has no such column.
    """

    path: str
    start: float
    end: float | None
    labels: tuple[int, ...] | None


def read_clip_table(path: str | os.PathLike[str]) -> list[TableRow]:
    """Read a CSV of sounds.

    Raises
    ------
    DataError
        When it cannot be read, has no column ``path`` or no lines, or a line holds what cannot
        be: a class that does not exist, a start behind the end. The message names the line.
    """
    name = printable(os.fspath(path))
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            try:
                rows = _rows(lines, name)
            except csv.Error as error:
                raise DataError(f"{name}, line {lines.line_num}: {error}.") from None
    except UnicodeDecodeError:
        raise DataError(f"{name} is not UTF-8 text. Save it as CSV in UTF-8.") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise DataError(f"{name} lists no sounds.")
    return rows


def _rows(lines: csv.Reader, name: str) -> list[TableRow]:  # type: ignore[name-defined]
    header = [column.strip().lower() for column in next(lines, [])]
    header = ["labels" if column == "label" else column for column in header]
    if "path" not in header:
        raise DataError(
            f"{name} has no column 'path'. Its first line must name the columns: path, and if "
            "wanted start, end, labels."
        )
    for column in ("path", "start", "end", "labels"):
        if header.count(column) > 1:
            raise DataError(f"{name} has two columns '{column}'.")
    # Names are looked up once: a table may have millions of lines.
    classes = functools.cache(lambda text: load_labels().by_name(text).index)
    rows = []
    for values in lines:
        if not any(value.strip() for value in values):
            continue
        where = f"{name}, line {lines.line_num}"
        if len(values) != len(header):
            raise DataError(
                f"{where} has {len(values)} values, but there are {len(header)} columns. A value "
                "with a comma must stand in quotes."
            )
        row = dict(zip(header, values, strict=True))
        if not row["path"]:
            raise DataError(f"{where} names no file.")
        start = _seconds(row.get("start", ""), f"{where}: start") or 0.0
        end = _seconds(row.get("end", ""), f"{where}: end")
        if end is not None and end <= start:
            raise DataError(f"{where}: end must be later than start ({start:g} s), not {end:g}.")
        labels = None
        if "labels" in row:
            try:
                found = {classes(text.strip()) for text in row["labels"].split(";") if text.strip()}
            except InvalidArgumentError as error:
                raise DataError(f"{where}: {error}") from None
            labels = tuple(sorted(found))
        rows.append(TableRow(row["path"], start, end, labels))
    return rows


def _seconds(text: str, what: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise DataError(f"{what} must be seconds from 0, not '{text}'.")
    return value
