"""What one classifier of the user's own says of each clip of a library, on disk.

The classifier's folder in the library holds, beside its own files, three that grow with the clips.
They have a row for each clip, counted from the clip that was the next when the classifier was
added:

===============  ===========================================================================
``scores.rows``  the score codes of the clip, a byte a class
``frames.rows``  those of each of its ten frames of 0.96 s; 0 where the clip is shorter
``sums.rows``    a checksum of both
===============  ===========================================================================

Each is a column as the tail's are (`audiosearch.library.columns`): its rows are written before the
catalogue commits their clips. A row without a checksum was not heard: nothing listened, or it was a
version that kept scores alone, of which frames and checksums are missing. Clips keep their numbers
for good, so segments may be sealed and merged without a look at these files.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES
from audiosearch.errors import LibraryDamagedError
from audiosearch.library.columns import Column, encode_scores
from audiosearch.library.manifest import read_manifest
from audiosearch.storage import atomic_path

__all__ = [
    "MODEL_FILES",
    "Codes",
    "OwnClassifier",
    "OwnCodes",
    "OwnMaker",
    "own_codes",
    "own_folder",
    "unheard_codes",
]

MODEL_FILES = ("classifier.onnx", "classifier.json", "MODEL_CARD.md")
"""What makes a classifier, as `audiosearch.lab` writes it."""

_SCORES, _FRAMES, _SUMS = "scores.rows", "frames.rows", "sums.rows"
_LEAST = np.uint8(1)  # of a clip that was heard; 0 stands for one that was not
_ROWS_AT_ONCE = 1 << 14

Codes = npt.NDArray[np.uint8]


class OwnCodes(NamedTuple):
    """Score codes for own classes.

    Attributes
    ----------
    clips : uint8 (n, own classes)
        Of clips.
    frames : uint8 (n, 10, own classes)
        Of their frames.
    """

    clips: Codes
    frames: Codes


def own_codes(
    scores: npt.NDArray[np.float32], frames: npt.NDArray[np.float32], counts: npt.NDArray[np.uint8]
) -> OwnCodes:
    """Return what was heard as it is stored.

    Parameters
    ----------
    scores : float32 (n, own classes)
        Of clips.
    frames : float32 (m, own classes)
        Of all their frames.
    counts : uint8 (n,)
        How many frames each clip has.
    """
    result = np.zeros((len(scores), CLIP_FRAMES, scores.shape[1]), np.uint8)
    result[np.arange(CLIP_FRAMES) < counts[:, None]] = np.maximum(encode_scores(frames), _LEAST)
    return OwnCodes(np.maximum(encode_scores(scores), _LEAST), result)


def unheard_codes(count: int, classes: int) -> OwnCodes:
    """Return what stands for clips that no classifier has heard."""
    return OwnCodes(
        np.zeros((count, classes), np.uint8), np.zeros((count, CLIP_FRAMES, classes), np.uint8)
    )


def own_folder(sha256: str) -> str:
    """Return the name of the folder that a classifier has in a library."""
    return f"own-{sha256[:12]}"


@dataclass(frozen=True)
class OwnMaker:
    """A classifier of the user's own, as scores that travel name it.

    Attributes
    ----------
    name, sha256 : str
        What it is called, and the hash of all that its scores depend on.
    classes : tuple of str
        Its classes.
    folder : Path or None
        Where the classifier itself is; None where it is not at hand, or it is not known.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]
    folder: Path | None = None

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-ready values, without the folder."""
        return {"name": self.name, "sha256": self.sha256, "classes": list(self.classes)}


@dataclass(frozen=True)
class OwnClassifier:
    """A classifier of a library.

    Attributes
    ----------
    folder : Path
        Where it is kept.
    name, sha256, classes
        As those of an `OwnMaker`.
    since : int
        The first clip that has a row.
    scores_only : bool
        Whether only its scores came here, from an exported file, and not the classifier.
    """

    folder: Path
    name: str
    sha256: str
    classes: tuple[str, ...]
    since: int
    scores_only: bool = False

    @property
    def maker(self) -> OwnMaker:
        """What travels with its scores."""
        folder = None if self.scores_only else self.folder
        return OwnMaker(self.name, self.sha256, self.classes, folder)

    def write(self, first: int, heard: OwnCodes) -> None:
        """Write the rows of new clips from number `first` on.

        What was written beyond them without being committed is overwritten.

        Raises
        ------
        StorageError
            When the disk is full; what was committed stays.
        """
        clips, frames = heard
        rows = np.ascontiguousarray(frames.reshape(len(clips), self._width(_FRAMES)))
        committed = first - self.since
        if committed and self._kept_scores_alone():
            # The frames come last: where they are, all is.
            for name in (_SUMS, _FRAMES):
                with atomic_path(self.folder / name) as temporary:
                    temporary.touch()
                    os.truncate(temporary, committed * self._width(name))
        self._column(_SCORES).append(committed, clips)
        self._column(_FRAMES).append(committed, rows)
        self._column(_SUMS).append(committed, _sums(clips, rows).view(np.uint8).reshape(-1, 4))

    def read(self, clips: npt.NDArray[np.int64], stop: int) -> Codes:
        """Return the score codes of clips below number `stop`, class by class, uint8 (k, n).

        Those of clips that were not heard are 0.

        Raises
        ------
        LibraryDamagedError
            When a file is missing or shorter than what was committed, here and below.
        """
        return np.ascontiguousarray(self._heard_rows(_SCORES, clips, stop).T)

    def read_frames(self, clips: npt.NDArray[np.int64], stop: int) -> Codes:
        """Return the codes of the frames of clips below number `stop`, uint8 (n, 10, k)."""
        return self._heard_rows(_FRAMES, clips, stop).reshape(len(clips), CLIP_FRAMES, -1)

    def heard(self, clips: npt.NDArray[np.int64], stop: int) -> npt.NDArray[np.bool_]:
        """Return which clips below number `stop` it has heard, bool (n,)."""
        sums = self._read(_SUMS, clips, stop).view(np.uint32)
        return sums[:, 0] != 0

    def problem(self, stop: int) -> str | None:
        """Return what is wrong with the rows of the clips below number `stop`, None for nothing.

        Raises
        ------
        LibraryDamagedError
            When a file cannot be read.
        """
        rows = max(stop - self.since, 0)
        if rows and self._kept_scores_alone():
            return None  # nothing of it is used
        for name in (_SCORES, _FRAMES, _SUMS):
            path = self.folder / name
            size = path.stat().st_size if path.exists() else 0
            if size < rows * self._width(name):
                return f"{name} has {size:,} of {rows * self._width(name):,} bytes"
        wrong = 0
        for first in range(0, rows, _ROWS_AT_ONCE):
            here = np.arange(first, min(first + _ROWS_AT_ONCE, rows)) + self.since
            scores, frames, stored = (self._read(n, here, stop) for n in (_SCORES, _FRAMES, _SUMS))
            sums = stored.view(np.uint32)[:, 0]
            # Scores without frames and a checksum are of a version that kept them alone.
            alone = (sums == 0) & ~frames.any(axis=1)
            wrong += int(((_sums(scores, frames) != sums) & ~alone).sum())
        return f"the scores of {wrong:,} clips differ from their checksums" if wrong else None

    def _width(self, name: str) -> int:
        width = len(self.classes)
        return {_SCORES: width, _FRAMES: CLIP_FRAMES * width, _SUMS: 4}[name]

    def _column(self, name: str) -> Column:
        return Column(self.folder / name, np.dtype(("u1", (self._width(name),))))

    def _kept_scores_alone(self) -> bool:
        """Tell whether a version filled the folder that kept no frames and no checksums."""
        return (self.folder / _SCORES).exists() and not (self.folder / _FRAMES).exists()

    def _heard_rows(self, name: str, clips: npt.NDArray[np.int64], stop: int) -> Codes:
        rows = self._read(name, clips, stop)
        rows[~self.heard(clips, stop)] = 0
        return rows

    def _read(self, name: str, clips: npt.NDArray[np.int64], stop: int) -> Codes:
        """Return rows of a file; zeros for clips that came before the classifier."""
        result = np.zeros((len(clips), self._width(name)), np.uint8)
        rows, column = max(stop - self.since, 0), self._column(name)
        try:
            stored = column.read(rows)
        except FileNotFoundError:
            if name != _SCORES and self._kept_scores_alone():
                return result
            if self._was_let_go():
                return result
            raise column.damaged("is missing") from None
        except LibraryDamagedError:
            if self._was_let_go():
                return result
            raise
        at = np.flatnonzero((clips >= self.since) & (clips < self.since + rows))
        result[at] = stored[clips[at] - self.since]
        return result

    def _was_let_go(self) -> bool:
        """Tell whether the library forgot the classifier after it was opened."""
        manifest = read_manifest(self.folder.parent)
        kept = [(e["sha256"], e["since"]) for e in manifest.get("own_classifiers", [])]
        return (self.sha256, self.since) not in kept


def _sums(clips: Codes, frames: Codes) -> npt.NDArray[np.uint32]:
    """Return the checksum of each row, uint32 (n,); 0 for one of zeros, which was not heard."""
    rows = np.concatenate([clips, frames], axis=1)
    found = (zlib.crc32(row.tobytes()) or 1 if row.any() else 0 for row in rows)
    return np.fromiter(found, np.uint32, len(rows))
