"""Log-mel patches: against a float64 computation from the definition, and however cut in blocks."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiosearch import frontend
from audiosearch.errors import InvalidArgumentError

RATE = 16000


def mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def golden_matrix() -> np.ndarray:
    """The mel weights, bin by bin and band by band, as the definition words them."""
    step = (mel(7500.0) - mel(125.0)) / 65
    matrix = np.zeros((257, 64))
    for k in range(1, 257):
        place = mel(k * 16000 / 512)
        for band in range(64):
            centre = mel(125.0) + (band + 1) * step
            matrix[k, band] = max(0.0, 1.0 - abs(place - centre) / step)
    return matrix


def golden_log_mel(waveform: np.ndarray) -> np.ndarray:
    """Float64, with the Fourier transform written as a matrix of sines and cosines."""
    n = np.arange(400)
    angle = 2 * np.pi * np.outer(n, np.arange(257)) / 512
    window = 0.5 * (1 - np.cos(2 * np.pi * n / 400))
    count = 1 + (len(waveform) - 400) // 160
    frames = np.stack([waveform[160 * i : 160 * i + 400] for i in range(count)]).astype(np.float64)
    frames *= window
    magnitude = np.hypot(frames @ np.cos(angle), frames @ np.sin(angle))
    return np.log(magnitude @ golden_matrix() + 0.01)


def sounds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    time = np.arange(3 * RATE) / RATE
    return {
        "noise": random.normal(0, 0.2, 3 * RATE),
        "quiet noise": random.normal(0, 1e-4, 3 * RATE),
        "440 Hz": np.sin(2 * np.pi * 440 * time),
        "100 Hz": 0.5 * np.sin(2 * np.pi * 100 * time),
        "7 kHz": 0.9 * np.sin(2 * np.pi * 7000 * time),
        "sweep": 0.5 * np.sin(2 * np.pi * (50 * time + 1200 * time**2)),
        "clicks": (np.arange(3 * RATE) % 4000 == 0) * 1.0,
        "full scale square": np.sign(np.sin(2 * np.pi * 1000 * time)),
        "offset": np.full(3 * RATE, 0.5),
        "silence": np.zeros(3 * RATE),
    }


@pytest.mark.parametrize("name", sounds())
def test_equals_the_published_definition(name: str) -> None:
    waveform = sounds()[name].astype(np.float32)
    got = frontend.log_mel(waveform)
    assert got.dtype == np.float32
    expected = golden_log_mel(waveform)
    assert got.shape == expected.shape == (298, 64)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_mel_matrix_equals_the_definition() -> None:
    matrix = frontend.mel_matrix()
    np.testing.assert_allclose(matrix, golden_matrix(), atol=1e-9)
    assert not matrix[0].any()


def test_silence_is_the_log_of_the_offset() -> None:
    got = frontend.log_mel(np.zeros(RATE, np.float32))
    np.testing.assert_allclose(got, math.log(0.01), rtol=1e-6)


def test_a_tone_is_loudest_in_its_band() -> None:
    step = (mel(7500.0) - mel(125.0)) / 65
    for hertz in (300, 1000, 4000, 7000):
        tone = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
        band = (mel(hertz) - mel(125.0)) / step - 1
        assert np.abs(frontend.log_mel(tone).mean(axis=0).argmax() - band) <= 1


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (15600, 96)]
)
def test_frame_count(samples: int, frames: int) -> None:
    assert frontend.log_mel(np.ones(samples, np.float32)).shape == (frames, 64)


def count(samples: int, hop: float = 0.96) -> int:
    return sum(map(len, frontend.patches(np.ones(samples, np.float32), hop=hop)))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (0, 0),
        (1, 1),
        (160, 1),  # 10 ms
        (399, 1),
        (400, 1),
        (15599, 1),
        (15600, 1),  # exactly one patch of 96 frames
        (15600 + 47 * 160, 1),  # 47 frames more: dropped
        (15600 + 48 * 160 - 1, 1),
        (15600 + 48 * 160, 2),  # 48 more: half a patch, kept
        (15600 + 96 * 160, 2),
        (80000, 5),  # 5 s: 498 frames, 18 over
        (160000, 10),  # 10 s, as in VGGish
        (160000 * 6, 62),  # 60 s: 5998 frames, 46 over
        (16000 * 600, 625),
    ],
)
def test_how_many_patches_a_sound_gives(samples: int, expected: int) -> None:
    assert count(samples) == expected


def test_a_short_sound_is_padded_with_silence_at_its_end() -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, 4000).astype(np.float32)
    (batch,) = frontend.patches(sound)
    assert batch.shape == (1, 96, 64)
    padded = np.concatenate([sound, np.zeros(11600)])
    np.testing.assert_allclose(batch[0], golden_log_mel(padded), atol=1e-4)


def test_the_last_patch_is_padded_with_silence_at_its_end() -> None:
    sound = np.random.default_rng(2).normal(0, 0.1, 15600 + 60 * 160).astype(np.float32)
    batch = np.concatenate(list(frontend.patches(sound)))
    padded = np.concatenate([sound, np.zeros(36 * 160)])
    np.testing.assert_allclose(batch.reshape(-1, 64), golden_log_mel(padded), atol=1e-4)


def test_overlapping_patches_begin_at_every_hop() -> None:
    sound = np.random.default_rng(3).normal(0, 0.1, 3 * RATE).astype(np.float32)
    frames = frontend.log_mel(sound)
    batch = np.concatenate(list(frontend.patches(sound, hop=0.25)))
    # 298 frames: whole patches at 0, 25, ... 200; the one at 225 is the first to reach the end.
    assert len(batch) == 10
    for number in range(9):
        np.testing.assert_array_equal(batch[number], frames[25 * number : 25 * number + 96])
    np.testing.assert_array_equal(batch[9][:73], frames[225:])


def test_distant_patches_leave_gaps() -> None:
    sound = np.random.default_rng(4).normal(0, 0.1, 10 * RATE).astype(np.float32)
    frames = frontend.log_mel(sound)
    batch = np.concatenate(list(frontend.patches(sound, hop=3.0)))
    # 998 frames: at 0, 300, 600 and 900; the last is complete up to frame 996.
    assert len(batch) == 4
    np.testing.assert_array_equal(batch[3], frames[900:996])


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 60000),
    sizes=st.lists(st.integers(0, 20000), min_size=1, max_size=30),
    hop=st.sampled_from([0.96, 0.48, 0.1, 2.0]),
)
def test_blocks_of_any_size_give_the_same_bits(samples: int, sizes: list[int], hop: float) -> None:
    sound = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    blocks, first = [], 0
    for size in sizes:
        blocks.append(sound[first : first + size])
        first += size
    blocks.append(sound[first:])
    whole = list(frontend.patches(sound, hop=hop))
    cut = list(frontend.patches(iter(blocks), hop=hop))
    assert [len(batch) for batch in whole] == [len(batch) for batch in cut]
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [1, 7, 160, 399])
def test_tiny_blocks_give_the_same_bits(size: int) -> None:
    sound = np.random.default_rng(5).normal(0, 0.1, 20000).astype(np.float32)
    blocks = [sound[first : first + size] for first in range(0, len(sound), size)]
    whole = np.concatenate(list(frontend.patches(sound)))
    np.testing.assert_array_equal(np.concatenate(list(frontend.patches(blocks))), whole)


def test_a_patch_does_not_depend_on_where_the_memory_lies() -> None:
    sound = np.random.default_rng(6).normal(0, 0.1, 40000).astype(np.float32)
    shifted = np.empty(40003, np.float32)[3:]
    shifted[:] = sound
    double = sound.astype(np.float64)
    for other in (shifted, double, np.repeat(sound, 2)[::2]):
        np.testing.assert_array_equal(frontend.log_mel(sound), frontend.log_mel(other))


def test_batches_hold_at_most_32_patches() -> None:
    sizes = [len(batch) for batch in frontend.patches(np.ones(16000 * 70, np.float32))]
    assert sizes == [32, 32, 9]
    assert sum(sizes) == count(16000 * 70)


def test_memory_does_not_grow_with_length() -> None:
    def ten_minutes() -> Iterator[np.ndarray]:
        block = np.zeros(RATE * 10, np.float32)
        for _ in range(60):
            yield block

    next(frontend.patches(np.zeros(100, np.float32)))
    tracemalloc.start()
    try:
        assert sum(map(len, frontend.patches(ten_minutes()))) == 625
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000  # the sound is 38 MB, its patches 15


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros((100, 2), np.float32),
        np.zeros(100, np.int16),
        np.zeros(100, np.complex64),
        [0.0] * 100,
        np.array([0.0, np.nan], np.float32),
        np.array([0.0, np.inf], np.float32),
    ],
    ids=["stereo", "integers", "complex", "list", "NaN", "infinity"],
)
def test_what_is_no_waveform_is_refused(waveform: np.ndarray) -> None:
    with pytest.raises(InvalidArgumentError):
        frontend.log_mel(waveform)


@pytest.mark.parametrize("hop", [0, -0.96, 0.005, 0.965, 0.0101, math.nan, math.inf])
def test_an_impossible_hop_is_refused_at_once(hop: float) -> None:
    with pytest.raises(InvalidArgumentError, match="hop"):
        frontend.patches(np.zeros(RATE, np.float32), hop=hop)
