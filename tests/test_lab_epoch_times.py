"""Time per epoch on the CPU and on a GPU, which need not be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from lab_fixtures import class_folders

from audiosearch.errors import InvalidArgumentError
from audiosearch.lab import LabConfig, compare, read_sounds
from audiosearch.lab.epoch_times import EpochTimes


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Set whether Keras finds a GPU; what would be trained on one then takes the usual device."""

    def find(found: bool) -> None:
        for module in ("classifier.devices", "lab.epoch_times"):
            monkeypatch.setattr(f"audiosearch.{module}.has_gpu", lambda: found)

    return find


def test_where_there_is_no_gpu_that_is_said(
    tmp_path: Path, invoke: Callable[..., Outcome], gpu: Callable[[bool], None]
) -> None:
    gpu(False)
    data = class_folders(tmp_path / "data", n=6)
    out = tmp_path / "out"
    options = ("--epochs", "1", "--folds", "2", "--jobs", "1", "--cache", tmp_path / "cache")
    done = invoke(
        *("lab", "compare", data, "--models", "mlp-lite,linear-lite", "--out", out),
        *("--devices", "cpu,gpu", *options),
    )
    assert done.code == 0, done.err
    note = "There is one device only: Keras can use no GPU on this machine."
    assert note in done.out
    written = json.loads((out / "report.json").read_text(encoding="utf-8"))["epoch_times"]
    assert (written["asked"], written["devices"]) == (["cpu", "gpu"], ["cpu"])
    assert written["cpu_to_gpu"] == {"mlp-lite": None}
    seconds = written["seconds"]["mlp-lite"]
    assert set(seconds) == {"cpu"}
    assert f"mlp-lite  time per epoch: cpu {seconds['cpu']:.3g} s" in done.out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert note in page
    assert f"<td>mlp-lite</td><td>{seconds['cpu']:.3g} s</td><td></td>" in page


def test_of_two_devices_the_ratio_is_reported(tmp_path: Path, gpu: Callable[[bool], None]) -> None:
    gpu(True)
    found = compare(
        read_sounds(class_folders(tmp_path / "data", n=6)),
        ["mlp-lite"],
        tmp_path / "out",
        config=LabConfig(epochs=1),
        folds=2,
        jobs=1,
        devices=["cpu", "gpu"],
        cache=tmp_path / "cache",
    )
    times = found.epoch_times
    assert times is not None
    seconds = times.seconds["mlp-lite"]
    assert min(seconds.values()) > 0
    ratio = seconds["cpu"] / seconds["gpu"]
    assert times.ratio("mlp-lite") == pytest.approx(ratio)
    assert times.note == ""
    assert times.lines()[0].endswith(f"cpu / gpu {ratio:.2f}")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{seconds['gpu']:.3g} s</td><td>{ratio:.2f}</td>" in page


def test_what_cannot_be_timed_is_said(tmp_path: Path) -> None:
    sounds = read_sounds(class_folders(tmp_path / "data", n=6))
    out, cache = tmp_path / "out", tmp_path / "cache"
    with pytest.raises(InvalidArgumentError, match="devices must be of cpu, gpu, not 'tpu'"):
        compare(sounds, ["mlp-lite"], out, devices=["cpu", "tpu"], cache=cache)
    assert not out.exists()
    found = compare(sounds, ["linear-lite"], out, devices=["cpu", "gpu"], cache=cache)
    assert found.epoch_times is not None
    assert found.epoch_times.lines() == [
        "No model here is trained in epochs, so that there is no time per epoch."
    ]
    one = EpochTimes(("cpu",), ("cpu",), {"cnn-logmel": {"cpu": 1.5}})
    assert one.lines() == [
        "cnn-logmel  time per epoch: cpu 1.5 s",
        "One device only was asked for, the CPU: no ratio.",
    ]
    none = EpochTimes(("gpu",), (), {"cnn-logmel": {}})
    assert none.lines() == [none.note]
    assert none.note.endswith("So there is no ratio of two.")
