"""Searching large libraries, beside the same jobs done by other means.

    python bench/search.py bal_train.h5 [eval.h5 ...] --clips 20000 200000 2000000

Libraries are made by mixing frames of real clips: each frame of a made-up clip is a frame of one of
two real clips, and the mixes are scored by the bundled classifier (fixed seed). Of eight clips four
are one recording, as in a sound of half a minute. Every measure is taken in this run; times are the
median and the 99th percentile of repeated queries, and the median of processor time, which tells
more on a busy machine; in process, with the files in the page cache.
Beside each stands the same job over the same scores and vectors: IBM's method (the class among a
clip's best five, then NumPy's argsort; and the argsort alone), FAISS's flat index, and DuckDB (a
page of 50 recordings with both totals, three terms, and by example), where it is installed:
``pip install "audiosearch[bench]"``. Recall is measured anew, against all vectors, with other clips
than those by which the library tuned itself.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.scorer import classifier_identity, load_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.labels import load_labels
from audiosearch.library.blocks import POSTED_CODE
from audiosearch.library.compaction import tidy
from audiosearch.library.library import Library
from audiosearch.library.likeness import clip_probe, traits_of
from audiosearch.library.manifest import MANIFEST, create_library
from audiosearch.library.recordings import NewRecording
from audiosearch.library.writer import Writer
from audiosearch.models import bundled_model

RECALL_QUERIES = 400
ROWS = 2000
FRAMES = 10
SHAPE = (1, 1, 1, 1, 4)  # clips of neighbouring recordings
TERMS = (
    "speech music -singing",
    "dog (rain OR wind)",
    "vehicle speech -music",
    "guitar singing music",
)
PARENTS = ("Vehicle", "Music", "Animal", "Human voice", "Musical instrument")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packed", type=Path, nargs="*", help="bal_train.h5 and others like it")
    parser.add_argument("--clips", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--folder", type=Path, help="keep the libraries here, and use those there")
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if any(clips % ROWS for clips in arguments.clips):
        parser.error(f"--clips must be multiples of {ROWS:,}")
    if arguments.measure:
        # In a process of its own, whose memory is that of searching alone.
        print(json.dumps(measured(arguments.measure, arguments.repeat)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.folder or Path(scratch)
        results = []
        for clips in arguments.clips:
            folder = root / f"mixed-{clips}"
            seconds = made(folder, arguments.packed, clips)
            values = in_a_process(folder, arguments.repeat)
            values["build"] = seconds
            values |= added(folder, arguments.packed, root if arguments.folder else Path(scratch))
            values |= others(folder, arguments.repeat)
            results.append((clips, values))
        table(results)


def made(folder: Path, packed: Sequence[Path], clips: int) -> float | None:
    """Make a library of mixes; return the seconds, None where it is there already."""
    done = 0
    if (folder / MANIFEST).exists():
        with Library(folder) as library:
            done = library.info().clips
    else:
        scorer = bundled_model("classifier")
        classifier = (str(scorer.manifest["name"]), classifier_identity(scorer))
        create_library(folder, embedder=("released", None), classifier=classifier)
    if done >= clips:
        return None
    began = time.perf_counter()
    append(folder, packed, done, clips)
    return time.perf_counter() - began


def append(folder: Path, packed: Sequence[Path], first: int, stop: int) -> None:
    """Add the mixes from number `first` up to `stop`; a number always gives the same mix."""
    parts = []
    for path in packed:
        with PackedFile(path) as file:
            x, n = file.read(0, len(file)).x, file.read(0, len(file)).n_frames
            parts.append(x[n == FRAMES])  # whole clips only
    frames = np.concatenate(parts)
    scorer = load_scorer()
    with Library(folder, writable=True) as library:
        writer = Writer(library)
        for start in range(first, stop, ROWS):
            draw = np.random.default_rng([7, start])
            one, other = draw.integers(0, len(frames), (2, ROWS, 1))
            clip = np.where(draw.random((ROWS, FRAMES)) < draw.random((ROWS, 1)), one, other)
            mix = frames[clip, draw.integers(0, FRAMES, (ROWS, FRAMES))]
            recordings = [
                NewRecording(
                    source="packed",
                    name=f"mix-{start:08d}-{number}".encode(),
                    start=0.0,
                    duration=9.6 * clips,
                    clips=clips,
                )
                for number, clips in enumerate(SHAPE * (ROWS // sum(SHAPE)))
            ]
            scores = scorer.score_calibrated(mix, np.full(ROWS, FRAMES))
            vectors = ((mix.astype(np.float32) - 128) / 128).mean(axis=1)
            writer.add_rows(recordings, scores, vectors)
            if start // ROWS % 25 == 24:
                print(f"{folder.name}: {start + ROWS:,}", file=sys.stderr, flush=True)
        tidy(library)


def added(folder: Path, packed: Sequence[Path], scratch: Path) -> dict[str, float]:
    """Add 10,000 clips to a copy of a library; return the seconds, and those of the processor."""
    copy = scratch / "copy"
    shutil.copytree(folder, copy)
    with Library(copy) as library:
        clips = library.info().clips
    began, used = time.perf_counter(), time.process_time()
    append(copy, packed, clips, clips + 10_000)
    values = {
        "adding 10,000 clips": time.perf_counter() - began,
        "adding 10,000 clips, processor time": time.process_time() - used,
    }
    shutil.rmtree(copy)
    return values


def in_a_process(folder: Path, repeat: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(folder), "--repeat", str(repeat)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def measured(folder: Path, repeat: int) -> dict[str, Any]:
    """Measure one library in this process."""
    values: dict[str, Any] = {}
    labels = load_labels()
    began = time.perf_counter()
    Library(folder).close()
    values["first opening"] = [time.perf_counter() - began]
    values["opening"] = timed(lambda _: Library(folder).close(), 20)
    with Library(folder) as library:
        info = library.info()
        values["bytes a clip"] = info.bytes / info.clips
        values["segments"] = info.segments
        values["index"] = f"{info.vector_index}, recall@10 {info.recall_at_10}"
        draw = np.random.default_rng(5)
        names = [f'label:"{labels[int(i)].name}"' for i in draw.permutation(527)]
        library.vocabulary()
        run = library.search
        evict(folder)
        values["one class, nothing in the page cache"] = timed(
            lambda n: run(names[-n % 527], limit=50), repeat
        )
        read_through(folder)
        # As the server does when it starts: a full collection takes longer than many searches.
        gc.collect()
        gc.freeze()
        values["one class"] = timed(lambda n: run(names[n % 527], limit=50), repeat)
        bare = [labels[int(i)].name for i in draw.permutation(527)]
        values["bare word"] = timed(lambda n: run(bare[n % 527], limit=50), repeat)
        values["parent class"] = timed(lambda n: run(PARENTS[n % len(PARENTS)], limit=50), repeat)
        values["three terms"] = timed(lambda n: run(TERMS[n % len(TERMS)], limit=50), repeat)
        deep = ("Music", "Speech", "Vehicle", "Animal")
        values["offset 10,000"] = timed(
            lambda n: run(deep[n % len(deep)], limit=50, offset=10_000), repeat
        )
        clips = draw.integers(0, info.clips, repeat).tolist()
        values["by example"] = timed(lambda n: library.similar(clips[n], limit=10), repeat)
        values["by example, recall@10"] = recall_at_10(
            library, draw.integers(0, info.clips, RECALL_QUERIES).tolist()
        )
        folding = time.perf_counter()
        run("speech", fold=True)
        values["first search that folds copies"] = time.perf_counter() - folding
        values["three terms, copies folded"] = timed(
            lambda n: run(TERMS[n % len(TERMS)], limit=50, fold=True), repeat
        )
        paths = time.perf_counter()
        run("speech path:mix")
        values["first search by path"] = time.perf_counter() - paths
        values["a term and a path"] = timed(
            lambda n: run(f"{bare[n % 527]!r} path:-{n % 10}00*".replace("'", '"'), limit=50),
            max(repeat // 10, 5),
        )
        values["anonymous memory"] = anonymous_memory()
    return values


def evict(folder: Path) -> None:
    """Ask the system to forget what it keeps of a library's files, where it can be asked."""
    for path in folder.iterdir():
        if hasattr(os, "posix_fadvise"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(folder: Path) -> None:
    """Read a library's files once, so that they are in the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 22):
                pass


def recall_at_10(library: Library, clips: Sequence[int]) -> float:
    """Return which share of the ten most alike other clips is found; equally near are as good."""
    now = library.snapshot()
    search = library.neighbours(now)
    probes = []
    for clip in clips:
        part, row = now.find(clip)
        probes.append(clip_probe(traits_of(part.block, np.array([row])), 0))
    best = np.full((len(probes), 11), -np.inf, np.float32)  # itself is one of eleven
    for part in now.parts:
        for start in range(0, part.block.rows, 20_000):
            rows = np.arange(start, min(start + 20_000, part.block.rows))
            traits = traits_of(part.block, rows)
            for number, probe in enumerate(probes):
                near = np.concatenate([best[number], traits.likeness(probe)])
                best[number] = np.partition(near, -11)[-11:]
    shares = []
    for probe, least in zip(probes, best.min(axis=1), strict=True):
        found = search.search(probe, 11)[1]
        shares.append((np.count_nonzero(found >= least - 1e-5) - 1) / 10)
    return float(np.mean(shares))


def timed(work: Callable[[int], object], repeat: int) -> list[float]:
    """Return seconds of repeated work: median, 99th percentile, and median of processor time."""
    for number in range(min(repeat, 20)):
        work(number)
    seconds, processor = [], []
    for number in range(repeat):
        began, used = time.perf_counter(), time.process_time()
        work(number)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return [
        float(np.percentile(seconds, 50)),
        float(np.percentile(seconds, 99)),
        float(np.percentile(processor, 50)),
    ]


def anonymous_memory() -> int | None:
    """Return the bytes of this process beyond the page cache, where the system says."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def others(folder: Path, repeat: int) -> dict[str, Any]:
    """Do the same jobs with other means, over the same scores and vectors."""
    import faiss

    values: dict[str, Any] = {}
    few = max(repeat // 20, 3)
    with Library(folder) as library:
        blocks = [part.block for part in library.snapshot().parts]
        rows = sum(block.rows for block in blocks)
        scores = np.empty((rows, 527), np.uint8)
        at = 0
        for block in blocks:
            for number in range(527):
                scores[at : at + block.rows, number] = block.column(number)
            at += block.rows
        vectors = np.concatenate([block.vectors for block in blocks])
        recordings = np.concatenate([block.recordings for block in blocks])
    draw = np.random.default_rng(5)
    music = load_labels().by_name("Music").index
    values["NumPy argsort: one class"] = timed(
        lambda n: np.argsort(255 - scores[:, n * 7 % 527])[:50], few
    )
    values["NumPy, IBM's best five: one class"] = timed(lambda n: best_five(scores, music), 3)
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, rows, 100_000):
        index.add(unit(vectors[start : start + 100_000]))
    queries = unit(vectors[draw.integers(0, rows, few)])
    search: Any = index.search
    values["FAISS Flat: by example"] = timed(
        lambda n: search(queries[n % few : n % few + 1], 10), few
    )
    del index
    values |= duckdb_values(scores, recordings, vectors, queries, few)
    return values


def best_five(scores: npt.NDArray[np.uint8], label: int) -> npt.NDArray[np.int64]:
    """IBM's method: clips with a class among their best five, ordered by its score."""
    found = []
    for start in range(0, len(scores), 50_000):
        part = scores[start : start + 50_000]
        best = np.argpartition(part, -5, axis=1)[:, -5:]
        found.append(start + np.flatnonzero((best == label).any(axis=1)))
    clips = np.concatenate(found)
    return clips[np.argsort(-scores[clips, label].astype(np.int16), kind="stable")][:50]


def duckdb_values(
    scores: npt.NDArray[np.uint8],
    recordings: npt.NDArray[np.uint32],
    vectors: npt.NDArray[np.int8],
    queries: npt.NDArray[np.float32],
    repeat: int,
) -> dict[str, Any]:
    """The same questions to DuckDB, a column a class; nothing where it is not installed."""
    names = [f"DuckDB: {job}" for job in ("one class", "three terms", "by example")]
    try:
        duckdb: Any = importlib.import_module("duckdb")
    except ImportError:
        return dict.fromkeys(names)
    import pandas as pd

    classes = list(range(0, 527, 7))
    db = duckdb.connect()
    columns = ", ".join(f"c{number} UTINYINT" for number in classes)
    db.execute(f"CREATE TABLE clips (clip UINTEGER, recording UINTEGER, {columns})")
    db.execute(f"CREATE TABLE vectors (clip UINTEGER, vector FLOAT[{vectors.shape[1]}])")
    for start in range(0, len(scores), 100_000):
        stop = min(start + 100_000, len(scores))
        numbers = np.arange(start, stop, dtype=np.uint32)
        named = {f"c{number}": scores[start:stop, number] for number in classes}
        rows = pd.DataFrame({"clip": numbers, "recording": recordings[start:stop], **named})
        db.execute("INSERT INTO clips SELECT * FROM rows")
        units = pd.DataFrame({"clip": numbers, "vector": list(unit(vectors[start:stop]))})
        db.execute("INSERT INTO vectors SELECT * FROM units")
        del rows, units

    def page(score: str, where: str) -> object:
        """Ask for 50 recordings, the best clip of each, and both totals."""
        hits = db.execute(
            f"SELECT recording, max({score}) AS best, arg_max(clip, {score}) FROM clips "
            f"WHERE {where} GROUP BY recording ORDER BY best DESC, recording LIMIT 50"
        ).fetchall()
        totals = f"SELECT count(*), count(DISTINCT recording) FROM clips WHERE {where}"
        return hits, db.execute(totals).fetchall()

    def one_class(number: int) -> object:
        name = f"c{classes[number % len(classes)]}"
        return page(name, f"{name} >= {POSTED_CODE}")

    def three_terms(number: int) -> object:
        one, other, third = (f"c{classes[(number + n) % len(classes)]}" for n in (0, 1, 2))
        where = f"{one} >= {POSTED_CODE} AND {other} >= {POSTED_CODE} AND {third} < 120"
        return page(f"({one}::INTEGER + {other})", where)

    def by_example(number: int) -> object:
        return db.execute(
            f"SELECT clip FROM vectors ORDER BY array_inner_product(vector, "
            f"?::FLOAT[{vectors.shape[1]}]) DESC LIMIT 10",
            [queries[number % len(queries)].tolist()],
        ).fetchall()

    return {
        name: timed(work, repeat)
        for name, work in zip(names, (one_class, three_terms, by_example), strict=True)
    }


def unit(vectors: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    values = vectors.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def table(results: Sequence[tuple[int, dict[str, Any]]]) -> None:
    """Print what was measured, one column a library."""
    print("| | " + " | ".join(f"{clips:,} clips" for clips, _ in results) + " |")
    print("|---|" + "---:|" * len(results))
    for name in results[0][1]:
        cells = [shown(name, values.get(name)) for _, values in results]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        f"\n{os.cpu_count()} cores; times are the median / the 99th percentile / the median of "
        "processor time."
    )


def shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " / ".join(f"{1000 * seconds:,.2f}" for seconds in value) + " ms"
    if name == "build" or name.startswith(("adding", "first search")):
        return f"{value:,.1f} s"
    if "recall" in name:
        return f"{value:.4f}"
    if name == "anonymous memory":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.0f}" if isinstance(value, float | int) else str(value)


if __name__ == "__main__":
    main()
