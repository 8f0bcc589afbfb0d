"""The real VGGish, with random weights in the published formats: read, converted, made bytes."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vggish_fixtures import PublishedFiles, passing_pca, write_checkpoint

from audiosearch import model_cache
from audiosearch.embedders import get_embedder
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish import graph, probes, sources, store
from audiosearch.embedders.vggish.layers import LAYERS, PARAMETERS, SHAPES, checked_weights
from audiosearch.embedders.vggish.layers import weights_identity as identity
from audiosearch.embedders.vggish.postprocess import Postprocessor, read_postprocessor
from audiosearch.errors import ModelError


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
