"""Queries as they arrive from a command line, and as the documents write them."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Outcome
from library_fixtures import make_library

import audiosearch as aus
from audiosearch.query import Vocabulary, parse, read_thesaurus

Invoke = Callable[..., Outcome]
DOCUMENT = (REPOSITORY / "docs" / "search.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["-music", "speech"],
        ["speech", "-music", "--limit", "3"],
        ["--limit", "3", "-path:nowhere", "speech"],
        ["--", "-music", "speech"],
        ["speech duration:>1 score:>0.1"],
        ["label:Speech", "path:*.wav"],
    ],
)
def test_the_command_searches_for_what_was_written(
    invoke: Invoke, library_folder: Path, words: list[str]
) -> None:
    done = invoke("search", "--library", library_folder, "--json", *words)
    assert done.code == 0, done.err
    options = {"--limit", "3", "--"}
    query = " ".join(word for word in words if word not in options)
    with aus.open_library(library_folder) as library:
        limit = 3 if "--limit" in words else 20
        assert json.loads(done.out) == library.search(query, limit=limit).to_dict()


def test_a_mistake_in_the_own_words_is_one_sentence(invoke: Invoke, library_folder: Path) -> None:
    path = library_folder / "thesaurus.toml"
    path.write_text('bella = "Dogg"\n', encoding="utf-8")
    done = invoke("search", "--library", library_folder, "speech")
    assert done.code == 1
    assert done.err.startswith(f"Error: {path}, line 1: ")
    assert len(done.err.splitlines()) == 1
    path.write_text('bella = "Speech"\n', encoding="utf-8")
    ours, named = (
        json.loads(invoke("search", "--library", library_folder, "--json", word).out)["hits"]
        for word in ("bella", "speech")
    )
    for hit in ours:
        assert [reason.pop("term") for reason in hit["why"]] == ["bella"]
    for hit in named:
        assert [reason.pop("term") for reason in hit["why"]] == ["speech"]
    assert ours == named != []


def test_the_caret_stands_under_the_mistake(invoke: Invoke, library_folder: Path) -> None:
    done = invoke("search", "--library", library_folder, "speech AND")
    message, query, caret = done.err.splitlines()[:3]
    assert "both sides" in message
    assert query[caret.index("^") :] == "AND"


def test_classes_understands_what_a_search_does(invoke: Invoke) -> None:
    chosen = [row["label"] for row in json.loads(invoke("classes", "puppy", "--json").out)]
    assert chosen[0] == "Dog"
    assert "Bark" in chosen


def test_every_query_of_the_document_parses() -> None:
    queries = re.findall(r"^\| `([^`]*)` \|", DOCUMENT, re.MULTILINE)
    assert len(queries) >= 14
    own = Vocabulary(own_labels=["My machine"])
    for query in queries:
        parse(query, vocabulary=own)
    for query in ("dog -path:kennel", "(dog path:farm) OR (cat path:home)", "狗叫声和音乐"):
        assert f"`{query}`" in DOCUMENT
        parse(query)


def test_the_own_words_of_the_document_are_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    path = tmp_path / "thesaurus.toml"
    path.write_text(block, encoding="utf-8")
    assert "work" in tomllib.loads(block)
    own = read_thesaurus(path)
    assert sorted(own) == ["bella", "generator", "our dog", "press room"]


def test_a_query_that_finds_nothing_says_what_to_leave_out(invoke: Invoke, tmp_path: Path) -> None:
    codes = np.zeros((3, 527), np.uint8)
    codes[:, 0] = 200  # Speech
    codes[1:, 137] = 200  # Music
    folder = make_library(tmp_path / "lib", [1, 1, 1], codes)
    said = invoke("search", "speech", "music", "path:nowhere", "--library", folder).out
    assert '0 recordings for "speech music path:nowhere"' in said
    assert "none has it all" in said
    assert "  without path:nowhere: 2 recordings" in said
    said = invoke("search", 'path:"no where"', "--library", folder).out
    assert said.startswith('0 recordings for path:"no where" (0 clips)')
    assert "Try a wider word" in said


def test_weak_hits_are_called_so_and_can_be_left_out(invoke: Invoke, tmp_path: Path) -> None:
    codes = np.zeros((2, 527), np.uint8)
    codes[:, 0] = 200, 80  # Speech: surely, and hardly
    folder = make_library(tmp_path / "lib", [1, 1], codes)
    for words in ("speech", "speech OR music"):
        said = invoke("search", words, "--library", folder).out
        assert said.startswith("2 recordings ")
        assert "weak evidence" in said
        # As a shell would read it.
        (surer,) = shlex.split(said.partition("Without them 1 recording, by the query ")[2])
        said = invoke("search", surer, "--library", folder).out
        assert said.startswith("1 recording ")
        assert "weak evidence" not in said
    said = invoke("search", "speech", "--offset", "1", "--library", folder).out
    assert "Without them 1 recording, " in said, "of the whole query, not of this page"
    assert not json.loads(invoke("search", "music", "--library", folder, "--json").out)["hits"]
