"""The classes: names, what a word stands for, suggestions."""

import csv
import json

import pytest

from audiosearch.errors import InvalidArgumentError
from audiosearch.labels import load_labels, normalize

LABELS = load_labels()


def named(text: str) -> set[str]:
    return {LABELS[index].name for index in LABELS.resolve(text)}


@pytest.mark.data
def test_the_bundled_classes_are_audiosets(data_dir):
    folder = data_dir / "audioset"
    with (folder / "class_labels_indices.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            label = LABELS[int(row["index"])]
            assert (label.mid, label.name) == (row["mid"], row["display_name"])
    nodes = json.loads((folder / "ontology.json").read_text(encoding="utf-8"))
    children = {node["id"]: node["child_ids"] for node in nodes}

    def below(mid: str) -> set[str]:
        return {mid}.union(*(below(child) for child in children[mid]))

    for label in LABELS:
        wanted = {mid for mid in below(label.mid) if mid in LABELS.mids} - {label.mid}
        assert {LABELS[index].mid for index in LABELS.descendants(label.index)} == wanted


def test_there_are_527_classes_with_unique_names_and_mids():
    assert len(LABELS) == len(set(LABELS.names)) == len(set(LABELS.mids)) == 527


def test_every_class_is_found_by_its_own_name_first():
    for label in LABELS:
        assert LABELS.resolve(label.name)[0] in {
            other.index for other in LABELS if normalize(other.name) == normalize(label.name)
        }
        assert LABELS.by_name(label.name.upper()) == label
        assert LABELS.by_name(label.mid) == label


def test_a_car_is_a_car_and_no_carnatic_music():
    found = named("car")
    assert LABELS[LABELS.resolve("car")[0]].name == "Car"
    assert {"Car", "Car passing by", "Race car, auto racing"} <= found
    assert not {"Carnatic music", "Scary music", "Cart"} & found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gunfire", "Gunshot, gunfire"),
        ("dogs", "Dog"),
        ("barking", "Bark"),
        ("Bow wow", "Bow-wow"),
        ("police car", "Police car (siren)"),
        ("WOLF", "Howl"),
        ("human voice", "Speech"),
        ("vehicle", "Motorcycle"),
    ],
)
def test_words_find_classes(text, name):
    assert name in named(text)


def test_what_is_no_word_finds_nothing():
    for text in ("", " ", "...", "qwertz", "(", "carr"):
        assert LABELS.resolve(text) == ()


def test_suggestions_are_near_in_spelling():
    assert LABELS.suggest("carr")[0] == "Car"
    assert "Trumpet" in LABELS.suggest("trumpett")
    assert len(LABELS.suggest("musik", count=3)) <= 3


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InvalidArgumentError, match="Trumpet"):
        LABELS.by_name("trumpett")


def test_normalize_ignores_case_accents_and_punctuation():
    assert normalize("  Bow-Wow, ÉTÉ ") == "bow wow ete"


def test_groups_are_the_sets_that_nodes_of_the_ontology_stand_for() -> None:
    labels = load_labels()
    groups = labels.groups()
    assert len(set(groups)) == len(groups) > 100
    assert tuple(sorted(labels.resolve("vehicle"))) in groups
    assert tuple(sorted(labels.resolve("human voice"))) in groups
    assert all(len(group) > 1 and list(group) == sorted(set(group)) for group in groups)
