"""Embedders: the released value range, and rows that depend on their patch alone, to the bit."""

from __future__ import annotations

import csv
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from audiosearch import audio, frontend, models
from audiosearch.embedders import (
    EMBEDDING_SIZE,
    Embedder,
    available_embedders,
    dequantize,
    embedder_hash,
    get_embedder,
    quantize,
)
from audiosearch.errors import InvalidArgumentError, ModelError


@pytest.fixture(scope="module")
def lite() -> Embedder:
    return get_embedder("lite", threads=1)


@pytest.fixture(scope="module", params=["lite", "vggish", "vggish-int8"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    """Each embedder there is, with one thread; VGGish with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "lite":
            patch.setenv("AUDIOSEARCH_MODELS", str(request.getfixturevalue("vggish_master")))
        yield get_embedder(request.param, threads=1)


@pytest.fixture
def another(
    embedder: Embedder,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    own_home: Path,
) -> Callable[..., Embedder]:
    """Makes another one of the same kind."""
    if embedder.name != "lite":
        monkeypatch.setenv("AUDIOSEARCH_MODELS", str(request.getfixturevalue("vggish_master")))
    return functools.partial(get_embedder, embedder.name)


@pytest.fixture(scope="module")
def all_patches() -> np.ndarray:
    """50 patches of noise whose colour and level change."""
    random = np.random.default_rng(0)
    level = np.repeat(10 ** random.uniform(-4, 0, 50), 15360)
    sound = np.cumsum(random.normal(0, 0.05, len(level))) % 1.0 - 0.5
    sound = (level * (sound + random.normal(0, 0.3, len(level)))).astype(np.float32)
    return np.concatenate(list(frontend.patches(sound)))


@pytest.fixture(scope="module")
def patches(embedder: Embedder, all_patches: np.ndarray) -> np.ndarray:
    """Patches for an embedder: more than one batch, and few where it is slow."""
    return all_patches if embedder.name == "lite" else all_patches[:18]


@pytest.fixture(scope="module")
def whole(embedder: Embedder, patches: np.ndarray) -> np.ndarray:
    """The embedding of all patches at once."""
    return embedder.embed_patches(patches)


def test_lite_is_the_default_and_available() -> None:
    assert "lite" in available_embedders()
    embedder = get_embedder(threads=1)
    assert isinstance(embedder, Embedder)
    assert embedder.name == "lite"
    assert embedder.weights_hash == models.bundled_model("lite").sha256


def test_lite_gives_the_network_s_values_rounded_and_clipped(
    lite: Embedder, all_patches: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(
        models.bundled_model("lite").path, providers=["CPUExecutionProvider"]
    )
    (values,) = session.run(None, {session.get_inputs()[0].name: all_patches})
    got = lite.embed_patches(all_patches)
    expected = np.clip(np.round(values.astype(np.float64) * 128 + 128), 0, 255)
    assert np.abs(got.astype(int) - expected).max() <= 1  # a half may round either way
    assert (got == expected).mean() > 0.999


def test_keeps_the_interface(embedder: Embedder, patches: np.ndarray, whole: np.ndarray) -> None:
    assert isinstance(embedder, Embedder)
    assert embedder.name in available_embedders()
    assert re.fullmatch(r"[0-9a-f]{64}", embedder.weights_hash)
    assert whole.dtype == np.uint8
    assert whole.shape == (len(patches), EMBEDDING_SIZE)


def test_the_hash_is_known_without_loading_the_weights(
    embedder: Embedder, another: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    assert embedder_hash(embedder.name) == embedder.weights_hash


def test_different_sounds_have_different_embeddings(whole: np.ndarray) -> None:
    assert len(np.unique(whole, axis=0)) > 0.8 * len(whole)
    assert whole.std() > 10


def test_a_row_does_not_depend_on_how_many_there_are(
    embedder: Embedder, patches: np.ndarray, whole: np.ndarray
) -> None:
    counts = (1, 2, 15, 16, 17, 31, 33, 50) if embedder.name == "lite" else (1, 17)
    for count in counts:
        np.testing.assert_array_equal(embedder.embed_patches(patches[:count]), whole[:count])
        np.testing.assert_array_equal(embedder.embed_patches(patches[-count:]), whole[-count:])


def test_a_row_does_not_depend_on_its_neighbours(
    embedder: Embedder, patches: np.ndarray, whole: np.ndarray
) -> None:
    order = np.random.default_rng(1).permutation(len(patches))
    np.testing.assert_array_equal(embedder.embed_patches(patches[order]), whole[order])


@pytest.mark.parametrize("threads", [None, 2, 3])
def test_the_number_of_threads_changes_no_bit(
    another: Callable[..., Embedder],
    patches: np.ndarray,
    whole: np.ndarray,
    threads: int | None,
) -> None:
    np.testing.assert_array_equal(another(threads=threads).embed_patches(patches), whole)


def test_may_be_called_from_several_threads(
    embedder: Embedder, patches: np.ndarray, whole: np.ndarray
) -> None:
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(embedder.embed_patches, [patches] * 4):
            np.testing.assert_array_equal(got, whole)


def test_no_patches_give_no_embeddings(embedder: Embedder) -> None:
    got = embedder.embed_patches(np.empty((0, 96, 64), np.float32))
    assert got.shape == (0, 128)
    assert got.dtype == np.uint8


def test_any_memory_layout_will_do(
    embedder: Embedder, patches: np.ndarray, whole: np.ndarray
) -> None:
    turned = np.ascontiguousarray(patches.transpose(2, 1, 0)).transpose(2, 1, 0)
    np.testing.assert_array_equal(embedder.embed_patches(turned), whole)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((96, 64), np.float32),
        np.zeros((1, 64, 96), np.float32),
        np.zeros((1, 96, 64, 1), np.float32),
        np.zeros(0, np.float32),
        np.zeros((1, 96, 64), np.float64),
        np.zeros((1, 96, 64), np.uint8),
        np.full((1, 96, 64), np.nan, np.float32),
        np.full((1, 96, 64), np.inf, np.float32),
        [[0.0]],
    ],
    ids=["2-D", "turned", "4-D", "1-D", "float64", "uint8", "NaN", "infinity", "list"],
)
def test_what_is_no_patch_is_refused(embedder: Embedder, wrong: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError, match="Patches"):
        embedder.embed_patches(wrong)


@pytest.mark.parametrize("threads", [0, -1, True])
def test_impossible_threads_are_refused(another: Callable[..., Embedder], threads: int) -> None:
    with pytest.raises(InvalidArgumentError, match="threads"):
        another(threads=threads)


def test_an_unknown_embedder_lists_what_there_is() -> None:
    for call in (get_embedder, embedder_hash):
        with pytest.raises(ModelError, match=r"'nothing'.*lite, vggish, vggish-int8"):
            call("nothing")


def test_every_byte_survives_both_ways() -> None:
    every = np.arange(256, dtype=np.uint8)
    values = dequantize(every)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, (np.arange(256) - 128) / 128)
    np.testing.assert_array_equal(quantize(values), every)


def test_quantize_rounds_and_clips() -> None:
    values = np.array([-9.0, -1.0, 0.0, 0.4 / 128, 0.6 / 128, 0.999, 1.0, 9.0], np.float32)
    assert quantize(values).tolist() == [0, 0, 128, 128, 129, 255, 255, 255]


def test_quantize_and_dequantize_refuse_other_types() -> None:
    for wrong in (np.array([0.5]), np.array([5])):
        with pytest.raises(InvalidArgumentError):
            dequantize(wrong)
    for wrong in (np.array([np.nan]), np.array([5], np.uint8)):
        with pytest.raises(InvalidArgumentError):
            quantize(wrong)


def test_importing_is_light() -> None:
    code = (
        "import sys; from audiosearch import audio, embedders, frontend, models; "
        "print([n for n in ('av', 'soundfile', 'soxr', 'scipy', 'onnxruntime', 'tensorflow') "
        "if n in sys.modules])"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_session_prints_nothing(
    another: Callable[..., Embedder], patches: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    another(threads=1).embed_patches(patches[:1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.data
def test_clips_of_one_class_are_nearer_than_others(data_dir: Path, lite: Embedder) -> None:
    """Real sounds: the mean embedding of a clip has neighbours of its own class."""
    with (data_dir / "esc10" / "meta" / "esc50.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] in "12"][::2]
    means = []
    for row in rows:
        path = data_dir / "esc10" / "audio" / row["filename"]
        if not path.exists():
            path = path.with_suffix(".ogg")
        (batch,) = frontend.patches(audio.stream(path))
        means.append(dequantize(lite.embed_patches(batch)).mean(axis=0))
    vectors = np.array(means)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = vectors @ vectors.T
    np.fill_diagonal(near, -1)
    labels = np.array([row["category"] for row in rows])
    assert (labels[near.argmax(axis=1)] == labels).mean() > 0.5  # chance is 0.1
