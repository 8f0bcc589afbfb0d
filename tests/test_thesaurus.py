"""The thesaurus: what everyday words mean, ours and a user's own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from audiosearch.errors import DataError
from audiosearch.labels import load_labels, normalize
from audiosearch.query import Vocabulary, load_vocabulary, parse, read_thesaurus

LABELS = load_labels()
DATA = REPOSITORY / "audiosearch" / "data" / "thesaurus.json"


def first(text: str) -> str:
    """Return the first class or group that a text stands for."""
    return load_vocabulary().find(text)[0].name


def tables() -> dict[str, dict[str, list[str]]]:
    def unique(pairs):
        counts = Counter(key for key, _ in pairs)
        assert max(counts.values()) == 1, counts.most_common(1)
        return dict(pairs)

    return json.loads(DATA.read_text(encoding="utf-8"), object_pairs_hook=unique)["words"]


def test_it_is_large_in_six_languages() -> None:
    sizes = {
        language: len({normalize(word) for key in table for word in key.split(",")})
        for language, table in tables().items()
    }
    assert list(sizes) == ["en", "es", "fr", "de", "pt", "zh"]
    assert sizes["en"] >= 1500
    assert min(sizes.values()) >= 400


def test_every_entry_names_classes_and_no_word_stands_twice() -> None:
    for language, table in tables().items():
        seen: dict[str, str] = {}
        for key, names in table.items():
            assert names
            for name in names:
                mid = LABELS.node(name.removeprefix("~"))
                assert mid, (language, key, name)
                assert LABELS.node_name(mid) == name.removeprefix("~"), (key, name)
                assert LABELS.below(mid), (key, name)
            assert not names[0].startswith("~"), key
            for word in key.split(","):
                assert seen.get(normalize(word), key) == key, (language, word)
                seen[normalize(word)] = key


def test_every_word_can_be_searched_for() -> None:
    vocabulary = load_vocabulary()
    for language, table in tables().items():
        for key in table:
            for word in key.split(","):
                assert vocabulary.find(word), (language, word)
    for key in list(tables()["en"])[::7] + list(tables()["zh"])[::7]:
        parse(f'"{key.split(",")[0]}"')


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("automobile", "Car"),
        ("puppy", "Dog"),
        ("puppies", "Dog"),
        ("chopper", "Helicopter"),
        ("kettle", "Boiling"),
        ("gunfire", "Gunshot, gunfire"),
        ("gun", "Gunshot, gunfire"),
        ("applause", "Applause"),
        ("clapping", "Clapping"),
        ("police", "Police car (siren)"),
        ("traffic", "Traffic noise, roadway noise"),
        ("horn", "Vehicle horn, car horn, honking"),
        ("ambulance", "Ambulance (siren)"),
        ("plane", "Fixed-wing aircraft, airplane"),
        ("river", "Stream"),
        ("footsteps", "Walk, footsteps"),
        ("birdsong", "Bird vocalization, bird call, bird song"),
        ("hip-hop", "Hip hop music"),
        ("Rock 'n' Roll", "Rock and roll"),
        ("broken glass", "Shatter"),
        ("baby crying", "Baby cry, infant cry"),
        ("lions", "Roaring cats (lions, tigers)"),
        ("perro", "Dog"),
        ("lluvia", "Rain"),
        ("coche", "Car"),
        ("voiture", "Car"),
        ("l'eau", "Water"),
        ("oiseaux", "Bird"),
        ("Vögel", "Bird"),
        ("Voegel", "Bird"),
        ("Klavier", "Piano"),
        ("Feuerwehr", "Fire engine, fire truck (siren)"),
        ("cachorro", "Dog"),
        ("violão", "Acoustic guitar"),
        ("chuva", "Rain"),
        ("狗", "Dog"),
        ("汽车", "Car"),
        ("汽車", "Car"),
        ("鸟叫声", "Bird vocalization, bird call, bird song"),
        ("枪声", "Gunshot, gunfire"),
    ],
)
def test_everyday_words_mean_what_people_mean(word: str, name: str) -> None:
    assert first(word) == name


def test_english_wins_where_languages_collide() -> None:
    assert first("chat") == "Conversation"
    assert first("le chat") == "Cat"


def test_weaker_meanings_weigh_less_and_come_after() -> None:
    groups = load_vocabulary().find("police")
    assert [(group.name, group.weight, group.how) for group in groups] == [
        ("Police car (siren)", 1.0, "thesaurus"),
        ("Siren", 0.5, "thesaurus"),
    ]


def test_a_name_is_found_by_name_before_the_thesaurus() -> None:
    assert [(group.name, group.how) for group in load_vocabulary().find("car")] == [("Car", "name")]
    keyboard = [group.name for group in load_vocabulary().find("keyboard")]
    assert keyboard == ["Keyboard (musical)", "Computer keyboard"]


def test_no_search_for_a_car_finds_music() -> None:
    for word in ("car", "cars", "Auto", "coche", "voiture", "carro", "汽车", "automobile"):
        found = {LABELS[index].name for index in parse(word).classes}
        assert "Car" in found
        assert not {"Carnatic music", "Scary music", "Cart"} & found
        assert not any("music" in name for name in found)


def test_completions_begin_with_the_text_and_can_be_searched_for() -> None:
    found = load_vocabulary().complete("pup")
    assert (found[0].text, found[0].label) == ("pup", "Dog")
    assert all(parse(f'"{completion.text}"') for completion in found)
    assert "Electric guitar" in {c.text for c in load_vocabulary().complete("guit", count=50)}
    assert load_vocabulary().complete("  ") == []


# the user's own


def read(tmp_path: Path, text: str | bytes):
    path = tmp_path / "thesaurus.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_thesaurus(path)


def test_own_words_replace_ours(tmp_path: Path) -> None:
    own = read(tmp_path, '"bella, our dog" = "Dog"\n[cars]\nherbie = ["Car", "~/m/0912c9"]\n')
    vocabulary = Vocabulary(own_words=own)
    assert [group.name for group in vocabulary.find("OUR DOG")] == ["Dog"]
    assert [(group.name, group.weight) for group in vocabulary.find("Herbie")] == [
        ("Car", 1.0),
        ("Vehicle horn, car horn, honking", 0.5),
    ]
    assert load_vocabulary().find("herbie") == ()
    replaced = Vocabulary(own_words=read(tmp_path, 'dog = "Cat"'))
    assert [group.name for group in replaced.find("dog")] == ["Cat"]


def test_a_missing_or_empty_file_has_no_words(tmp_path: Path) -> None:
    assert len(read_thesaurus(tmp_path / "none.toml")) == 0
    assert len(read(tmp_path, "")) == 0
    assert len(read(tmp_path, b"\xef\xbb\xbfbella = 'Dog'")) == 1


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('a = "Dog"\nb = Dog\n', 2, "is written like this"),
        ('a = "Dog"\na = "Cat"\n', 2, "is written like this"),
        ('a = "Dog"\n\n"x, a" = "Cat"\n', 3, "entered twice"),
        ('[one]\nbella = "Dog"\n[two]\nbella = "Cat"\n', 4, "entered twice"),
        ('rex = "Dogg"\n', 1, '"Dog"'),
        ('ok = "Dog"\n"our rex" = ["Dog", "Dogg"]\n', 2, '"Dog"'),
        ("rex = 3\n", 1, "must be a class or a list"),
        ("rex = []\n", 1, "must be a class or a list"),
        ('rex = ["Dog", 1]\n', 1, "must be a class or a list"),
        ('"rex, ," = "Dog"\n', 1, "no word"),
        ('yawn = "Yawn"\n', 1, "without any class"),
        (b'ok = "Dog"\nb\xe4r = "Roar"\n', 2, "UTF-8"),
    ],
)
def test_a_wrong_entry_is_reported_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'thesaurus.toml'}, line {line}: ")
    assert words in str(caught.value)


def test_a_folder_in_its_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "thesaurus.toml").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_thesaurus(tmp_path / "thesaurus.toml")


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
        st.lists(
            st.sampled_from(["a", '"b, c"', "=", '"Dog"', "[", "]", "\n", "'~Cat'", ",", "3", "."]),
            max_size=20,
        ).map(lambda parts: " ".join(parts).encode()),
    )
)
def test_no_file_raises_anything_but_the_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    try:
        words = read_thesaurus(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert all(words.exact(key) for key in words)
