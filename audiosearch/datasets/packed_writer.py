"""Writing of packed HDF5 files: the layout that `audiosearch.datasets.packed` reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.labels import CLASS_COUNT

__all__ = ["VIDEO_ID_BYTES", "ClipRows", "write_packed_file"]

VIDEO_ID_BYTES = 11
"""Width of ``video_id_list`` in AudioSet's own files; wider where a name is longer."""

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class ClipRows:
    """Rows to be written.

    Attributes
    ----------
    x : uint8 (rows, 10, 128)
        Frames that a clip does not have are zero.
    n_frames : uint8 (rows,)
    names : list of bytes
        UTF-8.
    times : float32 (rows, 2)
        Start and end in seconds.
    labels : list of tuple of int, or None
        Class indices of each row; None where they are not known.
    """

    x: npt.NDArray[np.uint8]
    n_frames: npt.NDArray[np.uint8]
    names: list[bytes]
    times: npt.NDArray[np.float32]
    labels: Sequence[Sequence[int]] | None

    def __len__(self) -> int:
        return len(self.x)


def write_packed_file(
    path: str | os.PathLike[str],
    blocks: Iterable[ClipRows],
    *,
    count: int,
    name_bytes: int,
    labelled: bool,
    facts: Mapping[str, str],
) -> None:
    """Write rows to a new file, in little memory, and flush it to the disk.

    The same rows give the same bytes, however they are cut into blocks.

    Parameters
    ----------
    path : path-like
        Replaced where it exists.
    blocks : iterable of ClipRows
        `count` rows together.
    count : int
        How many.
    name_bytes : int
        Length of the longest name.
    labelled : bool
        Whether there are labels; without them the file has no ``y``.
    facts : mapping
        Attributes of the file.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    try:
        _write(path, blocks, count, name_bytes, labelled, facts)
    except RuntimeError as error:
        # Closing a file that a full disk cut off fails in another way than writing it did.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    with Path(path).open("rb+") as written:
        os.fsync(written.fileno())


def _write(
    path: str | os.PathLike[str],
    blocks: Iterable[ClipRows],
    count: int,
    name_bytes: int,
    labelled: bool,
    facts: Mapping[str, str],
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (count, CLIP_FRAMES, FRAME_VALUES), np.uint8)
        y = None
        if labelled:
            chunks = (min(_BLOCK_ROWS, count), CLASS_COUNT)
            y = file.create_dataset(
                "y", (count, CLASS_COUNT), bool, chunks=chunks, compression="gzip"
            )
        names = file.create_dataset("video_id_list", (count,), f"S{max(name_bytes, 1)}")
        n_frames = file.create_dataset("n_frames", (count,), np.uint8)
        start = file.create_dataset("start_time_seconds", (count,), np.float32)
        end = file.create_dataset("end_time_seconds", (count,), np.float32)
        file.attrs.update(facts)
        done = 0
        for rows in _recut(blocks):
            stop = done + len(rows)
            x[done:stop] = rows.x
            n_frames[done:stop] = rows.n_frames
            names[done:stop] = np.array(rows.names, names.dtype)
            start[done:stop] = rows.times[:, 0]
            end[done:stop] = rows.times[:, 1]
            if y is not None:
                assert rows.labels is not None
                truth = np.zeros((len(rows), CLASS_COUNT), bool)
                for row, classes in enumerate(rows.labels):
                    truth[row, list(classes)] = True
                y[done:stop] = truth
            done = stop
        assert done == count


def _recut(blocks: Iterable[ClipRows]) -> Iterable[ClipRows]:
    """Yield the same rows in blocks that are the chunks of the file."""
    held: list[ClipRows] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        while count >= _BLOCK_ROWS:
            joined = _joined(held)
            yield _cut(joined, 0, _BLOCK_ROWS)
            held = [_cut(joined, _BLOCK_ROWS, count)]
            count -= _BLOCK_ROWS
    if count:
        yield _joined(held)


def _cut(rows: ClipRows, start: int, stop: int) -> ClipRows:
    return ClipRows(
        rows.x[start:stop],
        rows.n_frames[start:stop],
        rows.names[start:stop],
        rows.times[start:stop],
        None if rows.labels is None else rows.labels[start:stop],
    )


def _joined(blocks: list[ClipRows]) -> ClipRows:
    if len(blocks) == 1:
        return blocks[0]
    labels: list[Sequence[int]] | None = []
    for block in blocks:
        if block.labels is None:
            labels = None
            break
        assert labels is not None
        labels.extend(block.labels)
    return ClipRows(
        np.concatenate([block.x for block in blocks]),
        np.concatenate([block.n_frames for block in blocks]),
        [name for block in blocks for name in block.names],
        np.concatenate([block.times for block in blocks]),
        labels,
    )
