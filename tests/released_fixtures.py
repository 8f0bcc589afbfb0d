"""Files in the layout of AudioSet's release, written without the code under test."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


@dataclass
class Clip:
    video_id: str
    start: float
    end: float
    labels: Sequence[int]
    frames: np.ndarray


def make_clips(count: int, *, seed: int = 0, frames: Sequence[int] = (10,)) -> list[Clip]:
    """Return random clips; `frames` says how many frames they have, in turn."""
    random = np.random.default_rng(seed)
    return [
        Clip(
            f"v{seed:02d}-{i:06d}",
            float(10 * random.integers(0, 40)),
            0.0,
            sorted(random.choice(527, random.integers(1, 5), replace=False).tolist()),
            random.integers(1, 256, (frames[i % len(frames)], 128), dtype=np.uint8),
        )
        for i in range(count)
    ]


def _after_eight_bits(state: int) -> int:
    for _ in range(8):
        state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state


_TABLE = [_after_eight_bits(byte) for byte in range(256)]


def crc_by_bytes(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state = _TABLE[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    value = crc_by_bytes(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    return head + masked(head) + payload + masked(payload)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def bytes_feature(*values: bytes) -> bytes:
    return part(1, b"".join(part(1, value) for value in values))


def float_feature(*values: float) -> bytes:
    return part(2, part(1, struct.pack(f"<{len(values)}f", *values)))


def int_feature(*values: int) -> bytes:
    return part(3, part(1, b"".join(map(varint, values))))


def entry(name: str, content: bytes) -> bytes:
    return part(1, part(1, name.encode()) + part(2, content))


def payload(clip: Clip, *, without: str = "", **changed: bytes) -> bytes:
    """Return a clip as a SequenceExample; `changed` gives other features of the context."""
    context = {
        "video_id": bytes_feature(clip.video_id.encode()),
        "start_time_seconds": float_feature(clip.start),
        "end_time_seconds": float_feature(clip.end or clip.start + 10),
        "labels": int_feature(*clip.labels),
        **changed,
    }
    context.pop(without, None)
    frames = b"".join(part(1, bytes_feature(frame.tobytes())) for frame in clip.frames)
    lists = b"" if without == "audio_embedding" else entry("audio_embedding", frames)
    fields = b"".join(entry(name, feature) for name, feature in context.items())
    return part(1, fields) + part(2, lists)


def write_shard(path: Path, clips: Iterable[Clip]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(framed(payload(clip)) for clip in clips))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five shards of 1, 12, 23, 34 and 45 clips, one folder down."""
    for number in range(5):
        clips = make_clips(1 + 11 * number, seed=number, frames=(10, 10, 6))
        write_shard(tmp_path / "released" / "ab" / f"{number}.tfrecord", clips)
    return tmp_path / "released"


def assert_no_leftovers(out: Path) -> None:
    assert not list(out.parent.glob(f"{out.name}?*")), "only the packed file stays"
