"""The Python API: everything that the commands and the web app do is a call on this.

``import audiosearch`` offers these names without importing what they need.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.errors import AudioSearchError, LibraryNotFoundError
from audiosearch.library.library import Library
from audiosearch.library.manifest import MANIFEST
from audiosearch.storage import resource_path

__all__ = ["default_library", "embed", "open_library", "shipped_library"]

LIBRARY_VARIABLE = "AUDIOSEARCH_LIBRARY"


def shipped_library() -> Path:
    """Return the folder of the library that comes with audiosearch.

    It holds class scores and search vectors of 10,148 clips of AudioSet's evaluation set.
    """
    return resource_path("audiosearch._indexes", "audioset-eval")


def default_library() -> Path:
    """Return the folder of the user's library; it need not exist.

    It is the one that the environment variable ``AUDIOSEARCH_LIBRARY`` names, else a folder in
    the place where the system keeps a user's data.
    """
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("audiosearch", appauthor=False)) / "library"


def open_library(folder: str | os.PathLike[str] | None = None) -> Library:
    """Open a library for searching.

    Parameters
    ----------
    folder : path-like, optional
        Its folder. Where None, the user's library (see `default_library`); where there is none
        yet, the shipped one, whose ``shipped`` is then True.

    Raises
    ------
    LibraryNotFoundError
        When the folder, or the one that ``AUDIOSEARCH_LIBRARY`` names, holds no library.
    LibraryVersionError, LibraryDamagedError
        When it cannot be read.
    """
    shipped = shipped_library()
    if folder is not None:
        path = Path(folder)
        return Library(path, shipped=path.absolute() == shipped.absolute())
    path = default_library()
    if os.environ.get(LIBRARY_VARIABLE) or (path / MANIFEST).exists():
        return Library(path)
    try:
        return Library(shipped, shipped=True)
    except LibraryNotFoundError as error:
        raise AudioSearchError(
            f"The library that comes with audiosearch is missing from {shipped}. Install "
            "audiosearch again, or index your own sounds: audiosearch index FOLDER"
        ) from error


def embed(path: str | os.PathLike[str], *, embedder: str = "lite") -> npt.NDArray[np.uint8]:
    """Embed a sound file.

    Parameters
    ----------
    path : path-like
        The file.
    embedder : str
        Name of the embedder.

    Returns
    -------
    uint8 (n, 128)
        One row each 0.96 s, in the released VGGish space.

    Raises
    ------
    AudioError
        When the file is missing, unreadable or empty.
    ModelError
        When there is no such embedder.
    """
    from audiosearch import audio, frontend
    from audiosearch.embedders import get_embedder

    model = get_embedder(embedder)
    return np.concatenate(
        [model.embed_patches(patches) for patches in frontend.patches(audio.stream(path))]
    )
