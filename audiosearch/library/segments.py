"""Segments: immutable files that hold the bulk of a library, and the layout of all its files.

A library is a folder::

    manifest.json             format, embedder, classifier, the user's choices
    catalogue.sqlite          the truth: what exists, which files below count, and how far
    tail-N.rows, tail-N.frames   the newest clips, from clip N on: append-only, a row a clip
    segment-N.seg             older clips: immutable, a column a class
    neighbours-N.faiss, .json    derived from the vectors, see `audiosearch.library.neighbours`
    map.npz                   derived too, see `audiosearch.library.collection_map`
    writer.lock               held by the one process that writes
    thesaurus.toml            words of the user's own, where there are any
    own-*/                    a classifier of the user's own, see `audiosearch.library.own_classes`

**Layout.** New clips go to the tail, which is written in the order in which they come. When the
tail holds `SEAL_CLIPS` clips it is turned into a segment, and `MERGE_COUNT` neighbouring segments
of one size are merged into one, so that a library of n clips has a few times log n segments. A
segment is one file: arrays one after another, then a footer of JSON that names each with its type,
shape, place and CRC-32, then the footer's own length and CRC-32. Its arrays are

==================  ==========================================================================
``clips``           uint32 (n,): the number of each clip; ascending, with gaps where clips went
``recordings``      uint32 (n,): the catalogue's number of its recording; a recording's clips stand
                    together and never in two segments
``scores``          uint8 (columns, n): score codes, class by class, then the ontology's groups
                    (the noisy-or of their classes), so that one term reads one column
``postings``        uint32: for each column the rows that score at least `POSTED_CODE`, best first,
                    of equals the first clip first; a page of a term is a slice of it
``clip_counts``     uint32 (columns, 256): how many clips have each code: totals, and how long a
                    slice is, at any least score
``recording_counts``  uint32 (columns, 256): the same for recordings by their best clip: a
                    recording lies in one segment, so totals of segments may be added
``entry_offsets``, ``entry_classes``, ``entry_codes``  clip by clip the classes that score at least
                    `POSTED_CODE`, and never fewer than five, best first: tags, and why a clip
                    was found, without touching 527 columns
``vectors``         int8 (n, 128): search vectors
``frame_counts``    uint8 (n,): how many embedding frames a clip has here; 0 for a packed source,
                    which keeps its own
``frames``          uint8 (frames, 128)
==================  ==========================================================================

Arrays are mapped, not read: opening a segment reads its footer, and what no query asks for never
leaves the disk. Clips keep their number for good, also when a merge drops clips that were removed.

**Atomicity.** A segment is written under a temporary name, flushed and renamed; it exists when a
transaction of the catalogue lists it. The same transaction lets go of what it replaces (the tail
or the merged segments), whose files are deleted after it. So a reader that holds the old files goes
on with them, one that opens between the commit and the deletion finds all of the new, and one whose
files vanish under it asks the catalogue again. A process killed at any moment leaves at most files
that nothing lists: the next writer deletes them. Tail rows are written and flushed before the
catalogue commits their number; what stands beyond it is never looked at and overwritten. Readers
take nothing from the catalogue but what changed since they last looked: new segments, new rows of
the tail, new removals (an append-only table); while a writer commits they answer from what they
have.

**Failure policy.** What is the truth (catalogue, tail, segments) is never repaired by guessing: a
file that is missing, too short or has a broken footer is named when the library is opened, and left
as it is, because a backup may have it whole. Opening reads no bulk array, so a flipped bit within
one is found by `Segment.check`, which compares the checksums, and not at every start. What is
derived (the FAISS index) may be deleted or broken at any time: it is searched without, exactly, and
made again by the next writer.

Why not a row per (class, clip) in SQLite: counts take 50 ms, grouping seconds. Why not one growing
file a class: 672 files to flush at each commit. Why not clip-major as the tail is: one term would
read every byte of every clip.
"""

from __future__ import annotations

import functools
import json
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import LibraryDamagedError, LibraryError, printable
from audiosearch.library.blocks import Entries, Rows
from audiosearch.library.rollup import ROLLUP
from audiosearch.library.runs import Runs
from audiosearch.library.score_columns import columns_of

__all__ = ["END", "MAGIC", "MERGE_COUNT", "SEAL_CLIPS", "Segment", "segment_path"]

SEAL_CLIPS = 50_000
"""From how many clips on the tail becomes a segment."""

MERGE_COUNT = 8
"""How many neighbouring segments of one size are merged."""

MAGIC = b"audiosearch segment\n"
"""Ends a segment's file."""

END = struct.Struct("<QII")
"""Before `MAGIC`: length of the footer, its CRC-32, length of the magic."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of a segment."""
    return folder / f"segment-{number:06d}.seg"


class Segment:
    """One segment file, mapped.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    FileNotFoundError
        When it is missing: its caller knows whether it was merged away or lost.
    LibraryDamagedError
        When it is too short, or its footer is broken.
    LibraryError
        When it may not be read.
    """

    own: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except PermissionError:
            raise LibraryError(f"No permission to read {printable(str(path))}.") from None
        except (ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise self._damaged(f"cannot be read ({error})") from error
        footer = self._footer()
        try:
            self.rows = int(footer["clips"])
            stored = columns_of(tuple(tuple(group) for group in footer["groups"]))
            # Groups that were rolled up otherwise are not read: `compaction` makes them again.
            self.columns = stored if footer.get("rollup") == ROLLUP else columns_of(())
            self.posted_code = int(footer["posted_code"])
            self.single = bool(footer["single"])
            self._arrays = {name: self._array(**spec) for name, spec in footer["arrays"].items()}
            self._crc = {name: int(spec["crc32"]) for name, spec in footer["arrays"].items()}
            self.clips = self._arrays["clips"]
            self.first, self.stop = int(self.clips[0]), int(self.clips[-1]) + 1
            # Without gaps the numbers of clips say where they are, and need not be looked up.
            self._whole = self.stop - self.first == self.rows
            self.recordings = self._arrays["recordings"]
            self.vectors = self._arrays["vectors"]
            self._scores = self._arrays["scores"]
            self._postings = self._arrays["postings"]
            counts = self._arrays["clip_counts"]
            expected = (len(stored), self.rows)
            if self._scores.shape != expected or counts.shape != (expected[0], 256):
                raise ValueError("arrays of another shape")
            posted = counts[:, self.posted_code :].sum(axis=1, dtype=np.int64)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise self._damaged(f"has a footer that makes no sense ({error})") from error
        self._posting_offsets = np.concatenate(([0], np.cumsum(posted)))
        if self._posting_offsets[-1] != len(self._postings) or len(self.clips) != self.rows:
            raise self._damaged("contradicts itself")
        self._frame_offsets: npt.NDArray[np.int64] | None = None

    def clip_ids(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the numbers of clips by row."""
        if self._whole:
            return np.asarray(rows, np.int64) + self.first
        return self.clips[rows].astype(np.int64)

    def row_of(self, clip: int) -> int:
        """Return the row of a clip, -1 when it is not here."""
        if self._whole:
            return clip - self.first if self.first <= clip < self.stop else -1
        return int(self.rows_of(np.array([clip]))[0])

    def rows_of(self, clips: npt.NDArray[np.int64]) -> Rows:
        """Return the rows of clips, -1 for those that are not here."""
        if self._whole:
            return np.where((clips >= self.first) & (clips < self.stop), clips - self.first, -1)
        wanted = np.clip(clips, 0, 2**32 - 1).astype(np.uint32)  # one type: no copy of all clips
        rows = np.minimum(np.searchsorted(self.clips, wanted), self.rows - 1)
        return np.where(self.clips[rows] == clips, rows, -1)

    def column(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the score codes of a column, uint8 (rows,)."""
        return self._scores[number]

    def posting(self, number: int, count: int) -> npt.NDArray[np.uint32]:
        """Return the `count` best rows of a column, as far as they are posted."""
        first, stop = self._posting_offsets[number : number + 2]
        return self._postings[first : min(first + count, stop)]

    def clip_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many clips have each code in a column, int64 (256,)."""
        return self._arrays["clip_counts"][number].astype(np.int64)

    def recording_counts(self, number: int) -> npt.NDArray[np.int64]:
        """Return how many recordings have each code as their best in a column, int64 (256,)."""
        return self._arrays["recording_counts"][number].astype(np.int64)

    @functools.cached_property
    def runs(self) -> Runs:
        """Its recordings as runs of rows."""
        return Runs(self.recordings)

    def entries(self, rows: Rows, *, ordered: bool = True) -> Entries:
        """Return the best classes of some clips; see `Block.entries`."""
        offsets = self._arrays["entry_offsets"]
        starts = offsets[rows].astype(np.int64)
        counts = offsets[np.asarray(rows) + 1].astype(np.int64) - starts
        ends = np.cumsum(counts)
        at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)
        return (
            np.concatenate(([0], ends)),
            self._arrays["entry_classes"][at],
            self._arrays["entry_codes"][at],
        )

    def frame_counts(self) -> npt.NDArray[np.uint8]:
        """Return how many embedding frames each clip has here, uint8 (rows,)."""
        return self._arrays["frame_counts"]

    def frames(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of neighbouring rows, uint8 (n, 128)."""
        if self._frame_offsets is None:
            counts = np.cumsum(self.frame_counts(), dtype=np.int64)
            self._frame_offsets = np.concatenate(([0], counts))
        return self._arrays["frames"][self._frame_offsets[start] : self._frame_offsets[stop]]

    def check(self) -> list[str]:
        """Compare every array with its checksum; return the names of those that differ."""
        wrong = []
        for name, array in self._arrays.items():
            crc = 0
            flat = array.reshape(-1).view(np.uint8)
            for start in range(0, flat.size, 1 << 24):
                crc = zlib.crc32(flat[start : start + (1 << 24)].data, crc)
            if crc != self._crc[name]:
                wrong.append(name)
        return wrong

    def _footer(self) -> dict[str, Any]:
        tail = END.size + len(MAGIC)
        size = len(self._map)
        if size < tail or self._map[-len(MAGIC) :] != MAGIC:
            raise self._damaged(f"is cut off after {size:,} bytes")
        length, crc, _ = END.unpack(self._map[size - tail : size - len(MAGIC)])
        text = self._map[max(size - tail - length, 0) : size - tail]
        if len(text) != length or zlib.crc32(text) != crc:
            raise self._damaged("has a broken footer")
        footer: dict[str, Any] = json.loads(text)
        return footer

    def _array(self, *, offset: int, dtype: str, shape: list[int], crc32: int) -> np.ndarray:
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, kind, count, offset).reshape(shape)

    def _damaged(self, what: str) -> LibraryDamagedError:
        return LibraryDamagedError(
            f"{printable(str(self.path))} {what}, so the library is damaged. Restore the file "
            "from a backup, or delete the library's folder and index the sounds again."
        )
