"""Inputs of a job: folders and links, patterns, lists, playlists, tables, names of any bytes."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest

from audiosearch.errors import DataError
from audiosearch.jobs.inputs import InputRules, find_items


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "a.wav",
        "b.FLAC",
        "notes.txt",
        "x/c.mp3",
        "x/y/d.ogg",
        ".hidden/e.wav",
        "x/.f.wav",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "tree"


def names(*sources: object, below: Path | None = None, **options: object) -> list[str]:
    found = find_items([str(source) for source in sources], **options)  # type: ignore[arg-type]
    return sorted(
        os.path.relpath(item.name, below) if below else item.name
        for item in found
        if item.problem is None
    )


def problems(*sources: object, **options: object) -> dict[str, str]:
    found = find_items([str(source) for source in sources], **options)  # type: ignore[arg-type]
    return {item.name: item.problem for item in found if item.problem is not None}


def test_a_folder_gives_its_sounds(tree: Path) -> None:
    assert names(tree, below=tree) == ["a.wav", "b.FLAC", "x/c.mp3", "x/y/d.ogg"]
    (item,) = find_items([str(tree / "a.wav")])
    status = (tree / "a.wav").stat()
    assert (item.size, item.mtime_ns) == (5, status.st_mtime_ns)


def test_links_that_go_in_circles(tree: Path) -> None:
    (tree / "x" / "up").symlink_to(tree)
    (tree / "x" / "y" / "self").symlink_to(tree / "x" / "y")
    (tree / "twice").symlink_to(tree / "x")
    (tree / "dead.wav").symlink_to(tree / "nowhere.wav")
    assert names(tree, below=tree) == ["a.wav", "b.FLAC", "x/c.mp3", "x/y/d.ogg"]
    assert problems(tree) == {str(tree / "dead.wav"): "There is no such file."}
    # `glob` follows them: with two links, for longer than anybody waits.
    assert names(f"{tree}/**/*.*g", f"{tree}/**/*.FLAC", below=tree) == ["b.FLAC", "x/y/d.ogg"]
    assert names(f"{tree}/**", below=tree) == ["a.wav", "b.FLAC", "x/c.mp3", "x/y/d.ogg"]
    assert names(f"{tree}/**/y/**/*.ogg", below=tree) == ["x/y/d.ogg"]


def test_include_and_exclude(tree: Path) -> None:
    only = InputRules(include=["*.mp3", "x/y/*"])
    assert names(tree, below=tree, rules=only) == ["x/c.mp3", "x/y/d.ogg"]
    without = InputRules(exclude=["y", "b.*"])
    assert names(tree, below=tree, rules=without) == ["a.wav", "x/c.mp3"]


def test_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names("**/*.mp3", "x/*/*.ogg") == ["x/c.mp3", "x/y/d.ogg"]
    monkeypatch.setenv("HOME", str(tree))
    assert names("~/x/*.mp3", below=tree) == ["x/c.mp3"], "quoted, so no shell replaced it"
    assert names(f"{tree}/**/*.*g", below=tree) == ["x/y/d.ogg"]
    assert list(problems(f"{tree}/*.aiff").values()) == ["Nothing matches this pattern."]
    odd = tree / "take[1].wav"
    odd.write_bytes(b"1")
    assert names(odd) == [str(odd)], "a file with such a name is itself"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_a_list_on_the_standard_input(tree: Path, end: bytes) -> None:
    listed = [os.fsencode(tree / "a.wav"), os.fsencode(tree / "x"), b""]
    data = io.BytesIO(end.join(listed))
    assert names("-", below=tree, stdin=data) == ["a.wav", "x/c.mp3", "x/y/d.ogg"]


def test_a_playlist(tree: Path) -> None:
    path = tree / "list.m3u"
    path.write_bytes(
        b"\xef\xbb\xbf#EXTM3U\r\n#EXTINF:3,C\r\nx/c.mp3\r\n" + os.fsencode(tree / "a.wav")
    )
    assert names(path, below=tree) == ["a.wav", "x/c.mp3"]
    address = tree / "one two.wav"
    address.write_bytes(b"1")
    path.write_text(f"#EXTM3U\n{address.as_uri()}\n")
    assert "%20" in address.as_uri()
    assert names(path, below=tree) == ["one two.wav"]
    path.write_text("#EXTM3U\n")
    with pytest.raises(DataError, match=r"list\.m3u"):
        names(path)


def test_a_table_of_parts(tree: Path) -> None:
    path = tree / "parts.csv"
    path.write_text("path,note,start,end\na.wav,,1.5,2\na.wav,,,\nx/c.mp3,,4,\ngone.wav,,,\n")
    found = [item for item in find_items([str(path)]) if item.problem is None]
    assert [(os.path.relpath(item.name, tree), item.start, item.end) for item in found] == [
        ("a.wav", 1.5, 2.0),
        ("a.wav", 0.0, None),
        ("x/c.mp3", 4.0, None),
    ]
    assert list(problems(path)) == [str(tree / "gone.wav")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,start\na.wav,1\n", "column"),
        ("path,start\na.wav,soon\n", "line 2: 'soon' is no time"),
        ("path,start\na.wav,-1\n", "line 2"),
        ("path,start,end\na.wav,3,2\n", "later"),
        ("path,start,end\n,3,4\n", "path is missing"),
        ("", "header"),
        ("path\n" + "a" * 200_000, "line 1: it is no table"),
        ("a" * 200_000, "no table"),
    ],
)
def test_a_table_that_is_wrong(tree: Path, text: str, said: str) -> None:
    path = tree / "parts.csv"
    path.write_text(text)
    # The limit is the whole process's, and reading an exported library raises it.
    before = csv.field_size_limit(131_072)
    try:
        with pytest.raises(DataError, match=said):
            names(path)
    finally:
        csv.field_size_limit(before)


def test_names_that_are_no_text(tree: Path) -> None:
    raw = os.fsencode(tree) + b"/kl\xe4nge.wav"
    try:
        Path(os.fsdecode(raw)).write_bytes(b"1")
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert raw in [os.fsencode(name) for name in names(tree)]
    assert [os.fsencode(n) for n in names("-", stdin=io.BytesIO(raw + b"\n"))] == [raw]


def test_what_is_not_there(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert problems(tree / "gone.wav", tmp_path / "empty") == {
        str(tree / "gone.wav"): "There is no such file.",
        str(tmp_path / "empty"): "There are no sound files in this folder.",
    }
