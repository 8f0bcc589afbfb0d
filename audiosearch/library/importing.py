"""Putting recordings of another library, or of an exported file, into a library."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import LibraryMismatchError, printable
from audiosearch.jobs import Progress
from audiosearch.library.bundles import Bundle, Makers, Source, bundles_of, makers_of, read_bundles
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
    own_classes : bool
        Whether classes of the user's own come along.
    on_progress : callable, optional
        Called with a `Progress` whenever something was committed.
    """

    def __init__(
        self,
        library: Library,
        summary: ImportSummary,
        *,
        own_classes: bool,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._library = library
        self._summary = summary
        self._own_classes = own_classes
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
        """Add everything of a library: recordings, labels, the user's words.

        Raises
        ------
        LibraryMismatchError
            When something else makes it now than `makers`, which were checked.
        """
        with Library(path) as source:
            self._refuse_change(path, makers_of(source), makers)
            for bundle in read_bundles(source):
                self.put(bundle, makers)
            self.labels += copy_labels(source, self._library)
        words = path / THESAURUS
        if words.exists() and not (self._library.folder / THESAURUS).exists():
            with atomic_path(self._library.folder / THESAURUS) as temporary:
                shutil.copyfile(words, temporary)

    def take_file(self, path: Path, source: Source, makers: Makers) -> None:
        """Add everything of an exported file; errors are those of `take_library`."""
        self._refuse_change(path, source.makers, makers)
        for bundle in source.bundles:
            self.put(bundle, makers)

    def put(self, bundle: Bundle, makers: Makers) -> None:
        """Add some recordings.

        Of one that is here, in the same state of its file, all stays that is known here; what
        classifiers of the user's own heard there alone comes to it.

        Parameters
        ----------
        bundle : Bundle
            The recordings.
        makers : Makers
            What made them; own classifiers that it leaves out are left out here.
        """
        summary, origins = self._summary, bundle.origins
        places = [origin.path or (origin.packed_file, origin.packed_row) for origin in origins]
        firsts = {place: number for number, place in reversed(list(enumerate(places)))}
        once = np.array([firsts[place] == number for number, place in enumerate(places)], np.bool_)
        own, before, more = self._own_of(bundle, makers)
        wanted = once & np.array([self._is_new(origin) for origin in origins], np.bool_)
        more &= once & ~wanted
        summary.unchanged += len(origins) - int((wanted | more).sum())
        clips = np.repeat(wanted, [origin.clips for origin in origins])
        self._append(
            Bundle(
                [origin for origin, new in zip(origins, wanted, strict=True) if new],
                bundle.codes[clips],
                bundle.vectors[clips],
                bundle.frame_counts[clips],
                bundle.frames[np.repeat(clips, bundle.frame_counts)],
                OwnCodes(own.clips[clips], own.frames[clips]),
            )
        )
        starts = np.cumsum([0, *(origin.clips for origin in origins)])
        heard = {
            here.first_clip: (here, np.arange(starts[number], starts[number + 1]))
            for number, here in before.items()
            if more[number]
        }
        kept = sorted((here for here, _ in heard.values()), key=lambda here: here.first_clip)
        for mine in list(bundles_of(self._library, kept)) if kept else []:
            rows = np.concatenate([heard[origin.first_clip][1] for origin in mine.origins])
            self._append(replace(mine, own=OwnCodes(own.clips[rows], own.frames[rows])))
        if self._on_progress:
            done = summary.added + summary.updated + summary.unchanged
            self._on_progress(Progress(done, done, 0.0, 0))
        seal(self._library)

    def _refuse_change(self, path: Path, now: Makers, checked: Makers) -> None:
        if (now if self._own_classes else replace(now, own=())) != checked:
            raise LibraryMismatchError(
                f"{printable(str(path))} changed while it was read: it has other embeddings or "
                "other classifiers than a moment ago. What was taken before is safe. Do the same "
                "again."
            )

    def _append(self, bundle: Bundle) -> None:
        """Commit recordings; what was known of them is forgotten."""
        catalogue, origins = self._library.catalogue, bundle.origins
        if not origins:
            return
        contents = append_clips(
            self._library,
            [origin.clips for origin in origins],
            decode_scores(bundle.codes),
            bundle.vectors.astype(np.float32),
            frame_counts=bundle.frame_counts,
            frames=bundle.frames,
            own=bundle.own,
        )
        with catalogue.transaction():
            number, clip = catalogue.next_recording(), catalogue.lengths()["clips"]
            new = []
            for origin in origins:
                new.append(self._new(origin, number, clip))
                number, clip = number + 1, clip + origin.clips
            catalogue.add(new, frames=len(bundle.frames), contents=contents)
        self._summary.clips += len(bundle.codes)

    def _own_of(self, bundle: Bundle, makers: Makers) -> tuple[OwnCodes, dict[int, Origin], Bools]:
        """Return what is known of own classes, here and there, in the order of the library's.

        What was heard here of the same file counts first. And return which recordings are here, of
        the same file, and whether more is known with the source than was heard here.
        """
        library = self._library
        result = unheard_codes(len(bundle.codes), len(library.own.names))
        more = np.zeros(len(bundle.origins), np.bool_)
        if not makers.own:
            return result, {}, more
        sources, start = {}, 0
        for maker in makers.own:
            sources[maker.sha256] = slice(start, start + len(maker.classes))
            start += len(maker.classes)
        counts = np.array([origin.clips for origin in bundle.origins])
        firsts = np.cumsum(counts) - counts
        before = {
            number: here
            for number, origin in enumerate(bundle.origins)
            if (here := self._same_file(origin)) is not None
        }
        clips = np.full(len(counts), -1, np.int64)
        for number, here in before.items():
            clips[number] = here.first_clip
        stop, start = library.catalogue.lengths()["clips"], 0
        for each in library.own.classifiers:
            columns = slice(start, start + len(each.classes))
            start = columns.stop
            heard = each.heard(clips, stop) & (clips >= 0)
            source = sources.get(each.sha256)
            if source is not None:
                result.clips[:, columns] = bundle.own.clips[:, source]
                result.frames[:, :, columns] = bundle.own.frames[:, :, source]
                brings = result.clips[firsts, columns.start] > 0
                more |= brings & ~heard & (clips >= 0)
            for number in np.flatnonzero(heard).tolist():
                rows = slice(int(firsts[number]), int(firsts[number] + counts[number]))
                numbers = np.arange(clips[number], clips[number] + counts[number])
                result.clips[rows, columns] = each.read(numbers, stop).T
                result.frames[rows, :, columns] = each.read_frames(numbers, stop)
        return result, before, more

    def _same_file(self, origin: Origin) -> Origin | None:
        """Return a recording as it is here, of the same file in the same state."""
        known = None if origin.path is None else self._files.get(origin.path)
        if known is None or known.first_clip is None:
            return None
        if (known.size, known.mtime_ns) != (origin.size, origin.mtime_ns):
            return None
        (here,) = self._library.catalogue.origins(known.first_clip, 1)
        return here if (here.path, here.clips) == (origin.path, origin.clips) else None

    def _is_new(self, origin: Origin) -> bool:
        """Tell whether a recording is to be added: it is not there, or of an older file."""
        if origin.packed_file is not None:
            return (origin.packed_file[0], origin.packed_row) not in self._rows
        assert origin.path is not None
        known = self._files.get(origin.path)
        if known is None or known.reason is not None:
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
