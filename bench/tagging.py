"""Throughput of batch tagging, where its time goes, its memory, and its cost per file.

Run: ``python bench/tagging.py [--minutes 20] [--files 20000] [--lengths 1 60 600] [--mp3]
[--yamnet yamnet.tflite]``

Three tables, all of one run on made sound (44.1 kHz, stereo; noise and tones):

- throughput of ``tag_batch`` on long files, beside the same decoder and as many processes with
  YAMNet in LiteRT, and with librosa's log-mel features in place of the models, as ratios; then the
  parts of the work alone, in as many processes;
- the peak memory of a worker by a file's length (``--lengths``, minutes);
- a tree of ``--files`` files of one second: time per file, and of that the bookkeeping, measured as
  the same inputs and results put into a journal without any analysis.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiosearch import audio, frontend
from audiosearch.jobs import Entry, Journal, core_count
from audiosearch.jobs.inputs import find_items
from audiosearch.jobs.journal import GROUP_FILES
from audiosearch.tagging import TagRules, tag_batch
from audiosearch.tagging.formats import FORMATS, encode_rows

_RATE = 44100
_WINDOW = 15600
_ROWS = [(0.0, 1.0, [(index, 0.5) for index in range(TagRules().top)])]
_MEMORY = """
import resource, sys
from audiosearch.jobs import Analyzer, AnalyzerSettings
from audiosearch.tagging import TagRules

analyzer = Analyzer(AnalyzerSettings(threads=1, reduction=TagRules(per=sys.argv[2])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
analyzer.reduce(sys.argv[1])
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_sound(path: Path, seconds: float, seed: int) -> Path:
    """Write stereo noise with a tone, in blocks."""
    random = np.random.default_rng(seed)
    left = round(seconds * _RATE)
    with soundfile.SoundFile(path, "w", _RATE, 2) as file:
        while left:
            count = min(left, 10 * _RATE)
            tone = np.sin(np.arange(count) * random.uniform(0.01, 0.3))[:, None]
            file.write(0.1 * tone + random.normal(0, 0.05, (count, 2)))
            left -= count
    return path


def decode(path: str) -> float:
    """Decode only."""
    return sum(len(block) for block in audio.stream(path)) / audio.SAMPLE_RATE


def log_mel(path: str) -> float:
    """Decode, and make audiosearch's patches."""
    return sum(len(patches) for patches in frontend.patches(audio.stream(path))) * 0.96


def librosa_features(path: str) -> float:
    """Decode, and make librosa's log-mel of each 10 s."""
    import librosa

    seconds = 0.0
    for block in audio.stream(path):
        mel = librosa.feature.melspectrogram(
            y=block, sr=audio.SAMPLE_RATE, n_fft=512, win_length=400, hop_length=160, n_mels=64
        )
        librosa.power_to_db(mel)
        seconds += len(block) / audio.SAMPLE_RATE
    return seconds


_yamnet: dict[str, Any] = {}


def yamnet(path: str) -> float:
    """Decode, and run YAMNet on each window of 0.975 s, one window every 0.96 s."""
    if not _yamnet:
        from ai_edge_litert.interpreter import Interpreter

        interpreter: Any = Interpreter(os.environ["BENCH_YAMNET"], num_threads=1)
        interpreter.allocate_tensors()
        source = interpreter.get_input_details()[0]
        _yamnet.update(run=interpreter, index=source["index"], shape=source["shape"])
    held = np.empty(0, np.float32)
    windows = 0
    for block in audio.stream(path):
        held = np.concatenate([held, block])
        while len(held) >= _WINDOW:
            _yamnet["run"].set_tensor(_yamnet["index"], held[:_WINDOW].reshape(_yamnet["shape"]))
            _yamnet["run"].invoke()
            held = held[15360:]
            windows += 1
    return windows * 0.96


def in_processes(work: Callable[[str], float], files: list[Path], workers: int) -> float:
    """Return seconds of sound a second; the processes are started before the clock is."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(work, [str(files[0])] * workers))
        began = time.perf_counter()
        done = sum(pool.map(work, map(str, files)))
        return done / (time.perf_counter() - began)


def tagging(files: list[Path], folder: Path, workers: int) -> tuple[float, float]:
    """Return x real time from the first result on, and with the start of the workers."""
    marks: list[tuple[float, float]] = []
    began = time.perf_counter()
    summary = tag_batch(
        files,
        folder / "tags.csv",
        workers=workers,
        restart=True,
        on_progress=lambda p: marks.append((time.perf_counter(), p.seconds)),
    )
    whole = summary.seconds / (time.perf_counter() - began)
    warm = [mark for mark in marks if mark[1] > 0]
    if len(warm) < 2 or warm[-1][1] == warm[0][1]:
        return whole, whole
    return (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0]), whole


def throughput(folder: Path, minutes: float, workers: int, ending: str) -> None:
    count = 4 * workers
    files = [
        write_sound(folder / f"{number}.{ending}", minutes * 60 / count, number)
        for number in range(count)
    ]
    warm, whole = tagging(files, folder, workers)
    print(f"\n{ending}, {minutes:g} minutes, {workers} workers\n\n| work | x real time | ratio |")
    print(f"|---|---|---|\n| tag_batch | {warm:,.0f} | 1 |")
    print(f"| tag_batch with its start | {whole:,.0f} | {whole / warm:.2f} |")
    works: dict[str, Callable[[str], float]] = {"librosa's log-mel": librosa_features}
    if "BENCH_YAMNET" in os.environ:
        works["YAMNet, LiteRT"] = yamnet
    works |= {"decoding alone": decode, "decoding and log-mel alone": log_mel}
    for name, work in works.items():
        speed = in_processes(work, files, workers)
        print(f"| {name} | {speed:,.0f} | {speed / warm:.2f} |", flush=True)


def memory(folder: Path, lengths: list[float]) -> None:
    print("\n| minutes | per | peak MB | with the models alone |\n|---|---|---|---|")
    for minutes in lengths:
        path = write_sound(folder / "long.wav", minutes * 60, 0) if minutes < 400 else None
        if path is None:  # stereo wav would pass 4 GB
            path = folder / "long.w64"
            write_sound(path, minutes * 60, 0)
        for per in ("file", "segment"):
            command = [sys.executable, "-c", _MEMORY, str(path), per]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            before, peak = map(float, done.stdout.split())
            print(f"| {minutes:g} | {per} | {peak:.0f} | {before:.0f} |", flush=True)
        path.unlink()


def small_files(folder: Path, count: int, workers: int) -> None:
    source = write_sound(folder / "one.wav", 1.0, 0).read_bytes()
    tree = folder / "tree"
    for number in range(count):
        path = tree / f"{number // 1000:03}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    began = time.perf_counter()
    tag_batch(tree, folder / "tree.csv", workers=workers)
    each = (time.perf_counter() - began) / count
    began = time.perf_counter()
    tag_batch(tree, folder / "tree.csv", workers=workers)
    again = (time.perf_counter() - began) / count
    rows = encode_rows(_ROWS)
    began = time.perf_counter()
    kind = FORMATS["csv"]
    with Journal(folder / "book.journal", folder / "book.csv", settings="bench") as journal:
        journal.plan(find_items([str(tree)]))
        assert kind.render is not None
        journal.attach(kind.head, kind.render, layout="bench")
        for group in groups(Entry(item, 1.0, rows) for item in journal.todo()):
            journal.put(group)
    book = (time.perf_counter() - began) / count
    print(f"\n| {count:,} files of 1 s | ms a file |\n|---|---|")
    print(f"| all | {each * 1e3:.3f} |\n| bookkeeping | {book * 1e3:.3f} |")
    print(f"| again, nothing to do | {again * 1e3:.3f} |")


def groups(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    for entry in entries:
        group.append(entry)
        if len(group) == GROUP_FILES:
            yield group
            group = []
    if group:
        yield group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=20, help="sound in all (20)")
    parser.add_argument("--workers", type=int, default=core_count(), help="one a core")
    parser.add_argument("--files", type=int, default=20_000, help="short files; 0: none")
    parser.add_argument("--lengths", type=float, nargs="*", default=[1, 60], help="minutes")
    parser.add_argument("--mp3", action="store_true", help="also of mp3")
    parser.add_argument("--yamnet", type=Path, help="YAMNet for LiteRT that takes a waveform")
    options = parser.parse_args()
    if options.yamnet:
        os.environ["BENCH_YAMNET"] = str(options.yamnet.resolve())
    for ending in ["wav", *(["mp3"] if options.mp3 else [])]:
        with tempfile.TemporaryDirectory() as folder:
            throughput(Path(folder), options.minutes, options.workers, ending)
    with tempfile.TemporaryDirectory() as folder:
        memory(Path(folder), options.lengths)
    if options.files:
        with tempfile.TemporaryDirectory() as folder:
            small_files(Path(folder), options.files, options.workers)


if __name__ == "__main__":
    main()
