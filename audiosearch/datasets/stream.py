"""Training batches from packed files of any size, without holding them in memory.

::

    labels = LabelIndex.read(["unbal_train.h5"])
    training, validation = labels.split(0.01, seed=0)
    with ClipStream(["unbal_train.h5"], training, batch_size=256, balance=0.5, seed=0,
                    labels=labels) as stream:
        for epoch in range(1, epochs + 1):
            for batch in stream.epoch(epoch):       # len(stream) batches
                batch.x, batch.n_frames, batch.y, batch.rows

The stream is also an iterator without an end, for loops that count steps: ``next(stream)`` gives
the next batch, ``stream.state`` is where it stands, and ``stream.start(**state)`` goes on there,
also in another process.

How it draws. An epoch draws as many clips as there are rows. Each row has an expected number of
draws, in proportion to the sum of 1 / count over its classes, to the power `balance`; every epoch
rounds it up or down at random so that the total is kept. With `balance` 0 each row is drawn once.
Because the number of draws is settled before anything is read, the file is read once an epoch, in
blocks of neighbouring rows, the blocks in a random order. Some hundred blocks (`buffer_rows` rows)
make a pool; the draws of a pool are shuffled, while a thread reads the next pool. A file of fewer
rows than a pool is shuffled as a whole. Everything random follows from the seed and the number of
the epoch.

Memory: two pools of `buffer_rows` clips at 1,280 bytes, and about 60 bytes a row of the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.label_index import LabelIndex, path_list
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, PackedFile
from audiosearch.errors import InvalidArgumentError
from audiosearch.storage import Closing

__all__ = ["ClipBatch", "ClipStream", "LabelIndex"]

_BLOCK_ROWS = 1024
_LARGEST_CHUNK = 65536  # larger ones are read in parts: a pool would be too large
_LEAST_BLOCKS = 4  # of a pool, so that even huge chunks are mixed

# What the random generators of an epoch are for.
_DRAWS, _BLOCKS, _POOLS = range(3)


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one training step.

    Attributes
    ----------
    x : uint8 (b, 10, 128)
    n_frames : int64 (b,)
    y : bool (b, 527)
    rows : int64 (b,)
        Row numbers, counted over all files.
    """

    x: npt.NDArray[np.uint8]
    n_frames: npt.NDArray[np.int64]
    y: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class _Block:
    """Neighbouring rows of a file, and where the chosen ones among them stand in the choice."""

    file: int
    start: int
    stop: int
    first: int
    last: int


class ClipStream(Closing):
    """Shuffled, class-balanced batches of one or several packed files.

    Parameters
    ----------
    paths : path-like, or several
        Packed files with labels. Their rows are numbered through in this order.
    rows : int (n,), optional
        The rows to draw from, each at most once; all where None.
    batch_size : int
        Clips a batch.
    balance : float
        Exponent of the class-balanced weights, 0 (every row once an epoch) to 1 (fully).
    seed : int
        Seed of everything random, at least 0.
    labels : LabelIndex, optional
        The labels of all rows of these files; read where None, which takes some seconds for two
        million clips.
    drop_last : bool
        Leave out the last batch of an epoch where it would be smaller than the others.
    buffer_rows : int
        How many rows are shuffled together. The order of the clips depends on it.

    Raises
    ------
    DataError
        When a file is not as it must be.
    InvalidArgumentError
        When an argument cannot be used: also when `rows` is empty, names a row twice, or one that
        does not exist.

    Notes
    -----
    Not to be shared between threads. Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        rows: npt.ArrayLike | None = None,
        *,
        batch_size: int,
        balance: float = 0.0,
        seed: int = 0,
        labels: LabelIndex | None = None,
        drop_last: bool = False,
        buffer_rows: int = 131_072,
    ) -> None:
        listed = path_list(paths)
        checks = {
            f"batch_size must be at least 1, not {batch_size}": batch_size >= 1,
            f"balance must be from 0 to 1, not {balance}": 0 <= balance <= 1,
            f"seed must be at least 0, not {seed}": seed >= 0,
            f"buffer_rows must be at least 1, not {buffer_rows}": buffer_rows >= 1,
        }
        for sentence, holds in checks.items():
            if not holds:
                raise InvalidArgumentError(f"{sentence}.")
        self.batch_size, self.balance, self.seed = batch_size, balance, seed
        self._drop_last, self._buffer_rows = drop_last, buffer_rows
        self._batches: Iterator[ClipBatch] | None = None
        self._epoch, self._step = 1, 0
        self._files: list[PackedFile] = []
        try:
            for path in listed:
                self._files.append(PackedFile(path, labels=True))
            lengths = [len(file) for file in self._files]
            self._offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            self.labels = LabelIndex.read(listed) if labels is None else labels
            if len(self.labels) != self._offsets[-1]:
                raise InvalidArgumentError(
                    f"labels are those of {len(self.labels):,} rows, but the files have "
                    f"{self._offsets[-1]:,}."
                )
            self.rows = _checked_rows(rows, int(self._offsets[-1]))
            if drop_last and len(self.rows) < batch_size:
                raise InvalidArgumentError(
                    f"{len(self.rows):,} clips do not fill one batch of {batch_size:,}. Choose "
                    "smaller batches, or keep the last one."
                )
        except BaseException:
            self.close()
            raise
        self._expected: npt.NDArray[np.float64] | None = None
        if balance:
            weights = self.labels.weights(balance, self.rows)
            self._expected = weights * (len(weights) / weights.sum())
        self._blocks = self._cut_blocks()

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        whole, rest = divmod(len(self.rows), self.batch_size)
        return whole + (1 if rest and not self._drop_last else 0)

    def __iter__(self) -> Iterator[ClipBatch]:
        return self

    def __next__(self) -> ClipBatch:
        """Return the next batch; after the last one of an epoch comes the first of the next."""
        if self._batches is None:
            self._batches = self.epoch(self._epoch, step=self._step)
        batch = next(self._batches)
        self._step += 1
        if self._step == len(self):
            self.start(self._epoch + 1)
        return batch

    @property
    def state(self) -> dict[str, int]:
        """Epoch (from 1) and step (from 0) of the batch that ``next`` returns; for `start`."""
        return {"epoch": self._epoch, "step": self._step}

    def start(self, epoch: int, step: int = 0) -> None:
        """Let ``next`` go on with a step of an epoch."""
        self._check_place(epoch, step)
        self._stop()
        self._epoch, self._step = epoch, step

    def epoch(self, number: int, *, step: int = 0) -> Iterator[ClipBatch]:
        """Yield the batches of an epoch, the same ones each time.

        Parameters
        ----------
        number : int
            Which epoch, from 1.
        step : int
            How many batches to leave out first; what is left out is not read.

        Raises
        ------
        DataError
            When a file cannot be read.
        """
        self._check_place(number, step)
        return self._run(number, step)

    def close(self) -> None:
        """Close the files."""
        self._stop()
        for file in self._files:
            file.close()

    def _run(self, number: int, step: int) -> Iterator[ClipBatch]:
        repeats = self._repeats(number)
        pools = self._pools(number, repeats)
        skip, done = step * self.batch_size, step
        totals = [sum(int(repeats[b.first : b.last].sum()) for b in pool) for pool in pools]
        first = 0
        while first < len(pools) - 1 and skip >= totals[first]:
            skip -= totals[first]
            first += 1
        rest: list[ClipBatch] = []
        missing = self.batch_size
        with ThreadPoolExecutor(1, thread_name_prefix="audiosearch-stream") as reader:
            coming = reader.submit(self._read_pool, pools[first], repeats)
            for place in range(first, len(pools)):
                x, n_frames, chosen = coming.result()
                if place + 1 < len(pools):
                    coming = reader.submit(self._read_pool, pools[place + 1], repeats)
                order = np.repeat(np.arange(len(chosen)), repeats[chosen])
                self._random(_POOLS, number, place).shuffle(order)
                while skip < len(order):
                    taken = order[skip : skip + missing]
                    skip += len(taken)
                    rows = self.rows[chosen[taken]]
                    part = ClipBatch(x[taken], n_frames[taken], self.labels.dense(rows), rows)
                    missing -= len(taken)
                    rest.append(part)
                    if not missing:
                        yield _joined(rest)
                        done += 1
                        rest, missing = [], self.batch_size
                skip = 0
                # Before the next one is waited for: two pools at a time, not three.
                del x, n_frames
        if rest and done < len(self):
            yield _joined(rest)

    def _repeats(self, epoch: int) -> npt.NDArray[np.int32]:
        """Return how often each chosen row is drawn in an epoch."""
        if self._expected is None:
            return np.ones(len(self.rows), np.int32)
        random = self._random(_DRAWS, epoch)
        # Systematic rounding: each count is one of the two nearest to what is expected, and their
        # sum is exact. In a random order, so that neighbours are independent.
        order = random.permutation(len(self.rows))
        edges = np.cumsum(self._expected[order])
        edges[-1] = len(self.rows)
        edges = np.floor(edges + random.random())
        repeats = np.empty(len(self.rows), np.int32)
        repeats[order] = np.diff(edges, prepend=0.0)
        return repeats

    def _pools(self, epoch: int, repeats: npt.NDArray[np.int32]) -> list[list[_Block]]:
        """Return the blocks that are shuffled together, in the order in which they are read."""
        drawn = [block for block in self._blocks if repeats[block.first : block.last].any()]
        count = -(-int((repeats > 0).sum()) // self._buffer_rows)
        count = max(1, min(count, len(drawn) // _LEAST_BLOCKS))
        order = self._random(_BLOCKS, epoch).permutation(len(drawn))
        return [[drawn[i] for i in part] for part in np.array_split(order, count)]

    def _read_pool(
        self, blocks: list[_Block], repeats: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (x, n_frames, chosen) of the rows that are drawn from some blocks.

        `chosen` says which of the chosen rows they are.
        """
        places = [
            block.first + np.flatnonzero(repeats[block.first : block.last]) for block in blocks
        ]
        chosen = np.concatenate(places)
        x = np.empty((len(chosen), CLIP_FRAMES, FRAME_VALUES), np.uint8)
        n_frames = np.empty(len(chosen), np.int64)
        done = 0
        for block, place in zip(blocks, places, strict=True):
            wanted = self.rows[place] - self._offsets[block.file]
            # No more than is needed: a small choice may lie at one end of the block.
            start, stop = int(wanted[0]), int(wanted[-1]) + 1
            clips = self._files[block.file].read(start, stop, labels=False)
            everything = len(wanted) == stop - start
            end = done + len(wanted)
            x[done:end] = clips.x if everything else clips.x[wanted - start]
            n_frames[done:end] = clips.n_frames if everything else clips.n_frames[wanted - start]
            done = end
        return x, n_frames, chosen

    def _cut_blocks(self) -> list[_Block]:
        blocks = []
        for number, file in enumerate(self._files):
            chunk = file.chunk_rows()
            size = _BLOCK_ROWS
            if chunk <= _LARGEST_CHUNK:
                size = chunk * -(-_BLOCK_ROWS // chunk)
            starts = np.arange(0, len(file), size)
            edges = self._offsets[number] + np.append(starts, len(file))
            places = np.searchsorted(self.rows, edges)
            for i, start in enumerate(starts):
                first, last = int(places[i]), int(places[i + 1])
                if first < last:
                    stop = min(int(start) + size, len(file))
                    blocks.append(_Block(number, int(start), stop, first, last))
        return blocks

    def _random(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])

    def _check_place(self, epoch: int, step: int) -> None:
        if epoch < 1 or not 0 <= step < len(self):
            raise InvalidArgumentError(
                f"There is no step {step} of epoch {epoch}: epochs count from 1, and steps from 0 "
                f"to {len(self) - 1}."
            )

    def _stop(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()  # type: ignore[attr-defined]


def _joined(parts: list[ClipBatch]) -> ClipBatch:
    if len(parts) == 1:
        return parts[0]
    return ClipBatch(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.n_frames for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )


def _checked_rows(rows: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
    """Return the chosen rows, ascending."""
    if rows is None:
        return np.arange(count, dtype=np.int64)
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise InvalidArgumentError(
            f"rows must be row numbers of one dimension, not {chosen.dtype} {chosen.shape}."
        )
    if not len(chosen):
        raise InvalidArgumentError("rows is empty: there is nothing to draw from.")
    chosen = np.sort(chosen.astype(np.int64))
    if chosen[0] < 0 or chosen[-1] >= count:
        wrong = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise InvalidArgumentError(f"There is no row {wrong}; there are rows 0 to {count - 1}.")
    if (np.diff(chosen) == 0).any():
        raise InvalidArgumentError("rows names a row twice.")
    return chosen
