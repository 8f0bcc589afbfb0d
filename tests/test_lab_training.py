"""The lab's models: features, training, what is written, resuming, and use of the result."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from lab_fixtures import class_folders, sound, write_sound

from audiosearch.errors import (
    DataError,
    InvalidArgumentError,
    ModelError,
    StorageError,
)
from audiosearch.lab import (
    MODELS,
    LabClassifier,
    LabConfig,
    predict,
    read_sounds,
    train_lab,
)
from audiosearch.lab.augmentation import augment, mix
from audiosearch.lab.feature_cache import FeatureCache
from audiosearch.lab.graph import LabGraph
from audiosearch.lab.networks import NETWORKS, build_network
from audiosearch.lab.waveforms import load_clip
from audiosearch.own.features import LIBROSA26, get_feature
from audiosearch.own.waveforms import ClipLength, windows

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
def folders(tmp_path_factory):
    """Three classes of ten sounds."""
    return class_folders(tmp_path_factory.mktemp("lab") / "data")


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
    # One in seven is called rare, for no reason that could be heard.
    lines = ["path,labels"]
    for number in range(28):
        write_sound(tmp_path / f"{number}.wav", "noise", number)
        lines.append(f"{number}.wav,any{';rare' if number % 7 == 0 else ''}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    new = [write_sound(tmp_path / f"new{number}.wav", "noise", 77 + number) for number in range(4)]
    rare, common = {}, {}
    for balance in ("weights", "none"):
        config = LabConfig(
            model=model, validation=0, balance=balance, epochs=8, batch_size=8, mixup=0
        )
        run = train_lab(
            read_sounds(tmp_path / "list.csv"), tmp_path / balance, config=config, cache=cache
        )
        found = [dict(each.labels) for each in predict(run.folder, new)]
        rare[balance] = np.mean([each["rare"] for each in found])
        common[balance] = np.mean([each["any"] for each in found])
    assert rare["weights"] > rare["none"] + 0.1
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


def test_a_long_file_is_heard_in_windows(tmp_path):
    wave = np.concatenate([np.full(16000, 0.5), np.full(16000, -0.5), np.full(9000, 0.25)])
    soundfile.write(tmp_path / "long.wav", wave, 16000, subtype="FLOAT")
    found = list(windows(str(tmp_path / "long.wav"), ClipLength(1.0)))
    assert [(start, end) for start, end, _ in found] == [(0, 1), (1, 2), (2, 2.5625)]
    assert [len(clip) for _, _, clip in found] == [16000] * 3
    assert [float(clip.mean()) for _, _, clip in found] == [0.5, -0.5, 0.25]
    soundfile.write(tmp_path / "long.wav", wave[: 32000 + 7000], 16000)
    assert len(list(windows(str(tmp_path / "long.wav"), ClipLength(1.0)))) == 2


def test_short_sounds_are_repeated_or_padded(tmp_path):
    soundfile.write(tmp_path / "short.wav", [0.1, 0.2, 0.3] * 400, 16000, subtype="FLOAT")
    (only,) = read_sounds_of(tmp_path / "short.wav")
    repeated = load_clip(only, ClipLength(0.1, "repeat"))
    padded = load_clip(only, ClipLength(0.1, "pad"))
    assert repeated[1198:1203].tolist() == pytest.approx([0.2, 0.3, 0.1, 0.2, 0.3])
    assert padded[1198:1203].tolist() == pytest.approx([0.2, 0.3, 0, 0, 0])
    with pytest.raises(InvalidArgumentError):
        ClipLength(0.0)


def read_sounds_of(path: Path):
    (path.parent / "one.csv").write_text(f"path,label\n{path.name},x\n", encoding="utf-8")
    return read_sounds(path.parent / "one.csv").sounds


def test_any_rate_and_channels_give_the_same_features(tmp_path):
    wave = sound("low", 3, rate=48000)
    soundfile.write(tmp_path / "a.wav", wave, 48000)
    soundfile.write(tmp_path / "b.flac", np.stack([wave, wave], axis=1), 48000, subtype="PCM_24")
    feature = get_feature("log-mel")
    (tmp_path / "l.csv").write_text("path,label\na.wav,x\nb.flac,y\n", encoding="utf-8")
    first, second = (
        feature.compute(load_clip(each, ClipLength(0.5)))
        for each in read_sounds(tmp_path / "l.csv").sounds
    )
    assert first.shape == (50, 64)
    np.testing.assert_allclose(first, second, atol=0.02)


def test_features_are_kept_by_content(folders, tmp_path):
    computed = []
    lite = get_feature("lite")

    def counted(waveform):
        computed.append(1)
        return lite.compute(waveform)

    feature = type(lite)(lite.name, lite.identity, counted)
    sounds = read_sounds(folders)
    with FeatureCache(tmp_path) as cache:
        first = cache.features(sounds, feature, ClipLength(0.5)).take(np.arange(30))
    assert len(computed) == 30
    moved = tmp_path / "elsewhere"
    folders_copy = class_folders(moved)
    with FeatureCache(tmp_path) as cache:
        again = cache.features(read_sounds(folders_copy), feature, ClipLength(0.5))
        assert len(computed) == 30, "the same bytes under another name"
        np.testing.assert_array_equal(again.take(np.arange(30)), first)
        cache.features(sounds, feature, ClipLength(0.4))
        assert len(computed) == 60
    (tmp_path / "features.sqlite").write_bytes(b"this is no database" * 100)
    with FeatureCache(tmp_path) as cache:
        cache.features(sounds, feature, ClipLength(0.5))
    assert len(computed) == 90


def test_a_cache_is_free_for_others_while_a_sound_is_computed(folders, tmp_path):
    with FeatureCache(tmp_path) as cache:
        lite, calls = get_feature("lite"), []

        def meanwhile(waveform):
            with contextlib.closing(sqlite3.connect(cache.path, timeout=0)) as other:
                other.execute("BEGIN IMMEDIATE")
                other.rollback()
            calls.append(1)
            return lite.compute(waveform)

        feature = type(lite)(lite.name, lite.identity, meanwhile)
        cache.features(read_sounds(folders).selected(range(3)), feature, ClipLength(0.5))
    assert len(calls) == 3


def test_a_cache_that_another_process_writes_need_not_be_deleted(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("audiosearch.lab.feature_cache._PATIENCE", 0.05)
    sounds = read_sounds(folders).selected(range(2))
    with (
        FeatureCache(tmp_path) as cache,
        contextlib.closing(sqlite3.connect(cache.path)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another process") as raised:
            cache.features(sounds, get_feature("lite"), ClipLength(0.5))
        assert "elete" not in str(raised.value)
        other.rollback()
        assert len(cache.features(sounds, get_feature("lite"), ClipLength(0.5))) == 2


def test_a_cache_that_cannot_be_written_is_said(folders, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="could not be written"):
        FeatureCache(tmp_path / "file")


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


def test_augmentation_changes_sounds_within_bounds():
    random = np.random.default_rng(0)
    clips = random.normal(0, 1, (6, 100, 64)).astype(np.float32)
    before = clips.copy()
    changed = augment(random, clips, "log-mel")
    np.testing.assert_array_equal(clips, before)
    assert changed.shape == clips.shape
    assert not np.array_equal(changed, clips)
    waves = random.normal(0, 0.1, (6, 4000)).astype(np.float32)
    louder = augment(random, waves, "waveform").std(axis=1) / waves.std(axis=1)
    assert 0.49 < louder.min() < louder.max() < 2.05
    assert augment(random, before, "lite") is before


def tone_bands(clips: np.ndarray) -> np.ndarray:
    """Return the loudest band of each log-mel spectrogram."""
    return clips.mean(axis=1).argmax(axis=1)


def test_pitch_moves_a_tone_and_stretch_does_not():
    random = np.random.default_rng(0)
    mel = get_feature("log-mel").compute(sound("high", 1, seconds=1.0))
    clips = np.repeat(mel[None], 40, axis=0)
    (before,) = set(tone_bands(clips[:1]))
    moved = tone_bands(augment(random, clips, "log-mel", ["pitch"])) - before
    # Three semitones from 3,000 Hz are 166 mel, which are four bands.
    assert -6 <= moved.min() < -2
    assert 2 < moved.max() <= 6
    same = augment(random, clips, "log-mel", ["stretch"])
    assert set(tone_bands(same)) == {before}
    images = np.repeat(get_feature("image").compute(sound("high", 1))[None], 20, axis=0)
    assert len(set(tone_bands(augment(random, images, "image", ["pitch"])))) > 3


def test_stretch_changes_how_fast_clicks_come():
    random = np.random.default_rng(1)
    mel = get_feature("log-mel").compute(sound("clicks", 1, seconds=2.0))

    def clicks(clip: np.ndarray) -> int:
        loud = clip.mean(axis=1) > clip.mean()
        return int((np.diff(loud.astype(int)) == 1).sum())

    counts = [
        clicks(each)
        for each in augment(random, np.repeat(mel[None], 30, axis=0), "log-mel", ["stretch"])
    ]
    assert clicks(mel) in (19, 20)
    assert 15 <= min(counts) < 18
    assert 22 < max(counts) <= 26


@pytest.mark.parametrize("name", ["pitch", "stretch"])
def test_waveforms_change_pitch_and_speed_alone(name):
    random = np.random.default_rng(0)
    wave = sound("high", 1, seconds=1.0)
    changed = augment(random, np.repeat(wave[None], 6, axis=0), "waveform", [name])
    assert changed.shape == (6, 16000)
    peaks = np.abs(np.fft.rfft(changed, axis=1)).argmax(axis=1)
    original = int(np.abs(np.fft.rfft(wave)).argmax())
    ratios = peaks / original
    if name == "pitch":
        assert 2 ** (-3.1 / 12) < ratios.min() < 0.97
        assert 1.03 < ratios.max() < 2 ** (3.1 / 12)
    else:
        np.testing.assert_allclose(ratios, 1, atol=0.01)


@pytest.mark.parametrize("feature", ["waveform", "log-mel"])
def test_a_background_is_soft(feature):
    random = np.random.default_rng(0)
    tone, noise = sound("low", 1, seconds=1.0), sound("noise", 1, seconds=1.0)
    compute = get_feature(feature).compute
    clips = np.stack([compute(tone), compute(noise)])
    for _ in range(20):  # until they are behind each other
        mixed = augment(random, clips, feature, ["background"])
        if feature == "waveform":
            behind = mixed[0] - clips[0]
            share = 20 * np.log10(behind.std() / clips[0].std())
            if np.corrcoef(behind, clips[1])[0, 1] > 0.99:
                assert -30.1 < share < -9.9
                return
        elif np.abs(mixed[0] - clips[0]).max() > 0.5:
            # Where the tone is not, the noise is heard; the tone is as loud as before.
            band = int(tone_bands(clips[:1])[0])
            assert np.abs(mixed[0] - clips[0])[:, band].max() < 0.5
            assert (mixed[0] >= clips[0] - 1e-4).all()
            return
    raise AssertionError("no background in twenty tries")


def test_unknown_augmentations_are_refused():
    with pytest.raises(InvalidArgumentError, match="pitch, stretch, background, not 'echo'"):
        LabConfig(augmentations="shift,echo")
    assert LabConfig(augment=False).wanted_augmentations == ()


def test_mixup_mixes_labels_as_it_mixes_sounds():
    random = np.random.default_rng(0)
    targets = np.eye(8, dtype=np.float32)
    clips, mixed = mix(random, targets.copy(), targets, 1.0)
    np.testing.assert_allclose(clips, mixed)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    assert (mixed.max(axis=1) < 1).any()
    assert (mixed.argmax(axis=1) == np.arange(8)).all()


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
