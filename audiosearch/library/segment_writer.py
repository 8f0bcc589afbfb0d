"""Writing segments; `audiosearch.library.segments` explains the file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.library.blocks import POSTED_CODE, Block, Entries, Rows, posting_of
from audiosearch.library.rollup import ROLLUP, roll_up
from audiosearch.library.score_columns import current_columns
from audiosearch.library.segments import END, MAGIC
from audiosearch.storage import atomic_path

__all__ = ["write_segment"]

_ALIGN = 4096
_CHUNK = 1 << 16


def write_segment(path: Path, blocks: Sequence[tuple[Block, Rows | None]]) -> None:
    """Write one segment of the clips of some blocks, atomically.

    Parameters
    ----------
    path : Path
        The file; replaced where it exists.
    blocks : sequence of (Block, int64 rows or None)
        The blocks, in the order of their clips, and which rows of each are kept; all where None.

    Raises
    ------
    StorageError
        When the disk is full or the file may not be written; there is no part of it then.
    """
    columns = current_columns()
    kept = [(b, np.arange(b.rows) if rows is None else rows) for b, rows in blocks]
    recordings = np.concatenate([b.recordings[rows] for b, rows in kept])
    starts = np.flatnonzero(np.diff(recordings, prepend=np.uint32(0)))  # they count from 1
    single = len(starts) == len(recordings)
    count = len(recordings)

    def column(number: int) -> npt.NDArray[np.uint8]:
        classes = columns.classes(number)
        return np.concatenate([_codes(b, classes, rows) for b, rows in kept])

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        out = _Arrays(file)
        out.write("clips", "<u4", (count,), (b.clip_ids(rows) for b, rows in kept))
        out.write("recordings", "<u4", (count,), [recordings])
        out.write(
            "scores",
            "u1",
            (len(columns), count),
            (column(number) for number in range(len(columns))),
        )
        clip_counts = np.zeros((len(columns), 256), "<u4")
        recording_counts = np.zeros((len(columns), 256), "<u4")

        def postings() -> Iterator[np.ndarray]:
            for number in range(len(columns)):
                codes = column(number)
                clip_counts[number] = np.bincount(codes, minlength=256)
                best = codes if single else np.maximum.reduceat(codes, starts)
                recording_counts[number] = np.bincount(best, minlength=256)
                yield posting_of(codes)

        out.write("postings", "<u4", (-1,), postings())
        out.write("clip_counts", "<u4", clip_counts.shape, [clip_counts])
        out.write("recording_counts", "<u4", recording_counts.shape, [recording_counts])
        entries = [part for b, rows in kept for part in _entry_parts(b, rows)]
        lengths = np.concatenate([np.diff(offsets) for offsets, _, _ in entries])
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        out.write("entry_offsets", "<u8", (count + 1,), [offsets])
        out.write("entry_classes", "<u2", (-1,), (classes for _, classes, _ in entries))
        out.write("entry_codes", "u1", (-1,), (codes for _, _, codes in entries))
        size = EMBEDDING_SIZE
        out.write("vectors", "i1", (count, size), (b.vectors[rows] for b, rows in kept))
        out.write("frame_counts", "u1", (count,), (b.frame_counts()[rows] for b, rows in kept))
        out.write(
            "frames", "u1", (-1, size), (p for b, rows in kept for p in _frame_parts(b, rows))
        )
        out.finish(
            {
                "kind": "audiosearch segment",
                "version": 1,
                "clips": count,
                "posted_code": POSTED_CODE,
                "single": single,
                "rollup": ROLLUP,
                "groups": columns.groups,
            }
        )


def _codes(block: Block, classes: tuple[int, ...], rows: Rows) -> npt.NDArray[np.uint8]:
    parts = [block.column(number) for number in block.columns.cover(classes)]
    codes = parts[0] if len(parts) == 1 else roll_up(parts)
    return codes if len(rows) == block.rows else codes[rows]


def _entry_parts(block: Block, rows: Rows) -> Iterator[Entries]:
    for start in range(0, len(rows), _CHUNK):
        yield block.entries(rows[start : start + _CHUNK])


def _frame_parts(block: Block, rows: Rows) -> Iterator[np.ndarray]:
    """Give the frames of some rows, in runs of neighbouring rows."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, breaks) if len(rows) else ():
        for start in range(int(run[0]), int(run[-1]) + 1, 1 << 13):
            yield block.frames(start, min(start + (1 << 13), int(run[-1]) + 1))


class _Arrays:
    """Writes arrays one after another, and then the footer that finds them again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._specs: dict[str, dict[str, Any]] = {}

    def write(
        self, name: str, dtype: str, shape: tuple[int, ...], parts: Iterable[np.ndarray]
    ) -> None:
        """Write one array from its parts; a length of -1 is what comes."""
        self._file.write(b"\0" * (-self._file.tell() % _ALIGN))
        offset, crc, size = self._file.tell(), 0, 0
        for part in parts:
            data = np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data
            self._file.write(data)
            crc = zlib.crc32(data, crc)
            size += len(data)
        count = size // np.dtype(dtype).itemsize
        if shape[0] < 0:
            shape = (count // int(np.prod(shape[1:], dtype=np.int64)), *shape[1:])
        if int(np.prod(shape, dtype=np.int64)) != count:
            raise ValueError(f"{name} has {count} values and not the shape {shape}")
        self._specs[name] = {"offset": offset, "dtype": dtype, "shape": shape, "crc32": crc}

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the footer."""
        text = json.dumps(facts | {"arrays": self._specs}).encode()
        self._file.write(text)
        self._file.write(END.pack(len(text), zlib.crc32(text), len(MAGIC)))
        self._file.write(MAGIC)
