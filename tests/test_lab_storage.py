"""A full disk, and what else fails on the way, leaves no half a result of the lab."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from lab_fixtures import class_folders

from audiosearch.errors import StorageError
from audiosearch.lab import LabClassifier, LabConfig, compare, preview, read_sounds, train_lab
from audiosearch.lab.feature_cache import FeatureCache
from audiosearch.own.features import get_feature
from audiosearch.own.waveforms import ClipLength


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of six sounds."""
    return class_folders(tmp_path_factory.mktemp("lab") / "data", n=6)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A cache that has what the models of these tests take."""
    folder = tmp_path_factory.mktemp("cache")
    with FeatureCache(folder) as store:
        for name in ("lite", "lite-layers"):
            store.fill(read_sounds(data), get_feature(name), ClipLength(0.5))
    return folder


@pytest.fixture
def limited(
    command_environment: dict[str, str],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of the lab whose files cannot grow beyond a size, as on a full disk."""

    def run(size: int, *args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "audiosearch", "lab", *map(str, args)],
            env=command_environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a command that failed."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_a_result_that_does_not_fit_leaves_no_folder(
    limited: Callable[..., subprocess.CompletedProcess[str]],
    data: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    train = ("train", data, "--model", "transfer", "--cache", cache, "--seconds", "0.5")
    line = said(limited(4000, *train, "--out", out))
    assert line.startswith(f"Error: The disk is full: {out / 'classifier.onnx'} could not")
    assert not out.exists()
    out.mkdir()
    said(limited(4000, *train, "--out", out))
    assert list(out.iterdir()) == [], "a folder that was there is there"
    assert limited(10_000_000, *train, "--out", out).returncode == 0
    assert LabClassifier(out).classes == ("high", "low", "noise")


def test_a_cache_that_does_not_fit_keeps_what_it_has(
    limited: Callable[..., subprocess.CompletedProcess[str]], data: Path, tmp_path: Path
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    train = ("train", data, "--model", "transfer", "--cache", cache, "--seconds", "0.5")
    line = said(limited(40_000, *train, "--out", out))
    path = cache / "features.sqlite"
    assert line.startswith(f"Error: The disk is full: {path} could not be written.")
    assert "--cache" in line
    assert not out.exists()
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = dict(database.execute("SELECT key, data FROM features"))
    assert 0 < len(kept) < 18
    assert limited(10_000_000, *train, "--out", out).returncode == 0
    with contextlib.closing(sqlite3.connect(path)) as database:
        now = dict(database.execute("SELECT key, data FROM features"))
    assert len(now) == 18
    assert {key: now[key] for key in kept} == kept


def full(function: Callable[..., Any], *, at: int = 1) -> Callable[..., Any]:
    """Return a function whose call of that number finds the disk full."""
    calls = iter(range(1, 1000))

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*args, **options)

    return call


def test_a_training_on_a_disk_that_fills_up_can_be_gone_on_with(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sounds = tmp_path / "out", read_sounds(data)
    config = LabConfig(model="mlp-lite", epochs=4, batch_size=8, seconds=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full(np.savez))
        with pytest.raises(StorageError, match="disk is full"):
            train_lab(sounds, out, config=config, cache=cache)
        assert not out.exists(), "there is nothing to go on from"
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full(np.savez, at=3))
        with pytest.raises(StorageError, match=r"disk is full: .*checkpoint\.npz"):
            train_lab(sounds, out, config=config, cache=cache)
    assert not [path.name for path in out.iterdir() if path.suffix in (".tmp", ".onnx")]
    run = train_lab(sounds, out, config=config, cache=cache, resume=True)
    assert [each.epoch for each in run.epochs] == [1, 2, 3, 4]
    # A run that is finished, and whose result is written once more onto a full disk.
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full(Path.write_text))
        with pytest.raises(StorageError, match=r"disk is full: .*classifier\.json"):
            train_lab(sounds, out, config=config, cache=cache, resume=True)
    assert not list(out.glob("classifier.*"))
    assert not (out / "MODEL_CARD.md").exists()
    again = train_lab(sounds, out, config=config, cache=cache, resume=True)
    assert again.measures == run.measures


def test_events_that_cannot_be_written_are_said(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")

    flushed = writer.EventFileWriter.flush

    def flush(self: Any) -> None:
        flushed(self)
        raise RuntimeError("events.out.tfevents.1; No space left on device")

    monkeypatch.setattr(writer.EventFileWriter, "flush", flush)
    config = LabConfig(model="mlp-lite", epochs=1, batch_size=8, seconds=0.5)
    with pytest.raises(StorageError, match=r"disk is full: .* TensorBoard could not be written"):
        train_lab(read_sounds(data), tmp_path / "out", config=config, cache=cache)
    assert not (tmp_path / "out").exists()


def test_a_tool_that_cannot_go_on_tracking_is_named(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from audiosearch.lab import tracking

    def log(self: Any, step: int, values: Any) -> None:
        raise ValueError("no more room")

    monkeypatch.setattr(tracking._Tensorboard, "log", log)
    config = LabConfig(model="mlp-lite", epochs=1, batch_size=8, seconds=0.5)
    with pytest.raises(StorageError, match=r"tensorboard cannot go on .*: no more room"):
        train_lab(
            read_sounds(data), tmp_path / "out", config=config, cache=cache, track=["tensorboard"]
        )


def test_a_comparison_whose_report_does_not_fit(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sounds = tmp_path / "out", read_sounds(data)
    config = LabConfig(seconds=0.5)
    models = ["linear-lite", "transfer"]
    write = Path.write_text
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full(write))
        with pytest.raises(StorageError, match=r"disk is full: .*report\.json"):
            compare(sounds, models, out, config=config, cache=cache)
    assert not out.exists(), "nothing was tested that could be shown"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full(write, at=4))
        with pytest.raises(StorageError, match=r"disk is full: .*report\.html"):
            compare(sounds, models, out, config=config, cache=cache)
    written = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {each["model"] for each in written["models"]} == set(models)
    assert [path.name for path in out.iterdir()] == ["report.json"]


def test_previews_that_do_not_fit_leave_no_folder(
    limited: Callable[..., subprocess.CompletedProcess[str]], data: Path, tmp_path: Path
) -> None:
    # Sounds of half a second take 16 kB, pictures more.
    for size, name in ((8_000, "1.wav"), (18_000, "1.png")):
        line = said(limited(size, "preview", data, "--out", tmp_path / "out"))
        assert line.startswith(f"Error: The disk is full: {tmp_path / 'out' / name} could not")
        assert not (tmp_path / "out").exists()
    assert preview(read_sounds(data), tmp_path / "out")


@pytest.mark.parametrize("model", ["transfer", "mlp-lite"])
def test_what_was_interrupted_at_the_beginning_can_be_begun_again(
    data: Path, tmp_path: Path, model: str
) -> None:
    config = LabConfig(model=model, seconds=0.5, epochs=1, batch_size=8)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    sounds, out = read_sounds(data), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train_lab(sounds, out, config=config, cache=tmp_path / "cache", on_sound=stop)
    assert not out.exists()
    run = train_lab(sounds, out, config=config, cache=tmp_path / "cache")
    assert not run.interrupted


def test_a_folder_with_something_in_it_stays_as_it_is(
    data: Path, cache: Path, tmp_path: Path, invoke: Callable[..., Outcome]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    for command in (("train",), ("compare",), ("preview",)):
        options = () if command == ("preview",) else ("--cache", cache)
        done = invoke("lab", *command, data, "--out", tmp_path / "out", *options)
        assert done.code == 1
        assert "exists already" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
