"""What the lab's models are given: windows, features and the cache of them, augmentation."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab_fixtures import class_folders, folders, sound

from audiosearch.errors import InvalidArgumentError, StorageError
from audiosearch.lab import LabConfig, read_sounds
from audiosearch.lab.augmentation import augment, mix
from audiosearch.lab.feature_cache import FeatureCache
from audiosearch.lab.waveforms import load_clip
from audiosearch.own.features import get_feature
from audiosearch.own.waveforms import ClipLength, windows

__all__ = ["folders"]


def test_a_long_file_is_heard_in_windows(tmp_path):
    wave = np.concatenate([np.full(16000, 0.5), np.full(16000, -0.5), np.full(9000, 0.25)])
    soundfile.write(tmp_path / "long.wav", wave, 16000, subtype="FLOAT")
    found = list(windows(str(tmp_path / "long.wav"), ClipLength(1.0)))
    assert [(start, end) for start, end, _ in found] == [(0, 1), (1, 2), (2, 2.5625)]
    assert [len(clip) for _, _, clip in found] == [16000] * 3
    assert [float(clip.mean()) for _, _, clip in found] == [0.5, -0.5, 0.25]
    soundfile.write(tmp_path / "long.wav", wave[: 32000 + 7000], 16000)
    assert len(list(windows(str(tmp_path / "long.wav"), ClipLength(1.0)))) == 2


def test_short_sounds_are_repeated_or_padded(tmp_path):
    soundfile.write(tmp_path / "short.wav", [0.1, 0.2, 0.3] * 400, 16000, subtype="FLOAT")
    (only,) = read_sounds_of(tmp_path / "short.wav")
    repeated = load_clip(only, ClipLength(0.1, "repeat"))
    padded = load_clip(only, ClipLength(0.1, "pad"))
    assert repeated[1198:1203].tolist() == pytest.approx([0.2, 0.3, 0.1, 0.2, 0.3])
    assert padded[1198:1203].tolist() == pytest.approx([0.2, 0.3, 0, 0, 0])
    with pytest.raises(InvalidArgumentError):
        ClipLength(0.0)


def read_sounds_of(path: Path):
    (path.parent / "one.csv").write_text(f"path,label\n{path.name},x\n", encoding="utf-8")
    return read_sounds(path.parent / "one.csv").sounds


def test_any_rate_and_channels_give_the_same_features(tmp_path):
    wave = sound("low", 3, rate=48000)
    soundfile.write(tmp_path / "a.wav", wave, 48000)
    soundfile.write(tmp_path / "b.flac", np.stack([wave, wave], axis=1), 48000, subtype="PCM_24")
    feature = get_feature("log-mel")
    (tmp_path / "l.csv").write_text("path,label\na.wav,x\nb.flac,y\n", encoding="utf-8")
    first, second = (
        feature.compute(load_clip(each, ClipLength(0.5)))
        for each in read_sounds(tmp_path / "l.csv").sounds
    )
    assert first.shape == (50, 64)
    np.testing.assert_allclose(first, second, atol=0.02)


def test_features_are_kept_by_content(folders, tmp_path):
    computed = []
    lite = get_feature("lite")

    def counted(waveform):
        computed.append(1)
        return lite.compute(waveform)

    feature = type(lite)(lite.name, lite.identity, counted)
    sounds = read_sounds(folders)
    with FeatureCache(tmp_path) as cache:
        first = cache.features(sounds, feature, ClipLength(0.5)).take(np.arange(30))
    assert len(computed) == 30
    moved = tmp_path / "elsewhere"
    folders_copy = class_folders(moved)
    with FeatureCache(tmp_path) as cache:
        again = cache.features(read_sounds(folders_copy), feature, ClipLength(0.5))
        assert len(computed) == 30, "the same bytes under another name"
        np.testing.assert_array_equal(again.take(np.arange(30)), first)
        cache.features(sounds, feature, ClipLength(0.4))
        assert len(computed) == 60
    (tmp_path / "features.sqlite").write_bytes(b"this is no database" * 100)
    with FeatureCache(tmp_path) as cache:
        cache.features(sounds, feature, ClipLength(0.5))
    assert len(computed) == 90


def test_a_cache_is_free_for_others_while_a_sound_is_computed(folders, tmp_path):
    with FeatureCache(tmp_path) as cache:
        lite, calls = get_feature("lite"), []

        def meanwhile(waveform):
            with contextlib.closing(sqlite3.connect(cache.path, timeout=0)) as other:
                other.execute("BEGIN IMMEDIATE")
                other.rollback()
            calls.append(1)
            return lite.compute(waveform)

        feature = type(lite)(lite.name, lite.identity, meanwhile)
        cache.features(read_sounds(folders).selected(range(3)), feature, ClipLength(0.5))
    assert len(calls) == 3


def test_a_cache_that_another_process_writes_need_not_be_deleted(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("audiosearch.lab.feature_cache._PATIENCE", 0.05)
    sounds = read_sounds(folders).selected(range(2))
    with (
        FeatureCache(tmp_path) as cache,
        contextlib.closing(sqlite3.connect(cache.path)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another process") as raised:
            cache.features(sounds, get_feature("lite"), ClipLength(0.5))
        assert "elete" not in str(raised.value)
        other.rollback()
        assert len(cache.features(sounds, get_feature("lite"), ClipLength(0.5))) == 2


def test_a_cache_that_cannot_be_written_is_said(folders, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="could not be written"):
        FeatureCache(tmp_path / "file")


def test_augmentation_changes_sounds_within_bounds():
    random = np.random.default_rng(0)
    clips = random.normal(0, 1, (6, 100, 64)).astype(np.float32)
    before = clips.copy()
    changed = augment(random, clips, "log-mel")
    np.testing.assert_array_equal(clips, before)
    assert changed.shape == clips.shape
    assert not np.array_equal(changed, clips)
    waves = random.normal(0, 0.1, (6, 4000)).astype(np.float32)
    louder = augment(random, waves, "waveform").std(axis=1) / waves.std(axis=1)
    assert 0.49 < louder.min() < louder.max() < 2.05
    assert augment(random, before, "lite") is before


def tone_bands(clips: np.ndarray) -> np.ndarray:
    """Return the loudest band of each log-mel spectrogram."""
    return clips.mean(axis=1).argmax(axis=1)


def test_pitch_moves_a_tone_and_stretch_does_not():
    random = np.random.default_rng(0)
    mel = get_feature("log-mel").compute(sound("high", 1, seconds=1.0))
    clips = np.repeat(mel[None], 40, axis=0)
    (before,) = set(tone_bands(clips[:1]))
    moved = tone_bands(augment(random, clips, "log-mel", ["pitch"])) - before
    # Three semitones from 3,000 Hz are 166 mel, which are four bands.
    assert -6 <= moved.min() < -2
    assert 2 < moved.max() <= 6
    same = augment(random, clips, "log-mel", ["stretch"])
    assert set(tone_bands(same)) == {before}
    images = np.repeat(get_feature("image").compute(sound("high", 1))[None], 20, axis=0)
    assert len(set(tone_bands(augment(random, images, "image", ["pitch"])))) > 3


def test_stretch_changes_how_fast_clicks_come():
    random = np.random.default_rng(1)
    mel = get_feature("log-mel").compute(sound("clicks", 1, seconds=2.0))

    def clicks(clip: np.ndarray) -> int:
        loud = clip.mean(axis=1) > clip.mean()
        return int((np.diff(loud.astype(int)) == 1).sum())

    counts = [
        clicks(each)
        for each in augment(random, np.repeat(mel[None], 30, axis=0), "log-mel", ["stretch"])
    ]
    assert clicks(mel) in (19, 20)
    assert 15 <= min(counts) < 18
    assert 22 < max(counts) <= 26


@pytest.mark.parametrize("name", ["pitch", "stretch"])
def test_waveforms_change_pitch_and_speed_alone(name):
    random = np.random.default_rng(0)
    wave = sound("high", 1, seconds=1.0)
    changed = augment(random, np.repeat(wave[None], 6, axis=0), "waveform", [name])
    assert changed.shape == (6, 16000)
    peaks = np.abs(np.fft.rfft(changed, axis=1)).argmax(axis=1)
    original = int(np.abs(np.fft.rfft(wave)).argmax())
    ratios = peaks / original
    if name == "pitch":
        assert 2 ** (-3.1 / 12) < ratios.min() < 0.97
        assert 1.03 < ratios.max() < 2 ** (3.1 / 12)
    else:
        np.testing.assert_allclose(ratios, 1, atol=0.01)


@pytest.mark.parametrize("feature", ["waveform", "log-mel"])
def test_a_background_is_soft(feature):
    random = np.random.default_rng(0)
    tone, noise = sound("low", 1, seconds=1.0), sound("noise", 1, seconds=1.0)
    compute = get_feature(feature).compute
    clips = np.stack([compute(tone), compute(noise)])
    for _ in range(20):  # until they are behind each other
        mixed = augment(random, clips, feature, ["background"])
        if feature == "waveform":
            behind = mixed[0] - clips[0]
            share = 20 * np.log10(behind.std() / clips[0].std())
            if np.corrcoef(behind, clips[1])[0, 1] > 0.99:
                assert -30.1 < share < -9.9
                return
        elif np.abs(mixed[0] - clips[0]).max() > 0.5:
            # Where the tone is not, the noise is heard; the tone is as loud as before.
            band = int(tone_bands(clips[:1])[0])
            assert np.abs(mixed[0] - clips[0])[:, band].max() < 0.5
            assert (mixed[0] >= clips[0] - 1e-4).all()
            return
    raise AssertionError("no background in twenty tries")


def test_unknown_augmentations_are_refused():
    with pytest.raises(InvalidArgumentError, match="pitch, stretch, background, not 'echo'"):
        LabConfig(augmentations="shift,echo")
    assert LabConfig(augment=False).wanted_augmentations == ()


def test_mixup_mixes_labels_as_it_mixes_sounds():
    random = np.random.default_rng(0)
    targets = np.eye(8, dtype=np.float32)
    clips, mixed = mix(random, targets.copy(), targets, 1.0)
    np.testing.assert_allclose(clips, mixed)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    assert (mixed.max(axis=1) < 1).any()
    assert (mixed.argmax(axis=1) == np.arange(8)).all()
