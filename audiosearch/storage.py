"""Files on disk: atomic writes, manifests, checksums, the writer's lock, bundled resources.

Every write is a temporary file in the same folder, flushed to the disk and renamed, so that a
reader sees the old file or the new one and never a part of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.resources
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from audiosearch.errors import AudioSearchError, StorageError, printable

__all__ = [
    "Closing",
    "atomic_path",
    "fsync_folder",
    "read_json",
    "resource_path",
    "sha256_file",
    "storage_errors",
    "write_json",
]

# Folders of the repository that are installed inside the package.
_TOP_FOLDERS = {"audiosearch._web": "web", "audiosearch._indexes": "indexes"}


class Closing:
    """Something that holds files or processes until `close`; a ``with`` block calls it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is held."""
        raise NotImplementedError


@contextlib.contextmanager
def storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into one clear sentence.

    Raises
    ------
    StorageError
        When the disk is full, or the file may not be written.
    """
    name = printable(os.fspath(path))
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"The disk is full: {name} could not be written. Free some space and run the same "
                "command again; what was reported done is safe."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(
                f"No permission to write {name}. Choose another folder or change its permissions."
            ) from error
        raise StorageError(f"{name} could not be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The folder is made where it is missing. When the block raises, `path` stays as it was. A private
    file can be read by its owner only.

    Raises
    ------
    StorageError
        When the disk is full, or the file may not be written.
    """
    target = Path(path)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp"
        )
        os.close(handle)
    temporary = Path(name)
    try:
        try:
            with storage_errors(target):
                yield temporary
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                # mkstemp makes private files; give the result what the umask would have given it.
                umask = os.umask(0)
                os.umask(umask)
                temporary.chmod(0o600 if private else 0o666 & ~umask)
                temporary.replace(target)
                fsync_folder(target.parent)
        except AudioSearchError:
            raise
    finally:
        temporary.unlink(missing_ok=True)


def fsync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the disk, where the system allows it (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; raise ``OSError`` or ``ValueError`` as the standard library does."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resource_path(package: str, *names: str) -> Path:
    """Return the path of a file or folder that is installed with audiosearch.

    Parameters
    ----------
    package : str
        The package that holds it, for example ``"audiosearch.data"``.
    *names : str
        Path inside the package.
    """
    try:
        folder = Path(str(importlib.resources.files(package)))
    except ModuleNotFoundError:
        # A checkout that was never installed: its top folders are not yet packages of ours.
        if package not in _TOP_FOLDERS:
            raise
        folder = Path(__file__).resolve().parent.parent / _TOP_FOLDERS[package]
    return folder.joinpath(*names)
