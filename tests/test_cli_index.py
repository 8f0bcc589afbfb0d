"""``audiosearch index``: what it says and leaves, also where it is stopped or the disk is full."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import BAD_SOUNDS, GOOD_SOUNDS, Outcome, assert_one_sentence

Invoke = Callable[..., Outcome]


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
