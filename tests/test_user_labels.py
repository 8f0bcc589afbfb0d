"""Labels of the user's: confirmed, rejected and added, and what searches make of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_fixtures import clips, folder, library
from library_fixtures import make_library, make_readonly, run_without_override

import audiosearch as aus
from audiosearch.errors import AudioSearchError, InvalidArgumentError, LibraryError, QueryError
from audiosearch.library.labelling import label_name
from audiosearch.library.library import Library

__all__ = ["folder", "library"]


# What a search makes of them


def test_what_is_confirmed_comes_first_and_what_is_rejected_is_gone(library: Library) -> None:
    assert clips(library, "dog") == [0, 4, 3, 1]
    assert library.confirm(1, "Dog")
    assert library.reject(0, "Dog")
    for query in ("dog", "label:Dog", "dog OR music"):
        assert clips(library, query) == [1, 4, 3], query
    assert clips(library, "Domestic animals") == [1, 4, 5, 3, 6]  # with the cats
    best = library.search("dog").hits[0]
    assert (best.score, best.label) == (pytest.approx(0.999, abs=1e-4), "Dog")
    assert best.explanation == "Dog 1.00; Dog confirmed"
    assert best.tags[0].label == "Dog"
    assert clips(library, "dog score:>0.99") == [1]
    assert clips(library, "cat -dog") == [5, 6]
    assert clips(library, "path:0.wav -dog") == [0]
    assert library.search("path:0.wav -dog").hits[0].explanation == "not dog 0.00; Dog rejected"


def test_a_rejected_class_takes_its_kinds_along_unless_they_are_confirmed(
    library: Library,
) -> None:
    library.reject(0, "Dog")
    assert clips(library, "bark") == []
    library.confirm(0, "Bark")
    assert clips(library, "bark") == clips(library, "label:Bark") == [0]
    assert clips(library, "label:Dog") == [4, 3, 1]
    assert clips(library, "dog")[0] == 0


def test_scores_of_other_clips_stay_as_they_were(library: Library) -> None:
    queries = ("dog", "cat", "animal", "bark", "dog OR cat", "dog cat", "cat -dog")
    before = [
        {hit.clip: hit.score for hit in library.search(query, grouped=False).hits}
        for query in queries
    ]
    library.confirm(8, "Cat")
    library.reject(3, "Dog")
    for query, scores in zip(queries, before, strict=True):
        for hit in library.search(query, grouped=False).hits:
            if hit.clip not in (3, 8):
                assert hit.score == scores[hit.clip], query


def test_confirmed_finds_what_was_confirmed(library: Library) -> None:
    assert clips(library, "confirmed:") == clips(library, "confirmed:dog") == []
    library.confirm(4, "Dog")
    library.confirm(7, "Bark")
    library.reject(3, "Dog")
    library.add_label(2, "My machine")
    assert clips(library, "confirmed:dog") == [4, 7]  # a bark is a kind of dog
    assert clips(library, "confirmed:") == clips(library, "confirmed:*") == [2, 4, 7]
    assert clips(library, 'confirmed:"my machine"') == [2]
    assert clips(library, "confirmed: -dog") == [2]
    assert clips(library, "dog -confirmed:") == [0, 1]
    assert clips(library, "confirmed:cat") == []
    assert [hit.label for hit in library.search("confirmed:").hits] == [
        *("My machine", "Dog", "Bark")
    ]


def test_own_labels_are_found_by_their_name(library: Library) -> None:
    with pytest.raises(QueryError, match="No class and no label"):
        library.search('label:"My machine"')
    library.add_label(2, "My machine")
    library.add_label(8, "my  MACHINE")
    assert clips(library, 'label:"my machine"') == clips(library, "label:my-machine") == [2, 8]
    hit = library.search('label:"My machine"').hits[0]
    assert (hit.label, hit.score, hit.explanation) == ("My machine", 1.0, "My machine confirmed")
    assert clips(library, 'dog OR label:"My machine"')[:2] == [2, 8]
    library.reject(8, "My machine")
    assert clips(library, 'label:"My machine"') == [2]
    library.remove_label(2, "My machine")
    assert clips(library, 'label:"My machine"') == []


def test_own_labels_are_completed_and_suggested(library: Library) -> None:
    library.add_label(2, "My machine")
    words = library.vocabulary()
    (done,) = words.complete("my mach")
    assert (done.text, done.label) == ('label:"My machine"', "My machine")
    assert clips(library, done.text) == [2]
    with pytest.raises(QueryError) as caught:
        library.search('label:"My mashine"')
    assert caught.value.suggestions[0] == "My machine"
    with pytest.raises(QueryError) as caught:
        library.search("mymachine")
    assert 'label:"My machine"' in caught.value.suggestions
    for text in caught.value.suggestions:
        library.search(text)
    with pytest.raises(QueryError, match="My machine") as caught:
        library.confirm(3, "My mashine")
    assert caught.value.suggestions[0] == "My machine"


def test_by_example_can_be_narrowed_by_labels(library: Library) -> None:
    library.confirm(4, "Dog")
    library.add_label(6, "Mine")
    found = library.similar(0, query="confirmed:")
    assert sorted(hit.clip for hit in found.hits) == [4, 6]
    assert found.total == 2
    assert library.similar(0, query="label:Mine").hits[0].corrections[0].label == "Mine"


def test_a_clip_tells_what_was_said_of_it(library: Library) -> None:
    library.confirm(1, "Dog")
    library.reject(1, "Cat", start=2, end=4)
    said = library.clip(1).corrections
    assert [(each.label, each.verdict, each.start, each.end) for each in said] == [
        ("Dog", "confirmed", 0.0, 9.6),
        ("Cat", "rejected", 2.0, 4.0),
    ]
    assert library.clip(2).corrections == []
    assert [each.clip for each in library.labels(2)] == [1, 1]
    assert library.labels(0) == []
    assert [each.label for each in library.labels(label="cat")] == ["Cat"]


# Stretches


def test_a_stretch_counts_for_the_clips_that_it_lies_in(library: Library) -> None:
    library.confirm(5, "Music", start=9.0, end=20.5)  # of clips 5, 6 and 7
    assert clips(library, "confirmed:music") == [5, 6, 7]
    library.remove_label(6, "Music")
    assert [(each.start, each.end) for each in library.labels()] == [
        (9.0, pytest.approx(9.6)),
        (pytest.approx(19.2), 20.5),
    ]
    assert clips(library, "confirmed:music") == [5, 7]


def test_what_is_rejected_in_a_part_of_a_clip_may_be_heard_in_the_rest(library: Library) -> None:
    library.reject(4, "Dog", start=0, end=5)
    assert 4 in clips(library, "dog")
    library.reject(4, "Dog", start=5, end=6.6)
    assert 4 not in clips(library, "dog")


def test_a_stretch_that_is_nothing_but_rounding_is_refused(library: Library) -> None:
    end = library.clip(4).end
    with pytest.raises(InvalidArgumentError, match="does not lie in"):
        library.confirm(4, "Dog", start=end + 0.005, end=end + 0.009)


def test_the_newest_word_counts(library: Library) -> None:
    library.reject(1, "Dog")
    library.confirm(1, "Dog", start=3, end=5)
    said = [(each.verdict, each.start, each.end) for each in library.labels()]
    assert said == [
        ("rejected", 0.0, 3.0),
        ("confirmed", 3.0, 5.0),
        ("rejected", 5.0, pytest.approx(9.6)),
    ]
    assert clips(library, "confirmed:dog") == [1]
    library.reject(1, "Dog")
    assert [each.verdict for each in library.labels()] == ["rejected"]
    assert clips(library, "confirmed:dog") == []
    assert not library.reject(1, "Dog")
    assert library.remove_label(1, "Dog")
    assert not library.remove_label(1, "Dog")
    assert library.labels() == []
    assert clips(library, "dog") == [0, 4, 3, 1]


SPANS = st.tuples(st.integers(0, 24), st.integers(1, 12), st.sampled_from([1, -1, 0]))


@settings(max_examples=12, deadline=None)
@given(st.lists(SPANS, min_size=2, max_size=5))
def test_no_moment_is_both_and_every_moment_has_the_last_word(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int, int]]
) -> None:
    """Against an array that is painted second by second."""
    folder = make_library(
        tmp_path_factory.mktemp("spans") / "lib", [3], np.zeros((3, 527), np.uint8)
    )
    painted = np.zeros(25)
    with Library(folder) as library:
        for start, length, verdict in spans:
            end = min(start + length, 25)
            if end <= start:
                continue
            painted[start:end] = verdict
            act = {1: library.confirm, -1: library.reject, 0: library.remove_label}[verdict]
            act(0, "Dog", start=start, end=end)
        told = np.zeros(25)
        for each in library.labels():
            value = 1 if each.verdict == "confirmed" else -1
            first, last = round(each.start), round(each.end)
            assert ((told[first:last] == 0) | (told[first:last] == value)).all()
            told[first:last] = value
    assert told.tolist() == painted.tolist()


# What is refused


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ((99, "Dog"), LibraryError, "no clip 99"),
        ((-1, "Dog"), LibraryError, "no clip -1"),
        (("0", "Dog"), InvalidArgumentError, "number or a hit"),
        ((True, "Dog"), InvalidArgumentError, "number or a hit"),
        ((0, "Dogg"), QueryError, "Dog"),
        ((0, ""), InvalidArgumentError, "1 to 100"),
        ((0, "x" * 101), InvalidArgumentError, "1 to 100"),
        ((0, 'a "b"'), InvalidArgumentError, "quotation mark"),
        ((0, "a“b"), InvalidArgumentError, "quotation mark"),
        ((0, "a\0b"), InvalidArgumentError, "control character"),
        ((0, "a\ud800"), InvalidArgumentError, "control character"),
        ((0, "*"), InvalidArgumentError, "any label"),
        ((0, "Dog", 3.0, 3.0), InvalidArgumentError, "does not lie"),
        ((0, "Dog", -1.0, 3.0), InvalidArgumentError, "does not lie"),
        ((0, "Dog", 0.0, 7.0), InvalidArgumentError, "does not lie"),
        ((0, "Dog", float("nan"), 3.0), InvalidArgumentError, "does not lie"),
    ],
)
def test_what_makes_no_sense_is_refused(
    library: Library, change: tuple[object, ...], error: type[Exception], words: str
) -> None:
    clip, label, *span = change
    times = dict(zip(("start", "end"), span, strict=False))
    with pytest.raises(error, match=words) as caught:
        library.confirm(clip, label, **times)  # type: ignore[arg-type]
    assert isinstance(caught.value, AudioSearchError)
    assert library.labels() == []


def test_several_changes_are_made_together_or_not_at_all(library: Library) -> None:
    changes = [
        aus.LabelChange(0, "Dog", "rejected"),
        aus.LabelChange(1, "Nothing of the kind", "confirmed"),
    ]
    with pytest.raises(QueryError):
        library.change_labels(changes)
    assert library.labels() == []


def test_the_shipped_library_is_left_as_it_is() -> None:
    with aus.open_library(aus.shipped_library()) as library:
        with pytest.raises(LibraryError, match="Copy it first"):
            library.confirm(0, "Music")
        assert library.search("confirmed:").total == 0


def test_a_copy_of_the_shipped_library_takes_labels(tmp_path: Path) -> None:
    shutil.copytree(aus.shipped_library(), tmp_path / "mine")
    with Library(tmp_path / "mine") as library:
        before = library.search("music", limit=0)
        last = library.search("music", limit=1, offset=before.total - 1).hits[0]
        library.confirm(last, "Music")
        after = library.search("music", limit=1)
        assert after.hits[0].score == pytest.approx(0.999, abs=1e-4)
        assert after.total == before.total
        library.reject(last, "Music")
        assert library.search("music", limit=0).total == before.total - 1
    assert aus.verify(tmp_path / "mine", sounds=False).findings == []


def test_a_library_that_may_only_be_read_says_so(folder: Path) -> None:
    make_readonly(folder)
    done = run_without_override(
        "import sys; from audiosearch.library.library import Library\n"
        "from audiosearch.errors import StorageError\n"
        "with Library(sys.argv[1]) as lib:\n"
        "    try: lib.confirm(0, 'Dog')\n"
        "    except StorageError as error: print(error)\n"
        "    print(lib.search('dog').total, lib.search('confirmed:').total)\n",
        folder,
    )
    lines = done.stdout.splitlines()
    assert "no permission" in lines[0], done.stderr
    assert lines[1] == "4 0"


ODD = [
    "C++",
    "C#",
    "🔥",
    "Maschine №5",
    "我的机器",
    "👩‍🔧 at work",
    "a'b; DROP TABLE user_labels",
    "100 %",
    "é",
]


def test_odd_names_are_kept_and_found(library: Library) -> None:
    for number, name in enumerate(ODD):
        library.add_label(number, name)
    for number, name in enumerate(ODD):
        assert clips(library, f'label:"{name}"') == [number], name
    assert [each.label for each in library.labels()] == ODD


@given(st.text(max_size=30))
def test_a_name_is_refused_or_can_be_searched_for(name: str) -> None:
    from audiosearch.query import OwnLabel, Term, Vocabulary, parse

    try:
        label = label_name(name)
    except InvalidArgumentError:
        return
    node = parse(f'label:"{label}"', vocabulary=Vocabulary(own_labels=[label]))
    assert node == OwnLabel(label) or isinstance(node, Term)
