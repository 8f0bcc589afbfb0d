"""Packed HDF5 files of AudioSet embeddings, as IBM's and Kong's projects use them.

Data sets of a file, `n` clips:

==================== ================= ==========================================================
``x``                (n, 10, 128)      uint8, released VGGish embeddings; frames a clip does not
                                       have are zero
``y``                (n, 527)          bool or 0/1, true classes; may be missing where only
                                       embeddings are needed
``video_id_list``    (n,)              YouTube ids, bytes or text
``n_frames``         (n,), optional    how many of the 10 frames exist; where missing, trailing
                                       frames of zeros are taken for padding
``start_time_seconds``, (n,), optional float32; where missing, 0 and start + 10
``end_time_seconds``
==================== ================= ==========================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import DataError, InvalidArgumentError, printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.storage import Closing

__all__ = [
    "CLIP_FRAMES",
    "CLIP_SECONDS",
    "FRAME_VALUES",
    "RELEASED",
    "PackedClips",
    "PackedFile",
    "frame_mask",
]

CLIP_FRAMES = 10
FRAME_VALUES = 128
CLIP_SECONDS = 10.0

RELEASED = "audioset-release"
"""Names the embeddings that AudioSet released; no weights here make them."""

# What h5py raises where the bytes of a file are not what they should be.
_HDF5_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError)


@dataclass(frozen=True)
class PackedClips:
    """Some rows of a packed file.

    Attributes
    ----------
    x : uint8 (rows, 10, 128)
    n_frames : int64 (rows,)
    y : bool (rows, 527) or None
    """

    x: npt.NDArray[np.uint8]
    n_frames: npt.NDArray[np.int64]
    y: npt.NDArray[np.bool_] | None


class PackedFile(Closing):
    """A packed HDF5 file, open for reading.

    Parameters
    ----------
    path : path-like
        The file.
    labels : bool
        Whether ``y`` must be there.

    Raises
    ------
    DataError
        When it is missing, no HDF5 file, or not of this layout; the message says which part.
    """

    def __init__(self, path: str | os.PathLike[str], *, labels: bool = False) -> None:
        import h5py

        self.path = Path(path)
        self._name = printable(os.fspath(path))
        if not self.path.is_file():
            raise DataError(f"{self._name}: there is no such file.")
        try:
            self._file = h5py.File(self.path, "r")
        except _HDF5_ERRORS as error:
            raise DataError(
                f"{self._name} is not an HDF5 file, or it is truncated. Download or copy it again."
            ) from error
        try:
            self._check(labels)
        except _HDF5_ERRORS as error:
            self._file.close()
            raise self._damaged() from error
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return int(self._file["x"].shape[0])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def has_labels(self) -> bool:
        """Whether the true classes are known."""
        return "y" in self._file

    def attribute(self, name: str) -> str | None:
        """Return a text that stands in the file's attributes; None where there is none."""
        try:
            value = self._file.attrs.get(name)
        except _HDF5_ERRORS as error:
            raise self._damaged() from error
        return value if isinstance(value, str) else None

    def chunk_rows(self, name: str = "x") -> int:
        """Return how many rows of a data set are stored together; 1 where it is not chunked.

        Reading whole chunks decompresses each of them once.
        """
        chunks = self._file[name].chunks
        return 1 if chunks is None else int(chunks[0])

    def read(self, start: int = 0, stop: int | None = None, *, labels: bool = True) -> PackedClips:
        """Read rows `start` up to, not including, `stop` (the end where None).

        Without `labels` the result's ``y`` is None, which saves reading it.

        Raises
        ------
        InvalidArgumentError
            When the rows do not exist.
        DataError
            When the file cannot be read there, or what stands there cannot be.
        """
        stop = self._check_rows(start, stop)
        x = self._slice("x", start, stop)
        if "n_frames" in self._file:
            n_frames = self._slice("n_frames", start, stop).astype(np.int64)
            if len(n_frames) and not (n_frames.min() >= 1 and n_frames.max() <= CLIP_FRAMES):
                raise DataError(f"{self._name}: n_frames must be from 1 to {CLIP_FRAMES}.")
        else:
            filled = x.any(axis=2)
            last = CLIP_FRAMES - filled[:, ::-1].argmax(axis=1)
            n_frames = np.where(filled.any(axis=1), last, 1).astype(np.int64)
        y = self.read_labels(start, stop) if labels and self.has_labels else None
        return PackedClips(x, n_frames, y)

    def read_labels(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.bool_]:
        """Read the true classes of rows alone: bool (rows, 527); errors as in `read`."""
        stop = self._check_rows(start, stop)
        if not self.has_labels:
            raise DataError(f"{self._name} has no data set 'y': the true classes are needed here.")
        raw = self._slice("y", start, stop)
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            raise DataError(f"{self._name}: y holds values that are not finite.")
        return np.asarray(raw.astype(bool, copy=False))

    def blocks(self, size: int = 1024) -> Iterator[tuple[int, PackedClips]]:
        """Yield (first row, rows) over the whole file, `size` rows at a time."""
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))

    def video_ids(self) -> list[str]:
        """Return the YouTube ids of all rows; row numbers where the file has none."""
        if "video_id_list" not in self._file:
            return [f"row {row}" for row in range(len(self))]
        return [
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in self._slice("video_id_list", 0, len(self))
        ]

    def times(self) -> npt.NDArray[np.float64]:
        """Return (clips, 2): start and end of each clip in its video, in seconds."""
        if "start_time_seconds" in self._file:
            start = self._slice("start_time_seconds", 0, len(self)).astype(np.float64)
        else:
            start = np.zeros(len(self))
        if "end_time_seconds" in self._file:
            end = self._slice("end_time_seconds", 0, len(self)).astype(np.float64)
        else:
            end = start + CLIP_SECONDS
        times = np.stack([start, end], axis=1)
        if not np.isfinite(times).all() or (times < 0).any() or (end < start).any():
            raise DataError(f"{self._name}: start and end times must be finite and in order.")
        return times

    def _check_rows(self, start: int, stop: int | None) -> int:
        """Return where the rows end, if they exist."""
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise InvalidArgumentError(
                f"Rows {start} to {stop} are not in {self._name}, which has rows 0 to "
                f"{len(self) - 1}."
            )
        return stop

    def _slice(self, name: str, start: int, stop: int) -> Any:
        try:
            return self._file[name][start:stop]
        except _HDF5_ERRORS as error:
            raise self._damaged() from error

    def _damaged(self) -> DataError:
        return DataError(
            f"{self._name} is truncated or damaged: a part of it cannot be read. Download or copy "
            "it again."
        )

    def _check(self, labels: bool) -> None:
        file, name = self._file, self._name
        if "x" not in file:
            raise DataError(
                f"{name} has no data set 'x', so it holds no packed embeddings; it has: "
                f"{', '.join(sorted(file)) or 'nothing'}."
            )
        x = file["x"]
        if not hasattr(x, "shape") or x.ndim != 3 or x.shape[1:] != (CLIP_FRAMES, FRAME_VALUES):
            raise DataError(
                f"{name}: 'x' must have the shape (clips, {CLIP_FRAMES}, {FRAME_VALUES}), not "
                f"{getattr(x, 'shape', 'a group')}."
            )
        if x.dtype != np.uint8:
            raise DataError(
                f"{name}: 'x' must hold 8-bit embeddings (uint8) as AudioSet released them, not "
                f"{x.dtype}."
            )
        if x.shape[0] == 0:
            raise DataError(f"{name} holds no clips.")
        if labels and "y" not in file:
            raise DataError(f"{name} has no data set 'y': the true classes are needed here.")
        if "y" in file and file["y"].shape != (x.shape[0], CLASS_COUNT):
            raise DataError(
                f"{name}: 'y' must have the shape ({x.shape[0]}, {CLASS_COUNT}), not "
                f"{file['y'].shape}. Files of another class list cannot be used."
            )
        if "y" in file and file["y"].dtype.kind not in "buif":
            raise DataError(f"{name}: 'y' must hold 0 and 1, not {file['y'].dtype}.")
        for key in ("video_id_list", "n_frames", "start_time_seconds", "end_time_seconds"):
            if key in file and file[key].shape != (x.shape[0],):
                raise DataError(
                    f"{name}: '{key}' must have the shape ({x.shape[0]},), not {file[key].shape}."
                )


def frame_mask(n_frames: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
    """Return float32 (clips, 10): 1 where a clip has a frame, 0 where there is padding."""
    return (np.arange(CLIP_FRAMES) < np.asarray(n_frames)[:, None]).astype(np.float32)
