"""Material of the bundled embedder: sounds out of packages, mixes, shards, copies of tests."""

from __future__ import annotations

import io
import subprocess
import sys
import wave
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY

# The training tools are no part of the installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.append(str(REPOSITORY))

from lite_fixtures import RATE, StubTeacher, deb, soundfont, sources_of, tar, tone, wav

from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.labels import load_labels
from tools.lite import (
    audit,
    mixing,
    shards,
    teacher,
)
from tools.lite.archives import read_package
from tools.lite.catalogue import Package, Sound, read_packages, read_rows, read_sounds
from tools.lite.collection import SoundStore, collect, short_sha1
from tools.lite.report import HeldOut
from tools.lite.survey import licence_in, survey
from tools.lite.targets import key_of, mixed_target, read_targets
from tools.lite.windows import Windows

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


def test_shards_hold_every_source_and_what_the_teacher_says_of_the_mix(lite_work):
    sources = sources_of(lite_work)
    clean = shards.Shard(shards.shard_folders(lite_work / "shards", "clean")[0])
    assert clean.source.tolist() == list(range(len(sources)))
    log_mel = shards.decode_log_mel(np.asarray(clean.log_mel[clean.start[3] : clean.start[4]]))
    assert np.abs(log_mel - sources.log_mel(3)).max() < 0.026
    assert np.array_equal(clean.target, sources.targets)
    for folder in shards.shard_folders(lite_work / "shards", "mixed"):
        shard = shards.Shard(folder)
        answer, _ = StubTeacher().answer(shards.decode_log_mel(np.asarray(shard.log_mel)))
        stored = teacher.decode_embedding(np.asarray(shard.embedding))
        assert np.abs(stored - answer).max() < 0.06


def test_a_shard_depends_on_its_seed_alone(lite_work, tmp_path):
    # Only the second mixed shard is made, after the first was left behind by another run.
    whole = lite_work / "shards"
    (tmp_path / "mixed-0000").mkdir()
    for name in ("clean-0000",):
        (tmp_path / name).mkdir()
    shards.build_shards(
        sources_of(lite_work), StubTeacher(), tmp_path, mixed=2, clips=32, say=lambda _: None
    )
    for name in ("log_mel.npy", "embedding.npy"):
        made, expected = tmp_path / "mixed-0001" / name, whole / "mixed-0001" / name
        assert made.read_bytes() == expected.read_bytes()


def test_rare_classes_are_drawn_by_the_inverse_root_of_their_count(lite_work):
    sources = sources_of(lite_work)
    top = sources.targets.argmax(axis=1)
    counts = np.bincount(top)[top]
    weights = sources.weights()
    assert weights.sum() == pytest.approx(1)
    assert weights * np.sqrt(counts) == pytest.approx(weights[0] * np.sqrt(counts[0]))
    alike = replace(sources, rarity=1.0).weights()
    assert alike * counts == pytest.approx(alike[0] * counts[0])
    with pytest.raises(InvalidArgumentError, match="rarity"):
        replace(sources, rarity=2.0)


def test_targets_are_found_by_key_and_a_window_without_one_is_named(lite_work):
    windows = Windows(lite_work / "windows")
    row = windows.rows[0]
    assert key_of(row.sha1, 0) in read_targets(lite_work / "targets.npz")
    with pytest.raises(DataError, match=row.sha1):
        shards.gather_targets(windows, None, {})


# Copies of tests


def test_a_copy_is_recognised_and_a_like_sound_is_not(lite_work, tmp_path):
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


def test_the_audit_names_the_window_that_holds_a_test_recording(lite_work, tmp_path):
    sources = sources_of(lite_work)
    random = np.random.default_rng(0)
    window = sources.windows.waveform(9)
    sound = window + random.normal(0, 1e-4, len(window)).astype(np.float32)
    (tmp_path / "test.wav").write_bytes(wav(sound))
    clean = shards.shard_folders(lite_work / "shards", "clean")
    found = audit.find_copies(
        [tmp_path / "test.wav"], sources, clean, StubTeacher(), say=lambda _: None
    )
    assert [copy.source for copy in found][:1] == [9]
