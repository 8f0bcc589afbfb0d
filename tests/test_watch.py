"""`audiosearch index --watch`: the library follows its folders, whatever happens to them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Outcome
from library_fixtures import InProcessPool, write_sounds

import audiosearch as aus
from audiosearch.errors import (
    AudioNotFoundError,
    AudioSearchError,
    InvalidArgumentError,
    MissingDependencyError,
)
from audiosearch.library import indexing, watching
from audiosearch.library.indexing import IndexSummary, writer_lock
from audiosearch.library.library import Library
from audiosearch.server.app import create_app

PATIENCE = 60.0


class Watch:
    """A watch in a thread of its own, and what it said."""

    def __init__(self) -> None:
        self.runs: list[IndexSummary] = []
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, sources: object, library: Path, **options: object) -> None:
        def work() -> None:
            try:
                aus.watch(
                    sources,
                    library,
                    on_run=self.runs.append,
                    on_error=lambda error: self.errors.append(str(error)),
                    stop=self._stop,
                    **options,
                )
            except BaseException as error:
                self._failure = error

        self._thread = threading.Thread(target=work)
        self._thread.start()
        self.until(lambda: self.runs)

    def until(self, ready: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            assert self._failure is None, self._failure
            assert time.monotonic() < end, (self.runs, self.errors)
            time.sleep(0.02)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(indexing, "WorkerPool", InProcessPool)
    monkeypatch.setattr(InProcessPool, "seen", [], raising=False)
    monkeypatch.setattr(watching, "_QUIET", 0.3)
    monkeypatch.setattr(watching, "_TICK_MS", 100)
    monkeypatch.setattr(watching, "_BUSY", 0.2)
    watch = Watch()
    yield watch
    watch.close()


def names(library: Library) -> list[str]:
    return sorted(
        str(Path(hit.recording)) for hit in library.search("duration:>0", limit=1000).hits
    )


def inside(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.wav"))


def test_the_library_follows_its_folder(watch: Watch, tmp_path: Path) -> None:
    """A reader and a web app that were opened before see it all, without a restart."""
    sounds, spare = write_sounds(tmp_path / "sounds", 2), write_sounds(tmp_path / "spare", 3)
    watch.start(sounds, tmp_path / "lib")
    with Library(tmp_path / "lib") as library:
        client = create_app(library).test_client()

        def follows() -> bool:
            page = client.get("/search.json?q=duration:>0&limit=100").get_json()
            shown = sorted(hit["recording"] for hit in page["hits"])
            return shown == names(library) == inside(sounds)

        watch.until(follows)
        shutil.copy(spare / "002.wav", sounds / "new.wav")
        watch.until(follows)
        (sounds / "deep" / "deeper").mkdir(parents=True)
        shutil.copy(spare / "001.wav", sounds / "deep" / "deeper" / "1.wav")
        watch.until(follows)
        shutil.copytree(spare, tmp_path / "more")
        (tmp_path / "more").rename(sounds / "more")
        watch.until(follows)
        (sounds / "more").rename(sounds / "renamed")
        watch.until(follows)
        (sounds / "000.wav").unlink()
        watch.until(follows)
        shutil.rmtree(sounds / "deep")
        watch.until(follows)
        assert len(inside(sounds)) == 5
        before = sum(run.updated for run in watch.runs)
        shutil.copy(spare / "000.wav", sounds / "new.wav")
        watch.until(lambda: sum(run.updated for run in watch.runs) > before)
    assert watch.errors == []


def test_what_is_no_sound_starts_no_run(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does what the run itself writes, with the library in the folder that is watched."""
    runs = []
    run = watching.index

    def noted(*args: object, **options: object) -> IndexSummary:
        runs.append(time.monotonic())
        return run(*args, **options)

    monkeypatch.setattr(watching, "index", noted)
    sounds = write_sounds(tmp_path / "sounds", 1)
    watch.start(sounds, sounds / "lib")
    watch.until(lambda: len(runs) == 2)  # the first, and once more when events come
    (sounds / "notes.txt").write_text("nothing")
    (sounds / ".hidden.wav").write_bytes(b"nothing")
    (sounds / "lib" / "thesaurus.toml").write_text('woof = "Dog"')
    time.sleep(1.5)
    assert len(runs) == 2
    shutil.copy(sounds / "000.wav", sounds / "1.wav")
    watch.until(lambda: len(watch.runs) == 2)
    time.sleep(1.5)
    assert len(watch.runs) == 2
    assert len(runs) <= 4


def test_a_folder_that_goes_away_and_comes_back(watch: Watch, tmp_path: Path) -> None:
    """As a drive does; nothing is forgotten, it is told once, and the watch goes on."""
    sounds = write_sounds(tmp_path / "sounds", 2)
    watch.start(sounds, tmp_path / "lib", look_again=1)
    with Library(tmp_path / "lib") as library:
        sounds.rename(tmp_path / "away")
        watch.until(lambda: watch.errors)
        time.sleep(2)
        assert len(watch.errors) == 1
        assert "no such file or folder" in watch.errors[0]
        assert len(names(library)) == 2
        write_sounds(tmp_path / "away", 3)
        (tmp_path / "away").rename(sounds)
        watch.until(lambda: names(library) == inside(sounds))
        shutil.copy(sounds / "000.wav", sounds / "again.wav")
        watch.until(lambda: names(library) == inside(sounds))
        assert len(names(library)) == 4


def test_what_no_event_told_is_found_now_and_then(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a drive of a network."""

    def silent(places: object, stop: threading.Event) -> Iterator[list[tuple[bool, bytes]]]:
        while not stop.wait(0.05):
            yield []

    monkeypatch.setattr(watching, "_changes", silent)
    sounds = write_sounds(tmp_path / "sounds", 1)
    watch.start(sounds, tmp_path / "lib", look_again=0.5)
    shutil.copy(sounds / "000.wav", sounds / "1.wav")
    watch.until(lambda: len(watch.runs) == 2)
    assert watch.runs[1].added == 1


def test_another_writer_is_waited_for(watch: Watch, tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", 1)
    watch.start(sounds, tmp_path / "lib")
    with writer_lock(tmp_path / "lib"):
        shutil.copy(sounds / "000.wav", sounds / "1.wav")
        watch.until(lambda: watch.errors)
        time.sleep(1)
    watch.until(lambda: len(watch.runs) == 2)
    assert watch.runs[1].added == 1
    assert len(watch.errors) == 1
    assert "Another process is writing" in watch.errors[0]


def test_a_file_that_is_still_written_is_told_once_and_tried_again(
    watch: Watch, tmp_path: Path
) -> None:
    sounds = write_sounds(tmp_path / "sounds", 2)
    whole = (sounds / "001.wav").read_bytes()
    watch.start(sounds, tmp_path / "lib")
    (sounds / "part.wav").write_bytes(whole[:30])
    watch.until(lambda: len(watch.runs) == 2)
    assert [Path(item.path).name for item in watch.runs[1].skipped] == ["part.wav"]
    shutil.copy(sounds / "000.wav", sounds / "1.wav")
    watch.until(lambda: len(watch.runs) == 3)
    assert (watch.runs[2].added, watch.runs[2].skipped) == (1, [])
    (sounds / "part.wav").write_bytes(whole)
    watch.until(lambda: len(watch.runs) == 4)
    assert watch.runs[3].added == 1


def test_a_growing_file_is_waited_for(watch: Watch, tmp_path: Path) -> None:
    """As long as it grows, it is not read."""
    sounds = write_sounds(tmp_path / "sounds", 1)
    whole = (sounds / "000.wav").read_bytes()
    watch.start(sounds, tmp_path / "lib")
    InProcessPool.seen.clear()
    with (sounds / "big.wav").open("wb") as file:
        step = len(whole) // 10 + 1
        for start in range(0, len(whole), step):
            file.write(whole[start : start + step])
            file.flush()
            time.sleep(0.1)
    watch.until(lambda: len(watch.runs) == 2)
    assert InProcessPool.seen == ["big.wav"]


def test_a_single_file_that_is_replaced_is_followed(watch: Watch, tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds", 3)
    watch.start([sounds / "000.wav"], tmp_path / "lib")
    for other in ("001.wav", "002.wav"):
        done = sum(run.updated for run in watch.runs)
        shutil.copy(sounds / other, tmp_path / "new.wav")
        (tmp_path / "new.wav").rename(sounds / "000.wav")
        watch.until(lambda done=done: sum(run.updated for run in watch.runs) > done)


def test_what_cannot_begin_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Outcome]
) -> None:
    with pytest.raises(AudioNotFoundError):
        aus.watch(tmp_path / "nowhere", tmp_path / "lib")
    with pytest.raises(InvalidArgumentError, match="look_again"):
        aus.watch(tmp_path, tmp_path / "lib", look_again=0)
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingDependencyError, match=r"audiosearch\[watch\]"):
        aus.watch(write_sounds(tmp_path / "sounds", 1), tmp_path / "lib")
    done = invoke("index", tmp_path / "sounds", "--library", tmp_path / "lib", "--watch")
    assert done.code == 1
    assert "pip install" in done.err
    assert not (tmp_path / "lib").exists()


def test_a_library_that_is_lost_ends_the_watch(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = write_sounds(tmp_path / "sounds", 1)
    failures: list[AudioSearchError] = []

    def broken_later(summary: IndexSummary) -> None:
        catalogue = tmp_path / "lib" / "catalogue.sqlite"
        catalogue.write_bytes(b"x" * catalogue.stat().st_size)
        shutil.copy(sounds / "000.wav", sounds / "1.wav")

    with pytest.raises(AudioSearchError, match="damaged"):
        aus.watch(sounds, tmp_path / "lib", on_run=broken_later, on_error=failures.append)
    assert failures == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_each_run_and_ends_well(
    command_environment: dict[str, str], tmp_path: Path, number: int
) -> None:
    sounds, spare = write_sounds(tmp_path / "sounds", 1), write_sounds(tmp_path / "spare", 2)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "audiosearch", "index", sounds),
            *("--library", tmp_path / "lib", "--watch", "--json"),
        ],
        env=command_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["added"] == 1
        shutil.copy(spare / "001.wav", sounds / "new.wav")
        second = json.loads(process.stdout.readline())
        assert (second["added"], second["unchanged"]) == (1, 1)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"Watching {sounds}" in said
    assert "Stopped watching" in said
    assert "Traceback" not in said
