"""The lab's models: training, what is written, resuming, and use of the result."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from lab_fixtures import class_folders, folders, sound, write_sound

from audiosearch.errors import DataError, InvalidArgumentError, ModelError
from audiosearch.lab import MODELS, LabClassifier, LabConfig, predict, read_sounds, train_lab
from audiosearch.lab.graph import LabGraph
from audiosearch.lab.networks import NETWORKS, build_network
from audiosearch.own.features import LIBROSA26

__all__ = ["folders"]

# tests/test_lab_backbones.py
PRETRAINED = ("lite-trunk", "mobilenet", "mobilenet-frozen")

SHAPES = {
    "mlp": (384,),
    "ann": (26,),
    "attention": (9, 128),
    "cnn": (60, 64),
    "resnet": (202, 64),
    "cnn-wave": (8100,),
    "lstm-wave": (8100,),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def accuracy(folder: Path, kinds: tuple[str, ...], where: Path, **options: float) -> float:
    """Return the share of new sounds that are classified right."""
    paths = [
        write_sound(where / f"{k}{n}.wav", k, 100 + n, **options) for k in kinds for n in (1, 2)
    ]
    found = [each.labels[0][0] for each in predict(folder, paths)]
    return float(np.mean([label in path.name for label, path in zip(found, paths, strict=True)]))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("linear-lite", {}),
        ("prototypes", {}),
        ("transfer", {}),
        ("attention-lite", {"epochs": 10}),
        ("ann-librosa26", {"epochs": 15}),
        ("cnn-logmel", {"epochs": 8, "learning_rate": 5e-3}),
    ],
)
def test_a_model_learns_and_its_folder_classifies_new_sounds(
    folders, cache, tmp_path, model, options
):
    config = LabConfig(model=model, batch_size=8, validation=0, augment=False, **options)
    run = train_lab(read_sounds(folders), tmp_path / "out", config=config, cache=cache)
    assert (run.train, run.validation, run.measures) == (30, 0, None)
    assert accuracy(run.folder, ("low", "high", "noise"), tmp_path) == 1
    manifest = json.loads((run.folder / "classifier.json").read_text(encoding="utf-8"))
    assert manifest["classes"] == ["high", "low", "noise"]
    card = (run.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| high | 10 |" in card
    assert (run.folder / "metrics.csv").exists() == (MODELS[model].kind == "network")
    if model == "ann-librosa26":
        with (run.folder / "parameters.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 30
        assert list(rows[0])[4:] == list(LIBROSA26)
        centroids = {row["label"]: float(row["spectral_centroid"]) for row in rows}
        assert centroids["low"] < centroids["high"]


@pytest.mark.parametrize("model", ["linear-vggish", "mlp-vggish", "attention-vggish"])
def test_models_stand_on_the_real_vggish_too(vggish_installed, tmp_path, model):
    folder = class_folders(tmp_path / "data", kinds=("low", "noise"), n=4)
    config = LabConfig(model=model, epochs=30, batch_size=4, validation=0, mixup=0)
    run = train_lab(read_sounds(folder), tmp_path / "out", config=config, cache=tmp_path / "cache")
    assert accuracy(run.folder, ("low", "noise"), tmp_path) == 1
    manifest = json.loads((run.folder / "classifier.json").read_text(encoding="utf-8"))
    assert manifest["feature"]["identity"].startswith("vggish ")


@pytest.mark.parametrize("name", SHAPES)
def test_the_exported_network_scores_as_keras_does(name):
    network = build_network(name, SHAPES[name], 5)
    random = np.random.default_rng(1)
    network.set_weights(
        [
            values + (values.ndim == 1) * np.abs(random.normal(0, 0.1, values.shape))
            for values in network.get_weights()
        ]
    )
    graph = LabGraph(SHAPES[name])
    model = graph.finish(graph.network(network, "clip"), 5)
    clips = random.normal(0, 1, (4, *SHAPES[name])).astype(np.float32)
    clips *= np.array([0.1, 0.5, 1, 3], np.float32).reshape(-1, *[1] * len(SHAPES[name]))
    wanted = network.predict([clips], verbose=0)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,) = session.run(None, {"clip": clips})
    assert np.ptp(wanted, axis=0).max() > 1e-4, "the scores must depend on the sound"
    np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_every_network_is_tested_and_every_model_names_one():
    assert set(SHAPES) | set(PRETRAINED) == set(NETWORKS)
    networks = {spec.network for spec in MODELS.values() if spec.kind == "network"}
    assert networks == set(NETWORKS)


def test_two_trainings_with_one_seed_are_the_same(folders, cache, tmp_path):
    config = LabConfig(model="mlp-lite", epochs=2, seed=5)
    runs = [
        train_lab(read_sounds(folders), tmp_path / name, config=config, cache=cache)
        for name in ("one", "two")
    ]
    first, second = ([each.loss for each in run.epochs] for run in runs)
    assert first == second
    assert runs[0].measures == runs[1].measures


def test_a_stopped_training_keeps_its_best_epoch_and_goes_on(folders, cache, tmp_path):
    config = LabConfig(model="mlp-lite", epochs=4, validation=0.3)
    sounds = read_sounds(folders)

    def stop(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    stopped = train_lab(sounds, tmp_path / "out", config=config, cache=cache, on_epoch=stop)
    assert stopped.interrupted
    assert len(stopped.epochs) == 2
    assert LabClassifier(stopped.folder).classes == ("high", "low", "noise")
    resumed = train_lab(sounds, tmp_path / "out", config=config, cache=cache, resume=True)
    assert not resumed.interrupted
    assert resumed.epochs[:2] == stopped.epochs
    assert [each.epoch for each in resumed.epochs] == [1, 2, 3, 4]
    with pytest.raises(InvalidArgumentError, match="another seed"):
        train_lab(
            sounds,
            tmp_path / "out",
            config=LabConfig(model="mlp-lite", epochs=4, validation=0.3, seed=1),
            cache=cache,
            resume=True,
        )


def test_training_stops_early_and_keeps_the_best_epoch(folders, cache, tmp_path):
    config = LabConfig(model="mlp-lite", epochs=30, patience=2, validation=0.3, learning_rate=0.3)
    run = train_lab(read_sounds(folders), tmp_path / "out", config=config, cache=cache)
    losses = [each.validation_loss for each in run.epochs]
    assert len(losses) < 30
    assert run.best == 1 + int(np.argmin(losses))
    assert len(losses) - run.best == 2


def test_the_command_says_which_epoch_is_kept(folders, cache, tmp_path, invoke):
    command = ("lab", "train", folders, "--model", "mlp-lite", "--cache", cache)
    early = invoke(
        *(*command, "--out", tmp_path / "early", "--epochs", 30, "--patience", 2),
        *("--learning-rate", 0.3, "--validation", 0.3),
    )
    assert early.code == 0
    manifest = json.loads((tmp_path / "early" / "classifier.json").read_text(encoding="utf-8"))
    line = "Stopped early: 2 epochs brought no better validation loss. "
    assert line + f"Epoch {manifest['epoch']} is kept." in early.out
    whole = invoke(*command, "--out", tmp_path / "whole", "--epochs", 2, "--validation", 0)
    assert "\nEpoch 2 is kept.\n" in whole.out


def test_a_training_that_was_stopped_goes_on_on_any_device(folders, cache, tmp_path):
    sounds, out = read_sounds(folders), tmp_path / "out"
    config = LabConfig(model="mlp-lite", epochs=2, device="cpu")

    def stop(epoch):
        raise KeyboardInterrupt

    train_lab(sounds, out, config=config, cache=cache, on_epoch=stop)
    other = LabConfig(model="mlp-lite", epochs=2)
    run = train_lab(sounds, out, config=other, cache=cache, resume=True)
    assert len(run.epochs) == 2


def test_sounds_with_several_classes_are_learned_class_by_class(tmp_path, cache):
    lines = ["path,labels"]
    for number in range(8):
        for kinds in (("low",), ("noise",), ("low", "noise"), ()):
            name = f"{'+'.join(kinds) or 'nothing'}{number}.wav"
            waves = [sound(kind, number) for kind in kinds] or [np.zeros(8000, np.float32)]
            soundfile.write(tmp_path / name, sum(waves), 16000)
            lines.append(f"{name},{';'.join(kinds)}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    sounds = read_sounds(tmp_path / "list.csv")
    for model in ("transfer", "mlp-lite"):
        config = LabConfig(model=model, validation=0, epochs=20, batch_size=8, mixup=0)
        run = train_lab(sounds, tmp_path / model, config=config, cache=cache)
        scores = {
            each.path.rpartition("/")[2]: dict(each.labels)
            for each in predict(run.folder, [tmp_path / "low+noise0.wav", tmp_path / "low0.wav"])
        }
        assert scores["low+noise0.wav"]["noise"] > scores["low0.wav"]["noise"]
        assert scores["low+noise0.wav"]["low"] > 0.5


def test_a_training_that_its_last_step_broke_says_so(tmp_path, cache):
    # One step an epoch: its loss is taken before the weights are moved too far.
    sounds = read_sounds(class_folders(tmp_path / "data", n=8))
    config = LabConfig(
        model="mlp-lite", epochs=1, batch_size=24, learning_rate=1e30, validation=0.3
    )
    with pytest.raises(DataError, match="Training diverged in epoch 1"):
        train_lab(sounds, tmp_path / "out", config=config, cache=cache)


def test_rare_classes_weigh_more(tmp_path, cache):
    class_folders(tmp_path / "data", kinds=("noise",), n=24)
    class_folders(tmp_path / "data", kinds=("clicks",), n=3)
    scores = {}
    for balance in ("weights", "none"):
        config = LabConfig(model="linear-lite", validation=0, balance=balance)
        run = train_lab(
            read_sounds(tmp_path / "data"), tmp_path / balance, config=config, cache=cache
        )
        (found,) = predict(run.folder, [write_sound(tmp_path / "new.wav", "clicks", 77)])
        scores[balance] = dict(found.labels)["clicks"]
    assert scores["weights"] > scores["none"]


@pytest.mark.parametrize("model", ["transfer", "mlp-lite"])
def test_rare_classes_weigh_more_where_sounds_have_several(tmp_path, cache, model):
    # Of the seven files of each sound, one is called rare.
    lines = ["path,labels"]
    for number in range(28):
        write_sound(tmp_path / f"{number}.wav", "noise", number // 7)
        lines.append(f"{number}.wav,any{';rare' if number % 7 == 0 else ''}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    rare, common = {}, {}
    for balance in ("weights", "none"):
        config = LabConfig(
            model=model, validation=0, balance=balance, epochs=8, batch_size=8, mixup=0
        )
        run = train_lab(
            read_sounds(tmp_path / "list.csv"), tmp_path / balance, config=config, cache=cache
        )
        files = [tmp_path / f"{number}.wav" for number in range(0, 28, 7)]
        found = [dict(each.labels) for each in predict(run.folder, files)]
        rare[balance] = np.mean([each["rare"] for each in found])
        common[balance] = np.mean([each["any"] for each in found])
    assert rare["weights"] > 2 * rare["none"]
    assert common["weights"] > 0.8, "what all sounds have is not balanced away"


def test_one_example_a_class_is_enough_for_prototypes(tmp_path, cache):
    kinds = ("low", "clicks", "noise")
    class_folders(tmp_path / "data", kinds=kinds, n=1)
    config = LabConfig(model="prototypes", validation=0)
    run = train_lab(read_sounds(tmp_path / "data"), tmp_path / "out", config=config, cache=cache)
    assert accuracy(run.folder, kinds, tmp_path) == 1


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path, cache, invoke):
    class_folders(tmp_path / "data", n=5)
    (tmp_path / "data" / "low" / "broken.wav").write_bytes(b"no sound" * 50)
    options = ("--model", "linear-lite", "--validation", "0", "--cache", cache)
    done = invoke("lab", "train", tmp_path / "data", *options, "--out", tmp_path / "out")
    assert done.code == 3
    assert "trained on 15 sounds of 3 classes" in done.out
    assert "broken.wav" in done.err
    again = invoke("lab", "train", tmp_path / "data", *options, "--out", tmp_path / "out")
    assert again.code == 1
    assert "exists already" in again.err
    broken = tmp_path / "data" / "low" / "broken.wav"
    good = tmp_path / "data" / "low" / "00.wav"
    found = invoke("lab", "predict", tmp_path / "out", good, broken, "--json")
    assert found.code == 3
    first, second = map(json.loads, found.out.splitlines())
    assert first["labels"][0]["label"] == "low"
    assert second["reason"]
    assert invoke("lab", "predict", tmp_path / "out", broken).code == 1
    text = invoke("lab", "predict", tmp_path / "out", good, "--top", "1", "--windows")
    assert text.out.splitlines()[0].endswith("1.00") or "low 0." in text.out


def test_sets_that_cannot_be_learned_are_refused(tmp_path, cache):
    one = read_sounds(class_folders(tmp_path / "one", kinds=("low",)))
    with pytest.raises(DataError, match="one class only"):
        train_lab(one, tmp_path / "out", cache=cache)
    single = read_sounds(class_folders(tmp_path / "single", n=1))
    with pytest.raises(DataError, match="--validation 0"):
        train_lab(single, tmp_path / "out", cache=cache)
    for path in (tmp_path / "one" / "low").iterdir():
        path.write_bytes(b"")
    class_folders(tmp_path / "one", kinds=("high",))
    with pytest.raises(DataError, match="one class only"):
        train_lab(read_sounds(tmp_path / "one"), tmp_path / "other", cache=cache)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "owl"},
        {"epochs": 0},
        {"validation": 1.0},
        {"batch_size": 1},
        {"short": "stretch"},
        {"mixup": -1},
        {"mixup": float("inf")},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"seed": -1},
        {"seed": 2**32},
        {"patience": 3, "validation": 0.0},
    ],
)
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(InvalidArgumentError):
        LabConfig(**options)


def test_a_gpu_that_is_not_there_is_refused(folders, cache, tmp_path):
    import keras

    if keras.distribution.list_devices("gpu"):
        return
    config = LabConfig(model="mlp-lite", device="gpu", epochs=1)
    with pytest.raises(InvalidArgumentError, match="no GPU"):
        train_lab(read_sounds(folders), tmp_path / "out", config=config, cache=cache)


def test_a_damaged_or_foreign_classifier_is_refused(folders, cache, tmp_path):
    run = train_lab(read_sounds(folders), tmp_path / "out", cache=cache)
    manifest = json.loads((run.folder / "classifier.json").read_text(encoding="utf-8"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "classifier.onnx").write_bytes((run.folder / "classifier.onnx").read_bytes())
    (foreign / "classifier.json").write_text(json.dumps(manifest | {"kind": "x"}), encoding="utf-8")
    with pytest.raises(ModelError, match="no classifier of the lab"):
        LabClassifier(foreign)
    (run.folder / "classifier.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match="damaged"):
        LabClassifier(run.folder)


def test_the_commands_options_are_the_settings():
    import dataclasses

    import click

    from audiosearch.cli.lab_options import training_options
    from audiosearch.cli.lab_train import command

    options = {each.name: each for each in command.params}
    fields = {each.name: each.default for each in dataclasses.fields(LabConfig)}
    assert set(fields) <= set(options)
    for name, default in fields.items():
        if default is not None:
            assert options[name].default == default
    assert tuple(options["model"].type.choices) == tuple(MODELS)
    shared = training_options(click.command("x")(lambda: None)).params
    assert {each.name for each in shared} < set(fields)
