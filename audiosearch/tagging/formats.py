"""Output formats of batch tagging that are one row after another: CSV and JSON lines.

Each format has a version; docs/tagging.md has the schemas. Columns never depend on what was found.
Formats that need all rows at once are in `audiosearch.tagging.exports`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from audiosearch.errors import InvalidArgumentError, printable
from audiosearch.jobs import Entry
from audiosearch.tagging.rules import Row, name_of

__all__ = [
    "CSV_COLUMNS",
    "FORMATS",
    "Format",
    "decode_rows",
    "encode_rows",
    "format_of",
    "json_line",
    "row_dict",
]

CSV_COLUMNS = ("path", "start", "end", "rank", "label", "mid", "score")
"""Columns of the CSV file and of Parquet, schema 1."""


@dataclass(frozen=True)
class Format:
    """An output format.

    Attributes
    ----------
    name : str
        As ``--format`` takes it.
    version : int
        Of its schema.
    endings : tuple of str
        Of files that have this format when no format is named.
    folder : bool
        Whether it is a folder of files.
    head : bytes
        What the file begins with.
    render : callable or None
        Gives the bytes of one file's result; None for formats that need all results at once.
    """

    name: str
    version: int
    endings: tuple[str, ...]
    folder: bool = False
    head: bytes = b""
    render: Callable[[Entry], bytes] | None = None


def encode_rows(rows: list[Row]) -> bytes:
    """Return rows as the journal keeps them: times in milliseconds, scores with four digits."""
    rounded = [
        (round(start, 3), round(end, 3), [(index, round(score, 4)) for index, score in tags])
        for start, end, tags in rows
    ]
    return json.dumps(rounded, separators=(",", ":")).encode()


def decode_rows(data: bytes | None) -> list[Row]:
    """Return the rows that `encode_rows` wrote."""
    return [
        (start, end, [(index, score) for index, score in tags])
        for start, end, tags in json.loads(data or b"[]")
    ]


def row_dict(name: str, row: Row) -> dict[str, Any]:
    """Return a row as JSON-ready values: the schema of JSON lines."""
    start, end, tags = row
    return {
        "path": name,
        "start": start,
        "end": end,
        "tags": [
            dict(zip(("label", "mid"), name_of(key), strict=True)) | {"score": score}
            for key, score in tags
        ],
    }


def json_line(value: dict[str, Any]) -> bytes:
    """Return one line of UTF-8 JSON.

    A file name that is no valid text holds lone surrogates; JSON carries them as escapes.
    """
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _json_lines(entry: Entry) -> bytes:
    name = entry.item.name
    return b"".join(json_line(row_dict(name, row)) for row in decode_rows(entry.result))


def _csv_lines(entry: Entry) -> bytes:
    name = printable(entry.item.name)
    table: list[tuple[Any, ...]] = []
    for start, end, tags in decode_rows(entry.result):
        if not tags:
            # So that every tagged file is in the table.
            table.append((name, start, end, "", "", "", ""))
        for rank, (index, score) in enumerate(tags, start=1):
            table.append((name, start, end, rank, *name_of(index), score))
    return csv_bytes(table)


def csv_bytes(rows: list[tuple[Any, ...]]) -> bytes:
    """Return rows as UTF-8 CSV: commas, quotes where needed, lines end with a line feed."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


FORMATS = {
    found.name: found
    for found in (
        Format("csv", 1, (".csv",), head=csv_bytes([CSV_COLUMNS]), render=_csv_lines),
        Format("jsonl", 1, (".jsonl", ".ndjson"), render=_json_lines),
        Format("parquet", 1, (".parquet",)),
        Format("raven", 1, (".selections.txt", ".tsv")),
        Format("audacity", 1, (), folder=True),
        Format("m3u", 1, (), folder=True),
    )
}
"""All formats by name."""


def format_of(path: str | os.PathLike[str], name: str | None = None) -> Format:
    """Return the format called `name`, else the one that a file's ending stands for.

    Raises
    ------
    InvalidArgumentError
        When there is no such format, or the ending stands for none.
    """
    if name is not None:
        if name not in FORMATS:
            raise InvalidArgumentError(
                f"There is no format '{name}'; there is: {', '.join(FORMATS)}."
            )
        return FORMATS[name]
    lower = os.fspath(path).lower()
    for found in FORMATS.values():
        if lower.endswith(found.endings):
            return found
    endings = " ".join(ending for found in FORMATS.values() for ending in found.endings)
    raise InvalidArgumentError(
        f"The ending of {printable(os.fspath(path))} stands for no format. Name one of "
        f"{', '.join(FORMATS)} with --format, or use one of the endings {endings}."
    )
