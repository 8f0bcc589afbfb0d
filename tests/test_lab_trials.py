"""Trials of the lab that run at once, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from lab_fixtures import esc50_layout

from audiosearch.errors import DataError, InvalidArgumentError, OtherProcessError
from audiosearch.lab import LabConfig, compare, read_sounds
from audiosearch.lab.trials import job_count
from audiosearch.lab.usage import UsageSample, combined

pytest.importorskip("joblib")
FEW = LabConfig(epochs=3, batch_size=4, learning_rate=5e-3)


def test_trials_in_processes_give_what_they_give_in_turn(tmp_path):
    sounds = read_sounds(esc50_layout(tmp_path / "data"))
    found, seen = {}, {}
    for jobs in (1, 2):
        seen[jobs] = []
        found[jobs] = compare(
            sounds,
            ["prototypes", "mlp-lite"],
            tmp_path / f"out-{jobs}",
            config=FEW,
            jobs=jobs,
            cache=tmp_path / "cache",
            on_fold=lambda model, fold, jobs=jobs: seen[jobs].append((model, fold.split)),
        )
    assert seen[1] == seen[2], "folds are reported in the same order"
    alone, apart = ({each.model: each for each in found[jobs].results} for jobs in (1, 2))
    for model, one in alone.items():
        other = apart[model]
        assert one.accuracy == pytest.approx(other.accuracy, abs=1 / 17)
        assert one.parameters == other.parameters
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        for a, b in zip(one.folds, other.folds, strict=True):
            wanted, given = ([each["loss"] for each in fold.epochs] for fold in (a, b))
            assert given == pytest.approx(wanted, abs=1e-4)


def test_a_script_needs_no_guard(tmp_path):
    data = esc50_layout(tmp_path / "data")
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from audiosearch.lab import LabConfig, compare, read_sounds

config = LabConfig(epochs=1, batch_size=4)
found = compare(read_sounds({str(data)!r}), ["mlp-lite"], {str(tmp_path / "out")!r},
                config=config, jobs=2, cache={str(tmp_path / "cache")!r})
print(len(found.results[0].folds))
""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["3"], "it ran once"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
def test_ctrl_c_ends_all_processes(tmp_path):
    data = esc50_layout(tmp_path / "data")
    words = ["lab", "compare", str(data), "--models", "prototypes,mlp-lite", "--jobs", "2"]
    words += ["--epochs", "100000", "--out", str(tmp_path / "out")]
    words += ["--cache", str(tmp_path / "cache")]
    running = subprocess.Popen(
        [sys.executable, "-m", "audiosearch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        report = tmp_path / "out" / "report.json"
        deadline = time.monotonic() + 300
        while not report.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        # The command, what joblib clears up with, and two that train until they are ended.
        while len(_group(running.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(_group(running.pid)) >= 4
        time.sleep(5)
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=120)
        deadline = time.monotonic()
        # joblib's own process, which clears up after the others, ends a moment later.
        while _group(running.pid) and time.monotonic() < deadline + 60:
            time.sleep(0.1)
    finally:
        left = _group(running.pid)
        if left:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130
    assert not left, "no process is left"
    written = json.loads(report.read_text(encoding="utf-8"))
    assert [each["model"] for each in written["models"]] == ["prototypes"]
    assert written["untested"] == ["mlp-lite"]


def _group(leader: int) -> list[int]:
    """Return the processes of a session that are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_an_error_of_a_process_is_the_comparison_s(tmp_path):
    sounds = read_sounds(esc50_layout(tmp_path / "data"))
    config = LabConfig(epochs=2, batch_size=4, learning_rate=1e30)
    with pytest.raises(DataError, match="Training diverged"):
        compare(
            sounds, ["mlp-lite"], tmp_path / "out", config=config, jobs=2, cache=tmp_path / "cache"
        )


def test_a_lost_process_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    import joblib

    monkeypatch.setattr(joblib.Parallel, "__call__", _losing(joblib.Parallel.__call__))
    with pytest.raises(OtherProcessError, match="fewer --jobs"):
        compare(
            read_sounds(esc50_layout(tmp_path / "data")),
            ["mlp-lite"],
            tmp_path / "out",
            config=FEW,
            jobs=2,
            cache=tmp_path / "cache",
        )


def _losing(call):
    """Have every job of joblib end its process."""

    def lost(pool, jobs):
        return call(pool, ((os._exit, (9,), {}) for _ in jobs))

    return lost


def test_how_many_run_at_once(monkeypatch):
    assert job_count(4, LabConfig(), 3) == 3, "no more than there are"
    assert job_count(4, LabConfig(), 0) == 1, "what is fitted at once takes no process"
    assert job_count(None, LabConfig(device="gpu"), 6) == 1, "one trains on a GPU"
    monkeypatch.setattr("audiosearch.lab.trials.core_count", lambda: 8)
    monkeypatch.setattr("audiosearch.lab.trials.free_memory_mb", lambda: 64_000.0)
    assert job_count(None, LabConfig(device="cpu"), 99) == 8, "one a core"
    monkeypatch.setattr("audiosearch.lab.trials.free_memory_mb", lambda: 7_000.0)
    assert job_count(None, LabConfig(device="cpu"), 99) == 3, "as far as there is memory"
    assert job_count(5, LabConfig(device="cpu"), 99) == 5, "unless asked for"
    monkeypatch.setattr("audiosearch.lab.trials.free_memory_mb", lambda: None)
    assert job_count(None, LabConfig(device="cpu"), 99) == 8, "where memory is not known"
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        job_count(0, LabConfig(), 6)


def test_use_of_the_machine_adds_up_over_processes():
    one = [UsageSample(1.0, 1.0, 100.0), UsageSample(2.0, 1.0, 200.0)]
    other = [UsageSample(2.0, 0.5, 50.0)]
    both = combined([(10.0, one), (11.0, other)])
    assert [each.seconds for each in both] == [1.0, 2.0, 3.0]
    assert [each.cores for each in both] == pytest.approx([1.0, 1.5, 0.5])
    assert [each.memory_mb for each in both] == pytest.approx([100, 250, 50])
    # Many samples become few; what was spent and the most that was held stay.
    long = [
        UsageSample(float(second), 2.0, 500.0 if second == 777 else 10.0)
        for second in range(1, 1001)
    ]
    shown = combined([(0.0, long), (1000.0, long)])
    assert 200 <= len(shown) <= 240
    spans = np.diff([0.0, *(each.seconds for each in shown)])
    assert np.dot(spans, [each.cores for each in shown]) == pytest.approx(4000)
    assert sorted({each.memory_mb for each in shown}) == [10.0, 500.0], "one followed the other"
    assert max(each.memory_mb for each in combined([(0.0, long), (3.0, long)])) == 510
