"""What a library held at one moment, as arrays with one value a clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from audiosearch.errors import LibraryDamagedError, LibraryError, printable
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import load_labels
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.columns import Column, decode_scores
from audiosearch.library.hits import Tag

__all__ = ["Snapshot", "read_snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """A library at one moment.

    Attributes
    ----------
    changes : int
        How often anything had been committed; another number means another content.
    codes : uint8 (clips, 527)
        Score codes, mapped from the file.
    vectors : int8 (clips, 128)
        Search vectors, mapped from the file.
    ids : int64 (recordings,)
        Recordings, in the order of their clips.
    recording : int64 (clips,)
        Position in `ids`; -1 for clips that were removed.
    start, end : float64 (clips,)
        Seconds from the start of the recording; for AudioSet's, of the video.
    """

    changes: int
    codes: npt.NDArray[np.uint8]
    vectors: npt.NDArray[np.int8]
    ids: npt.NDArray[np.int64]
    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]

    @cached_property
    def live(self) -> npt.NDArray[np.bool_]:
        """Which clips exist, bool (clips,)."""
        return self.recording >= 0

    @cached_property
    def live_clips(self) -> int:
        """How many clips exist."""
        return int(self.live.sum())

    def check(self, clip: int) -> None:
        """Raise `LibraryError` when there is no such clip."""
        if not 0 <= clip < len(self.recording) or self.recording[clip] < 0:
            raise LibraryError(
                f"There is no clip {clip} in this library; it has {self.live_clips:,} clips."
            )

    def tags(self, clip: int, top: int) -> list[Tag]:
        """Return the `top` best classes of a clip, best first; of equals the first class."""
        codes = np.asarray(self.codes[clip])
        labels = load_labels()
        return [
            Tag(labels[int(i)].name, labels[int(i)].mid, float(decode_scores(codes[i])))
            for i in np.argsort(-codes.astype(np.int16), kind="stable")[:top]
        ]


def read_snapshot(catalogue: Catalogue, scores: Column, vectors: Column) -> Snapshot:
    """Read what a library holds now.

    Raises
    ------
    LibraryBusyError
        When another process keeps the catalogue locked.
    LibraryDamagedError
        When a column is missing or too short, or the catalogue contradicts itself.
    """
    lengths, layout = catalogue.state()
    rows = lengths["clips"]
    first, counts = layout[:, 1].astype(np.int64), layout[:, 2].astype(np.int64)
    ends = first + counts
    if len(layout) and (
        (counts < 1).any() or first[0] < 0 or ends[-1] > rows or (ends[:-1] > first[1:]).any()
    ):
        raise LibraryDamagedError(
            f"{printable(str(catalogue.path))} contradicts itself, so the library is damaged. "
            "Restore the file from a backup, or delete the library's folder and index the sounds "
            "again."
        )
    recording = np.full(rows, -1, np.int64)
    start, end = np.zeros(rows), np.zeros(rows)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    at = np.repeat(first, counts) + number
    recording[at] = np.repeat(np.arange(len(layout)), counts)
    begin, duration = np.repeat(layout[:, 3], counts), np.repeat(layout[:, 4], counts)
    start[at] = begin + number * CLIP_SPAN
    is_last = number == np.repeat(counts, counts) - 1
    end[at] = np.where(is_last, begin + duration, begin + (number + 1) * CLIP_SPAN)
    end[at] = np.maximum(end[at], start[at])
    return Snapshot(
        lengths["changes"],
        scores.read(rows),
        vectors.read(rows),
        layout[:, 0].astype(np.int64),
        recording,
        start,
        end,
    )
