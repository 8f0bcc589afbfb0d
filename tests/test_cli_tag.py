"""``audiosearch tag``: one line a file, JSON lines, rows of a packed file, what it skips."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import BAD_SOUNDS, GOOD_SOUNDS, Outcome
from library_fixtures import rescored, sound_scores

from audiosearch.labels import load_labels

Invoke = Callable[..., Outcome]


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_line_a_file_in_the_order_given(invoke: Invoke, good_folder: Path) -> None:
    paths = [good_folder / "tone.wav", good_folder / "nested" / "noise.flac"]
    done = invoke("tag", *paths, "--top", 2)
    assert done.code == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert len(lines) == 2
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path}: ")
        assert line.removeprefix(f"{path}: ").count(" 0.") == 2


def test_json_lines_have_the_paths_as_given(
    invoke: Invoke, good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(good_folder)
    given = ["./tone.wav", "nested/../click.wav", "nested/deep/Büro 音.ogg"]
    done = invoke("tag", *given, "--json", "--top", 3)
    assert done.code == 0
    rows = json_lines(done.out)
    assert [row["path"] for row in rows] == given
    assert "Büro 音" in done.out, "UTF-8, not escaped"
    names = {label.name: label.mid for label in load_labels()}
    for row in rows:
        assert set(row) >= {"path", "start", "end", "tags"}
        tags = row["tags"]
        assert isinstance(tags, list)
        assert len(tags) == 3
        assert [tag["score"] for tag in tags] == sorted((t["score"] for t in tags), reverse=True)
        assert all(names[tag["label"]] == tag["mid"] for tag in tags)
    assert (rows[0]["start"], rows[0]["end"]) == (0, 2.0)
    assert rows[1]["end"] == 0.01


def test_a_files_score_is_the_highest_of_its_clips(invoke: Invoke, good_folder: Path) -> None:
    import audiosearch as aus

    path = good_folder / "nested" / "noise.flac"
    row = json_lines(invoke("tag", path, "--json").out)[0]
    scores = sound_scores(aus.embed(path))
    assert len(scores) == 2
    best = scores.max(axis=0)
    order = np.argsort(-best, kind="stable")[:5]
    tags = row["tags"]
    assert isinstance(tags, list)
    assert [tag["label"] for tag in tags] == [load_labels()[int(i)].name for i in order]
    assert [tag["score"] for tag in tags] == pytest.approx(best[order].tolist(), abs=1e-4)


def test_a_folder_stands_for_its_sounds_and_bad_files_are_listed(
    invoke: Invoke, sound_folder: Path
) -> None:
    done = invoke("tag", sound_folder, "--json")
    assert done.code == 3
    paths = {str(row["path"]) for row in json_lines(done.out)}
    assert paths == {str(sound_folder / name) for name in GOOD_SOUNDS}
    summary = done.err.partition(" skipped:\n")[2].splitlines()
    assert len(summary) == len(BAD_SOUNDS)
    for name in BAD_SOUNDS:
        assert any(str(sound_folder / name) in line for line in summary)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.wav", "no such file"),
        ("broken.wav", "No decoder"),
        ("empty.wav", "0 bytes"),
        ("nested/no_samples.wav", "no sound"),
        ("cut.flac", "cut.flac"),
    ],
)
def test_one_bad_file_is_one_sentence(
    invoke: Invoke, sound_folder: Path, name: str, said: str
) -> None:
    whole = (sound_folder / "nested" / "noise.flac").read_bytes()
    (sound_folder / "cut.flac").write_bytes(whole[:30])
    done = invoke("tag", sound_folder / name)
    assert done.code == 1
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert str(sound_folder / name) in done.err
    assert said in done.err


def test_a_folder_without_sounds(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = invoke("tag", tmp_path / "nothing")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "no sound files" in done.err


def test_a_name_that_is_no_text_comes_back_from_the_json(
    run_command: Callable[..., object], good_folder: Path
) -> None:
    name = os.fsencode(good_folder) + b"/\xff\xfe.wav"
    try:
        shutil.copy(os.fsencode(good_folder / "tone.wav"), name)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    done = run_command("tag", os.fsdecode(name), "--json")
    assert done.returncode == 0  # type: ignore[attr-defined]
    line = done.stdout.decode("utf-8")  # type: ignore[attr-defined]
    assert os.fsencode(json.loads(line)["path"]) == name


def test_a_name_with_control_characters_stays_on_its_line(
    invoke: Invoke, good_folder: Path, tmp_path: Path
) -> None:
    name = "a\nb\x1b[2Jc.wav"
    shutil.copy(next(good_folder.glob("*.wav")), tmp_path / name)
    done = invoke("tag", tmp_path / name, tmp_path / f"no{name}", "--top", 1)
    assert done.out.count("\n") == 1
    assert "\x1b" not in done.out + done.err
    assert r"a\nb\x1b[2Jc.wav: " in done.out
    assert r"noa\nb\x1b[2Jc.wav: " in done.err


def test_a_row_of_a_packed_file(invoke: Invoke, packed_h5: Path) -> None:
    import h5py

    done = invoke("tag", packed_h5, "--clip", 35, "--top", 3)
    assert done.code == 0
    with h5py.File(packed_h5) as file:
        video = file["video_id_list"][35].decode()
        start = float(file["start_time_seconds"][35])
        true = [load_labels()[int(i)].name for i in np.flatnonzero(file["y"][35])]
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{video}  clip 35  ")
    assert f"watch?v={video}&t={start:.0f}s" in lines[1]
    assert len([line for line in lines if line.lstrip()[:2] in ("1.", "2.", "3.")]) == 3
    assert lines[-1] == f"True labels: {', '.join(true)}"
    row = json.loads(invoke("tag", packed_h5, "--clip", 35, "--json").out)
    assert row["recording"] == video
    assert row["labels"] == true
    assert len(row["tags"]) == 5


def test_a_row_that_does_not_exist(invoke: Invoke, packed_h5: Path, tmp_path: Path) -> None:
    for path, row in ((packed_h5, 40), (tmp_path / "nowhere.h5", 0)):
        done = invoke("tag", path, "--clip", row)
        assert done.code == 1
        assert len(done.err.splitlines()) == 1
        assert str(path) in done.err


@pytest.mark.data
def test_the_real_evaluation_row_350(invoke: Invoke, data_dir: Path) -> None:
    import h5py

    path = data_dir / "audioset" / "eval.h5"
    with h5py.File(path) as file:
        video = file["video_id_list"][350].decode()
    done = invoke("tag", path, "--clip", 350)
    assert done.code == 0
    assert done.out.startswith(video)
    # The shipped library holds the same rows under the same numbers, rescored and rounded.
    row = json.loads(invoke("tag", path, "--clip", 350, "--json").out)
    page = json.loads(invoke("demo", "--get", "/clip/350.json").out)
    assert (page["recording"], page["labels"]) == (row["recording"], row["labels"])
    expected = np.sort(rescored(path, 350))[:-6:-1].tolist()
    for each in (page, row):
        assert [tag["score"] for tag in each["tags"]] == pytest.approx(expected, abs=0.01)


@pytest.mark.data
def test_the_samples_have_an_accepted_class_among_their_tags(
    invoke: Invoke, data_dir: Path
) -> None:
    folder = data_dir / "samples"
    done = invoke("tag", folder, "--json")
    assert done.code == 0
    tags = {Path(str(row["path"])).name: row["tags"] for row in json_lines(done.out)}
    assert len(tags) == 17
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        accepted = [(row["file"], row["accepted_class"]) for row in csv.DictReader(file)]
    right = {name for name, label in accepted if label in {tag["label"] for tag in tags[name]}}
    assert len(right) >= 15, sorted(set(tags) - right)
