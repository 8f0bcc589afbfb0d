"""Counts of classes, and the text that changes with a library."""

from __future__ import annotations

import shutil
from pathlib import Path

import audiosearch as aus


def test_counts_are_what_a_search_for_each_name_finds(library_folder: Path) -> None:
    with aus.open_library(library_folder) as library:
        counts = library.class_counts()
        assert len(counts) == 632
        assert [each.index for each in counts if each.index is not None].count(0) == 1
        some = 0
        for each in counts:
            if each.recordings:
                some += 1
                found = library.search(each.mid, limit=0)
                assert (found.total, found.total_clips) == (each.recordings, each.clips), each
        assert some > 20
        animal = next(each for each in counts if each.label == "Animal")
        below = {each.label for each in counts if each.mid in animal.children}
        assert "Domestic animals, pets" in below


def test_counts_follow_the_library(library_folder: Path, good_folder: Path) -> None:
    with aus.open_library(library_folder) as library:
        before = {each.label: each.clips for each in library.class_counts()}
        first = library.revision()
        library.confirm(0, "Zither")
        after = {each.label: each.clips for each in library.class_counts()}
        assert after["Zither"] == before["Zither"] + 1
        second = library.revision()
        assert second != first
        (library_folder / "thesaurus.toml").write_text('[words]\nsqueak = "Zither"\n')
        assert library.revision() != second


def test_revisions_of_libraries_differ_and_last(library_folder: Path, tmp_path: Path) -> None:
    with aus.open_library(library_folder) as library:
        first = library.revision()
        assert library.revision() == first
    with aus.open_library(library_folder) as library:
        assert library.revision() == first
    shutil.copytree(library_folder, tmp_path / "copy")
    with aus.open_library(tmp_path / "copy") as library:
        assert library.revision() != first
