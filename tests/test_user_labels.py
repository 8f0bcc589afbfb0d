"""Labels of the user's: confirmed, rejected and added, and what searches make of them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from library_fixtures import (
    InProcessPool,
    append,
    make_library,
    make_readonly,
    remove,
    run_without_override,
    write_sounds,
)

import audiosearch as aus
from audiosearch.errors import (
    AudioSearchError,
    DataError,
    InvalidArgumentError,
    LibraryError,
    QueryError,
    StorageError,
)
from audiosearch.labels import load_labels
from audiosearch.library import compaction, indexing
from audiosearch.library.compaction import tidy
from audiosearch.library.indexing import writer_lock
from audiosearch.library.labelling import label_name
from audiosearch.library.library import Library

Invoke = Callable[..., Outcome]
LABELS = load_labels()
DOG, BARK, CAT, MUSIC = (LABELS.by_name(name).index for name in ("Dog", "Bark", "Cat", "Music"))


def codes() -> np.ndarray:
    """Clips 0 to 8; dogs in 0, 1, 3 and 4, a bark in 0, cats in 4 to 6."""
    values = np.zeros((9, 527), np.uint8)
    values[[0, 1, 3, 4], DOG] = 250, 120, 180, 200
    values[0, BARK] = 220
    values[[4, 5, 6], CAT] = 210, 190, 160
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_library(tmp_path / "lib", [1, 2, 1, 1, 3, 1], codes())


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    with Library(folder) as library:
        yield library


def clips(library: Library, query: str) -> list[int]:
    result = library.search(query, limit=100, grouped=False)
    assert result.total_clips == len(result.hits)
    assert library.search(query, limit=0).total == len({hit.recording_id for hit in result.hits})
    return [hit.clip for hit in result.hits]


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


# Where they stay


def test_labels_follow_a_sound_that_is_moved_renamed_or_indexed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InProcessPool, "seen", [], raising=False)
    monkeypatch.setattr(indexing, "WorkerPool", InProcessPool)
    sounds, folder = write_sounds(tmp_path / "sounds", 3), tmp_path / "lib"
    aus.index(sounds, folder)

    def labelled() -> list[str]:
        with Library(folder) as library:
            return [Path(hit.recording).name for hit in library.search("confirmed:bell").hits]

    with Library(folder) as library:
        one = next(hit for hit in library.search("path:001.wav").hits)
        library.confirm(one, "Bell", start=1, end=3)
    assert labelled() == ["001.wav"]
    (sounds / "001.wav").rename(sounds / "renamed.wav")
    aus.index(sounds, folder)
    assert labelled() == ["renamed.wav"]
    shutil.copy(sounds / "renamed.wav", sounds / "copy.wav")
    aus.index(sounds, folder)
    assert sorted(labelled()) == ["copy.wav", "renamed.wav"]
    with Library(folder) as library:
        assert library.search("confirmed:bell", fold=True).total == 1
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("renamed.wav", "copy.wav"):
        (sounds / name).rename(hidden / name)
    aus.index(sounds, folder)
    assert labelled() == []
    (hidden / "copy.wav").rename(sounds / "back.wav")
    aus.index(sounds, folder)
    assert labelled() == ["back.wav"]
    sounds.rename(tmp_path / "elsewhere")
    aus.relocate(folder, sounds, tmp_path / "elsewhere")
    assert labelled() == ["back.wav"]
    # Other content under the old name is another sound.
    write_sounds(tmp_path / "other", 1, seed=9)
    shutil.copy(tmp_path / "other" / "000.wav", tmp_path / "elsewhere" / "back.wav")
    aus.index(tmp_path / "elsewhere", folder)
    assert labelled() == []
    assert aus.verify(folder).whole


def test_a_label_of_a_copy_is_one_of_the_sound(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).integers(-127, 128, (4, 128))
    vectors[3] = vectors[1]
    folder = make_library(tmp_path / "lib", [1, 1, 2], np.zeros((4, 527), np.uint8), vectors)
    append(folder, [1], np.zeros((1, 527), np.uint8), vectors[1:2])
    with Library(folder) as library:
        library.confirm(4, "Dog")
        assert clips(library, "dog") == [1, 4]  # not clip 3, which is a part of another sound
        library.remove_label(1, "Dog")
        assert clips(library, "dog") == []


def test_labels_outlast_segments_merges_and_removals(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Library(folder) as library:
        library.confirm(8, "Dog")
        library.reject(0, "Dog")
        library.confirm(3, "Music")
        before = clips(library, "dog"), clips(library, "confirmed:")
        monkeypatch.setattr(compaction, "SEAL_CLIPS", 4)
        with Library(folder, writable=True) as writer:
            tidy(writer)
        assert library.info().segments >= 1
        assert (clips(library, "dog"), clips(library, "confirmed:")) == before
        remove(folder, "2.wav")  # clip 3
        assert clips(library, "confirmed:") == [8]
        assert clips(library, "dog") == [8, 4, 1]
        with Library(folder, writable=True) as writer:
            tidy(writer)
        assert clips(library, "dog") == [8, 4, 1]
    assert aus.verify(folder, sounds=False).findings == []


def test_segments_and_exports_hold_the_scores_as_they_were(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aus.export(folder, tmp_path / "before.csv")
    with Library(folder) as library:
        library.confirm(8, "Dog")
        library.reject(0, "Dog")
    aus.export(folder, tmp_path / "after.csv")
    monkeypatch.setattr(compaction, "SEAL_CLIPS", 4)
    with Library(folder, writable=True) as writer:
        tidy(writer)
    aus.export(folder, tmp_path / "sealed.csv")
    texts = {(tmp_path / f"{name}.csv").read_bytes() for name in ("before", "after", "sealed")}
    assert len(texts) == 1


def test_a_merge_brings_labels_along_and_the_newer_word_counts(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with Library(folder) as first:
        first.confirm(0, "Dog")
        first.confirm(3, "Dog")
        first.add_label(8, "Mine")
    with Library(other) as second:
        second.reject(0, "Dog")
    aus.merge([folder, other], tmp_path / "both")
    with Library(tmp_path / "both") as both:
        assert clips(both, "confirmed:dog") == [3]
        assert clips(both, "label:Mine") == [8]
        assert 0 not in clips(both, "dog")
    aus.merge([other], tmp_path / "both")
    with Library(tmp_path / "both") as both:
        assert clips(both, "confirmed:") == [3, 8]
    assert aus.verify(tmp_path / "both", sounds=False).findings == []


def test_of_two_libraries_every_moment_has_the_newer_word_in_any_order(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with Library(folder) as first:
        first.confirm(0, "Dog")
    with Library(other) as second:
        second.reject(0, "Dog", start=3, end=4)
    said = []
    for number, order in enumerate(([folder, other], [other, folder])):
        aus.merge(order, tmp_path / f"both{number}")
        with Library(tmp_path / f"both{number}") as both:
            said.append([(each.verdict, each.start, each.end) for each in both.labels()])
    assert said[0] == said[1]
    assert [each[:2] for each in said[0]] == [
        ("confirmed", 0.0),
        ("rejected", 3.0),
        ("confirmed", 4.0),
    ]


def test_verify_finds_and_repairs_lost_links(folder: Path) -> None:
    with Library(folder) as library:
        library.confirm(3, "Dog")
    with Library(folder, writable=True) as writer, writer.catalogue.transaction():
        writer.catalogue.labels.unlink_all()
    with Library(folder) as library:
        assert clips(library, "confirmed:") == []
        (finding,) = aus.verify(folder, sounds=False).findings
        assert (finding.kind, finding.repaired) == ("derived", True)
        assert clips(library, "confirmed:") == [3]


# Other processes


def test_labels_are_entered_while_another_process_indexes(folder: Path) -> None:
    with writer_lock(folder), Library(folder) as library:
        assert library.confirm(3, "Music")
        assert clips(library, "confirmed:") == [3]


def test_another_reader_knows_at_once(folder: Path) -> None:
    with Library(folder) as writer, Library(folder) as reader:
        assert clips(reader, "confirmed:") == []
        writer.confirm(3, "Music")
        assert clips(reader, "confirmed:") == clips(reader, "music") == [3]
        assert clips(reader, "confirmed:music -dog") == []


_SAY = """
import sys
from audiosearch.library.library import Library
with Library(sys.argv[1]) as library:
    for number in range(int(sys.argv[2]), 100000, 2):
        library.add_label(number % 9, f"label {number}")
        print(number, flush=True)
        if number >= int(sys.argv[3]):
            break
"""


def _say(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SAY, str(folder), str(first), str(last)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_was_said_before_a_kill_is_kept(folder: Path) -> None:
    process = _say(folder, 0, 100000)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    time.sleep(0.013)
    process.send_signal(signal.SIGKILL)
    reported = 20 + len(process.stdout.read().split())
    process.wait()
    process.stdout.close()
    with Library(folder) as library:
        said = {each.label for each in library.labels()}
        assert {f"label {2 * number}" for number in range(reported)} <= said
        assert len(said) <= reported + 1
        assert library.add_label(0, "after")
    assert aus.verify(folder, sounds=False).findings == []


def test_two_processes_may_label_at_once(folder: Path) -> None:
    processes = [_say(folder, first, 60 + first) for first in (0, 1)]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert len(out.split()) == 31
    with Library(folder) as library:
        assert {each.label for each in library.labels()} == {f"label {n}" for n in range(62)}


def test_threads_may_label_and_search(library: Library) -> None:
    failures = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                library.add_label(number, f"mine {number} {turn}")
                assert number in clips(library, f'label:"mine {number} {turn}"')
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(library.labels()) == 32


# Many, and files


def test_ten_thousand_labels_leave_and_come_back(tmp_path: Path) -> None:
    folder = make_library(tmp_path / "lib", [1] * 2500, np.zeros((2500, 527), np.uint8))
    names = ["Dog", "Cat", "Music", "Mine"]
    with Library(folder) as library:
        changes = [
            aus.LabelChange(clip, name, "confirmed" if clip % 2 else "rejected", new=True)
            for clip in range(2500)
            for name in names
        ]
        assert library.change_labels(changes) == 10_000
        assert library.search("confirmed:cat", limit=0).total_clips == 1250
        assert library.search("cat", limit=0).total == 1250
        written = aus.export_labels(library, tmp_path / "labels.csv")
    assert (written.labels, written.recordings, written.waiting) == (10_000, 2500, 0)
    other = make_library(tmp_path / "other", [1] * 2500, np.zeros((2500, 527), np.uint8))
    done = aus.import_labels(tmp_path / "labels.csv", other)
    assert (done.added, done.unchanged, done.unknown) == (10_000, 0, 0)
    again = aus.import_labels(tmp_path / "labels.csv", other)
    assert (again.added, again.unchanged) == (0, 10_000)
    aus.export_labels(other, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "labels.csv").read_bytes()


def test_a_row_says_what_was_heard_where(folder: Path, tmp_path: Path) -> None:
    with Library(folder) as library:
        library.confirm(2, "Dog")
        library.add_label(0, "Mine, all mine")
    aus.export_labels(folder, tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    plain = [{key: row[key] for key in row if key != "content"} for row in rows]
    assert plain == [
        {
            **{"path": "/sounds/0.wav", "start": "0", "end": "6.6", "label": "Mine, all mine"},
            **{"verdict": "confirmed", "mid": ""},
        },
        {
            **{"path": "/sounds/1.wav", "start": "9.6", "end": "16.2", "label": "Dog"},
            **{"verdict": "confirmed", "mid": LABELS.by_name("Dog").mid},
        },
    ]
    with pytest.raises(StorageError, match="exists already"):
        aus.export_labels(folder, tmp_path / "labels.csv")
    with pytest.raises(InvalidArgumentError, match="csv"):
        aus.export_labels(folder, tmp_path / "labels.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,start\na,b\n", "no column 'end'"),
        ("path,start,end,label,verdict\n/sounds/0.wav,0,1,Dog,maybe\n", "line 2.*neither"),
        ("path,start,end,label,verdict\n/sounds/0.wav,x,1,Dog,confirmed\n", "line 2"),
        ("path,start,end,label,verdict\n/sounds/0.wav,nan,1,Dog,confirmed\n", "line 2"),
        ("path,start,end,label,verdict\n/sounds/0.wav,0,99,Dog,confirmed\n", "does not lie"),
        ("path,start,end,label,verdict\n/sounds/0.wav,0,1,Dog\n", "line 2.*fewer"),
        ('path,start,end,label,verdict\n"/sounds', "no CSV file"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(
    folder: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        aus.import_labels(path, folder)
    with Library(folder) as library:
        assert library.labels() == []


def test_the_command_labels_lists_and_moves_labels(
    invoke: Invoke, folder: Path, tmp_path: Path
) -> None:
    done = invoke("label", folder, 1, "--confirm", "Dog", "--reject", "Cat", "--add", "My machine")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("3 labels changed.\n")
    found = invoke("search", "confirmed:dog", "--library", folder)
    assert "why: Dog confirmed" in found.out
    listed = json.loads(invoke("label", folder, "--list", "--json").out)
    assert [each["label"] for each in listed["labels"]] == ["Dog", "Cat", "My machine"]
    part = invoke("label", folder, 5, "--confirm", "Cat", "--from", "10", "--to", "12.5", "--json")
    assert [(e["clip"], e["start"], e["end"]) for e in json.loads(part.out)["labels"]] == [
        (6, 10.0, 12.5)
    ]
    file = tmp_path / "labels.csv"
    assert invoke("export", folder, "--labels", "--to", file).out == (
        f"{file}: 4 labels of 2 recordings.\n"
    )
    assert invoke("label", folder, 1, "--remove", "Dog", "--remove", "Cat").code == 0
    brought = invoke("import", file, "--labels", "--library", folder)
    assert "2 labels added, 2 unchanged" in brought.out
    for words in ((), ("--list", "--confirm", "Dog"), (1,)):
        assert invoke("label", folder, *words).code == 2
    wrong = invoke("label", folder, 1, "--confirm", "Dogg")
    assert wrong.code == 1
    assert "Dog" in wrong.err
