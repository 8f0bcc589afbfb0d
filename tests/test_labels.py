"""The classes: names, what a word stands for, suggestions."""

import csv
import json

import pytest

from audiosearch.errors import InvalidArgumentError
from audiosearch.labels import load_labels, normalize, stem

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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  Bow-Wow, ÉTÉ ", "bow wow ete"),
        ("dentist's drill", "dentists drill"),
        ("l’eau", "eau"),
        ("snake_case", "snake case"),
        ("Straße", "strasse"),
        ("ＣＡＲ", "car"),
        ("狗叫", "狗叫"),
        ("?!", ""),
    ],
)
def test_normalize_ignores_case_accents_and_punctuation(text, wanted):
    assert normalize(text) == wanted
    assert normalize(wanted) == wanted


@pytest.mark.parametrize(
    "words",
    [
        ("dog", "dogs"),
        ("bark", "barks", "barking", "barked"),
        ("cry", "cries", "crying", "cried"),
        ("drum", "drums", "drumming"),
        ("buzz", "buzzes", "buzzing"),
        ("hiss", "hisses", "hissing"),
        ("wolf", "wolves"),
        ("engine", "engines"),
    ],
)
def test_forms_of_a_word_have_one_stem(words):
    assert len({stem(word) for word in words}) == 1


@pytest.mark.parametrize(
    "pair", [("car", "carr"), ("car", "cart"), ("bus", "buzz"), ("bell", "bellow"), ("pig", "ping")]
)
def test_other_words_have_other_stems(pair):
    assert stem(pair[0]) != stem(pair[1])


def test_a_node_is_known_by_name_and_by_mid():
    mid = LABELS.node("human VOICE")
    assert mid is not None
    assert LABELS.node(mid) == mid
    assert LABELS.node_name(mid) == "Human voice"
    assert LABELS.by_name("Speech").index in LABELS.below(mid)
    assert LABELS.node("no such thing") is None


def test_groups_are_the_sets_that_nodes_of_the_ontology_stand_for() -> None:
    labels = load_labels()
    groups = labels.groups()
    assert len(set(groups)) == len(groups) > 100
    assert tuple(sorted(labels.resolve("vehicle"))) in groups
    assert tuple(sorted(labels.resolve("human voice"))) in groups
    assert all(len(group) > 1 and list(group) == sorted(set(group)) for group in groups)
