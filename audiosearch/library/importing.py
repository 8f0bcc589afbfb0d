"""Putting recordings of another library, or of an exported file, into a library."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import LibraryMismatchError, printable
from audiosearch.jobs import Progress
from audiosearch.library.bundles import Bundle, Makers, read_bundles
from audiosearch.library.columns import decode_scores
from audiosearch.library.compaction import seal
from audiosearch.library.labelling import copy_labels
from audiosearch.library.library import Library
from audiosearch.library.own_scores import OwnCodes, unheard_codes
from audiosearch.library.recordings import KnownFile, NewRecording, Origin
from audiosearch.library.writer import append_clips
from audiosearch.query import THESAURUS
from audiosearch.storage import atomic_path

__all__ = ["ImportSummary", "Importer"]

Bools = npt.NDArray[np.bool_]


@dataclass
class ImportSummary:
    """What an import or a merge did.

    Attributes
    ----------
    library : str
        The library's folder.
    added, updated, unchanged : int
        Recordings. One that was there counts as updated when that of the source was made from a
        newer file, or was heard by a classifier of the user's own that had not heard it here; and
        as unchanged otherwise.
    clips : int
        How many clips were added.
    own_classifiers : list of str
        Classifiers of the user's own that the library has now and had not before.
    unheard : int
        Sound files in the library that not all of its own classifiers have heard; the next
        `audiosearch.index` of their folders lets them.
    elapsed : float
        How long it took, in seconds.
    """

    library: str
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    clips: int = 0
    own_classifiers: list[str] = field(default_factory=list)
    unheard: int = 0
    elapsed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


class Importer:
    """Puts bundles into a library whose lock is held.

    Parameters
    ----------
    library : Library
        Open for writing; it keeps the own classifiers of all sources.
    summary : ImportSummary
        Where recordings are counted.
    on_progress : callable, optional
        Called with a `Progress` whenever something was committed.
    """

    def __init__(
        self,
        library: Library,
        summary: ImportSummary,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._library = library
        self._summary = summary
        self._on_progress = on_progress
        self.labels = 0
        self._files = library.catalogue.known_files()
        self._rows: dict[tuple[bytes, int | None], Origin] = {}
        first = 0
        while origins := library.catalogue.origins(first, 5000):
            first = origins[-1].first_clip + 1
            for origin in origins:
                if origin.packed_file is not None:
                    self._rows[origin.packed_file[0], origin.packed_row] = origin

    def take_library(self, path: Path, makers: Makers) -> None:
        """Add everything of a library: recordings, labels, the user's words."""
        with Library(path) as source:
            for bundle in read_bundles(source):
                self.put(bundle, makers)
            self.labels += copy_labels(source, self._library)
        words = path / THESAURUS
        if words.exists() and not (self._library.folder / THESAURUS).exists():
            with atomic_path(self._library.folder / THESAURUS) as temporary:
                shutil.copyfile(words, temporary)

    def put(self, bundle: Bundle, makers: Makers) -> None:
        """Add some recordings.

        Parameters
        ----------
        bundle : Bundle
            The recordings.
        makers : Makers
            What made them; own classifiers that it leaves out are left out here.
        """
        catalogue, summary = self._library.catalogue, self._summary
        origins = bundle.origins
        places = [origin.path or (origin.packed_file, origin.packed_row) for origin in origins]
        firsts = {place: number for number, place in reversed(list(enumerate(places)))}
        own, more = self._own_of(bundle, makers)
        wanted = np.array(
            [
                firsts[place] == number and self._is_new(origin, hears_more=more[number])
                for number, (place, origin) in enumerate(zip(places, origins, strict=True))
            ],
            np.bool_,
        )
        origins = [origin for origin, new in zip(origins, wanted, strict=True) if new]
        summary.unchanged += len(wanted) - len(origins)
        clips = np.repeat(wanted, [origin.clips for origin in bundle.origins])
        counts = bundle.frame_counts[clips]
        if origins:
            frames = bundle.frames[np.repeat(clips, bundle.frame_counts)]
            contents = append_clips(
                self._library,
                [origin.clips for origin in origins],
                decode_scores(bundle.codes[clips]),
                bundle.vectors[clips].astype(np.float32),
                frame_counts=counts,
                frames=frames,
                own=OwnCodes(own.clips[clips], own.frames[clips]),
            )
            with catalogue.transaction():
                number, clip = catalogue.next_recording(), catalogue.lengths()["clips"]
                new = []
                for origin in origins:
                    new.append(self._new(origin, number, clip))
                    number, clip = number + 1, clip + origin.clips
                catalogue.add(new, frames=len(frames), contents=contents)
        summary.clips += int(clips.sum())
        if self._on_progress:
            done = summary.added + summary.updated + summary.unchanged
            self._on_progress(Progress(done, done, 0.0, 0))
        seal(self._library)

    def _own_of(self, bundle: Bundle, makers: Makers) -> tuple[OwnCodes, Bools]:
        """Return what is known of own classes, here and there, in the order of the library's.

        And for each recording whether there more is known than here, of the same file.
        """
        library = self._library
        result = unheard_codes(len(bundle.codes), len(library.own.names))
        more = np.zeros(len(bundle.origins), np.bool_)
        if not makers.own:
            return result, more
        sources, start = {}, 0
        for maker in makers.own:
            sources[maker.sha256] = slice(start, start + len(maker.classes))
            start += len(maker.classes)
        counts = np.array([origin.clips for origin in bundle.origins])
        firsts = np.cumsum(counts) - counts
        before = [self._same_file(origin) for origin in bundle.origins]
        clips = np.array([-1 if b is None else b.first_clip for b in before], np.int64)
        stop, start = library.catalogue.lengths()["clips"], 0
        for each in library.own.classifiers:
            here = slice(start, start + len(each.classes))
            start = here.stop
            heard = each.heard(clips, stop) & (clips >= 0)
            source = sources.get(each.sha256)
            brings = np.zeros(len(heard), np.bool_)
            if source is not None:
                result.clips[:, here] = bundle.own.clips[:, source]
                result.frames[:, :, here] = bundle.own.frames[:, :, source]
                brings = result.clips[firsts, here.start] > 0
            more |= brings & ~heard & (clips >= 0)
            for number in np.flatnonzero(heard & ~brings).tolist():
                rows = slice(int(firsts[number]), int(firsts[number] + counts[number]))
                numbers = np.arange(clips[number], clips[number] + counts[number])
                result.clips[rows, here] = each.read(numbers, stop).T
                result.frames[rows, :, here] = each.read_frames(numbers, stop)
        return result, more

    def _same_file(self, origin: Origin) -> KnownFile | None:
        """Return what is known of a recording's file, where it is here in the same state."""
        known = None if origin.path is None else self._files.get(origin.path)
        if known is None or known.first_clip is None:
            return None
        return known if (known.size, known.mtime_ns) == (origin.size, origin.mtime_ns) else None

    def _is_new(self, origin: Origin, *, hears_more: bool) -> bool:
        """Tell whether a recording is to be added: it is not there, or less is known of it."""
        if origin.packed_file is not None:
            return (origin.packed_file[0], origin.packed_row) not in self._rows
        assert origin.path is not None
        known = self._files.get(origin.path)
        if known is None or known.reason is not None or hears_more:
            return True
        return (origin.mtime_ns or 0) > known.mtime_ns

    def _new(self, origin: Origin, recording: int, clip: int) -> NewRecording:
        """Forget what was known of a recording, and return what is to be added."""
        catalogue = self._library.catalogue
        root = number = None
        if origin.packed_file is not None:
            path, size, mtime_ns = origin.packed_file
            found = catalogue.packed_file(path)
            if found is not None and found[1:3] != (size, mtime_ns):
                raise LibraryMismatchError(
                    f"{printable(os.fsdecode(path))} is in both libraries, from two states of the "
                    "file. Index it again into one of them first."
                )
            number = found[0] if found else catalogue.add_packed_file(path, size, mtime_ns)
            self._rows[path, origin.packed_row] = origin
            name = origin.name
            self._summary.added += 1
        else:
            assert origin.root is not None
            assert origin.path is not None
            known = self._files.get(origin.path)
            if known is not None:
                catalogue.forget(known)
            root, name = catalogue.add_root(origin.root), origin.name
            was_there = known is not None and known.reason is None
            self._summary.updated += was_there
            self._summary.added += not was_there
            size, mtime_ns = origin.size or 0, origin.mtime_ns or 0
            self._files[origin.path] = KnownFile(
                recording, root, name, origin.path, size, mtime_ns, first_clip=clip
            )
        return NewRecording(
            source=origin.source,
            name=name,
            start=origin.start,
            duration=origin.duration,
            clips=origin.clips,
            root=root,
            packed_file=number,
            packed_row=origin.packed_row,
            size=origin.size,
            mtime_ns=origin.mtime_ns,
            labels=origin.labels,
        )
