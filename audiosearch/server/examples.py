"""Search by an uploaded file: keep it for one request only, tag it, find its nearest clips."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from werkzeug.datastructures import FileStorage

from audiosearch.errors import AudioSearchError, printable
from audiosearch.library.examples import Example
from audiosearch.library.hits import SearchResult
from audiosearch.server.asking import ByExample
from audiosearch.server.state import State
from audiosearch.storage import storage_errors

if TYPE_CHECKING:
    from audiosearch.tagging.tags import TagResult

__all__ = ["TooManyUploadsError", "analyze", "received", "shown_name"]

_LONGEST_NAME = 120


class TooManyUploadsError(AudioSearchError):
    """As many uploads as the server takes at once are being analysed."""


@contextlib.contextmanager
def received(upload: FileStorage, slots: threading.BoundedSemaphore) -> Iterator[Path]:
    """Yield the path of a temporary copy of an upload, deleted in every case.

    Parameters
    ----------
    upload : FileStorage
        What the client sent.
    slots : BoundedSemaphore
        One slot is held meanwhile: a few analyses at once fill the processor, and threads must be
        left for searching.

    Raises
    ------
    TooManyUploadsError
        When no slot is free.
    StorageError
        When the disk is full.
    """
    if not slots.acquire(blocking=False):
        raise TooManyUploadsError("Too many files are being analysed at the moment.")
    try:
        with tempfile.TemporaryDirectory(prefix="audiosearch-") as folder:
            # The ending tells decoders the format; nothing else of the client's name is used.
            ending = re.search(r"\.[A-Za-z0-9]{1,8}$", upload.filename or "")
            path = Path(folder, "example" + (ending[0].lower() if ending else ""))
            with storage_errors(path):
                upload.save(path)
            yield path
    finally:
        slots.release()


def analyze(
    state: State, path: Path, asked: ByExample, *, name: str, limit: int
) -> tuple[TagResult, SearchResult]:
    """Tag a file and find the clips of the library that sound like it; it is decoded once.

    Parameters
    ----------
    state : State
        The application's library, and the processes that decode.
    path : Path
        The file.
    asked : ByExample
        Which part of it, and what else, is searched by.
    name : str
        What the client calls it; the result shows this and not `path`.
    limit : int
        How many clips to find.

    Returns
    -------
    tags : TagResult
        The five best classes of the file.
    nearest : SearchResult
        The nearest clips, best first.

    Raises
    ------
    AudioError
        When the file cannot be decoded.
    InvalidArgumentError
        When the part does not lie in it.
    """
    from audiosearch.tagging.tags import from_analysis

    analysis = state.analyze(str(path))
    tags = dataclasses.replace(from_analysis(analysis, top=5), path=shown_name(name))
    likes = [Example(analysis.frames, asked.start, asked.end), *map(Example, asked.also)]
    found = state.library.similar(likes, unlike=asked.unlike, query=asked.query, limit=limit)
    return tags, found


def shown_name(name: str) -> str:
    """Return the last part of a client's file name, at a length that fits a page."""
    last = printable(PureWindowsPath(name).name) or "example"
    return last if len(last) <= _LONGEST_NAME else last[: _LONGEST_NAME - 1] + "…"
