"""Evaluation of a classifier on a packed file: figures, intervals, calibration, plots."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_packed

from audiosearch.classifier.calibration import calibrate_run
from audiosearch.classifier.evaluation import Evaluation, evaluate
from audiosearch.classifier.scorer import load_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import InvalidArgumentError, MissingDependencyError
from audiosearch.storage import resource_path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random clips, half of whose labels are what the bundled classifier finds in them."""
    path = write_packed(tmp_path_factory.mktemp("evaluation") / "data.h5", clips=150)
    with PackedFile(path) as file:
        clips = file.read()
    scores = load_scorer().score(clips.x, clips.n_frames)
    high = scores > np.quantile(scores, 0.97, axis=0)
    keep = np.random.default_rng(3).random(high.shape) < 0.5
    y = clips.y ^ (high & keep)
    y[:, 500:] = False
    with h5py.File(path, "r+") as file:
        file["y"][:] = y
    return path


@pytest.fixture(scope="module")
def judged(data: Path) -> tuple[np.ndarray, np.ndarray]:
    with PackedFile(data) as file:
        clips = file.read()
    return clips.y, load_scorer().score(clips.x, clips.n_frames)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, judged: tuple[np.ndarray, np.ndarray]) -> Path:
    """The bundled classifier as a run of its own, calibrated, with training counts."""
    folder = tmp_path_factory.mktemp("run")
    for suffix in ("onnx", "json"):
        shutil.copy(resource_path("audiosearch.data", f"classifier.{suffix}"), folder)
    path = folder / "classifier.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["train_positives"] = list(range(1, 528))
    path.write_text(json.dumps(manifest), encoding="utf-8")
    truth, scores = judged
    calibrate_run(folder, scores, truth)
    return folder


@pytest.fixture(scope="module")
def result(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    plots = tmp_path_factory.mktemp("plots")
    return evaluate(data, classifier=run, intervals=30, plots=plots)


def test_the_figures_are_those_of_scikit_learn(result, judged):
    from sklearn.metrics import (
        average_precision_score,
        label_ranking_average_precision_score,
        roc_auc_score,
    )

    truth, scores = judged
    there = np.flatnonzero(truth.any(axis=0))
    precision = [average_precision_score(truth[:, k], scores[:, k]) for k in there]
    area = [roc_auc_score(truth[:, k], scores[:, k]) for k in there]
    assert result.mAP == pytest.approx(np.mean(precision))
    assert abs(result.AUC - np.mean(area)) < 1e-9
    weights = truth.sum(axis=1)
    wanted = label_ranking_average_precision_score(truth, scores, sample_weight=weights)
    assert result.lwlrap == pytest.approx(wanted)
    assert (result.clips, result.classes) == (150, len(there))
    assert result.left_out == 527 - len(there) >= 27
    first = result.per_class[there[0]]
    assert first.clips == truth[:, there[0]].sum()
    assert (first.average_precision, first.auc) == pytest.approx((precision[0], area[0]))


def test_the_table_has_every_class_and_leaves_blank_what_has_no_value(result, tmp_path):
    result.write_per_class(tmp_path / "classes.csv")
    with (tmp_path / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "index",
        "mid",
        "label",
        "clips",
        "average_precision",
        "auc",
        "d_prime",
        "lwlrap",
    ]
    assert len(rows) == 527
    for row in rows:
        blank = [row[name] == "" for name in ("average_precision", "auc", "d_prime", "lwlrap")]
        assert blank == [row["clips"] == "0"] * 4
    values = [float(row["lwlrap"]) * int(row["clips"]) for row in rows if row["clips"] != "0"]
    positives = sum(int(row["clips"]) for row in rows)
    assert sum(values) / positives == pytest.approx(result.lwlrap, abs=1e-5)


def test_calibration_is_measured_before_and_after(result, judged, data):
    truth, scores = judged
    assert result.raw.Brier == pytest.approx(np.square(scores - truth).mean())
    # Fitted to these very clips, so it must help.
    assert result.calibrated.Brier < result.raw.Brier
    assert result.calibrated.ECE < 0.7 * result.raw.ECE
    assert result.calibrated.class_ECE < result.raw.class_ECE
    facts = result.to_dict()
    assert facts["ECE"] == {"raw": result.raw.ECE, "calibrated": result.calibrated.ECE}


def test_the_summary_is_strict_json_also_where_nothing_can_be_measured(result, tmp_path):
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["resamples"] == 30
    path = write_packed(tmp_path / "silent.h5", clips=5)
    with h5py.File(path, "r+") as file:
        file["y"][:] = False
    silent = evaluate(path, intervals=3, plots=tmp_path / "plots")
    facts = json.loads(json.dumps(silent.to_dict(), allow_nan=False))
    assert facts["mAP"] is facts["AUC"] is facts["lwlrap"] is None
    assert facts["intervals"]["mAP"] == [None, None]
    assert (facts["classes"], facts["classes_left_out"]) == (0, 527)
    assert [path.name for path in silent.plots] == ["reliability.png"]


def test_intervals_hold_the_figures_and_are_only_made_when_asked_for(result, data):
    assert result.intervals is not None
    for name, (low, high) in result.intervals.items():
        assert low < getattr(result, name) < high
    plain = evaluate(data)
    assert plain.intervals is None
    assert plain.plots == []
    for wrong in (1, -5):
        with pytest.raises(InvalidArgumentError, match="intervals"):
            evaluate(data, intervals=wrong)


def test_plots_are_pictures(result, data, tmp_path):
    from PIL import Image

    names = ["precision_recall.png", "reliability.png", "train_counts.png"]
    assert [path.name for path in result.plots] == names
    for path in result.plots:
        with Image.open(path) as image:
            assert min(image.size) > 400
            # Lines were drawn: more than the white of an empty page.
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
    # The bundled manifest may not know the training counts; then their plot is left out.
    twice = evaluate(data, plots=tmp_path)
    assert {path.name for path in twice.plots} >= set(names[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == [p.name for p in twice.plots]


def test_without_matplotlib_plots_are_refused_before_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("audiosearch.classifier.evaluation._score_all", None)
    with pytest.raises(MissingDependencyError, match=r"audiosearch\[lab\]"):
        evaluate(data, plots=tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


@pytest.mark.data
def test_intervals_on_audiosets_evaluation_half(data_dir):
    result = evaluate(data_dir / "audioset" / "eval.h5", intervals=50)
    assert result.intervals is not None
    low, high = result.intervals["mAP"]
    assert low < result.mAP < high
    assert 0.005 < high - low < 0.03
    assert (result.classes, result.left_out) == (527, 0)
