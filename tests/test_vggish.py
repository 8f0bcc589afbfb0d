"""The real VGGish's path, with random weights in the published formats: read, convert, embed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_downloads import serving
from vggish_fixtures import (
    PUBLISHED,
    PublishedFiles,
    passing_pca,
    tone_patches,
    write_checkpoint,
)

import audiosearch as aus
from audiosearch import model_cache
from audiosearch.audio import find_audio
from audiosearch.embedders import embedder_hash, get_embedder
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish import checks, graph, install, probes, sources, store
from audiosearch.embedders.vggish.layers import LAYERS, PARAMETERS, SHAPES, checked_weights
from audiosearch.embedders.vggish.layers import weights_identity as identity
from audiosearch.embedders.vggish.postprocess import Postprocessor, read_postprocessor
from audiosearch.errors import (
    AudioSearchError,
    DownloadError,
    InvalidArgumentError,
    LibraryMismatchError,
    MissingDependencyError,
    ModelError,
)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of VGGish, empty, in a cache of its own; what it gets is deleted at the end."""
    monkeypatch.setenv("AUDIOSEARCH_MODELS", str(tmp_path / "models"))
    yield tmp_path / "models" / "vggish"
    shutil.rmtree(tmp_path / "models", ignore_errors=True)


def link_installed(master: Path, models: Path) -> None:
    """Install what the master has, without copying its large files."""
    models.mkdir(parents=True)
    for path in (master / "vggish").iterdir():
        (os.link if path.suffix == ".onnx" else shutil.copy)(path, models / path.name)


def small_checkpoint(folder: Path, **shapes: tuple[int, ...]) -> Path:
    """A checkpoint of the original names, with other shapes."""
    arrays = {name: np.zeros((2,), np.float32) for name in SHAPES} | {
        name.replace("__", "/"): np.zeros(shape, np.float32) for name, shape in shapes.items()
    }
    write_checkpoint(arrays, folder / "vggish_model.ckpt", version=1)
    return folder / "vggish_model.ckpt"


# The network


def test_it_has_the_published_parameters_and_shapes() -> None:
    assert PARAMETERS == 72_141_184
    assert [layer.shape for layer in LAYERS] == [
        (3, 3, 1, 64),
        (3, 3, 64, 128),
        (3, 3, 128, 256),
        (3, 3, 256, 256),
        (3, 3, 256, 512),
        (3, 3, 512, 512),
        (12288, 4096),
        (4096, 4096),
        (4096, 128),
    ]


def test_keras_builds_it_exactly(vggish_files: PublishedFiles) -> None:
    import keras

    from audiosearch.embedders.vggish.network import build_network

    network = vggish_files.network
    assert network.count_params() == 72_141_184
    assert network.input_shape == (None, 96, 64)
    assert network.output_shape == (None, 128)
    assert {
        layer.name: layer.output.shape[1:] for layer in network.layers if "pool" in layer.name
    } == {
        "pool_conv1": (48, 32, 64),
        "pool_conv2": (24, 16, 128),
        "pool_conv3_2": (12, 8, 256),
        "pool_conv4_2": (6, 4, 512),
    }
    for layer in LAYERS:
        found = network.get_layer(layer.name)
        assert [tuple(array.shape) for array in found.weights] == [layer.shape, (layer.units,)]
        expected = "linear" if layer.name == "fc2" else "relu"
        assert found.activation.__name__ == expected
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in network.layers)
    with pytest.raises(ModelError, match="missing"):
        build_network({})
    with pytest.raises(ModelError, match=r"vggish/conv1/weights is float32 \(2,\)"):
        build_network(dict.fromkeys(SHAPES, np.zeros(2, np.float32)))


# The published files


@pytest.mark.parametrize("name", ["saved_model", "vggish_1.tar.gz", "vggish_model.ckpt"])
def test_every_published_file_gives_the_same_weights(
    vggish_files: PublishedFiles, name: str
) -> None:
    found = sources.read_weights(vggish_files.folder / name)
    assert list(found) == list(SHAPES)
    for key, array in vggish_files.weights.items():
        np.testing.assert_array_equal(found[key], array)


def test_a_checkpoint_of_the_second_format_will_do(
    vggish_files: PublishedFiles, tmp_path: Path
) -> None:
    write_checkpoint(vggish_files.weights, tmp_path / "vggish_model.ckpt", version=2)
    for path in (tmp_path, tmp_path / "vggish_model.ckpt", tmp_path / "vggish_model.ckpt.index"):
        found = sources.read_weights(path)
        np.testing.assert_array_equal(
            found["vggish/fc2/weights"], vggish_files.weights["vggish/fc2/weights"]
        )
    shutil.rmtree(tmp_path)


def test_a_hub_module_gives_what_our_path_gives(
    vggish_files: PublishedFiles, vggish_installed: Path
) -> None:
    """The whole way of `tensorflow_hub`: its own log-mel patches, its own graph, our PCA on it."""
    import tensorflow_hub

    module = tensorflow_hub.load(str(vggish_files.folder / "saved_model"))
    random = np.random.default_rng(5)
    sound = np.sin(np.cumsum(random.uniform(0, 1, 4 * 15360 + 240))).astype(np.float32)
    theirs = module(sound).numpy()
    assert theirs.shape == (4, 128)
    patches = probes.patches_of([sound])
    ours = PatchNetwork(vggish_installed / "vggish.onnx", name="vggish").run(patches)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert (theirs < 0).any(), "before any activation"
    postprocess = read_postprocessor(vggish_files.folder / "vggish_pca_params.npz")
    difference = get_embedder("vggish").embed_patches(patches).astype(int) - postprocess(theirs)
    assert np.abs(difference).max() <= 1
    assert (difference == 0).mean() > 0.97


def test_what_is_no_published_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.ckpt"
    text.write_text("not a checkpoint\n" * 100)
    archive = tmp_path / "empty.tar.gz"
    with tarfile.open(archive, "w:gz"):
        pass
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:20])
    hollow = tmp_path / "hollow"
    (hollow / "variables").mkdir(parents=True)
    (hollow / "variables" / "variables.index").write_bytes(b"\x00" * 50)
    for path in (tmp_path / "none", tmp_path, text, archive, cut, hollow):
        with pytest.raises(ModelError) as caught:
            sources.read_weights(path)
        assert str(path) in str(caught.value)


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"vggish/conv1/weights is float32 \(2,\), not float32"):
        sources.read_weights(small_checkpoint(tmp_path))
    other = tmp_path / "other"
    write_checkpoint({"dense/kernel": np.zeros((2, 2), np.float32)}, other, version=1)
    with pytest.raises(ModelError, match=r"no weights of VGGish: vggish/conv1/weights.*15 more"):
        sources.read_weights(other)


def test_damaged_weights_are_refused(vggish_files: PublishedFiles) -> None:
    broken = dict(vggish_files.weights)
    broken["vggish/conv1/biases"] = np.full(64, np.nan, np.float32)
    with pytest.raises(ModelError, match="vggish/conv1/biases holds values that are not finite"):
        checked_weights(broken, origin="The file")
    broken["vggish/conv1/biases"] = np.zeros(64)
    with pytest.raises(ModelError, match=r"float64 \(64,\)"):
        checked_weights(broken, origin="The file")


def test_an_archive_can_write_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../variables/variables.index", "/tmp/x", "variables/../../variables.x"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError):
        sources.read_weights(path)
    assert sorted(tmp_path.rglob("*")) == before


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_checkpoint_is_refused_and_crashes_nothing(
    tmp_path: Path, data: st.DataObject
) -> None:
    version = data.draw(st.sampled_from([1, 2]))
    arrays = {"vggish/conv1/biases": np.arange(64, dtype=np.float32)}
    prefix = tmp_path / f"v{version}.ckpt"
    files = [prefix] if version == 1 else [Path(f"{prefix}.index")]
    if not files[0].exists():
        write_checkpoint(arrays, prefix, version=version)
    content = bytearray(files[0].read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    broken = tmp_path / ("broken.ckpt" if version == 1 else "broken.ckpt.index")
    broken.write_bytes(content)
    if version == 2:
        shutil.copy(f"{prefix}.data-00000-of-00001", tmp_path / "broken.ckpt.data-00000-of-00001")
    with pytest.raises(ModelError):
        sources.read_weights(broken)


# The ONNX graph


def test_the_onnx_graph_is_keras_network(
    vggish_files: PublishedFiles, vggish_installed: Path
) -> None:
    network = PatchNetwork(vggish_installed / "vggish.onnx", name="vggish", threads=2)
    got = network.run(vggish_files.patches)
    assert vggish_files.output.std(axis=0).min() > 0
    np.testing.assert_allclose(got, vggish_files.output, atol=1e-4)


def test_the_onnx_graph_is_valid_and_the_same_at_every_conversion(
    vggish_files: PublishedFiles, vggish_installed: Path, tmp_path: Path
) -> None:
    import onnx

    graph.write_graph(vggish_files.weights, tmp_path / "again.onnx")
    onnx.checker.check_model(tmp_path / "again.onnx", full_check=True)
    assert (tmp_path / "again.onnx").read_bytes() == (vggish_installed / "vggish.onnx").read_bytes()
    (tmp_path / "again.onnx").unlink()


def test_identity_is_of_values_not_of_files(vggish_files: PublishedFiles) -> None:
    weights = dict(vggish_files.weights)
    pca = np.load(vggish_files.folder / "vggish_pca_params.npz")
    more = pca["pca_eigen_vectors"], pca["pca_means"]
    before = identity(weights, *more)
    assert before == identity(dict(reversed(weights.items())) | {"global_step": 7}, *more)
    weights["vggish/conv1/biases"] = weights["vggish/conv1/biases"] + np.float32(1e-3)
    assert identity(weights, *more) != before
    assert identity(vggish_files.weights, more[0], more[1] * 1.001) != before


# PCA, clipping, bytes


def by_definition(values: np.ndarray, matrix: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The published definition, one value at a time, with exact sums."""
    import math

    result = np.empty(values.shape, np.uint8)
    for row, vector in enumerate(values):
        for column, direction in enumerate(matrix):
            whitened = math.fsum(
                d * (float(v) - m) for d, v, m in zip(direction, vector, means, strict=True)
            )
            result[row, column] = int((min(max(whitened, -2.0), 2.0) + 2.0) * 255.0 / 4.0)
    return result


def test_bytes_are_as_defined(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pca = passing_pca(random.normal(0, 0.3, 128))
    np.savez(tmp_path / "pca.npz", **pca)
    postprocess = read_postprocessor(tmp_path / "pca.npz")
    values = random.normal(0, 0.3, (5, 128)).astype(np.float32)
    got = postprocess(values)
    expected = by_definition(values, pca["pca_eigen_vectors"], pca["pca_means"])
    assert (got == expected).mean() > 0.998  # a value on the edge of a byte may fall either way
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert {0, 255} <= set(got.ravel().tolist())


def test_bytes_are_cut_not_rounded() -> None:
    postprocess = Postprocessor(np.eye(128), np.zeros(128))
    values = np.zeros((1, 128), np.float32)
    values[0, :6] = [-9, -2, -1.985, 0.0, 1.99, 9]
    assert postprocess(values)[0, :6].tolist() == [0, 0, 0, 127, 254, 255]


def test_a_row_of_bytes_depends_on_its_values_alone() -> None:
    random = np.random.default_rng(0)
    postprocess = Postprocessor(random.normal(size=(128, 128)), random.normal(size=128))
    values = random.normal(0, 0.1, (37, 128)).astype(np.float32)
    whole = postprocess(values)
    for count in (1, 2, 15, 16, 17, 31):
        np.testing.assert_array_equal(postprocess(values[-count:]), whole[-count:])
    assert postprocess(values[:0]).shape == (0, 128)


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"pca_eigen_vectors": np.eye(128)},
        {"pca_eigen_vectors": np.eye(127), "pca_means": np.zeros(128)},
        {"pca_eigen_vectors": np.eye(128), "pca_means": np.zeros(127)},
        {"pca_eigen_vectors": np.eye(128), "pca_means": np.zeros((1, 128))},
        {"pca_eigen_vectors": np.eye(128, dtype=int), "pca_means": np.zeros(128)},
        {"pca_eigen_vectors": np.eye(128) * 1j, "pca_means": np.zeros(128)},
        {"pca_eigen_vectors": np.full((128, 128), np.inf), "pca_means": np.zeros(128)},
        {"pca_eigen_vectors": np.eye(128), "pca_means": np.full(128, np.nan)},
        {"pca_eigen_vectors": np.array([{}]), "pca_means": np.zeros(128)},
    ],
)
def test_other_pca_parameters_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = write_npz(tmp_path / "pca.npz", **arrays)
    with pytest.raises(ModelError, match=r"pca\.npz"):
        read_postprocessor(path)


def test_means_may_be_a_column(tmp_path: Path) -> None:
    means = np.arange(128.0)[:, None]
    path = write_npz(tmp_path / "pca.npz", pca_eigen_vectors=np.eye(128), pca_means=means)
    np.testing.assert_array_equal(read_postprocessor(path).means, np.arange(128.0))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "pca.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pca_means.npy", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(ModelError, match="50,000,000 bytes"):
        read_postprocessor(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_pca_parameters_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        write_npz(whole, pca_eigen_vectors=np.eye(128), pca_means=np.zeros(128))
    content = bytearray(whole.read_bytes())
    # Headers are what a parser can be led astray by: mostly there.
    places = st.integers(0, 300) | st.integers(len(content) - 300, len(content) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    path = tmp_path / "pca.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)) | st.just(len(content)))])
    try:
        found = read_postprocessor(path)
    except ModelError:
        return
    assert found.matrix.shape == (128, 128)
    assert found.means.shape == (128,)


@pytest.mark.data
def test_the_published_pca_parameters_are_read(data_dir: Path) -> None:
    path = data_dir.parent / "models" / store.PCA.name
    if not path.is_file():
        pytest.skip(f"no data: {path} is not there")
    found = read_postprocessor(path)
    # Whitening: uncorrelated directions, each longer than the one before, but for the last.
    lengths = np.linalg.norm(found.matrix, axis=1)
    cosines = (found.matrix / lengths[:, None]) @ (found.matrix / lengths[:, None]).T
    assert np.abs(cosines[:100, :100] - np.eye(100)).max() < 0.05
    assert lengths[0] < lengths[60] < lengths[120]
    assert model_cache.sha256_file(path) == store.PCA.seen_sha256


# The smoke test


def test_the_smoke_test_has_the_published_figures(
    vggish_files: PublishedFiles, vggish_installed: Path
) -> None:
    test = install.smoke_test()
    assert test.passed
    assert tuple(figure.expected for figure in test.figures) == PUBLISHED
    patches = tone_patches()
    np.testing.assert_array_equal(probes.smoke_patches(), patches)
    values = PatchNetwork(vggish_installed / "vggish.onnx", name="vggish").run(patches)
    rows = get_embedder("vggish").embed_patches(patches)
    expected = [values.mean(), values.std(), rows.mean(), rows.std()]
    np.testing.assert_allclose([figure.measured for figure in test.figures], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("measured", "passed"),
    [(126.0, True), (126 * 1.099, True), (126 * 0.901, True), (126 * 1.101, False), (0, False)],
)
def test_a_figure_may_be_ten_percent_off(measured: float, passed: bool) -> None:
    assert checks.Figure("bytes mean", measured, 126.0).passed is passed


def test_weights_that_fail_the_smoke_test_are_not_installed(
    vggish_files: PublishedFiles, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = dict(vggish_files.weights)
    weights["vggish/fc2/biases"] = weights["vggish/fc2/biases"] + np.float32(0.01)
    monkeypatch.setattr(install, "read_weights", lambda _: weights)
    with pytest.raises(ModelError, match=r"smoke test.*embedding mean.*published: 0\.000657"):
        aus.fetch_model(
            "vggish",
            path=tmp_path / "vggish_model.ckpt",
            pca=vggish_files.folder / "vggish_pca_params.npz",
        )
    assert [path.name for path in models.iterdir()] == ["lock"]
    with pytest.raises(ModelError, match="audiosearch models fetch vggish"):
        get_embedder("vggish")


# Installing


def test_from_a_server_with_a_broken_connection(
    vggish_files: PublishedFiles,
    vggish_master: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fetch from a mirror: the archive breaks off twice, the PCA parameters come whole."""
    served = {name: vggish_files.folder / name for name in (store.HUB.name, store.PCA.name)}
    steps: list[str] = []
    with serving() as server:
        monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", server.url.removesuffix("/file.bin"))
        server.files = served
        server.breaks = [100_000_000, 50_000_000]
        assert aus.fetch_model("vggish", on_step=steps.append)
        asked = list(server.requests)
        assert not aus.fetch_model("vggish"), "it is there already"
        assert server.requests == asked
    assert [path for path, _ in asked] == [*["/vggish_1.tar.gz"] * 3, "/vggish_pca_params.npz"]
    assert [span for _, span in asked[:3]] == [None, "bytes=100000000-", "bytes=150000000-"]
    assert [step.partition(" has the SHA-256")[0] for step in steps[:2]] == list(served)
    assert len(steps) == 5
    names = {path.name for path in models.iterdir()}
    assert names == {
        "accepted.json",
        "lock",
        "vggish.json",
        "vggish.onnx",
        "vggish_pca_params.npz",
    }
    accepted = json.loads((models / "accepted.json").read_text())
    for name, path in served.items():
        assert accepted[name]["sha256"] == model_cache.sha256_file(path)
        assert accepted[name]["url"].endswith(f"/{name}")
    manifest = json.loads((models / "vggish.json").read_text())
    assert manifest["parameters"] == 72_141_184
    assert manifest["downloads"].keys() == served.keys()
    assert aus.model_path("vggish") == models / "vggish.onnx"
    # The archive of the Hub and the checkpoint, which the master was made from, hold one network.
    before = json.loads((vggish_master / "vggish" / "vggish.json").read_text())
    assert embedder_hash("vggish") == before["weights_sha256"]


def test_a_wrong_checksum_leaves_what_is_installed(
    vggish_master: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_installed(vggish_master, models)
    with serving() as server:
        monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", server.url.removesuffix("/file.bin"))
        hub = model_cache.RemoteFile(store.HUB.name, ())
        monkeypatch.setitem(store.SOURCES, "hub", hub)
        with pytest.raises(DownloadError, match=r"SHA-256 is .*, not 0000"):
            aus.fetch_model("vggish", sha256="0" * 64, force=True)
    assert get_embedder("vggish").name == "vggish"


def test_what_was_fetched_is_converted_when_it_is_first_used(
    vggish_files: PublishedFiles, models: Path
) -> None:
    models.mkdir(parents=True)
    for name in ("vggish_1.tar.gz", "vggish_pca_params.npz"):
        os.link(vggish_files.folder / name, models / name)
    assert aus.list_models()[2].state == "downloaded"
    identity_then = embedder_hash("vggish")
    assert aus.list_models()[2].state == "installed"
    assert not (models / "vggish_1.tar.gz").exists()
    assert get_embedder("vggish").weights_hash == identity_then


def test_without_tensorflow_it_says_so_and_keeps_what_came(
    vggish_files: PublishedFiles, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    models.mkdir(parents=True)
    os.link(vggish_files.folder / "vggish_1.tar.gz", models / "vggish_1.tar.gz")
    shutil.copy(vggish_files.folder / "vggish_pca_params.npz", models)
    with pytest.raises(MissingDependencyError, match=r"audiosearch\[tensorflow\]") as caught:
        aus.fetch_model("vggish", offline=True)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "from a worker"
    assert (models / "vggish_1.tar.gz").exists()


def test_later_use_needs_neither_tensorflow_nor_onnx(
    vggish_installed: Path, good_folder: Path
) -> None:
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'tensorflow_hub', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "import audiosearch as aus\n"
        "for name in ('vggish', 'vggish-int8'):\n"
        "    print(aus.embed(sys.argv[1], embedder=name).shape)\n"
        "print(aus.verify_model('vggish').passed)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, good_folder / "tone.wav"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:3] == ["(2, 128)", "(2, 128)", "True"]
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["vggish.onnx", "vggish_pca_params.npz"])
def test_damaged_files_are_refused(vggish_master: Path, models: Path, name: str) -> None:
    link_installed(vggish_master, models)
    (models / name).unlink()
    (models / name).write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"damaged.*audiosearch models fetch vggish --force"):
        get_embedder("vggish")
    (models / name).unlink()
    with pytest.raises(ModelError, match="audiosearch models fetch vggish --force"):
        aus.verify_model("vggish")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_manifest_of_any_content_is_an_error_of_ours(
    vggish_master: Path, models: Path, data: st.DataObject
) -> None:
    if not models.exists():
        link_installed(vggish_master, models)
        for name in ("vggish.onnx", "vggish-int8.onnx"):
            (models / name).unlink()
            (models / name).write_bytes(b"no model")
    keys = st.sampled_from(["format_version", "sha256", "pca_sha256", "weights_sha256", "accepted"])
    values = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
    text = data.draw(
        st.binary(max_size=30) | st.dictionaries(keys, values).map(json.dumps).map(str.encode)
    )
    name = data.draw(st.sampled_from(["vggish", "vggish-int8"]))
    (models / f"{name}.json").write_bytes(text)
    assert len(aus.list_models()) == 4
    store.read_model.cache_clear()
    with pytest.raises(ModelError):
        get_embedder(name)


def test_wrong_arguments_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="source must be one of hub, checkpoint"):
        aus.fetch_model("vggish", source="elsewhere")
    with pytest.raises(InvalidArgumentError, match="checksum"):
        aus.fetch_model("vggish", path=tmp_path, sha256="0" * 64)
    with pytest.raises(InvalidArgumentError, match="--quantised"):
        aus.fetch_model("vggish-int8")
    with pytest.raises(ModelError, match=r"'nothing'.*vggish-int8"):
        aus.fetch_model("nothing")
    assert not aus.fetch_model("lite"), "it is bundled"


# The int8 variant


def test_the_int8_variant_is_accepted_where_it_agrees(
    vggish_installed: Path, vggish_files: PublishedFiles
) -> None:
    manifest = json.loads((vggish_installed / "vggish-int8.json").read_text())
    agreement = manifest["agreement"]
    assert manifest["accepted"] is True
    assert agreement["high_error"] < 8
    assert agreement["median_cosine"] > 0.98
    assert agreement["size_ratio"] < 0.3
    assert agreement["frames"] == 64
    assert manifest["quantised_from"] == embedder_hash("vggish")
    assert embedder_hash("vggish-int8") not in (embedder_hash("vggish"), manifest["sha256"])
    exact = get_embedder("vggish").embed_patches(vggish_files.patches).astype(int)
    quantised = get_embedder("vggish-int8").embed_patches(vggish_files.patches)
    assert 0 < np.abs(quantised - exact).mean() < 4


def test_the_int8_variant_is_refused_where_it_does_not(
    vggish_master: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ranges come from patches that excite nothing: every sound overflows them."""
    link_installed(vggish_master, models)
    for suffix in (".onnx", ".json"):
        (models / f"vggish-int8{suffix}").unlink()
    with pytest.raises(ModelError, match="models verify vggish --quantised"):
        get_embedder("vggish-int8")
    nothing = np.zeros((8, 96, 64), np.float32)
    made = install.made_patches
    monkeypatch.setattr(
        install,
        "made_patches",
        lambda **which: nothing if which["seed"] == 1 else made(count=4, seed=2),
    )
    found = aus.verify_model("vggish", quantised=True)
    assert found.name == "vggish-int8"
    assert not found.passed
    assert found.agreement is not None
    assert found.agreement.high_error > checks.MOST_HIGH_ERROR
    assert aus.list_models()[3].state == "refused"
    with pytest.raises(ModelError, match="agrees too little"):
        get_embedder("vggish-int8")
    assert get_embedder("vggish").name == "vggish"


def test_agreement_is_measured_on_own_sounds_too(
    vggish_master: Path, models: Path, good_folder: Path
) -> None:
    link_installed(vggish_master, models)
    frames = 64 + sum(len(aus.embed(path)) for path in find_audio(good_folder))
    (good_folder / "broken.wav").write_bytes(b"no sound")
    found = aus.verify_model("vggish-int8", sounds=[good_folder])
    assert found.agreement is not None
    assert found.agreement.frames == frames
    with pytest.raises(AudioSearchError, match="broken"):
        aus.verify_model("vggish", quantised=True, sounds=[good_folder / "broken.wav"])
    with pytest.raises(InvalidArgumentError):
        aus.verify_model("vggish", sounds=[good_folder])
    with pytest.raises(InvalidArgumentError):
        aus.verify_model("lite", quantised=True)


def test_made_sounds_are_varied_and_the_same_at_every_run() -> None:
    patches = probes.made_patches(16, seed=3)
    assert patches.shape == (32, 96, 64)
    assert patches.dtype == np.float32
    np.testing.assert_array_equal(patches, probes.made_patches(16, seed=3))
    assert np.abs(patches - probes.made_patches(16, seed=4)).max() > 1
    means = patches.mean(axis=1)
    near = np.linalg.norm(means[::2, None] - means[None, ::2], axis=-1) + np.eye(16) * 99
    assert near.min() > 0.5


# What is recorded


def test_libraries_and_packed_files_keep_embedders_apart(
    vggish_installed: Path, tmp_path: Path, good_folder: Path
) -> None:
    sound = good_folder / "tone.wav"
    library = tmp_path / "by_lite"
    aus.index(sound, library)
    with pytest.raises(LibraryMismatchError, match=r"'lite'.*'vggish'"):
        aus.index(good_folder / "silence.wav", library, embedder="vggish")

    library = tmp_path / "by_vggish"
    summary = aus.index(sound, library, embedder="vggish", workers=1)
    assert summary.added == 1
    with aus.open_library(library) as opened:
        info = opened.info()
        assert (info.embedder, info.embedder_hash) == ("vggish", embedder_hash("vggish"))
        # An example is embedded by what embedded the library.
        assert opened.similar(sound).hits[0].score > 0.999
    for other in ("lite", "vggish-int8"):
        with pytest.raises(LibraryMismatchError, match=rf"'vggish'.*'{other}'"):
            aus.index(good_folder / "silence.wav", library, embedder=other)

    aus.pack(sound, tmp_path / "tone.h5", embedder="vggish", workers=1)
    assert aus.index(tmp_path / "tone.h5", library).added == 1
    with pytest.raises(LibraryMismatchError, match=r"'lite'.*'vggish'"):
        aus.index(tmp_path / "tone.h5", tmp_path / "by_lite")


def test_tags_come_from_the_embedder_that_was_asked_for(
    vggish_installed: Path, good_folder: Path
) -> None:
    by_lite = aus.tag(good_folder / "tone.wav", top=527)
    by_vggish = aus.tag(good_folder / "tone.wav", top=527, embedder="vggish")
    assert {tag.label for tag in by_lite.tags} == {tag.label for tag in by_vggish.tags}
    assert [tag.score for tag in by_lite.tags] != [tag.score for tag in by_vggish.tags]


def test_an_embedder_that_is_not_installed_leaves_nothing_behind(
    models: Path, tmp_path: Path, good_folder: Path
) -> None:
    with pytest.raises(ModelError, match="audiosearch models fetch vggish"):
        aus.index(good_folder, tmp_path / "library", embedder="vggish")
    with pytest.raises(ModelError, match="audiosearch models fetch vggish"):
        aus.pack(good_folder, tmp_path / "out.h5", embedder="vggish")
    assert not (tmp_path / "library").exists()
    assert not list(tmp_path.glob("out.h5*"))
