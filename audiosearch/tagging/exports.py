"""Output formats of batch tagging that need all results: Parquet, Raven, Audacity, playlists.

They are written when a job is done, from its journal, a file at a time and atomically. A folder of
files holds ``manifest.json``, which lists them; files of an earlier run that are no longer wanted
are removed, other files are left alone.
"""

from __future__ import annotations

import csv
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from audiosearch.errors import JobError, MissingDependencyError, printable
from audiosearch.jobs import Entry
from audiosearch.storage import atomic_path, read_json, storage_errors, write_json
from audiosearch.tagging.formats import CSV_COLUMNS, decode_rows
from audiosearch.tagging.rules import name_of

__all__ = ["EXPORTS", "Entries", "check_parquet", "common_folder", "file_safe", "relative_name"]

Entries = Callable[[], Iterator[Entry]]
"""Gives the results from the first on, each time that it is called."""

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Class",
    "Mid",
    "Score",
)
# The band that the embedders hear.
_LOW_HZ, _HIGH_HZ = 125, 7500
_ROWS_AT_ONCE = 50_000
_MANIFEST = "manifest.json"


def check_parquet() -> None:
    """Make sure that Parquet can be written.

    Raises
    ------
    MissingDependencyError
        When pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "pyarrow", extra="parquet", purpose="Writing Parquet"
        ) from None


def parquet(entries: Entries, output: Path) -> None:
    """Write a Parquet file: the columns of the CSV file, with types and nulls."""
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.float64(), pa.float64(), pa.int16(), pa.string(), pa.string())
    columns = zip(CSV_COLUMNS, (*kinds, pa.float32()), strict=True)
    schema = pa.schema(list(columns), metadata={"audiosearch.schema": "tags/1"})

    def table(rows: list[tuple[Any, ...]]) -> Any:
        values = list(zip(*rows, strict=True)) or [()] * len(CSV_COLUMNS)
        arrays = [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    with atomic_path(output) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for rows in _batches(_flat_rows(entries())):
            writer.write_table(table(rows))


def _flat_rows(entries: Iterable[Entry]) -> Iterator[tuple[Any, ...]]:
    for entry in entries:
        name = printable(entry.item.name)
        for start, end, tags in decode_rows(entry.result):
            if not tags:
                yield (name, start, end, None, None, None, None)
            for rank, (index, score) in enumerate(tags, start=1):
                yield (name, start, end, rank, *name_of(index), score)


def _batches(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def raven(entries: Entries, output: Path) -> None:
    """Write one Raven selection table for all files.

    Times are those of the files in a row, as Raven opens them; ``File Offset (s)`` is the time in
    the file.
    """
    number, begun = 0, 0.0
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as f:
        table = csv.writer(f, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
        table.writerow(RAVEN_COLUMNS)
        for entry in entries():
            path = printable(entry.item.name)
            for start, end, tags in decode_rows(entry.result):
                times = (f"{begun + start:.3f}", f"{begun + end:.3f}", _LOW_HZ, _HIGH_HZ)
                for index, score in tags:
                    number += 1
                    label_score = (*name_of(index), f"{score:.4f}")
                    table.writerow(
                        (number, "Spectrogram 1", 1, *times, path, f"{start:.3f}", *label_score)
                    )
            begun += entry.item.start + entry.seconds


def audacity(entries: Entries, output: Path) -> None:
    """Write an Audacity label track for each file into a folder, named like the file.

    A track has the file's folders below the one that all files share.
    """
    top = common_folder(entries())
    with _FolderOfFiles(output, "audacity") as folder:
        for entry in entries():
            lines = [
                f"{start:.6f}\t{end:.6f}\t{name_of(index)[0]} {score:.2f}\n"
                for start, end, tags in decode_rows(entry.result)
                for index, score in tags
            ]
            name = relative_name(entry.item.name, top)
            if entry.item.start or entry.item.end is not None:
                stop = "end" if entry.item.end is None else f"{entry.item.end:.3f}"
                name += f".{entry.item.start:.3f}-{stop}"
            folder.write(name + ".txt", "".join(lines).encode())


def m3u(entries: Entries, output: Path) -> None:
    """Write a playlist for each class into a folder, the highest scores first.

    Files are named relative to the folder. A part of a file has VLC's start and stop times.
    """
    home = os.path.abspath(output)  # noqa: PTH100
    db = sqlite3.connect("")  # a temporary file, however many tags there are
    db.execute("CREATE TABLE tags (class, score, number INTEGER PRIMARY KEY, name, s, e, whole)")
    for entry in entries():
        for start, end, tags in decode_rows(entry.result):
            whole = start == 0 and end >= round(entry.seconds, 3)
            name = os.fsencode(entry.item.name)
            db.executemany(
                "INSERT INTO tags VALUES (?, ?, NULL, ?, ?, ?, ?)",
                [(index, score, name, start, end, whole) for index, score in tags],
            )
    with _FolderOfFiles(output, "m3u") as folder:
        found = db.execute("SELECT DISTINCT class FROM tags ORDER BY class").fetchall()
        taken: set[str] = set()
        for (index,) in found:
            lines = [b"#EXTM3U\n"]
            for path_, score, start, end, whole in db.execute(
                "SELECT name, score, s, e, whole FROM tags WHERE class = ? "
                "ORDER BY score DESC, number",
                (index,),
            ):
                path = os.path.relpath(os.fsdecode(path_), home)
                if "\n" in path or "\r" in path:
                    lines.append(b"# left out: a name with a line break\n")
                    continue
                title = f"{name_of(index)[0]} {score:.2f}, {os.path.basename(path)}"  # noqa: PTH119
                lines.append(os.fsencode(f"#EXTINF:{round(end - start)},{title}\n"))
                if not whole:
                    lines.append(f"#EXTVLCOPT:start-time={start:g}\n".encode())
                    lines.append(f"#EXTVLCOPT:stop-time={end:g}\n".encode())
                lines.append(os.fsencode(path) + b"\n")
            title = file_safe(name_of(index)[0])
            if title.casefold() in taken:  # an own class that is called as one of AudioSet's
                title += " (own)"
            taken.add(title.casefold())
            folder.write(f"{title}.m3u8", b"".join(lines))
    db.close()


EXPORTS: dict[str, Callable[[Entries, Path], None]] = {
    "parquet": parquet,
    "raven": raven,
    "audacity": audacity,
    "m3u": m3u,
}
"""What writes each format that needs all results."""


class _FolderOfFiles:
    """A folder that is brought up to date file by file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._manifest = folder / _MANIFEST
        self._written: dict[str, None] = {}
        self._before: list[str] = []
        if self._manifest.exists():
            try:
                found = read_json(self._manifest)
                self._before = list(found["files"])
                known = found["format"] == kind
            except (OSError, ValueError, KeyError, TypeError):
                known = False
            if not known:
                raise JobError(
                    f"{printable(str(self._manifest))} was not written by this kind of job. Name "
                    "another folder with --out."
                )

    def __enter__(self) -> _FolderOfFiles:
        with storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, name: str, data: bytes) -> None:
        """Write one file, unless it is there as it should be."""
        path = self._folder / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_bytes() != data:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(data)
        self._written[name] = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        names = [printable(name) for name in self._written]
        write_json(self._manifest, {"format": self._kind, "version": 1, "files": names})
        for name in self._before:
            path = self._folder / name
            # Only what lies below: a manifest is a file that anybody can edit.
            if name not in names and path.resolve().is_relative_to(self._folder.resolve()):
                path.unlink(missing_ok=True)


def common_folder(entries: Iterable[Entry]) -> str:
    """Return the lowest folder, absolute, that all files lie in."""
    top: str | None = None
    for entry in entries:
        folder = os.path.dirname(os.path.abspath(entry.item.name))  # noqa: PTH100, PTH120
        top = folder if top is None else os.path.commonpath([top, folder])
    return top or os.sep


def relative_name(name: str, top: str) -> str:
    """Return a file's name below `top`."""
    return os.path.relpath(os.path.abspath(name), top)  # noqa: PTH100


def file_safe(label: str) -> str:
    """Return a class's name as a file's name that every system takes."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", label).rstrip(" .")
