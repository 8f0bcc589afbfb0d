"""The manifest of a library: which format it has, and what made it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from audiosearch.embedders.base import EMBEDDING_SIZE, SPACE
from audiosearch.errors import (
    LibraryDamagedError,
    LibraryError,
    LibraryNotFoundError,
    LibraryVersionError,
    printable,
)
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.catalogue import Catalogue
from audiosearch.storage import read_json, storage_errors, write_json
from audiosearch.version import __version__

__all__ = [
    "AUTO_FACTORY",
    "CATALOGUE",
    "LIBRARY_FORMAT",
    "LOCK",
    "MANIFEST",
    "create_library",
    "iso_time",
    "mixed_maker",
    "read_manifest",
    "refuse_foreign",
]

LIBRARY_FORMAT = 2
AUTO_FACTORY = "auto"
"""The factory string of the vectors' index that leaves the choice to the library."""

MANIFEST = "manifest.json"
CATALOGUE = "catalogue.sqlite"
LOCK = "writer.lock"


def create_library(
    folder: str | os.PathLike[str],
    *,
    embedder: tuple[str, str | None],
    classifier: tuple[str, str],
) -> None:
    """Make an empty library.

    Parameters
    ----------
    folder : path-like
        Where; it must not hold a library, and is made where it is missing.
    embedder, classifier : (name, SHA-256 of the weights)
        What fills it. The embedder's hash is None for embeddings that AudioSet released.

    Raises
    ------
    LibraryError
        When the folder holds other things, which are left alone.
    StorageError
        When it cannot be written.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CATALOGUE).unlink(missing_ok=True)
    Catalogue.create(folder / CATALOGUE)
    write_json(
        folder / MANIFEST,
        {
            "kind": "audiosearch library",
            "format_version": LIBRARY_FORMAT,
            "audiosearch": __version__,
            "created": iso_time(time.time()),
            "embedder": {"name": embedder[0], "sha256": embedder[1], "space": SPACE},
            "classifier": {"name": classifier[0], "sha256": classifier[1], "classes": CLASS_COUNT},
            "scores": {"type": "uint8", "logit": "code / 16 - 9"},
            "vectors": {
                "type": "int8",
                "size": EMBEDDING_SIZE,
                "of": "mean of a clip's frames",
                "factory": AUTO_FACTORY,
            },
        },
    )


def mixed_maker(embedder: tuple[str, str | None], scored_by: str) -> dict[str, Any]:
    """Return what a manifest says of an embedder that is mixed in.

    Parameters
    ----------
    embedder : (name, SHA-256 of the weights)
    scored_by : str
        Hash of what scores its clips, see `audiosearch.library.scoring`.
    """
    return {"name": embedder[0], "sha256": embedder[1], "space": SPACE, "scored_by": scored_by}


def refuse_foreign(folder: Path) -> None:
    """Make sure that a library may be made in a folder, which need not exist.

    Raises
    ------
    LibraryError
        When it holds other things.
    StorageError
        When it cannot be listed, or is a file.
    """
    with storage_errors(folder):
        try:
            names = [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return
    # What an earlier try left behind, before it wrote the manifest.
    ours = (CATALOGUE, f"{CATALOGUE}-journal", LOCK)
    if any(name not in ours and not name.startswith(f".{MANIFEST}") for name in names):
        raise LibraryError(
            f"{printable(str(folder))} is not empty and holds no library. Name a new or empty "
            "folder with --library."
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of the library in a folder.

    Raises
    ------
    LibraryNotFoundError
        When there is none.
    LibraryVersionError
        When it belongs to another version.
    LibraryDamagedError
        When it cannot be read.
    """
    name = printable(str(folder))
    try:
        manifest = read_json(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        raise LibraryNotFoundError(
            f"There is no library in {name}. Make one with: audiosearch index FOLDER --library "
            f"{name}"
        ) from None
    except PermissionError:
        raise LibraryError(f"No permission to read {name}/{MANIFEST}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(name, f"cannot be read ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != "audiosearch library":
        raise LibraryNotFoundError(f"{name} holds something else than a library of audiosearch.")
    if manifest.get("format_version") != LIBRARY_FORMAT:
        raise LibraryVersionError(
            f"The library {name} has format {manifest.get('format_version')}, made by audiosearch "
            f"{manifest.get('audiosearch')}; this version ({__version__}) reads format "
            f"{LIBRARY_FORMAT}. Use that version, or index the sounds again into a new folder."
        )
    models = [manifest.get("embedder"), manifest.get("classifier"), *manifest.get("mixed_with", [])]
    known = all(isinstance(model, dict) and {"name", "sha256"} <= set(model) for model in models)
    known = known and isinstance(manifest.get("vectors"), dict)
    if not known or not {"audiosearch", "created"} <= set(manifest):
        raise _damaged(name, "does not say what made the library")
    return manifest


def iso_time(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _damaged(name: str, what: str) -> LibraryDamagedError:
    return LibraryDamagedError(
        f"{name}/{MANIFEST} {what}. Restore it from a backup, or delete the library's folder and "
        "index the sounds again."
    )
