"""What tests of the bundled embedder's training share: sounds, a stub teacher, work folders."""

from __future__ import annotations

import io
import struct
import sys
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import REPOSITORY, write_packed

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from audiosearch.classifier.network import import_keras
from tools.lite import (
    adaptation,
    distillation,
    shards,
)
from tools.lite.batching import BatchShape
from tools.lite.catalogue import Sound
from tools.lite.collection import SoundStore
from tools.lite.judging import Judge
from tools.lite.network import (
    StudentConfig,
)
from tools.lite.released import AudioSetClips, Pairs, Released
from tools.lite.targets import read_targets, write_targets
from tools.lite.windows import Windows, cut_windows

RATE = 16000
STUDENT = StudentConfig(
    channels=(4, 6, 8, 8), depths=(1, 0, 1, 1), inner=(0, 0, 4, 0), hidden=(12,)
)


def arrays(values) -> np.ndarray:
    """What a network gave, with any of Keras' backends."""
    return import_keras().ops.convert_to_numpy(values)


def tone(hertz: float, seconds: float, level: float = 0.3) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def wav(sound: np.ndarray, rate: int = RATE) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())
    return target.getvalue()


def tar(files: dict[str, bytes], mode: str = "w:xz") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian package: an ar archive of three members, the last with the files."""
    parts = [b"!<arch>\n"]
    members = {"debian-binary": b"2.0\n", "control.tar.xz": tar({}), "data.tar.xz": tar(files)}
    for name, data in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
        parts.append(header.encode() + data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def soundfont(samples: list[tuple[str, np.ndarray, int, int]]) -> bytes:
    """A SoundFont: (name, samples, loop start, loop end)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    data, records, at = b"", b"", 0
    for name, sound, start, end in samples:
        data += np.rint(sound * 32767).astype("<i2").tobytes()
        record = (name.encode(), at, at + len(sound), at + start, at + end, RATE, 60, 0, 0, 1)
        records += struct.pack("<20s5IBbHH", *record)
        at += len(sound)
    records += struct.pack("<20s5IBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)
    lists = chunk(b"LIST", b"sdta" + chunk(b"smpl", data))
    lists += chunk(b"LIST", b"pdta" + chunk(b"shdr", records))
    return chunk(b"RIFF", b"sfbk" + lists)


class StubTeacher:
    """A teacher whose answer is simple: which bands are loud."""

    kernel = np.random.default_rng(5).normal(0, 0.3, (1024, 521)).astype(np.float32)
    bias = np.full(521, -3.0, np.float32)
    columns = np.arange(521)

    def answer(self, log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bands = np.maximum(log_mel.mean(axis=1) + 4.6, 0)
        embedding = np.tile(bands, (1, 16)).astype(np.float32).clip(0, 6)
        scores = np.zeros((len(log_mel), 527), np.float32)
        scores[np.arange(len(log_mel)), 100 + bands.argmax(axis=1)] = 0.8
        return embedding, scores

    def maps(self, log_mel: np.ndarray) -> tuple[np.ndarray, ...]:
        """How loud each place is, in every channel; the last one has the embedding everywhere."""
        tiles = np.maximum(log_mel.reshape(-1, 12, 8, 8, 8).mean(axis=(2, 4)) + 4.6, 0)
        near = np.repeat(tiles[..., None], 256, axis=3)
        wider = tiles.reshape(-1, 6, 2, 4, 2).mean(axis=(2, 4))
        middle = np.repeat(wider[..., None], 512, axis=3)
        embedding = self.answer(log_mel)[0]
        far = np.broadcast_to(embedding[:, None, None], (len(log_mel), 3, 2, 1024))
        return near.astype(np.float32), middle.astype(np.float32), far.astype(np.float32)


def prepare(work: Path) -> Path:
    """Fill a work folder with windows, targets, clean and mixed shards, of tones and noise."""
    store = SoundStore(work / "store")
    random = np.random.default_rng(0)
    sounds = []
    for number in range(12):
        sound = tone(200 * (number + 1), 0.3 + 1.1 * number)
        sound += random.normal(0, 0.01, len(sound)).astype(np.float32)
        sha1 = store.add("a.wav", wav(sound))
        sounds.append(Sound("tones", f"{number}.wav", sha1, 1 + (len(sound) > 10 * RATE)))
    windows = cut_windows(sounds, store, work / "windows", say=lambda _: None)
    found = shards.score_windows(windows, StubTeacher(), {}, say=lambda _: None)
    write_targets(work / "targets.npz", found)
    write_clips(work)
    sources = sources_of(work)
    shards.build_shards(
        sources, StubTeacher(), work / "shards", mixed=2, clips=32, say=lambda _: None
    )
    return work


def write_clips(work: Path) -> None:
    """A packed file of released embeddings, and ten clips as features, eight of them paired."""
    write_packed(work / "released.h5", clips=40)
    random = np.random.default_rng(1)
    np.savez(
        work / "clips.npz",
        log_mel_u8=random.integers(0, 200, (10 * 10, 96, 64), np.uint8),
        n_patches=np.full(10, 10),
        bal_train_row=np.array([*range(8), -1, -1]),
        video_id=np.array([f"id{number:09d}" for number in range(10)]),
        teacher=random.integers(0, 60, (10, 527), np.uint8),
    )


def sources_of(work: Path) -> shards.Sources:
    windows, clips = Windows(work / "windows"), AudioSetClips(work / "clips.npz")
    known = read_targets(work / "targets.npz")
    return shards.Sources(windows, clips, shards.gather_targets(windows, clips, known))


def material_of(prepared: Path) -> adaptation.Material:
    """Return what stages 2 and 3 train on."""
    released = Released(prepared / "released.h5")
    return adaptation.Material(
        shards=prepared / "shards",
        pairs=Pairs(AudioSetClips(prepared / "clips.npz"), released),
        released=released,
        judges=[Judge()],
        last_layer=(StubTeacher.kernel, StubTeacher.bias),
    )


def distilled(
    work: Path,
    out: Path,
    *,
    start: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    **changes,
) -> list[dict[str, float]]:
    """Run stage 1."""
    config = distillation.DistillationConfig(
        **{"student": STUDENT, "epochs": 3, "apart": 1, "batch": 16, "learning_rate": 3e-2}
        | changes
    )  # fmt: skip
    layer = (StubTeacher.kernel, StubTeacher.bias)
    teacher: Any = StubTeacher()
    return distillation.distil(work / "shards", teacher, layer, out, config, start=start, say=say)


def adaptation_config(**changes) -> adaptation.AdaptationConfig:
    values = {"student": STUDENT, "epochs": 2, "batch": BatchShape(64, 16, 2), "seed": 4}
    return adaptation.AdaptationConfig(**(values | changes))


def train_stages(prepared: Path, material: adaptation.Material) -> Path:
    """Finish stages 1, 2 and 3."""
    distilled(prepared, prepared / "one", epochs=5)
    config = adaptation_config(epochs=6)
    adaptation.adapt(material, prepared / "one", prepared / "two", config, say=lambda _: None)
    adaptation.tune(material, prepared / "two", prepared / "three", config, say=lambda _: None)
    return prepared


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "student.npz") as data:
        return {name: data[name] for name in data.files}
