"""Bundled weights: whole ones are found, broken ones are named."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from audiosearch import models
from audiosearch.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed `lite` in a folder of its own, in place of the installed one."""
    installed = models.bundled_model("lite")
    shutil.copy(installed.path, tmp_path)
    shutil.copy(installed.path.with_suffix(".json"), tmp_path)
    monkeypatch.setattr(models, "resource_path", lambda *_: tmp_path)
    return tmp_path


def change(folder: Path, **fields: object) -> None:
    path = folder / "lite.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_lite_is_installed_and_described() -> None:
    model = models.bundled_model("lite")
    assert model.name == model.manifest["name"] == "lite"
    assert model.manifest["space"] == "audioset-vggish"
    assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert {"input", "output", "origin", "licence"} <= set(model.manifest)
    with pytest.raises(TypeError):
        model.manifest["name"] = "other"  # type: ignore[index]


def test_every_installed_model_is_whole() -> None:
    installed = models.bundled_model("lite").path.parent
    for path in installed.glob("*.onnx"):
        assert models.bundled_model(path.stem).path == path


def test_a_copy_is_as_good(folder: Path) -> None:
    assert models.bundled_model("lite").path == folder / "lite.onnx"


def test_the_checksum_is_computed_once(folder: Path) -> None:
    first = models.bundled_model("lite")
    (folder / "lite.onnx").unlink()
    assert models.bundled_model("lite") is first


def test_damaged_weights_are_refused(folder: Path) -> None:
    content = bytearray((folder / "lite.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "lite.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"lite\.onnx is damaged.*Install"):
        models.bundled_model("lite")


@pytest.mark.parametrize("name", ["lite.onnx", "lite.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        models.bundled_model("lite")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "lite"}', '{"sha256": "0"}'])
def test_a_broken_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "lite.json").write_text(text)
    with pytest.raises(ModelError, match=r"lite\.json is not a readable manifest"):
        models.bundled_model("lite")


def test_a_manifest_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "lite.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="manifest"):
        models.bundled_model("lite")


def test_a_later_format_is_refused(folder: Path) -> None:
    change(folder, format_version=2)
    with pytest.raises(ModelError, match="format 2"):
        models.bundled_model("lite")


@pytest.mark.parametrize("name", ["nothing", "", "../lite", "/lite", "caf\udce9"])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(ModelError, match=r": .*lite") as caught:
        models.bundled_model(name)
    str(caught.value).encode()
