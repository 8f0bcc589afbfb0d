"""The commands on a library that is there: search, similar, info, serve, demo."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BAD_SOUNDS, GOOD_SOUNDS, Outcome, assert_one_sentence
from test_cli import modules_after

Invoke = Callable[..., Outcome]

HEAVY = {"onnxruntime", "faiss", "h5py", "pandas", "scipy", "tensorflow", "keras", "flask", "av"}


# search


def test_search_prints_hits(invoke: Invoke, library_folder: Path) -> None:
    done = invoke("search", "speech", "--library", library_folder, "--limit", 3)
    assert done.code == 0
    assert done.err == ""
    head, *lines = done.out.splitlines()
    assert re.match(r'\d+ recordings? for "speech" \(\d+ clips?\):', head)
    assert [line.split(".")[0].strip() for line in lines if re.match(r" +\d+\. ", line)] == (
        ["1", "2", "3"]
    )
    assert "%" not in done.out


def test_search_json_is_what_the_library_returns(invoke: Invoke, library_folder: Path) -> None:
    import audiosearch as aus

    done = invoke("search", "human", "voice", "--library", library_folder, "--json")
    with aus.open_library(library_folder) as lib:
        expected = lib.search("human voice").to_dict()
    found = json.loads(done.out)
    assert found == expected
    assert {"query", "total", "total_clips", "hits"} <= set(found)
    assert found["query"] == "human voice"
    hit = found["hits"][0]
    assert {"recording", "start", "end", "score", "label", "tags", "moments"} <= set(hit)


def test_search_pages_do_not_overlap(invoke: Invoke, library_folder: Path) -> None:
    def names(*options: object) -> list[str]:
        done = invoke("search", "speech", "--library", library_folder, "--json", *options)
        return [hit["recording"] for hit in json.loads(done.out)["hits"]]

    every = names("--limit", 12)
    assert names("--limit", 5) + names("--limit", 7, "--offset", 5) == every
    assert len(set(every)) == 12


def test_search_lists_hits_in_another_order(invoke: Invoke, library_folder: Path) -> None:
    def hits(*options: str) -> list[dict[str, object]]:
        command = ("search", "duration:>0", *options, "--library", library_folder, "--json")
        return json.loads(invoke(*command).out)["hits"]

    best, by_path = hits(), hits("--order", "path")
    assert [hit["score"] for hit in best] == sorted((hit["score"] for hit in best), reverse=True)
    paths = [str(hit["recording"]) for hit in by_path]
    assert paths == sorted(paths)
    assert paths != [hit["recording"] for hit in best]
    wrong = invoke("search", "Speech", "--order", "best", "--library", library_folder)
    assert wrong.code == 2
    assert "newest" in wrong.err


def test_search_past_the_end_says_so(invoke: Invoke, library_folder: Path) -> None:
    done = invoke("search", "speech", "--library", library_folder, "--offset", 10000)
    assert done.code == 0
    assert "none at offset 10,000" in done.out


def test_search_for_an_unknown_class_suggests(invoke: Invoke, library_folder: Path) -> None:
    done = invoke("search", "vehiclee", "--library", library_folder)
    assert_one_sentence(done)
    assert done.out == ""
    assert "Vehicle" in done.err


@pytest.mark.parametrize("query", ["", "   ", "a" * 10000, "\x00", "\udcff", '"', "((", "-", "--"])
def test_search_for_nonsense_is_one_sentence(
    invoke: Invoke, library_folder: Path, query: str
) -> None:
    assert_one_sentence(invoke("search", "--library", library_folder, "--", query))


def test_a_word_with_a_minus_is_part_of_the_query(invoke: Invoke, library_folder: Path) -> None:
    """-horse is no option, though it begins with the letter of one (-h)."""
    done = invoke("search", "-horsee", "--library", library_folder)
    assert_one_sentence(done)
    assert "horsee" in done.err
    assert invoke("search", "--library", library_folder, "--", "-horsee").err == done.err


def test_search_without_a_library_uses_the_shipped_one_and_says_so(invoke: Invoke) -> None:
    done = invoke("search", "Car", "--limit", 1)
    assert done.code == 0
    assert "shipped" in done.err
    assert "youtube.com/watch" in done.out


def test_search_in_a_folder_that_is_no_library(invoke: Invoke, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        done = invoke("search", "Car", "--library", folder)
        assert_one_sentence(done)
        assert str(folder) in done.err


def test_search_imports_nothing_heavy(library_folder: Path) -> None:
    assert not HEAVY & modules_after("search", "Car", "--library", str(library_folder))
    assert not HEAVY & modules_after("search", "Car")


# similar


def test_similar_finds_the_file_itself_first(
    invoke: Invoke, library_folder: Path, sound_master: Path
) -> None:
    path = sound_master / "nested" / "noise.flac"
    done = invoke("similar", path, "--library", library_folder, "--json")
    hits = json.loads(done.out)["hits"]
    assert hits[0]["recording"] == str(path)
    text = invoke("similar", path, "--library", library_folder, "--limit", 2).out
    assert str(path) in text
    # The number is a likeness: no class stands beside it as if it were that class's score.
    assert re.search(r"^   1\. 1\.00  0:0", text, re.MULTILINE)


def test_similar_to_a_clip_of_the_library(invoke: Invoke, library_folder: Path) -> None:
    result = json.loads(invoke("search", "speech", "--library", library_folder, "--json").out)
    clip = result["hits"][0]["clip"]
    done = invoke("similar", "--clip", clip, "--library", library_folder, "--json")
    assert done.code == 0
    assert json.loads(done.out)["hits"]


def test_similar_to_what_is_not_there(
    invoke: Invoke, library_folder: Path, sound_folder: Path, tmp_path: Path
) -> None:
    for example in (
        [tmp_path / "nowhere.wav"],
        [sound_folder],
        [sound_folder / "broken.wav"],
        [sound_folder / "empty.wav"],
        ["--clip", 10**9],
    ):
        assert_one_sentence(invoke("similar", *example, "--library", library_folder))


# info


def test_info_says_what_is_in_the_library(
    invoke: Invoke, library_folder: Path, sound_master: Path
) -> None:
    info = json.loads(invoke("info", "--library", library_folder, "--json").out)
    assert info["recordings"] == len(GOOD_SOUNDS) + 40
    assert info["embedder"] == "lite"
    text = invoke("info", "--library", library_folder).out
    assert str(library_folder) in text
    for name in BAD_SOUNDS:
        assert f"skipped {sound_master / name}: " in text


# serve and demo


def test_get_prints_one_page_and_nothing_else(invoke: Invoke) -> None:
    page = invoke("demo", "--get", "/?q=Car")
    assert page.code == 0
    assert page.err == ""
    assert page.out.lstrip().lower().startswith("<!doctype html>")
    assert page.out.rstrip().endswith("</html>")
    assert "youtube" in page.out.lower()


def test_get_of_a_json_page_is_json(invoke: Invoke, library_folder: Path) -> None:
    done = invoke("serve", "--library", library_folder, "--get", "/search.json?q=speech&limit=2")
    assert len(json.loads(done.out)["hits"]) == 2


def test_get_of_no_page_fails(invoke: Invoke) -> None:
    assert invoke("demo", "--get", "/there-is-none").code == 1
    assert_one_sentence(invoke("demo", "--get", "there-is-none"))


class Server:
    """A command that serves, in a process of its own."""

    def __init__(self, environment: dict[str, str], *args: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "audiosearch", *map(str, args)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            found = re.search(r"http://[\w.:\[\]]+/", line)
            if found:
                self.url = found[0]
                break

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(self.url.rstrip("/") + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def start(command_environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def run(*args: object, **environment: str) -> Server:
        servers.append(Server(command_environment | environment, *args))
        return servers[-1]

    yield run
    for server in servers:
        server.process.kill()
        server.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_prints_the_first_hits_then_serves(start: Callable[..., Server], number: int) -> None:
    server = start("demo", "--port", 0)
    assert re.search(r'recordings for "Car"', server.said)
    assert len(re.findall(r"^ +\d\. [01]\.\d\d  ", server.said, re.MULTILINE)) == 5
    status, page = server.get("/?q=Car")
    assert status == 200
    assert "Car" in page
    code, said = server.stop(number)
    assert code in (0, 130)
    assert "Traceback" not in said


def test_a_port_in_use_is_one_sentence(invoke: Invoke, library_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = invoke("serve", "--library", library_folder, "--port", port)
        assert_one_sentence(done)
        assert str(port) in done.err


def test_others_need_a_token_which_is_made_and_printed(
    start: Callable[..., Server], library_folder: Path
) -> None:
    server = start("serve", "--library", library_folder, "--host", "0.0.0.0", "--port", 0)
    found = re.search(r": (\S{32,})$", server.said, re.MULTILINE)
    assert found is not None
    assert server.get("/?q=speech")[0] == 401
    assert server.get("/health")[0] == 200
    assert server.get("/?q=speech", Authorization=f"Bearer {found[1]}")[0] == 200
    assert server.get("/?q=speech", Authorization="Bearer wrong")[0] == 401


@pytest.mark.parametrize("where", ["option", "environment"])
def test_a_given_token_is_used_and_not_printed(
    start: Callable[..., Server], library_folder: Path, where: str
) -> None:
    args = ["serve", "--library", library_folder, "--host", "0.0.0.0", "--port", 0]
    if where == "option":
        server = start(*args, "--token", "my-own-token")
    else:
        server = start(*args, AUDIOSEARCH_TOKEN="my-own-token")
    assert "my-own-token" not in server.said
    assert server.get("/")[0] == 401
    assert server.get("/", Authorization="Bearer my-own-token")[0] == 200


def test_an_empty_token_is_refused(invoke: Invoke, library_folder: Path) -> None:
    assert_one_sentence(invoke("serve", "--library", library_folder, "--port", 0, "--token", " "))
