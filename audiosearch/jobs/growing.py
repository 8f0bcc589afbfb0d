"""A file that a job appends to, and finds again as it left it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

from audiosearch.storage import Closing, fsync_folder, storage_errors

__all__ = ["GrowingFile"]

_CHUNK = 1 << 20


class GrowingFile(Closing):
    """A file that is only appended to; what `append` returned from is on the disk.

    Parameters
    ----------
    path : Path
        The file; it need not exist.

    Attributes
    ----------
    length, crc : int
        How many bytes belong to it, and their CRC-32.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.length = self.crc = 0
        self._file: BinaryIO | None = None

    def is_as(self, length: int, crc: int) -> bool:
        """Whether the file begins with so many bytes of that CRC-32."""
        return _checksum(self.path, length) == crc

    def keep(self, length: int) -> None:
        """Say that only the first `length` bytes belong to it; `open` cuts off the others."""
        with storage_errors(self.path):
            self.crc = (_checksum(self.path, length) or 0) if length else 0
        self.length = length

    def open(self) -> None:
        """Open it for `append`, cut to its length.

        It is cut in place: whoever follows the file sees it shrink and grow.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        self.close()
        with storage_errors(self.path):
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            self._file.truncate(self.length)
            self._file.seek(self.length)
            fsync_folder(self.path.parent)

    def append(self, data: bytes) -> None:
        """Append to the file.

        Raises
        ------
        StorageError
            When the disk is full.
        """
        if not data or self._file is None:
            return
        with storage_errors(self.path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        self.length += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _checksum(path: Path, length: int) -> int | None:
    """Return the CRC-32 of the first `length` bytes of a file; None where it has fewer."""
    crc = 0
    try:
        with path.open("rb") as file:
            while length:
                data = file.read(min(length, _CHUNK))
                if not data:
                    return None
                crc = zlib.crc32(data, crc)
                length -= len(data)
    except FileNotFoundError:
        return None
    return crc
