"""Rescoring: which scores a clip gets, by what embedded it, and that they are the same anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import write_packed
from library_fixtures import (
    InProcessPool,
    contents,
    counts,
    frame_scores,
    make_library,
    rescored,
    rescorer,
    sound_scores,
    write_sounds,
)

import audiosearch as aus
from audiosearch.classifier import rescoring
from audiosearch.classifier.rescoring import (
    Rescorer,
    load_rescorer,
    logits_of,
    rescored_identity,
    rescorer_of,
)
from audiosearch.classifier.scorer import classifier_identity, clip_frames, load_scorer
from audiosearch.datasets.packed import RELEASED
from audiosearch.errors import InvalidArgumentError, LibraryMismatchError
from audiosearch.labels import load_labels
from audiosearch.library import indexing
from audiosearch.library.columns import encode_scores
from audiosearch.library.library import Library
from audiosearch.library.scoring import known_scorers, library_scorer
from audiosearch.models import BundledModel, bundled_model

LITE = ("lite", bundled_model("lite").sha256)
BOTH = pytest.mark.parametrize("name", ["rescorer", "rescorer-lite"])


def random_clips(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    n_frames = draw.integers(1, 11, count)
    x = draw.integers(0, 256, (count, 10, 128)).astype(np.uint8)
    x[np.arange(10) >= n_frames[:, None]] = 0
    return x, n_frames


def plain_identity() -> str:
    return classifier_identity(bundled_model("classifier"))


def manifest_of(library: Path) -> dict:
    return json.loads((library / "manifest.json").read_text())


def change_manifest(library: Path, change) -> None:
    manifest = manifest_of(library)
    change(manifest)
    (library / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "WorkerPool", InProcessPool)
    monkeypatch.setattr(InProcessPool, "seen", [], raising=False)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    return write_sounds(tmp_path / "sounds", 2)


# The files


def test_each_rescorer_belongs_to_what_is_installed() -> None:
    plain, released, own = plain_identity(), rescored_identity(), rescored_identity(*LITE)
    assert len({None, plain, released, own}) == 4
    assert known_scorers((RELEASED, None)) == (released, plain)
    assert known_scorers(LITE) == (own, plain)
    # The real VGGish makes what AudioSet released.
    assert known_scorers(("vggish", "a" * 64)) == (released, plain)
    assert library_scorer(LITE)[1] == own
    assert bundled_model("rescorer-lite").path.stat().st_size < 3e6


@BOTH
def test_scores_depend_neither_on_the_clips_beside_them_nor_on_threads(name: str) -> None:
    x, n_frames = random_clips(70)
    scores = load_scorer().score_calibrated(x, n_frames)
    together = Rescorer(bundled_model(name), threads=1).rescore(scores, x, n_frames)
    assert together.shape == scores.shape
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1
    for threads in (2, 3):
        threaded = Rescorer(bundled_model(name), threads=threads)
        assert (threaded.rescore(scores, x, n_frames) == together).all()
    for row in (0, 33, 69):
        alone = threaded.rescore(scores[[row]], x[[row]], n_frames[[row]])
        assert (alone[0] == together[row]).all()


@BOTH
def test_what_stands_beyond_the_frames_is_ignored(name: str) -> None:
    x, n_frames = random_clips(8)
    n_frames[:] = 4
    scores = load_scorer().score_calibrated(x, n_frames)
    other = x.copy()
    other[:, 4:] = 77
    one, two = (rescorer(name).rescore(scores, frames, n_frames) for frames in (x, other))
    assert (one == two).all()


@BOTH
def test_extreme_scores_are_rescored_to_numbers(name: str) -> None:
    x, n_frames = random_clips(4)
    scores = np.zeros((4, 527), np.float32)
    scores[1], scores[2, ::2] = 1, 1
    assert np.isfinite(rescorer(name).rescore(scores, x, n_frames)).all()
    assert logits_of(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([-12, 0, 12], abs=1e-4)


@pytest.mark.parametrize("what", ["scores", "frames", "counts", "none"])
def test_arrays_that_do_not_fit_are_refused(what: str) -> None:
    x, n_frames = random_clips(3)
    scores = np.full((3, 527), 0.1, np.float32)
    if what == "scores":
        scores = scores[:, :526]
    elif what == "frames":
        x = x[:, :9]
    elif what == "counts":
        n_frames = n_frames[:2]
    else:
        n_frames[1] = 0
    with pytest.raises(InvalidArgumentError, match="A rescorer takes"):
        rescorer("rescorer").rescore(scores, x, n_frames)


@pytest.fixture
def of_another_classifier(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed rescorers that were fitted to another classifier than the one installed."""

    def changed(name: str) -> BundledModel:
        model = bundled_model(name)
        manifest = dict(model.manifest) | {"classifier_identity": "0" * 64}
        return model if name == "classifier" else BundledModel(name, model.path, manifest)

    monkeypatch.setattr(rescoring, "bundled_model", changed)
    rescored_identity.cache_clear()
    load_rescorer.cache_clear()
    yield
    monkeypatch.undo()
    rescored_identity.cache_clear()
    load_rescorer.cache_clear()


@pytest.mark.usefixtures("of_another_classifier")
def test_a_rescorer_of_another_classifier_is_not_used(sound_master: Path) -> None:
    for embedder in (LITE, (RELEASED, None)):
        assert rescored_identity(*embedder) is None
        assert library_scorer(embedder)[1] == plain_identity()
    path = sound_master / "tone.wav"
    frames = aus.embed(path)
    x = np.zeros((1, 10, 128), np.uint8)
    x[0, : len(frames)] = frames
    best = np.sort(load_scorer().score_calibrated(x, np.array([len(frames)]))[0])[:-6:-1]
    assert [tag.score for tag in aus.tag(path).tags] == pytest.approx(best.tolist())


def test_a_rescorer_is_for_the_weights_that_it_was_fitted_to() -> None:
    assert rescorer_of(*LITE) == bundled_model("rescorer-lite")
    assert rescorer_of("lite", "f" * 64) is None
    assert rescorer_of("vggish", "f" * 64) == bundled_model("rescorer")


def test_a_rescorer_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "rescorer.onnx"
    broken.write_bytes(b"no model")
    model = bundled_model("rescorer")
    with pytest.raises(aus.AudioSearchError, match=r"rescorer\.onnx cannot be loaded"):
        Rescorer(type(model)("rescorer", broken, model.manifest))


def test_fitting_a_rescorer_makes_one_that_can_be_used(tmp_path: Path) -> None:
    from audiosearch.classifier.rescoring_fit import fit_rescorer
    from audiosearch.models import read_model

    path = write_packed(tmp_path / "train.h5", clips=300)
    fit = fit_rescorer(path, tmp_path / "out", validation=0.4)
    assert fit.train_clips + fit.validation_clips == 300
    made = read_model(tmp_path / "out", "rescorer", remedy="")
    assert made.manifest["classifier_identity"] == plain_identity()
    x, n_frames = random_clips(5)
    scores = load_scorer().score_calibrated(x, n_frames)
    assert np.isfinite(Rescorer(made).rescore(scores, x, n_frames)).all()
    with pytest.raises(InvalidArgumentError, match="ridge"):
        fit_rescorer(path, tmp_path / "out", ridge=0)


# Which clips get which


def stored(library: Path, row: int = 0) -> np.ndarray:
    """Score codes of all clips, (clips, 527)."""
    with Library(library) as opened:
        parts = opened.snapshot().parts
        return np.concatenate(
            [np.stack([p.block.column(i) for i in range(527)], axis=1) for p in parts]
        )


def test_released_clips_and_sounds_get_the_rescorer_of_their_embedder(
    sounds: Path, packed_h5: Path, tmp_path: Path, in_process: None
) -> None:
    aus.index([sounds, packed_h5], tmp_path / "lib", mix_embedders=True)
    manifest = manifest_of(tmp_path / "lib")
    assert manifest["classifier"]["sha256"] == rescored_identity(*LITE)
    (mixed,) = manifest["mixed_with"]
    assert (mixed["name"], mixed["scored_by"]) == (RELEASED, rescored_identity())
    found = contents(tmp_path / "lib")
    for row in (0, 7, 39):
        scores, *_ = found[f"clip-{row:06d}"]
        assert scores == encode_scores(rescored(packed_h5, row)).tobytes()
    for path in sounds.iterdir():
        scores, *_ = found[str(path)]
        assert scores == encode_scores(sound_scores(aus.embed(path))).tobytes()
    # Nothing about it is new to the next run.
    summary = aus.index([sounds, packed_h5], tmp_path / "lib")
    assert counts(summary) == {"unchanged": 42}


def test_packed_embeddings_of_our_own_get_our_rescorer(
    sounds: Path, tmp_path: Path, in_process: None
) -> None:
    aus.pack(sounds, tmp_path / "packed.h5")
    aus.index(tmp_path / "packed.h5", tmp_path / "packed")
    aus.index(sounds, tmp_path / "lib")
    assert (stored(tmp_path / "packed") == stored(tmp_path / "lib")).all()
    row = aus.tag_packed(tmp_path / "packed.h5", 0, top=527)
    expected = sound_scores(aus.embed(sounds / "000.wav"))[0]
    assert [tag.score for tag in row.tags] == pytest.approx(np.sort(expected)[::-1].tolist())


def test_tags_and_the_library_agree(sounds: Path, tmp_path: Path, in_process: None) -> None:
    aus.index(sounds, tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        for path in sounds.iterdir():
            for tag in aus.tag(path).tags:
                hits = library.search(f'label:"{tag.label}"').hits
                (found,) = [hit for hit in hits if hit.recording == str(path)]
                # Scores are stored in steps of a sixteenth of a logit.
                assert logits_of(np.array(found.score)) == pytest.approx(
                    logits_of(np.array(tag.score)), abs=0.04
                )


def test_a_library_without_rescored_scores_goes_on_without(
    packed_h5: Path, tmp_path: Path, in_process: None
) -> None:
    sounds = write_sounds(tmp_path / "sounds", 2, seconds=5)
    make_library(tmp_path / "lib", [1], np.zeros((1, 527), np.uint8))
    aus.index([sounds, packed_h5], tmp_path / "lib", keep_missing=True, mix_embedders=True)
    manifest = manifest_of(tmp_path / "lib")
    assert manifest["mixed_with"][0]["scored_by"] == plain_identity()
    found = contents(tmp_path / "lib")
    path = sounds / "000.wav"
    expected = load_scorer().score_calibrated(*clip_frames(aus.embed(path)))
    assert found[str(path)][0] == encode_scores(expected).tobytes()
    # What is like a sound is looked for with scores of the same kind.
    with aus.open_library(tmp_path / "lib") as library:
        for example in (path, aus.embed(path)):
            hit = library.similar(example, limit=1).hits[0]
            assert hit.recording == str(path)
            assert hit.score == pytest.approx(1, abs=1e-3)


def test_scores_of_an_earlier_rescorer_are_not_added_to(
    sounds: Path, packed_h5: Path, tmp_path: Path, in_process: None
) -> None:
    """Before our embedder had a rescorer of its own, that of released embeddings was used."""
    aus.index(sounds, tmp_path / "lib")
    earlier = rescored_identity()
    change_manifest(tmp_path / "lib", lambda m: m["classifier"].update(sha256=earlier))
    message = re.escape(f"'lite' ({library_scorer(LITE)[1][:12]})")
    with pytest.raises(LibraryMismatchError, match=f"{earlier[:12]}.*{message}.*new folder"):
        aus.index(sounds, tmp_path / "lib")
    with pytest.raises(LibraryMismatchError, match="cannot be compared"):
        aus.index(packed_h5, tmp_path / "lib", mix_embedders=True)
    with aus.open_library(tmp_path / "lib") as library:
        assert library.search("duration:>0").total == 2

    aus.index([packed_h5, sounds], tmp_path / "mixed", mix_embedders=True)
    change_manifest(tmp_path / "mixed", lambda m: m["mixed_with"][0].pop("scored_by"))
    with pytest.raises(LibraryMismatchError, match="another classifier or rescorer"):
        aus.index(
            packed_h5 if manifest_of(tmp_path / "mixed")["embedder"]["name"] == "lite" else sounds,
            tmp_path / "mixed",
        )


@pytest.mark.parametrize("kind", ["folder", "csv", "h5"])
def test_what_leaves_a_library_keeps_what_scored_it(
    sounds: Path, packed_h5: Path, tmp_path: Path, in_process: None, kind: str
) -> None:
    aus.index([sounds, packed_h5], tmp_path / "lib", mix_embedders=True)
    source = tmp_path / "lib"
    if kind != "folder":
        source = tmp_path / f"out.{kind}"
        aus.export(tmp_path / "lib", source)
    with pytest.raises(LibraryMismatchError, match="mix"):
        aus.import_clips(source, tmp_path / "copy")
    aus.import_clips(source, tmp_path / "copy", mix_embedders=True)
    one, two = manifest_of(tmp_path / "lib"), manifest_of(tmp_path / "copy")
    assert two["mixed_with"] == one["mixed_with"]
    assert two["classifier"] == one["classifier"]
    assert contents(tmp_path / "copy") == contents(tmp_path / "lib")
    assert counts(aus.index([sounds, packed_h5], tmp_path / "copy")) == {"unchanged": 42}


def test_libraries_of_two_embedders_can_be_merged_where_their_scores_are_this_versions(
    sounds: Path, packed_h5: Path, tmp_path: Path, in_process: None
) -> None:
    aus.index(sounds, tmp_path / "one")
    aus.index(packed_h5, tmp_path / "two")
    sources = [tmp_path / "one", tmp_path / "two"]
    aus.merge(sources, tmp_path / "both", mix_embedders=True)
    manifest = manifest_of(tmp_path / "both")
    assert manifest["classifier"]["sha256"] == rescored_identity(*LITE)
    assert [m["scored_by"] for m in manifest["mixed_with"]] == [rescored_identity()]
    change_manifest(tmp_path / "one", lambda m: m["classifier"].update(sha256="e" * 64))
    with pytest.raises(LibraryMismatchError, match="another classifier or rescorer"):
        aus.merge(sources, tmp_path / "again", mix_embedders=True)


def test_a_timeline_is_rescored_as_its_sound_is(
    sounds: Path, tmp_path: Path, in_process: None
) -> None:
    aus.index(sounds, tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        clip = library.clip(0)
        curves = library.timeline(0, top=527).curves
    frames = aus.embed(clip.recording)
    x = np.zeros((len(frames), 10, 128), np.uint8)
    x[:, 0] = frames
    expected = frame_scores(x, np.ones(len(frames), np.int64))
    for curve in curves[:20]:
        column = load_labels().by_name(curve.label).index
        np.testing.assert_allclose(curve.scores, expected[:, column], atol=1e-6)
