"""Downloads over HTTP that survive a broken connection, and say what to do where they fail.

A file grows as ``NAME.part`` beside its target, with what the server said of it in
``NAME.part.json``. The next try, in this call or in a later one, asks for the rest only
(``Range``), provided that the server still has the very same file (``If-Range``). When all is
there and its checksum is right, the part is renamed to the target: a file that has its name is
whole.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiosearch.errors import DownloadError, StorageError, printable
from audiosearch.storage import read_json, sha256_file, storage_errors, write_json
from audiosearch.version import __version__

__all__ = ["Download", "DownloadProgress", "download"]

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30.0
# Pauses before the next try, as long as tries bring nothing; then the address is given up. One that
# never brought anything is given up earlier.
_PAUSES = (1.0, 2.0, 4.0, 8.0)
_FIRST_PAUSES = (1.0, 2.0)
_LONGEST_PAUSE = 60.0
_SPARE_BYTES = 50_000_000


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is.

    Attributes
    ----------
    name : str
        The file's name.
    done, total : int
        Bytes; the total is None where the server does not tell.
    """

    name: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Download:
    """What `download` brought.

    Attributes
    ----------
    path : Path
        The file.
    url : str
        Where it came from.
    sha256 : str
        Its checksum, 64 hexadecimal digits.
    """

    path: Path
    url: str
    sha256: str


class _RefusedError(Exception):
    """An address that will not do; the text says why."""


class _BrokenError(Exception):
    """A try that broke off and may be repeated, after `pause` seconds where the server says so."""

    def __init__(self, reason: str, *, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


def download(
    urls: Sequence[str],
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    begins: bytes = b"",
    by_hand: str = "",
    on_progress: Callable[[DownloadProgress], None] | None = None,
) -> Download:
    """Download a file from the first of several addresses that has it.

    Parameters
    ----------
    urls : sequence of str
        http or https addresses of the same file, tried in order.
    path : path-like
        The file to write; its folder is made where it is missing.
    sha256 : str, optional
        What its checksum must be.
    begins : bytes
        How its content must begin, so that the web page of a login is not taken for it.
    by_hand : str
        Ends the message of a failure: what else a user can do.
    on_progress : callable, optional
        Called with a `DownloadProgress` at the start and with every piece.

    Raises
    ------
    DownloadError
        When no address gives the whole file, or its checksum is another.
    StorageError
        When it cannot be written, or there is too little room for it.
    """
    target = Path(path)
    failures = []
    for url in urls:
        try:
            return _fetch(url, target, sha256, begins, on_progress)
        except _RefusedError as error:
            failures.append(f"{printable(url)}: {error}")
    part = _part(target)
    kept = ""
    with contextlib.suppress(OSError):
        kept = f" {part.stat().st_size:,} bytes are kept; the same command goes on there."
    raise DownloadError(
        f"{target.name} could not be downloaded. {' '.join(failures)}{kept} By hand: get the file "
        f"in another way and put it at {printable(str(target))}. {by_hand}".rstrip()
    )


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _fetch(
    url: str,
    target: Path,
    sha256: str | None,
    begins: bytes,
    on_progress: Callable[[DownloadProgress], None] | None,
) -> Download:
    """Download from one address, as often as it takes."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise _RefusedError("Only http and https addresses can be fetched.")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    pauses: tuple[float, ...] = _FIRST_PAUSES
    in_vain = 0
    while True:
        before = _size(part)
        try:
            md5 = _try(url, target, on_progress)
            break
        except _BrokenError as error:
            if _size(part) > before:
                pauses, in_vain = _PAUSES, 0
            if in_vain == len(pauses):
                raise _RefusedError(str(error)) from error
            time.sleep(pauses[in_vain] if error.pause is None else error.pause)
            in_vain += 1
    found = sha256_file(part)
    wrong = None
    if sha256 is not None and found != sha256.lower():
        wrong = f"its SHA-256 is {found}, not {sha256.lower()}"
    elif md5 is not None and md5 != _md5(part):
        wrong = "it is not what the server says that it sent"
    elif (start := _start(part, len(begins))) != begins:
        wrong = f"it begins with {start!r}"
    if wrong:
        _forget(target)
        raise _RefusedError(f"What came is another file or was damaged on the way: {wrong}.")
    with storage_errors(target):
        part.replace(target)
    _forget(target)
    return Download(target, url, found)


def _try(
    url: str, target: Path, on_progress: Callable[[DownloadProgress], None] | None
) -> bytes | None:
    """Ask for what is missing, once; return the MD5 that the server gives of the file, if any."""
    part = _part(target)
    note = _read_note(target, url)
    have = _size(part) if note else 0
    headers = {"User-Agent": f"audiosearch/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": str(note["validator"])}
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            _refuse_downgrade(url, response.geturl())
            if response.status == 206:
                total = _range_total(response, have)
                if total is None or total != note["total"]:
                    _forget(target)
                    raise _BrokenError("The server sent another part than was asked for.")
                md5 = note["md5"]
            else:
                have = 0
                total = _length(response)
                md5 = _md5_header(response)
                # The old part goes first: a note must never speak of other bytes than its part.
                _forget(target)
                _write_note(target, url, response, total, md5)
            _save(response, target, have, total, on_progress)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:
                _forget(target)
                raise _BrokenError("The server has less than was already downloaded.") from error
            reason = f"The server answered {error.code} ({error.reason})."
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _BrokenError(reason, pause=_retry_after(error)) from error
            raise _RefusedError(reason) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise _RefusedError(
                f"The server's certificate is not trusted ({error.reason.verify_message}). Check "
                "the clock, or set SSL_CERT_FILE to the certificates of your network."
            ) from error
        raise _BrokenError(f"No connection ({error.reason}).") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"The connection broke ({error or type(error).__name__}).") from error
    return None if md5 is None else base64.b64decode(md5)


def _save(
    response: Any,
    target: Path,
    have: int,
    total: int | None,
    on_progress: Callable[[DownloadProgress], None] | None,
) -> None:
    """Write what comes behind the `have` bytes that are there, to the disk."""
    with storage_errors(target):
        free = shutil.disk_usage(target.parent).free
        missing = 0 if total is None else total - have
    if missing + _SPARE_BYTES > free:
        raise StorageError(
            f"There is too little room for {target.name}: {missing:,} bytes are to come, and "
            f"{printable(str(target.parent))} has {free:,} left. Free some space, or name another "
            "folder with AUDIOSEARCH_MODELS, for data sets AUDIOSEARCH_DATASETS."
        )
    with contextlib.ExitStack() as stack:
        with storage_errors(target):
            file = stack.enter_context(_part(target).open("r+b" if have else "wb"))
            file.truncate(have)
            file.seek(have)
        done = have
        while True:
            if on_progress:
                on_progress(DownloadProgress(target.name, done, total))
            chunk = response.read(_CHUNK)
            if not chunk:
                break
            with storage_errors(target):
                file.write(chunk)
            done += len(chunk)
        with storage_errors(target):
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise _BrokenError(f"The connection broke after {done:,} of {total:,} bytes.")


def _read_note(target: Path, url: str) -> dict[str, Any]:
    """Return what is known of the file that is half here; empty where nothing can be used."""
    try:
        note = read_json(_note(target))
        fits = note["url"] == url and note["validator"] and isinstance(note["total"], int)
        if fits and (note["md5"] is None or len(base64.b64decode(note["md5"])) == 16):
            return {"validator": note["validator"], "total": note["total"], "md5": note["md5"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}


def _write_note(target: Path, url: str, response: Any, total: int | None, md5: str | None) -> None:
    etag = response.headers.get("ETag", "")
    # A weak ETag says that two files mean the same, not that their bytes are the same.
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    write_json(_note(target), {"url": url, "validator": validator, "total": total, "md5": md5})


def _forget(target: Path) -> None:
    with storage_errors(target):
        _part(target).unlink(missing_ok=True)
        _note(target).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _length(response: Any) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _range_total(response: Any, have: int) -> int | None:
    """Return the size of the whole file from ``Content-Range: bytes 5-99/100``, if it fits."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})", text.strip())
    if match is None or int(match[1]) != have or int(match[2]) != int(match[3]) - 1:
        return None
    return int(match[3])


def _md5_header(response: Any) -> str | None:
    """Return the MD5, in base64, that Google's storage sends as ``x-goog-hash: md5=...``."""
    for header in response.headers.get_all("x-goog-hash", []):
        match = re.search(r"\bmd5=([A-Za-z0-9+/]{22}==)", header)
        if match:
            return match[1]
    return None


def _md5(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    text = error.headers.get("Retry-After", "") if error.headers else ""
    return min(float(text), _LONGEST_PAUSE) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _refuse_downgrade(asked: str, answered: str) -> None:
    if asked.startswith("https:") and not answered.startswith("https:"):
        raise _RefusedError(f"It leads to {printable(answered)}, which is not encrypted.")
