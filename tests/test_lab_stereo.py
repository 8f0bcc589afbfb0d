"""The lab in stereo: what only left and right tell apart is learned, and heard in every use."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lab_fixtures import sound

import audiosearch as aus
from audiosearch import audio
from audiosearch.errors import InvalidArgumentError
from audiosearch.jobs import AnalyzerSettings, Segment
from audiosearch.jobs.analysis import Analyzer
from audiosearch.lab import LabConfig, compare, predict, preview, read_sounds, train_lab
from audiosearch.lab.augmentation import AUGMENTATIONS, augment
from audiosearch.lab.feature_cache import FeatureCache
from audiosearch.lab.scaling import Scaling
from audiosearch.lab.waveforms import load_clip
from audiosearch.own.classifier import LabClassifier, Listener
from audiosearch.own.features import get_feature
from audiosearch.own.waveforms import ClipLength, windows
from audiosearch.server import create_app
from audiosearch.server.state import state_of
from audiosearch.tagging import TagRules, class_keys
from audiosearch.tagging.batch import tag_batch

SIDES = ("on the left", "on the right", "out of phase")
GAINS = {"on the left": (1, 0), "on the right": (0, 1), "out of phase": (1, -1)}


def placed(side: str, seed: int, *, kind: str = "high", seconds: float = 0.5) -> np.ndarray:
    """Return a sound (n, 2) that is on one side alone, or on both in opposite phase."""
    return sound(kind, seed, seconds=seconds)[:, None] * np.array(GAINS[side], "f4")


def write_stereo(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of eight sounds, which are tones and noises of the same kinds in each."""
    folder = tmp_path_factory.mktemp("stereo") / "data"
    for side in SIDES:
        for number in range(8):
            kind = ("low", "high", "noise", "high")[number % 4]
            write_stereo(folder / side / f"{number}.wav", placed(side, number, kind=kind))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def classifier(data, cache, tmp_path_factory):
    config = LabConfig(
        model="cnn-logmel-stereo", batch_size=8, validation=0, epochs=8, learning_rate=5e-3
    )
    out = tmp_path_factory.mktemp("trained") / "places"
    return train_lab(read_sounds(data), out, config=config, cache=cache).folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """12 s on the left, then 12 s on the right: clips of 9.6, 9.6 and 4.8 s."""
    parts = [placed(side, 90, seconds=12.0) for side in SIDES[:2]]
    return write_stereo(tmp_path_factory.mktemp("rec") / "day.wav", np.concatenate(parts))


def test_places_are_learned_that_mono_does_not_have(classifier, data, cache, tmp_path):
    manifest = json.loads((classifier / "classifier.json").read_text(encoding="utf-8"))
    assert manifest["feature"]["shape"] == [50, 64, 2]
    new = {
        write_stereo(tmp_path / f"{kind}-{side}.wav", placed(side, 40, kind=kind)): side
        for side in SIDES
        for kind in ("low", "noise")
    }
    found = [each.labels[0] for each in predict(classifier, new)]
    assert [label for label, _ in found] == list(new.values())
    # A sound and its mirror image are one sound in mono, whatever is learned.
    config = LabConfig(model="cnn-logmel", batch_size=8, validation=0, epochs=1)
    mono = train_lab(read_sounds(data), tmp_path / "mono", config=config, cache=cache)
    left, right, apart, *_ = (tmp_path / f"low-{side}.wav" for side in SIDES)
    said = [dict(each.labels) for each in predict(mono.folder, [left, right])]
    assert said[0] == said[1]
    assert not audio.load(apart).any()


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3"])
def test_every_format_is_heard_in_stereo(classifier, tmp_path, ending):
    paths = [tmp_path / f"{number}{ending}" for number in range(3)]
    for path, side in zip(paths, SIDES, strict=True):
        soundfile.write(path, placed(side, 41), 16000)
    assert [each.labels[0][0] for each in predict(classifier, paths)] == list(SIDES)


def test_mono_files_are_two_equal_channels(classifier, tmp_path):
    wave = sound("high", 42)
    alone = write_stereo(tmp_path / "mono.wav", wave)
    double = write_stereo(tmp_path / "double.wav", np.stack([wave, wave], axis=1))
    first, second = predict(classifier, [alone, double])
    assert first.labels == second.labels


def test_the_feature_keeps_what_is_between_the_channels():
    wave = sound("noise", 1, seconds=1.0)
    mono, stereo = get_feature("log-mel"), get_feature("log-mel-stereo")
    assert (mono.channels, stereo.channels) == (1, 2)
    equal = stereo.compute(np.stack([wave, wave], axis=1))
    for side in (0, 1):
        np.testing.assert_allclose(equal[..., side], mono.compute(wave), atol=1e-5)
    # 20 dB are a factor of ten in magnitude, however loud the whole is.
    softer = stereo.compute(0.03 * np.stack([wave, 0.1 * wave], axis=1))
    magnitudes = np.exp(softer) - 0.01  # the front end's offset
    np.testing.assert_allclose(magnitudes[..., 0], 10 * magnitudes[..., 1], rtol=1e-3)
    level = np.sqrt(np.mean(np.square(np.stack([wave, 0.1 * wave]))))
    loud = np.exp(stereo.compute(np.stack([wave, 0.1 * wave], axis=1))) - 0.01
    factor = loud[..., 0] / (np.exp(mono.compute(wave)) - 0.01)
    np.testing.assert_allclose(factor, np.sqrt(np.mean(np.square(wave))) / level, rtol=1e-3)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_changes_both_channels_alike(name):
    clips = np.random.default_rng(0).normal(0, 1, (6, 80, 64)).astype("f4")
    alone = augment(np.random.default_rng(1), clips, "log-mel", [name])
    both = augment(
        np.random.default_rng(1), np.stack([clips, clips], axis=-1), "log-mel-stereo", [name]
    )
    assert (name == "noise") == np.array_equal(alone, clips)
    for side in (0, 1):
        np.testing.assert_allclose(both[..., side], alone, atol=1e-4)
    if name != "background":
        apart = np.stack([clips, clips - 2], axis=-1)
        changed = augment(np.random.default_rng(1), apart, "log-mel-stereo", [name])
        np.testing.assert_allclose(changed[..., 0] - changed[..., 1], 2, atol=1e-4)


def test_a_background_stays_on_its_side():
    compute = get_feature("log-mel-stereo").compute
    clips = np.stack([compute(placed(side, 3, kind="noise")) for side in SIDES[:2]])
    silence = float(np.log(np.float32(0.01)))
    for seed in range(20):  # until they are behind each other
        mixed = augment(np.random.default_rng(seed), clips, "log-mel-stereo", ["background"])
        if mixed[0, ..., 1].max() > silence + 0.1:
            np.testing.assert_allclose(mixed[0, ..., 0], clips[0, ..., 0], atol=1e-4)
            return
    raise AssertionError("no background in twenty tries")


@pytest.mark.parametrize("name", ["shift", "gain", "stretch", "pitch", "background"])
def test_waveforms_of_two_channels_are_changed_alike(name):
    waves = np.stack([sound("high", seed) for seed in (1, 2)])
    alone = augment(np.random.default_rng(1), waves, "waveform", [name])
    both = augment(np.random.default_rng(1), np.stack([waves, waves], axis=-1), "waveform", [name])
    assert not np.array_equal(alone, waves)
    for side in (0, 1):
        np.testing.assert_allclose(both[..., side], alone, atol=1e-3)


def test_features_are_standardised_by_band_and_channel(data, cache):
    config = LabConfig(model="cnn-logmel-stereo")
    with FeatureCache(cache) as store:
        features = store.features(
            read_sounds(data), get_feature(config.spec.feature), ClipLength(0.5)
        )
        rows = np.arange(len(features))
        values = Scaling(features, rows, config).apply(features.take(rows))
    assert values.shape == (24, 50, 64, 2)
    np.testing.assert_allclose(values.mean(axis=(0, 1)), np.zeros((64, 2)), atol=1e-3)
    np.testing.assert_allclose(values.std(axis=(0, 1)), np.ones((64, 2)), atol=1e-3)


@pytest.mark.parametrize("short", ["repeat", "pad"])
def test_short_sounds_keep_their_sides(tmp_path, short):
    write_stereo(tmp_path / "x" / "a.wav", np.array([[0.1, -0.1], [0.2, 0], [0.3, 0.5]] * 400))
    (only,) = read_sounds(tmp_path).sounds
    clip = load_clip(only, ClipLength(0.1, short), channels=2)
    assert clip.shape == (1600, 2)
    after = [[0.1, -0.1], [0.2, 0]] if short == "repeat" else [[0, 0], [0, 0]]
    np.testing.assert_allclose(clip[1198:1202], [[0.2, 0], [0.3, 0.5], *after], atol=1e-6)


def test_what_is_heard_does_not_depend_on_the_way(classifier, recording):
    track = LabClassifier(classifier).track(recording)
    found = [clip for _, _, clip in windows(str(recording), ClipLength(0.5), channels=2)]
    feature = get_feature("log-mel-stereo")
    direct = LabClassifier(classifier).score(np.stack([feature.compute(each) for each in found]))
    np.testing.assert_array_equal(track.scores, direct)
    analysis = Analyzer(AnalyzerSettings(own=(str(classifier),))).analyze(recording)
    (heard,) = analysis.own
    np.testing.assert_array_equal(heard.scores, track.scores)
    # What the bundled classifier says is to the bit what it says without the other.
    plain = Analyzer().analyze(recording)
    np.testing.assert_array_equal(analysis.frames, plain.frames)
    np.testing.assert_array_equal(analysis.scores, plain.scores)


def test_a_part_of_a_file_is_heard_in_stereo(classifier, recording, tmp_path):
    analyzer = Analyzer(AnalyzerSettings(own=(str(classifier),)))
    (heard,) = analyzer.analyze(Segment(str(recording), 12.25, 17.0)).own
    samples = soundfile.read(recording, dtype="float32")[0][196000:272000]
    cut = write_stereo(tmp_path / "cut.wav", samples)
    np.testing.assert_array_equal(heard.scores, LabClassifier(classifier).track(cut).scores)
    assert heard.best().argmax() == SIDES.index("on the right")


def test_tags_are_the_same_bytes_with_any_number_of_workers(classifier, recording, tmp_path):
    names = [recording]
    for number, side in enumerate(SIDES):
        names.append(write_stereo(tmp_path / f"{number}.wav", placed(side, 50 + number)))
    rules = TagRules(per="clip", top=3, classes=class_keys(SIDES, SIDES))
    for workers in (1, 2):
        out = tmp_path / f"{workers}.jsonl"
        tag_batch(names, out, rules=rules, classifier=classifier, workers=workers)
    lines = (tmp_path / "1.jsonl").read_text(encoding="utf-8")
    assert (tmp_path / "2.jsonl").read_text(encoding="utf-8") == lines
    rows = [json.loads(line) for line in lines.splitlines()]
    found = {
        (Path(row["path"]).stem, row["start"]): {
            tag["label"]: round(tag["score"]) for tag in row["tags"]
        }
        for row in rows
    }
    for number, side in enumerate(SIDES):
        assert found[str(number), 0] == {each: int(each == side) for each in SIDES}
    assert found["day", 0]["on the right"] == 0
    assert found["day", 9.6] == {"on the left": 1, "on the right": 1, "out of phase": 0}
    assert found["day", 19.2]["on the left"] == 0


def test_the_command_hears_both_channels(classifier, recording, invoke, tmp_path):
    right = write_stereo(tmp_path / "right.wav", placed("on the right", 60, seconds=2.0))
    result = invoke("tag", right, "--classifier", classifier, "--only", ",".join(SIDES), "--json")
    assert result.code == 0
    assert json.loads(result.out)["tags"][0]["label"] == "on the right"
    result = invoke("lab", "predict", classifier, right, "--json")
    assert result.code == 0
    assert "on the right" in result.out


def test_a_library_hears_both_channels(classifier, tmp_path):
    for side in SIDES:
        write_stereo(tmp_path / "rec" / f"{side}.wav", placed(side, 70, seconds=2.0))
    aus.index(tmp_path / "rec", tmp_path / "lib", classifier=classifier, workers=1)
    with aus.open_library(tmp_path / "lib") as library:
        for side in SIDES:
            hits = library.search(f'label:"{side}" score:>0.5').hits
            assert [Path(hit.recording).stem for hit in hits] == [side]


def test_the_server_hears_both_channels(classifier, tmp_path):
    path = write_stereo(tmp_path / "right.wav", placed("on the right", 80, seconds=2.0))
    with aus.open_library(aus.shipped_library()) as library:
        app = create_app(library, classifiers=[str(classifier)])
        try:
            form = {"file": (io.BytesIO(path.read_bytes()), "right.wav"), "top": "527"}
            answer = app.test_client().post("/api/v1/tag", data=form)
        finally:
            state_of(app).close()
    assert answer.status_code == 200
    found = {tag["label"]: tag["score"] for tag in answer.json["tags"] if not tag["mid"]}
    assert max(found, key=found.__getitem__) == "on the right"
    assert found["on the right"] > 0.5


def test_mono_and_stereo_classifiers_hear_one_file(classifier, data, cache, recording, tmp_path):
    config = LabConfig(model="linear-lite", validation=0)
    folder = tmp_path / "kinds"
    kinds = tmp_path / "kinds-data"
    for kind in ("low", "high"):
        for number in range(4):
            write_stereo(kinds / kind / f"{number}.wav", sound(kind, number))
    mono = train_lab(read_sounds(kinds), folder, config=config, cache=cache).folder
    own = (str(classifier), str(mono))
    tracks = Analyzer(AnalyzerSettings(own=own)).analyze(recording).own
    for folder, track in zip(own, tracks, strict=True):
        np.testing.assert_array_equal(track.scores, LabClassifier(folder).track(recording).scores)
    block = np.zeros(100, "f4")
    with pytest.raises(InvalidArgumentError, match=r"left and right.*channels=2"):
        Listener(LabClassifier(classifier)).add(block)
    with pytest.raises(InvalidArgumentError, match=r"mono.*channels=1"):
        Listener(LabClassifier(mono)).add(np.stack([block, block], axis=1))


def test_a_comparison_tells_what_stereo_is_worth(data, cache, tmp_path):
    config = LabConfig(batch_size=8, epochs=6, learning_rate=5e-3)
    models = ["linear-lite", "cnn-logmel-stereo"]
    found = compare(
        read_sounds(data), models, tmp_path / "out", config=config, folds=2, jobs=1, cache=cache
    )
    best, other = found.results
    assert best.model == "cnn-logmel-stereo"
    # Mono knows silence, which is out of phase; of the other two it can only guess one.
    assert best.accuracy > 0.9 > 0.7 > other.accuracy
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "waveform and spectrogram, left and right, of out of phase" in report


def test_a_preview_in_stereo_keeps_sounds_where_they_are(data, invoke, tmp_path):
    out = tmp_path / "out"
    options = ["--out", out, "--variants", 2, "--stereo", "--augmentations", "shift,gain,pitch"]
    assert invoke("lab", "preview", data, *options).code == 0
    for end in ("", "-1", "-2"):
        wave, rate = soundfile.read(out / f"1{end}.wav")
        assert (rate, wave.shape) == (16000, (8000, 2))
        assert wave[:, 0].std() > 0.05
        assert wave[:, 1].std() < 0.01
    assert (out / "1.png").read_bytes().startswith(b"\x89PNG")
    mono = preview(read_sounds(data), tmp_path / "mono", variants=1)
    assert soundfile.info(mono[0]).channels == 1
