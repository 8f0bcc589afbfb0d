"""Small generated sounds in the layouts that the lab reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16000


def sound(kind: str, seed: int, *, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Return a low tone, a high tone, noise or clicks, in a variant of its own."""
    random = np.random.default_rng([seed, len(kind)])
    time = np.arange(round(seconds * rate)) / rate
    if kind == "noise":
        wave = random.normal(0, 1, len(time))
    elif kind == "clicks":
        wave = np.zeros(len(time))
        wave[int(random.integers(200)) :: 1600] = 3
    else:
        pitch = {"low": 300, "high": 3000}[kind] * random.uniform(0.9, 1.1)
        wave = np.sin(2 * np.pi * pitch * time + random.uniform(0, 6))
    quiet = 0.01 * random.normal(0, 1, len(time))
    return (0.2 * random.uniform(0.5, 1.5) * (wave + quiet)).astype(np.float32)


def write_sound(path: Path, kind: str, seed: int, **options: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = int(options.pop("rate", RATE))
    soundfile.write(path, sound(kind, seed, rate=rate, **options), rate)
    return path


def own_recordings(folder: Path, kinds: dict[str, str], *, low: float, high: float) -> Path:
    """Write 3 s of a kind for each name, and one sound of a low tone and then a high one."""
    for number, (name, kind) in enumerate(kinds.items()):
        write_sound(folder / f"{name}.wav", kind, 50 + number, seconds=3.0)
    both = np.concatenate([sound("low", 60, seconds=low), sound("high", 61, seconds=high)])
    soundfile.write(folder / "d-both.wav", both, RATE)
    return folder


def class_folders(
    folder: Path, kinds: tuple[str, ...] = ("low", "high", "noise"), n: int = 10
) -> Path:
    """Write a folder for each kind, with `n` sounds in each."""
    for kind in kinds:
        for number in range(n):
            write_sound(folder / kind / f"{number:02}.wav", kind, number)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three classes of ten sounds."""
    return class_folders(tmp_path_factory.mktemp("lab") / "data")


def esc50_layout(folder: Path, *, suffix: str = ".wav", folds: int = 3, each: int = 2) -> Path:
    """Write a set laid out as ESC-50; each source recording gives `each` clips of one fold."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for target, kind in enumerate(("low", "high", "noise")):
        for fold in range(1, folds + 1):
            for take in range(each):
                name = f"{fold}-{target}{fold}-{take}-{target}"
                write_sound(folder / "audio" / f"{name}{suffix}", kind, 10 * fold + take)
                lines.append(f"{name}.wav,{fold},{target},{kind},TRUE,{target}{fold},{take}")
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
