"""Embedders: the released value range, and rows that depend on their patch alone, to the bit."""

from __future__ import annotations

import csv
import subprocess
import sys
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
    get_embedder,
    quantize,
)
from audiosearch.errors import InvalidArgumentError, ModelError


@pytest.fixture(scope="module")
def lite() -> Embedder:
    return get_embedder("lite", threads=1)


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    """50 patches of noise whose colour and level change."""
    random = np.random.default_rng(0)
    level = np.repeat(10 ** random.uniform(-4, 0, 50), 15360)
    sound = np.cumsum(random.normal(0, 0.05, len(level))) % 1.0 - 0.5
    sound = (level * (sound + random.normal(0, 0.3, len(level)))).astype(np.float32)
    return np.concatenate(list(frontend.patches(sound)))


def test_lite_is_the_default_and_available() -> None:
    assert "lite" in available_embedders()
    embedder = get_embedder(threads=1)
    assert isinstance(embedder, Embedder)
    assert embedder.name == "lite"
    assert embedder.weights_hash == models.bundled_model("lite").sha256


def test_gives_the_network_s_values_rounded_and_clipped(
    lite: Embedder, patches: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(
        models.bundled_model("lite").path, providers=["CPUExecutionProvider"]
    )
    (values,) = session.run(None, {session.get_inputs()[0].name: patches})
    got = lite.embed_patches(patches)
    assert got.dtype == np.uint8
    assert got.shape == (len(patches), EMBEDDING_SIZE)
    expected = np.clip(np.round(values.astype(np.float64) * 128 + 128), 0, 255)
    assert np.abs(got.astype(int) - expected).max() <= 1  # a half may round either way
    assert (got == expected).mean() > 0.999


def test_different_sounds_have_different_embeddings(lite: Embedder, patches: np.ndarray) -> None:
    got = lite.embed_patches(patches)
    assert len(np.unique(got, axis=0)) > 40
    assert got.std() > 10


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 33, 50])
def test_a_row_does_not_depend_on_how_many_there_are(
    lite: Embedder, patches: np.ndarray, count: int
) -> None:
    whole = lite.embed_patches(patches)
    np.testing.assert_array_equal(lite.embed_patches(patches[:count]), whole[:count])
    np.testing.assert_array_equal(lite.embed_patches(patches[-count:]), whole[-count:])


def test_a_row_does_not_depend_on_its_neighbours(lite: Embedder, patches: np.ndarray) -> None:
    whole = lite.embed_patches(patches)
    order = np.random.default_rng(1).permutation(len(patches))
    np.testing.assert_array_equal(lite.embed_patches(patches[order]), whole[order])


@pytest.mark.parametrize("threads", [None, 2, 3, 4])
def test_the_number_of_threads_changes_no_bit(
    lite: Embedder, patches: np.ndarray, threads: int | None
) -> None:
    other = get_embedder(threads=threads)
    np.testing.assert_array_equal(other.embed_patches(patches), lite.embed_patches(patches))


def test_may_be_called_from_several_threads(lite: Embedder, patches: np.ndarray) -> None:
    whole = lite.embed_patches(patches)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lite.embed_patches, [patches] * 8):
            np.testing.assert_array_equal(got, whole)


def test_no_patches_give_no_embeddings(lite: Embedder) -> None:
    got = lite.embed_patches(np.empty((0, 96, 64), np.float32))
    assert got.shape == (0, 128)
    assert got.dtype == np.uint8


def test_any_memory_layout_will_do(lite: Embedder, patches: np.ndarray) -> None:
    turned = np.ascontiguousarray(patches.transpose(2, 1, 0)).transpose(2, 1, 0)
    np.testing.assert_array_equal(lite.embed_patches(turned), lite.embed_patches(patches))


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
def test_what_is_no_patch_is_refused(lite: Embedder, wrong: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError, match="Patches"):
        lite.embed_patches(wrong)


@pytest.mark.parametrize("threads", [0, -1, True])
def test_impossible_threads_are_refused(threads: int) -> None:
    with pytest.raises(InvalidArgumentError, match="threads"):
        get_embedder(threads=threads)


def test_an_unknown_embedder_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match=r"'nothing'.*lite"):
        get_embedder("nothing")


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


def test_a_session_prints_nothing(patches: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    get_embedder(threads=1).embed_patches(patches)
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
