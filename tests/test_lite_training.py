"""Stages of the bundled embedder's training: distillation, adaptation, tuning, guide."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import REPOSITORY

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from lite_fixtures import STUDENT, StubTeacher, adaptation_config, arrays, distilled, tone, weights

from audiosearch.classifier.scorer import load_scorer
from audiosearch.errors import DataError, InvalidArgumentError
from tools.lite import (
    adaptation,
    distillation,
    guiding,
    shards,
    teacher,
)
from tools.lite.batching import BatchShape, PairPool, clip_batches, count_batches
from tools.lite.guide import Guide
from tools.lite.judging import Judge
from tools.lite.losses import class_weights
from tools.lite.network import (
    PARTS,
    build_adaptor,
    build_trunk,
)
from tools.lite.optimizer import build_optimizer
from tools.lite.run import load_parts
from tools.lite.variants import variants_of


def test_a_training_can_go_on_and_leave_out_the_first_shards(lite_stages, tmp_path):
    start = lite_stages / "one"
    rows = distilled(lite_stages, tmp_path / "more", epochs=1, apart=0, clean=0.0, first=1,
                     start=start, learning_rate=1e-6)  # fmt: skip
    assert len(rows) == 1
    assert [each.name for each in distillation.mixed_shards(lite_stages / "shards", 1)] == [
        "mixed-0001"
    ]
    before, after = weights(start), weights(tmp_path / "more")
    kernels = [name for name, values in before.items() if values.ndim == 4]
    # What it goes on from is what was there, not first weights.
    assert all(np.allclose(before[name], after[name], atol=1e-3) for name in kernels)
    with pytest.raises(InvalidArgumentError, match="number 9"):
        distilled(lite_stages, tmp_path / "none", first=9)
    other = replace(STUDENT, depths=(1, 0, 1, 2))
    with pytest.raises(InvalidArgumentError, match=r"another shape.*--depths=1,0,1,1"):
        distilled(lite_stages, tmp_path / "other", start=start, student=other)
    # What was refused leaves nothing behind that the next call would stumble over.
    assert len(distilled(lite_stages, tmp_path / "other", start=start, epochs=1)) == 1
    # A folder goes on with what it was begun with.
    with pytest.raises(InvalidArgumentError, match="another start"):
        distilled(lite_stages, tmp_path / "other", epochs=1)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_an_epoch_has_each_mixed_patch_and_its_share_of_clean_ones(share, lite_work):
    mixed, clean = (shards.shard_folders(lite_work / "shards", kind) for kind in ("mixed", "clean"))
    config = distillation.DistillationConfig(student=STUDENT, clean=share)
    order = distillation.PatchOrder(2, mixed, clean, config)
    found = np.concatenate(list(order.batches(1)))
    assert len(found) == len(order)
    of_shard = shards.decode_log_mel(np.asarray(shards.Shard(mixed[1]).log_mel))
    others = len(found) - len(of_shard)
    assert others == pytest.approx(share * len(found), abs=1)
    known, given = ({patch.tobytes() for patch in patches} for patches in (of_shard, found))
    assert known <= given
    assert not np.array_equal(found[: len(of_shard)], of_shard)
    assert np.array_equal(found, np.concatenate(list(order.batches(1))))


@pytest.mark.parametrize(
    ("changes", "named"), [({"batch": 5000}, "--batch"), ({"clean": 0.99}, "--clean")]
)
def test_a_step_or_share_that_shards_cannot_fill_is_refused(changes, named, lite_work, tmp_path):
    with pytest.raises(InvalidArgumentError, match=named):
        distilled(lite_work, tmp_path / "none", **changes)
    assert not (tmp_path / "none").exists()


def test_the_first_epochs_have_the_parts_side_by_side(lite_work, tmp_path, monkeypatch):
    as_tensors = distillation.as_tensors
    shares: list[float] = []

    def recorded(log_mel, maps, *, apart):
        given, wanted = as_tensors(log_mel, maps, apart=apart)
        shares.append(float(given["share"].mean()))
        return given, wanted

    ends = [0]
    monkeypatch.setattr(distillation, "as_tensors", recorded)
    distilled(lite_work, tmp_path, apart=2, say=lambda _: ends.append(len(shares)))
    epochs = [set(shares[1:][a:b]) for a, b in pairwise(end - 1 if end else 0 for end in ends)]
    assert epochs == [{1.0}, {1.0}, {0.0}]


def test_side_by_side_a_part_is_given_the_teachers_map(lite_work):
    patches = shards.decode_log_mel(
        np.asarray(shards.Shard(lite_work / "shards" / "mixed-0000").log_mel[:8])
    )
    maps = StubTeacher().maps(patches)
    parts = {"trunk": build_trunk(STUDENT)}
    trainer = distillation._trainer_class()(
        parts["trunk"], [1.0] * 3, (np.zeros(1024, np.float32), np.ones(1024, np.float32)),
        (StubTeacher.kernel, StubTeacher.bias), distillation.DistillationConfig(student=STUDENT),
    )  # fmt: skip

    def answers(*, apart: bool) -> dict[str, np.ndarray]:
        inputs, _ = distillation.as_tensors(patches, maps, apart=apart)
        return {part: arrays(values) for part, values in trainer(inputs).items()}

    def alone(part: str, given: np.ndarray) -> np.ndarray:
        return arrays(parts["trunk"].get_layer(part)(given))

    side, joint = answers(apart=True), answers(apart=False)
    for part, given in zip(PARTS[1:], maps[:-1], strict=True):
        assert np.allclose(side[part], alone(part, given), atol=1e-5)
        before = joint[PARTS[PARTS.index(part) - 1]]
        assert np.allclose(joint[part], alone(part, before), atol=1e-5)
        assert not np.allclose(side[part], joint[part], atol=1e-2)
    whole = arrays(parts["trunk"](patches))
    assert np.allclose(whole, joint["far"].mean(axis=(1, 2)), atol=1e-5)


@pytest.fixture(scope="module")
def guide(lite_work, lite_material) -> Guide:
    config = adaptation_config(epochs=6, learning_rate=3e-3)
    rows = guiding.train_guide(
        lite_material, StubTeacher(), lite_work / "guide", config, say=lambda _: None
    )
    assert rows[-1]["pairs"] < rows[0]["pairs"]
    return Guide(lite_work / "guide")


def test_an_adaptor_that_is_led_is_the_guide_behind_the_guess(lite_stages, lite_material, guide):
    mixed = shards.Shard(lite_stages / "shards" / "mixed-0000")
    parts = {"trunk": build_trunk(STUDENT)}
    load_parts(lite_stages / "one", parts)
    guess = arrays(parts["trunk"](shards.decode_log_mel(np.asarray(mixed.log_mel[:50]))))
    released = lite_material.released
    adaptor = build_adaptor(STUDENT, mean=released.mean, deviation=released.deviation)
    guide.lead(adaptor)
    assert np.allclose(arrays(adaptor(guess)), arrays(guide.values(guess)), atol=1e-5)


def test_what_is_no_guide_for_a_student_is_refused(lite_stages, guide):
    with pytest.raises(DataError, match="no finished stage"):
        Guide(lite_stages / "none")
    with pytest.raises(DataError, match="without an adaptor"):
        Guide(lite_stages / "one")
    wider = build_adaptor(replace(STUDENT, hidden=(13,)), mean=[0.0] * 128, deviation=[1.0] * 128)
    with pytest.raises(InvalidArgumentError, match="--hidden"):
        guide.lead(wider)


def test_a_student_follows_its_guide(lite_stages, lite_material, guide, tmp_path):
    led = replace(lite_material, guide=guide)
    config = adaptation_config(
        epochs=8, learning_rate=5e-3, clean=0.0, first=1,
        guidance=3.0, agreement=0.0, pairs=0.0, moments=0.0,
    )  # fmt: skip
    rows = adaptation.adapt(led, lite_stages / "one", tmp_path / "led", config, say=lambda _: None)
    assert rows[-1]["guidance"] < 0.8 * rows[0]["guidance"]
    # What leads stays as it is.
    assert Guide(lite_stages / "guide").name == guide.name


def test_pushed_clips_are_what_the_last_layer_says_of_them(lite_work, lite_material):
    shard = shards.Shard(lite_work / "shards" / "clean-0000")
    inputs = teacher.decode_embedding(np.asarray(shard.embedding)).astype(np.float16)
    pool = PairPool([], [])
    random = np.random.default_rng(2)
    batch = next(iter(clip_batches(shard, inputs, pool, BatchShape(64, 16, 0), random)))
    before = batch.inputs.copy()
    kernel, bias = StubTeacher.kernel, StubTeacher.bias
    guiding.push(batch, (kernel, bias), StubTeacher.columns, random, share=1.0)
    moved = np.flatnonzero(batch.is_clip)
    for clip in moved:
        rows = batch.frames[clip][batch.mask[clip] > 0]
        scores = 1 / (1 + np.exp(-(batch.inputs[rows] @ kernel + bias)))
        assert np.allclose(batch.target[clip, :521], scores.mean(axis=0), atol=1e-5)
        assert not batch.is_patch[rows].any()
    assert not np.array_equal(batch.inputs, before)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 6
    unmoved = next(iter(clip_batches(shard, inputs, pool, BatchShape(64, 16, 0), random)))
    kept = unmoved.inputs.copy()
    guiding.push(unmoved, (kernel, bias), StubTeacher.columns, random, share=0.0)
    assert np.array_equal(unmoved.inputs, kept)


def test_agreement_can_count_rare_classes_more(lite_stages, lite_material, tmp_path):
    even = class_weights(lite_stages / "shards", adaptation_config())
    assert np.allclose(even, 1.0)
    weights = class_weights(lite_stages / "shards", adaptation_config(balance=0.5))
    share = shards.Shard(lite_stages / "shards" / "mixed-0000").target.mean(axis=0)
    assert weights.mean() == pytest.approx(1.0, abs=1e-4)
    assert weights[share.argmin()] > 2 * weights[share.argmax()]


def test_variants_of_a_pair_are_near_it_and_not_it():
    log_mel = shards.patches_of(tone(700, 3.0) + tone(1900, 3.0, 0.1))
    found = variants_of(log_mel, np.random.default_rng(0), 4)
    assert len(found) == 4
    assert np.array_equal(found[0], log_mel)
    for variant in found[1:]:
        assert variant.shape == log_mel.shape
        decibels = (variant - log_mel)[log_mel > 0] * 20 / np.log(10)
        assert 0.2 < np.abs(decibels).mean() < 6


def test_the_judge_is_the_classifier(tmp_path):
    import keras

    random = np.random.default_rng(0)
    x = random.integers(0, 256, (5, 10, 128), np.uint8)
    counts = np.array([10, 10, 3, 1, 10])
    mask = (np.arange(10) < counts[:, None]).astype(np.float32)
    frames = (x.astype(np.float32) - 128) / 128 * mask[:, :, None]
    scorer = load_scorer()
    for calibrated in (False, True):
        judge = Judge(calibrated=calibrated)
        logits = judge.logits(
            keras.ops.convert_to_tensor(frames), keras.ops.convert_to_tensor(mask)
        )
        found = 1 / (1 + np.exp(-np.asarray(keras.ops.convert_to_numpy(logits), np.float64)))
        raw = scorer.score(x, counts)
        assert found == pytest.approx(scorer.calibrated(raw) if calibrated else raw, abs=2e-5)


def test_every_patch_and_clip_of_a_shard_is_in_one_batch(lite_work, lite_material):
    shard = shards.Shard(shards.shard_folders(lite_work / "shards", "mixed")[0])
    pool = PairPool.of(lite_material.pairs, held_out=0)
    assert len(pool) == (lite_material.pairs.fold != 0).sum() < len(lite_material.pairs)
    shape = BatchShape(patches=40, clips=8, pairs=2)
    batches = clip_batches(shard, shard.log_mel, pool, shape, np.random.default_rng(0))
    seen = []
    for batch in batches:
        assert batch.inputs.shape == (60, 96, 64)
        clips = batch.is_clip.astype(bool)
        assert batch.mask[clips].sum() == batch.is_patch.sum()
        # A clip's frames are its own patches: what the teacher said of them tells.
        assert np.array_equal(np.unique(batch.frames[clips][batch.mask[clips] > 0]),
                              np.flatnonzero(batch.is_patch))  # fmt: skip
        seen.append(int(clips.sum()))
    assert count_batches(shard, shape, np.random.default_rng(0)) == len(seen)
    # All but those that a last batch did not fill.
    assert len(shard) - 8 <= sum(seen) <= len(shard)


def test_stages_learn_what_they_are_told(lite_stages):
    with (lite_stages / "one" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # The first and the fifth epoch read the same mixed shard. What the last part is given in them
    # is not the same: in the first, its parts are side by side.
    for name in PARTS[:2]:
        assert float(rows[4][name]) < 0.9 * float(rows[0][name])
    for name in (PARTS[2], "embedding_error"):
        assert float(rows[4][name]) < 0.97 * float(rows[2][name])
    for name in ("two", "three"):
        with (lite_stages / name / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        # Epochs see other mixes and are not compared one by one.
        agreement = [float(row["agreement"]) for row in rows]
        assert sum(agreement[3:]) < sum(agreement[:3])
        # The schedule ends with the last epoch, however large the shards are.
        peak = json.loads((lite_stages / name / "config.json").read_text())["learning_rate"]
        rates = [float(row["learning_rate"]) / peak for row in rows]
        assert rates[-1] == pytest.approx(0.01, abs=0.01)
        assert rates[-2] > 0.015


def test_pairs_alone_are_learnt(lite_material, tmp_path):
    config = adaptation_config(
        student=replace(STUDENT, hidden=(128,)), epochs=40, batch=BatchShape(64, 16, 8),
        learning_rate=1e-2, pairs=1.0, agreement=0.0, moments=0.0,
    )  # fmt: skip
    rows = guiding.train_guide(
        lite_material, StubTeacher(), tmp_path / "guide", config, say=lambda _: None
    )
    # Values that know nothing of the pairs have an error of about 1.
    assert rows[-1]["pairs"] < 0.85
    assert rows[0]["pairs"] > 0.9


def test_stage_2_leaves_the_trunk_and_stage_3_moves_it(lite_stages):
    one, two, three = (weights(lite_stages / name) for name in ("one", "two", "three"))
    trunk = [name for name in one if name.startswith("trunk/")]
    assert all(np.array_equal(one[name], two[name]) for name in trunk)
    assert any(not np.array_equal(two[name], three[name]) for name in trunk)


def test_muon_steps_are_orthogonal_and_the_last_layer_is_adams():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 4, 4, use_bias=False, name="tiles"),
            keras.layers.Conv2D(6, 2, use_bias=False, name="full"),
            keras.layers.Flatten(),
            keras.layers.Dense(24, use_bias=False, name="features"),
            keras.layers.Dense(5, name="standard_embedding"),
        ]
    )
    rate = 0.05
    model.compile(build_optimizer("muon", rate, 1, warmup=0, last=1.0), loss="mse")
    before = [np.array(value) for value in model.get_weights()]
    random = np.random.default_rng(0)
    batch = random.normal(size=(32, 8, 8, 3)), random.normal(size=(32, 5))
    model.train_on_batch(*batch)
    tiles, full, features, last, bias = (
        (old - new) / rate for old, new in zip(before, model.get_weights(), strict=True)
    )
    for step in (tiles.reshape(-1, 4), full.reshape(-1, 6), features):
        singular = np.linalg.svd(step / max(1, step.shape[1] / step.shape[0]) ** 0.5)[1]
        # Five iterations bring most to about 1, and very small ones nearer to it.
        assert 0.6 < np.median(singular) < 1.2
        assert singular.max() < 1.3
    for step in (last, bias):
        # Adam's first step is as long for each value, but for those whose gradient is next to none.
        assert np.median(np.abs(step)) == pytest.approx(0.1, rel=1e-2)
        assert np.abs(step).max() == pytest.approx(0.1, rel=1e-2)


def test_an_optimiser_that_is_not_there_is_refused():
    with pytest.raises(InvalidArgumentError, match="adam, muon"):
        distillation.DistillationConfig(optimizer="sgd")
    with pytest.raises(InvalidArgumentError, match="adam, muon"):
        adaptation_config(optimizer="sgd")
    with pytest.raises(InvalidArgumentError, match="apart must be from 0 to 2"):
        distillation.DistillationConfig(epochs=2, apart=3)
    with pytest.raises(InvalidArgumentError, match="last_rate must be from 0 to 1, not 5"):
        distillation.DistillationConfig(last_rate=5)
    for numbers in ({"warmup": 10}, {"warmup": -1}, {"warmup": 0, "last": 1.1}):
        with pytest.raises(InvalidArgumentError, match="less than steps"):
            build_optimizer("adam", 1e-3, 10, **numbers)


def test_a_stage_is_not_gone_on_with_under_other_settings(lite_stages):
    with pytest.raises(InvalidArgumentError, match="batch"):
        distilled(lite_stages, lite_stages / "one", batch=8)
