"""Training of the bundled embedder: sounds out of packages, shards, stages, export, measures."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
import tarfile
import wave
import zipfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, write_packed

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from audiosearch.classifier.clip_scorer import ClipScorer
from audiosearch.classifier.network import import_keras
from audiosearch.classifier.rescoring import Rescorer, logits_of
from audiosearch.classifier.rescoring_fit import write_rescorer
from audiosearch.classifier.scorer import classifier_identity, load_scorer
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.labels import load_labels
from audiosearch.models import bundled_model, read_model
from tools.lite import (
    adaptation,
    audit,
    distillation,
    guiding,
    measures,
    mixing,
    rescoring,
    shards,
    teacher,
)
from tools.lite.archives import read_package
from tools.lite.batching import BatchShape, PairPool, clip_batches
from tools.lite.catalogue import Package, Sound, read_packages, read_rows, read_sounds
from tools.lite.collection import SoundStore, collect, short_sha1
from tools.lite.commands import export_run
from tools.lite.export import export_student
from tools.lite.growth import grow
from tools.lite.guide import Guide
from tools.lite.judging import Judge
from tools.lite.losses import class_weights
from tools.lite.network import (
    StudentConfig,
    build_adaptor,
    build_head,
    build_trunk,
    multiplications,
)
from tools.lite.released import AudioSetClips, Pairs, Released, fold_of
from tools.lite.report import HeldOut
from tools.lite.restoring import restore, restore_parts
from tools.lite.run import load_parts
from tools.lite.survey import licence_in, survey
from tools.lite.targets import key_of, mixed_target, read_targets, write_targets
from tools.lite.variants import variants_of
from tools.lite.windows import Windows, cut_windows

RATE = 16000
STUDENT = StudentConfig(channels=4, depths=(1, 1), block="full", features=16, hidden=(12,))


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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A work folder with windows, targets, clean and mixed shards, of tones and noise."""
    work = tmp_path_factory.mktemp("lite")
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


@pytest.fixture(scope="module")
def material(prepared) -> adaptation.Material:
    released = Released(prepared / "released.h5")
    return adaptation.Material(
        shards=prepared / "shards",
        pairs=Pairs(AudioSetClips(prepared / "clips.npz"), released),
        released=released,
        judges=[Judge()],
        last_layer=(StubTeacher.kernel, StubTeacher.bias),
    )


def distilled(work: Path, out: Path, epochs: int = 2) -> list[dict[str, float]]:
    config = distillation.DistillationConfig(
        student=STUDENT, epochs=epochs, batch=16, learning_rate=5e-3
    )
    layer = (StubTeacher.kernel, StubTeacher.bias)
    return distillation.distil(work / "shards", layer, out, config, say=lambda _: None)


def adaptation_config(**changes) -> adaptation.AdaptationConfig:
    values = {"student": STUDENT, "epochs": 2, "batch": BatchShape(64, 16, 2), "seed": 4}
    return adaptation.AdaptationConfig(**(values | changes))


@pytest.fixture(scope="module")
def stages(prepared, material) -> Path:
    """Finished stages 1, 2 and 3."""
    distilled(prepared, prepared / "one")
    config = adaptation_config(epochs=6)
    adaptation.adapt(material, prepared / "one", prepared / "two", config, say=lambda _: None)
    adaptation.tune(material, prepared / "two", prepared / "three", config, say=lambda _: None)
    return prepared


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "student.npz") as data:
        return {name: data[name] for name in data.files}


# Packages


def test_sounds_are_found_in_packages_and_in_containers_inside_them(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("sound/dog.wav", wav(tone(300, 0.2)))
        archive.writestr("readme.txt", "nothing")
    files = {
        "./usr/share/game/bell.WAV": wav(tone(500, 0.2)),
        "./usr/share/game/data.pk3": inner.getvalue(),
        "./usr/share/game/picture.png": b"png",
        "./usr/share/doc/game/copyright": b"License: CC0-1.0\n",
    }
    path = tmp_path / "game.deb"
    path.write_bytes(deb(files))
    found = dict(read_package(path))
    assert set(found) == {
        "usr/share/game/bell.WAV",
        "usr/share/game/data.pk3!sound/dog.wav",
        "usr/share/doc/game/copyright",
    }
    assert found["usr/share/game/data.pk3!sound/dog.wav"] == wav(tone(300, 0.2))
    (tmp_path / "game.tgz").write_bytes(tar(files, "w:gz"))
    assert dict(read_package(tmp_path / "game.tgz")) == found


def test_a_file_that_is_no_package_is_refused(tmp_path):
    (tmp_path / "broken.deb").write_bytes(b"!<arch>\nnonsense")
    with pytest.raises(DataError, match="not a readable package"):
        list(read_package(tmp_path / "broken.deb"))


def test_a_soundfonts_held_notes_are_played_through_their_loop(tmp_path):
    note = tone(400, 0.5)
    path = tmp_path / "a.tar"
    content = soundfont([("held", note, 4000, 8000), ("hit", note, 0, 0)])
    path.write_bytes(tar({"a.sf2": content}, "w"))
    (_, held), (_, hit) = read_package(path)
    with wave.open(io.BytesIO(held)) as file:
        assert file.getnframes() == 3 * RATE
        samples = np.frombuffer(file.readframes(3 * RATE), "<i2") / 32767
    # The loop holds whole periods, so the tone goes on as it was, until it is faded out.
    assert np.abs(samples[: 2 * RATE] - tone(400, 2)).max() < 1e-3
    assert abs(samples[-1]) < 1e-3
    with wave.open(io.BytesIO(hit)) as file:
        assert file.getnframes() == len(note)


def test_ogg_files_are_cut_out_of_resource_files(tmp_path):
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, tone(400, 0.5), RATE, format="OGG")
    content = b"header" + target.getvalue() + b"between OggS" + target.getvalue() + b"end"
    path = tmp_path / "a.tar"
    path.write_bytes(tar({"a.gresource": content}, "w"))
    found = dict(read_package(path))
    assert list(found) == ["a.gresource!0001.ogg", "a.gresource!0002.ogg"]
    assert set(found.values()) == {target.getvalue()}


def test_packages_are_downloaded_verified_and_only_listed_sounds_kept(tmp_path):
    listed, other = wav(tone(500, 0.2)), wav(tone(600, 0.2))
    (tmp_path / "pool").mkdir()
    content = deb({"./usr/a.wav": listed, "./usr/b.wav": other, "./usr/c.wav": listed})
    (tmp_path / "pool" / "a.deb").write_bytes(content)
    import hashlib

    mirror = tmp_path.as_uri()
    sha256 = hashlib.sha256(content).hexdigest()
    package = Package("debian", "a", "1", "pool/a.deb", sha256, "", "train")
    sounds = [Sound("a", "usr/a.wav", short_sha1(listed), 1)]
    store = SoundStore(tmp_path / "work" / "store")
    store.folder.mkdir(parents=True)
    lines: list[str] = []
    assert collect([package], sounds, store, mirror=mirror, say=lines.append) == 0
    assert store.find(short_sha1(listed)).read_bytes() == listed
    assert store.find(short_sha1(other)) is None
    # What is there is not fetched again: the mirror is not even asked.
    assert collect([package], sounds, store, mirror="file:///nowhere", say=lines.append) == 0
    wrong = Package("debian", "a", "1", "pool/a.deb", "0" * 64, "", "train")
    empty = SoundStore(tmp_path / "work" / "other")
    empty.folder.mkdir()
    assert collect([wrong], sounds, empty, mirror=mirror, say=lines.append) == 1
    assert "SHA-256" in lines[-2]


def test_a_clone_stands_for_a_repository_and_what_it_lacks_is_counted(tmp_path):
    clone = tmp_path / "clones" / "owner" / "sounds"
    clone.mkdir(parents=True)
    here, gone = wav(tone(500, 0.2)), wav(tone(600, 0.2))
    (clone / "Blätter.wav").write_bytes(here)
    (clone / "gone.wav").write_bytes(gone)
    (clone / "README.md").write_text("about")

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(clone), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "sounds")
    missing = git("rev-parse", "HEAD:gone.wav")
    (clone / ".git" / "objects" / missing[:2] / missing[2:]).unlink()
    commit = git("rev-parse", "HEAD")
    package = Package("github", "owner/sounds", commit, "", "", "CC0", "train")
    sounds = [Sound("owner/sounds", "", short_sha1(content), 1) for content in (here, gone)]
    store = SoundStore(tmp_path / "work" / "store")
    store.folder.mkdir(parents=True)
    lines: list[str] = []
    assert collect([package], sounds, store, clones=tmp_path / "clones", say=lines.append) == 1
    assert store.find(short_sha1(here)).read_bytes() == here
    assert lines == [f"owner/sounds {commit}: 1 of 2 sounds"]
    surveyed = survey(package, store, clones=tmp_path / "clones")
    assert [sound.path for sound in surveyed.sounds] == [f"sounds-{commit}/Blätter.wav"]


def test_a_survey_lists_sounds_with_their_windows_and_the_licence(tmp_path):
    (tmp_path / "pool").mkdir()
    files = {
        "./usr/long.wav": wav(tone(500, 21.5)),
        "./usr/short.wav": wav(tone(500, 0.2)),
        "./usr/silence.wav": wav(np.zeros(RATE)),
        "./usr/broken.wav": b"RIFF",
        "./usr/share/doc/a/copyright": b"Files: *\nLicense: GPL-2+\nLicense: CC-BY-3.0\n",
    }
    (tmp_path / "pool" / "a.deb").write_bytes(deb(files))
    package = Package("debian", "a", "1", "pool/a.deb", "", "", "train")
    (tmp_path / "work").mkdir()
    found = survey(package, SoundStore(tmp_path / "work" / "store"), mirror=tmp_path.as_uri())
    assert {sound.path: sound.windows for sound in found.sounds} == {
        "usr/long.wav": 3,
        "usr/short.wav": 1,
    }
    assert found.package.licence == "GPL-2+; CC-BY-3.0"


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("package/package.json", '{"license": "CC0-1.0"}', "CC0-1.0"),
        ("package/package.json", "{", ""),
        ("a.dist-info/METADATA", "Name: a\nLicense-Expression: MIT\n", "MIT"),
        ("usr/share/doc/a/copyright", "under the GNU General Public License", "GPL"),
        ("usr/share/doc/a/copyright", "all rights reserved", ""),
    ],
)
def test_the_licence_is_what_the_package_states(name, text, licence):
    assert licence_in(name, text) == licence


def test_the_committed_lists_fit_together():
    packages = {package.package: package for package in read_packages()}
    sounds = read_sounds()
    assert {sound.package for sound in sounds} <= set(packages)
    assert all(package.licence for package in packages.values())
    assert len({sound.sha1 for sound in sounds}) == len(sounds)
    assert all(1 <= sound.windows <= 4 for sound in sounds)
    held_out = [HeldOut(**row) for row in read_rows(REPOSITORY / "tools/lite/heldout.csv", HeldOut)]
    listed = {sound.sha1 for sound in sounds}
    labels = load_labels()
    for row in held_out:
        assert packages[row.package].role == "test"
        assert row.sha1 in listed
        labels.by_name(row.accepted_class)


# Mixing and shards


def test_mixing_is_the_seeds_and_stays_in_bounds():
    settings = mixing.Mixing(second=1, speed=1, filtered=1, band_limited=1, room=1, noise=1)
    first, second = tone(300, 3.0), tone(900, 12.0)
    results = [
        mixing.mix(np.random.default_rng(seed), first, second, settings) for seed in (1, 1, 2)
    ]
    assert np.array_equal(results[0].waveform, results[1].waveform)
    assert not np.array_equal(results[0].waveform[:RATE], results[2].waveform[:RATE])
    for result in results:
        assert result.waveform.dtype == np.float32
        assert len(result.waveform) <= 10 * RATE
        assert 0.05 < np.abs(result.waveform).max() <= 1.0
        assert -5 <= result.ratio_db <= 20


def test_the_second_sound_is_as_much_quieter_as_is_said():
    settings = mixing.Mixing(
        speed=0, filtered=0, band_limited=0, room=0, noise=0, ratio_db=(12.0, 12.0)
    )
    mixed = mixing.mix(np.random.default_rng(0), tone(500, 8), tone(2000, 10), settings)
    # Where both sound, the spectrum's peaks differ by the ratio.
    middle = mixed.waveform[3 * RATE : 4 * RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(RATE)))
    assert 20 * np.log10(spectrum[500] / spectrum[2000]) == pytest.approx(12.0, abs=0.3)


def test_long_sounds_that_are_slowed_down_can_be_mixed():
    random = np.random.default_rng(0)
    sound = tone(500, 10.0)
    settings = mixing.Mixing(speed=1.0, speeds=(0.5, 0.9))
    for _ in range(20):
        result = mixing.mix(random, sound, sound, settings)
        assert 8 * RATE < len(result.waveform) <= 10 * RATE


def test_silence_can_be_mixed():
    settings = mixing.Mixing(second=1, noise=1)
    silence = np.zeros(RATE, np.float32)
    for second in (None, silence, tone(300, 1)):
        mixed = mixing.mix(np.random.default_rng(0), silence, second, settings)
        assert np.isfinite(mixed.waveform).all()


def test_codes_of_log_mel_and_of_embeddings_are_exact_enough():
    random = np.random.default_rng(0)
    log_mel = random.uniform(-4.6, 7.9, (4, 96, 64)).astype(np.float32)
    error = np.abs(shards.decode_log_mel(shards.encode_log_mel(log_mel)) - log_mel)
    assert error.max() < 0.026
    embedding = random.uniform(0, 6, (4, 1024)).astype(np.float32) ** 3 / 36
    decoded = teacher.decode_embedding(teacher.encode_embedding(embedding))
    assert np.abs(decoded - embedding).max() < 0.025
    assert np.abs(decoded - embedding)[embedding < 0.1].max() < 0.004


def test_yamnets_log_mel_differs_by_the_offset_alone():
    mel = np.geomspace(1e-5, 100, 640, dtype=np.float32).reshape(1, 10, 64)
    theirs = teacher.its_log_mel(np.log(mel + np.float32(0.01)))
    assert np.abs(theirs - np.log(mel + 0.001)).max() < 2e-3


def test_a_mixs_target_keeps_what_is_audible():
    first, second = np.zeros(527, np.float32), np.zeros(527, np.float32)
    first[1], second[2] = 0.8, 0.6
    heard = np.zeros(527, np.float32)
    assert mixed_target(first, second, 0.0, heard)[[1, 2]] == pytest.approx([0.4, 0.3])
    assert mixed_target(first, second, 10.0, heard)[[1, 2]] == pytest.approx([0.4, 0.15])
    assert mixed_target(first, second, 30.0, heard)[[1, 2]] == pytest.approx([0.4, 0.0])
    assert mixed_target(first, None, float("inf"), heard)[1] == pytest.approx(0.4)


def test_shards_hold_every_source_and_what_the_teacher_says_of_the_mix(prepared):
    sources = sources_of(prepared)
    clean = shards.Shard(shards.shard_folders(prepared / "shards", "clean")[0])
    assert clean.source.tolist() == list(range(len(sources)))
    log_mel = shards.decode_log_mel(np.asarray(clean.log_mel[clean.start[3] : clean.start[4]]))
    assert np.abs(log_mel - sources.log_mel(3)).max() < 0.026
    assert np.array_equal(clean.target, sources.targets)
    for folder in shards.shard_folders(prepared / "shards", "mixed"):
        shard = shards.Shard(folder)
        answer, _ = StubTeacher().answer(shards.decode_log_mel(np.asarray(shard.log_mel)))
        stored = teacher.decode_embedding(np.asarray(shard.embedding))
        assert np.abs(stored - answer).max() < 0.06


def test_a_shard_depends_on_its_seed_alone(prepared, tmp_path):
    # Only the second mixed shard is made, after the first was left behind by another run.
    whole = prepared / "shards"
    (tmp_path / "mixed-0000").mkdir()
    for name in ("clean-0000",):
        (tmp_path / name).mkdir()
    shards.build_shards(
        sources_of(prepared), StubTeacher(), tmp_path, mixed=2, clips=32, say=lambda _: None
    )
    for name in ("log_mel.npy", "embedding.npy"):
        made, expected = tmp_path / "mixed-0001" / name, whole / "mixed-0001" / name
        assert made.read_bytes() == expected.read_bytes()


def test_rare_classes_are_drawn_by_the_inverse_root_of_their_count(prepared):
    sources = sources_of(prepared)
    top = sources.targets.argmax(axis=1)
    counts = np.bincount(top)[top]
    weights = sources.weights()
    assert weights.sum() == pytest.approx(1)
    assert weights * np.sqrt(counts) == pytest.approx(weights[0] * np.sqrt(counts[0]))


def test_targets_are_found_by_key_and_a_window_without_one_is_named(prepared):
    windows = Windows(prepared / "windows")
    row = windows.rows[0]
    assert key_of(row.sha1, 0) in read_targets(prepared / "targets.npz")
    with pytest.raises(DataError, match=row.sha1):
        shards.gather_targets(windows, None, {})


# Copies of tests


def test_a_copy_is_recognised_and_a_like_sound_is_not(prepared, tmp_path):
    random = np.random.default_rng(3)
    steps = np.repeat(random.uniform(0, 1, 60), RATE // 10).astype(np.float32)
    noise = random.normal(0, 0.2, len(steps)).astype(np.float32)
    original = steps * noise
    from audiosearch.frontend import log_mel

    louder_part = 0.5 * original[2 * RATE : 5 * RATE] + random.normal(0, 1e-3, 3 * RATE)
    other = np.repeat(random.uniform(0, 1, 60), RATE // 10) * random.normal(0, 0.2, len(steps))
    frames = log_mel(original)
    assert audit.likeness(frames, log_mel(louder_part.astype(np.float32))) > 0.9
    assert audit.likeness(frames, log_mel(other.astype(np.float32))) < audit.GUILTY


def test_the_audit_names_the_window_that_holds_a_test_recording(prepared, tmp_path):
    sources = sources_of(prepared)
    random = np.random.default_rng(0)
    window = sources.windows.waveform(9)
    sound = window + random.normal(0, 1e-4, len(window)).astype(np.float32)
    (tmp_path / "test.wav").write_bytes(wav(sound))
    clean = shards.shard_folders(prepared / "shards", "clean")
    found = audit.find_copies(
        [tmp_path / "test.wav"], sources, clean, StubTeacher(), say=lambda _: None
    )
    assert [copy.source for copy in found][:1] == [9]


# Network, stages and export


@pytest.mark.parametrize("block", ["full", "separable"])
@pytest.mark.parametrize("hidden", [(), (12, 8)])
def test_the_exported_network_equals_kerass(block, hidden, tmp_path):
    import keras
    import onnxruntime

    keras.utils.set_random_seed(1)
    config = StudentConfig(channels=4, depths=(1, 2), block=block, features=10, hidden=hidden)
    random = np.random.default_rng(0)
    trunk = build_trunk(config)
    adaptor = build_adaptor(config, mean=random.normal(0, 0.1, 128), deviation=np.full(128, 0.2))
    patches = random.normal(-1, 2, (24, 96, 64)).astype(np.float32)
    # Some training, so that normalisation is not the identity.
    for model, inputs in ((trunk, patches), (adaptor, random.uniform(0, 1, (24, 10)))):
        model.compile("adam", "mse")
        for _ in range(3):
            model.train_on_batch(inputs, random.normal(0, 1, (24, model.output_shape[-1])))
    features = np.asarray(trunk.predict(patches, verbose=0))
    expected = np.clip(np.asarray(adaptor.predict(features, verbose=0)), -1, 1)
    path = export_student(trunk, adaptor, config, tmp_path / "lite.onnx", half=False)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"log_mel": patches})
    assert np.abs(found - expected).max() < 2e-5
    assert np.abs(expected).max() > 0.1
    manifest = json.loads((tmp_path / "lite.json").read_text(encoding="utf-8"))
    assert manifest["space"] == "audioset-vggish"


def test_multiplications_are_counted():
    config = StudentConfig(channels=8, depths=(1,), block="full", features=5, hidden=())
    tiles = 24 * 16 * 8 * 16
    block = 24 * 16 * 9 * 8 * 8
    assert multiplications(config) == tiles + block + 16 * 8 * 5 + 5 * 128


def test_a_trunk_that_was_grown_answers_nearly_as_the_one_before(stages):
    patches = shards.decode_log_mel(
        np.asarray(shards.Shard(stages / "shards" / "mixed-0000").log_mel[:64])
    )

    def answers(config, fill):
        parts = {"trunk": build_trunk(config), "head": build_head(config)}
        fill(parts)
        features = parts["trunk"].predict(patches, verbose=0)
        return np.asarray(parts["head"].predict(features, verbose=0))

    before = answers(STUDENT, lambda parts: load_parts(stages / "one", parts))
    deeper = replace(STUDENT, depths=(1, 3))
    grown = answers(deeper, lambda parts: grow(stages / "one", deeper, parts))
    strange = answers(deeper, lambda parts: None)
    assert np.mean(np.square(grown - before)) < 0.1 * np.mean(np.square(strange - before))


@pytest.mark.parametrize("changes", [{"depths": (0, 1)}, {"channels": 8}, {"depths": (1, 1, 1)}])
def test_only_blocks_can_grow(stages, changes):
    config = replace(STUDENT, **changes)
    parts = {"trunk": build_trunk(config), "head": build_head(config)}
    with pytest.raises(InvalidArgumentError, match="only blocks can be added"):
        grow(stages / "one", config, parts)


def test_a_longer_training_can_leave_out_the_first_shards(stages, tmp_path):
    config = distillation.DistillationConfig(
        student=replace(STUDENT, depths=(1, 2)), epochs=1, batch=16, clean=0.0, first=1
    )
    layer = (StubTeacher.kernel, StubTeacher.bias)
    rows = distillation.distil(
        stages / "shards",
        layer,
        tmp_path / "more",
        config,
        start=stages / "one",
        say=lambda _: None,
    )
    assert len(rows) == 1
    assert (tmp_path / "more" / "student.npz").exists()
    with pytest.raises(InvalidArgumentError, match="number 9"):
        distillation.distil(stages / "shards", layer, tmp_path / "none", replace(config, first=9))


@pytest.mark.parametrize("block", ["full", "separable"])
@pytest.mark.parametrize("hidden", [(12,), ()])
def test_an_exported_embedder_can_be_trained_on_from_its_weights(block, hidden, tmp_path):
    config = replace(STUDENT, block=block, hidden=hidden)
    random = np.random.default_rng(3)
    mean = random.normal(0, 0.1, 128).astype(np.float32)
    deviation = random.uniform(0.2, 0.4, 128).astype(np.float32)
    trunk, adaptor = build_trunk(config), build_adaptor(config, mean=mean, deviation=deviation)
    for part in (trunk, adaptor):
        for layer in part.layers:
            if len(layer.get_weights()) == 4:  # normalisation as after some training
                shape = layer.get_weights()[0].shape
                layer.set_weights(
                    [random.uniform(0.5, 2, shape), random.normal(0, 0.5, shape),
                     random.normal(0, 0.5, shape), random.uniform(0.3, 3, shape)]
                )  # fmt: skip
    path = export_student(trunk, adaptor, config, tmp_path / "a.onnx", half=False)
    log_mel = random.uniform(-4, 3, (40, 96, 64)).astype(np.float32)
    parts, _ = restore_parts(path, config, log_mel, mean=mean, deviation=deviation)

    def answers(trunk, adaptor, *, training: bool = False) -> np.ndarray:
        return arrays(adaptor(trunk(log_mel, training=training), training=training))

    expected = answers(trunk, adaptor)
    assert np.allclose(answers(**parts), expected, atol=2e-4)
    # Normalised by the batch that it was taken apart by, it answers the same.
    assert np.allclose(answers(**parts, training=True), expected, atol=5e-3)
    assert not np.allclose(answers(trunk, adaptor, training=True), expected, atol=0.1)


def test_a_restored_embedder_is_a_stage_to_go_on_from(stages, material, tmp_path):
    path = tmp_path / "lite.onnx"
    export_run(Namespace(run_folder=stages / "three", target=path))
    mixed = shards.Shard(stages / "shards" / "mixed-0000")
    restore(path, STUDENT, mixed, material.released, tmp_path / "again", teacher=mixed)
    log_mel = shards.decode_log_mel(np.asarray(mixed.log_mel[:64]))
    parts = {"trunk": build_trunk(STUDENT), "head": build_head(STUDENT)}
    load_parts(tmp_path / "again", parts)
    guess = arrays(parts["head"](parts["trunk"](log_mel)))
    mean, deviation = distillation.embedding_statistics(mixed)
    wanted = (teacher.decode_embedding(np.asarray(mixed.embedding[:64])) - mean) / deviation
    assert np.square(guess - wanted).mean() < 0.6 * np.square(wanted).mean()
    rows = adaptation.tune(
        material, tmp_path / "again", tmp_path / "more", adaptation_config(), say=lambda _: None
    )
    assert len(rows) == 2
    with pytest.raises(DataError, match="another shape"):
        restore_parts(
            path, replace(STUDENT, depths=(1, 2)), log_mel,
            mean=material.released.mean, deviation=material.released.deviation,
        )  # fmt: skip


@pytest.fixture(scope="module")
def guide(prepared, material) -> Guide:
    config = adaptation_config(epochs=6, learning_rate=3e-3)
    rows = guiding.train_guide(
        material, StubTeacher(), prepared / "guide", config, say=lambda _: None
    )
    assert rows[-1]["pairs"] < rows[0]["pairs"]
    return Guide(prepared / "guide")


def test_an_adaptor_that_is_led_is_the_guide_behind_the_guess(stages, material, guide):
    mixed = shards.Shard(stages / "shards" / "mixed-0000")
    log_mel = shards.decode_log_mel(np.asarray(mixed.log_mel[:50]))
    parts = {"trunk": build_trunk(STUDENT), "head": build_head(STUDENT)}
    load_parts(stages / "one", parts)
    features = arrays(parts["trunk"](log_mel))
    released = material.released
    adaptor = build_adaptor(STUDENT, mean=released.mean, deviation=released.deviation)
    mean, deviation = distillation.embedding_statistics(mixed)
    guide.lead(adaptor, parts["head"], (mean, deviation), features)
    guess = arrays(parts["head"](features)) * deviation + mean
    expected = arrays(guide.values(guess))
    assert np.allclose(arrays(adaptor(features)), expected, atol=1e-3)


def test_a_student_follows_its_guide(stages, material, guide, tmp_path):
    led = replace(material, guide=guide)
    config = adaptation_config(
        epochs=8, learning_rate=5e-3, clean=0.0, first=1,
        guidance=3.0, agreement=0.0, pairs=0.0, moments=0.0,
    )  # fmt: skip
    rows = adaptation.adapt(led, stages / "one", tmp_path / "led", config, say=lambda _: None)
    assert rows[-1]["guidance"] < 0.8 * rows[0]["guidance"]
    # What leads stays as it is.
    assert Guide(stages / "guide").name == guide.name


def test_pushed_clips_are_what_the_last_layer_says_of_them(prepared, material):
    shard = shards.Shard(prepared / "shards" / "clean-0000")
    inputs = teacher.decode_embedding(np.asarray(shard.embedding)).astype(np.float16)
    pool = PairPool([], [])
    random = np.random.default_rng(2)
    batch = next(iter(clip_batches(shard, inputs, pool, BatchShape(64, 16, 0), random)))
    before = batch.inputs.copy()
    kernel, bias = StubTeacher.kernel, StubTeacher.bias
    guiding.push(batch, (kernel, bias), StubTeacher.columns, random, share=1.0)
    moved = np.flatnonzero(batch.is_clip)
    for clip in moved:
        rows = batch.frames[clip][batch.mask[clip] > 0]
        scores = 1 / (1 + np.exp(-(batch.inputs[rows] @ kernel + bias)))
        assert np.allclose(batch.target[clip, :521], scores.mean(axis=0), atol=1e-5)
        assert not batch.is_patch[rows].any()
    assert not np.array_equal(batch.inputs, before)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 6
    unmoved = next(iter(clip_batches(shard, inputs, pool, BatchShape(64, 16, 0), random)))
    kept = unmoved.inputs.copy()
    guiding.push(unmoved, (kernel, bias), StubTeacher.columns, random, share=0.0)
    assert np.array_equal(unmoved.inputs, kept)


def test_agreement_can_count_rare_classes_more(stages, material, tmp_path):
    even = class_weights(stages / "shards", adaptation_config())
    assert np.allclose(even, 1.0)
    weights = class_weights(stages / "shards", adaptation_config(balance=0.5))
    share = shards.Shard(stages / "shards" / "mixed-0000").target.mean(axis=0)
    assert weights.mean() == pytest.approx(1.0, abs=1e-4)
    assert weights[share.argmin()] > 2 * weights[share.argmax()]


def test_variants_of_a_pair_are_near_it_and_not_it():
    log_mel = shards.patches_of(tone(700, 3.0) + tone(1900, 3.0, 0.1))
    found = variants_of(log_mel, np.random.default_rng(0), 4)
    assert len(found) == 4
    assert np.array_equal(found[0], log_mel)
    for variant in found[1:]:
        assert variant.shape == log_mel.shape
        decibels = (variant - log_mel)[log_mel > 0] * 20 / np.log(10)
        assert 0.2 < np.abs(decibels).mean() < 6


def test_a_shape_that_cannot_be_is_refused():
    with pytest.raises(InvalidArgumentError, match="block"):
        StudentConfig(block="round")
    with pytest.raises(InvalidArgumentError, match="depths"):
        StudentConfig(depths=())


def test_the_judge_is_the_classifier(tmp_path):
    import keras

    random = np.random.default_rng(0)
    x = random.integers(0, 256, (5, 10, 128), np.uint8)
    counts = np.array([10, 10, 3, 1, 10])
    mask = (np.arange(10) < counts[:, None]).astype(np.float32)
    frames = (x.astype(np.float32) - 128) / 128 * mask[:, :, None]
    scorer = load_scorer()
    for calibrated in (False, True):
        judge = Judge(calibrated=calibrated)
        logits = judge.logits(
            keras.ops.convert_to_tensor(frames), keras.ops.convert_to_tensor(mask)
        )
        found = 1 / (1 + np.exp(-np.asarray(keras.ops.convert_to_numpy(logits), np.float64)))
        raw = scorer.score(x, counts)
        assert found == pytest.approx(scorer.calibrated(raw) if calibrated else raw, abs=2e-5)


def test_every_patch_and_clip_of_a_shard_is_in_one_batch(prepared, material):
    shard = shards.Shard(shards.shard_folders(prepared / "shards", "mixed")[0])
    pool = PairPool.of(material.pairs, held_out=0)
    assert len(pool) == (material.pairs.fold != 0).sum() < len(material.pairs)
    shape = BatchShape(patches=40, clips=8, pairs=2)
    batches = clip_batches(shard, shard.log_mel, pool, shape, np.random.default_rng(0))
    seen = []
    for batch in batches:
        assert batch.inputs.shape == (60, 96, 64)
        clips = batch.is_clip.astype(bool)
        assert batch.mask[clips].sum() == batch.is_patch.sum()
        # A clip's frames are its own patches: what the teacher said of them tells.
        assert np.array_equal(np.unique(batch.frames[clips][batch.mask[clips] > 0]),
                              np.flatnonzero(batch.is_patch))  # fmt: skip
        seen.append(int(clips.sum()))
    # All but those that a last batch did not fill.
    assert len(shard) - 8 <= sum(seen) <= len(shard)


def test_stages_learn_what_they_are_told(stages):
    with (stages / "one" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["embedding_error"]) < float(rows[0]["embedding_error"])
    for name in ("two", "three"):
        with (stages / name / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        # Epochs see other mixes and are not compared one by one.
        agreement, pairs = ([float(row[key]) for row in rows] for key in ("agreement", "pairs"))
        assert sum(agreement[3:]) < sum(agreement[:3])
        assert sum(pairs[3:]) < 1.2 * sum(pairs[:3])


def test_stage_2_leaves_the_trunk_and_stage_3_moves_it(stages):
    one, two, three = (weights(stages / name) for name in ("one", "two", "three"))
    trunk = [name for name in one if name.startswith("trunk/")]
    assert all(np.array_equal(one[name], two[name]) for name in trunk)
    assert any(not np.array_equal(two[name], three[name]) for name in trunk)


def test_a_stopped_stage_goes_on_as_if_it_had_not_been_stopped(prepared, tmp_path):
    distilled(prepared, tmp_path / "whole", epochs=3)

    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Stop

    config = distillation.DistillationConfig(
        student=STUDENT, epochs=3, batch=16, learning_rate=5e-3
    )
    layer = (StubTeacher.kernel, StubTeacher.bias)
    with pytest.raises(Stop):
        distillation.distil(prepared / "shards", layer, tmp_path / "parts", config, say=stop)
    rows = distillation.distil(
        prepared / "shards", layer, tmp_path / "parts", config, say=lambda _: None
    )
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_a_stage_is_not_gone_on_with_under_other_settings(stages):
    config = distillation.DistillationConfig(student=STUDENT, epochs=2, batch=8)
    layer = (StubTeacher.kernel, StubTeacher.bias)
    with pytest.raises(InvalidArgumentError, match="batch"):
        distillation.distil(stages / "shards", layer, stages / "one", config)


def test_a_finished_stage_becomes_an_embedder(stages, tmp_path):
    export_run(Namespace(run_folder=stages / "three", target=tmp_path / "lite.onnx"))
    embed = measures.OnnxEmbedder(tmp_path / "lite.onnx", threads=1)
    frames = embed(np.random.default_rng(0).normal(-1, 2, (20, 96, 64)).astype(np.float32))
    assert frames.shape == (20, 128)
    assert frames.dtype == np.uint8
    assert frames.std() > 0
    with pytest.raises(DataError, match="without an adaptor"):
        export_run(Namespace(run_folder=stages / "one", target=tmp_path / "other.onnx"))


# Measures


def test_a_perfect_embedder_finds_every_pair_and_a_random_one_does_not(material):
    pairs, released = material.pairs, material.released
    own = {pairs.patches(index)[0].tobytes(): pairs.row[index] for index in range(len(pairs))}

    def perfect(log_mel: np.ndarray) -> np.ndarray:
        row = own[log_mel.tobytes()]
        return released.x[row, : len(log_mel)]

    assert measures.nearest_released(pairs, released, perfect).ranks.tolist() == [1] * len(pairs)
    random = np.random.default_rng(0)

    def blind(log_mel: np.ndarray) -> np.ndarray:
        return random.integers(0, 256, (len(log_mel), 128), np.uint8)

    assert measures.nearest_released(pairs, released, blind).median > 1
    # One embedder a fold: each pair is asked of its own fold's.
    folds = [blind] * 5
    folds[0] = perfect
    ranks = measures.nearest_released(pairs, released, folds).ranks
    assert (ranks[pairs.fold == 0] == 1).all()


def test_folds_are_even_and_do_not_depend_on_the_order():
    names = [f"clip{number:03d}" for number in range(23)]
    folds = fold_of(names)
    assert np.bincount(folds).tolist() == [5, 5, 5, 4, 4]
    assert np.array_equal(fold_of(names[::-1])[::-1], folds)


def test_top_classes_counts_hits_of_both(tmp_path):
    labels = load_labels()
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(wav(tone(440, 1.0)))
    frames = np.random.default_rng(0).integers(0, 256, (1, 128), np.uint8)
    scores = load_scorer().score_calibrated(
        np.concatenate([frames, np.zeros((9, 128), np.uint8)])[None], np.array([1])
    )[0]
    best, worst = int(scores.argmax()), int(scores.argmin())
    known = [
        measures.Known(tmp_path / "a.wav", (best,), labels[best].name),
        measures.Known(tmp_path / "b.wav", (worst,), labels[worst].name),
    ]
    found, means = measures.top_classes(
        known,
        lambda patches: frames[: len(patches)],
        ClipScorer(load_scorer(), None),
        StubTeacher(),
    )
    assert found.ours == {labels[best].name: [True], labels[worst].name: [False]}
    assert found.plain == found.ours
    assert found.share == 0.5
    assert means.shape == (2, 128)


def test_top_classes_tells_the_rescored_from_the_plain(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone(440, 1.0)))
    frames = np.random.default_rng(0).integers(0, 256, (1, 128), np.uint8)
    x = np.concatenate([frames, np.zeros((9, 128), np.uint8)])[None]
    worst = int(load_scorer().score_calibrated(x, np.array([1]))[0].argmin())

    class Turned:
        def rescore(self, scores, x, n_frames):
            return 1 - scores

    found, _ = measures.top_classes(
        [measures.Known(tmp_path / "a.wav", (worst,), "group")],
        lambda patches: frames[: len(patches)],
        ClipScorer(load_scorer(), Turned()),
        None,
    )
    assert (found.ours, found.plain) == ({"group": [True]}, {"group": [False]})


def test_the_order_of_recordings_is_judged_by_class():
    known = [
        measures.Known(Path("x"), classes, "") for classes in ((1,), (2, 3), (1,), (2, 3), (4,))
    ]
    scores = np.zeros((5, 527), np.float32)
    scores[:, 1] = [0.9, 0.8, 0.1, 0.7, 0.2]  # right ones at the places 1 and 5
    scores[:, 2] = [0.0, 0.0, 0.0, 0.9, 0.0]  # by the higher of two classes at 1 and 2
    scores[:, 3] = [0.1, 0.8, 0.0, 0.0, 0.0]
    # One recording alone has class 4: it is not judged.
    assert measures.order(known, scores) == (pytest.approx(((1 + 2 / 5) / 2 + 1) / 2), 2)


def test_scores_are_as_far_from_anothers_as_their_bins_are():
    scores = np.array([[0.05, 0.95], [0.05, 0.95]], np.float32)
    theirs = np.array([[0.0, 0.75], [0.1, 0.85]], np.float32)
    # The low bin's means are equal; the high bin's are 0.15 apart, and it has half of the pairs.
    assert measures.calibration_error(scores, theirs) == pytest.approx(0.075, abs=1e-6)
    assert measures.calibration_error(scores, scores) == 0


# The rescorer of its clips


@pytest.fixture(scope="module")
def embedded(prepared) -> rescoring.EmbeddedClips:
    """The shards' clips, embedded by which of 128 regions of a patch is how loud."""

    def embed(log_mel: np.ndarray) -> np.ndarray:
        regions = log_mel.reshape(len(log_mel), 2, 48, 64).mean(axis=2).reshape(-1, 128)
        return np.clip(128 + 30 * regions, 0, 255).astype(np.uint8)

    return rescoring.embed_shards(prepared, embed, "a" * 64, say=lambda _: None)


def rescoring_config(**changes) -> rescoring.RescoringConfig:
    values = {"hidden": 24, "epochs": 60, "batch": 16, "share": 1.0, "learning_rate": 3e-3}
    return rescoring.RescoringConfig(**(values | changes))


def test_all_clips_of_all_shards_are_embedded_once(prepared, embedded):
    folders = [*shards.shard_folders(prepared / "shards", "clean")]
    folders += shards.shard_folders(prepared / "shards", "mixed")
    every = [shards.Shard(folder) for folder in folders]
    assert len(embedded) == sum(map(len, every))
    assert embedded.mixed.sum() == 2 * 32
    assert (embedded.target == np.concatenate([shard.target for shard in every])).all()
    lengths = np.concatenate([np.diff(shard.start) for shard in every])
    assert (embedded.n_frames == lengths).all()
    assert not embedded.x[np.arange(10) >= embedded.n_frames[:, None]].any()
    # All windows are of one package; each clip of AudioSet stands alone.
    assert len(set(embedded.group.tolist())) == 1 + 10

    def never(log_mel):
        raise AssertionError("embedded again")

    again = rescoring.embed_shards(prepared, never, "a" * 64, say=lambda _: None)
    assert (again.x == embedded.x).all()


def test_a_rescorer_is_learnt_and_is_the_same_graph(embedded, tmp_path):
    logits = logits_of(load_scorer().score_calibrated(embedded.x, embedded.n_frames))
    features = rescoring.clip_features(embedded.x, embedded.n_frames, logits)
    config = rescoring_config()
    said: list[str] = []
    trained = rescoring.train(features, embedded.target, embedded.mixed, config, say=said.append)
    truth = embedded.target / 255

    def loss(found: np.ndarray) -> float:
        return float((np.logaddexp(0, found) - truth * found).mean())

    assert loss(trained.logits(features)) < 0.6 * loss(logits)
    assert len(said) == 60

    short = rescoring_config(epochs=2)
    one, two = (
        rescoring.train(features, embedded.target, embedded.mixed, short, say=said.append)
        for _ in range(2)
    )
    np.testing.assert_allclose(one.second, two.second, atol=1e-5)
    # Nothing learnt counts, nothing changes.
    none = rescoring_config(share=1e-9, epochs=1)
    same = rescoring.train(features, embedded.target, embedded.mixed, none, say=said.append)
    np.testing.assert_allclose(same.logits(features), logits, atol=1e-5)

    path = write_rescorer(trained.graph(), tmp_path / "mine.onnx", {})
    made = Rescorer(read_model(tmp_path, "mine", remedy=""))
    assert path == tmp_path / "mine.onnx"
    scores = made.rescore(1 / (1 + np.exp(-logits)), embedded.x, embedded.n_frames)
    # Weights are stored as float16.
    expected = 1 / (1 + np.exp(-trained.logits(features)))
    np.testing.assert_allclose(scores, expected, atol=0.01)


def test_the_manifest_says_what_a_rescorer_was_fitted_to(embedded, tmp_path):
    said: list[str] = []
    config = rescoring_config(epochs=2, validation=0.5)
    path = rescoring.fit_lite(
        embedded, load_scorer(), "b" * 64, tmp_path / "rescorer-lite.onnx", config, say=said.append
    )
    manifest = read_model(tmp_path, path.stem, remedy="").manifest
    assert manifest["classifier_identity"] == classifier_identity(bundled_model("classifier"))
    assert (manifest["embedder"], manifest["embedder_sha256"]) == ("lite", "b" * 64)
    held_out = embedded.held_out(0.5)
    assert manifest["train_clips"] == (~held_out).sum() < len(embedded)
    assert manifest["config"]["validation"] == 0.5
    assert any("rescored" in line for line in said)
    groups = embedded.group
    assert not set(groups[held_out].tolist()) & set(groups[~held_out].tolist())


@pytest.mark.parametrize(
    "changes", [{"share": 0}, {"share": 1.5}, {"epochs": 0}, {"validation": 1}, {"noise": -1}]
)
def test_settings_of_a_rescorer_that_make_no_sense_are_refused(changes):
    with pytest.raises(InvalidArgumentError):
        rescoring.RescoringConfig(**changes)


def test_the_probe_never_sees_the_fold_it_judges():
    random = np.random.default_rng(0)
    known = [
        measures.Known(Path("x"), (0,), f"class {number % 4}", 1 + number % 5)
        for number in range(100)
    ]
    noise = random.normal(0, 1, (100, 128)).astype(np.float32)
    accuracy, _ = measures.probe(noise, known)
    assert accuracy < 0.5
    told = noise.copy()
    told[np.arange(100), np.arange(100) % 4] += 20
    accuracy, by_class = measures.probe(told, known)
    assert accuracy > 0.8
    assert set(by_class) == {f"class {number}" for number in range(4)}


def test_intervals_hold_the_share():
    low, high = measures.wilson(8, 10)
    # Wilson's interval of 8 of 10, as statistics texts give it.
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    hits = [True] * 30 + [False] * 10
    low, high = measures.interval(hits, hits)
    assert low == high == 1.0
