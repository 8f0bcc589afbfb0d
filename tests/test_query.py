"""Queries: what is understood, what is refused and how it is said."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiosearch.errors import QueryError
from audiosearch.labels import load_labels
from audiosearch.query import MAX_LENGTH, All, Any, Not, Term, parse

LABELS = load_labels()


def shape(node) -> str:
    """Write a tree as text that shows its structure."""
    if isinstance(node, Term):
        return node.text
    if isinstance(node, Not):
        return f"not[{shape(node.part)}]"
    joined = " and " if isinstance(node, All) else " or "
    return "(" + joined.join(shape(part) for part in node.parts) + ")"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("Car", "Car"),
        ("car -music", "(car and not[music])"),
        ("car NOT music", "(car and not[music])"),
        ("car AND rain", "(car and rain)"),
        ("dog OR wolf", "(dog or wolf)"),
        ("dog OR cat rain", "(dog or (cat and rain))"),
        ("(rain OR thunder) -speech", "((rain or thunder) and not[speech])"),
        ('"police car"', "police car"),
        ("police car", "police car"),
        ("police car dog", "(police car and dog)"),
        ("rain -(dog OR cat)", "(rain and not[(dog or cat)])"),
        ("rain - dog", "(rain and dog)"),
        ("clip-clop", "clip-clop"),
        ("the sound of rain", "rain"),
        ("Keyboard (musical)", "Keyboard (musical)"),
        ("Boat, Water vehicle", "Boat, Water vehicle"),
        ('label:"Car alarm"', "Car alarm"),
        ("rain label:Dog", "(rain and Dog)"),
    ],
)
def test_what_a_query_means(query, wanted):
    assert shape(parse(query)) == wanted


def test_a_term_stands_for_its_class_and_all_its_kinds():
    term = parse("vehicle")
    names = [LABELS[index].name for index in term.classes]
    assert names[0] == "Vehicle"
    assert {"Car", "Bus", "Train", "Helicopter", "Bicycle"} <= set(names)


def test_a_label_field_is_one_class_without_its_kinds():
    assert parse("label:Vehicle").classes == (LABELS.by_name("Vehicle").index,)


def test_every_display_name_is_a_query_for_its_class():
    for label in LABELS:
        assert label.index in parse(label.name).classes
        assert parse(f'label:"{label.name}"').classes == (label.index,)


@pytest.mark.parametrize(
    ("query", "position", "words"),
    [
        ("", None, "empty"),
        ("  ,", None, "no word"),
        ("carr", 0, "No class of sound is called 'carr'"),
        ("dog carr", 4, "carr"),
        ("(dog", 0, "not closed"),
        ("dog)", 3, "closes nothing"),
        ('dog "cat', 4, "quote"),
        ("dog ()", 4, "nothing in the brackets"),
        ("dog OR", 4, "both sides"),
        ("OR dog", 0, "both sides"),
        ("dog NOT", 4, "leave out"),
        ("-music", 0, "only says what to leave out"),
        ("dog OR -cat", 0, "only says what to leave out"),
        ("path:holiday", 0, "no field 'path:'"),
        ("label:Carr", 6, "No class of sound"),
        ("the", 0, "names no sound"),
        ("dog " * 300, MAX_LENGTH, "characters"),
        ("(" * 60 + "dog" + ")" * 60, None, "nested"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(query, position, words):
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert words in str(caught.value)
    if position is not None:
        assert caught.value.position == position


def test_an_unknown_word_gets_suggestions_that_work():
    with pytest.raises(QueryError) as caught:
        parse("trumpett")
    assert "Trumpet" in caught.value.suggestions
    for name in caught.value.suggestions:
        parse(name)


PIECES = st.sampled_from(
    [
        *("dog", "cat", "rain", "OR", "AND", "NOT", "police car", "the", "é", "label:", "x:"),
        *"-():;\" /\\%'\0\n\ud800",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join)))
@example("-" * 999)
@example("(" * 999)
@example("NOT " * 249)
@example("dog OR " * 140)
@example('label:""')
def test_no_text_raises_anything_but_the_query_error(query):
    try:
        node = parse(query)
    except QueryError as error:
        at = error.position
        assert str(error)  # noqa: PT017 - either outcome is right, if it is whole
        assert at is None or 0 <= at <= len(query)
    else:
        assert isinstance(node, Term | Not | All | Any)
