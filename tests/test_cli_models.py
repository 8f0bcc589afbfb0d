"""``audiosearch models``: what a user sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from test_downloads import serving
from vggish_fixtures import PublishedFiles

import audiosearch as aus
from audiosearch import downloads
from audiosearch.cli import models as command
from audiosearch.downloads import DownloadProgress
from audiosearch.embedders.vggish import store

Invoke = Callable[..., Outcome]


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address but a mirror's is ever asked."""
    monkeypatch.setattr(downloads, "_FIRST_PAUSES", ())
    for name, file in store.SOURCES.items():
        monkeypatch.setitem(store.SOURCES, name, type(file)(file.name, ()))


def test_the_names_are_those_there_are(invoke: Invoke) -> None:
    names = [model["name"] for model in json.loads(invoke("models", "list", "--json").out)]
    assert names == list(command._NAMES)
    assert list(store.SOURCES) == list(command._SOURCES)


def test_list_says_state_size_file_origin_and_licence(
    invoke: Invoke, vggish_installed: Path
) -> None:
    done = invoke("models", "list")
    assert done.code == 0
    lines = done.out.splitlines()
    first = next(line for line in lines if line.startswith("vggish "))
    assert first.split()[1:] == ["installed", "288.6", "MB"]
    rest = [line.strip() for line in lines[lines.index(first) + 1 :][:3]]
    assert rest == [str(vggish_installed / "vggish.onnx"), store.ORIGIN, "Apache-2.0"]
    assert any(line.split()[:2] == ["lite", "bundled"] for line in lines)


def test_list_while_nothing_is_fetched(invoke: Invoke) -> None:
    states = {model["name"]: model for model in json.loads(invoke("models", "list", "--json").out)}
    assert (states["vggish"]["state"], states["vggish"]["path"]) == ("not fetched", None)
    assert states["vggish-int8"]["state"] == "not made"
    part = store.folder() / "vggish_model.ckpt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    states = {model["name"]: model for model in json.loads(invoke("models", "list", "--json").out)}
    assert (states["vggish"]["state"], states["vggish"]["bytes"]) == ("partly downloaded", 1000)


@pytest.mark.parametrize("name", ["lite", "vggish"])
def test_path_prints_the_file(invoke: Invoke, vggish_installed: Path, name: str) -> None:
    done = invoke("models", "path", name)
    assert done.code == 0
    assert done.out == f"{aus.model_path(name)}\n"
    assert Path(done.out.strip()).suffix == ".onnx"


def test_what_is_not_installed_says_how_to_get_it(invoke: Invoke, good_folder: Path) -> None:
    for words in (
        ("models", "path", "vggish"),
        ("models", "verify", "vggish"),
        ("models", "verify", "vggish", "--quantised"),
        ("tag", good_folder / "tone.wav", "--embedder", "vggish"),
        ("index", good_folder, "--embedder", "vggish"),
        ("pack", good_folder, "--out", good_folder / "x.h5", "--embedder", "vggish"),
    ):
        done = invoke(*words)
        assert done.code == 1
        assert "audiosearch models fetch vggish" in done.err
        assert len(done.err.splitlines()) == 1


def test_fetch_offline_names_address_path_and_other_ways(invoke: Invoke) -> None:
    for source, file in store.SOURCES.items():
        done = invoke("models", "fetch", "vggish", "--source", source, "--offline")
        assert done.code == 1
        assert file.urls[0] in done.err
        assert str(store.folder() / file.name) in done.err
        assert "audiosearch models fetch vggish" in done.err


def test_fetch_that_fails_names_address_path_and_other_ways(
    invoke: Invoke, mirror: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        base = server.url.removesuffix("/file.bin")
        monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", base)
        server.answers = [(404, {})]
        done = invoke("models", "fetch", "vggish")
    assert done.code == 1
    assert f"{base}/vggish_1.tar.gz: The server answered 404" in done.err
    assert f"put it at {store.folder() / 'vggish_1.tar.gz'}" in done.err
    assert "--source checkpoint" in done.err


def test_fetch_of_something_else_is_refused(
    invoke: Invoke, mirror: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=np.eye(128), pca_means=np.zeros(128))
    with serving() as server:
        monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", server.url.removesuffix("/file.bin"))
        server.content = b"<html>Please log in to this network</html>"
        done = invoke(
            "models", "fetch", "vggish", "--source", "checkpoint", "--pca", tmp_path / "pca.npz"
        )
    assert done.code == 1
    assert "vggish_model.ckpt cannot be read as a TensorFlow checkpoint" in done.err
    assert not (store.folder() / "vggish_model.ckpt").exists(), "it would be taken next time"
    assert invoke("models", "path", "vggish").code == 1


def test_fetch_from_a_folder_and_use_it(
    invoke: Invoke, vggish_files: PublishedFiles, good_folder: Path
) -> None:
    done = invoke(
        "models", "fetch", "vggish", "--from", vggish_files.folder / "saved_model", "--offline"
    )
    assert done.code == 0, done.err
    assert done.out == f"vggish is installed: {store.folder() / 'vggish.onnx'}\n"
    assert "smoke test" in done.err
    done = invoke("models", "fetch", "vggish")
    assert done.out.startswith("vggish was there already")
    done = invoke("tag", good_folder / "tone.wav", "--embedder", "vggish")
    assert done.code == 0
    shutil.rmtree(store.folder())


def test_verify_prints_the_smoke_test(invoke: Invoke, vggish_installed: Path) -> None:
    done = invoke("models", "verify", "vggish")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[2] == "Google's smoke test: passed"
    assert [line.split()[-1] for line in lines[3:]] == ["0.000657", "0.343", "126", "89.3"]
    values = json.loads(invoke("models", "verify", "vggish", "--json").out)
    assert values["passed"] is True
    assert len(values["smoke_test"]["figures"]) == 4
    assert values["agreement"] is None


def test_verify_shows_a_smoke_test_that_fails(
    invoke: Invoke, vggish_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiosearch.embedders.vggish import checks, install

    figure = checks.Figure("bytes mean", 150.0, 126.0)
    monkeypatch.setattr(install, "smoke_test", lambda: checks.SmokeTest((figure,)))
    done = invoke("models", "verify", "vggish")
    assert done.code == 1
    assert "Google's smoke test: FAILED" in done.out
    assert "150  published 126  <- more than 10 % off" in done.out


@pytest.mark.parametrize(("high", "code", "word"), [(20.0, 0, "accepted"), (30.0, 1, "REFUSED")])
def test_verify_prints_the_agreement(
    invoke: Invoke,
    vggish_installed: Path,
    monkeypatch: pytest.MonkeyPatch,
    high: float,
    code: int,
    word: str,
) -> None:
    from audiosearch.embedders.vggish import checks, install

    agreement = checks.Agreement(64, 9.5, high, 0.99, 3.0, 0.25)
    monkeypatch.setattr(install, "quantise", lambda **_: agreement)
    done = invoke("models", "verify", "vggish", "--quantised")
    assert done.code == code
    assert f"is {word}" in done.out
    for part in ("64 frames", "9.50  at most 16", f"{high:.2f}  at most 24", "speed 3.0 times"):
        assert part in done.out


@pytest.mark.parametrize("name", ["lite", "classifier"])
def test_verify_of_what_is_bundled(invoke: Invoke, name: str) -> None:
    done = invoke("models", "verify", name)
    assert done.code == 0
    assert "SHA-256" in done.out


@pytest.mark.parametrize(
    "words",
    [
        ("models",),
        ("models", "nothing"),
        ("models", "path"),
        ("models", "path", "nothing"),
        ("models", "fetch", "vggish", "--source", "nowhere"),
    ],
)
def test_wrong_usage(invoke: Invoke, words: tuple[str, ...]) -> None:
    assert invoke(*words).code == 2


def test_ctrl_c_says_that_the_download_is_kept(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("audiosearch.weights.fetch_model", stop)
    monkeypatch.setattr(aus, "fetch_model", stop)
    done = invoke("models", "fetch", "vggish")
    assert done.code == 130
    assert "kept" in done.err


def test_progress_is_shown_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiosearch.cli import progress

    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with progress.FetchProgress() as shown:
        shown(DownloadProgress("file.bin", 100_000_000, 300_000_000))
        shown(DownloadProgress("file.bin", 5_000_000, None))
        shown._terminal = True
        shown(DownloadProgress("file.bin", 200_000_000, 300_000_000))
        shown.step("Converting.")
    assert capsys.readouterr().err.splitlines()[:2] == [
        "file.bin: 100 of 300 MB",
        "file.bin: 5 MB",
    ]
