"""The step that measures bar (b): guide and stages once for each fold of pairs that is held out."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from conftest import REPOSITORY

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from lite_fixtures import StubTeacher

from tools.lite import commands
from tools.lite.__main__ import main


def test_each_fold_has_a_guide_and_a_student_of_its_own(
    lite_stages, lite_material, tmp_path, monkeypatch
):
    monkeypatch.setattr(commands, "FOLDS", 2)
    monkeypatch.setattr(commands, "_material", lambda _: lite_material)
    monkeypatch.setattr(commands, "_teacher", lambda *_: StubTeacher())
    weights = "--pairs 3 --guide-pairs 10 --guidance 2 --pairs-a-step 2 --patches 64"
    epochs = "--epochs 1 --guide-epochs 1 --optimizer muon --learning-rate 0.01"
    files = ["--audioset-clips", "clips.npz", "--released", "released.h5", "--yamnet", "yamnet"]
    stages = [str(lite_stages), str(lite_stages / "one"), str(tmp_path)]
    assert main(["folds", *stages, *weights.split(), *epochs.split(), *files]) == 0

    def config(fold: int, stage: str) -> dict:
        return json.loads((tmp_path / f"fold-{fold}" / stage / "config.json").read_text("utf-8"))

    for fold in range(2):
        guide, student = config(fold, "guide"), config(fold, "adapt")
        assert guide["held_out"] == student["held_out"] == fold
        assert (guide["pairs"], student["pairs"]) == (10, 3)
        assert (guide["optimizer"], student["optimizer"]) == ("adam", "muon")
        assert (guide["guide"], student["guidance"]) == (None, 2)
    assert config(0, "adapt")["guide"] != config(1, "adapt")["guide"]
    patches = np.random.default_rng(0).normal(-1, 2, (3, 96, 64)).astype(np.float32)
    answers = [
        onnxruntime.InferenceSession(tmp_path / f"fold-{fold}.onnx").run(None, {"log_mel": patches})
        for fold in range(2)
    ]
    assert answers[0][0].shape == (3, 128)
    assert (answers[0][0] != answers[1][0]).any()
