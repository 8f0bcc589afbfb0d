"""CSV and TSV tables of labelled sounds.

The first line names the columns. Usual names, of which the first that is there is taken:

========= =======================================================================================
path      ``path``, ``file``, ``filename``, ``file_name``: a sound file; a relative path is taken
          from the table's folder
label     ``label``, ``labels``, ``class``, ``category``: its class; several are separated by
          semicolons
start     ``start``: where the sound begins in the file, in seconds
end       ``end``: where it ends
fold      ``fold``: fold of a cross-validation
group     ``group``: sounds of one group never stand on both sides of a split; where there is no
          such column, the parts of one file are a group
========= =======================================================================================
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from audiosearch.errors import DataError, printable
from audiosearch.lab.sounds import LabelledSound, class_name

__all__ = ["Table", "TableColumns", "read_rows", "read_table"]

_USUAL = {
    "path": ("path", "file", "filename", "file_name"),
    "label": ("label", "labels", "class", "category"),
    "start": ("start",),
    "end": ("end",),
    "fold": ("fold",),
    "group": ("group",),
}


@dataclass(frozen=True)
class TableColumns:
    """Names of a table's columns; None for the usual ones."""

    path: str | None = None
    label: str | None = None
    start: str | None = None
    end: str | None = None
    fold: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Table:
    """A table's lines.

    Attributes
    ----------
    path : Path
        The file.
    header : tuple of str
        Names of the columns.
    rows : list of (line, row)
        Each row by column, and the number of its line in the file.
    """

    path: Path
    header: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]

    def require(self, *columns: str) -> None:
        """Refuse a table without these columns."""
        for column in columns:
            if column not in self.header:
                raise DataError(
                    f"{printable(str(self.path))} has no column '{column}'. It has: "
                    f"{', '.join(self.header)}."
                )

    def broken(self, line: int, what: str) -> DataError:
        """Return the error that says what is wrong in a line."""
        return DataError(f"{printable(str(self.path))}, line {line}: {printable(what)}.")

    def place(
        self,
        line: int,
        row: dict[str, str],
        *,
        path: str = "path",
        start: str = "start",
        end: str = "end",
    ) -> tuple[str, float, float | None]:
        """Return file, start and end of a row."""
        file = row[path]
        if not file.strip():
            raise self.broken(line, "it names no file")
        if "\0" in file:
            raise self.broken(line, "its path holds a NUL character, which no file's name can")
        begin = self._seconds(line, row.get(start, "")) or 0.0
        stop = self._seconds(line, row.get(end, ""))
        if begin < 0 or (stop is not None and stop <= begin):
            raise self.broken(line, "its end is not after its start, or its start is below 0")
        return os.path.normpath(self.path.absolute().parent / file), begin, stop

    def _seconds(self, line: int, text: str) -> float | None:
        if not text.strip():
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.broken(line, f"'{text}' is no time in seconds")
        return value


def read_rows(path: Path) -> Table:
    """Read a CSV or, by its first line, TSV file.

    Raises
    ------
    DataError
        When it cannot be read, or a line has more or fewer values than there are columns.
    """
    name = printable(str(path))
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            file.seek(0)
            lines = csv.reader(file, delimiter="\t" if "\t" in first else ",", strict=True)
            header = tuple(column.strip() for column in next(lines, []))
            rows = list(_read(lines, header, name))
    except csv.Error as error:
        raise DataError(f"{name} is no CSV or TSV file: {error}.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    if len(set(header)) < len(header):
        raise DataError(f"{name} has two columns of one name.")
    return Table(path, header, rows)


def _read(
    lines: csv.Reader,  # type: ignore[name-defined]
    header: tuple[str, ...],
    name: str,
) -> Iterator[tuple[int, dict[str, str]]]:
    for values in lines:
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise DataError(
                f"{name}, line {lines.line_num} has {len(values)} values, but there are "
                f"{len(header)} columns. A value with a comma must stand in quotes."
            )
        yield lines.line_num, dict(zip(header, values, strict=True))


def read_table(path: Path, columns: TableColumns) -> list[LabelledSound]:
    """Read a table of labelled sounds.

    Raises
    ------
    DataError
        When a column is missing or a line holds what cannot be; the message names it.
    """
    table = read_rows(path)
    chosen = _chosen(table, columns)
    has_parts = "group" not in chosen and "start" in chosen
    sounds = []
    for line, row in table.rows:
        file, start, end = table.place(
            line,
            row,
            path=chosen["path"],
            start=chosen.get("start", ""),
            end=chosen.get("end", ""),
        )
        named = (class_name(label) for label in row[chosen["label"]].split(";"))
        group = row[chosen["group"]].strip() if "group" in chosen else file if has_parts else None
        fold = row[chosen["fold"]].strip() if "fold" in chosen else None
        labels = tuple(dict.fromkeys(filter(None, named)))
        sounds.append(LabelledSound(file, labels, start, end, fold or None, group or None))
    return sounds


def _chosen(table: Table, columns: TableColumns) -> dict[str, str]:
    """Return the table's name of each column that it has."""
    chosen = {}
    for role, asked in asdict(columns).items():
        if asked is not None:
            table.require(asked)
            chosen[role] = asked
            continue
        found = [name for name in _USUAL[role] if name in table.header]
        if found:
            chosen[role] = found[0]
        elif role in ("path", "label"):
            raise DataError(
                f"{printable(str(table.path))} has no column '{role}'. It has: "
                f"{', '.join(table.header) or 'none'}. Say which one it is: --{role}-column."
            )
    return chosen
