"""The lab's data: layouts, splits that are honest, and what a look at the sounds finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lab_fixtures import class_folders, esc50_layout, write_sound

import audiosearch as aus
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.lab import inspect_sounds, plan_splits, read_sounds
from audiosearch.lab.patterns import NamePattern
from audiosearch.lab.splits import hold_out
from audiosearch.lab.tables import TableColumns


def labels_of(sounds) -> dict[str, tuple[str, ...]]:
    return {Path(each.path).name: each.labels for each in sounds.sounds}


def test_a_folder_of_folders_gives_its_folders_names_as_classes(tmp_path):
    write_sound(tmp_path / "Büro  lärm" / "deep" / "a.wav", "noise", 1)
    write_sound(tmp_path / "it's; 50% x" / "b.wav", "low", 1)
    write_sound(tmp_path / "loose.wav", "low", 2)
    (tmp_path / "nothing").mkdir()
    sounds = read_sounds(tmp_path)
    assert sounds.layout == "folders"
    assert sounds.classes == ("Büro lärm", "it's; 50% x")
    assert labels_of(sounds) == {"a.wav": ("Büro lärm",), "b.wav": ("it's; 50% x",)}
    assert [(Path(path).name, reason) for path, reason in sounds.skipped] == [
        ("loose.wav", "It lies in no class's folder."),
        ("nothing", "The folder of this class holds no sounds."),
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (['5" pipe', "dog"], "quotation mark"),
        (["5” pipe"], "quotation mark"),
        (["Strasse", "Straße"], "'Strasse' and 'Straße' are one"),
    ],
)
def test_classes_that_queries_could_not_name_are_refused(names, said, tmp_path):
    for name in names:
        write_sound(tmp_path / name / "a.wav", "low", 1)
    with pytest.raises(DataError, match=said):
        read_sounds(tmp_path)
    write_sound(tmp_path / "cat" / "a.wav", "low", 1)
    assert read_sounds(tmp_path, classes=["cat"]).classes == ("cat",)


def test_one_class_written_in_two_ways_is_one_class(tmp_path):
    write_sound(tmp_path / "caf\u00e9" / "a.wav", "low", 1)
    write_sound(tmp_path / "cafe\u0301" / "b.wav", "low", 2)
    assert read_sounds(tmp_path).classes == ("caf\u00e9",)


def test_esc50_gives_folds_and_recordings_in_any_file_format(tmp_path):
    sounds = read_sounds(esc50_layout(tmp_path, suffix=".flac"))
    assert sounds.layout == "esc50"
    assert len(sounds) == 18
    assert sounds.classes == ("high", "low", "noise")
    assert {(each.fold, each.group) for each in sounds.sounds} == {
        (str(fold), f"{target}{fold}") for fold in (1, 2, 3) for target in range(3)
    }
    plan = plan_splits(sounds)
    assert (plan.kind, plan.optimistic) == ("folds", False)
    assert [each.name for each in plan.splits] == ["fold 1", "fold 2", "fold 3"]
    for each, fold in zip(plan.splits, "123", strict=True):
        assert {sounds.sounds[row].fold for row in each.test} == {fold}
        assert sorted([*each.train, *each.test]) == list(range(18))


def test_a_listed_file_that_is_not_there_is_named_and_the_rest_goes_on(tmp_path):
    esc50_layout(tmp_path)
    (tmp_path / "audio" / "1-01-0-0.wav").unlink()
    sounds = read_sounds(tmp_path)
    assert len(sounds) == 17
    assert sounds.skipped[0][0].endswith("1-01-0-0.wav")
    assert "not there" in sounds.skipped[0][1]


def test_urbansound8k_gives_folds_and_recordings(tmp_path):
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in (1, 2):
        for number, kind in enumerate(("low", "noise")):
            name = f"{fold}{number}-{number}-0-0.wav"
            write_sound(tmp_path / "audio" / f"fold{fold}" / name, kind, fold)
            lines.append(f"{name},{fold}{number},0,1,1,{fold},{number},{kind}")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "UrbanSound8K.csv").write_text("\n".join(lines), encoding="utf-8")
    sounds = read_sounds(tmp_path)
    assert sounds.layout == "urbansound8k"
    assert [(s.labels[0], s.fold, s.group) for s in sounds.sounds] == [
        ("low", "1", "10"),
        ("noise", "1", "11"),
        ("low", "2", "20"),
        ("noise", "2", "21"),
    ]


def test_spoken_digits_leave_one_speaker_out(tmp_path):
    for speaker in ("ann", "bob", "eve"):
        for digit in (3, 7):
            for take in range(2):
                write_sound(tmp_path / f"{digit}_{speaker}_{take}.wav", "low", digit)
    sounds = read_sounds(tmp_path)
    assert (sounds.layout, sounds.classes) == ("fsdd", ("3", "7"))
    plan = plan_splits(sounds)
    assert plan.kind == "groups"
    assert [each.name for each in plan.splits] == ["ann", "bob", "eve"]
    for each in plan.splits:
        assert {sounds.sounds[row].group for row in each.test} == {each.name}
        assert each.name not in {sounds.sounds[row].group for row in each.train}


def test_a_random_split_is_refused_where_groups_are_known(tmp_path):
    sounds = read_sounds(esc50_layout(tmp_path))
    with pytest.raises(InvalidArgumentError, match="--optimistic"):
        plan_splits(sounds, split="random")
    plan = plan_splits(sounds, split="random", folds=3, optimistic=True)
    assert plan.optimistic
    assert "OPTIMISTIC" in plan.description
    torn = [
        {sounds.sounds[row].group for row in each.test}
        & {sounds.sounds[row].group for row in each.train}
        for each in plan.splits
    ]
    assert any(torn)


def test_a_split_that_leaves_one_class_to_learn_from_is_refused(tmp_path, invoke):
    lines = ["path,label,start,end"]
    for kind, file in (("low", "a.wav"), ("noise", "b.wav")):
        write_sound(tmp_path / file, kind, 1, seconds=2.0)
        lines += [f"{file},{kind},{start},{start + 0.5}" for start in (0, 0.5, 1, 1.5)]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"without '.*a\.wav'.*fewer than two classes"):
        plan_splits(read_sounds(tmp_path / "list.csv"))
    common = [tmp_path / "list.csv", "--cache", tmp_path / "cache"]
    for command in (
        ["compare", *common, "--models", "prototypes", "--out", tmp_path / "out"],
        ["review", *common],
    ):
        done = invoke("lab", *command)
        assert done.code == 1
        assert "fewer than two classes" in done.err
        assert "fault of audiosearch" not in done.err
    looked = invoke("lab", "inspect", tmp_path / "list.csv", "--json")
    assert "fewer than two classes" in json.loads(looked.out)["problems"][-1]


def test_a_path_that_no_file_can_have_is_refused_with_its_line(tmp_path, invoke):
    write_sound(tmp_path / "a.wav", "low", 1)
    (tmp_path / "list.csv").write_bytes(b"path,label\na.wav,low\na\0b.wav,high\n")
    done = invoke("lab", "train", tmp_path / "list.csv", "--out", tmp_path / "out")
    assert done.code == 1
    assert "list.csv, line 3" in done.err
    assert "NUL" in done.err


def test_many_groups_are_divided_with_all_classes_everywhere(tmp_path):
    lines = ["file\tclass\tgroup"]
    for group in range(24):
        for take in range(2):
            lines.append(f"{group}-{take}.wav\t{'ab'[group % 2]}\tg{group}")
    (tmp_path / "list.tsv").write_text("\n".join(lines), encoding="utf-8")
    sounds = read_sounds(tmp_path / "list.tsv")
    assert sounds.layout == "table"
    plan = plan_splits(sounds, folds=4)
    tested = np.concatenate([each.test for each in plan.splits])
    assert sorted(tested) == list(range(48))
    for each in plan.splits:
        groups = [{sounds.sounds[row].group for row in rows} for rows in (each.train, each.test)]
        assert not groups[0] & groups[1]
        assert {sounds.sounds[row].labels for row in each.test} == {("a",), ("b",)}
    train, held_out = hold_out(sounds, plan.splits[0].train, 0.2, seed=1)
    groups = [{sounds.sounds[row].group for row in rows} for rows in (train, held_out)]
    assert not groups[0] & groups[1]
    assert sorted([*train, *held_out]) == plan.splits[0].train.tolist()


def test_parts_of_one_file_are_a_group_and_several_labels_are_kept(tmp_path):
    (tmp_path / "list.csv").write_text(
        'path,start,end,labels\nx/a.wav,0,1.5,dog; rain\nx/a.wav,2,3,rain\n"b, c.wav",,,\n',
        encoding="utf-8",
    )
    sounds = read_sounds(tmp_path / "list.csv")
    assert sounds.multi_label
    assert sounds.classes == ("dog", "rain")
    first, second, third = sorted(sounds.sounds, key=lambda each: (-len(each.labels), each.path))
    assert (first.path, first.start, first.end) == (str(tmp_path / "x/a.wav"), 0.0, 1.5)
    assert second.group == first.group == first.path
    assert third.labels == ()
    assert sounds.targets().sum(axis=1).tolist() == [len(each.labels) for each in sounds.sounds]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,start\na.wav,1\n", "no column 'label'.*--label-column"),
        ("path,label\na.wav\n", "line 2 has 1 values"),
        ("path,label,start\na.wav,x,soon\n", "line 2: 'soon' is no time"),
        ("path,label,start,end\na.wav,x,3,2\n", "line 2: its end is not after"),
        ("path,label\n,x\n", "line 2: it names no file"),
        ("path,label\n", "holds no labelled sounds"),
        ("path,path,label\na,b,c\n", "two columns"),
        ("", "no column 'path'"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_sounds(tmp_path / "list.csv")


def test_columns_may_have_other_names(tmp_path):
    (tmp_path / "list.csv").write_text("where,what\na.wav,x\nb.wav,y\n", encoding="utf-8")
    sounds = read_sounds(tmp_path / "list.csv", columns=TableColumns(path="where", label="what"))
    assert labels_of(sounds) == {"a.wav": ("x",), "b.wav": ("y",)}
    with pytest.raises(DataError, match="no column 'which'"):
        read_sounds(tmp_path / "list.csv", columns=TableColumns(path="which"))


def test_labels_stand_in_names_where_the_pattern_says(tmp_path):
    for name in ("car+rain_site 1-x.wav", "rain_site 2-y.wav", "notes.wav"):
        write_sound(tmp_path / name, "noise", 1)
    sounds = read_sounds(tmp_path, pattern="{label}_{group}-{}")
    assert labels_of(sounds) == {
        "car+rain_site 1-x.wav": ("car", "rain"),
        "rain_site 2-y.wav": ("rain",),
    }
    assert {each.group for each in sounds.sounds} == {"site 1", "site 2"}
    assert "does not fit" in sounds.skipped[0][1]
    for text in ("{group}", "{label}{group}", "{label}_{other}", "{label}_{label}"):
        with pytest.raises(InvalidArgumentError, match="pattern"):
            NamePattern(text)


def test_corrections_of_a_library_are_labels(tmp_path, good_folder):
    folder = tmp_path / "library"
    aus.index([good_folder], folder)
    with aus.Library(folder) as library:
        clips = {
            name: library.search(f"path:{name}").hits[0].clip
            for name in ("tone.wav", "silence.wav", "click.wav")
        }
        library.change_labels(
            [
                aus.LabelChange(clips["tone.wav"], "my beep", "confirmed", new=True),
                aus.LabelChange(clips["silence.wav"], "hush", "confirmed", new=True),
                aus.LabelChange(clips["click.wav"], "my beep", "rejected"),
            ]
        )
    aus.export_labels(folder, tmp_path / "labels.csv")
    sounds = read_sounds(tmp_path / "labels.csv")
    assert sounds.layout == "corrections"
    assert labels_of(sounds) == {"tone.wav": ("my beep",), "silence.wav": ("hush",)}
    assert [reason for _, reason in sounds.skipped] == ["It has no label."]


def test_an_inspection_lists_what_cannot_be_read_and_what_is_too_little(tmp_path):
    class_folders(tmp_path, n=3)
    write_sound(tmp_path / "clicks" / "one.wav", "clicks", 1)
    (tmp_path / "low" / "broken.wav").write_bytes(b"no sound" * 50)
    found = inspect_sounds(read_sounds(tmp_path))
    assert found.classes == {"clicks": 1, "high": 3, "low": 3, "noise": 3}
    assert [Path(path).name for path, _ in found.sounds.skipped] == ["broken.wav"]
    assert found.seconds == pytest.approx((0.5, 0.5, 0.5))
    assert any("'clicks' has one sound" in text for text in found.problems)
    assert not found.leaks


def test_an_inspection_says_what_training_does_about_a_rare_class(tmp_path):
    class_folders(tmp_path, kinds=("noise",), n=10)
    write_sound(tmp_path / "low" / "one.wav", "low", 1)
    (problem,) = [
        text for text in inspect_sounds(read_sounds(tmp_path)).problems if "weigh" in text
    ]
    assert "10" in problem.replace(str(tmp_path), ""), "how many more the other class has"
    assert "drawn" not in problem, "they are not drawn more often"


def test_copies_in_several_folds_are_reported_as_leakage(tmp_path):
    esc50_layout(tmp_path)
    shutil.copy(tmp_path / "audio" / "1-01-0-0.wav", tmp_path / "audio" / "2-02-0-0.wav")
    shutil.copy(tmp_path / "audio" / "3-03-0-0.wav", tmp_path / "audio" / "3-13-0-1.wav")
    found = inspect_sounds(read_sounds(tmp_path))
    assert found.leaks
    first, second = found.copies
    assert [Path(name).name for name in first.names] == ["1-01-0-0.wav", "2-02-0-0.wav"]
    assert (first.crosses, first.contradicts) == (True, False)
    assert (second.crosses, second.contradicts) == (False, True)
    assert any(text.startswith("Leakage: 1 sounds") for text in found.problems)


def test_copies_without_folds_stay_on_one_side(tmp_path):
    class_folders(tmp_path, n=6)
    for number in range(4):
        shutil.copy(tmp_path / "low" / "00.wav", tmp_path / "low" / f"copy{number}.wav")
    found = inspect_sounds(read_sounds(tmp_path))
    assert found.plan is not None
    sides = [{*each.test.tolist()} & {*found.copies[0].rows} for each in found.plan.splits]
    assert sorted(len(side) for side in sides) == [0, 0, 0, 0, 5]


def test_a_group_in_several_of_the_makers_folds_is_reported(tmp_path):
    esc50_layout(tmp_path)
    table = tmp_path / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace(",02,", ",01,"), encoding="utf-8")
    found = inspect_sounds(read_sounds(tmp_path))
    assert found.torn_groups == ("01",)
    assert found.leaks


def test_one_class_is_refused(tmp_path):
    sounds = read_sounds(class_folders(tmp_path, kinds=("low",)))
    with pytest.raises(DataError, match="one class only"):
        sounds.check_trainable()


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_sounds(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no labelled sounds"):
        read_sounds(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        read_sounds(tmp_path, layout="table")
    with pytest.raises(InvalidArgumentError, match="needs a pattern"):
        read_sounds(tmp_path, layout="pattern")
    class_folders(tmp_path)
    with pytest.raises(DataError, match="no class 'owl'"):
        read_sounds(tmp_path, classes=["owl"])
    assert read_sounds(tmp_path, classes=["low", "noise"]).classes == ("low", "noise")


def test_the_command_prints_the_same_as_json(tmp_path, invoke):
    class_folders(tmp_path / "data", n=5)
    (tmp_path / "data" / "low" / "broken.wav").write_bytes(b"no sound" * 50)
    done = invoke("lab", "inspect", tmp_path / "data", "--json")
    assert done.code == 3
    found = json.loads(done.out)
    assert found["classes"] == {"high": 5, "low": 5, "noise": 5}
    assert [Path(each["path"]).name for each in found["skipped"]] == ["broken.wav"]
    assert [(each["train"], each["test"]) for each in found["split"]["splits"]] == [(12, 3)] * 5
    text = invoke("lab", "inspect", tmp_path / "data")
    assert "15 sounds of 3 classes" in text.out
    assert "broken.wav" in text.err


def test_the_commands_choices_are_those_of_the_api():
    import click

    from audiosearch.cli.lab_inspect import command
    from audiosearch.cli.lab_options import split_options
    from audiosearch.lab.reading import LAYOUTS
    from audiosearch.lab.splits import SPLITS

    split = split_options(click.command("x")(lambda: None))
    choices = {each.name: each.type for each in [*command.params, *split.params]}
    assert tuple(choices["layout"].choices) == LAYOUTS
    assert tuple(choices["split"].choices) == SPLITS


def test_the_real_sets_are_read_with_their_folds_and_groups(data_dir):
    esc = read_sounds(data_dir / "esc10")
    assert (len(esc), len(esc.classes), len(plan_splits(esc).splits)) == (400, 10, 5)
    urban = read_sounds(data_dir / "urbansound8k")
    assert (len(urban), len(urban.classes), len(plan_splits(urban).splits)) == (180, 10, 2)
    digits = read_sounds(data_dir / "fsdd")
    assert (len(digits), len(digits.classes), len(plan_splits(digits).splits)) == (3000, 10, 6)
