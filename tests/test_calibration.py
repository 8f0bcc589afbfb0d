"""Calibration: scores that become frequencies, without another order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from audiosearch import metrics
from audiosearch.classifier.calibration import (
    METHODS,
    Calibration,
    calibrate_run,
    fit_calibration,
)
from audiosearch.classifier.scorer import load_scorer
from audiosearch.errors import InvalidArgumentError, ModelError
from audiosearch.storage import resource_path

SLOPES = np.linspace(0.7, 2.0, 8)
OFFSETS = np.linspace(-1.5, 1.0, 8)


def drawn(clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, and a truth that is as frequent as a line of each class's own says."""
    random = np.random.default_rng(seed)
    logits = random.normal(-4, 2, (clips, 8))
    truth = random.random((clips, 8)) < expit(SLOPES * logits + OFFSETS)
    return expit(logits).astype(np.float32), truth


def test_platt_finds_the_lines_that_the_truth_was_drawn_from():
    scores, truth = drawn(60_000, 0)
    found = fit_calibration(scores, truth)
    np.testing.assert_allclose(found.a, SLOPES, atol=0.15)
    # Compared where scores lie: slope and offset make up for each other elsewhere.
    at = np.full((1, 8), expit(-3))
    wanted = expit(SLOPES * logit(at) + OFFSETS)
    np.testing.assert_allclose(found.apply(at), wanted, rtol=0.25)


def test_without_the_pull_it_is_the_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    scores, truth = drawn(1500, 1)
    found = fit_calibration(scores, truth, strength=(1e-9, 1e-9))
    for index in range(8):
        column = logit(scores[:, index].astype(float))[:, None]
        wanted = LogisticRegression(C=1e9, tol=1e-10).fit(column, truth[:, index])
        assert found.a[index] == pytest.approx(wanted.coef_[0, 0], abs=2e-3)
        assert found.b[index] == pytest.approx(wanted.intercept_[0], abs=2e-3)


def test_temperature_and_pooled_have_one_line_for_all_classes():
    scores, truth = drawn(5000, 2)
    temperature = fit_calibration(scores, truth, method="temperature")
    assert set(temperature.b) == {0.0}
    assert len(set(temperature.a)) == 1
    pooled = fit_calibration(scores, truth, method="pooled")
    assert len(set(pooled.a)) == len(set(pooled.b)) == 1
    # No other factor explains the truth better.
    loss = metrics.log_loss(truth, temperature.apply(scores)).mean()
    for factor in (0.97, 1.03):
        other = expit(temperature.a[0] * factor * logit(scores.astype(float)))
        assert metrics.log_loss(truth, other).mean() > loss


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_scores_are_nearer_to_frequencies_on_other_clips(method):
    fitted = fit_calibration(*drawn(4000, 3), method=method)
    scores, truth = drawn(20_000, 4)
    calibrated = fitted.apply(scores)
    assert calibrated.shape == scores.shape
    raw_error = metrics.expected_calibration_error(truth, scores).mean()
    error = metrics.expected_calibration_error(truth, calibrated).mean()
    assert error < (0.35 if method == "platt" else 0.97) * raw_error
    assert metrics.log_loss(truth, calibrated).mean() < metrics.log_loss(truth, scores).mean()


@pytest.mark.parametrize("method", METHODS)
def test_the_order_within_a_class_never_changes(method):
    scores, truth = drawn(400, 5)
    scores[:3, 0] = [0.0, 1.0, np.nextafter(np.float32(1), np.float32(0))]
    calibrated = fit_calibration(scores, truth, method=method).apply(scores)
    for index in range(8):
        order = np.argsort(scores[:, index], kind="stable")
        steps = np.diff(scores[order, index])
        assert ((np.diff(calibrated[order, index]) > 0) == (steps > 0)).all()
    assert calibrated[0, 0] == 0
    assert calibrated[1, 0] == 1
    np.testing.assert_array_equal(
        metrics.average_precision(truth, calibrated), metrics.average_precision(truth, scores)
    )


def test_a_class_of_few_positives_stays_near_the_others():
    """Three positives on top of a class fit a step; drawn to the others they give a line."""
    scores, truth = drawn(3000, 6)
    truth[:, 0] = False
    truth[np.argsort(scores[:, 0])[-3:], 0] = True
    truth[:, 1] = False
    found = fit_calibration(scores, truth)
    pooled = fit_calibration(scores, truth, method="pooled")
    free = fit_calibration(scores, truth, strength=(1e-9, 1e-9))
    assert free.a[0] > 20
    assert found.a[0] < 5 * pooled.a[0]
    assert np.isfinite([found.a, found.b]).all()
    assert min(found.a) > 0
    # A class that never occurs is moved down, by no more than the pull allows.
    assert 0 < found.apply(scores)[:, 1].mean() < pooled.apply(scores)[:, 1].mean()


def test_a_class_that_scores_backwards_keeps_a_slope_above_zero():
    scores, truth = drawn(2000, 7)
    truth[:, 2] = scores[:, 2] < np.quantile(scores[:, 2], 0.3)
    found = fit_calibration(scores, truth, strength=(1e-3, 1e-3))
    assert 0 < found.a[2] < 0.2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.full((4, 2), 1.5)}, "0 to 1"),
        ({"scores": np.full((4, 2), np.nan)}, "finite"),
        ({"scores": np.zeros((4, 3))}, "shape"),
        ({"truth": np.zeros((4, 2))}, "true and false"),
        ({"truth": np.ones((4, 2))}, "true and false"),
        ({"method": "isotonic"}, "temperature"),
        ({"strength": (0.0, 1.0)}, "strength"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, words):
    arguments = {"scores": np.full((4, 2), 0.5), "truth": np.eye(4, 2)} | change
    with pytest.raises(InvalidArgumentError, match=words):
        fit_calibration(**arguments)


def test_scores_of_other_classes_or_out_of_range_are_refused():
    found = Calibration("platt", (1.0, 2.0), (0.0, 0.5), "two clips")
    np.testing.assert_allclose(found.apply([0.5, 0.5]), [0.5, expit(0.5)])
    for scores in (np.full((3, 4), 0.5), np.float64(0.5), [[0.5, 1.2]], [[np.nan, 0.5]]):
        with pytest.raises(InvalidArgumentError):
            found.apply(scores)
    for a, b in (((0.0,), (1.0,)), ((1.0,), (np.inf,)), ((1.0, 1.0), (0.0,)), ((), ())):
        with pytest.raises(InvalidArgumentError):
            Calibration("platt", a, b, "")


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    """A copy of the bundled classifier, without a calibration."""
    for suffix in ("onnx", "json"):
        shutil.copy(resource_path("audiosearch.data", f"classifier.{suffix}"), tmp_path)
    path = tmp_path / "classifier.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest.pop("calibration", None)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return tmp_path


@pytest.fixture
def judged() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(8)
    scores = expit(random.normal(-4, 2, (300, 527))).astype(np.float32)
    return scores, random.random(scores.shape) < scores / 2


def test_a_manifest_without_calibration_loads_and_changes_nothing(bundled, judged):
    scorer = load_scorer(str(bundled))
    assert not scorer.is_calibrated
    scores, _ = judged
    np.testing.assert_array_equal(scorer.calibrated(scores), scores)


def test_a_run_is_calibrated_in_its_manifest(bundled, judged):
    before = load_scorer(str(bundled))
    scores, truth = judged
    found = calibrate_run(bundled, scores, truth, fitted_on="300 drawn clips")
    manifest = json.loads((bundled / "classifier.json").read_text(encoding="utf-8"))
    assert set(manifest["calibration"]) == {"method", "a", "b", "fitted_on"}
    assert manifest["calibration"]["fitted_on"] == "300 drawn clips"
    assert len(manifest["calibration"]["a"]) == len(manifest["calibration"]["b"]) == 527
    assert {key: manifest[key] for key in before.manifest} == dict(before.manifest)
    # The same process sees it at once.
    after = load_scorer(str(bundled))
    assert after.is_calibrated
    np.testing.assert_allclose(after.calibrated(scores), found.apply(scores), atol=1e-5)
    x = np.random.default_rng(9).integers(0, 256, (5, 10, 128), dtype=np.uint8)
    np.testing.assert_array_equal(after.score(x), before.score(x))


@pytest.mark.parametrize(
    "value",
    [
        {"method": "platt", "a": [1.0] * 3, "b": [0.0] * 3, "fitted_on": ""},
        {"method": "platt", "a": [0.0] * 527, "b": [0.0] * 527, "fitted_on": ""},
        {"method": "platt", "a": ["x"] * 527, "b": [0.0] * 527, "fitted_on": ""},
        {"method": "platt", "a": [1.0] * 527},
        [1, 2],
    ],
)
def test_a_broken_calibration_is_refused_with_the_files_name(bundled, value):
    path = bundled / "classifier.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"calibration": value}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match=str(path)):
        load_scorer(str(bundled))


def test_calibrating_what_is_no_classifier_is_refused(bundled, judged, tmp_path):
    scores, truth = judged
    with pytest.raises(ModelError, match="manifest"):
        calibrate_run(tmp_path / "nothing", scores, truth)
    with pytest.raises(ModelError, match="527 classes"):
        calibrate_run(bundled, scores[:, :5], truth[:, :5])
    assert "calibration" not in (bundled / "classifier.json").read_text(encoding="utf-8")
