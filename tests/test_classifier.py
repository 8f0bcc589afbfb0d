"""The classifier: network, training, export and scorer."""

import dataclasses
import json
import shutil
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_packed

from audiosearch.classifier.augmentation import Augmentation
from audiosearch.classifier.evaluation import evaluate
from audiosearch.classifier.export import export_classifier
from audiosearch.classifier.network import NetworkConfig, build_network
from audiosearch.classifier.scorer import Ensemble, clip_frames, load_scorer
from audiosearch.classifier.settings import TrainingConfig
from audiosearch.classifier.training import train
from audiosearch.datasets.packed import frame_mask
from audiosearch.datasets.stream import ClipBatch
from audiosearch.errors import DataError, InvalidArgumentError, ModelError, StorageError
from audiosearch.labels import load_labels

SMALL = NetworkConfig(units=24, layers=3, levels=(1, 3), dropout=0.1)
FAMILY = {
    "max-pooling": NetworkConfig("max-pooling", units=24, layers=2, levels=(2,)),
    "average-pooling": NetworkConfig("average-pooling", units=24, layers=2, levels=(2,)),
    "single-attention": NetworkConfig("single-attention", units=24, layers=2, levels=(2,)),
    "multi-level-attention": SMALL,
    "one-level-attention": NetworkConfig(units=24, layers=2, levels=(2,)),
    "residual": NetworkConfig(units=24, layers=3, levels=(1, 2, 3), residual=True),
    "softmax-attention": NetworkConfig(units=24, layers=3, levels=(2, 3), attention="softmax"),
    "feature-level-attention": NetworkConfig("feature-level-attention", units=24, levels=(3,)),
    "feature-levels": NetworkConfig("feature-level-attention", units=24, levels=(1, 3)),
}


def with_random_weights(config: NetworkConfig, *, timeline: bool = False):
    """Build a network whose weights, norms included, are random but the same at every call."""
    model = build_network(config, timeline=timeline)
    for variable in model.weights:
        random = np.random.default_rng(zlib.crc32(variable.path.encode()))
        if "variance" in variable.path or "gamma" in variable.path:
            variable.assign(random.uniform(0.3, 1.5, variable.shape))
        else:
            variable.assign(random.normal(0, 0.1, variable.shape))
    return model


@pytest.fixture(scope="module")
def network():
    return with_random_weights(SMALL)


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(2)
    x = random.integers(0, 256, (45, 10, 128), dtype=np.uint8)
    return x, random.integers(1, 11, 45)


def by_definition(config: NetworkConfig, network, x: np.ndarray, n_frames: np.ndarray):
    """Compute a network in float64 from the papers, clip by clip, without padding."""
    weights = {variable.path: np.float64(variable.numpy()) for variable in network.weights}

    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    def softmax(value):
        powers = np.exp(value - value.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def dense(value, name):
        return value @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def attention(hidden, name):
        raw = {"sigmoid": sigmoid, "softmax": softmax}[config.attention](dense(hidden, name))
        return raw / raw.sum(axis=0)

    def trunk(hidden):
        outputs = []
        for number in range(1, config.layers + 1):
            before = hidden
            hidden = dense(hidden, f"hidden_{number}")
            norm = {
                key: weights[f"norm_{number}/{key}"]
                for key in ("moving_mean", "moving_variance", "gamma", "beta")
            }
            hidden = (hidden - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3)
            hidden = np.maximum(hidden * norm["gamma"] + norm["beta"], 0)
            if config.residual and number > 1:
                hidden = hidden + before
            outputs.append(hidden)
        return outputs

    def clip_scores(frames):
        hidden = trunk(frames)
        if config.architecture == "max-pooling":
            return sigmoid(dense(hidden[-1], "scores")).max(axis=0)
        if config.architecture == "average-pooling":
            return sigmoid(dense(hidden[-1], "scores")).mean(axis=0)
        if config.architecture == "single-attention":
            weight = attention(hidden[-1], "attention")
            return (weight * sigmoid(dense(hidden[-1], "scores"))).sum(axis=0)
        if config.architecture == "feature-level-attention":
            levels = []
            for level in config.levels:
                weight = attention(hidden[level - 1], f"attention_{level}")
                features = dense(hidden[level - 1], f"features_{level}")
                levels.append((weight * features).sum(axis=0))
            return sigmoid(dense(np.concatenate(levels), "scores"))
        levels = []
        for level in config.levels:
            weight = attention(hidden[level - 1], f"attention_{level}")
            levels.append((weight * sigmoid(dense(hidden[level - 1], f"score_{level}"))).sum(0))
        return sigmoid(dense(np.concatenate(levels), "scores"))

    return np.array(
        [
            clip_scores((np.float64(clip[:count]) - 128) / 128)
            for clip, count in zip(x, n_frames, strict=True)
        ]
    )


def inputs(x: np.ndarray, n_frames: np.ndarray) -> list[np.ndarray]:
    return [(x.astype(np.float32) - 128) / 128, frame_mask(n_frames)]


@pytest.mark.parametrize("name", FAMILY)
def test_each_of_the_family_computes_what_its_paper_says(name, clips):
    x, n_frames = clips
    network = with_random_weights(FAMILY[name])
    wanted = by_definition(FAMILY[name], network, x, n_frames)
    assert np.ptp(wanted) > 0.1
    found = network.predict(inputs(x, n_frames), verbose=0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_the_timeline_says_what_each_frame_alone_would_score(name, clips):
    x, n_frames = clips
    network = with_random_weights(FAMILY[name])
    timeline = with_random_weights(FAMILY[name], timeline=True)
    scores, frame_scores, attention = timeline.predict(inputs(x, n_frames), verbose=0)
    np.testing.assert_allclose(scores, network.predict(inputs(x, n_frames), verbose=0), atol=1e-6)
    for row in (0, 5, 44):
        count = n_frames[row]
        alone = x[row, :count, None].repeat(10, axis=1)
        one = network.predict(inputs(alone, np.ones(count, int)), verbose=0)
        np.testing.assert_allclose(frame_scores[row, :count], one, atol=1e-5)
        assert not frame_scores[row, count:].any()
        assert not attention[row, count:].any()
    np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_classifier(network, folder, name="exported", facts={}, half=False)
    return folder


def test_an_exported_network_scores_as_the_papers_definition(network, exported, clips):
    x, n_frames = clips
    wanted = by_definition(SMALL, network, x, n_frames)
    assert np.ptp(wanted) > 0.2
    np.testing.assert_allclose(load_scorer(exported).score(x, n_frames), wanted, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(exported, clips):
    x, n_frames = clips
    scorer = load_scorer(exported)
    other = x.copy()
    for row, count in enumerate(n_frames):
        other[row, count:] = 255 - other[row, count:]
    np.testing.assert_array_equal(scorer.score(x, n_frames), scorer.score(other, n_frames))


def test_a_clips_scores_do_not_depend_on_its_neighbours(exported, clips):
    x, n_frames = clips
    scorer = load_scorer(exported)
    together = scorer.score(x, n_frames)
    for row in (0, 31, 32, 44):
        alone = scorer.score(x[row : row + 1], n_frames[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row])
    single = load_scorer(exported, threads=1).score(x, n_frames)
    np.testing.assert_allclose(single, together, atol=1e-6)


def test_half_precision_weights_are_half_the_size_and_score_the_same(network, clips, tmp_path):
    x, _ = clips
    whole = export_classifier(network, tmp_path / "a", name="a", facts={}, half=False)
    half = export_classifier(network, tmp_path / "b", name="b", facts={}, half=True)
    assert half.stat().st_size < 0.62 * whole.stat().st_size
    difference = load_scorer(tmp_path / "a").score(x) - load_scorer(tmp_path / "b").score(x)
    assert 0 < np.abs(difference).max() < 5e-3


def test_no_clips_give_no_scores(exported):
    assert load_scorer(exported).score(np.zeros((0, 10, 128), np.uint8)).shape == (0, 527)


@pytest.mark.parametrize(
    ("x", "n_frames"),
    [
        (np.zeros((2, 10, 127), np.uint8), None),
        (np.zeros((10, 128), np.uint8), None),
        (np.zeros((2, 10, 128), np.float32), None),
        (np.zeros((2, 10, 128), np.uint8), np.array([1])),
        (np.zeros((2, 10, 128), np.uint8), np.array([0, 3])),
        (np.zeros((2, 10, 128), np.uint8), np.array([11, 3])),
    ],
)
def test_other_shapes_and_types_are_refused(exported, x, n_frames):
    with pytest.raises(InvalidArgumentError):
        load_scorer(exported).score(x, n_frames)


def test_recordings_are_cut_into_clips_of_ten_frames():
    frames = np.arange(23 * 128, dtype=np.uint64).astype(np.uint8).reshape(23, 128)
    x, n_frames = clip_frames(frames)
    assert n_frames.tolist() == [10, 10, 3]
    np.testing.assert_array_equal(x.reshape(-1, 128)[:23], frames)
    assert not x.reshape(-1, 128)[23:].any()
    with pytest.raises(InvalidArgumentError):
        clip_frames(np.zeros((0, 128), np.uint8))
    with pytest.raises(InvalidArgumentError):
        clip_frames(np.zeros((3, 128), np.float32))


def test_a_classifier_that_does_not_fit_is_refused(exported, tmp_path):
    with pytest.raises(ModelError, match="audiosearch train"):
        load_scorer(tmp_path)
    for number, (key, value, words) in enumerate(
        [
            ("sha256", "0" * 64, "damaged"),
            ("format_version", 99, "format 99"),
            ("space", "openl3", "openl3"),
            ("classes", 10, "10 classes"),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(exported, folder)
        manifest = json.loads((folder / "classifier.json").read_text())
        (folder / "classifier.json").write_text(json.dumps(manifest | {key: value}))
        with pytest.raises(ModelError, match=words):
            load_scorer(folder)


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


CAR = load_labels().by_name("Car").index
PLAIN = TrainingConfig(mixup=0)


def augmented(config: TrainingConfig, *, clips: int = 64, step: int = 1):
    """Return (inputs, targets) of clips of which 4 are of class 20, the others cars; and x."""
    random = np.random.default_rng(8)
    x = random.integers(0, 256, (clips, 10, 128), dtype=np.uint8)
    y = np.zeros((clips, 527), bool)
    y[4:, CAR] = y[:4, 20] = True
    batch = ClipBatch(x, np.full(clips, 10), y, np.arange(clips))
    return *Augmentation(config).apply(batch, epoch=1, step=step), x


def test_a_step_is_augmented_alike_each_time_and_steps_differ():
    config = dataclasses.replace(PLAIN, mixup=0.5, noise=0.1, frame_dropout=0.2)
    once, again, other = (augmented(config, step=step) for step in (1, 1, 2))
    np.testing.assert_array_equal(once[0][0], again[0][0])
    np.testing.assert_array_equal(once[1], again[1])
    assert not np.array_equal(once[0][0], other[0][0])


def test_a_mixed_clip_is_the_weighted_mean_of_two():
    (frames, mask), targets, x = augmented(dataclasses.replace(PLAIN, mixup=0.5))
    assert targets[:, 20] + targets[:, CAR] == pytest.approx(1)
    mixed = (targets[:, 20] > 0.05) & (targets[:, 20] < 0.95)
    assert mixed.sum() > 2
    originals = (x.astype(np.float32) - 128) / 128
    row = np.flatnonzero(mixed)[0]
    share = targets[row, 20]
    errors = [
        np.abs(share * a + (1 - share) * b - frames[row]).max()
        for a in originals[:4]
        for b in originals[4:]
    ]
    assert min(errors) < 1e-5
    assert mask.all()


def test_parents_of_true_classes_become_soft_targets():
    labels = load_labels()
    _, targets, _ = augmented(dataclasses.replace(PLAIN, parents=0.25))
    row = targets[np.flatnonzero(targets[:, CAR] == 1)[0]]
    above = [label.index for label in labels if CAR in labels.descendants(label.index)]
    assert above
    assert sorted(np.flatnonzero(row == 0.25)) == above


def test_frames_are_dropped_and_noise_is_added_but_never_to_padding():
    (frames, mask), _, _ = augmented(dataclasses.replace(PLAIN, frame_dropout=0.8, noise=0.1))
    assert mask.sum(axis=1).min() >= 1
    assert mask.mean() == pytest.approx(0.2, abs=0.1)
    assert not frames[mask == 0].any()


def test_label_smoothing_draws_targets_towards_the_middle():
    _, targets, _ = augmented(dataclasses.replace(PLAIN, label_smoothing=0.2))
    assert np.unique(targets) == pytest.approx([0.1, 0.9])


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


@pytest.mark.data
def test_the_bundled_classifier_on_audiosets_evaluation_half(data_dir):
    result = evaluate(data_dir / "audioset" / "eval.h5")
    assert result.clips == 10148
    assert result.mAP > 0.25
    assert result.AUC > 0.94
