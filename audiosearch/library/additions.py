"""Adding one sound that came from elsewhere: it is copied beside the library, then indexed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path, PureWindowsPath

from audiosearch.audio import AUDIO_EXTENSIONS
from audiosearch.embedders import available_embedders
from audiosearch.errors import AudioDecodeError, AudioSearchError, LibraryError, printable
from audiosearch.library.hits import Clip
from audiosearch.library.indexing import index
from audiosearch.library.library import Library
from audiosearch.storage import atomic_path, storage_errors

__all__ = ["add_sound", "added_folder"]

_LONGEST_STEM = 150  # bytes; file systems take 255, some of which are the ending's
_ADDED_LAST = 100
_MOST_NAMES = 10_000


def added_folder(library: Library) -> Path:
    """Return the folder that added sounds are copied to: ``added`` in that of the library."""
    return library.folder.absolute() / "added"


def add_sound(library: Library, source: str | os.PathLike[str], *, name: str) -> Clip:
    """Copy a sound file to `added_folder`, index it, and return its first clip.

    Parameters
    ----------
    library : Library
        The library; it need not be open for writing.
    source : path-like
        The file. It stays where it is.
    name : str
        What the copy is called; what cannot be in a file's name is left out, and a number is put
        behind it where there is such a file.

    Raises
    ------
    LibraryError
        When it is the library that comes with audiosearch.
    LibraryBusyError
        When another process is indexing into the library.
    LibraryMismatchError
        When the library was made with another embedder or classifier.
    AudioError
        When the sound cannot be used; the copy is deleted again.
    StorageError
        When the disk is full, or the folder may not be written to.
    """
    if library.shipped:
        raise LibraryError(
            "The library that comes with audiosearch takes no sounds. Make one of your own: "
            "audiosearch index FOLDER"
        )
    target = _copied(Path(source), added_folder(library), name)
    try:
        embedder = library.manifest["embedder"]["name"]
        summary = index(
            target,
            library.folder,
            embedder=embedder if embedder in available_embedders() else "lite",
            mix_embedders=bool(library.manifest.get("mixed_with")),
            retry_skipped=True,
            workers=1,
        )
        shown = printable(str(target))
        for skipped in summary.skipped:
            if skipped.path == shown:
                raise AudioDecodeError(str(target), skipped.reason)
        clip = _clip_of(library, shown)
        if clip is None:
            raise LibraryError(f"{shown} was removed from this library a moment ago.")
        return clip
    except BaseException:
        # What was indexed before something else failed stays, and so does its file.
        with contextlib.suppress(AudioSearchError):
            if _clip_of(library, printable(str(target))) is None:
                target.unlink(missing_ok=True)
        raise


def _clip_of(library: Library, shown: str) -> Clip | None:
    """Return the first clip of a recording that was added a moment ago; None where it was not."""
    for first_clip, _ in library.catalogue.latest(_ADDED_LAST):
        clip = library.clip(first_clip)
        if clip.recording == shown:
            return clip
    return None


def _copied(source: Path, folder: Path, name: str) -> Path:
    """Copy a file into a folder under a name that is free there.

    Its ending is that of a sound; what another says of itself is not what it will be read as.
    """
    last = PureWindowsPath(name).name
    stem, dot, ending = last.rpartition(".")
    stem, ending = (stem, ending) if dot else (last, "")
    stem = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "", stem).strip(" .")
    stem = stem.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore") or "sound"
    endings = ("." + ending.lower(), source.suffix.lower())
    ending = next((each for each in endings if each in AUDIO_EXTENSIONS), ".sound")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, _MOST_NAMES):
            target = folder / (f"{stem} {number}{ending}" if number > 1 else f"{stem}{ending}")
            try:
                target.open("xb").close()  # the name is taken
            except FileExistsError:
                continue
            try:
                with atomic_path(target) as temporary:
                    shutil.copyfile(source, temporary)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            return target
    raise LibraryError(f"{printable(str(folder))} holds too many files called {printable(stem)}.")
