"""What every request of one application shares, and the small helpers of its routes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flask import Flask, abort, request

from audiosearch.errors import AudioError, LibraryError
from audiosearch.server.limits import Limits

if TYPE_CHECKING:
    from audiosearch.jobs import Analysis, WorkerPool
    from audiosearch.jobs.peaks import Peaks
    from audiosearch.library.library import Library

__all__ = ["ID", "PAGE_LIMIT", "State", "library_of", "no_such", "state_of", "whole_number"]

ID = "int(max=9223372036854775807)"
"""The URL converter of ids: SQLite's integers end there, and what is larger cannot exist."""

PAGE_LIMIT = 20
"""How many hits a page shows unless the URL says otherwise."""

_EXTENSION = "audiosearch"
_WORKERS = 2


class State:
    """What every request shares: the library, and the processes that analyse uploads.

    Parameters
    ----------
    library : Library
        The library that is shown.
    limits : Limits, optional
        What an upload may be.
    classifiers : sequence of str
        Folders of classifiers of the user's own that tag uploads, beside those of the library.
    """

    def __init__(
        self, library: Library, *, limits: Limits | None = None, classifiers: Sequence[str] = ()
    ) -> None:
        self.library = library
        self._classifiers = tuple(classifiers)
        _different(self._classifiers)  # here, where an error ends the start
        self._limits = limits or Limits()
        self.uploads = threading.BoundedSemaphore(self._limits.uploads_at_once)
        """One slot is held by each upload; threads must be left for searching."""
        self._lock = threading.Lock()
        self._pool: WorkerPool | None = None

    def attach(self, app: Flask) -> None:
        """Make this the state of `app`."""
        app.extensions[_EXTENSION] = self

    def analyze(self, path: str) -> Analysis:
        """Decode, embed and score a file in a process of its own, which a bad file may crash.

        It runs on what indexing and batch tagging run on, with limits of the server's own. The
        processes are started with the first file and kept for the next.

        Raises
        ------
        AudioError
            When the file cannot be used, or is longer than the limit.
        """
        from audiosearch.jobs import Segment

        longest = self._limits.upload_seconds
        pool = self._workers()
        # No more is decoded than tells that it is too long.
        found = pool.analyze(Segment(path, 0.0, longest + 1.0))
        self._refuse_long(path, found.duration)
        return found

    def peaks(self, path: str) -> Peaks:
        """Return the outline of a file's waveform, found in a process as `analyze` uses it.

        Raises
        ------
        AudioError
            When the file cannot be used, or is longer than the limit.
        """
        from audiosearch.jobs.peaks import PeaksOf

        chore = PeaksOf(path, self._limits.upload_seconds + 1.0)
        for done in self._workers().unordered([chore], tick=1.0):
            if done is not None:
                if isinstance(done[1], AudioError):
                    raise done[1]
                result: Peaks = done[1]
                self._refuse_long(path, result.duration)
                return result
        raise AudioError(path, "Its waveform could not be found.")

    def _refuse_long(self, path: str, seconds: float) -> None:
        longest = self._limits.upload_seconds
        if seconds > longest:
            raise AudioError(
                path,
                f"It is longer than {longest:,g} s, the longest sound that is taken. "
                "Give a shorter piece of it.",
            )

    def _workers(self) -> WorkerPool:
        """Return the processes, started where there are none yet."""
        with self._lock:
            if self._pool is None:
                from audiosearch.embedders import available_embedders
                from audiosearch.jobs import AnalyzerSettings, WorkerPool, core_count

                # AudioSet's released embeddings are met by the bundled embedder, whose space it is.
                name = self.library.info().embedder
                settings = AnalyzerSettings(
                    embedder=name if name in available_embedders() else "lite",
                    own=_different([*self.library.own.folders, *self._classifiers]),
                    memory_limit=self._limits.upload_memory,
                )
                self._pool = WorkerPool(
                    settings,
                    workers=min(_WORKERS, core_count()),
                    time_limit=self._limits.upload_time,
                )
            return self._pool

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


def _different(folders: Sequence[str]) -> tuple[str, ...]:
    """Return folders of classifiers, each classifier once, after a look whether they are usable."""
    if not folders:
        return ()
    from audiosearch.own.classifier import LabClassifier, load_classifiers

    found = {LabClassifier(folder).identity: folder for folder in reversed(folders)}
    kept = tuple(reversed(found.values()))
    load_classifiers(kept)
    return kept


def state_of(app: Flask) -> State:
    """Return the state of `app`."""
    state: State = app.extensions[_EXTENSION]
    return state


def library_of(app: Flask) -> Library:
    """Return the library that `app` shows."""
    return state_of(app).library


@contextlib.contextmanager
def no_such(what: str, number: int) -> Iterator[None]:
    """Answer 404 where the library says that it has no such clip or recording.

    Errors of the library itself (damaged, busy, made by another version) have classes of their
    own and pass through.
    """
    try:
        yield
    except LibraryError as error:
        if type(error) is not LibraryError:
            raise
        abort(404, str(error) or f"There is no {what} {number} in this library.")


def whole_number(name: str, default: int, *, smallest: int, largest: int) -> int:
    """Return a whole number of the query string, or answer 400 saying what is allowed."""
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and smallest <= int(text[:20]) <= largest):
        abort(400, f"'{name}' must be a whole number from {smallest:,} to {largest:,}.")
    return int(text)
