"""Training on several devices gives what one device gives, with every backend of Keras.

Keras takes its backend once a process, so that trainings run in processes of their own, on the
CPU: TensorFlow on two logical CPUs, JAX on two host devices, PyTorch in two processes over gloo.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import Outcome, write_packed
from device_fixtures import BACKENDS, COMMAND, TORCHRUN, TWO_CPUS, need, python

from audiosearch.classifier.scorer import load_scorer
from audiosearch.classifier.settings import TrainingConfig
from audiosearch.classifier.training import train
from audiosearch.errors import InvalidArgumentError

EPOCHS = 8
CLIPS = 240
# Dropout is drawn on the devices; with all that, runs differ by rounding only.
OPTIONS = (
    *("--epochs", str(EPOCHS), "--batch-size", "20", "--learning-rate", "0.01", "--ema", "0.5"),
    *("--seed", "3", "--units", "32", "--dropout", "0.2", "--mixup", "0", "--snapshots", "1"),
)


def train_with(
    backend: str, devices: int, data: Path, out: Path, *options: object
) -> subprocess.CompletedProcess[str]:
    """Run `audiosearch train` on two devices, or on one."""
    command = ("train", "--data", data, "--out", out, *OPTIONS, *options)
    if backend == "tensorflow":
        done = python(backend, "-c", TWO_CPUS + COMMAND, *command, "--devices", devices)
    elif backend == "jax" or devices == 1:
        done = python(backend, "-m", "audiosearch", *command, "--devices", devices)
    else:
        done = python(backend, *TORCHRUN, "-m", "audiosearch", *command)
    return done


def losses(run: Path) -> np.ndarray:
    return pd.read_csv(run / "metrics.csv")["loss"].to_numpy()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which the first values of the frames tell which of 8 classes a clip has."""
    path = write_packed(tmp_path_factory.mktemp("data") / "train.h5", clips=CLIPS)
    rows = np.arange(CLIPS)
    with h5py.File(path, "r+") as file:
        x, y = file["x"][:] // 8 + 112, np.zeros((CLIPS, 527), bool)
        x[rows, :, rows % 8] = 250
        y[rows, rows % 8] = True
        file["x"][:], file["y"][:] = x, y
    return path


@pytest.fixture(scope="module")
def runs(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], tuple[Path, str]]:
    """Return the folder of a run and what it printed, each trained once."""
    made: dict[tuple[str, int], tuple[Path, str]] = {}

    def run(backend: str, devices: int) -> tuple[Path, str]:
        need(backend)
        if (backend, devices) not in made:
            out = tmp_path_factory.mktemp(backend) / f"run{devices}"
            done = train_with(backend, devices, data, out)
            assert done.returncode == 0, done.stderr
            made[backend, devices] = out, done.stdout
        return made[backend, devices]

    return run


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_train_as_one_does(
    runs: Callable[[str, int], tuple[Path, str]], data: Path, backend: str
) -> None:
    (one, _), (two, printed) = runs(backend, 1), runs(backend, 2)
    assert len(losses(one)) == EPOCHS
    assert losses(one)[-1] < 0.9 * losses(one)[0]
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-5)
    with h5py.File(data) as file:
        x = file["x"][:16]
    for name in (".", f"snapshots/{EPOCHS:04d}"):
        wanted = load_scorer(str(one / name)).score(x)
        np.testing.assert_allclose(load_scorer(str(two / name)).score(x), wanted, atol=1e-4)
    assert np.ptp(wanted[:, :8], axis=0).min() > 0.2  # in the end clips are told apart
    # One process of several writes and prints.
    assert [line.split("  ")[0] for line in printed.splitlines()[:-1]] == [
        f"epoch {epoch}/{EPOCHS}" for epoch in range(1, EPOCHS + 1)
    ]
    assert printed.splitlines()[-1].startswith("Best epoch")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_run_folder_says_on_how_many_devices(
    runs: Callable[[str, int], tuple[Path, str]], backend: str
) -> None:
    described = []
    for devices in (1, 2):
        out, _ = runs(backend, devices)
        described.append(json.loads((out / "config.json").read_text(encoding="utf-8")))
        assert described[-1]["environment"]["backend"] == backend
        assert described[-1]["environment"].pop("devices").split()[0] == str(devices)
    assert described[0] == described[1]


EXPORT = """
import sys
import numpy as np
from audiosearch.classifier.export import export_classifier
from audiosearch.classifier.network import ARCHITECTURES, NetworkConfig, build_network
from audiosearch.classifier.scorer import load_scorer

random = np.random.default_rng(1)
x = random.integers(0, 256, (9, 10, 128), dtype=np.uint8)
frames, mask = (x.astype(np.float32) - 128) / 128, np.ones((9, 10), np.float32)

def draw(shape):  # what norms have is positive, as a variance must be
    return random.normal(0, 0.2, shape) if len(shape) > 1 else random.uniform(0.5, 1.5, shape)

for number, architecture in enumerate(ARCHITECTURES):
    config = NetworkConfig(architecture, units=16)
    network = build_network(config)
    network.set_weights([draw(weight.shape) for weight in network.get_weights()])
    wanted = network.predict([frames, mask], verbose=0)
    folder = f"{sys.argv[1]}/{number}"
    export_classifier(network, folder, config=config, name="x", facts={}, half=False)
    print(abs(load_scorer(folder).score(x) - wanted).max(), np.ptp(wanted))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_of_any_backend_is_exported_as_it_is(backend: str, tmp_path: Path) -> None:
    need(backend)
    done = python(backend, "-c", EXPORT, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [list(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) == 5
    for difference, spread in lines:
        assert difference < 1e-5
        assert spread > 1e-3


RESUME = """
import sys
from audiosearch.classifier.network import NetworkConfig
from audiosearch.classifier.training import TrainingConfig, train

dropout, devices, epochs = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data, out = sys.argv[4:]
config = TrainingConfig(
    epochs=epochs, batch_size=20, learning_rate=0.01, ema=0.5, seed=3, mixup=0,
    network=NetworkConfig(units=32, dropout=dropout),
)

def stop(result):
    raise KeyboardInterrupt

try:
    train(data, f"{out}/stopped", config=config, on_epoch=stop)
except KeyboardInterrupt:
    train(data, f"{out}/stopped", config=config, resume=True, devices=devices)
if devices == 1:
    train(data, f"{out}/whole", config=config)
"""


def test_a_run_is_resumed_on_another_number_of_devices(
    runs: Callable[[str, int], tuple[Path, str]], data: Path, tmp_path: Path
) -> None:
    whole, _ = runs("jax", 1)
    done = python("jax", "-c", RESUME, 0.2, 2, EPOCHS, data, tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(tmp_path / "stopped"), losses(whole), atol=1e-4)
    described = json.loads((tmp_path / "stopped" / "config.json").read_text(encoding="utf-8"))
    assert described["environment"]["devices"] == "1"
    (resumed,) = described["resumed"]
    assert resumed["epochs"] == 1
    assert resumed["environment"]["devices"] == "2 x cpu"


def test_a_resumed_run_of_torch_draws_the_same_dropout(data: Path, tmp_path: Path) -> None:
    need("torch")
    done = python("torch", "-c", RESUME, 0.4, 1, 3, data, tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(losses(tmp_path / "stopped"), losses(tmp_path / "whole"))


DROPOUT = (
    TWO_CPUS
    + """
from audiosearch.classifier.devices import open_devices

with open_devices(2, batch_size=2) as devices, devices.scope():
    layer = devices.layers()["Dropout"](0.5)
    run = tf.function(lambda: tf.distribute.get_strategy().run(
        lambda: layer(tf.ones((1, 40_000)), training=True)
    ))
    one, two = (part.numpy() for part in run().values)
    again = run().values[0].numpy()
    print((one != two).mean(), (one != again).mean(), one.mean(), two.mean())
"""
)


def test_replicas_of_tensorflow_drop_different_values() -> None:
    done = python("tensorflow", "-c", DROPOUT)
    assert done.returncode == 0, done.stderr
    assert list(map(float, done.stdout.split())) == pytest.approx([0.5, 0.5, 1, 1], abs=0.05)


def test_devices_that_cannot_be_are_refused(
    invoke: Callable[..., Outcome],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    config = TrainingConfig(batch_size=6)
    for count, words in (
        (0, "at least 1"),
        (4, r"batch of 6 clips .* among 4 devices"),
        (3, r"There (is|are) .* --devices asks for 3"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            train(data, out, config=config, devices=count)
    assert invoke("train", "--data", data, "--out", out, "--devices", 0).code == 2
    done = invoke("train", "--data", data, "--out", out, "--devices", 3)
    assert done.code == 1
    assert "--batch-size" in done.err
    # Two trainings must not write one folder.
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgumentError, match="KERAS_BACKEND=torch"):
        train(data, out, config=config)
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(InvalidArgumentError, match="must hold numbers"):
        train(data, out, config=config)
    assert not out.exists()


def test_torch_without_torchrun_says_how_to_start_it(data: Path, tmp_path: Path) -> None:
    need("torch")
    out = tmp_path / "a run"
    command = ("train", "--data", data, "--out", out, "--devices", 2)
    done = python("torch", "-m", "audiosearch", *command)
    assert done.returncode == 1
    line = f"torchrun --standalone --nproc-per-node 2 -m audiosearch train --data {data}"
    assert f"{line} --out '{out}' --devices 2" in done.stderr
    assert done.stderr.count("\n") == 1


def test_processes_that_fail_alike_say_so_once(data: Path, tmp_path: Path) -> None:
    need("torch")
    out = tmp_path / "run"
    out.mkdir()
    (out / "kept").touch()
    done = train_with("torch", 2, data, out)
    assert done.returncode != 0
    assert done.stderr.count("exists already") == 1
    done = train_with("torch", 2, tmp_path / "none.h5", tmp_path / "new")
    assert done.returncode != 0
    assert done.stderr.count(f"Error: {tmp_path / 'none.h5'}") == 1
    assert "OtherProcessError" not in done.stderr
    done = train_with("torch", 2, data, tmp_path / "new", "--devices", 3, "--batch-size", 9)
    assert "torchrun started 2 processes" in done.stderr
    assert not (tmp_path / "new").exists()


FAIL_ALONE = """
import os
from audiosearch.classifier import training
from audiosearch.errors import DataError

class Stream(training.ClipStream):
    def epoch(self, number):
        for step, batch in enumerate(super().epoch(number)):
            if step == 2 and number == 2 and os.environ["RANK"] == "1":
                raise DataError("train.h5 was taken away.")
            yield batch

training.ClipStream = Stream
"""


def test_a_process_that_fails_ends_all(data: Path, tmp_path: Path) -> None:
    need("torch")
    script = tmp_path / "script.py"
    script.write_text(FAIL_ALONE + COMMAND, encoding="utf-8")
    command = ("train", "--data", data, "--out", tmp_path / "run", *OPTIONS)
    done = python("torch", *TORCHRUN, script, *command, timeout=120)
    assert done.returncode != 0
    assert re.findall(r"^Error: .*", done.stderr, re.MULTILINE) == [
        "Error: train.h5 was taken away."
    ]
    # What was finished is kept.
    assert len(losses(tmp_path / "run")) == 1


PLAIN = """
import contextlib
import os
import sys
import torch
from audiosearch.classifier.processes import Processes, join_processes, torchrun_launch

class Norm(torch.nn.Module):
    def forward(self, values):
        if processes is None:
            variance, mean = torch.var_mean(values, dim=(0, 1), correction=0)
        else:
            mean, variance = processes.moments(values, (0, 1))
        return (values - mean) / (variance + 1e-3).sqrt()

launch = torchrun_launch()
def gloo_threads():
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    return [name for name in names if "gloo" in name]

with join_processes(launch) if launch else contextlib.nullcontext() as processes:
    torch.manual_seed(launch.rank if launch else 0)
    net = torch.nn.Sequential(
        torch.nn.Linear(8, 16), Norm(), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(48, 3)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    parallel = processes.parallel(net) if processes else net
    part = processes.part if processes else lambda batch: batch
    random = torch.Generator().manual_seed(5)
    for step in range(20):
        x = torch.randn((12, 3, 8), generator=random) * 2 + 5
        y = x[:, 0, :3] - x[:, 1, :3]
        loss = ((parallel(part(x)) - part(y)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = processes.mean(loss) if processes else float(loss)
        if processes is None or processes.leads:
            print(loss)
    looks = sys.platform == "linux" and launch
    assert not looks or gloo_threads()
assert not looks or not gloo_threads(), gloo_threads()
"""


def test_any_torch_module_trains_in_two_processes_as_in_one(tmp_path: Path) -> None:
    need("torch")
    script = tmp_path / "script.py"
    script.write_text(PLAIN, encoding="utf-8")
    found = []
    for start in ((), TORCHRUN):
        done = python("torch", *start, script)
        assert done.returncode == 0, done.stderr
        found.append(list(map(float, done.stdout.split())))
    one, two = found
    assert len(one) == 20
    assert one[-1] < 0.5 * one[0]
    np.testing.assert_allclose(two, one, atol=1e-4)


AGAIN = """
import time
import torch
from audiosearch.classifier.processes import join_processes, torchrun_launch

launch = torchrun_launch()
for number in range(20):
    # Sometimes one is first, sometimes the other.
    time.sleep(0.05 * ((number + launch.rank) % 2))
    with join_processes(launch) as processes:
        mean = processes.mean(torch.tensor(float(number + launch.rank)))
        if processes.leads:
            print(mean)
"""


def test_processes_meet_again_for_every_training(tmp_path: Path) -> None:
    need("torch")
    script = tmp_path / "script.py"
    script.write_text(AGAIN, encoding="utf-8")
    done = python("torch", *TORCHRUN, script, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(map(float, done.stdout.split())) == [number + 0.5 for number in range(20)]
