"""Where fetched models lie, and how their files get there.

==============================  ===============================================================
``AUDIOSEARCH_MODELS``          the folder; by default a folder in the user's cache
``AUDIOSEARCH_OFFLINE``         1: nothing is downloaded
``AUDIOSEARCH_MODEL_MIRRORS``   addresses of folders that hold copies, separated by spaces; they
                                are asked first, in order, and then the publisher
==============================  ===============================================================

Each model has a folder of its own. Its ``accepted.json`` records the checksum of each file that
was once downloaded and found good, because the publisher gives none: what is downloaded later
must be the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosearch.downloads import Download, DownloadProgress, download
from audiosearch.errors import DownloadError, InvalidArgumentError, ModelError, printable
from audiosearch.storage import read_json, sha256_file, storage_errors, write_json

__all__ = [
    "MIRRORS_VARIABLE",
    "MODELS_VARIABLE",
    "OFFLINE_VARIABLE",
    "RemoteFile",
    "accept",
    "fetch_file",
    "is_offline",
    "locked",
    "mirrors",
    "model_folder",
    "model_root",
]

MODELS_VARIABLE = "AUDIOSEARCH_MODELS"
OFFLINE_VARIABLE = "AUDIOSEARCH_OFFLINE"
MIRRORS_VARIABLE = "AUDIOSEARCH_MODEL_MIRRORS"

_ACCEPTED = "accepted.json"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# Long enough for another process to convert a model, not for it to download one.
_LOCK_SECONDS = 300.0


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes
    ----------
    name : str
        What it is called here and on mirrors.
    urls : tuple of str
        Where its publisher serves it.
    begins : bytes
        How its content begins.
    seen_sha256 : str, optional
        The checksum that other projects recorded of it. It decides nothing.
    """

    name: str
    urls: tuple[str, ...]
    begins: bytes = b""
    seen_sha256: str | None = None


def model_root() -> Path:
    """Return the folder of fetched models; it need not exist."""
    named = os.environ.get(MODELS_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("audiosearch", appauthor=False)) / "models"


def model_folder(name: str) -> Path:
    """Return the folder of one fetched model; it need not exist."""
    return model_root() / name


def is_offline() -> bool:
    """Tell whether ``AUDIOSEARCH_OFFLINE`` forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


def mirrors(variable: str = MIRRORS_VARIABLE) -> tuple[str, ...]:
    """Return the addresses that a variable of the environment holds, without a slash at their end.

    Raises
    ------
    InvalidArgumentError
        When one is no http or https address.
    """
    found = tuple(os.environ.get(variable, "").split())
    for url in found:
        if not re.match(r"https?://[^/]", url):
            raise InvalidArgumentError(
                f"{variable} holds {printable(url)!r}, which is no http or https address. "
                "Separate addresses by spaces."
            )
    return tuple(url.rstrip("/") for url in found)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from changing a model while the block runs.

    Raises
    ------
    ModelError
        When another process does so for minutes.
    """
    import filelock

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise ModelError(
                f"Another process is fetching or converting what lies in {printable(str(folder))}. "
                "Wait until it has finished and run the same command again."
            ) from None
    try:
        yield
    finally:
        lock.release()


def fetch_file(
    remote: RemoteFile,
    folder: Path,
    *,
    sha256: str | None = None,
    offline: bool = False,
    by_hand: str = "",
    on_progress: Callable[[DownloadProgress], None] | None = None,
) -> Download:
    """Return a published file, from the folder where it is there already.

    A file that a user put there is as good as one that was downloaded.

    Parameters
    ----------
    remote : RemoteFile
        What to fetch.
    folder : Path
        The model's folder.
    sha256 : str, optional
        What its checksum must be; where None, the one that was accepted before, if any.
    offline : bool
        Download nothing, as ``AUDIOSEARCH_OFFLINE=1`` does.
    by_hand : str
        Ends the message of a failure: what else a user can do.
    on_progress : callable, optional
        As `audiosearch.downloads.download` takes it.

    Raises
    ------
    DownloadError
        When it cannot be had, or has another checksum.
    InvalidArgumentError
        When `sha256` is none.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise InvalidArgumentError("A SHA-256 has 64 hexadecimal digits.")
    path = folder / remote.name
    wanted = _wanted_urls(remote)
    if path.is_file():
        found = Download(path, "", sha256_file(path))
    elif offline or is_offline():
        raise DownloadError(
            f"{remote.name} was not fetched yet, and nothing is downloaded offline (--offline or "
            f"{OFFLINE_VARIABLE}). Its address: {wanted[0]} By hand: put it at "
            f"{printable(str(path))}. {by_hand}".rstrip()
        )
    else:
        found = download(
            wanted,
            path,
            sha256=sha256,
            begins=remote.begins,
            by_hand=by_hand,
            on_progress=on_progress,
        )
    expected, since = (sha256, "") if sha256 else _accepted(folder, remote.name)
    if expected is not None and found.sha256 != expected.lower():
        before = f"the one accepted on {since}" if since else "the one asked for"
        left = "Delete or replace it."
        if found.url:
            left = f"It came from {found.url} and was removed."
            with storage_errors(path):
                path.unlink()
        trust = f" If you trust the new one, delete {_ACCEPTED} beside it." if since else ""
        raise DownloadError(
            f"{printable(str(path))} has the SHA-256 {found.sha256}; {before} has {expected}. "
            f"{left}{trust} What was installed before stays as it is."
        )
    return found


def accept(folder: Path, files: list[Download]) -> None:
    """Record the checksums of files that were found good."""
    known = _read_accepted(folder)
    for file in files:
        known[file.path.name] = {
            "sha256": file.sha256,
            "url": file.url or None,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
    write_json(folder / _ACCEPTED, known)


def _wanted_urls(remote: RemoteFile) -> list[str]:
    return [*(f"{mirror}/{remote.name}" for mirror in mirrors()), *remote.urls]


def _accepted(folder: Path, name: str) -> tuple[str | None, str]:
    entry = _read_accepted(folder).get(name)
    if not isinstance(entry, dict) or not _SHA256.fullmatch(str(entry.get("sha256"))):
        return None, ""
    return str(entry["sha256"]).lower(), str(entry.get("date", "an earlier day"))


def _read_accepted(folder: Path) -> dict[str, Any]:
    """Return the record; one that is damaged is none, as the smoke test decides anyway."""
    try:
        known = read_json(folder / _ACCEPTED)
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
