"""A library that is open: its files, the state that searches see, and its vocabulary."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from audiosearch.errors import DataError
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.corrections import Corrections
from audiosearch.library.filters import Facts
from audiosearch.library.manifest import CATALOGUE, read_manifest
from audiosearch.library.neighbours import Neighbours
from audiosearch.library.own_classes import OwnClasses
from audiosearch.library.snapshot import Reader, Snapshot
from audiosearch.query import THESAURUS, Vocabulary, load_vocabulary, read_thesaurus
from audiosearch.storage import Closing

__all__ = ["OpenedLibrary"]


class OpenedLibrary(Closing):
    """What everything that a library does stands on; parameters are those of `Library`."""

    def __init__(
        self, folder: str | os.PathLike[str], *, writable: bool = False, shipped: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.writable = writable
        self.shipped = shipped
        self.manifest = read_manifest(self.folder)
        self.catalogue = Catalogue(self.folder / CATALOGUE, writable=writable)
        self._reader = Reader(self.folder, self.catalogue)
        self._neighbours = Neighbours(self.folder)
        self._lock = threading.Lock()
        self._neighbours_lock = threading.Lock()
        self.facts = Facts(self.catalogue)
        self._vocabulary: tuple[object, Vocabulary] | None = None
        self._corrections = Corrections(self.catalogue, 0)
        self.own = OwnClasses(self.folder, self.manifest)
        self._corrected: tuple[Snapshot, Snapshot] | None = None
        try:
            self.snapshot()
        except BaseException:
            self.catalogue.close()
            raise

    def close(self) -> None:
        """Close its files."""
        self.catalogue.close()

    def snapshot(self) -> Snapshot:
        """Return what the library holds now; another process may have added to it.

        While that is committing, this is what was there before.
        """
        return self._reader.snapshot()

    def neighbours(self, now: Snapshot) -> Neighbours:
        """Return what finds the nearest search vectors of a snapshot."""
        # A lock of its own: what is loaded first takes a moment, for which no other search waits.
        with self._neighbours_lock:
            self._neighbours = self._neighbours.following(now)
            return self._neighbours

    def corrections(self) -> Corrections:
        """Return the user's labels as searches use them now."""
        return self.labelled(self.snapshot())[1]

    def labelled_snapshot(self) -> Snapshot:
        """Return what the library holds now, with the user's labels in its scores."""
        return self.labelled(self.snapshot())[0]

    def labelled(self, now: Snapshot) -> tuple[Snapshot, Corrections]:
        """Return a snapshot in which the user's labels count, and these."""
        with self._lock:
            if self._corrected is None or self._corrected[0] is not now:
                before = self._corrections
                if before.version != now.lengths["labels"]:
                    self._corrections = Corrections(self.catalogue, now.lengths["labels"])
                said = self._corrections.applied(now)
                self._corrected = now, self.own.applied(now, said, self._corrections)
            return self._corrected[1], self._corrections

    def vocabulary(self) -> Vocabulary:
        """Return what words stand for here: with the user's own words and labels.

        Words are those of the library's ``thesaurus.toml``.

        Raises
        ------
        DataError
            When that file cannot be read; the message gives the line.
        """
        return self.words(self.corrections())

    def words(self, corrections: Corrections) -> Vocabulary:
        """Return the vocabulary with the user's words, and with labels of a certain moment."""
        path = self.folder / THESAURUS
        stamp, own_labels = None, corrections.own_labels
        try:
            state = path.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        own_classes = self.own.names
        if stamp is None and not own_labels and not own_classes:
            return load_vocabulary()
        with self._lock:
            key = stamp, own_labels, own_classes
            if self._vocabulary is None or self._vocabulary[0] != key:
                own_words = None if stamp is None else read_thesaurus(path)
                vocabulary = Vocabulary(
                    own_words=own_words, own_labels=own_labels, own_classes=own_classes
                )
                self._vocabulary = key, vocabulary
            return self._vocabulary[1]
