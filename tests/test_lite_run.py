"""A stage of the bundled embedder's training: stopped, gone on with, and stood on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from lite_fixtures import STUDENT, adaptation_config, distilled, weights

from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.storage import atomic_path
from tools.lite import adaptation, run
from tools.lite.batching import BatchShape
from tools.lite.optimizer import OPTIMIZERS


class Stop(Exception):
    """What ends a training in the middle."""


def test_a_stage_that_was_stopped_is_not_stood_on(lite_work, tmp_path):
    def stop(_: str) -> None:
        raise Stop

    with pytest.raises(Stop):
        distilled(lite_work, tmp_path / "one", say=stop)
    with pytest.raises(DataError, match="after epoch 1 of 3"):
        distilled(lite_work, tmp_path / "more", start=tmp_path / "one")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stopped_stage_goes_on_as_if_it_had_not_been_stopped(optimizer, lite_work, tmp_path):
    distilled(lite_work, tmp_path / "whole", optimizer=optimizer)

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Stop

    with pytest.raises(Stop):
        distilled(lite_work, tmp_path / "parts", optimizer=optimizer, say=stop)
    rows = distilled(lite_work, tmp_path / "parts", optimizer=optimizer)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("name", ["student.npz", "metrics.csv", "checkpoint.npz"])
def test_a_stage_stopped_in_its_last_save_is_finished_by_its_step(
    name, lite_work, tmp_path, monkeypatch
):
    distilled(lite_work, tmp_path / "whole")

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Stop

    with pytest.raises(Stop):
        distilled(lite_work, tmp_path / "parts", say=stop)

    def killed(path: Path):
        if path.name == name:
            raise Stop
        return atomic_path(path)

    with monkeypatch.context() as patch:
        patch.setattr(run, "atomic_path", killed)
        with pytest.raises(Stop):
            distilled(lite_work, tmp_path / "parts")
    distilled(lite_work, tmp_path / "parts")
    assert run.student_of(tmp_path / "parts") == STUDENT
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_stage_2_is_of_the_trunk_that_it_was_begun_on(lite_stages, lite_material, tmp_path):
    start, out, config = tmp_path / "one", tmp_path / "two", adaptation_config(epochs=1, first=1)
    shutil.copytree(lite_stages / "one", start, ignore=shutil.ignore_patterns("features"))
    adaptation.adapt(lite_material, start, out, config)
    kept = {path.name for path in (start / "features").iterdir()}
    # The trunk goes on: what was begun on it is no more of it, and its features are others.
    other = {name: value + np.float32(0.01) for name, value in weights(start).items()}
    np.savez(start / "student.npz", **other)
    with pytest.raises(InvalidArgumentError, match="another start"):
        adaptation.adapt(lite_material, start, out, config)
    adaptation.adapt(lite_material, start, tmp_path / "anew", config)
    now = {path.name for path in (start / "features").iterdir()}
    assert len(now) == len(kept), "those of the trunk before are gone"
    assert not now & kept


def test_shards_too_small_for_a_step_are_refused_beforehand(lite_stages, lite_material, tmp_path):
    config = adaptation_config(batch=BatchShape(100_000, 10_000, 2))
    with pytest.raises(InvalidArgumentError, match="epoch 1 has fewer patches than the 100000"):
        adaptation.adapt(lite_material, lite_stages / "one", tmp_path / "two", config)


def test_a_stage_without_weights_is_not_stood_on(lite_stages, tmp_path):
    shutil.copytree(lite_stages / "one", tmp_path / "one")
    (tmp_path / "one" / "student.npz").unlink()
    with pytest.raises(DataError, match=r"student\.npz"):
        distilled(lite_stages, tmp_path / "more", start=tmp_path / "one")
    assert not (tmp_path / "more").exists()
