"""``audiosearch evaluate`` and ``audiosearch train``."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, write_packed

from audiosearch.classifier.network import NetworkConfig
from audiosearch.classifier.training import TrainingConfig
from audiosearch.cli import train as train_command

Invoke = Callable[..., Outcome]


def test_evaluate_prints_its_figures(invoke: Invoke, packed_h5: Path) -> None:
    done = invoke("evaluate", packed_h5)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == [
        "mAP",
        "AUC",
        "d-prime",
        "clips",
        "lwlrap",
        "classes",
        "ECE",
        "Brier",
    ]
    values = json.loads(invoke("evaluate", packed_h5, "--json").out)
    assert {"mAP", "AUC", "d_prime", "clips", "lwlrap"} <= set(values)
    assert values["clips"] == 40
    # Random embeddings and random labels: no better than chance.
    assert 0.3 < values["AUC"] < 0.7
    assert f"{values['mAP']:.4f}" in done.out
    assert values["intervals"] is None
    # 40 clips cannot hold all classes: what is left out is said.
    assert values["classes"] + values["classes_left_out"] == 527
    assert f"{values['classes_left_out']} without a clip left out" in done.out


def test_evaluate_prints_intervals_and_names_the_plots(
    invoke: Invoke, packed_h5: Path, tmp_path: Path
) -> None:
    plots = tmp_path / "new" / "plots"
    done = invoke("evaluate", packed_h5, "--intervals", 20, "--plots", plots)
    assert done.code == 0, done.err
    values = json.loads(invoke("evaluate", packed_h5, "--intervals", 20, "--json").out)
    low, high = values["intervals"]["mAP"]
    assert low < values["mAP"] < high
    first = done.out.splitlines()[0]
    assert first == f"mAP      {values['mAP']:.4f}  ({low:.4f} to {high:.4f})"
    assert "20 resamples" in done.out
    for path in plots.iterdir():
        assert str(path) in done.out
    assert invoke("evaluate", packed_h5, "--intervals", 1).code == 2


def test_evaluate_writes_a_row_a_class(invoke: Invoke, packed_h5: Path, tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    assert invoke("evaluate", packed_h5, "--per-class", table).code == 0
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 527
    assert rows[0]["label"] == "Speech"
    for column in ("average_precision", "auc", "lwlrap"):
        assert 0 <= float(rows[0][column]) <= 1
    assert int(rows[0]["clips"]) > 0
    left_out = [row for row in rows if row["clips"] == "0"]
    assert left_out
    assert {row["average_precision"] for row in left_out} == {""}


@pytest.mark.parametrize("case", ["missing", "no_hdf5", "truncated", "no_labels"])
def test_evaluate_of_a_bad_file_is_one_sentence(
    invoke: Invoke, packed_h5: Path, tmp_path: Path, case: str
) -> None:
    path = tmp_path / "bad.h5"
    if case == "no_hdf5":
        path.write_text("this is no HDF5")
    elif case == "truncated":
        path.write_bytes(packed_h5.read_bytes()[:5000])
    elif case == "no_labels":
        write_packed(path, labels=False)
    done = invoke("evaluate", path)
    assert done.code == 1
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert str(path) in done.err


def test_evaluate_with_a_folder_that_holds_no_classifier(
    invoke: Invoke, packed_h5: Path, tmp_path: Path
) -> None:
    done = invoke("evaluate", packed_h5, "--classifier", tmp_path)
    assert done.code == 1
    assert str(tmp_path) in done.err


def test_the_options_of_train_are_the_settings_of_training() -> None:
    defaults = {
        param.name: param.default
        for param in train_command.command.params
        if param.name not in ("data", "out", "teachers", "resume", "devices")
    }
    network = {name: defaults.pop(name) for name in train_command.NETWORK_OPTIONS}
    training = {
        field.name: field.default
        for field in dataclasses.fields(TrainingConfig)
        if field.name != "network"
    }
    assert defaults == training
    network["levels"] = tuple(int(part) for part in network["levels"].split(","))
    shape = {field.name: field.default for field in dataclasses.fields(NetworkConfig)}
    assert network == {name: shape[name] for name in train_command.NETWORK_OPTIONS}


def test_train_then_evaluate_with_the_result(invoke: Invoke, tmp_path: Path) -> None:
    data = write_packed(tmp_path / "train.h5", clips=200)
    run = tmp_path / "run"
    options = ("--epochs", 2, "--batch-size", 16, "--units", 8, "--seed", 3, "--validation", 0.3)
    done = invoke("train", "--data", data, "--out", run, *options)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert str(run) in lines[-1]
    assert (run / "classifier.onnx").is_file()
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert (config["epochs"], config["batch_size"], config["seed"]) == (2, 16, 3)
    assert invoke("evaluate", data, "--classifier", run, "--json").code == 0

    again = invoke("train", "--data", data, "--out", run, *options)
    assert again.code == 1
    assert again.err.count("\n") == 1
    assert str(run) in again.err


def test_several_files_are_trained_on_as_one_set(invoke: Invoke, tmp_path: Path) -> None:
    files = [write_packed(tmp_path / f"{name}.h5", clips=100, seed=name) for name in (1, 2)]
    options = ("--epochs", 1, "--batch-size", 16, "--units", 8, "--validation", 0.3)
    named = [word for file in files for word in ("--data", file)]
    done = invoke("train", *named, "--out", tmp_path / "run", *options)
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["data"] == ["1.h5", "2.h5"]
    assert config["train_clips"] + config["validation_clips"] == 200


def test_train_on_a_missing_file(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("train", "--data", tmp_path / "none.h5", "--out", tmp_path / "run")
    assert done.code == 1
    assert str(tmp_path / "none.h5") in done.err
    assert not (tmp_path / "run").exists()


def test_settings_that_cannot_be_are_refused(
    invoke: Invoke, packed_h5: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = invoke("train", "--data", packed_h5, "--out", out, "--layers", 1)
    assert done.code == 1
    assert "levels" in done.err
    assert not out.exists()
