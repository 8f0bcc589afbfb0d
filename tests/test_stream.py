"""Streaming of training batches: what is drawn, how often, in which order, in how much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_packed

from audiosearch.datasets.packed import PackedFile
from audiosearch.datasets.stream import ClipBatch, ClipStream, LabelIndex
from audiosearch.errors import DataError, InvalidArgumentError

CLIPS = 3000


@pytest.fixture(scope="module")
def train_h5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose last class is rare: every third has class 0, one in a hundred class 500."""
    path = write_packed(tmp_path_factory.mktemp("stream") / "train.h5", clips=CLIPS)
    y = np.zeros((CLIPS, 527), bool)
    y[::3, 0] = True
    y[np.arange(CLIPS), 1 + np.arange(CLIPS) % 7] = True
    y[5::100, 500] = True
    y[40:50] = False
    with h5py.File(path, "r+") as file:
        file["y"][:] = y
    return path


def drawn(batches: Iterable[ClipBatch]) -> np.ndarray:
    return np.concatenate([batch.rows for batch in batches])


def same(one: ClipBatch, other: ClipBatch) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("x", "n_frames", "y", "rows")
    )


@pytest.mark.parametrize("buffer_rows", [300, 131_072])
def test_without_balance_each_row_comes_once_an_epoch(train_h5: Path, buffer_rows: int) -> None:
    with (
        ClipStream(train_h5, batch_size=64, buffer_rows=buffer_rows) as stream,
        PackedFile(train_h5) as file,
    ):
        everything = file.read()
        batches = list(stream.epoch(1))
        assert len(batches) == len(stream) == 47
        assert [len(batch) for batch in batches] == [64] * 46 + [CLIPS - 46 * 64]
        np.testing.assert_array_equal(np.sort(drawn(batches)), np.arange(CLIPS))
        for batch in batches:
            assert (batch.x.dtype, batch.n_frames.dtype, batch.y.dtype) == (
                np.uint8,
                np.int64,
                bool,
            )
            np.testing.assert_array_equal(batch.x, everything.x[batch.rows])
            np.testing.assert_array_equal(batch.n_frames, everything.n_frames[batch.rows])
            np.testing.assert_array_equal(batch.y, everything.y[batch.rows])
        first, second = drawn(batches), drawn(stream.epoch(2))
        assert (first != second).mean() > 0.9
        # Neighbours in the file are apart: the mean distance in random order is a third.
        assert np.abs(np.diff(first)).mean() > CLIPS / 5


def test_a_choice_of_rows_from_several_files(train_h5: Path, tmp_path: Path) -> None:
    other = write_packed(tmp_path / "bare.h5", clips=50, seed=3, extras=False)
    rows = np.r_[CLIPS + 49, 17, CLIPS : CLIPS + 10, 2999]
    with ClipStream([train_h5, other], rows, batch_size=4, seed=5) as stream:
        batches = list(stream.epoch(1))
    np.testing.assert_array_equal(np.sort(drawn(batches)), np.sort(rows))
    with PackedFile(train_h5) as one, PackedFile(other) as two:
        for batch in batches:
            for i, row in enumerate(batch.rows):
                file, place = (one, row) if row < CLIPS else (two, row - CLIPS)
                clip = file.read(place, place + 1)
                np.testing.assert_array_equal(batch.x[i], clip.x[0])
                np.testing.assert_array_equal(batch.y[i], clip.y[0])
                assert batch.n_frames[i] == clip.n_frames[0]


def test_balance_draws_rare_classes_more(train_h5: Path) -> None:
    shares = {}
    for balance in (0.0, 0.5, 1.0):
        with ClipStream(train_h5, batch_size=100, balance=balance, seed=2) as stream:
            truth = np.concatenate([batch.y for batch in stream.epoch(1)])
        assert len(truth) == CLIPS
        shares[balance] = truth.mean(axis=0)
    assert shares[0.0][500] == pytest.approx(30 / CLIPS)
    assert shares[0.0][500] * 2 < shares[0.5][500] < shares[1.0][500] / 2
    assert shares[1.0][500] > 0.1


@pytest.mark.parametrize("balance", [0.3, 1.0])
def test_rows_are_drawn_as_often_as_their_weights_say(train_h5: Path, balance: float) -> None:
    with PackedFile(train_h5) as file:
        truth = file.read_labels()
    # The weights that training in memory uses, computed here from their definition.
    rarity = np.array([sum(1 / truth[:, c].sum() for c in np.flatnonzero(row)) for row in truth])
    weights = np.maximum(rarity, rarity[rarity > 0].min()) ** balance
    expected = weights * CLIPS / weights.sum()
    epochs = 60
    with ClipStream(train_h5, batch_size=500, balance=balance, buffer_rows=1000) as stream:
        counts = np.array(
            [np.bincount(drawn(stream.epoch(e + 1)), minlength=CLIPS) for e in range(epochs)]
        )
    assert (counts.sum(axis=1) == CLIPS).all()
    assert (np.abs(counts - expected) < 1).all(), "rounded up or down, never further"
    # In the mean it is exact: a count that is rounded at random deviates by at most 0.5.
    assert np.abs(counts.mean(axis=0) - expected).max() < 5 * 0.5 / np.sqrt(epochs)
    assert (counts[0] != counts[1]).any()


def test_the_same_seed_gives_the_same_batches_another_seed_others(train_h5: Path) -> None:
    def epoch(seed: int, number: int) -> list[ClipBatch]:
        with ClipStream(
            train_h5, batch_size=200, balance=0.5, seed=seed, buffer_rows=700
        ) as stream:
            return list(stream.epoch(number))

    one = epoch(4, 3)
    assert all(same(a, b) for a, b in zip(one, epoch(4, 3), strict=True))
    assert not same(one[0], epoch(5, 3)[0])
    assert not same(one[0], epoch(4, 2)[0])


@pytest.mark.parametrize("buffer_rows", [400, 131_072])
@pytest.mark.parametrize("balance", [0.0, 0.7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(
    train_h5: Path, buffer_rows: int, balance: float, drop_last: bool
) -> None:
    def stream() -> ClipStream:
        return ClipStream(
            train_h5,
            np.arange(100, 2000),
            batch_size=128,
            balance=balance,
            buffer_rows=buffer_rows,
            drop_last=drop_last,
        )

    with stream() as whole:
        steps = len(whole)
        assert steps == (14 if drop_last else 15)
        expected = [next(whole) for _ in range(2 * steps)]
        assert whole.state == {"epoch": 3, "step": 0}
    for cut in (0, 1, 5, steps - 1, steps, steps + 3):
        with stream() as before:
            for _ in range(cut):
                next(before)
            state = json.loads(json.dumps(before.state))
        with stream() as after:
            after.start(**state)
            for batch in expected[cut:]:
                assert same(next(after), batch)


def test_the_split_holds_out_a_share_of_every_rarest_class(train_h5: Path) -> None:
    with PackedFile(train_h5) as file:
        truth = file.read_labels()
    counts = truth.sum(axis=0)
    rarest = [min(np.flatnonzero(row), key=lambda c: (counts[c], c), default=527) for row in truth]
    index = LabelIndex.read(train_h5)
    for share, seed in ((0.1, 0), (0.37, 9)):
        # Row by row: a row is held out while its group is short of its share.
        wanted = np.floor(np.bincount(rarest, minlength=528) * share + 0.5)
        held_out = []
        for row in np.random.default_rng(seed).permutation(CLIPS):
            if wanted[rarest[row]] > 0:
                wanted[rarest[row]] -= 1
                held_out.append(row)
        training, validation = index.split(share, seed)
        np.testing.assert_array_equal(validation, np.sort(held_out))
        np.testing.assert_array_equal(np.sort(np.r_[training, validation]), np.arange(CLIPS))
    few = LabelIndex.from_dense(truth[:2])
    with pytest.raises(DataError, match="too few"):
        few.split(0.1, 0)
    with pytest.raises(InvalidArgumentError, match="share"):
        index.split(1.0, 0)


def test_the_label_index_holds_what_the_table_holds(train_h5: Path) -> None:
    with PackedFile(train_h5) as file:
        truth = file.read_labels()
    for index in (LabelIndex.read(train_h5), LabelIndex.from_dense(truth)):
        assert len(index) == CLIPS
        np.testing.assert_array_equal(index.dense(np.arange(CLIPS)), truth)
        rows = np.array([45, 5, 5, 2999])
        np.testing.assert_array_equal(index.dense(rows), truth[rows])
        assert index.dense(rows[:0]).shape == (0, 527)
        np.testing.assert_array_equal(index.counts(), truth.sum(axis=0))
        np.testing.assert_array_equal(index.counts(rows), truth[rows].sum(axis=0))
    with pytest.raises(InvalidArgumentError, match="527"):
        LabelIndex.from_dense(truth[:, :500])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rows": []}, "nothing to draw from"),
        ({"rows": [1, 1]}, "twice"),
        ({"rows": [0, CLIPS]}, f"no row {CLIPS}"),
        ({"rows": [-1, 3]}, "no row -1"),
        ({"rows": [0.5]}, "row numbers"),
        ({"rows": [[1]]}, "row numbers"),
        ({"batch_size": 0}, "batch_size"),
        ({"balance": 1.1}, "balance"),
        ({"balance": float("nan")}, "balance"),
        ({"seed": -1}, "seed"),
        ({"buffer_rows": 0}, "buffer_rows"),
        ({"rows": [1, 2], "batch_size": 3, "drop_last": True}, "one batch"),
        ({"paths": []}, "at least one"),
        ({"labels": LabelIndex.from_dense(np.ones((3, 527), bool))}, "labels are those of 3"),
    ],
)
def test_what_cannot_be_used_is_refused(
    train_h5: Path, change: dict[str, object], match: str
) -> None:
    arguments = {"paths": train_h5, "rows": None, "batch_size": 8} | change
    with pytest.raises(InvalidArgumentError, match=match):
        ClipStream(arguments.pop("paths"), arguments.pop("rows"), **arguments)  # type: ignore[arg-type]


def test_places_that_do_not_exist_are_refused(train_h5: Path) -> None:
    with ClipStream(train_h5, batch_size=1000) as stream:
        for epoch, step in ((0, 0), (1, 3), (1, -1)):
            with pytest.raises(InvalidArgumentError, match="no step"):
                stream.epoch(epoch, step=step)
            with pytest.raises(InvalidArgumentError, match="no step"):
                stream.start(epoch, step)


def test_files_without_labels_or_damaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set 'y'"):
        ClipStream(write_packed(tmp_path / "bare.h5", labels=False), batch_size=2)
    with pytest.raises(DataError, match="no such file"):
        ClipStream(tmp_path / "missing.h5", batch_size=2)
    path = tmp_path / "damaged.h5"
    write_packed(path, clips=300)
    with h5py.File(path, "r+") as file:
        x = file["x"][:]
        del file["x"]
        file.create_dataset("x", data=x, chunks=(64, 10, 128), compression="gzip")
        place = file["x"].id.get_chunk_info(2).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 1000)
    with (
        ClipStream(path, batch_size=16) as stream,
        pytest.raises(DataError, match=r"damaged.h5.*damaged"),
    ):
        list(stream.epoch(1))


@pytest.mark.parametrize("chunks", [(700, 1, 4), (100, 10, 128), (3000, 10, 128)])
def test_any_chunking_gives_the_same_rows(train_h5: Path, tmp_path: Path, chunks: tuple) -> None:
    path = tmp_path / "chunked.h5"
    with h5py.File(train_h5) as source, h5py.File(path, "w") as file:
        file.create_dataset("x", data=source["x"][:], chunks=chunks, compression="gzip")
        file.create_dataset("y", data=source["y"][:], chunks=(999, 9), compression="gzip")
        x = source["x"][:]
    with ClipStream(path, batch_size=256, buffer_rows=500) as stream:
        batches = list(stream.epoch(1))
    np.testing.assert_array_equal(np.sort(drawn(batches)), np.arange(CLIPS))
    for batch in batches:
        np.testing.assert_array_equal(batch.x, x[batch.rows])


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """200,000 clips, 256 MB of embeddings and 105 MB of labels, in far less than that."""
    clips, path = 200_000, tmp_path / "large.h5"
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (clips, 10, 128), np.uint8)
        y = file.create_dataset("y", (clips, 527), bool, chunks=(4096, 527), compression=1)
        for start in range(0, clips, 20_000):
            x[start : start + 20_000] = random.integers(1, 256, (20_000, 10, 128), np.uint8)
            block = np.zeros((20_000, 527), bool)
            block[np.arange(20_000), random.integers(0, 527, 20_000)] = True
            y[start : start + 20_000] = block
    code = (
        "import resource, sys\n"
        "from audiosearch.datasets.stream import ClipStream\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "import h5py; before = peak()\n"
        "stream = ClipStream(sys.argv[1], batch_size=256, balance=0.5, buffer_rows=16384)\n"
        "clips = sum(len(batch) for batch in stream.epoch(1))\n"
        "print(clips, peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        capture_output=True,
        text=True,
        check=True,
    )
    drawn_clips, grown = done.stdout.split()
    assert int(drawn_clips) == clips
    # Two pools of 16,384 clips are 42 MB; the labels, and what is computed from them, 15 MB.
    assert float(grown) < 130
