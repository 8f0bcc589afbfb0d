"""Kernel ridge regression, the teacher of another kind."""

import h5py
import numpy as np
import pytest
from conftest import write_packed

from audiosearch.classifier import kernel
from audiosearch.classifier.evaluation import evaluate
from audiosearch.classifier.kernel import fit_kernel
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.label_index import LabelIndex
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import DataError, InvalidArgumentError, StorageError

CLIPS = 160


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of two kinds, with 1 to 10 frames, in which a class tells the kind."""
    path = write_packed(tmp_path_factory.mktemp("kernel") / "data.h5", clips=CLIPS)
    random = np.random.default_rng(7)
    with h5py.File(path, "r+") as file:
        x = random.integers(60, 200, (CLIPS, 10, 128), dtype=np.uint8)
        x[::2, :, :40] //= 2
        y = np.zeros((CLIPS, 527), bool)
        y[::2, 3] = y[1::2, 5] = True
        file["x"][:], file["y"][:] = x, y
        file["n_frames"][:] = random.integers(1, 11, CLIPS)
    return path


def by_definition(frames, truth, asked):
    """Predict clips in float64, without random features: by the Gaussian kernel of frames."""
    spread = np.concatenate(frames).std(axis=0)

    def gaussian(a, b):
        return np.exp(-np.square((a[:, None] - b) / spread).sum(axis=2) / 128).mean()

    def inner(these, those):
        return np.array([[gaussian(a, b) for b in those] for a in these])

    def statistics(clips):
        return [np.array([getattr(clip, name)(0) for clip in clips]) for name in STATISTICS]

    fitted = [
        (part.mean(0), part.std(0) / share)
        for part, share in zip(statistics(frames), (1, 0.5, 0.4, 0.4), strict=True)
    ]

    def values(clips):
        parts = zip(statistics(clips), fitted, strict=True)
        return np.concatenate([(part - mean) / scale for part, (mean, scale) in parts], axis=1)

    def squared(a, b):
        return np.square(a[:, None] - b).sum(axis=2)

    own = np.diag(inner(frames, frames))
    of_sets = own[:, None] + own - 2 * inner(frames, frames)
    of_values = squared(values(frames), values(frames))
    above = np.triu_indices(len(frames), 1)
    medians = np.median(of_sets[above]), np.median(of_values[above])

    def laplace(sets, vectors):
        return np.exp(
            -1.5 * np.sqrt(np.maximum(sets, 0) / medians[0] / 2 + vectors / medians[1] / 2)
        )

    weights = np.linalg.solve(laplace(of_sets, of_values) + 0.4 * np.eye(len(frames)), truth)
    there = np.array([gaussian(clip, clip) for clip in asked])
    sets = there[:, None] + own - 2 * inner(asked, frames)
    return laplace(sets, squared(values(asked), values(frames))) @ weights


STATISTICS = ("mean", "std", "max", "min")


def test_scores_are_those_of_the_definition(data, tmp_path, monkeypatch):
    # So many random features that their inner product is the Gaussian kernel they stand for.
    monkeypatch.setattr(kernel, "_FEATURES", 2**14)
    monkeypatch.setattr(kernel, "_COMPONENTS", CLIPS)  # all that the clips span
    fit = fit_kernel(data, tmp_path / "run")
    packed = PackedFile(data).read()
    frames = [
        (clip[:count] - 128.0) / 128 for clip, count in zip(packed.x, packed.n_frames, strict=True)
    ]
    training, held_out = LabelIndex.read(data).split(0.1, 0)
    assert (fit.train_clips, fit.validation_clips) == (len(training), len(held_out))
    expected = by_definition(
        [frames[row] for row in training],
        packed.y[training].astype(float),
        [frames[row] for row in held_out],
    )
    scores = load_scorer(str(fit.folder)).score(packed.x[held_out], packed.n_frames[held_out])
    np.testing.assert_allclose(scores, np.clip(expected, 0, 1), atol=0.02)
    assert fit.validation_mAP > 0.95


def test_a_fit_is_a_classifier_like_any_other(data, tmp_path):
    fit = fit_kernel(data, tmp_path / "run")
    assert evaluate(data, classifier=fit.folder).mAP > 0.95
    scorer = load_scorer(str(fit.folder))
    assert scorer.is_calibrated
    assert scorer.manifest["train_clips"] == fit.train_clips
    packed = PackedFile(data).read()
    padded = packed.x.copy()
    padded[np.arange(10) >= packed.n_frames[:, None]] = 7
    np.testing.assert_array_equal(
        scorer.score(padded, packed.n_frames), scorer.score(packed.x, packed.n_frames)
    )
    with pytest.raises(StorageError, match="exists already"):
        fit_kernel(data, fit.folder)


def test_what_cannot_be_fitted_is_refused_before_anything_is_written(data, tmp_path, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="ridge"):
        fit_kernel(data, tmp_path / "run", ridge=0)
    monkeypatch.setattr(kernel, "MOST_CLIPS", 100)
    with pytest.raises(DataError, match="at most 100 training clips, not 14"):
        fit_kernel(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
