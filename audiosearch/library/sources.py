"""What is to be indexed: sound files, found in folders or named, by their absolute paths.

Paths are bytes here, because a file name need not be text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audiosearch.audio import find_audio
from audiosearch.errors import AudioDecodeError, AudioError, AudioNotFoundError

__all__ = ["PACKED_SUFFIXES", "SoundFile", "Sources", "absolute", "find", "is_below"]

PACKED_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class SoundFile:
    """A sound file as it was found."""

    path: bytes
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Sources:
    """What the user named, and what was found there.

    Attributes
    ----------
    packed : list of Path
        Packed HDF5 files.
    sounds : list of Path
        Folders and sound files.
    files : dict
        The sound files by absolute path, sorted.
    unreadable : list of AudioError
        Files and folders that may not be looked at. What is in them may well exist.
    """

    packed: list[Path]
    sounds: list[Path]
    files: dict[bytes, SoundFile] = field(default_factory=dict)
    unreadable: list[AudioError] = field(default_factory=list)

    @property
    def folders(self) -> list[bytes]:
        """The folders among the sources."""
        return [absolute(path) for path in self.sounds if path.is_dir()]

    @property
    def roots(self) -> list[bytes]:
        """For each source the folder that its files may be relative to."""
        return [absolute(path if path.is_dir() else path.parent) for path in self.sounds]


def find(paths: Sequence[Path]) -> Sources:
    """Look for what is to be indexed.

    Raises
    ------
    AudioNotFoundError
        When one of the paths does not exist.
    AudioDecodeError
        When a folder that was named may not be listed.
    """
    for path in paths:
        # Path.exists raises for some of the paths that cannot exist, such as one too long.
        if not os.path.exists(path):  # noqa: PTH110
            raise AudioNotFoundError(os.fspath(path), "There is no such file or folder.")
    packed = [path for path in paths if path.suffix.lower() in PACKED_SUFFIXES and path.is_file()]
    result = Sources(packed, [path for path in paths if path not in packed])
    found: dict[bytes, SoundFile] = {}

    def refused(error: OSError) -> None:
        name = os.fsdecode(error.filename or "")
        result.unreadable.append(AudioDecodeError(name, f"{error.strerror}."))

    for source in result.sounds:
        listed = find_audio(source, on_error=refused) if source.is_dir() else [source]
        for path in listed:
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                refused(error)
                continue
            name = absolute(path)
            found[name] = SoundFile(name, status.st_size, status.st_mtime_ns)
    result.files.update(sorted(found.items()))
    return result


def absolute(path: str | os.PathLike[str]) -> bytes:
    """Return the absolute path, links in it kept as the user wrote them."""
    return os.path.abspath(os.fsencode(path))  # noqa: PTH100 - bytes


def is_below(path: bytes, folder: bytes) -> bool:
    """Tell whether a path is a folder or lies in it."""
    return path == folder or path.startswith(os.path.join(folder, b""))  # noqa: PTH118 - bytes
