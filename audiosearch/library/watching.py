"""Keeping a library in step with folders: whenever something changes in them, it is indexed.

The system says that something changed; what it was is found out by `index`, which compares every
file with the library. So an event that is lost, or comes twice, or names a folder that was moved,
does no harm. Some drives, mostly those of a network, send no events at all: therefore everything is
looked at again now and then.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from audiosearch.audio import AUDIO_EXTENSIONS
from audiosearch.errors import (
    AudioSearchError,
    InvalidArgumentError,
    LibraryBusyError,
    LibraryDamagedError,
    LibraryMismatchError,
    LibraryVersionError,
    MissingDependencyError,
)
from audiosearch.jobs import MEMORY_LIMIT, TIME_LIMIT, Progress
from audiosearch.library.indexing import IndexSummary, index
from audiosearch.library.sources import PACKED_SUFFIXES, absolute, is_below

__all__ = ["watch"]

_TICK_MS = 500
_QUIET = 1.0  # seconds without a change before they are indexed: a file may still be written
_PATIENCE = 30.0  # after so many seconds of changes they are indexed all the same
_BUSY = 5.0  # seconds until the next try while another process is writing to the library


def watch(
    sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    library: str | os.PathLike[str],
    *,
    on_run: Callable[[IndexSummary], None] | None = None,
    on_error: Callable[[AudioSearchError], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    look_again: float = 300.0,
    keep_missing: bool = False,
    retry_skipped: bool = False,
    mix_embedders: bool = False,
    embedder: str = "lite",
    classifier: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    drop_classifier: Iterable[str] = (),
    vector_index: str | None = None,
    workers: int | None = None,
    time_limit: float = TIME_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
) -> None:
    """Index sources, and again whenever something in them changes, until `stop` is set.

    Parameters
    ----------
    sources, library
        As for `index`.
    on_run : callable, optional
        Called with the summary of the first run, and of each that changed the library or met files
        that could not be used.
    on_error : callable, optional
        Called with what kept a later run from being done, such as a drive that is not mounted; the
        watch goes on, and the same error is told once.
    on_progress : callable, optional
        As for `index`.
    stop : threading.Event, optional
        Ends the watch when it is set; a run that has begun is finished first.
    look_again : float
        After how many seconds without an event everything is looked at all the same.
    keep_missing, retry_skipped, mix_embedders, embedder, classifier, drop_classifier, vector_index
        As for `index`; all but `keep_missing`, `mix_embedders` and `embedder` hold for the first
        run.
    workers, time_limit, memory_limit
        As for `index`.

    Raises
    ------
    AudioSearchError
        When the first run cannot be done (see `index`), or the library can no longer be written.
    MissingDependencyError
        When watchfiles is not installed.
    InvalidArgumentError
        When `look_again` is not above 0.
    """
    if not look_again > 0:
        raise InvalidArgumentError(f"look_again must be above 0 seconds, not {look_again}.")
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "watchfiles", extra="watch", purpose="Watching a folder"
        ) from None
    stop = stop or threading.Event()
    known_bad: set[tuple[str, str]] = set()

    def run(first: bool = False) -> None:
        summary = index(
            listed,
            library,
            keep_missing=keep_missing,
            retry_skipped=retry_skipped and first,
            mix_embedders=mix_embedders,
            embedder=embedder,
            classifier=classifier if first else None,
            drop_classifier=drop_classifier if first else (),
            vector_index=vector_index if first else None,
            workers=workers,
            time_limit=time_limit,
            memory_limit=memory_limit,
            on_progress=on_progress,
        )
        bad = {(item.path, item.reason) for item in summary.skipped}
        changed = summary.added + summary.updated + summary.removed
        if not first:
            summary.skipped = [i for i in summary.skipped if (i.path, i.reason) not in known_bad]
        known_bad.clear()
        known_bad.update(bad)
        if on_run is not None and (first or changed or summary.skipped):
            on_run(summary)

    run(first=True)
    told = ""
    for _ in _reasons([Path(source) for source in listed], Path(library), stop, look_again):
        busy = True
        while busy and not stop.is_set():
            busy = False
            try:
                run()
                told = ""
            except (LibraryDamagedError, LibraryMismatchError, LibraryVersionError):
                raise
            except AudioSearchError as error:
                if on_error is not None and str(error) != told:
                    on_error(error)
                told = str(error)
                if busy := isinstance(error, LibraryBusyError):
                    stop.wait(_BUSY)


def _reasons(
    places: Sequence[Path], library: Path, stop: threading.Event, look_again: float
) -> Iterator[None]:
    """Yield whenever there is a reason to index: at once, after changes, and now and then."""
    own = {absolute(library), os.path.realpath(absolute(library))}
    roots = [absolute(place) for place in places]
    looked = -look_again  # what changed between the first run and the first event is not missed
    first = last = 0.0
    while not stop.is_set():
        identities = [_identity(place) for place in places]
        there = [p for p, who in zip(places, identities, strict=True) if who is not None]
        for changed in _changes(there, stop):
            now = time.monotonic()
            if any(_matters(path, gone, own, roots) for gone, path in changed):
                first, last = first or now, now
            # A folder that was replaced, or mounted, is not the one whose events come.
            replaced = [_identity(place) for place in places] != identities
            quiet = first and (now - last >= _QUIET or now - first >= _PATIENCE)
            if quiet or now - looked >= look_again or (replaced and not first):
                first = 0.0
                yield
                looked = time.monotonic()
            if replaced and not first:
                looked = -look_again
                break


def _changes(places: Sequence[Path], stop: threading.Event) -> Iterator[list[tuple[bool, bytes]]]:
    """Yield twice a second what changed, as (whether it is gone, path); often nothing."""
    if not places:
        while not stop.wait(_TICK_MS / 1000):
            yield []
        return
    from watchfiles import Change, watch

    def everything(change: Change, path: str) -> bool:
        return True

    for found in watch(
        *places,
        watch_filter=everything,
        debounce=_TICK_MS,
        rust_timeout=_TICK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        ignore_permission_denied=True,
    ):
        yield [(change is Change.deleted, os.fsencode(path)) for change, path in found]


def _matters(path: bytes, gone: bool, own: Collection[bytes], roots: Sequence[bytes]) -> bool:
    """Tell whether a change may be one of sounds."""
    if any(is_below(path, folder) for folder in own):
        return False
    for root in roots:
        if is_below(path, root):
            parts = path[len(root) :].split(os.sep.encode())
            if any(part.startswith(b".") for part in parts):
                return False
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()  # noqa: PTH122
    # What is gone may have been a folder.
    return gone or suffix in {*AUDIO_EXTENSIONS, *PACKED_SUFFIXES} or os.path.isdir(path)  # noqa: PTH112


def _identity(place: Path) -> tuple[int, int] | None:
    """Return what tells a folder or file from one that takes its place; None where it is gone."""
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
