"""Throughput of batch tagging, where its time goes, its memory, and its cost per file.

Run: ``python bench/tagging.py [--minutes 120] [--mp3] [--lengths 1 60 600] [--files 20000]
[--yamnet yamnet.tflite] [--samples FOLDER]``

Four tables, all of one run, on 44.1 kHz stereo sound (recordings of ``--samples`` in a row, else
noise and tones):

- throughput of ``tag_batch``, beside YAMNet in LiteRT and librosa's log-mel features with the same
  decoder in as many processes, as ratios; the time is taken once all processes are warm;
- processor seconds (user and system, all threads) that an hour of sound needs, step by step;
- the peak memory of a worker and of the command (Linux) by a file's length (``--lengths``, minutes;
  ten hours of wav need 6.4 GB in the folder of temporary files);
- a tree of ``--files`` files of one second: time and processor time per file, and of that the
  bookkeeping, measured as the same inputs and results put into a journal without any analysis.
"""

from __future__ import annotations

import argparse
import os
import resource
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
import numpy.typing as npt
import soundfile

from audiosearch import audio, decoders, frontend
from audiosearch.classifier.clip_scorer import load_clip_scorer
from audiosearch.classifier.scorer import clip_frames, load_scorer
from audiosearch.embedders import get_embedder
from audiosearch.jobs import Entry, Journal, core_count
from audiosearch.jobs.groups import GROUP_FILES
from audiosearch.jobs.inputs import find_items
from audiosearch.tagging import TagRules, tag_batch
from audiosearch.tagging.formats import FORMATS, encode_rows
from audiosearch.tagging.rules import Row

_RATE = 44100
_FILE_MINUTES = 5.0
_WINDOW = 15600
_PATIENCE = 600.0  # for processes to start
_ROWS: list[Row] = [(0.0, 1.0, [(index, 0.5) for index in range(TagRules().top)])]
_MEMORY = """
import resource, sys
from audiosearch.tagging import TagRules, tag_batch

tag_batch(sys.argv[1], sys.argv[2], rules=TagRules(per=sys.argv[3]), workers=1, restart=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
# Not ru_maxrss, which begins with that of the process that started this one.
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")))
"""

Sound = npt.NDArray[np.float32]


def made_sound(samples: Path | None) -> Sound:
    """Return about a minute of stereo sound, or all recordings of a folder in a row."""
    if samples is None:
        random = np.random.default_rng(0)
        tone = np.sin(np.cumsum(np.repeat(random.uniform(0.01, 0.3, 60), _RATE)))[:, None]
        noise = random.normal(0, 0.05, (60 * _RATE, 2))
        return (0.1 * tone + noise).astype(np.float32)
    parts = [audio.load(path, rate=_RATE) for path in audio.find_audio(samples)]
    mono = np.concatenate(parts)
    # Two channels that differ, as those of a recording do.
    return np.stack([mono, 0.9 * np.roll(mono, 20)], axis=1)


def write_sound(path: Path, sound: Sound, seconds: float) -> Path:
    """Write `sound` over and over."""
    left = round(seconds * _RATE)
    with soundfile.SoundFile(path, "w", _RATE, 2) as file:
        while left:
            block = sound[:left]
            file.write(block)
            left -= len(block)
    return path


def decode(path: str) -> float:
    """Decode and resample only."""
    return sum(len(block) for block in audio.stream(path)) / audio.SAMPLE_RATE


def log_mel(path: str) -> float:
    """Decode, and make audiosearch's patches."""
    return sum(len(patches) for patches in frontend.patches(audio.stream(path))) * 0.96


def librosa_features(path: str) -> float:
    """Decode, and make librosa's log-mel of each block of about 10 s."""
    import librosa

    seconds = 0.0
    for block in audio.stream(path):
        seconds += len(block) / audio.SAMPLE_RATE
        if len(block) < 512:  # the resampler's last samples
            continue
        mel = librosa.feature.melspectrogram(
            y=block, sr=audio.SAMPLE_RATE, n_fft=512, win_length=400, hop_length=160, n_mels=64
        )
        librosa.power_to_db(mel)
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


def _warm(barrier: Any, work: Callable[[str], float], path: str) -> None:
    work(path)
    barrier.wait(_PATIENCE)


def _timed(work: Callable[[str], float], path: str) -> tuple[float, float]:
    began = time.process_time()
    seconds = work(path)
    return seconds, time.process_time() - began


def in_processes(
    work: Callable[[str], float], files: list[Path], warm: Path, workers: int
) -> tuple[float, float]:
    """Return x real time and processor seconds an hour of sound; all processes are warm before."""
    context = get_context("spawn")
    barrier = context.Barrier(workers + 1)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_warm, initargs=(barrier, work, str(warm))
    ) as pool:
        for _ in range(workers):  # each starts a process, as none is idle yet
            pool.submit(int)
        barrier.wait(_PATIENCE)
        began = time.perf_counter()
        done = list(pool.map(_timed, [work] * len(files), map(str, files)))
        elapsed = time.perf_counter() - began
    seconds = sum(each[0] for each in done)
    return seconds / elapsed, 3600 * sum(each[1] for each in done) / seconds


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def tagging(files: list[Path], out: Path, workers: int) -> tuple[float, float, float]:
    """Return x real time from the first commit on and with the start, and processor seconds."""
    marks: list[tuple[float, float]] = []
    began, used = time.perf_counter(), processor_seconds()
    summary = tag_batch(
        files,
        out,
        workers=workers,
        restart=True,
        on_progress=lambda p: marks.append((time.perf_counter(), p.seconds)),
    )
    if summary.skipped:
        raise SystemExit(f"Files were skipped: {summary.first_skipped}")
    whole = summary.seconds / (time.perf_counter() - began)
    used = processor_seconds() - used
    warm = [mark for mark in marks if mark[1] > 0]
    if warm[-1][1] == warm[0][1]:  # a single group
        return whole, whole, used
    return (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0]), whole, used


def throughput(folder: Path, sound: Sound, minutes: float, workers: int, ending: str) -> None:
    count = max(2 * workers, round(minutes / _FILE_MINUTES))
    first = write_sound(folder / f"0.{ending}", sound, minutes * 60 / count)
    files = [first]
    for number in range(1, count):
        files.append(folder / f"{number}.{ending}")
        os.link(first, files[-1])
    # What starting costs, apart from the work.
    short = [write_sound(folder / f"short{n}.{ending}", sound, 1.0) for n in range(workers)]
    start = tagging(short, folder / "short.csv", workers)[2]
    warm, whole, used = tagging(files, folder / "tags.csv", workers)
    each = 3600 * (used - start) / (minutes * 60)
    print(f"\n{ending}, {minutes:g} minutes in {count} files, {workers} workers\n")
    print("| work | x real time | ratio | processor s an hour |\n|---|---|---|---|")
    print(f"| tag_batch | {warm:,.0f} | 1 | {each:.2f} |")
    print(f"| tag_batch with its start | {whole:,.0f} | {whole / warm:.2f} | + {start:.1f} once |")
    works: dict[str, Callable[[str], float]] = {"librosa's log-mel": librosa_features}
    if "BENCH_YAMNET" in os.environ:
        works["YAMNet, LiteRT"] = yamnet
    works |= {"decoding alone": decode, "decoding and log-mel alone": log_mel}
    for name, work in works.items():
        speed, each = in_processes(work, files, short[0], workers)
        print(f"| {name} | {speed:,.0f} | {speed / warm:.2f} | {each:.2f} |", flush=True)


def profile(folder: Path, sound: Sound, minutes: float, ending: str) -> None:
    """Print the processor time of each step alone, on one thread."""
    path = str(write_sound(folder / f"steps.{ending}", sound, minutes * 60))
    reader = decoders.read_libav if decoders.is_mpeg_audio(path) else decoders.read_soundfile
    embedder, scorer = get_embedder(threads=1), load_scorer(threads=1)
    rescoring = load_clip_scorer(embedder.name, embedder.weights_hash, threads=1)
    blocks = list(audio.stream(path))
    patches = list(frontend.patches(iter(blocks)))
    frames = np.concatenate([embedder.embed_patches(each) for each in patches])
    clips = clip_frames(frames)
    single = np.zeros((len(frames), *clips[0].shape[1:]), np.uint8)
    single[:, 0] = frames
    ones = np.ones(len(frames), np.int64)
    steps: dict[str, Callable[[], object]] = {
        "decoding, mean of channels": lambda: [None for _ in reader(path, 0.0, None)],
        "the same, and resampling": lambda: [None for _ in audio.stream(path)],
        "log-mel": lambda: [None for _ in frontend.patches(iter(blocks))],
        "embedding": lambda: [embedder.embed_patches(each) for each in patches],
        "scores of clips": lambda: scorer.score_calibrated(*clips),
        "the same, rescored": lambda: rescoring.score(*clips),
        "scores of frames, for segments": lambda: scorer.score_calibrated(single, ones),
        "the same frames, rescored": lambda: rescoring.score(single, ones),
    }
    print(f"\n{ending}, one thread\n\n| step | processor s an hour |\n|---|---|")
    for name, step in steps.items():
        used = []
        for _ in range(3):
            began = time.process_time()
            step()
            used.append(time.process_time() - began)
        print(f"| {name} | {min(used) * 60 / minutes:.2f} |", flush=True)


def memory(folder: Path, sound: Sound, lengths: list[float]) -> None:
    print("\n| minutes | per | worker's peak MB | command's peak MB |\n|---|---|---|---|")
    for minutes in lengths:
        # Stereo wav ends at 4 GB.
        path = folder / ("long.wav" if minutes < 400 else "long.w64")
        write_sound(path, sound, minutes * 60)
        for per in ("file", "segment"):
            command = [sys.executable, "-c", _MEMORY, str(path), str(folder / "long.csv"), per]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            worker, own = map(float, done.stdout.split())
            print(f"| {minutes:g} | {per} | {worker:.0f} | {own:.0f} |", flush=True)
        path.unlink()


def small_files(folder: Path, sound: Sound, count: int, workers: int) -> None:
    source = write_sound(folder / "one.wav", sound, 1.0).read_bytes()
    tree = folder / "tree"
    for number in range(count):
        path = tree / f"{number // 1000:03}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    rows = encode_rows(_ROWS)
    kind = FORMATS["csv"]

    def analyse() -> None:
        tag_batch(tree, folder / "tree.csv", workers=workers)

    def keep_books() -> None:
        with Journal(folder / "book.journal", folder / "book.csv", settings="bench") as journal:
            journal.plan(find_items([str(tree)]))
            assert kind.render is not None
            journal.attach(kind.head, kind.render, layout="bench")
            for group in groups(Entry(item, 1.0, rows) for item in journal.todo()):
                journal.put(group)

    print(f"\n| {count:,} files of 1 s | ms a file | processor ms a file |\n|---|---|---|")
    for name, work in (
        ("all, with the start", analyse),
        ("again, nothing to do", analyse),
        ("bookkeeping alone", keep_books),
    ):
        began, used = time.perf_counter(), processor_seconds()
        work()
        elapsed, used = time.perf_counter() - began, processor_seconds() - used
        print(f"| {name} | {1e3 * elapsed / count:.3f} | {1e3 * used / count:.3f} |", flush=True)


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
    parser.add_argument("--minutes", type=float, default=120, help="of sound in all; 0: none")
    parser.add_argument("--steps", type=float, default=5, help="minutes for the steps; 0: none")
    parser.add_argument("--workers", type=int, default=core_count(), help="one a core")
    parser.add_argument("--files", type=int, default=20_000, help="short files; 0: none")
    parser.add_argument("--lengths", type=float, nargs="*", default=[1, 60], help="minutes")
    parser.add_argument("--mp3", action="store_true", help="also of mp3")
    parser.add_argument("--yamnet", type=Path, help="YAMNet for LiteRT that takes a waveform")
    parser.add_argument("--samples", type=Path, help="folder of recordings to use")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # for the processes that are started, as in the workers
    if options.yamnet:
        os.environ["BENCH_YAMNET"] = str(options.yamnet.resolve())
    sound = made_sound(options.samples)
    for ending in ["wav", *(["mp3"] if options.mp3 else [])]:
        with tempfile.TemporaryDirectory() as folder:
            if options.minutes:
                throughput(Path(folder), sound, options.minutes, options.workers, ending)
            if options.steps:
                profile(Path(folder), sound, options.steps, ending)
    if options.lengths:
        with tempfile.TemporaryDirectory() as folder:
            memory(Path(folder), sound, options.lengths)
    if options.files:
        with tempfile.TemporaryDirectory() as folder:
            small_files(Path(folder), sound, options.files, options.workers)


if __name__ == "__main__":
    main()
