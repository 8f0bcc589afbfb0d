"""Shared fixtures: where the real data is, and small generated stand-ins of the same layouts.

Everything generated is the same at every run. Nothing here needs the network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from vggish_fixtures import PublishedFiles

REPOSITORY = Path(__file__).resolve().parent.parent
DATA_VARIABLE = "AUDIOSEARCH_DATA"

# What `sound_folder` holds: path in the folder -> (sample rate, channels, seconds).
GOOD_SOUNDS = {
    "tone.wav": (16000, 1, 2.0),
    "click.wav": (8000, 1, 0.01),
    "silence.wav": (16000, 1, 1.0),
    "nested/noise.flac": (44100, 2, 12.0),
    "nested/deep/Büro 音.ogg": (22050, 1, 3.0),
}
BAD_SOUNDS = ("broken.wav", "empty.wav", "nested/no_samples.wav")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background; the programs that tests start would not hear of Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A busy machine is no reason for a test to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data-dir",
        metavar="DIR",
        default=None,
        help=f"folder of the real data; {DATA_VARIABLE} in the environment does the same",
    )


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of the real data; skips where there is none."""
    chosen = request.config.getoption("--data-dir") or os.environ.get(DATA_VARIABLE)
    if not chosen:
        pytest.skip(f"no data: neither --data-dir nor {DATA_VARIABLE} is given")
    folder = Path(chosen)
    if not folder.is_dir():
        # A wrong path is a mistake to be told, not a reason to leave tests out.
        pytest.fail(f"the data folder {folder} does not exist")
    return folder.resolve()


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test its own user folders, so that no test sees or leaves a library there."""
    home = tmp_path_factory.mktemp("home")
    for name, folder in (
        ("XDG_DATA_HOME", "data"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
    ):
        monkeypatch.setenv(name, str(home / folder))
    for name in ("LIBRARY", "TOKEN", "DEBUG", "MODELS", "OFFLINE", "MODEL_MIRRORS"):
        monkeypatch.delenv(f"AUDIOSEARCH_{name}", raising=False)
    return home


@pytest.fixture(scope="session")
def sound_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import soundfile

    folder = tmp_path_factory.mktemp("master") / "sounds"
    random = np.random.default_rng(2)
    for name, (rate, channels, seconds) in GOOD_SOUNDS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = round(rate * seconds)
        time = np.arange(frames) / rate
        if "tone" in name:
            samples = 0.3 * np.sin(2 * np.pi * 440 * time)
        elif "silence" in name:
            samples = np.zeros(frames)
        else:
            samples = random.normal(0, 0.1, (frames, channels))
        # libsndfile's Vorbis writer overruns its stack on long arrays: write in blocks.
        with soundfile.SoundFile(path, "w", samplerate=rate, channels=channels) as file:
            for start in range(0, frames, 8192):
                file.write(samples[start : start + 8192])
    (folder / "broken.wav").write_bytes(b"this is no sound at all\n" * 40)
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "nested" / "no_samples.wav", np.zeros(0), 16000)
    (folder / "notes.txt").write_text("not a sound, by its name\n", encoding="utf-8")
    return folder


@pytest.fixture
def sound_folder(sound_master: Path, tmp_path: Path) -> Path:
    """A folder of small sounds of its own: `GOOD_SOUNDS`, `BAD_SOUNDS` and a text file."""
    folder = tmp_path / "sounds"
    shutil.copytree(sound_master, folder)
    return folder


@pytest.fixture
def good_folder(sound_folder: Path) -> Path:
    """The same folder without the files that no decoder can read."""
    for name in BAD_SOUNDS:
        (sound_folder / name).unlink()
    return sound_folder


def write_packed(
    path: Path, *, clips: int = 40, seed: int = 7, extras: bool = True, labels: bool = True
) -> Path:
    """Write a packed HDF5 file in AudioSet's layout, filled with random embeddings.

    `extras` adds the data sets that the original files do not have.
    """
    import h5py

    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (clips, 10, 128), dtype=np.uint8)
    n_frames = np.full(clips, 10, dtype=np.uint8)
    n_frames[::7] = 6
    for row, count in enumerate(n_frames):
        x[row, count:] = 0
    y = random.random((clips, 527)) < 0.01
    y[np.arange(clips), np.arange(clips) % 20] = True
    start = (10 * random.integers(0, 30, clips)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["x"] = x
        if labels:
            file["y"] = y
        file["video_id_list"] = np.array([f"clip-{row:06d}" for row in range(clips)], dtype="S11")
        if extras:
            file["n_frames"] = n_frames
            file["start_time_seconds"] = start
            file["end_time_seconds"] = start + 10
    return path


@pytest.fixture(scope="session")
def packed_h5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small packed file with all data sets. Read only: it is shared by all tests."""
    return write_packed(tmp_path_factory.mktemp("packed") / "small.h5")


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


def assert_one_sentence(done: Outcome, *, code: int = 1) -> None:
    """A failure says one thing on stderr, with no traceback."""
    assert done.code == code
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("Error: ")]) == 1


@pytest.fixture
def invoke(
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., Outcome]]:
    """Run a command in this process, as the entry point would, and return its outcome."""
    from audiosearch.cli import main

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(arg) for arg in args])
        written = capsys.readouterr()
        code = leaving.value.code
        assert isinstance(code, int)
        return Outcome(code, written.out, written.err)

    return run


@pytest.fixture
def command_environment() -> dict[str, str]:
    """The environment for a command in a process of its own."""
    environment = dict(os.environ)
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = f"{REPOSITORY}{os.pathsep + path if path else ''}"
    return environment


@pytest.fixture
def run_command(
    command_environment: dict[str, str], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a command in a process of its own, outside the checkout."""

    def run(
        *args: object, env: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "audiosearch", *map(str, args)],
            env=command_environment | (env or {}),
            cwd=options.pop("cwd", tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run


@pytest.fixture(scope="session")
def vggish_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedFiles]:
    """What Google publishes of VGGish, with random weights. Read only: it is shared by all tests.

    It takes 0.9 GB, which does not outlive the session.
    """
    from vggish_fixtures import write_published

    folder = tmp_path_factory.mktemp("published")
    yield write_published(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def vggish_master(
    vggish_files: PublishedFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    from audiosearch.embedders.vggish.install import install, quantise

    root = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOSEARCH_MODELS", str(root))
        install(path=vggish_files.folder / "vggish_model.ckpt")
        quantise()
    yield root
    shutil.rmtree(root)


@pytest.fixture
def vggish_installed(vggish_master: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VGGish with random weights and its int8 variant are installed, in a folder to read only."""
    monkeypatch.setenv("AUDIOSEARCH_MODELS", str(vggish_master))
    return vggish_master / "vggish"


@pytest.fixture(scope="session")
def library_master(
    tmp_path_factory: pytest.TempPathFactory, sound_master: Path, packed_h5: Path
) -> Path:
    import audiosearch as aus

    folder = tmp_path_factory.mktemp("libraries") / "library"
    aus.index([sound_master, packed_h5], folder, mix_embedders=True)
    return folder


@pytest.fixture
def library_folder(library_master: Path, tmp_path: Path) -> Path:
    """A library of its own: the generated sounds and the packed file's clips."""
    folder = tmp_path / "library"
    shutil.copytree(library_master, folder)
    return folder


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium for the tests of a module."""
    from browser_fixtures import start_browser

    browser = start_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(shared_browser: Any) -> Any:
    """The browser at its usual size, in the light scheme, with an empty log."""
    from browser_fixtures import resize, scheme

    resize(shared_browser, 1280, 900)
    scheme(shared_browser, "light")
    shared_browser.get("about:blank")
    shared_browser.get_log("performance")
    shared_browser.get_log("browser")
    return shared_browser


@pytest.fixture(scope="module")
def lite_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder of tools/lite: windows, targets, clean and mixed shards of tones and noise."""
    from lite_fixtures import prepare

    return prepare(tmp_path_factory.mktemp("lite"))


@pytest.fixture(scope="module")
def lite_material(lite_work: Path) -> object:
    """What stages 2 and 3 of the bundled embedder train on."""
    from lite_fixtures import material_of

    return material_of(lite_work)


@pytest.fixture(scope="module")
def lite_stages(lite_work: Path, lite_material: Any) -> Path:
    """A work folder with finished stages 1, 2 and 3."""
    from lite_fixtures import train_stages

    return train_stages(lite_work, lite_material)
