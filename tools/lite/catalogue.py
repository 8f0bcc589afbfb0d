"""The committed lists of what the bundled embedder is trained on: packages, and sounds in them.

``packages.csv``: one row a package.

========== =====================================================================================
registry   ``debian`` (a binary package), ``debian-source``, ``npm``, ``pypi`` or ``github``
package    its name; on GitHub ``owner/name``
version    the version that was read; on GitHub a commit
file       Debian: path below the mirror; else empty
sha256     checksum of the package file, where the registry publishes one
licence    as the package states it
role       ``train``, or ``test``: then no sound of it is trained on
========== =====================================================================================

``sounds.csv.gz``: one row a sound file: package, path inside it, the first 16 hexadecimal digits of
its SHA-1, and how many 10 s windows of its first 40 s are used.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from audiosearch.errors import DataError, printable
from audiosearch.storage import atomic_path

__all__ = [
    "WINDOWS",
    "WINDOW_SECONDS",
    "Package",
    "Sound",
    "read_packages",
    "read_rows",
    "read_sounds",
    "write_rows",
]

FOLDER = Path(__file__).resolve().parent
WINDOW_SECONDS = 10
WINDOWS = 4
"""Windows of a file at most: its first 40 s."""


@dataclass(frozen=True)
class Package:
    """One row of ``packages.csv``."""

    registry: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    role: str


@dataclass(frozen=True)
class Sound:
    """One row of ``sounds.csv``."""

    package: str
    path: str
    sha1: str
    windows: int


def read_packages(path: str | os.PathLike[str] = FOLDER / "packages.csv") -> list[Package]:
    """Read a list of packages.

    Raises
    ------
    DataError
        When the file is missing or has other columns.
    """
    return [Package(**row) for row in read_rows(path, Package)]


def read_sounds(path: str | os.PathLike[str] = FOLDER / "sounds.csv.gz") -> list[Sound]:
    """Read a list of sounds.

    Raises
    ------
    DataError
        When the file is missing or has other columns.
    """
    return [Sound(**(row | {"windows": int(row["windows"])})) for row in read_rows(path, Sound)]


def write_rows(path: str | os.PathLike[str], rows: Iterable[Any], kind: type[Any]) -> None:
    """Write dataclass instances as CSV, atomically; packed where the name ends in ``.gz``."""
    file = io.StringIO()
    names = [field.name for field in fields(kind)]
    table = csv.DictWriter(file, names, lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in rows)
    content = file.getvalue().encode("utf-8")
    with atomic_path(path) as temporary:
        # Without a time in it, the same rows give the same file.
        is_packed = Path(path).suffix == ".gz"
        temporary.write_bytes(gzip.compress(content, mtime=0) if is_packed else content)


def read_rows(path: str | os.PathLike[str], kind: type[Any]) -> list[dict[str, Any]]:
    """Read CSV rows whose columns are the fields of a dataclass, as text.

    Raises
    ------
    DataError
        When the file is missing or has other columns.
    """
    wanted = [field.name for field in fields(kind)]
    try:
        content = Path(path).read_bytes()
        if Path(path).suffix == ".gz":
            content = gzip.decompress(content)
        table = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
        rows = list(table)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{printable(os.fspath(path))} cannot be read: {error}.") from error
    if list(table.fieldnames or []) != wanted:
        raise DataError(
            f"{printable(os.fspath(path))} has the columns {table.fieldnames}, not {wanted}."
        )
    return rows
