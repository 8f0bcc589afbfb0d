"""What a job is to work on: files, folders, patterns, lists, playlists, tables of parts."""

from __future__ import annotations

import csv
import fnmatch
import glob
import io
import math
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from audiosearch.audio import AUDIO_EXTENSIONS
from audiosearch.errors import DataError, printable
from audiosearch.jobs.items import Item

__all__ = ["STDIN", "InputRules", "find_items"]

STDIN = "-"
"""Stands for a list of files on the standard input."""

_LISTS = (".m3u", ".m3u8")
_TABLES = (".csv",)
_COLUMNS = "path, start and end"


@dataclass(frozen=True)
class InputRules:
    """Which of the files found are wanted.

    Attributes
    ----------
    include : sequence of str
        Patterns such as ``*.wav`` or ``2024/*``: only files that one of them matches, by name or by
        path, are taken. All where it is empty.
    exclude : sequence of str
        Files and folders that one of these matches are left out.

    A pattern is compared with the name, and with the path below the folder that was named; ``*``
    matches slashes too.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def takes(self, path: str) -> bool:
        """Whether a file is wanted."""
        return not self.leaves_out(path) and (not self.include or _matches(path, self.include))

    def leaves_out(self, path: str) -> bool:
        """Whether a file or folder is left out."""
        return _matches(path, self.exclude)


def find_items(
    sources: Sequence[str], *, rules: InputRules | None = None, stdin: BinaryIO | None = None
) -> Iterator[Item]:
    """Yield the inputs that `sources` stand for, one at a time, in no particular order.

    Parameters
    ----------
    sources : sequence of str
        Sound files; folders, searched with all below them for files with a sound's ending, hidden
        ones left out; patterns such as ``"2024/**/*.wav"``; playlists (``.m3u``, ``.m3u8``);
        tables (``.csv``) with a column ``path`` and, if only parts are meant, ``start`` and ``end``
        in seconds; ``-`` for a list on the standard input, one file a line, or separated by zero
        bytes. Paths in a list on the standard input are relative to the current folder, those in
        playlists and tables to the folder of these.
    rules : InputRules, optional
        Which files are wanted.
    stdin : binary file, optional
        Where the list for ``-`` is read; the standard input where None.

    Yields
    ------
    Item
        What cannot be looked at is an item with a `problem`. A folder is visited once, however many
        links lead to it.

    Raises
    ------
    DataError
        When a playlist or table is not as it must be.
    """
    rules = rules or InputRules()
    visited: set[tuple[int, int]] = set()
    for source in sources:
        if source == STDIN:
            listed = _lines((stdin or sys.stdin.buffer).read())
            yield from _each(listed, rules, visited)
            continue
        ending = os.path.splitext(source)[1].lower()  # noqa: PTH122
        if ending in _TABLES and os.path.isfile(source):  # noqa: PTH113
            yield from _table(source, rules)
        elif ending in _LISTS and os.path.isfile(source):  # noqa: PTH113
            yield from _each(_playlist(source), rules, visited)
        elif not os.path.lexists(source) and glob.has_magic(source):
            found = sorted(_matching(os.path.expanduser(source)))  # noqa: PTH111
            if not found:
                yield Item(source, problem="Nothing matches this pattern.")
            sounds = [name for name in found if os.path.isdir(name) or _is_sound(name)]  # noqa: PTH112
            yield from _each(sounds or found, rules, visited)
        else:
            yield from _each([source], rules, visited)


def _each(names: Sequence[str], rules: InputRules, visited: set[tuple[int, int]]) -> Iterator[Item]:
    for name in names:
        try:
            if os.path.isdir(name):  # noqa: PTH112
                yield from _folder(name, rules, visited)
            elif rules.takes(name):
                yield _item(name)
        except ValueError:  # a zero byte in the name
            yield Item(name.replace("\0", "\\0"), problem="There is no such file.")


def _item(name: str, start: float = 0.0, end: float | None = None) -> Item:
    try:
        found = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
            reason = "There is no such file"
        return Item(name, start=start, end=end, problem=f"{reason}.")
    return Item(name, found.st_size, found.st_mtime_ns, start, end)


def _folder(root: str, rules: InputRules, visited: set[tuple[int, int]]) -> Iterator[Item]:
    """Walk a folder; a link to a folder is followed after everything that is really there."""
    real, linked, count = [root], list[str](), 0
    while real or linked:
        place = real.pop() if real else linked.pop(0)
        try:
            info = os.stat(place)  # noqa: PTH116
            known = (info.st_dev, info.st_ino)
            if info.st_ino and known in visited:
                count += place == root  # named twice: nothing is missing
                continue
            visited.add(known)
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    below = os.path.relpath(entry.path, root)
                    try:
                        if entry.is_dir():
                            if not rules.leaves_out(below):
                                (linked if entry.is_symlink() else real).append(entry.path)
                        elif _is_sound(entry.name) and rules.takes(below):
                            if entry.is_symlink() and not entry.is_file():
                                yield _item(entry.path)
                                continue
                            found = entry.stat()
                            if stat.S_ISREG(found.st_mode):
                                count += 1
                                yield Item(entry.path, found.st_size, found.st_mtime_ns)
                    except OSError as error:
                        yield Item(entry.path, problem=f"{error.strerror}.")
        except OSError as error:
            count += 1
            yield Item(place, problem=f"The folder cannot be listed: {error.strerror}.")
    if not count:
        yield Item(root, problem="There are no sound files in this folder.")


def _matching(pattern: str) -> Iterator[str]:
    """Yield what a pattern matches; `glob` alone would follow links in circles below ``**``."""
    parts = pattern.split(os.sep)  # noqa: PTH206 - as text
    if "**" not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207
        return
    at = parts.index("**")
    head = os.sep.join([*parts[:at], ""])  # noqa: PTH118
    tail = os.sep.join(parts[at + 1 :])  # noqa: PTH118
    for top in glob.iglob(head) if head else [""]:  # noqa: PTH207
        if not tail:
            yield top or os.curdir
            continue
        for folder in _folders(top):
            yield from _matching(os.path.join(glob.escape(folder), tail))  # noqa: PTH118


def _folders(top: str) -> Iterator[str]:
    """Yield a folder and those below it, each once; links after what is really there."""
    real, linked = [top], list[str]()
    visited: set[tuple[int, int]] = set()
    while real or linked:
        place = real.pop() if real else linked.pop(0)
        try:
            info = os.stat(place or os.curdir)  # noqa: PTH116
            if info.st_ino and (info.st_dev, info.st_ino) in visited:
                continue
            visited.add((info.st_dev, info.st_ino))
            with os.scandir(place or os.curdir) as entries:
                below = [(entry.name, entry.is_symlink()) for entry in entries if entry.is_dir()]
        except OSError:  # as `glob` does
            continue
        yield place
        for name, is_link in below:
            if not name.startswith("."):
                (linked if is_link else real).append(os.path.join(place, name))  # noqa: PTH118


def _is_sound(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in AUDIO_EXTENSIONS  # noqa: PTH122


def _matches(path: str, patterns: Sequence[str]) -> bool:
    name = os.path.basename(path)  # noqa: PTH119
    return any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(path, p) for p in patterns)


def _lines(data: bytes) -> list[str]:
    parts = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(part) for part in parts if part.strip()]


def _playlist(path: str) -> list[str]:
    with open(path, "rb") as file:  # noqa: PTH123
        data = file.read()
    names = [line for line in _lines(data.removeprefix(b"\xef\xbb\xbf")) if line[0] != "#"]
    if not names:
        raise DataError(f"{printable(path)}: the playlist names no files.")
    return [_beside(path, _from_address(name.strip())) for name in names]


def _from_address(name: str) -> str:
    """Return the path that a file's address stands for, which some players write."""
    scheme, found, place = name.partition("://")
    if not found or scheme.lower() != "file":
        return name
    return os.fsdecode(unquote_to_bytes(place.removeprefix("localhost")))


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name)  # noqa: PTH118, PTH120


def _table(path: str, rules: InputRules) -> Iterator[Item]:
    with open(path, "rb") as file:  # noqa: PTH123
        # Names that are no text survive as they do in the file system's own functions.
        text = file.read().decode("utf-8-sig", "surrogateescape")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        yield from _table_rows(path, rows, rules)
    except csv.Error as error:
        raise DataError(
            f"{printable(path)}, line {rows.line_num}: it is no table of inputs ({error})."
        ) from error


def _table_rows(path: str, rows: csv.DictReader[str], rules: InputRules) -> Iterator[Item]:
    if "path" not in (rows.fieldnames or ()):
        raise DataError(
            f"{printable(path)}: a table of inputs has the columns {_COLUMNS}, with a header; "
            f"found were: {', '.join(rows.fieldnames or ['none'])}."
        )
    for row in rows:
        name = row["path"]
        if not name:
            raise DataError(f"{printable(path)}, line {rows.line_num}: the path is missing.")
        if rules.takes(name):
            start = _seconds(row.get("start"), path, rows.line_num) or 0.0
            end = _seconds(row.get("end"), path, rows.line_num)
            if end is not None and end <= start:
                raise DataError(
                    f"{printable(path)}, line {rows.line_num}: end ({end:g}) must be later than "
                    f"start ({start:g})."
                )
            yield _item(_beside(path, name), start, end)


def _seconds(text: str | None, path: str, line: int) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise DataError(
            f"{printable(path)}, line {line}: '{text}' is no time in seconds, 0 or more."
        )
    return value
