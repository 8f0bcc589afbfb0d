"""Tags of files and of rows of packed files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import BAD_SOUNDS, GOOD_SOUNDS
from library_fixtures import rescored, sound_scores

import audiosearch as aus
from audiosearch.errors import (
    AudioError,
    AudioNotFoundError,
    DataError,
    InvalidArgumentError,
)
from audiosearch.labels import load_labels


def file_scores(path: Path) -> np.ndarray:
    """The score of a file: the largest of its clips."""
    return sound_scores(aus.embed(path)).max(axis=0)


@pytest.mark.parametrize("name", GOOD_SOUNDS)
def test_a_file_gets_its_best_classes(sound_master: Path, name: str) -> None:
    path = sound_master / name
    result = aus.tag(path)
    scores = file_scores(path)
    best = sorted(range(527), key=lambda i: (-scores[i], i))[:5]
    assert [tag.label for tag in result.tags] == [load_labels().names[i] for i in best]
    assert [tag.mid for tag in result.tags] == [load_labels().mids[i] for i in best]
    assert [tag.score for tag in result.tags] == pytest.approx([scores[i] for i in best])
    assert (result.path, result.start) == (str(path), 0.0)
    assert result.end == pytest.approx(GOOD_SOUNDS[name][2], abs=0.001)


def test_a_long_file_is_scored_by_its_best_clip(tmp_path: Path) -> None:
    import soundfile

    noise = np.random.default_rng(0).normal(0, 0.2, 16000 * 15)
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(153600), noise]), 16000)
    scores = sound_scores(aus.embed(tmp_path / "a.wav"))
    assert len(scores) == 3
    found = {tag.label: tag.score for tag in aus.tag(tmp_path / "a.wav", top=527).tags}
    for index, name in enumerate(load_labels().names):
        assert found[name] == pytest.approx(scores[:, index].max(), abs=1e-6)


@pytest.mark.parametrize("top", [1, 7, 527])
def test_as_many_as_asked_for(sound_master: Path, top: int) -> None:
    tags = aus.tag(sound_master / "tone.wav", top=top).tags
    assert len({tag.label for tag in tags}) == top
    assert [tag.score for tag in tags] == sorted((tag.score for tag in tags), reverse=True)


@pytest.mark.parametrize("top", [0, -1, 528])
def test_other_numbers_are_refused(sound_master: Path, packed_h5: Path, top: int) -> None:
    with pytest.raises(InvalidArgumentError):
        aus.tag(sound_master / "tone.wav", top=top)
    with pytest.raises(InvalidArgumentError):
        aus.tag_packed(packed_h5, 0, top=top)
    with pytest.raises(InvalidArgumentError):
        aus.tag_files([sound_master / "tone.wav"], top=top)


def test_tag_files_refuses_no_workers_at_once(sound_master: Path) -> None:
    with pytest.raises(InvalidArgumentError):
        aus.tag_files([sound_master / "tone.wav"], workers=0)


def test_one_bad_file_never_stops_a_batch(sound_folder: Path) -> None:
    names = [*GOOD_SOUNDS, *BAD_SOUNDS, "nowhere.wav"]
    names = [name for pair in zip(names, reversed(names), strict=True) for name in pair]
    paths = [sound_folder / name for name in names]
    results = list(aus.tag_files(paths))
    assert [result.path for result in results] == [str(path) for path in paths]
    for name, result in zip(names, results, strict=True):
        assert isinstance(result, AudioError) == (name not in GOOD_SOUNDS)
    for result in results:
        if isinstance(result, aus.TagResult) and result.path.endswith("tone.wav"):
            assert result.to_dict() == aus.tag(result.path).to_dict()


def test_tagging_nothing_gives_nothing() -> None:
    assert list(aus.tag_files([])) == []


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_a_bad_file_is_an_error_that_names_it(sound_master: Path, name: str) -> None:
    with pytest.raises(AudioError, match=Path(name).name) as caught:
        aus.tag(sound_master / name)
    assert caught.value.path == str(sound_master / name)


def test_a_file_gives_what_the_interface_says(sound_master: Path) -> None:
    result = aus.tag(sound_master / "nested" / "deep" / "Büro 音.ogg", top=2).to_dict()
    assert list(result) == ["path", "start", "end", "tags"]
    assert result["path"].endswith("Büro 音.ogg")
    for tag in result["tags"]:
        assert list(tag) == ["label", "mid", "score"]
        assert 0 <= tag["score"] <= 1
        assert round(tag["score"], 4) == tag["score"]


def test_a_name_that_is_not_text_can_be_printed(sound_master: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"kl\xe4nge.wav")
    shutil.copy(sound_master / "tone.wav", path)
    result = aus.tag(path)
    assert result.path == str(path)
    assert json.dumps(result.to_dict(), ensure_ascii=False).encode("utf-8")
    (batch,) = aus.tag_files([path])
    assert batch == result


def test_a_row_of_a_packed_file(packed_h5: Path) -> None:
    with h5py.File(packed_h5) as file:
        count = file["n_frames"][7]
        truth, start = np.flatnonzero(file["y"][7]), float(file["start_time_seconds"][7])
    result = aus.tag_packed(packed_h5, 7, top=4)
    scores = rescored(packed_h5, 7)
    assert count == 6
    assert [tag.score for tag in result.tags] == pytest.approx(np.sort(scores)[::-1][:4])
    assert result.to_dict() == {
        "path": str(packed_h5),
        "start": start,
        "end": start + 10,
        "tags": result.to_dict()["tags"],
        "recording": "clip-000007",
        "clip": 7,
        "labels": [load_labels().names[i] for i in truth],
    }


@pytest.mark.parametrize("row", [-1, 40, 10**12])
def test_a_row_that_is_not_there(packed_h5: Path, row: int) -> None:
    with pytest.raises(InvalidArgumentError, match="rows are 0 to 39"):
        aus.tag_packed(packed_h5, row)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioNotFoundError):
        aus.tag(tmp_path / "nowhere.wav")
    with pytest.raises(DataError):
        aus.tag_packed(tmp_path / "nowhere.h5", 0)
