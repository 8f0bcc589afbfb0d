"""The bundled embedder's network: its shape, its file, and the way back from it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from device_fixtures import need, python
from lite_fixtures import STUDENT, adaptation_config, arrays

from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.models import bundled_model
from tools.lite import (
    adaptation,
    export,
    measures,
    shards,
)
from tools.lite.commands import export_run
from tools.lite.export import export_student
from tools.lite.network import (
    StudentConfig,
    build_adaptor,
    build_trunk,
    config_from_dict,
    layers_of,
)
from tools.lite.restoring import restore, restore_parts
from tools.lite.run import load_parts


def trained(config: StudentConfig, patches: np.ndarray, random: np.random.Generator):
    """A trunk and an adaptor after some steps, so that normalisation is not the identity."""
    trunk = build_trunk(config)
    adaptor = build_adaptor(config, mean=random.normal(0, 0.1, 128), deviation=np.full(128, 0.2))
    for model, inputs in ((trunk, patches), (adaptor, random.uniform(0, 1, (len(patches), 1024)))):
        model.compile("adam", "mse")
        for _ in range(3):
            wanted = random.normal(0, 1, (len(patches), model.output_shape[-1]))
            model.train_on_batch(inputs, wanted)
    return trunk, adaptor


@pytest.mark.parametrize("inner", [(0, 0, 0, 0), (2, 0, 3, 4)])
@pytest.mark.parametrize("hidden", [(), (12, 8)])
def test_the_exported_network_equals_kerass(inner, hidden, tmp_path, monkeypatch):
    import keras
    import onnxruntime

    monkeypatch.setattr(export, "_HALF_FROM", 8)
    monkeypatch.setattr(export, "_BYTES_FROM", 16)

    keras.utils.set_random_seed(1)
    config = replace(STUDENT, depths=(1, 2, 1, 0), inner=inner, hidden=hidden)
    random = np.random.default_rng(0)
    patches = random.normal(-1, 2, (24, 96, 64)).astype(np.float32)
    trunk, adaptor = trained(config, patches, random)
    guess = np.asarray(trunk.predict(patches, verbose=0))
    expected = np.clip(np.asarray(adaptor.predict(guess, verbose=0)), -1, 1)
    assert np.abs(expected).max() > 0.1
    for small, most in ((False, 2e-5), (True, 0.03)):
        path = export_student(trunk, adaptor, config, tmp_path / "lite.onnx", small=small)
        (found,) = onnxruntime.InferenceSession(path).run(None, {"log_mel": patches})
        assert np.abs(found - expected).max() < most
    stored = {each.name: each.data_type for each in onnx.load(path).graph.initializer}
    int8 = {name for name, kind in stored.items() if kind == onnx.TensorProto.INT8}
    assert {"tiles_kernel_bytes", "map_4_kernel_bytes", "values_kernel_bytes"} <= int8
    manifest = json.loads((tmp_path / "lite.json").read_text(encoding="utf-8"))
    assert manifest["space"] == "audioset-vggish"


def test_large_kernels_are_stored_as_bytes(tmp_path):
    config = replace(STUDENT, hidden=(64,))
    random = np.random.default_rng(0)
    patches = random.normal(-1, 2, (8, 96, 64)).astype(np.float32)
    sizes = {}
    for small in (False, True):
        path = export_student(
            *trained(config, patches, random), config, tmp_path / "a.onnx", small=small
        )
        sizes[small] = path.stat().st_size
    # The adaptor's first layer, 1024 x 64, is half of the weights.
    assert sizes[True] < 0.4 * sizes[False]


@pytest.mark.parametrize("inner", [(0, 0, 0, 0), (2, 0, 3, 4)])
@pytest.mark.parametrize("hidden", [(12,), ()])
def test_an_exported_embedder_can_be_trained_on_from_its_weights(inner, hidden, tmp_path):
    config = replace(STUDENT, inner=inner, hidden=hidden)
    random = np.random.default_rng(3)
    mean = random.normal(0, 0.1, 128).astype(np.float32)
    deviation = random.uniform(0.2, 0.4, 128).astype(np.float32)
    trunk, adaptor = build_trunk(config), build_adaptor(config, mean=mean, deviation=deviation)
    for layer in [*layers_of(trunk).values(), *adaptor.layers]:
        if len(layer.get_weights()) == 4:  # normalisation as after some training
            shape = layer.get_weights()[0].shape
            layer.set_weights(
                [random.uniform(0.5, 2, shape), random.normal(0, 0.5, shape),
                 random.normal(0, 0.5, shape), random.uniform(0.3, 3, shape)]
            )  # fmt: skip
    path = export_student(trunk, adaptor, config, tmp_path / "a.onnx", small=False)
    log_mel = random.uniform(-4, 3, (40, 96, 64)).astype(np.float32)
    parts = restore_parts(path, config, log_mel, mean=mean, deviation=deviation)

    def answers(trunk, adaptor, *, training: bool = False) -> np.ndarray:
        return arrays(adaptor(trunk(log_mel, training=training), training=training))

    expected = answers(trunk, adaptor)
    assert np.allclose(answers(**parts), expected, atol=2e-4)
    # Normalised by the batch that it was taken apart by, it answers the same.
    assert np.allclose(answers(**parts, training=True), expected, atol=5e-3)
    assert not np.allclose(answers(trunk, adaptor, training=True), expected, atol=0.1)


def test_a_restored_embedder_is_a_stage_to_go_on_from(lite_stages, lite_material, tmp_path):
    path = tmp_path / "lite.onnx"
    export_run(Namespace(run_folder=lite_stages / "three", target=path))
    mixed = shards.Shard(lite_stages / "shards" / "mixed-0000")
    restore(path, STUDENT, mixed, lite_material.released, tmp_path / "again")
    log_mel = shards.decode_log_mel(np.asarray(mixed.log_mel[:64]))
    guesses = []
    for folder in (lite_stages / "three", tmp_path / "again"):
        parts = {"trunk": build_trunk(STUDENT)}
        load_parts(folder, parts)
        guesses.append(arrays(parts["trunk"](log_mel)))
    # The file's weights are rounded.
    assert np.allclose(*guesses, atol=0.02 * np.abs(guesses[0]).max())
    rows = adaptation.tune(
        lite_material,
        tmp_path / "again",
        tmp_path / "more",
        adaptation_config(),
        say=lambda _: None,
    )
    assert len(rows) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"depths": (1, 0, 1, 2)},
        {"depths": (1, 0, 1, 0)},
        {"channels": (4, 6, 8, 9)},
        {"inner": (0, 0, 5, 0)},
        {"hidden": (13,)},
        {"hidden": ()},
    ],
)
def test_an_embedder_is_not_restored_as_one_of_another_shape(changes, lite_stages, tmp_path):
    path = tmp_path / "lite.onnx"
    export_run(Namespace(run_folder=lite_stages / "three", target=path))
    patches = np.zeros((2, 96, 64), np.float32)
    scale = {"mean": np.zeros(128, np.float32), "deviation": np.ones(128, np.float32)}
    with pytest.raises(DataError, match="another shape"):
        restore_parts(path, replace(STUDENT, **changes), patches, **scale)


def test_what_is_no_onnx_file_is_not_restored(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"not a network")
    scale = {"mean": np.zeros(128, np.float32), "deviation": np.ones(128, np.float32)}
    with pytest.raises(DataError, match="cannot be read"):
        restore_parts(tmp_path / "a.onnx", STUDENT, np.zeros((2, 96, 64), np.float32), **scale)


def test_the_bundled_embedder_can_be_trained_on_from_its_weights():
    import onnxruntime

    path = bundled_model("lite").path
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    patches = np.random.default_rng(0).normal(-2, 1.5, (12, 96, 64)).astype(np.float32)
    scale = {"mean": np.zeros(128, np.float32), "deviation": np.ones(128, np.float32)}
    parts = restore_parts(
        path, config_from_dict(described["training"]["student"]), patches, **scale
    )
    found = arrays(parts["adaptor"](parts["trunk"](patches))).clip(-1, 1)
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"log_mel": patches})
    assert np.allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.5


def test_a_shape_of_another_version_is_refused():
    with pytest.raises(DataError, match="another version"):
        config_from_dict({"channels": 48, "depths": [2, 3, 4], "block": "full"})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": (48, 128)}, "channels, depths and inner"),
        ({"depths": (1, 1, 1, -1)}, "depths"),
        ({"channels": (0, 1, 1, 1)}, "channels"),
        ({"hidden": (0,)}, "hidden"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes, named):
    with pytest.raises(InvalidArgumentError, match=named):
        StudentConfig(**changes)


def test_a_finished_stage_becomes_an_embedder(lite_stages, tmp_path):
    export_run(Namespace(run_folder=lite_stages / "three", target=tmp_path / "lite.onnx"))
    embed = measures.OnnxEmbedder(tmp_path / "lite.onnx", threads=1)
    frames = embed(np.random.default_rng(0).normal(-1, 2, (20, 96, 64)).astype(np.float32))
    assert frames.shape == (20, 128)
    assert frames.dtype == np.uint8
    assert frames.std() > 0
    with pytest.raises(DataError, match="without an adaptor"):
        export_run(Namespace(run_folder=lite_stages / "one", target=tmp_path / "other.onnx"))


NORMS = """
import keras, numpy as np
from tools.lite.network import _norm_class

random = np.random.default_rng(0)
values = random.normal(2, 3, (64, 6, 4, 5)).astype("float32")
settings = {"momentum": 0.9, "epsilon": 1e-3}
ours, kerass = _norm_class()(**settings), keras.layers.BatchNormalization(**settings)
for training in (True, True, False):
    found, wanted = (np.asarray(keras.ops.convert_to_numpy(norm(values, training=training)))
                     for norm in (ours, kerass))
    assert np.allclose(found, wanted, atol=2e-3), np.abs(found - wanted).max()
for one, other in zip(ours.get_weights(), kerass.get_weights(), strict=True):
    assert np.allclose(one, other, rtol=2e-3, atol=2e-3), (one, other)
assert abs(ours.get_weights()[2].mean() - 2 * (1 - 0.9**2)) < 0.1
"""


def test_torchs_own_normalisation_is_keras():
    need("torch")
    done = python("torch", "-c", NORMS)
    assert done.returncode == 0, done.stderr
