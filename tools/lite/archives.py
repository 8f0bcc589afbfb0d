"""Sound files inside packages: Debian's, npm's and Python's, and the containers within them.

A member of a container is named ``container!member``: the sounds of a game's ``.pk3`` (a zip file),
or the samples of a SoundFont.
"""

from __future__ import annotations

import fnmatch
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from audiosearch.errors import DataError, printable
from tools.lite.soundfont import read_soundfont

__all__ = ["SOUND_ENDINGS", "is_sound", "read_package"]

_NAMES = "aac aif aiff au flac gsm m4a mp3 oga ogg opus snd spx voc wav weba"
SOUND_ENDINGS = frozenset(f".{name}" for name in _NAMES.split())
"""Lower-case endings of the files that are taken for sounds."""

_ZIPS = frozenset([".zip", ".pk3", ".wz", ".love", ".jar", ".sb2", ".sb3"])
_SOUNDFONTS = frozenset([".sf2"])
_RESOURCES = frozenset([".gresource", ".rcc"])
_LICENCE_FILES = ("usr/share/doc/*/copyright", "package/package.json", "*.dist-info/METADATA")
_AR_MAGIC = b"!<arch>\n"
_OGG_PAGE, _OGG_FIRST, _OGG_LAST = b"OggS", 0x02, 0x04
_LARGEST = 64 << 20  # bytes of one sound; what is longer is an album, of which 40 s would be taken


def is_sound(name: str) -> bool:
    """Tell by its ending whether a member is taken for a sound."""
    return PurePosixPath(name).suffix.lower() in SOUND_ENDINGS


def read_package(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Read a package's sounds, and what it says of its licence.

    Parameters
    ----------
    archive : Path
        A ``.deb``, a tar file of any compression, a ``.whl`` or a ``.zip``.

    Yields
    ------
    tuple of (str, bytes)
        The path inside the package, and the content, of each sound and of the files
        ``copyright``, ``package.json`` and ``METADATA`` at their places.

    Raises
    ------
    DataError
        When the file is no such package or is damaged.
    """
    try:
        with archive.open("rb") as file:
            magic = file.read(len(_AR_MAGIC))
            file.seek(0)
            if magic == _AR_MAGIC:
                yield from _in_tar(_debian_data(file))
            elif zipfile.is_zipfile(archive):
                yield from _in_zip(file, "")
            else:
                yield from _in_tar(file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise DataError(f"{printable(str(archive))} is not a readable package: {error}") from error


def _debian_data(file: IO[bytes]) -> IO[bytes]:
    """Return a Debian package's file at the start of the tar archive of its files."""
    file.seek(len(_AR_MAGIC))
    while header := file.read(60):
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return file
        file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it has no data.tar")


def _in_tar(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() and _is_wanted(name, member.size):
                content = archive.extractfile(member)
                if content is not None:
                    yield from _opened(name, content)


def _in_zip(file: IO[bytes], inside: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.is_dir() and _is_wanted(member.filename, member.file_size):
                with archive.open(member) as content:
                    yield from _opened(inside + member.filename, content)


def _opened(name: str, content: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield a file, or the sounds of a container."""
    ending = PurePosixPath(name).suffix.lower()
    if ending in _SOUNDFONTS:
        for sample, data in read_soundfont(content.read()):
            yield f"{name}!{sample}", data
    elif ending in _RESOURCES:
        for number, sound in enumerate(ogg_streams(content.read()), start=1):
            yield f"{name}!{number:04d}.ogg", sound
    elif ending in _ZIPS:
        # A zip file is read from its end: it must be on the disk first.
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(content, copy)
            copy.seek(0)
            if zipfile.is_zipfile(copy):
                yield from _in_zip(copy, f"{name}!")
    else:
        yield name, content.read()


def ogg_streams(content: bytes) -> Iterator[bytes]:
    """Yield the Ogg files that lie uncompressed in another file, page by page to their ends."""
    at = content.find(_OGG_PAGE)
    while at >= 0:
        end, is_last = at, False
        # The byte after the capture pattern is the version, always 0.
        while content.startswith(_OGG_PAGE + b"\0", end) and len(content) >= end + 27:
            if is_last:
                break
            is_last = bool(content[end + 5] & _OGG_LAST)
            segments = content[end + 27 : end + 27 + content[end + 26]]
            end += 27 + len(segments) + sum(segments)
        if is_last and content[at + 5] & _OGG_FIRST:
            yield content[at:end]
        at = content.find(_OGG_PAGE, max(end, at + 1))


def _is_wanted(name: str, size: int) -> bool:
    ending = PurePosixPath(name).suffix.lower()
    if ending in SOUND_ENDINGS:
        return 0 < size <= _LARGEST
    if ending in _ZIPS | _SOUNDFONTS | _RESOURCES:
        return True
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _LICENCE_FILES)
