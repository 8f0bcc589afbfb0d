"""Indexing and uploads run on what batch tagging runs on: the same limits, codes and progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from library_fixtures import counts

import audiosearch as aus
from audiosearch.errors import AudioDecodeError, InvalidArgumentError
from audiosearch.server.limits import Limits
from audiosearch.server.state import State

Invoke = Callable[..., Outcome]

SITE = """
import os, time
from audiosearch import audio
original = audio.stream

def stream(path, **options):
    name = os.path.basename(path)
    if name == "tone.wav":
        os.abort()
    if name == "noise.flac":
        eaten = bytearray(900 << 20)
    if name == "click.wav":
        time.sleep(100)
    return original(path, **options)

audio.stream = stream
"""


@pytest.fixture
def bad_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("bad_decoder")
def test_a_library_loses_only_the_files_at_fault(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "lib"
    summary = aus.index(good_folder, library, workers=1, time_limit=20, memory_limit=500)
    assert counts(summary) == {"added": 2, "skipped": 3}
    reasons = {Path(skipped.path).name: skipped.reason for skipped in summary.skipped}
    assert reasons["tone.wav"] == "Its decoder crashed (SIGABRT)."
    assert reasons["noise.flac"] == "It needs more memory than 500 MB, the memory limit a file."
    assert "20 s, the time limit" in reasons["click.wav"]
    monkeypatch.undo()
    again = aus.index(good_folder, library, workers=1, retry_skipped=True)
    assert counts(again) == {"added": 3, "unchanged": 2}


@pytest.mark.usefixtures("bad_decoder")
def test_an_upload_has_the_limits_of_the_server(good_folder: Path, tmp_path: Path) -> None:
    aus.index(good_folder / "silence.wav", tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        state = State(library, limits=Limits(upload_time=20, upload_memory=500))
        try:
            with pytest.raises(AudioDecodeError, match="20 s, the time limit"):
                state.analyze(str(good_folder / "click.wav"))
            with pytest.raises(AudioDecodeError, match="500 MB, the memory limit"):
                state.analyze(str(good_folder / "nested" / "noise.flac"))
            assert state.analyze(str(good_folder / "silence.wav")).duration > 0
        finally:
            state.close()


@pytest.mark.parametrize(
    "limits", [{"time_limit": 0.0}, {"time_limit": float("nan")}, {"memory_limit": 0}]
)
def test_limits_that_cannot_be_are_refused(
    good_folder: Path, tmp_path: Path, limits: dict[str, float]
) -> None:
    with pytest.raises(InvalidArgumentError, match="must be"):
        aus.index(good_folder, tmp_path / "lib", **limits)  # type: ignore[arg-type]
    assert not (tmp_path / "lib").exists()
    for name, value in limits.items():
        with pytest.raises(InvalidArgumentError, match="must be above 0"):
            Limits(**{f"upload_{name.removesuffix('_limit')}": value})  # type: ignore[arg-type]


def test_codes_and_progress_of_the_index_command(
    invoke: Invoke, sound_folder: Path, tmp_path: Path
) -> None:
    library = tmp_path / "lib"
    options = ("--library", library, "--workers", 1, "--progress", "json")
    first = invoke("index", sound_folder, *options)
    assert first.code == 3
    states = [json.loads(line) for line in first.err.splitlines() if line[0] == "{"]
    assert (states[0]["done"], states[0]["total"], states[0]["earlier"]) == (0, 8, 0)
    assert (states[-1]["done"], states[-1]["skipped"], states[-1]["seconds_left"]) == (8, 3, 0)
    again = invoke("index", sound_folder, *options, "--quiet")
    assert (again.code, again.out, again.err) == (3, "", "")
    more = invoke("index", sound_folder, *options, "--retry-skipped")
    (state, *_) = [json.loads(line) for line in more.err.splitlines() if line[0] == "{"]
    assert (state["done"], state["total"], state["earlier"]) == (5, 8, 5)
