"""Tracking of the lab's trainings by other tools, all on this machine."""

from __future__ import annotations

import sys
import time

import pytest
from lab_fixtures import class_folders, esc50_layout

from audiosearch.errors import InvalidArgumentError, MissingDependencyError
from audiosearch.lab import LabConfig, compare, read_sounds, train_lab
from audiosearch.lab.tracking import TRACKERS


def train(tmp_path, track, **options):
    sounds = read_sounds(class_folders(tmp_path / "data", n=6))
    config = LabConfig(model="mlp-lite", epochs=3, **options)
    return train_lab(sounds, tmp_path / "out", config=config, cache=tmp_path / "cache", track=track)


def test_tensorboard_gets_a_run_of_each_model(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sounds = read_sounds(esc50_layout(tmp_path / "data"))
    found = compare(
        sounds,
        ["mlp-lite", "linear-lite"],
        tmp_path / "out",
        config=LabConfig(epochs=2),
        cache=tmp_path / "cache",
        track=["tensorboard"],
    )
    results = {each.model: each for each in found.results}
    for name, epochs in (("mlp-lite", 2), ("linear-lite", 0)):
        events = reader.EventAccumulator(str(tmp_path / "out" / "tensorboard" / name)).Reload()
        tags = set(events.Tags()["scalars"])
        assert ("loss" in tags) == bool(epochs)
        if epochs:
            losses = [fold.epochs[-1]["loss"] for fold in results[name].folds]
            last = events.Scalars("loss")[-1]
            assert (last.step, last.value) == (2, pytest.approx(sum(losses) / len(losses)))
        (accuracy,) = events.Scalars("accuracy")
        assert accuracy.value == pytest.approx(results[name].measures.accuracy)


def test_mlflow_keeps_settings_and_epochs_in_a_local_store(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # and taken back
    run = train(tmp_path, ["mlflow"])
    client = mlflow.MlflowClient((run.folder / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "audiosearch"]
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.data.params["model"] == "mlp-lite"
    assert kept.data.metrics["accuracy"] == pytest.approx(run.measures.accuracy)
    history = client.get_metric_history(kept.info.run_id, "loss")
    assert [each.value for each in sorted(history, key=lambda each: each.step)] == pytest.approx(
        [epoch.loss for epoch in run.epochs]
    )


def test_wandb_runs_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("AUDIOSEARCH_OFFLINE", "1")
    run = train(tmp_path, ["wandb"])
    (kept,) = (run.folder / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60  # another process writes it
    while b"mlp-lite" not in kept.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert b"mlp-lite" in kept.read_bytes()


def test_what_cannot_track_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="wandb, mlflow, tensorboard, not 'paper'"):
        train(tmp_path, ["paper"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"audiosearch\[track\]"):
        train(tmp_path, ["wandb"])
    assert not (tmp_path / "out").exists()


def test_the_commands_know_all_tools():
    from audiosearch.cli.lab_compare import command as comparing
    from audiosearch.cli.lab_train import command as training

    for command in (comparing, training):
        (option,) = [each for each in command.params if each.name == "track"]
        assert tuple(option.type.choices) == TRACKERS
