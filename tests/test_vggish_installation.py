"""The real VGGish installed: its smoke test, its int8 variant, what is recorded of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_downloads import serving
from vggish_fixtures import PUBLISHED, PublishedFiles, tone_patches

import audiosearch as aus
from audiosearch import model_cache
from audiosearch.audio import find_audio
from audiosearch.embedders import embedder_hash, get_embedder
from audiosearch.embedders.runtime import PatchNetwork
from audiosearch.embedders.vggish import checks, install, probes, store
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
