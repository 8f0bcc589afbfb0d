"""Filters in a query: by path, by length, by score, joined with sounds in every way."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from library_fixtures import append, make_library, remove

import audiosearch as aus
from audiosearch.errors import DataError, QueryError
from audiosearch.labels import load_labels
from audiosearch.library.filters import Paths, matching
from audiosearch.library.library import Library

DOG, CAT, MUSIC = (load_labels().by_name(name).index for name in ("Dog", "Cat", "Music"))


@pytest.fixture
def library(tmp_path: Path):
    """Six recordings of 1, 2, 1, 1, 3 and 1 clips; dogs in 0 to 3, cats in 3 and 4."""
    clips = [1, 2, 1, 1, 3, 1]
    codes = np.zeros((sum(clips), 527), np.uint8)
    codes[0, DOG], codes[1, DOG], codes[3, DOG], codes[4, DOG] = 250, 120, 180, 200
    codes[4, CAT], codes[5, CAT], codes[6, CAT] = 210, 190, 160
    codes[1:3, MUSIC] = 250
    make_library(tmp_path / "lib", clips, codes)
    with Library(tmp_path / "lib") as library:
        yield library


def found(library: Library, query: str) -> list[str]:
    """Return the names of the recordings that match, in the order of their clips."""
    result = library.search(query, limit=100)
    assert result.total == len(result.hits)
    return sorted(Path(hit.recording).name for hit in result.hits)


def seconds(count: int) -> float:
    return 9.6 * count - 3.0


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("dog", "0 1 2 3"),
        ("dog path:1.wav", "1"),
        ("dog path:SOUNDS", "0 1 2 3"),
        ("dog -path:1.wav", "0 2 3"),
        ("dog NOT (path:1.wav OR path:2.wav)", "0 3"),
        ("path:4", "4"),
        ("path:*.wav", "0 1 2 3 4 5"),
        ("path:sounds/?.wav", "0 1 2 3 4 5"),
        ("path:[45].wav", ""),
        ("path:ounds/4*", ""),
        (r"path:\sounds\4", "4"),
        ("path:1.wav -music", ""),
        ("path:0.wav -music", "0"),
        ("duration:>7", "1 4"),
        ("duration:>7 duration:<=16.2", "1"),
        ("duration:6..7", "0 2 3 5"),
        ("dog duration:<7", "0 2 3"),
        ("(dog path:0) OR (cat path:4)", "0 4"),
        ("cat OR path:0.wav", "0 3 4"),
        ("dog -(cat path:3)", "0 1 2"),
        ("dog -(cat path:9)", "0 1 2 3"),
        ("dog score:>0.9", "0 2 3"),
        ("dog score:0.1..0.9", "1"),
        ("dog path:1 score:>0.9", ""),
    ],
)
def test_filters_keep_what_they_say(library: Library, query: str, wanted: str) -> None:
    assert found(library, query) == [f"{name}.wav" for name in wanted.split()]


def test_a_filter_changes_no_score_of_what_it_keeps(library: Library) -> None:
    plain = {hit.clip: (hit.score, hit.label) for hit in library.search("dog OR cat").hits}
    kept = {hit.clip: (hit.score, hit.label) for hit in library.search("(dog OR cat) path:3").hits}
    assert kept == {clip: value for clip, value in plain.items() if clip == 4}
    assert len(kept) == 1


def test_hits_by_filters_alone_have_full_score_and_their_best_class(library: Library) -> None:
    hits = library.search("path:3.wav OR path:1.wav").hits
    assert [(hit.clip, hit.score, hit.label) for hit in hits] == [
        (1, 1.0, "Music"),
        (4, 1.0, "Cat"),
    ]
    assert [moment.clip for moment in hits[0].moments] == [2]


def test_removed_recordings_match_no_filter(library: Library, tmp_path: Path) -> None:
    remove(tmp_path / "lib", "4.wav")
    assert found(library, "path:*.wav") == ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]


def test_an_empty_library_has_no_matches(tmp_path: Path) -> None:
    make_library(tmp_path / "empty", [], np.zeros((0, 527), np.uint8))
    with Library(tmp_path / "empty") as library:
        for query in ("path:x", "dog duration:>1", "dog score:>0.5"):
            assert library.search(query).total == 0


def test_nothing_is_confirmed_while_there_are_no_labels(library: Library) -> None:
    assert found(library, "confirmed:dog") == found(library, "confirmed:") == []
    assert found(library, "dog -confirmed:dog") == found(library, "dog")


def test_facts_are_read_only_when_they_are_asked_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def read(after: int) -> None:
        raise Asked

    monkeypatch.setattr(library.catalogue, "names", read)
    assert library.search("dog score:>0.5 duration:<100").total
    with pytest.raises(Asked):
        library.search("dog path:1")


def test_only_what_is_new_is_read_again(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    read = library.catalogue.names

    def noted(after: int) -> object:
        asked.append(after)
        return read(after)

    monkeypatch.setattr(library.catalogue, "names", noted)
    assert found(library, "path:5.wav") == ["5.wav"]
    assert found(library, "path:sounds duration:>7") == ["1.wav", "4.wav"]
    remove(tmp_path / "lib", "4.wav", "5.wav")
    append(tmp_path / "lib", [2, 1], np.zeros((3, 527), np.uint8))
    assert found(library, "path:sounds duration:>7") == ["1.wav", "6.wav"]
    assert found(library, "path:5.wav") == []
    assert found(library, "path:7.wav") == ["7.wav"]
    assert asked == [0, 6]


def test_paths_follow_files_that_are_moved(library: Library, tmp_path: Path) -> None:
    assert found(library, "path:/sounds/") == found(library, "path:*.wav")
    hits = library.search("dog").hits
    assert all(hit.recording.startswith("/sounds/") for hit in hits)
    aus.relocate(tmp_path / "lib", "/sounds", "/music", force=True)
    assert found(library, "path:/sounds/") == []
    assert len(found(library, "path:/music/")) == 6
    moved = [hit.recording for hit in library.search("dog").hits]
    assert moved == [hit.recording.replace("/sounds/", "/music/") for hit in hits]


LETTERS = st.text(alphabet="ab./[*?ßİ\\", max_size=6)


@given(names=st.lists(LETTERS, max_size=12), cut=st.integers(0, 12), wanted=LETTERS)
@example(names=["a.b", "b.b/a", "ab"], cut=1, wanted="*.b")
@example(names=["Straße", "STRASSE"], cut=2, wanted="straSS")
def test_a_pattern_is_compared_with_each_path(names: list[str], cut: int, wanted: str) -> None:
    """However many paths are searched at once, and in whatever portions they came."""

    def plain(text: str) -> str:
        return text.replace("\\", "/").casefold()

    def matches(path: str) -> bool:
        path, text = plain(path), plain(wanted)
        if "*" not in text and "?" not in text:
            return text in path
        parts = path.split("/")
        ends = ["/".join(parts[n:]) for n in range(len(parts))]
        return any(fnmatch.fnmatchcase(end, text.replace("[", "[[]")) for end in ends)

    ids = np.arange(len(names)) * 2 + 1
    paths = Paths().extended(ids[:cut], names[:cut]).extended(ids[cut:], names[cut:])
    expected = [n for n, name in enumerate(names) if wanted and matches(name)]
    assert matching(paths, wanted).tolist() == expected


def test_a_weaker_meaning_counts_half(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "lib" / "thesaurus.toml"
    path.write_text('bella = ["Cat", "~Dog"]\n', encoding="utf-8")
    cats, dogs, both = (
        {hit.clip: hit.score for hit in library.search(query).hits}
        for query in ("label:Cat", "label:Dog", "bella")
    )
    assert both[0] == pytest.approx(dogs[0] / 2, rel=0.04)
    assert both[4] == pytest.approx(1 - (1 - cats[4]) * (1 - dogs[4] / 2), abs=0.002)
    assert set(both) == set(cats) | set(dogs)


# the user's own words


def test_own_words_count_at_once_and_win(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "lib" / "thesaurus.toml"
    with pytest.raises(QueryError, match="bella"):
        library.search("bella")
    path.write_text('"bella, our dog" = "Dog"\nwoof = "Cat"\n', encoding="utf-8")
    assert found(library, "bella") == found(library, "dog") == found(library, "our dog")
    assert found(library, "woof") == found(library, "cat")
    with pytest.raises(QueryError) as caught:
        library.search("bellaa")
    assert caught.value.suggestions[:2] == ("bella", "Dog")
    path.write_text('bella = ["Cat", "~Dog"]\n', encoding="utf-8")
    assert found(library, "bella") == ["0.wav", "1.wav", "2.wav", "3.wav", "4.wav"]
    path.unlink()
    with pytest.raises(QueryError, match="bella"):
        library.search("bella")


def test_a_broken_thesaurus_is_reported_with_its_line(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "lib" / "thesaurus.toml"
    path.write_text('bella = "Dog"\nrex = "Dogg"\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        library.search("dog")
    assert f"{path}, line 2: " in str(caught.value)
    assert '"Dog"' in str(caught.value)
