"""Training: what a run writes, resuming, distillation, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_packed

from audiosearch.classifier.evaluation import evaluate
from audiosearch.classifier.network import NetworkConfig
from audiosearch.classifier.scorer import Ensemble, load_scorer
from audiosearch.classifier.settings import TrainingConfig
from audiosearch.classifier.training import train
from audiosearch.errors import DataError, InvalidArgumentError, ModelError, StorageError


def learnable(path: Path) -> Path:
    """Write a file in which the first value of the frames tells which of 8 classes a clip has."""
    write_packed(path, clips=400)
    with h5py.File(path, "r+") as file:
        x = file["x"][:] // 8 + 112
        y = np.zeros((400, 527), bool)
        y[np.arange(400), np.arange(400) % 8] = True
        x[np.arange(400), :, np.arange(400) % 8] = 250
        file["x"][:], file["y"][:] = x, y
    return path


def run_config() -> TrainingConfig:
    return TrainingConfig(
        epochs=4,
        batch_size=32,
        learning_rate=1e-2,
        ema=0.5,
        seed=3,
        snapshots=2,
        network=NetworkConfig(units=32, layers=2, levels=(1, 2), dropout=0.1),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training twice."""
    folder = tmp_path_factory.mktemp("runs")
    data = learnable(folder / "data.h5")
    return data, [train(data, folder / name, config=run_config()) for name in ("one", "two")]


def test_training_learns_and_writes_a_usable_classifier(runs):
    data, (run, _) = runs
    assert run.best.validation_mAP > 0.95
    assert run.epochs[-1].loss < run.epochs[0].loss
    names = {path.name.split(".0.")[0] for path in run.folder.iterdir()}
    assert {"config.json", "metrics.csv", "classifier.onnx", "classifier.json"} < names
    assert {"checkpoint.npz", "curves.png", "snapshots"} < names
    assert {"train_counts.png", "precision_recall.png", "reliability.png"} < names
    assert any(name.startswith("events.out.tfevents") for name in names)
    config = json.loads((run.folder / "config.json").read_text())
    assert (config["seed"], config["network"]["units"]) == (3, 32)
    assert config["environment"]["backend"] in ("tensorflow", "torch", "jax")
    assert len((run.folder / "metrics.csv").read_text().splitlines()) == 5
    scorer = load_scorer(str(run.folder))
    assert scorer.is_calibrated
    assert sum(scorer.manifest["train_positives"]) == run.train_clips == 360
    result = evaluate(data, classifier=run.folder)
    assert (result.clips, result.classes) == (400, 8)
    assert result.mAP > 0.95
    assert result.d_prime > 2


def test_the_same_seed_gives_the_same_run(runs):
    _, (one, two) = runs
    assert [epoch.loss for epoch in one.epochs] == [epoch.loss for epoch in two.epochs]
    x = np.random.default_rng(4).integers(0, 256, (20, 10, 128), dtype=np.uint8)
    np.testing.assert_array_equal(
        load_scorer(one.folder).score(x), load_scorer(two.folder).score(x)
    )


def test_snapshots_of_the_last_epochs_are_classifiers(runs):
    data, (run, _) = runs
    assert sorted(path.name for path in (run.folder / "snapshots").iterdir()) == ["0003", "0004"]
    for epoch in (3, 4):
        result = evaluate(data, classifier=run.folder / "snapshots" / f"{epoch:04d}")
        assert result.mAP > 0.9
    folders = sorted((run.folder / "snapshots").iterdir())
    x = np.random.default_rng(6).integers(0, 256, (5, 10, 128), dtype=np.uint8)
    one, two = (load_scorer(str(folder)) for folder in folders)
    np.testing.assert_allclose(
        Ensemble([one, two]).score(x), (one.score(x) + two.score(x)) / 2, atol=1e-6
    )
    both = evaluate(data, classifier=folders)
    assert both.classifier_hash not in (one.weights_hash, two.weights_hash)
    assert both.mAP > 0.9
    with pytest.raises(InvalidArgumentError):
        Ensemble([])


def test_a_resumed_run_equals_an_uninterrupted_one(runs, tmp_path):
    data, (run, _) = runs
    config = run_config()
    folder = tmp_path / "run"

    def stop(result):
        if result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, folder, config=config, on_epoch=stop)
    resumed = train(data, folder, config=config, resume=True)
    assert [epoch.loss for epoch in resumed.epochs] == [epoch.loss for epoch in run.epochs]
    assert resumed.epochs[-1].validation_mAP == run.epochs[-1].validation_mAP
    # A finished run has nothing left to do.
    again = train(data, folder, config=config, resume=True)
    assert again.epochs == resumed.epochs


def test_only_the_same_run_is_resumed(runs, tmp_path):
    data, (run, _) = runs
    with pytest.raises(DataError, match="no run"):
        train(data, tmp_path, resume=True)
    other = dataclasses.replace(run_config(), seed=4)
    with pytest.raises(InvalidArgumentError, match="seed"):
        train(data, run.folder, config=other, resume=True)
    damaged = tmp_path / "damaged"
    shutil.copytree(run.folder, damaged)
    (damaged / "checkpoint.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match="damaged"):
        train(data, damaged, config=run_config(), resume=True)


def test_training_stops_when_nothing_gets_better(runs, tmp_path):
    data, _ = runs
    config = dataclasses.replace(
        run_config(), epochs=9, patience=1, snapshots=0, schedule="constant", learning_rate=3e-2
    )
    run = train(data, tmp_path / "run", config=config)
    assert len(run.epochs) < 9
    assert run.best.epoch == len(run.epochs) - 1


def test_a_classifier_is_distilled_into_one_that_never_saw_true_labels(runs, tmp_path):
    data, (teacher, other) = runs
    mislabelled = tmp_path / "mislabelled.h5"
    shutil.copy(data, mislabelled)
    with h5py.File(mislabelled, "r+") as file:
        y = file["y"][:]
        y[:] = np.random.default_rng(5).permutation(y)
        file["y"][:] = y
    config = dataclasses.replace(run_config(), epochs=12, mixup=0.0, distillation=1.0, snapshots=1)
    run = train(
        mislabelled, tmp_path / "run", config=config, teachers=[teacher.folder, other.folder]
    )
    # The last epoch: the best one is chosen by the wrong labels.
    last = run.folder / "snapshots" / f"{config.epochs:04d}"
    assert evaluate(data, classifier=last).mAP > 0.6
    hashes = [load_scorer(str(run.folder)).weights_hash for run in (teacher, other)]
    for manifest in (last / "classifier.json", run.folder / "config.json"):
        taught_by = json.loads(manifest.read_text())["teachers"]
        assert [entry["sha256"] for entry in taught_by] == hashes
    alone = dataclasses.replace(config, distillation=0.0)
    untaught = train(mislabelled, tmp_path / "alone", config=alone, teachers=[teacher.folder])
    last = untaught.folder / "snapshots" / f"{config.epochs:04d}"
    assert evaluate(data, classifier=last).mAP < 0.4


def test_a_run_is_resumed_with_its_teachers_and_a_missing_one_is_refused(runs, tmp_path):
    data, (teacher, _) = runs
    config = dataclasses.replace(run_config(), epochs=1, snapshots=0)
    train(data, tmp_path / "run", config=config, teachers=[teacher.folder])
    with pytest.raises(InvalidArgumentError, match="teachers"):
        train(data, tmp_path / "run", config=config, resume=True)
    with pytest.raises(ModelError, match="nowhere"):
        train(data, tmp_path / "other", config=config, teachers=[tmp_path / "nowhere"])
    assert not (tmp_path / "other").exists()


def test_training_overwrites_nothing_and_refuses_bad_data(runs, tmp_path):
    data, (run, _) = runs
    before = (run.folder / "metrics.csv").read_text()
    with pytest.raises(StorageError, match="exists already"):
        train(data, run.folder)
    assert (run.folder / "metrics.csv").read_text() == before
    for name, options in (("unlabelled", {"labels": False}), ("few", {"clips": 1})):
        with pytest.raises(DataError):
            train(write_packed(tmp_path / f"{name}.h5", **options), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"mixup": -1.0},
        {"balance": 1.5},
        {"label_smoothing": 0.6},
        {"ema": 1.0},
        {"validation": 0.0},
        {"precision": "float8"},
        {"schedule": "linear"},
        {"warmup": -1.0},
        {"splice": 1.1},
        {"splice": 0.5, "mixup": 0.0},
        {"distillation": 1.5},
        {"noise": -0.1},
        {"frame_dropout": 1.0},
        {"parents": 2.0},
        {"patience": -1},
        {"snapshots": 99},
    ],
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        TrainingConfig(**options)
    for network in (
        {"levels": (4,)},
        {"levels": ()},
        {"dropout": 1.0},
        {"units": 0},
        {"levels": (2, 2)},
    ):
        with pytest.raises(InvalidArgumentError):
            NetworkConfig(**network)
    with pytest.raises(InvalidArgumentError, match="max-pooling"):
        NetworkConfig("transformer")
    with pytest.raises(InvalidArgumentError, match="softmax"):
        NetworkConfig(attention="hardmax")
