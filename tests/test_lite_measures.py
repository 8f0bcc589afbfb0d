"""Measures of an embedder, and the rescorer of the bundled one."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from lite_fixtures import StubTeacher, tone, wav

from audiosearch.classifier.clip_scorer import ClipScorer
from audiosearch.classifier.rescoring import Rescorer, logits_of
from audiosearch.classifier.rescoring_fit import write_rescorer
from audiosearch.classifier.scorer import classifier_identity, load_scorer
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.labels import load_labels
from audiosearch.models import bundled_model, read_model
from tools.lite import (
    embedded_clips,
    frame_scores,
    measures,
    rescoring,
    shards,
    teacher,
)
from tools.lite.released import fold_of
from tools.lite.teacher import decode_embedding

# Measures


def test_a_perfect_embedder_finds_every_pair_and_a_random_one_does_not(lite_material):
    pairs, released = lite_material.pairs, lite_material.released
    own = {pairs.patches(index)[0].tobytes(): pairs.row[index] for index in range(len(pairs))}

    def perfect(log_mel: np.ndarray) -> np.ndarray:
        row = own[log_mel.tobytes()]
        return released.x[row, : len(log_mel)]

    assert measures.nearest_released(pairs, released, perfect).ranks.tolist() == [1] * len(pairs)
    random = np.random.default_rng(0)

    def blind(log_mel: np.ndarray) -> np.ndarray:
        return random.integers(0, 256, (len(log_mel), 128), np.uint8)

    assert measures.nearest_released(pairs, released, blind).median > 1
    # One embedder a fold: each pair is asked of its own fold's.
    folds = [blind] * 5
    folds[0] = perfect
    ranks = measures.nearest_released(pairs, released, folds).ranks
    assert (ranks[pairs.fold == 0] == 1).all()


def test_folds_are_even_and_do_not_depend_on_the_order():
    names = [f"clip{number:03d}" for number in range(23)]
    folds = fold_of(names)
    assert np.bincount(folds).tolist() == [5, 5, 5, 4, 4]
    assert np.array_equal(fold_of(names[::-1])[::-1], folds)


def test_top_classes_counts_hits_of_both(tmp_path):
    labels = load_labels()
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(wav(tone(440, 1.0)))
    frames = np.random.default_rng(0).integers(0, 256, (1, 128), np.uint8)
    scores = load_scorer().score_calibrated(
        np.concatenate([frames, np.zeros((9, 128), np.uint8)])[None], np.array([1])
    )[0]
    best, worst = int(scores.argmax()), int(scores.argmin())
    known = [
        measures.Known(tmp_path / "a.wav", (best,), labels[best].name),
        measures.Known(tmp_path / "b.wav", (worst,), labels[worst].name),
    ]
    found, means = measures.top_classes(
        known,
        lambda patches: frames[: len(patches)],
        ClipScorer(load_scorer(), None),
        StubTeacher(),
    )
    assert found.ours == {labels[best].name: [True], labels[worst].name: [False]}
    assert found.plain == found.ours
    assert found.share == 0.5
    assert means.shape == (2, 128)


def test_top_classes_tells_the_rescored_from_the_plain(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone(440, 1.0)))
    frames = np.random.default_rng(0).integers(0, 256, (1, 128), np.uint8)
    x = np.concatenate([frames, np.zeros((9, 128), np.uint8)])[None]
    worst = int(load_scorer().score_calibrated(x, np.array([1]))[0].argmin())

    class Turned:
        def rescore(self, scores, x, n_frames):
            return 1 - scores

    found, _ = measures.top_classes(
        [measures.Known(tmp_path / "a.wav", (worst,), "group")],
        lambda patches: frames[: len(patches)],
        ClipScorer(load_scorer(), Turned()),
        None,
    )
    assert (found.ours, found.plain) == ({"group": [True]}, {"group": [False]})


def test_the_order_of_recordings_is_judged_by_class():
    known = [
        measures.Known(Path("x"), classes, "") for classes in ((1,), (2, 3), (1,), (2, 3), (4,))
    ]
    scores = np.zeros((5, 527), np.float32)
    scores[:, 1] = [0.9, 0.8, 0.1, 0.7, 0.2]  # right ones at the places 1 and 5
    scores[:, 2] = [0.0, 0.0, 0.0, 0.9, 0.0]  # by the higher of two classes at 1 and 2
    scores[:, 3] = [0.1, 0.8, 0.0, 0.0, 0.0]
    # One recording alone has class 4: it is not judged.
    assert measures.order(known, scores) == (pytest.approx(((1 + 2 / 5) / 2 + 1) / 2), 2)


def test_scores_are_as_far_from_anothers_as_their_bins_are():
    scores = np.array([[0.05, 0.95], [0.05, 0.95]], np.float32)
    theirs = np.array([[0.0, 0.75], [0.1, 0.85]], np.float32)
    # The low bin's means are equal; the high bin's are 0.15 apart, and it has half of the pairs.
    assert measures.calibration_error(scores, theirs) == pytest.approx(0.075, abs=1e-6)
    assert measures.calibration_error(scores, scores) == 0


# The rescorer of its clips


@pytest.fixture(scope="module")
def embedded(lite_work) -> embedded_clips.EmbeddedClips:
    """The shards' clips, embedded by which of 128 regions of a patch is how loud."""

    def embed(log_mel: np.ndarray) -> np.ndarray:
        regions = log_mel.reshape(len(log_mel), 2, 48, 64).mean(axis=2).reshape(-1, 128)
        return np.clip(128 + 30 * regions, 0, 255).astype(np.uint8)

    return embedded_clips.embed_shards(lite_work, embed, "a" * 64, hear, say=lambda _: None)


def hear(embedding: np.ndarray) -> np.ndarray:
    """A last layer that tells some classes by one value each."""
    kernel = np.zeros((1024, 521), np.float32)
    kernel[np.arange(40), np.arange(40)] = 2.0
    return teacher.scores_of(embedding, (kernel, np.full(521, -3.0, np.float32)), np.arange(521))


def rescoring_config(**changes) -> rescoring.RescoringConfig:
    usual = rescoring.RescoringConfig()
    small = {"hidden": 24, "learning_rate": 3e-3}
    clips = replace(usual.clips, batch=16, epochs=changes.pop("epochs", 60), **small)
    frames = replace(usual.frames, batch=32, epochs=20, **small)
    return rescoring.RescoringConfig(**({"clips": clips, "frames": frames, "share": 1.0} | changes))


def test_all_clips_of_all_shards_are_embedded_once(lite_work, embedded):
    folders = [*shards.shard_folders(lite_work / "shards", "clean")]
    folders += shards.shard_folders(lite_work / "shards", "mixed")
    every = [shards.Shard(folder) for folder in folders]
    assert len(embedded) == sum(map(len, every))
    assert embedded.mixed.sum() == 2 * 32
    assert (embedded.target == np.concatenate([shard.target for shard in every])).all()
    lengths = np.concatenate([np.diff(shard.start) for shard in every])
    assert (embedded.n_frames == lengths).all()
    assert not embedded.x[np.arange(10) >= embedded.n_frames[:, None]].any()
    patches = [
        shard.embedding[begin + number]
        for shard in every
        for begin, end in itertools.pairwise(shard.start)
        for number in range(end - begin)
    ]
    expected = np.rint(255 * hear(decode_embedding(np.array(patches))))
    assert (embedded.heard == expected).all()
    # All windows are of one package; each clip of AudioSet stands alone.
    assert len(set(embedded.group.tolist())) == 1 + 10

    def never(log_mel):
        raise AssertionError("embedded again")

    again = embedded_clips.embed_shards(lite_work, never, "a" * 64, hear, say=lambda _: None)
    assert (again.x == embedded.x).all()


def test_a_part_of_the_clips_has_their_frames(embedded):
    chosen = np.arange(len(embedded)) % 3 == 1
    part = embedded.part(chosen)
    assert len(part) == chosen.sum() > 0
    begin = np.cumsum(embedded.n_frames) - embedded.n_frames
    own = [embedded.heard[begin[row] : begin[row] + embedded.n_frames[row]]
           for row in np.flatnonzero(chosen)]  # fmt: skip
    assert (part.heard == np.concatenate(own)).all()
    assert (part.x == embedded.x[chosen]).all()


def test_single_frames_say_what_the_teacher_says_of_them(embedded):
    mask = np.arange(10) < embedded.n_frames[:, None]
    even = np.full(len(embedded.heard), 1 / len(embedded.heard))
    config = rescoring_config().frames
    said: list[str] = []
    found = frame_scores.train_frames(
        embedded.x[mask], embedded.heard, even, config, seed=0, say=said.append
    )
    assert len(said) == 20
    logits = found.logits(embedded.x, embedded.n_frames)
    # Frame by frame, by another way: each as a clip of its own.
    alone = np.zeros((len(embedded.heard), 10, 128), np.uint8)
    alone[:, 0] = embedded.x[mask]
    single = 1 / (1 + np.exp(-found.logits(alone, np.ones(len(alone), int))))
    clip_of = np.repeat(np.arange(len(embedded)), embedded.n_frames)
    mean = np.array([single[clip_of == clip].mean(axis=0) for clip in range(len(embedded))])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), mean, atol=1e-4)
    truth = embedded.heard / 255
    constant = np.square(truth - truth.mean(axis=0)).mean()
    assert np.square(single - truth).mean() < 0.7 * constant


def test_a_rescorer_is_learnt_and_is_the_same_graph(embedded, tmp_path):
    logits = logits_of(load_scorer().score_calibrated(embedded.x, embedded.n_frames))
    features = rescoring.clip_features(embedded.x, embedded.n_frames, logits)
    config = rescoring_config()
    said: list[str] = []
    # In every frame the teacher hears what the clip's tag says.
    heard = np.repeat(embedded.target, embedded.n_frames, axis=0)
    trained = rescoring.train(replace(embedded, heard=heard), features, config, say=said.append)
    truth = embedded.target / 255
    found = trained.logits(features, embedded.x, embedded.n_frames)

    def loss(found: np.ndarray) -> float:
        return float((np.logaddexp(0, found) - truth * found).mean())

    assert loss(found) < 0.6 * loss(logits)
    assert len(said) == 20 + 60

    short = rescoring_config(epochs=2)
    one, two = (rescoring.train(embedded, features, short, say=said.append) for _ in range(2))
    np.testing.assert_allclose(one.clip.second, two.clip.second, atol=1e-5)
    np.testing.assert_allclose(one.frames.layers.first, two.frames.layers.first, atol=1e-5)
    # Where nothing learnt of clips counts, it is between the classifier and what frames say.
    none = rescoring_config(share=1e-9, epochs=1, prior=0)
    same = rescoring.train(embedded, features, none, say=said.append)
    between = (logits + same.frames.logits(embedded.x, embedded.n_frames)) / 2
    unchanged = same.logits(features, embedded.x, embedded.n_frames)
    np.testing.assert_allclose(unchanged, between, atol=1e-5)

    path = write_rescorer(trained.graph(), tmp_path / "mine.onnx", {})
    made = Rescorer(read_model(tmp_path, "mine", remedy=""))
    assert path == tmp_path / "mine.onnx"
    scores = made.rescore(1 / (1 + np.exp(-logits)), embedded.x, embedded.n_frames)
    # Weights are stored as float16.
    expected = 1 / (1 + np.exp(-found))
    np.testing.assert_allclose(scores, expected, atol=0.01)


def test_what_is_unsure_is_less_of_what_is_frequent(embedded):
    logits = logits_of(load_scorer().score_calibrated(embedded.x, embedded.n_frames))
    features = rescoring.clip_features(embedded.x, embedded.n_frames, logits)
    target = embedded.target.copy()
    target[:, 3], target[:, 7] = 200, 0  # a class that is everywhere, one that is nowhere
    clips = replace(embedded, target=target)
    plain, taken = (
        rescoring.train(
            clips, features, rescoring_config(epochs=2, prior=prior), say=lambda _: None
        )
        for prior in (0, 0.8)
    )
    before, after = (
        found.logits(features, embedded.x, embedded.n_frames) for found in (plain, taken)
    )
    assert (after[:, 3] < before[:, 3]).all()
    assert (after[:, 7] > before[:, 7]).all()
    one, two = (1 / (1 + np.exp(-found)) for found in (before, after))
    assert two.sum() == pytest.approx(one.sum(), rel=0.01), "as high as before on the whole"
    # The clips keep their order by each class.
    for number in (3, 7, 100):
        order = np.argsort(before[:, number], kind="stable")
        assert (np.diff(after[order, number]) >= -1e-5).all()
    # A score that is sure stays.
    sure = features.copy()
    sure[:, 3] += 40
    one, two = (found.logits(sure, embedded.x, embedded.n_frames)[:, 3] for found in (plain, taken))
    assert (one - two).max() < 0.01 < (before - after)[:, 3].min()


def test_a_step_that_would_turn_an_order_around_is_refused():
    logits = np.zeros((4, 3), np.float32)
    rescoring.balanced_prior(logits, np.array([-1.0, -2.0, -3.0]))
    with pytest.raises(DataError, match="smaller"):
        rescoring.balanced_prior(logits, np.array([0.0, 0.0, -9.0]))


def test_the_manifest_says_what_a_rescorer_was_fitted_to(embedded, tmp_path):
    said: list[str] = []
    config = rescoring_config(epochs=2, validation=0.5)
    path = rescoring.fit_lite(
        embedded, load_scorer(), "b" * 64, tmp_path / "rescorer-lite.onnx", config, say=said.append
    )
    manifest = read_model(tmp_path, path.stem, remedy="").manifest
    assert manifest["classifier_identity"] == classifier_identity(bundled_model("classifier"))
    assert (manifest["embedder"], manifest["embedder_sha256"]) == ("lite", "b" * 64)
    held_out = embedded.held_out(0.5)
    assert manifest["train_clips"] == (~held_out).sum() < len(embedded)
    assert manifest["config"]["validation"] == 0.5
    assert any("rescored" in line for line in said)
    groups = embedded.group
    assert not set(groups[held_out].tolist()) & set(groups[~held_out].tolist())


@pytest.mark.parametrize(
    "changes",
    [
        {"share": 0},
        {"share": 1.5},
        {"validation": 1},
        {"mixed": 0},
        {"prior": -0.1},
        {"prior": 1.1},
    ],
)
def test_settings_of_a_rescorer_that_make_no_sense_are_refused(changes):
    with pytest.raises(InvalidArgumentError):
        rescoring.RescoringConfig(**changes)


@pytest.mark.parametrize("changes", [{"hidden": 0}, {"epochs": 0}, {"batch": 0}, {"noise": -0.1}])
def test_settings_of_a_fit_that_make_no_sense_are_refused(changes):
    with pytest.raises(InvalidArgumentError):
        replace(rescoring.RescoringConfig().clips, **changes)


def test_the_probe_never_sees_the_fold_it_judges():
    random = np.random.default_rng(0)
    known = [
        measures.Known(Path("x"), (0,), f"class {number % 4}", 1 + number % 5)
        for number in range(100)
    ]
    noise = random.normal(0, 1, (100, 128)).astype(np.float32)
    accuracy, _ = measures.probe(noise, known)
    assert accuracy < 0.5
    told = noise.copy()
    told[np.arange(100), np.arange(100) % 4] += 20
    accuracy, by_class = measures.probe(told, known)
    assert accuracy > 0.8
    assert set(by_class) == {f"class {number}" for number in range(4)}


def test_intervals_hold_the_share():
    low, high = measures.wilson(8, 10)
    # Wilson's interval of 8 of 10, as statistics texts give it.
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    hits = [True] * 30 + [False] * 10
    low, high = measures.interval(hits, hits)
    assert low == high == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 0},
        {"noise": -0.1},
        {"dropout": 1.0},
        {"input_dropout": -0.1},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_a_fit_that_cannot_be_is_refused(changes):
    with pytest.raises(InvalidArgumentError, match=next(iter(changes))):
        replace(rescoring.RescoringConfig().clips, **changes)
