"""What is installed: the wheel elsewhere, the names of the package, what importing it costs."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

import audiosearch
from audiosearch.labels import load_labels

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = audiosearch.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves build folders where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("audiosearch", "web", "indexes", "tests"):
        skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / name, source / name, ignore=skip)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        check=True,
        capture_output=True,
    )
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that holds the wheel.

    It sees the packages of the running one, but not what the running one has of audiosearch.
    """
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    quick = ("--no-deps", "--no-index", "--quiet")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", programs / "python", "install", *quick, wheel],
        check=True,
        capture_output=True,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched last, and its own .pth files, the editable
    # install's among them, are not read.
    (site / "running.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return programs


def run(program: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [program, *args],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_wheel_holds_the_web_app_and_the_shipped_library(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {"web/templates": "_web/templates", "web/static": "_web/static"}
    folders["indexes/audioset-eval"] = "_indexes/audioset-eval"
    for source, target in folders.items():
        files = [path for path in (REPOSITORY / source).rglob("*") if path.is_file()]
        assert files, source
        for path in files:
            inside = path.relative_to(REPOSITORY / source).as_posix()
            assert f"audiosearch/{target}/{inside}" in names
    for path in (REPOSITORY / "audiosearch").rglob("*"):
        if path.is_file() and path.suffix in (".py", ".json", ".onnx", ".npz", ".typed", ".toml"):
            assert path.relative_to(REPOSITORY).as_posix() in names, "left out of pyproject.toml"


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        assert name.split("/")[0] in ("audiosearch", f"audiosearch-{VERSION}.dist-info"), name
        assert "test" not in name.lower().replace("latest", ""), name
        assert not name.endswith((".h5", ".wav", ".pyc", ".tmp", ".lock")), name
    names = set(archive.namelist())
    for name in ("LICENSE", "NOTICE"):
        assert f"audiosearch-{VERSION}.dist-info/licenses/{name}" in names


def test_the_shipped_library_is_small() -> None:
    shipped = REPOSITORY / "indexes" / "audioset-eval"
    size = sum(path.stat().st_size for path in shipped.rglob("*") if path.is_file())
    assert 0 < size <= 15_000_000


def test_the_installed_program_finds_cars_far_from_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    where = run(
        installed / "python", "-c", "import audiosearch; print(audiosearch.__file__)", cwd=tmp_path
    )
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where.stderr
    done = run(installed / "audiosearch", "demo", "--get", "/?q=Car", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    videos = set(re.findall(r"youtube\.com/watch\?v=([\w-]{11})", html.unescape(done.stdout)))
    assert len(videos) == 20
    hits = run(installed / "audiosearch", "search", "Car", "--json", cwd=tmp_path)
    found = json.loads(hits.stdout)["hits"]
    assert {hit["recording"] for hit in found} == videos
    # Most of the best clips truly hold a car or one of its kinds.
    labels = load_labels()
    kinds = {labels[index].name for index in labels.resolve("Car")}
    assert sum(bool(kinds & set(hit["labels"])) for hit in found[:10]) >= 6


def test_static_files_of_the_installed_app_are_there(installed: Path, tmp_path: Path) -> None:
    page = run(installed / "audiosearch", "demo", "--get", "/", cwd=tmp_path).stdout
    linked = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert linked
    for path in linked:
        done = run(installed / "audiosearch", "demo", "--get", html.unescape(path), cwd=tmp_path)
        assert done.returncode == 0, path


def test_the_installed_program_tags_a_sound(
    installed: Path, good_folder: Path, tmp_path: Path
) -> None:
    done = run(installed / "audiosearch", "tag", str(good_folder / "tone.wav"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(good_folder / "tone.wav"))


def test_one_version_everywhere(installed: Path, tmp_path: Path) -> None:
    import audiosearch

    assert audiosearch.__version__ == VERSION
    assert run(installed / "audiosearch", "--version", cwd=tmp_path).stdout.split()[-1] == VERSION
    code = "import importlib.metadata as m; print(m.version('audiosearch'))"
    assert run(installed / "python", "-c", code, cwd=tmp_path).stdout.strip() == VERSION


def test_python_m_is_the_program(installed: Path, tmp_path: Path) -> None:
    one = run(installed / "python", "-m", "audiosearch", "--help", cwd=tmp_path)
    other = run(installed / "audiosearch", "--help", cwd=tmp_path)
    assert one.stdout == other.stdout


def test_tensorflow_hub_can_be_imported(installed: Path, tmp_path: Path) -> None:
    """It imports pkg_resources, which newer setuptools no longer have."""
    done = run(installed / "python", "-c", "import tensorflow_hub", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_light() -> None:
    code = "import sys, audiosearch; dir(audiosearch); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    third_party = {
        re.split(r"[<>=\[]", requirement)[0].replace("-", "_")
        for requirement in PROJECT["project"]["dependencies"]
    }
    assert not loaded & (third_party | {"tensorflow", "keras", "torch", "librosa"})


def test_the_package_exports_what_is_documented() -> None:
    import audiosearch

    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    table = text.partition("## Names")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE)
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(audiosearch.__all__)
    for name in audiosearch.__all__:
        assert getattr(audiosearch, name) is not None
        assert name in dir(audiosearch)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = audiosearch.no_such_name


def test_every_shipped_data_file_is_named_in_the_notice() -> None:
    notice = (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
    for path in (REPOSITORY / "audiosearch" / "data").iterdir():
        if path.suffix in (".onnx", ".npz") or path.name == "audioset.json":
            assert f"audiosearch/data/{path.name}" in notice
    assert "indexes/audioset-eval" in notice


def test_importing_the_package_prints_and_configures_nothing() -> None:
    code = (
        "import logging, warnings\nbefore = list(logging.root.handlers), logging.root.level\n"
        "import audiosearch, audiosearch.api\n"
        "assert (list(logging.root.handlers), logging.root.level) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
