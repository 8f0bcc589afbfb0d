"""Checking a library: what of it is whole, what was derived and can be made again, what is lost.

The truth (catalogue, tail, segments' scores, vectors and frames) is compared with its checksums and
with itself, and never repaired by guessing. What follows from it is made again: totals, the
postings, counts and entries of a segment, the index of the vectors.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.errors import (
    DataError,
    LibraryDamagedError,
    LibraryError,
    printable,
)
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.blocks import Block, Entries, Rows, entries_of
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.collection_map import MAP, is_map, read_map
from audiosearch.library.compaction import delete_unlisted, refresh_neighbours, unlisted_files
from audiosearch.library.findings import Finding, Kind, Verification
from audiosearch.library.index_files import index_paths
from audiosearch.library.indexing import writer_lock
from audiosearch.library.labelling import relink, wrong_links
from audiosearch.library.library import Library
from audiosearch.library.manifest import CATALOGUE, read_manifest
from audiosearch.library.own_verification import own_findings
from audiosearch.library.recordings import State
from audiosearch.library.segment_writer import write_segment
from audiosearch.library.segments import Segment, segment_path
from audiosearch.library.tail import tail_columns
from audiosearch.query import THESAURUS, read_thesaurus

__all__ = ["verify"]

# Arrays of a segment that follow from its others.
_DERIVED = {
    *("postings", "clip_counts", "recording_counts"),
    *("entry_offsets", "entry_classes", "entry_codes"),
}
_RECORDINGS_AT_ONCE = 5000


def verify(
    library: str | os.PathLike[str],
    *,
    repair: bool = True,
    sounds: bool = True,
) -> Verification:
    """Check every file of a library, and put right what follows from the rest of it.

    Parameters
    ----------
    library : path-like
        The library's folder.
    repair : bool
        Make derived files again where they are wrong; else only say so.
    sounds : bool
        Look whether the sound files are still there, and as they were.

    Raises
    ------
    LibraryNotFoundError
        When there is no library.
    LibraryVersionError
        When this version cannot read it.
    LibraryDamagedError
        When its manifest cannot be read: nothing can be said about the rest then.
    LibraryBusyError
        When another process is writing to it: what it has not committed looks like damage.
    """
    began = time.monotonic()
    folder = Path(library)
    read_manifest(folder)
    if not os.access(folder, os.W_OK):
        result = _Check(folder, repair=False).run(sounds=sounds)
    else:
        with writer_lock(folder):
            result = _Check(folder, repair=repair).run(sounds=sounds)
    result.elapsed = round(time.monotonic() - began, 3)
    return result


class _Check:
    """One run of `verify`; the caller holds the writer's lock where it repairs."""

    def __init__(self, folder: Path, *, repair: bool) -> None:
        self._folder = folder
        self._repair = repair
        self._left: list[Path] = []
        self.result = Verification(printable(str(folder)))

    def run(self, *, sounds: bool) -> Verification:
        """Check everything; each step needs that those before it found nothing lost."""
        self._check_thesaurus()
        clips = None
        try:
            opened = Catalogue(self._folder / CATALOGUE, writable=self._repair)
            with contextlib.closing(opened) as catalogue:
                if self._check_catalogue(catalogue):
                    state = catalogue.state()
                    clips = state.lengths["clips"]
                    self._left = unlisted_files(self._folder, state)
                    self._check_data(catalogue, state)
                    if sounds:
                        self._check_sounds(catalogue)
        except LibraryDamagedError as error:
            self._add("damaged", self._folder / CATALOGUE, str(error))
        self.result.findings.extend(own_findings(self._folder, clips, repair=self._repair))
        # What a stopped process left may be of use for restoring what is lost.
        if not any(finding.kind == "damaged" for finding in self.result.findings):
            self._check_derived()
        return self.result

    def _check_thesaurus(self) -> None:
        path = self._folder / THESAURUS
        if path.exists():
            try:
                read_thesaurus(path)
            except DataError as error:
                self._add("thesaurus", path, str(error))

    def _check_catalogue(self, catalogue: Catalogue) -> bool:
        """Return whether it can be relied on."""
        problems = catalogue.problems()
        if problems:
            reason = "; ".join(problems[:5])
            self._add(
                "damaged",
                catalogue.path,
                f"SQLite finds it damaged ({reason}). Restore it from a backup, or delete the "
                "library's folder and index the sounds again.",
            )
            return False
        spans, lengths = catalogue.spans(), catalogue.lengths()
        self.result.recordings, self.result.clips = len(spans), int(spans[:, 2].sum())
        stops = spans[:, 1] + spans[:, 2]
        if len(spans) and (
            (spans[:, 2] < 1).any()
            or (stops[:-1] > spans[1:, 1]).any()
            or spans[0, 1] < 0
            or stops[-1] > lengths["clips"]
        ):
            self._add(
                "damaged",
                catalogue.path,
                "Its recordings lie over one another or beyond the end of the data. Restore it "
                "from a backup, or delete the library's folder and index the sounds again.",
            )
            return False
        counted = (lengths["live_recordings"], lengths["live_clips"])
        if counted != (self.result.recordings, self.result.clips):
            repaired = self._repair
            if repaired:
                with catalogue.transaction():
                    catalogue.recount()
            self._add(
                "derived",
                catalogue.path,
                f"It counts {counted[0]:,} recordings and {counted[1]:,} clips and holds "
                f"{self.result.recordings:,} and {self.result.clips:,}.",
                repaired=repaired,
            )
        return True

    def _check_data(self, catalogue: Catalogue, state: State) -> None:
        """Check segments and tail, and that they hold what the catalogue says."""
        spans = catalogue.spans()
        for number, first, clips in state.segments:
            self._check_segment(catalogue, number, (first, clips), spans)
        first, rows = state.lengths["tail"], state.lengths["tail_rows"]
        columns = tail_columns(self._folder, first)
        try:
            data = columns[0].read(rows)
            columns[1].read(state.lengths["tail_frames"])
        except FileNotFoundError as error:
            self._add("damaged", Path(error.filename), _lost("is missing"))
            return
        except LibraryError as error:
            self._add("damaged", columns[0].path, str(error))
            return
        self.result.bytes_read += data.nbytes
        recordings = np.ascontiguousarray(data["recording"])
        wrong = _differs(recordings, np.arange(first, first + rows), spans)
        counts = data["frames"]
        if counts.sum(dtype=np.int64) != state.lengths["tail_frames"] or (
            len(counts) and counts.max() > CLIP_FRAMES
        ):
            wrong = wrong or "counts other frames than there are"
        if wrong:
            self._add("damaged", columns[0].path, _lost(wrong))

    def _check_segment(
        self,
        catalogue: Catalogue,
        number: int,
        listed: tuple[int, int],
        spans: npt.NDArray[np.int64],
    ) -> None:
        path = segment_path(self._folder, number)
        try:
            segment = Segment(path)
        except FileNotFoundError:
            self._add("damaged", path, _lost("is missing"))
            return
        except LibraryError as error:
            self._add("damaged", path, str(error))
            return
        self.result.segments += 1
        self.result.bytes_read += path.stat().st_size
        broken = set(segment.check())
        if broken - _DERIVED:
            names = ", ".join(sorted(broken - _DERIVED))
            self._add("damaged", path, _lost(f"differs from its checksum ({names})"))
            return
        wrong = (
            "is another segment than the catalogue lists"
            if (segment.first, segment.rows) != listed
            else _differs(segment.recordings, segment.clips.astype(np.int64), spans)
        )
        if wrong:
            self._add("damaged", path, _lost(wrong))
        elif broken:
            names = ", ".join(sorted(broken))
            problem = f"Arrays that follow from its scores differ from their checksums ({names})."
            if self._repair:
                self._rebuild(catalogue, number, segment)
            self._add("derived", path, problem, repaired=self._repair)

    def _rebuild(self, catalogue: Catalogue, number: int, segment: Segment) -> None:
        """Write a segment again from its scores, vectors and frames."""
        new = catalogue.next_segment()
        write_segment(segment_path(self._folder, new), [(cast(Block, _FromScores(segment)), None)])
        with catalogue.transaction():
            catalogue.forget_segments([number])
            catalogue.add_segment(new, segment.first, segment.rows)

    def _check_sounds(self, catalogue: Catalogue) -> None:
        packed: set[tuple[bytes, int, int]] = set()
        first = 0
        while origins := catalogue.origins(first, _RECORDINGS_AT_ONCE):
            first = origins[-1].first_clip + 1
            for origin in origins:
                if origin.path is not None:
                    self._check_sound(origin.path, origin.size, origin.mtime_ns)
                elif origin.packed_file is not None and origin.packed_file not in packed:
                    packed.add(origin.packed_file)
                    self._check_sound(*origin.packed_file)

    def _check_sound(self, path: bytes, size: int | None, mtime_ns: int | None) -> None:
        self.result.sounds += 1
        try:
            status = os.stat(path)  # noqa: PTH116 - bytes
        except OSError as error:
            reason = "It is no longer there" if isinstance(error, FileNotFoundError) else None
            self._add(
                "missing sound",
                os.fsdecode(path),
                f"{reason or f'It cannot be looked at ({error.strerror})'}. If it was "
                "moved, say so with `audiosearch relocate`; if it is gone for good, index its "
                "folder again.",
            )
            return
        if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
            self._add(
                "changed sound",
                os.fsdecode(path),
                "It was changed since it was indexed. Index it again.",
            )

    def _check_derived(self) -> None:
        """Check the index of the vectors, and look for what stopped processes left."""
        with Library(self._folder, writable=self._repair) as library:
            now = library.snapshot()
            number = now.lengths["neighbours"]
            if number and library.neighbours(now).facts is None:
                if self._repair:
                    refresh_neighbours(library)
                self._add(
                    "derived",
                    index_paths(self._folder, number)[0],
                    "The index of the vectors is missing or differs from its checksum; searches by "
                    "example compare all vectors meanwhile.",
                    repaired=self._repair,
                )
            elif number:
                self.result.bytes_read += index_paths(self._folder, number)[0].stat().st_size
            if is_map(self._folder) and read_map(self._folder) is None:
                if self._repair:
                    (self._folder / MAP).unlink(missing_ok=True)
                self._add(
                    "derived",
                    self._folder / MAP,
                    "The map of the collection is broken or of another version; it is laid out "
                    "anew when it is next looked at.",
                    repaired=self._repair,
                )
            wrong = wrong_links(library)
            if wrong:
                if self._repair:
                    relink(library)
                self._add(
                    "derived",
                    self._folder / CATALOGUE,
                    f"It says of {wrong:,} recordings wrongly whether they hold sounds that you "
                    "labelled.",
                    repaired=self._repair,
                )
            if self._repair:
                delete_unlisted(library)
        for path in self._left:
            text = "A process that was stopped left it; nothing uses it."
            self._add("leftover", path, text, repaired=self._repair and not path.exists())

    def _add(self, kind: Kind, path: str | Path, problem: str, *, repaired: bool = False) -> None:
        self.result.findings.append(Finding(kind, printable(str(path)), problem, repaired))


class _FromScores:
    """A segment whose entries are made from its scores."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __getattr__(self, name: str) -> Any:
        return getattr(self._segment, name)

    def entries(self, rows: Rows, *, ordered: bool = True) -> Entries:
        """Return the best classes of some clips."""
        codes = [self._segment.column(number)[rows] for number in range(CLASS_COUNT)]
        return entries_of(np.stack(codes, axis=1), ordered=ordered)


def _differs(
    recordings: npt.NDArray[np.uint32], clips: npt.NDArray[np.int64], spans: npt.NDArray[np.int64]
) -> str | None:
    """Say how the recordings of some clips differ from what the catalogue says of them.

    Clips that the catalogue does not know any more were removed.
    """
    if not len(clips):
        return None
    if (np.diff(clips) < 1).any():
        return "has clips out of order"
    here = spans[(spans[:, 1] >= clips[0]) & (spans[:, 1] <= clips[-1])]
    expected = np.repeat(here[:, 0], here[:, 2])
    ends = np.cumsum(here[:, 2])
    wanted = np.arange(len(expected)) + np.repeat(here[:, 1] - ends + here[:, 2], here[:, 2])
    at = np.minimum(np.searchsorted(clips, wanted), len(clips) - 1)
    if (clips[at] != wanted).any():
        return "lacks clips that the catalogue lists"
    if (recordings[at] != expected).any():
        return "holds other recordings than the catalogue lists"
    return None


def _lost(what: str) -> str:
    return (
        f"The file {what}. Restore it from a backup, or delete the library's folder and index the "
        "sounds again."
    )
