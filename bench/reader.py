"""Speed and memory of the training reader on a file of AudioSet's full size.

Run: ``python bench/reader.py [--data-dir DIR] [--clips 2041789]``. Writes a packed file of that
many clips to a temporary folder (2.7 GB; rows of ``DIR/audioset/bal_train.h5`` again and again,
else random ones), then draws one epoch of batches of 256 from the stream, and from the same rows
in memory where they fit, each in a process of its own. Prints peak memory and clips per second, of
the clock and of processor time (which a busy machine changes less), and the ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, PackedFile
from audiosearch.datasets.packed_writer import ClipRows, write_packed_file
from audiosearch.datasets.stream import ClipStream
from audiosearch.labels import CLASS_COUNT

BATCH = 256
CLIP_BYTES = CLIP_FRAMES * FRAME_VALUES
BLOCK = 20_000


def rows(clips: int, data_dir: Path | None) -> Iterator[ClipRows]:
    """Yield `clips` rows: real ones repeated, or random ones with two classes each."""
    random = np.random.default_rng(0)
    real = None
    if data_dir is not None:
        with PackedFile(data_dir / "audioset" / "bal_train.h5", labels=True) as file:
            real = file.read()
    for start in range(0, clips, BLOCK):
        count = min(BLOCK, clips - start)
        times = np.tile(np.array([0, 10], np.float32), (count, 1))
        names = [b"%011d" % row for row in range(start, start + count)]
        if real is None or real.y is None:
            x = random.integers(1, 256, (count, CLIP_FRAMES, FRAME_VALUES), np.uint8)
            n_frames = np.full(count, CLIP_FRAMES, np.uint8)
            # A few classes are frequent and most are rare, as in AudioSet.
            drawn = (CLASS_COUNT * random.random((count, 2)) ** 3).astype(int)
            labels = [sorted(set(row)) for row in drawn.tolist()]
        else:
            chosen = random.integers(0, len(real.x), count)
            x, n_frames = real.x[chosen], real.n_frames[chosen].astype(np.uint8)
            labels = [np.flatnonzero(real.y[row]).tolist() for row in chosen]
        yield ClipRows(x, n_frames, names, times, labels)


def peak_gb() -> float:
    """Peak memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def stream_epoch(path: str, balance: float) -> None:
    """Draw an epoch from the stream and print what it took, as JSON."""
    began = time.perf_counter()
    with ClipStream(path, batch_size=BATCH, balance=balance) as stream:
        ready, used = time.perf_counter(), time.process_time()
        clips = sum(len(batch) for batch in stream.epoch(1))
        report(ready - began, time.perf_counter() - ready, time.process_time() - used, clips)


def memory_epoch(path: str, balance: float) -> None:
    """The same with everything in memory, batches drawn with replacement."""
    began = time.perf_counter()
    with PackedFile(path, labels=True) as file:
        data = file.read()
    x, n_frames, y = data.x, data.n_frames, data.y
    assert y is not None
    random = np.random.default_rng(0)
    cumulated = None
    if balance:
        # By blocks: the product below would need 8 bytes for each of the labels at once.
        share = 1.0 / np.maximum(y.sum(axis=0, dtype=np.int64), 1)
        weights = np.concatenate([y[i : i + BLOCK] @ share for i in range(0, len(y), BLOCK)])
        cumulated = np.cumsum(np.maximum(weights, weights[weights > 0].min()) ** balance)
    ready, used = time.perf_counter(), time.process_time()
    clips = 0
    order = random.permutation(len(x)) if cumulated is None else None
    for start in range(0, len(x), BATCH):
        count = min(BATCH, len(x) - start)
        if cumulated is None:
            assert order is not None
            drawn = order[start : start + count]
        else:
            drawn = cumulated.searchsorted(random.random(count) * cumulated[-1])
        batch = x[drawn], n_frames[drawn], y[drawn]
        clips += len(batch[0])
    report(ready - began, time.perf_counter() - ready, time.process_time() - used, clips)


def report(start: float, epoch: float, cpu: float, clips: int) -> None:
    rates = {"rate": clips / epoch, "cpu": clips / cpu}
    print(json.dumps(rates | {"epoch": epoch, "start": start, "peak": peak_gb()}))


def measure(kind: str, path: Path, balance: float) -> dict[str, float]:
    """Run one of the epochs in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--run", kind, str(path), "--balance", str(balance)],
        check=True,
        stdout=subprocess.PIPE,
    )
    result: dict[str, float] = json.loads(done.stdout)
    print(
        f"{kind:8}{balance:8.1f}{result['rate']:12,.0f}{result['cpu']:14,.0f}"
        f"{result['epoch']:10.1f}{result['start']:10.1f}{result['peak']:10.2f}",
        flush=True,
    )
    return result


def available_bytes() -> int:
    """Memory that is free or can be freed; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2_041_789, help="rows of the file (2,041,789)")
    parser.add_argument("--data-dir", type=Path, help="real data; random rows without it")
    parser.add_argument("--temp-dir", type=Path, help="where to write the file")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--balance", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        kind, path = arguments.run
        (stream_epoch if kind == "stream" else memory_epoch)(path, arguments.balance)
        return
    clips = arguments.clips
    with tempfile.TemporaryDirectory(dir=arguments.temp_dir) as folder:
        needed = int(1.1 * clips * CLIP_BYTES)
        free = shutil.disk_usage(folder).free
        if free < needed:
            parser.exit(
                1, f"{needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} free.\n"
            )
        path = Path(folder) / "train.h5"
        began = time.perf_counter()
        write_packed_file(
            path,
            rows(clips, arguments.data_dir),
            count=clips,
            name_bytes=11,
            labelled=True,
            facts={},
        )
        print(
            f"{clips:,} clips, {path.stat().st_size / 1e9:.2f} GB, written in "
            f"{time.perf_counter() - began:.0f} s"
        )
        print(
            f"{'':8}{'balance':>8}{'clips/s':>12}{'clips/CPU s':>14}{'epoch s':>10}"
            f"{'start s':>10}{'peak GB':>10}"
        )
        fits = available_bytes() > 1.5 * clips * (CLIP_BYTES + CLASS_COUNT)
        for balance in (0.0, 0.5):
            ours = measure("stream", path, balance)
            if not fits:
                print("memory: does not fit")
                continue
            theirs = measure("memory", path, balance)
            ratio = {name: ours[name] / theirs[name] for name in ours}
            print(
                f"ratio   {balance:8.1f}{ratio['rate']:12.2f}{ratio['cpu']:14.2f}"
                f"{ratio['epoch']:10.2f}{ratio['start']:10.2f}{ratio['peak']:10.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
