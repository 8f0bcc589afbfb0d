"""Import of the published network's Keras 2 weights, against that network itself."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Outcome, write_packed

import audiosearch as aus
from audiosearch.classifier.published import read_published
from audiosearch.classifier.scorer import load_scorer
from audiosearch.errors import DataError, StorageError

CLASSES = 527
# In the order of the published code: the layer's kind, and the width of what it takes and gives.
LAYERS = [
    ("dense", "frames", "units"),
    ("norm", "", "units"),
    ("dense", "units", "units"),
    ("norm", "", "units"),
    ("dense", "units", "units"),
    ("norm", "", "units"),
    ("dense", "units", "classes"),
    ("dense", "units", "classes"),
    ("dense", "units", "classes"),
    ("dense", "units", "classes"),
    ("dense", "pools", "classes"),
]
Weights = list[dict[str, np.ndarray]]


def drawn_weights(units: int, classes: int = CLASSES, seed: int = 0) -> Weights:
    """Draw weights large enough for attention below the published code's clip of 1e-7."""
    random = np.random.default_rng(seed)
    widths = {"frames": 128, "units": units, "classes": classes, "pools": 2 * classes}
    layers: Weights = []
    for kind, takes, gives in LAYERS:
        width = widths[gives]
        if kind == "norm":
            layers.append(
                {
                    "gamma": random.uniform(0.5, 1.5, width),
                    "beta": random.normal(0, 0.3, width),
                    "moving_mean": random.normal(0, 0.3, width),
                    # Small enough that the epsilon of 1e-3 matters.
                    "moving_variance": random.uniform(0.01, 1, width),
                }
            )
        else:
            spread = (8 if gives == "classes" and takes == "units" else 1) / widths[takes] ** 0.5
            kernel = random.normal(0, spread, (widths[takes], width))
            layers.append({"kernel": kernel, "bias": random.normal(0, 0.5, width)})
    return [{key: value.astype(np.float32) for key, value in layer.items()} for layer in layers]


def write_published(
    path: Path,
    weights: Weights,
    *,
    first: int = 1,
    whole_model: bool = False,
    chunks: int = 0,
    text: bool = False,
) -> Path:
    """Write weights as Keras 2 does, with its counters in the layers' names starting at `first`."""
    kinds = {"dense": first, "norm": first}
    named = []
    for (kind, *_), layer in zip(LAYERS, weights, strict=True):
        prefix = {"dense": "dense", "norm": "batch_normalization"}[kind]
        named.append((f"{prefix}_{kinds[kind]}", layer))
        kinds[kind] += 1
        if kind == "norm":
            named += [(f"activation_{kinds[kind] - 1}", {}), (f"dropout_{kinds[kind] - 1}", {})]
    named.insert(-1, ("concatenate_1", {}))
    as_names = (lambda names: names) if text else (lambda names: np.array(names, dtype="S"))
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole_model else file
        layer_names = ["input_1", *(name for name, _ in named), "lambda_1"]
        if chunks:
            for number, part in enumerate(np.array_split(layer_names, chunks)):
                group.attrs[f"layer_names{number}"] = np.array(part, dtype="S")
        else:
            group.attrs["layer_names"] = as_names(layer_names)
        group.attrs["backend"] = b"tensorflow"
        group.attrs["keras_version"] = b"2.1.4"
        for name, layer in [("input_1", {}), *named, ("lambda_1", {})]:
            inner = group.create_group(name)
            inner.attrs["weight_names"] = as_names([f"{name}/{key}:0" for key in layer])
            for key, value in layer.items():
                inner[f"{name}/{key}:0"] = value
    return path


def published_scores(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Compute the published network in float64 from its description."""
    d1, n1, d2, n2, d3, n3, cla1, att1, cla2, att2, last = (
        {key: np.float64(value) for key, value in layer.items()} for layer in weights
    )

    def dense(layer, value):
        return value @ layer["kernel"] + layer["bias"]

    def block(layer, norm, value):
        value = dense(layer, value) - norm["moving_mean"]
        value = value / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"] + norm["beta"]
        return np.maximum(value, 0)

    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    def pool(cla, att, hidden):
        powers = dense(att, hidden)
        powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
        weight = np.clip(powers / powers.sum(axis=-1, keepdims=True), 1e-7, 1 - 1e-7)
        weight /= weight.sum(axis=1, keepdims=True)
        return (sigmoid(dense(cla, hidden)) * weight).sum(axis=1)

    hidden2 = block(d2, n2, block(d1, n1, (np.float64(x) - 128) / 128))
    hidden3 = block(d3, n3, hidden2)
    pools = [pool(cla1, att1, hidden2), pool(cla2, att2, hidden3)]
    return sigmoid(dense(last, np.concatenate(pools, axis=-1)))


def full_clips(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 10, 128), dtype=np.uint8)


def test_the_import_scores_as_the_published_network_does(tmp_path):
    weights = drawn_weights(200)
    path = write_published(tmp_path / "final_weights.h5", weights)
    done = aus.import_weights(path, tmp_path / "classifier")
    assert done.units == 200
    assert done.parameters == sum(value.size for layer in weights for value in layer.values())
    x = full_clips(40)
    wanted = published_scores(weights, x)
    assert np.ptp(wanted) > 0.5
    found = load_scorer(str(done.folder)).score(x)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    manifest = json.loads((done.folder / "classifier.json").read_text(encoding="utf-8"))
    assert manifest["imported_from"] == "final_weights.h5"
    assert manifest["weights"] == "float32"
    assert manifest["config"]["network"]["attention"] == "softmax"


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_file_that_keras_2_itself_wrote_is_read(tmp_path):
    """The network, built and saved by tf_keras, which is Keras 2."""
    keras = importlib.import_module("tf_keras")
    layers = keras.layers

    def pool(inputs):
        from tf_keras import backend

        score, weight = inputs
        weight = backend.clip(weight, 1e-7, 1 - 1e-7)
        return backend.sum(score * weight / backend.sum(weight, axis=1)[:, None, :], axis=1)

    layers.Dense(3)  # another layer of the session, so that the counters are off by one
    frames = layers.Input((10, 128))
    hidden = [frames]
    for _ in range(3):
        value = layers.BatchNormalization()(layers.Dense(20)(hidden[-1]))
        hidden.append(layers.Dropout(0.5)(layers.Activation("relu")(value)))
    pools = []
    for level in (2, 3):
        score = layers.Dense(CLASSES, activation="sigmoid")(hidden[level])
        weight = layers.Dense(CLASSES, activation="softmax")(hidden[level])
        pools.append(layers.Lambda(pool)([score, weight]))
    scores = layers.Activation("sigmoid")(layers.Dense(CLASSES)(layers.Concatenate()(pools)))
    model = keras.Model(frames, scores)
    random = np.random.default_rng(4)
    for layer in model.layers:
        values = [random.uniform(0.1, 1, value.shape) for value in layer.get_weights()]
        if isinstance(layer, layers.Dense):
            values = [random.normal(0, 0.5, value.shape) for value in values]
        layer.set_weights(values)
    x = full_clips(6)
    wanted = model.predict((x.astype(np.float32) - 128) / 128, verbose=0)
    model.save_weights(tmp_path / "weights.h5")
    done = aus.import_weights(tmp_path / "weights.h5", tmp_path / "run")
    np.testing.assert_allclose(load_scorer(str(done.folder)).score(x), wanted, atol=1e-5)
    # The whole model in one file holds the same.
    model.save(tmp_path / "model.h5", save_format="h5")
    bare, whole = (read_published(tmp_path / name) for name in ("weights.h5", "model.h5"))
    for layer, arrays in bare.items():
        for key, value in arrays.items():
            np.testing.assert_array_equal(whole[layer][key], value)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"first": 9},
        {"whole_model": True},
        {"chunks": 3},
        {"text": True},
        {"first": 7, "whole_model": True, "chunks": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("units", [16, 128, CLASSES])
def test_every_layout_gives_each_layer_its_weights(tmp_path, layout, units):
    """Also where widths coincide, and where counters pass 9, so that names sort otherwise."""
    weights = drawn_weights(units)
    found = read_published(write_published(tmp_path / "weights.h5", weights, **layout))
    names = (
        "hidden_1 norm_1 hidden_2 norm_2 hidden_3 norm_3 score_2 attention_2 score_3 attention_3"
    )
    assert set(found) == {*names.split(), "scores"}
    for name, layer in zip([*names.split(), "scores"], weights, strict=True):
        assert list(found[name]) == list(layer)
        for key, value in layer.items():
            np.testing.assert_array_equal(found[name][key], value)


def test_the_published_width_has_as_many_weights_as_the_authors_print(tmp_path):
    found = read_published(write_published(tmp_path / "weights.h5", drawn_weights(1024)))
    assert sum(value.size for layer in found.values() for value in layer.values()) == 4_960_269


def broken(path: Path, weights: Weights, change: Callable[[h5py.File], None]) -> Path:
    write_published(path, weights)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(name: str, value: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def without_layer(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        names = [other for other in file.attrs["layer_names"] if other != name.encode()]
        file.attrs["layer_names"] = names

    return change


def without_names(file: h5py.File) -> None:
    del file.attrs["layer_names"]


def without_array(file: h5py.File) -> None:
    del file["dense_2/dense_2/bias:0"]


KERNEL = "dense_2/dense_2/kernel:0"
VARIANCE = "batch_normalization_2/batch_normalization_2/moving_variance:0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced(KERNEL, np.zeros((16, 17), "f")), ["(16, 16)", "hidden_3", "dense_2 (16, 17)"]),
        (replaced("dense_5/dense_5/bias:0", np.zeros(4, "f")), ["bias", "dense_5", "(4,)"]),
        (replaced(KERNEL, np.full((16, 16), np.nan, "f")), ["dense_2/kernel", "finite"]),
        (replaced(KERNEL, np.zeros((16, 16), int)), ["dense_2/kernel", "int64"]),
        (replaced(VARIANCE, np.zeros(15, "f")), ["moving_variance", "(15,)", "(16,)"]),
        (replaced(VARIANCE, np.full(16, -1, "f")), ["batch_normalization_2", "below 0"]),
        (without_layer("dense_3"), ["7 dense layers", "8"]),
        (without_layer("batch_normalization_1"), ["2 batch normalisations", "3"]),
        (without_names, ["layer_names"]),
        (without_array, ["damaged"]),
    ],
)
def test_another_network_is_refused_by_what_is_wrong(tmp_path, change, words):
    path = broken(tmp_path / "weights.h5", drawn_weights(16), change)
    with pytest.raises(DataError) as caught:
        aus.import_weights(path, tmp_path / "out")
    for word in [str(path), *words]:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_count_of_classes_is_named(tmp_path):
    path = write_published(tmp_path / "weights.h5", drawn_weights(16, classes=10))
    with pytest.raises(DataError, match="10 classes, not the 527"):
        aus.import_weights(path, tmp_path / "out")


def test_files_that_are_no_weights_are_refused(tmp_path):
    for path in (tmp_path / "missing.h5", tmp_path / "text.h5", tmp_path / "cut.h5"):
        if path.stem == "text":
            path.write_text("no weights")
        elif path.stem == "cut":
            write_published(path, drawn_weights(16))
            path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(DataError, match=str(path)):
            read_published(path)
    with pytest.raises(DataError, match="layer_names"):
        read_published(write_packed(tmp_path / "packed.h5"))


def test_nothing_is_overwritten(tmp_path):
    path = write_published(tmp_path / "weights.h5", drawn_weights(16))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "classifier.json").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        aus.import_weights(path, tmp_path / "out")
    assert (tmp_path / "out" / "classifier.json").read_text() == "mine"


def test_the_command_makes_a_classifier_that_evaluate_takes(
    invoke: Callable[..., Outcome], packed_h5: Path, tmp_path: Path
) -> None:
    path = write_published(tmp_path / "final_weights.h5", drawn_weights(16))
    done = invoke("import-weights", path, "--out", tmp_path / "published")
    assert done.code == 0, done.err
    assert "16 units" in done.out
    assert str(tmp_path / "published") in done.out
    assert invoke("evaluate", packed_h5, "--classifier", tmp_path / "published").code == 0
    again = invoke("import-weights", path, "--out", tmp_path / "published")
    assert again.code == 1
    assert again.err.count("\n") == 1
