"""The classifier: network, export and scorer."""

import json
import shutil
import zlib

import numpy as np
import pytest

from audiosearch.classifier.evaluation import evaluate
from audiosearch.classifier.export import export_classifier
from audiosearch.classifier.network import NetworkConfig, build_network
from audiosearch.classifier.scorer import clip_frames, load_scorer
from audiosearch.datasets.packed import frame_mask
from audiosearch.errors import InvalidArgumentError, ModelError

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
    export_classifier(network, folder, config=SMALL, name="exported", facts={}, half=False)
    return folder


@pytest.mark.parametrize("name", FAMILY)
def test_an_exported_network_scores_as_the_papers_definition(name, clips, tmp_path):
    x, n_frames = clips
    config = FAMILY[name]
    network = with_random_weights(config)
    wanted = by_definition(config, network, x, n_frames)
    assert np.ptp(wanted) > 0.1
    export_classifier(network, tmp_path, config=config, name=name, facts={}, half=False)
    np.testing.assert_allclose(load_scorer(tmp_path).score(x, n_frames), wanted, atol=1e-5)


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
    whole = export_classifier(network, tmp_path / "a", config=SMALL, name="a", facts={}, half=False)
    half = export_classifier(network, tmp_path / "b", config=SMALL, name="b", facts={}, half=True)
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


@pytest.mark.data
def test_the_bundled_classifier_on_audiosets_evaluation_half(data_dir):
    result = evaluate(data_dir / "audioset" / "eval.h5")
    assert result.clips == 10148
    assert result.mAP > 0.25
    assert result.AUC > 0.94
