"""The commands on a library: index, search, similar, info, serve, demo."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BAD_SOUNDS, GOOD_SOUNDS, Outcome
from test_cli import modules_after

Run = Callable[..., subprocess.CompletedProcess[bytes]]
Invoke = Callable[..., Outcome]

HEAVY = {"onnxruntime", "faiss", "h5py", "pandas", "scipy", "tensorflow", "keras", "flask", "av"}


def assert_one_sentence(done: Outcome, *, code: int = 1) -> None:
    """A failure says one thing on stderr, with no traceback."""
    assert done.code == code
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("Error: ")]) == 1


# index


def test_index_adds_what_it_can_and_lists_what_it_skipped(
    invoke: Invoke, sound_folder: Path, tmp_path: Path
) -> None:
    done = invoke("index", sound_folder, "--library", tmp_path / "lib")
    assert done.code == 3
    assert f"{len(GOOD_SOUNDS)} added" in done.out
    assert f"{len(BAD_SOUNDS)} skipped" in done.out
    for name in BAD_SOUNDS:
        assert f"{sound_folder / name}: " in done.err
    assert "notes.txt" not in done.err


def test_index_again_does_only_what_is_new_changed_or_gone(
    invoke: Invoke, good_folder: Path, tmp_path: Path
) -> None:
    library = tmp_path / "lib"

    def index(*options: str) -> dict[str, int]:
        done = invoke("index", good_folder, "--library", library, "--json", *options)
        assert done.code == 0
        summary = json.loads(done.out)
        return {key: summary[key] for key in ("added", "updated", "unchanged", "removed")}

    files = len(GOOD_SOUNDS)
    zero = {"added": 0, "updated": 0, "unchanged": 0, "removed": 0}
    assert index() == zero | {"added": files}
    assert index() == zero | {"unchanged": files}
    shutil.copy(good_folder / "nested" / "noise.flac", good_folder / "new.flac")
    shutil.copy(good_folder / "nested" / "noise.flac", good_folder / "tone.wav")
    (good_folder / "click.wav").unlink()
    assert index("--keep-missing") == zero | {"added": 1, "updated": 1, "unchanged": files - 2}
    assert index() == zero | {"unchanged": files, "removed": 1}


def test_index_of_a_packed_file_keeps_its_rows(
    invoke: Invoke, packed_h5: Path, tmp_path: Path
) -> None:
    assert invoke("index", packed_h5, "--library", tmp_path / "lib").code == 0
    hits = json.loads(
        invoke("search", "speech", "--library", tmp_path / "lib", "--json", "--limit", 40).out
    )["hits"]
    assert hits
    for hit in hits:
        assert hit["source"] == "audioset"
        assert hit["recording"] == f"clip-{hit['clip']:06d}"


def test_index_without_a_library_option_makes_the_users_own(
    invoke: Invoke, good_folder: Path, own_home: Path
) -> None:
    assert invoke("index", good_folder).code == 0
    info = invoke("info", "--json")
    assert info.err == ""
    assert json.loads(info.out)["recordings"] == len(GOOD_SOUNDS)
    assert Path(json.loads(info.out)["folder"]).is_relative_to(own_home)


def test_index_takes_the_library_of_the_environment(
    invoke: Invoke, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "elsewhere"))
    assert invoke("index", good_folder / "tone.wav").code == 0
    info = json.loads(invoke("info", "--json").out)
    assert info["folder"] == str(tmp_path / "elsewhere")


def test_index_of_a_missing_path(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("index", tmp_path / "nowhere", "--library", tmp_path / "lib")
    assert_one_sentence(done)
    assert str(tmp_path / "nowhere") in done.err


def test_index_of_a_folder_without_sounds(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no sound")
    done = invoke("index", tmp_path / "empty", "--library", tmp_path / "lib")
    assert_one_sentence(done)
    assert str(tmp_path / "empty") in done.err


@pytest.mark.parametrize("name", BAD_SOUNDS)
def test_index_of_nothing_but_an_unreadable_file(
    invoke: Invoke, sound_folder: Path, tmp_path: Path, name: str
) -> None:
    done = invoke("index", sound_folder / name, "--library", tmp_path / "lib")
    assert done.code == 1
    assert str(sound_folder / name) in done.err
    assert "Traceback" not in done.err


def test_index_of_a_truncated_packed_file(invoke: Invoke, packed_h5: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.h5"
    short.write_bytes(packed_h5.read_bytes()[:5000])
    done = invoke("index", short, "--library", tmp_path / "lib")
    assert_one_sentence(done)
    assert str(short) in done.err


def test_index_into_a_library_of_another_version(
    invoke: Invoke, good_folder: Path, library_folder: Path
) -> None:
    manifest = library_folder / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(values | {"format_version": 999}), encoding="utf-8")
    before = manifest.read_bytes()
    for command in (("index", good_folder), ("search", "Car"), ("info",)):
        done = invoke(*command, "--library", library_folder)
        assert_one_sentence(done)
        assert str(library_folder) in done.err
    assert manifest.read_bytes() == before


def test_index_into_a_library_of_another_embedder(
    invoke: Invoke, good_folder: Path, packed_h5: Path, tmp_path: Path
) -> None:
    library = tmp_path / "lib"
    assert invoke("index", packed_h5, "--library", library).code == 0
    done = invoke("index", good_folder, "--library", library)
    assert_one_sentence(done)
    assert "--mix-embedders" in done.err
    assert json.loads(invoke("info", "--library", library, "--json").out)["recordings"] == 40
    done = invoke("index", good_folder, "--library", library, "--mix-embedders", "--json")
    assert json.loads(done.out)["added"] == len(GOOD_SOUNDS)


def test_index_draws_a_bar_on_a_terminal_only(
    command_environment: dict[str, str], good_folder: Path, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "audiosearch", "index", good_folder, "--library", tmp_path / "lib"],
        env=command_environment | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the process has ended
        while part := os.read(ours, 4096):
            drawn += part
    os.close(ours)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    files = len(GOOD_SOUNDS)
    assert f"{files}/{files}".encode() in drawn
    assert b"x real time" in drawn
    assert b"\x1b" not in printed
    assert f"{files} added".encode() in printed


def test_index_tries_skipped_files_again_only_when_asked(
    invoke: Invoke, sound_folder: Path, tmp_path: Path
) -> None:
    command = ("index", sound_folder, "--library", tmp_path / "lib", "--json")
    first = json.loads(invoke(*command).out)
    assert {Path(item["path"]).name for item in first["skipped"]} == {
        Path(name).name for name in BAD_SOUNDS
    }
    assert json.loads(invoke(*command).out)["skipped"] == first["skipped"]
    assert json.loads(invoke(*command, "--retry-skipped").out)["skipped"] == first["skipped"]


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


# interrupted and full


def long_sounds(folder: Path, count: int) -> None:
    import numpy as np
    import soundfile

    folder.mkdir()
    noise = np.random.default_rng(3).normal(0, 0.1, 16000 * 20)
    for number in range(count):
        soundfile.write(folder / f"{number:03}.wav", noise, 16000, subtype="PCM_16")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_index_leaves_a_library_that_goes_on(
    command_environment: dict[str, str],
    invoke: Invoke,
    tmp_path: Path,
    number: int,
) -> None:
    long_sounds(tmp_path / "long", 120)
    library = tmp_path / "lib"
    process = subprocess.Popen(
        [sys.executable, "-m", "audiosearch", "index", tmp_path / "long", "--library", library],
        env=command_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    # Until the library is there and something was committed, but not everything.
    began = time.monotonic()
    while not library.exists() and time.monotonic() - began < 60:
        time.sleep(0.02)
    time.sleep(1.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said
    if number == signal.SIGINT:
        # Python ends itself by the signal where that came during its own start or end, which a
        # shell shows as 130 too.
        assert process.returncode in (0, 130, -signal.SIGINT)
        assert process.returncode != 130 or b"Interrupted" in said
    done = invoke("index", tmp_path / "long", "--library", library, "--json")
    assert done.code == 0
    summary = json.loads(done.out)
    assert summary["added"] + summary["unchanged"] == 120
    assert json.loads(invoke("info", "--library", library, "--json").out)["recordings"] == 120


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    command_environment: dict[str, str], invoke: Invoke, good_folder: Path, tmp_path: Path
) -> None:
    library = tmp_path / "lib"
    assert invoke("index", good_folder, "--library", library).code == 0
    long_sounds(tmp_path / "long", 150)
    size = sum(path.stat().st_size for path in library.rglob("*") if path.is_file())
    program = f"{sys.executable} -m audiosearch"
    script = (
        f"{program} index {tmp_path}/long --library {library}\n"
        "echo code $?\n"
        f"{program} info --library {library} --json\n"
        f"{program} search speech --library {library} --limit 1 >/dev/null && echo searched\n"
    )
    small = ["unshare", "-rm", "sh", "-ec"]
    disk = f"mount -t tmpfs -o size={size + 300_000} none {library}"
    disk += f" && cp -r {tmp_path}/copy/. {library}"
    shutil.copytree(library, tmp_path / "copy")
    possible = subprocess.run([*small, disk], capture_output=True, check=False).returncode == 0
    limit: Callable[[], None] | None = None
    if possible:
        words = [*small, f"{disk}\nset +e\n{script}"]
    else:
        # No small disk can be mounted here: no file may grow past a limit, which fails alike.
        words = ["sh", "-c", script]

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        words,
        env=command_environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limit,
    )
    assert "code 1" in done.stdout
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    info = json.loads(done.stdout.partition("code 1")[2].rpartition("}")[0] + "}")
    assert info["recordings"] >= len(GOOD_SOUNDS)
    assert "searched" in done.stdout
