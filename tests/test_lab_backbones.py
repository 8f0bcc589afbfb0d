"""The lab's pretrained networks: the bundled embedder's trunk, and a Keras application."""

from __future__ import annotations

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
from lab_fixtures import class_folders, write_sound
from onnx import shape_inference, utils
from test_downloads import server

from audiosearch.classifier.network import import_keras
from audiosearch.errors import DownloadError, InvalidArgumentError, ModelError
from audiosearch.lab import LabConfig, backbones, predict, read_sounds, train_lab
from audiosearch.lab.graph import LabGraph
from audiosearch.lab.networks import build_network
from audiosearch.models import bundled_model
from audiosearch.own.layers import load_trunk, run_hidden, run_layers

__all__ = ["server"]


def exported(network, shape):
    graph = LabGraph(shape)
    model = graph.finish(graph.network(network, "clip"), network.output.shape[-1])
    return onnxruntime.InferenceSession(model.SerializeToString())


def test_the_trunk_hears_what_the_bundled_embedder_hears():
    keras = import_keras()
    log_mel = np.random.default_rng(3).normal(-1, 2, (2, 96, 64)).astype(np.float32)
    network = build_network("lite-trunk", (96, 64), 3)
    places = next(x for x in network.layers if type(x).__name__ == "GlobalAveragePooling1D")
    mean = keras.Model(network.inputs, places.output).predict([log_mel], verbose=0)
    # The embedder's order: channels, then bands.
    ours = mean.reshape(2, 4, 320).transpose(0, 2, 1).reshape(2, 1280)
    session = onnxruntime.InferenceSession(load_trunk().SerializeToString())
    (wanted,) = session.run(None, {session.get_inputs()[0].name: log_mel})
    np.testing.assert_allclose(run_layers(log_mel)[:, :1280], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-3)


def test_the_last_layer_makes_the_embedding_of_what_the_hidden_one_holds():
    model = onnx.load(bundled_model("lite").path)
    last = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    embedder = onnxruntime.InferenceSession(bundled_model("lite").path)
    given, made = embedder.get_inputs()[0].name, embedder.get_outputs()[0].name
    rest = utils.Extractor(shape_inference.infer_shapes(model)).extract_model(
        [last.input[0]], [made]
    )
    log_mel = np.random.default_rng(3).normal(-1, 2, (17, 96, 64)).astype(np.float32)
    hidden = run_hidden(log_mel)
    assert (hidden.shape, hidden.dtype) == ((17, 512), np.float32)
    session = onnxruntime.InferenceSession(rest.SerializeToString())
    (found,) = session.run(None, {last.input[0]: hidden})
    (wanted,) = embedder.run(None, {given: log_mel})
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert np.array_equal(run_hidden(log_mel[3:4]), hidden[3:4])


def test_the_trunk_is_exported_as_keras_runs_it():
    clips = np.random.default_rng(4).normal(-1, 2, (3, 130, 64)).astype(np.float32)
    network = build_network("lite-trunk", (130, 64), 4)
    (given,) = exported(network, (130, 64)).run(None, {"clip": clips})
    np.testing.assert_allclose(given, network.predict([clips], verbose=0), atol=1e-4)


def test_only_the_last_stage_of_the_trunk_is_trained_on(tmp_path):
    sounds = read_sounds(class_folders(tmp_path / "data", n=6))
    before = build_network("lite-trunk", (100, 64), 3)
    trained = {tuple(v.shape) for v in before.trainable_variables}
    merge, block = (2, 2, 256, 320), {(1, 1, 320, 128), (3, 3, 128, 128), (1, 1, 128, 320)}
    assert trained == {merge, *block, (128,), (320,), (2560, 3), (3,)}
    config = LabConfig(model="transfer-tuned", epochs=3, batch_size=6, validation=0)
    run = train_lab(sounds, tmp_path / "out", config=config, cache=tmp_path / "cache")
    new = [write_sound(tmp_path / f"{kind}.wav", kind, 50) for kind in ("low", "high", "noise")]
    assert [each.labels[0][0] for each in predict(run.folder, new)] == ["low", "high", "noise"]


def test_a_clip_too_short_for_the_trunk_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"at least 0\.16 s"):
        build_network("lite-trunk", (15, 64), 3)
    assert build_network("lite-trunk", (16, 64), 3).output.shape[1:] == (3,)


def write_as_published(model, path):
    """Write weights in the layout of Keras 2, which the published files have."""
    layers = [layer for layer in model.layers if layer.weights]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights]
            group.attrs["weight_names"] = names
            for name, values in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name.decode(), data=values)


@pytest.fixture
def weights(tmp_path, monkeypatch, server):
    """MobileNetV2 with weights of chance, served as its publisher does, and their file."""
    keras = import_keras()
    keras.utils.set_random_seed(11)
    model = keras.applications.MobileNetV2(input_shape=(96, 96, 3), include_top=False, weights=None)
    path = tmp_path / backbones._MOBILENET.name
    write_as_published(model, path)
    server.files = {path.name: path}
    monkeypatch.setenv("AUDIOSEARCH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", server.url.rpartition("/")[0])
    return model, path


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-frozen"])
def test_a_keras_application_comes_with_its_weights_and_is_exported(weights, server, name):
    model, _ = weights
    network = build_network(name, (96, 96), 3)
    pictures = np.random.default_rng(5).uniform(-1, 1, (2, 96, 96)).astype(np.float32)
    keras = import_keras()
    top = next(x for x in network.layers if type(x).__name__ == "GlobalAveragePooling2D")
    given = keras.Model(network.inputs, top.output).predict([pictures], verbose=0)
    colours = np.repeat(pictures[..., None], 3, axis=3)
    wanted = model.predict(colours, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
    (scores,) = exported(network, (96, 96)).run(None, {"clip": pictures})
    np.testing.assert_allclose(scores, network.predict([pictures], verbose=0), atol=1e-4)
    trained = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    assert trained == 3 * 1281 if name == "mobilenet-frozen" else trained > 2_000_000
    build_network(name, (96, 96), 3)
    assert len(server.requests) == 1, "the weights are kept"


def test_a_model_on_a_keras_application_is_trained_and_used(weights, tmp_path):
    sounds = read_sounds(class_folders(tmp_path / "data", kinds=("low", "noise"), n=5))
    config = LabConfig(
        model="mobilenet-frozen",
        epochs=6,
        batch_size=5,
        learning_rate=0.01,
        mixup=0,
        augment=False,
        validation=0,
    )
    run = train_lab(sounds, tmp_path / "out", config=config, cache=tmp_path / "cache")
    losses = [each.loss for each in run.epochs]
    assert np.mean(losses[-2:]) < np.mean(losses[:2]), "even weights of chance tell something"
    assert (run.folder / "classifier.onnx").stat().st_size > 8_000_000, "it holds the backbone"
    (found,) = predict(run.folder, [write_sound(tmp_path / "new.wav", "low", 50)])
    assert sum(dict(found.labels).values()) == pytest.approx(1, abs=1e-4)


def test_weights_that_cannot_be_had_or_are_damaged_are_said_so(weights, tmp_path, monkeypatch):
    model, path = weights
    monkeypatch.setenv("AUDIOSEARCH_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"Its address: http.*By hand.*mobilenet"):
        build_network("mobilenet", (96, 96), 3)
    monkeypatch.delenv("AUDIOSEARCH_OFFLINE")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"one"]
        file.create_group("one").attrs["weight_names"] = [b"one/kernel:0"]
        file["one"].create_dataset("one/kernel:0", data=np.zeros(3))
    with pytest.raises(ModelError, match=r"no weights of MobileNetV2.*Delete it"):
        build_network("mobilenet", (96, 96), 3)
    (left,) = (tmp_path / "models" / "mobilenet_v2").glob("*.h5")
    left.unlink()
    write_as_published(model, path)
    assert build_network("mobilenet", (96, 96), 3), "a damaged one was not taken for the right one"
