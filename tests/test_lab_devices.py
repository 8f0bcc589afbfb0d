"""Trainings of the lab on two devices, and in two processes, are those on one.

As in test_devices.py, they run in processes of their own, on the CPU.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome
from device_fixtures import BACKENDS, COMMAND, TORCHRUN, TWO_CPUS, environment, need, python
from lab_fixtures import class_folders

from audiosearch.errors import InvalidArgumentError
from audiosearch.lab import LabConfig, compare, doubted_labels, predict, read_sounds, train_lab

# With batch normalisation, and with attention; both have dropout.
MODELS = ("cnn-logmel", "attention-lite")
EPOCHS = 3

TRAIN = """
import sys
from audiosearch.lab import LabConfig, read_sounds, train_lab

data, out, cache, devices, *models = sys.argv[1:]
for model in models:
    config = LabConfig(
        model=model, epochs=3, batch_size=12, learning_rate=4e-3, mixup=0.2, seed=3,
        augmentations="shift,gain,noise,mask,background",
    )
    train_lab(
        read_sounds(data), f"{out}/{model}", config=config, cache=cache,
        devices=None if devices == "torchrun" else int(devices),
        on_epoch=lambda epoch: print(model, epoch.epoch),
    )
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12 sounds."""
    return class_folders(tmp_path_factory.mktemp("data") / "data", n=12)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def metrics(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "metrics.csv")


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_train_as_one_does(
    data: Path, cache: Path, tmp_path: Path, backend: str
) -> None:
    need(backend)
    common = (data, tmp_path / "one", cache, 1, *MODELS)
    one = python(backend, "-c", TRAIN, *common)
    assert one.returncode == 0, one.stderr
    where = tmp_path / "two"
    if backend == "torch":
        script = tmp_path / "train.py"
        script.write_text(TRAIN, encoding="utf-8")
        two = python(backend, *TORCHRUN, script, data, where, cache, "torchrun", *MODELS)
    else:
        start = TWO_CPUS if backend == "tensorflow" else ""
        two = python(backend, "-c", start + TRAIN, data, where, cache, 2, *MODELS)
    assert two.returncode == 0, two.stderr
    told = [f"{model} {epoch}" for model in MODELS for epoch in range(1, EPOCHS + 1)]
    assert two.stdout.splitlines() == one.stdout.splitlines() == told, "one process tells"
    sounds = sorted(data.rglob("*0.wav"))
    for model in MODELS:
        first, second = tmp_path / "one" / model, where / model
        losses = metrics(first)["loss"]
        assert losses.iloc[-1] < 0.9 * losses.iloc[0], model
        for name in ("loss", "validation_loss", "validation_accuracy", "learning_rate"):
            np.testing.assert_allclose(metrics(second)[name], metrics(first)[name], atol=1e-4)
        scores = [
            [dict(sorted(each.labels)) for each in predict(run, sounds)] for run in (first, second)
        ]
        wanted, given = (np.array([list(each.values()) for each in run]) for run in scores)
        np.testing.assert_allclose(given, wanted, atol=1e-3)
        assert np.ptp(wanted, axis=0).max() > 0.2, "sounds are told apart"
        devices = [
            json.loads((run / "classifier.json").read_text(encoding="utf-8"))["devices"]
            for run in (first, second)
        ]
        assert devices == [1, 2]


REPLICAS = (
    TWO_CPUS
    + """
import numpy as np
from audiosearch.classifier.devices import open_devices
from audiosearch.lab.networks import build_network

for name, shape in (("lite-trunk", (96, 64)), ("lstm-wave", (1000,)), ("cnn", (40, 64))):
    network = build_network(name, shape, 3)
    with open_devices(2, batch_size=4) as devices:
        replica = devices.replica(network)
    clips = np.random.default_rng(0).normal(0, 1, (4, *shape)).astype("float32")
    one, two = (each.predict([clips], verbose=0) for each in (network, replica))
    trained = [len(each.trainable_weights) for each in (network, replica)]
    print(abs(one - two).max(), np.ptp(one), *trained, len(network.weights))
"""
)


def test_a_replica_begins_as_the_network_does() -> None:
    done = python("tensorflow", "-c", REPLICAS)
    assert done.returncode == 0, done.stderr
    lines = [list(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for away, spread, of_network, of_replica, _ in lines:
        assert away < 1e-6 < spread
        assert of_network == of_replica
    pretrained, *_ = lines
    assert pretrained[2] < pretrained[4], "most of the trunk is not trained on"


RESUME = (
    TWO_CPUS
    + """
import sys
from audiosearch.lab import LabConfig, read_sounds, train_lab

def stop(epoch):
    raise KeyboardInterrupt

data, cache, stopped, whole = sys.argv[1:]
sounds = read_sounds(data)
config = LabConfig(model="mlp-lite", epochs=5, batch_size=12)
train_lab(sounds, stopped, config=config, cache=cache, on_epoch=stop)
train_lab(sounds, stopped, config=config, cache=cache, devices=2, resume=True)
train_lab(sounds, whole, config=config, cache=cache)
"""
)


def test_a_training_is_resumed_on_another_number_of_devices(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    done = python("tensorflow", "-c", RESUME, data, cache, stopped, whole)
    assert done.returncode == 0, done.stderr
    assert len(metrics(whole)) == 5
    np.testing.assert_allclose(metrics(stopped)["loss"], metrics(whole)["loss"], atol=1e-4)


def torchrun(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, *map(str, args)],
        env=environment("torch"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_ends_all_processes_and_keeps_the_best_epoch(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    need("torch")
    out = tmp_path / "out"
    command = ("lab", "train", data, "--out", out, "--cache", cache, "--model", "mlp-lite")
    options = ("--batch-size", "12", "--epochs", "100000")
    training = torchrun("-m", "audiosearch", *command, *options)
    assert training.stdout is not None
    for line in training.stdout:
        if line.startswith("epoch     20/"):
            training.send_signal(signal.SIGINT)
            break
    _, said = training.communicate(timeout=60)
    assert training.returncode != 0
    assert re.findall(r"^Interrupted.*", said, re.MULTILINE) == [
        f"Interrupted: epoch {kept(out)} is kept. The same command with --resume goes on."
    ]
    assert "Error:" not in said
    (found,) = predict(out, [data / "low" / "00.wav"])
    assert {label for label, _ in found.labels} == {"low", "high", "noise"}
    done = len(metrics(out))
    assert done >= 20
    going_on = torchrun("-m", "audiosearch", *command, *options, "--resume")
    assert going_on.stdout is not None
    first = next(line for line in going_on.stdout if line.startswith("epoch"))
    going_on.send_signal(signal.SIGINT)
    going_on.communicate(timeout=60)
    assert first.startswith(f"epoch {done + 1:>6}/100000")


def kept(run: Path) -> int:
    manifest = json.loads((run / "classifier.json").read_text(encoding="utf-8"))
    epoch = manifest["epoch"]
    assert isinstance(epoch, int)
    return epoch


FAIL_ALONE = """
import os
from audiosearch.errors import DataError
from audiosearch.lab import network_fitting

original = network_fitting.NetworkFitting._epoch

def failing(self, number, step):
    if number == 3 and os.environ["RANK"] == os.environ["FAILING"]:
        raise DataError("The sounds were taken away.")
    return original(self, number, step)

network_fitting.NetworkFitting._epoch = failing
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_all(
    data: Path, cache: Path, tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("torch")
    monkeypatch.setenv("FAILING", str(rank))
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(FAIL_ALONE + COMMAND, encoding="utf-8")
    command = ("lab", "train", data, "--out", out, "--cache", cache, "--model", "mlp-lite")
    done = python("torch", *TORCHRUN, script, *command, "--batch-size", 12)
    assert done.returncode != 0
    errors = re.findall(r"^Error: .*", done.stderr, re.MULTILINE)
    assert errors == ["Error: The sounds were taken away."]
    # What was finished can be gone on from.
    assert len(metrics(out)) == 2
    assert not (out / "classifier.onnx").exists()


OTHER_SOUNDS = """
import os, sys
if os.environ["RANK"] == "1":
    sys.argv[3] += "-other"
"""


def test_processes_that_read_other_sounds_are_refused(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    need("torch")
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(OTHER_SOUNDS + COMMAND, encoding="utf-8")
    (tmp_path / "data").symlink_to(data)
    class_folders(tmp_path / "data-other", n=11)
    command = ("lab", "train", tmp_path / "data", "--out", out, "--cache", cache)
    options = ("--model", "mlp-lite", "--batch-size", 12, "--seconds", 0.5)
    done = python("torch", *TORCHRUN, script, *command, *options)
    assert done.returncode != 0
    errors = re.findall(r"^Error: .*", done.stderr, re.MULTILINE)
    assert len(errors) == 1
    assert "does not read the same sounds" in errors[0]
    assert not out.exists()


def test_devices_that_cannot_be_are_refused(
    data: Path,
    cache: Path,
    tmp_path: Path,
    invoke: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, sounds = tmp_path / "out", read_sounds(data)
    network = LabConfig(model="mlp-lite", batch_size=12)
    for config, count, words in (
        (network, 0, "at least 1"),
        (network, 5, "batch of 12 clips cannot be divided among 5"),
        (network, 4, "There (is|are) .* --devices asks for 4"),
        (LabConfig(model="transfer"), 2, "'transfer' is fitted at once"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            train_lab(sounds, out, config=config, cache=cache, devices=count)
    # Two processes must not write one folder.
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgumentError, match="'transfer' takes one process"):
        train_lab(sounds, out, config=LabConfig(model="transfer"), cache=cache)
    with pytest.raises(InvalidArgumentError, match="takes one process, and torchrun started 2"):
        compare(sounds, ["transfer"], out, cache=cache)
    with pytest.raises(InvalidArgumentError, match="takes one process, and torchrun started 2"):
        doubted_labels(sounds, cache=cache)
    with pytest.raises(InvalidArgumentError, match="KERAS_BACKEND=torch"):
        train_lab(sounds, out, config=network, cache=cache)
    assert not out.exists()
    assert invoke("lab", "train", data, "--out", out, "--devices", 0).code == 2


def test_torch_without_torchrun_says_how_to_start_it(data: Path, tmp_path: Path) -> None:
    need("torch")
    command = ("lab", "train", data, "--out", tmp_path / "out", "--model", "mlp-lite")
    done = python("torch", "-m", "audiosearch", *command, "--devices", 2)
    assert done.returncode == 1
    line = f"torchrun --standalone --nproc-per-node 2 -m audiosearch lab train {data}"
    assert line in done.stderr
