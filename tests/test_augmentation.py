"""What a training step sees: mixing, soft targets, noise, teachers."""

import dataclasses

import numpy as np
import pytest

from audiosearch.classifier.augmentation import Augmentation
from audiosearch.classifier.scorer import load_scorer
from audiosearch.classifier.settings import TrainingConfig
from audiosearch.datasets.stream import ClipBatch
from audiosearch.labels import load_labels

CAR = load_labels().by_name("Car").index
PLAIN = TrainingConfig(mixup=0)


def augmented(config: TrainingConfig, *, clips: int = 64, step: int = 1, teachers=()):
    """Return (inputs, targets) of clips of which 4 are of class 20, the others cars; and x."""
    random = np.random.default_rng(8)
    x = random.integers(0, 256, (clips, 10, 128), dtype=np.uint8)
    y = np.zeros((clips, 527), bool)
    y[4:, CAR] = y[:4, 20] = True
    batch = ClipBatch(x, np.full(clips, 10), y, np.arange(clips))
    return *Augmentation(config, teachers=teachers).apply(batch, epoch=1, step=step), x


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


def test_a_spliced_clip_takes_each_frame_whole_from_one_of_two():
    config = dataclasses.replace(PLAIN, mixup=1.0, splice=1.0)
    (frames, _), targets, x = augmented(config)
    originals = (x.astype(np.float32) - 128) / 128
    mixed = np.flatnonzero((targets[:, 20] > 0.05) & (targets[:, 20] < 0.95))
    assert len(mixed) > 2
    for row in mixed:
        own = [(frames[row] == clip).all(axis=1) for clip in originals]
        assert np.any(own, axis=0).all()
        of_the_four = np.any(own[:4], axis=0)
        assert targets[row, 20] == pytest.approx(of_the_four.mean())


def test_targets_are_a_teachers_scores_of_the_mixed_clips():
    scorer = load_scorer()
    config = dataclasses.replace(PLAIN, mixup=0.5, distillation=0.75, noise=0.1)
    _, labels, _ = augmented(config)
    (frames, mask), _, _ = augmented(dataclasses.replace(config, noise=0.0))
    _, targets, _ = augmented(config, teachers=[scorer])
    # Asked before noise is added: what it says of the clip is what the network has to say too.
    np.testing.assert_allclose(
        targets, 0.25 * labels + 0.75 * scorer.score_inputs(frames, mask), atol=1e-6
    )


def test_each_step_asks_one_of_the_teachers():
    class Constant:
        def __init__(self, value):
            self.value = value

        def score_inputs(self, frames, mask):
            return np.full((len(frames), 527), self.value, np.float32)

    config = dataclasses.replace(PLAIN, distillation=1.0)
    asked = [
        augmented(config, step=step, teachers=[Constant(0.25), Constant(0.75)])[1]
        for step in range(40)
    ]
    assert all(np.unique(targets).tolist() in ([0.25], [0.75]) for targets in asked)
    assert 0.35 < np.mean(asked) < 0.65
