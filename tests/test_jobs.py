"""Analysis of files in worker processes: results, order, crashes, hangs, endings."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import GOOD_SOUNDS
from library_fixtures import frame_scores

import audiosearch as aus
from audiosearch.errors import (
    AudioDecodeError,
    AudioError,
    AudioSearchError,
    InvalidArgumentError,
    ModelError,
)
from audiosearch.jobs import Analysis, AnalyzerSettings, WorkerPool, core_count

# What a worker does with files of certain names, as bad decoders would.
MISDEEDS = """
import os, pathlib, signal, sys, time

import numpy

from audiosearch import audio

def stream(path, **options):
    name = os.path.basename(path)
    if name.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("abort"):
        os.abort()
    if name.startswith("exit"):
        os._exit(3)
    if name.startswith("once"):
        mark = pathlib.Path(path + ".seen")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("hang"):
        pathlib.Path(path + f".{os.getpid()}").touch()
        time.sleep(1000)
    if name.startswith("slow"):
        blocks = list(original(path, **options))
        return (time.sleep(0.5) or part for part in numpy.array_split(blocks[0], 6))
    if name.startswith("quiet"):
        pathlib.Path(path + ".begun").touch()
        time.sleep(4)
    if name.startswith("memory"):
        raise MemoryError
    if name.startswith("bug"):
        raise ZeroDivisionError("a fault in a decoder's binding")
    if name.startswith("talk"):
        os.write(1, b"a library that prints")
        print("so does Python")
    return original(path, **options)

original = audio.stream
audio.stream = stream
"""


@pytest.fixture
def misdeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make workers misbehave: Python runs a module of this name when it starts."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(MISDEEDS)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def file(sound_master: Path, tmp_path: Path) -> Callable[[str], str]:
    """Give a good sound a name."""

    def make(name: str) -> str:
        return str(shutil.copy(sound_master / "tone.wav", tmp_path / name))

    return make


def kinds(results: Iterator[Analysis | AudioError]) -> list[str]:
    return [
        result.reason if isinstance(result, AudioError) else f"{result.duration:g} s"
        for result in results
    ]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


# what is found out


def test_an_analysis_is_what_the_models_say_of_the_file(sound_master: Path) -> None:
    names = [str(sound_master / name) for name in GOOD_SOUNDS]
    with WorkerPool(workers=2) as pool:
        results = list(pool.map(names))
    for name, result, (_, _, seconds) in zip(names, results, GOOD_SOUNDS.values(), strict=True):
        assert isinstance(result, Analysis)
        assert result.path == name
        assert result.duration == pytest.approx(seconds, abs=0.001)
        assert (result.frames == aus.embed(name)).all()
        clips = -(-len(result.frames) // 10)
        assert result.scores.shape == (clips, 527)
        last = result.frames[10 * (clips - 1) :]
        padded = np.zeros((1, 10, 128), np.uint8)
        padded[0, : len(last)] = last
        expected = frame_scores(padded, np.array([len(last)]))
        assert (result.scores[-1:] == expected).all()
        assert result.clip_times(0) == (0.0, pytest.approx(min(seconds, 9.6), abs=0.001))
        assert result.clip_times(clips - 1)[1] == pytest.approx(seconds, abs=0.001)


def test_results_come_in_the_order_of_the_files(sound_master: Path) -> None:
    names = [str(sound_master / name) for name in ("nested/noise.flac", "broken.wav", "click.wav")]
    names = [*names, str(sound_master / "nowhere.wav"), str(sound_master)] * 3
    with WorkerPool(workers=2) as pool:
        results = list(pool.map(names))
    assert [result.path for result in results] == names
    assert [isinstance(result, AudioError) for result in results] == [
        False,
        True,
        False,
        True,
        True,
    ] * 3


def test_only_a_few_files_are_taken_ahead(file: Callable[[str], str]) -> None:
    taken = itertools.count()

    def endless() -> Iterator[str]:
        path = file("good.wav")
        while True:
            next(taken)
            yield path

    with WorkerPool(workers=2) as pool:
        results = pool.map(endless())
        for _ in range(5):
            assert isinstance(next(results), Analysis)
    assert next(taken) < 120


# what goes wrong


@pytest.mark.usefixtures("misdeeds")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kill.wav", "Its decoder crashed (SIGKILL), or memory ran out."),
        ("abort.wav", "Its decoder crashed (SIGABRT)."),
        ("exit.wav", "Its decoder ended unexpectedly (exit code 3)."),
        ("memory.wav", "It needs more memory than there is."),
        ("bug.wav", "could not be analysed (ZeroDivisionError"),
        ("once.wav", "2 s"),
        ("talk.wav", "2 s"),
    ],
)
def test_a_bad_decoder_costs_its_file_at_most(
    file: Callable[[str], str], name: str, reason: str
) -> None:
    with WorkerPool(workers=1) as pool:
        before, found, after = kinds(pool.map([file("a.wav"), file(name), file("b.wav")]))
    assert (before, after) == ("2 s", "2 s")
    assert reason in found


@pytest.mark.usefixtures("misdeeds")
def test_a_decoder_that_hangs_is_given_up(file: Callable[[str], str], tmp_path: Path) -> None:
    with WorkerPool(workers=1, stall=4.0) as pool:
        found, after = kinds(pool.map([file("hang.wav"), file("b.wav")]))
    assert found == "Its decoder gave no sound for 4 s and was stopped."
    assert after == "2 s"
    (pid,) = (int(path.suffix[1:]) for path in tmp_path.glob("hang.wav.*"))
    assert not alive(pid)


@pytest.mark.usefixtures("misdeeds")
def test_a_slow_decoder_is_waited_for(file: Callable[[str], str]) -> None:
    with WorkerPool(workers=1, stall=2.0) as pool:
        assert kinds(pool.map([file("slow.wav")])) == ["2 s"]  # 3 s, with signs of life


def test_a_worker_that_was_ended_while_idle_costs_nothing(file: Callable[[str], str]) -> None:
    with WorkerPool(workers=1) as pool:
        pool.analyze(file("a.wav"))
        for child in children(os.getpid()):
            os.kill(child, signal.SIGKILL)
        assert pool.analyze(file("b.wav")).duration == 2


def children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            values = (folder / "stat").read_text().rpartition(") ")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(values[1]) == parent and b"audiosearch.jobs.worker" in command:
            found.append(int(folder.name))
    return found


def test_a_worker_that_cannot_start_is_one_sentence(
    file: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(1)")
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerPool(workers=2) as pool, pytest.raises(AudioSearchError, match="could not start"):
        list(pool.map([file("a.wav"), file("b.wav")]))


def test_a_worker_that_does_not_start_at_once_is_started_again(
    file: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "began"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os\nif not os.path.exists({str(mark)!r}):\n"
        f"    open({str(mark)!r}, 'w').close()\n    os._exit(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerPool(workers=1) as pool:
        assert pool.analyze(file("a.wav")).duration > 0
    assert mark.exists()


def test_models_that_cannot_be_loaded_are_no_fault_of_the_file(file: Callable[[str], str]) -> None:
    settings = AnalyzerSettings(embedder="nonsense")
    refused = pytest.raises((ModelError, InvalidArgumentError), match="nonsense")
    with WorkerPool(settings, workers=1) as pool, refused:
        pool.analyze(file("a.wav"))


@pytest.mark.parametrize("options", [{"workers": 0}, {"stall": 0}, {"stall": -1.0}])
def test_invalid_arguments_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        WorkerPool(**options)  # type: ignore[arg-type]


def test_a_folder_of_sounds_may_hold_python_files(
    file: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing from the current folder is run."""
    for name in ("pickle", "queue", "numpy", "audiosearch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(tmp_path)
    with WorkerPool(workers=1) as pool:
        assert pool.analyze(file("a.wav")).duration == 2


def test_one_worker_a_core() -> None:
    with WorkerPool() as pool:
        assert pool.workers == core_count() == len(os.sched_getaffinity(0))


# endings


@pytest.mark.usefixtures("misdeeds")
def test_closing_gives_up_what_is_in_flight(file: Callable[[str], str], tmp_path: Path) -> None:
    errors: list[Exception] = []
    pool = WorkerPool(workers=2)

    def work() -> None:
        try:
            pool.analyze(hanging)
        except Exception as error:
            errors.append(error)

    hanging = file("hang.wav")
    threads = [threading.Thread(target=work) for _ in range(3)]  # two run, one waits
    for thread in threads:
        thread.start()
    wait_until(lambda: len(list(tmp_path.glob("hang.wav.*"))) == 2)
    pool.close()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    for path in tmp_path.glob("hang.wav.*"):
        assert not alive(int(path.suffix[1:]))
    with pytest.raises(AudioSearchError, match="closed"):
        pool.analyze(file("a.wav"))
    pool.close()


def test_closing_while_workers_start(file: Callable[[str], str]) -> None:
    pool = WorkerPool(workers=2)
    results = pool.map([file("a.wav")] * 8)
    thread = threading.Thread(target=lambda: [None for _ in swallow(results)])
    thread.start()
    wait_until(lambda: children(os.getpid()))
    pool.close()
    thread.join()
    assert children(os.getpid()) == []


def swallow(results: Iterator[Analysis | AudioError]) -> Iterator[Analysis | AudioError]:
    with pytest.raises(AudioSearchError):
        yield from results


def test_a_map_that_is_left_early_takes_no_more_files(file: Callable[[str], str]) -> None:
    name, taken = file("a.wav"), []

    def names() -> Iterator[str]:
        for number in range(500):
            taken.append(number)
            yield name

    with WorkerPool(workers=1) as pool:
        for result in pool.map(names()):
            assert isinstance(result, Analysis)
            break
    assert len(taken) < 60


PARENT = """
import sys
from audiosearch.jobs import WorkerPool
with WorkerPool(workers=1, stall=float(sys.argv[2])) as pool:
    print(*[getattr(result, "reason", "done") for result in pool.map(sys.argv[1:2])])
"""


def start_parent(path: str, stall: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, path, str(stall)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("misdeeds")
def test_workers_end_with_their_parent_even_in_a_file(
    file: Callable[[str], str], tmp_path: Path
) -> None:
    parent = start_parent(file("hang.wav"), 100)
    wait_until(lambda: list(tmp_path.glob("hang.wav.*")))
    (pid,) = (int(path.suffix[1:]) for path in tmp_path.glob("hang.wav.*"))
    assert alive(pid)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not alive(pid), seconds=5)


@pytest.mark.usefixtures("misdeeds")
def test_a_pause_of_the_parent_is_no_hang_of_the_worker(
    file: Callable[[str], str], tmp_path: Path
) -> None:
    parent = start_parent(file("quiet.wav"), 2.5)
    wait_until((tmp_path / "quiet.wav.begun").exists)
    time.sleep(0.5)
    parent.send_signal(signal.SIGSTOP)  # as Ctrl-Z does
    time.sleep(3)
    parent.send_signal(signal.SIGCONT)
    assert parent.communicate(timeout=30)[0] == "done\n"


def test_errors_cross_processes(file: Callable[[str], str], tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"f\xffle.wav")
    name.write_bytes(b"no sound")
    with WorkerPool(workers=1) as pool, pytest.raises(AudioDecodeError) as caught:
        pool.analyze(str(name))
    assert caught.value.path == str(name)
    assert r"f\udcffle.wav" in str(caught.value)
