"""The lab's review: labels that are likely wrong, and sounds that are worth a label."""

from __future__ import annotations

import json
from pathlib import Path

from lab_fixtures import class_folders, write_sound

from audiosearch.cli.lab_review import command
from audiosearch.lab import (
    MODELS,
    LabConfig,
    doubted_labels,
    read_sounds,
    train_lab,
    worth_labelling,
)


def test_a_wrong_label_is_doubted_first(tmp_path):
    class_folders(tmp_path / "data", kinds=("low", "noise"), n=10)
    write_sound(tmp_path / "data" / "low" / "wrong.wav", "noise", 50)
    doubts = doubted_labels(read_sounds(tmp_path / "data"), cache=tmp_path / "cache")
    assert Path(doubts[0].path).name == "wrong.wav"
    assert (doubts[0].label, doubts[0].suggestion) == ("low", "noise")
    assert doubts[0].lead > 0.5
    assert [each.lead for each in doubts] == sorted((e.lead for e in doubts), reverse=True)


def test_a_label_that_is_missing_is_doubted_where_sounds_have_several(tmp_path):
    lines = ["path,labels"]
    for number in range(10):
        for kind in ("low", "noise"):
            write_sound(tmp_path / f"{kind}{number}.wav", kind, number)
            lines.append(f"{kind}{number}.wav,{kind};{kind}ish")
    lines[1] = "low0.wav,lowish"
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    doubts = doubted_labels(read_sounds(tmp_path / "list.csv"), cache=tmp_path / "cache")
    assert Path(doubts[0].path).name == "low0.wav"
    assert (doubts[0].label, doubts[0].suggestion) == ("no low", "low")


def test_what_the_model_hesitates_about_is_most_worth_a_label(tmp_path, invoke):
    class_folders(tmp_path / "data", n=6)
    run = train_lab(
        read_sounds(tmp_path / "data"),
        tmp_path / "out",
        config=LabConfig(validation=0),
        cache=tmp_path / "cache",
    )
    clear = write_sound(tmp_path / "new" / "clear.wav", "noise", 60)
    unclear = write_sound(tmp_path / "new" / "unclear.wav", "clicks", 61)
    (tmp_path / "new" / "broken.wav").write_bytes(b"no sound" * 50)
    found, skipped = worth_labelling(run.folder, [clear, unclear, tmp_path / "new" / "broken.wav"])
    assert [Path(each.path).name for each in found] == ["unclear.wav", "clear.wav"]
    assert 0 <= found[0].margin < found[1].margin
    assert [Path(path).name for path, _ in skipped] == ["broken.wav"]
    common = ["lab", "review", tmp_path / "data", "--cache", tmp_path / "cache"]
    options = ["--classifier", run.folder, "--unlabelled", tmp_path / "new"]
    done = invoke(*common, *options, "--json")
    assert done.code == 3
    written = json.loads(done.out)
    assert [each["margin"] for each in written["worth_labelling"]] == [e.margin for e in found]
    text = invoke(*common, *options)
    assert "unclear.wav" in text.out
    assert invoke(*common, *options[:2]).code == 2


def test_the_commands_models_are_those_that_are_fitted_at_once():
    (model,) = [each for each in command.params if each.name == "model"]
    fitted = {name for name, spec in MODELS.items() if spec.kind != "network"}
    assert set(model.type.choices) == fitted


def test_a_review_without_doubts_says_so(tmp_path, invoke):
    class_folders(tmp_path / "data", kinds=("low", "noise"), n=4)
    options = ["--folds", 2, "--cache", tmp_path / "cache"]
    done = invoke("lab", "review", tmp_path / "data", *options)
    assert done.code == 0
    assert done.out.startswith("0 of 8 labels are doubted")
