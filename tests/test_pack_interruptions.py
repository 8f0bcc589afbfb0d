"""Packing that is stopped, killed or out of disk goes on; and nothing is overwritten."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Outcome
from released_fixtures import assert_no_leftovers, make_clips, shards, write_shard

import audiosearch as aus
from audiosearch.datasets.packed import PackedFile
from audiosearch.datasets.part_file import PartFile
from audiosearch.errors import StorageError
from audiosearch.jobs import Progress
from audiosearch.library import packing

__all__ = ["shards"]


Invoke = Callable[..., Outcome]


def interrupt(sources: Path, out: Path, *, after: int = 2) -> None:
    """Pack until some items are done, then interrupt as Ctrl-C does."""

    def stop(progress: Progress) -> None:
        if progress.done >= after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_GROUP_STEPS", 1)
        with pytest.raises(KeyboardInterrupt):
            aus.pack(sources, out, on_progress=stop)
    assert out.with_name(f"{out.name}.part").exists()


def test_nothing_is_overwritten(shards: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "a.h5"
    out.write_bytes(b"mine")
    done = invoke("pack", shards, "--out", out)
    assert done.code == 1
    assert "exists already" in done.err
    assert "nothing was overwritten" in done.err
    assert out.read_bytes() == b"mine"
    # Nor where an interrupted run left something.
    other = tmp_path / "b.h5"
    interrupt(shards, other)
    other.write_bytes(b"mine")
    with pytest.raises(StorageError, match="nothing was overwritten"):
        aus.pack(shards, other)
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["shards", "good_folder"])
def test_an_interrupted_run_goes_on(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sources, out = request.getfixturevalue(kind), tmp_path / "a.h5"
    aus.pack(sources, tmp_path / "whole.h5")
    interrupt(sources, out)
    seen: list[Progress] = []
    summary = aus.pack(sources, out, on_progress=seen.append)
    assert 2 <= seen[0].done < 5
    assert summary.files == 5
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert_no_leftovers(out)


def test_ctrl_c_at_the_command_line(
    shards: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_released_rows", interrupted)
    done = invoke("pack", shards, "--out", tmp_path / "a.h5")
    assert done.code == 130
    assert "run the same command to go on" in done.err


def test_a_shard_of_many_records_is_taken_up_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(tmp_path / "a.tfrecord", make_clips(50, frames=(10, 0)))
    aus.pack(shard, tmp_path / "whole.h5")
    monkeypatch.setattr(packing, "_RECORDS_AT_ONCE", 4)
    monkeypatch.setattr(packing, "_GROUP_STEPS", 1)
    out = tmp_path / "a.h5"
    reported = []

    def stop(progress: Progress) -> None:
        reported.append(progress)
        if progress.seconds >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aus.pack(shard, out, on_progress=stop)
    skips: list[int] = []
    read = packing.read_clips
    monkeypatch.setattr(
        packing, "read_clips", lambda path, skip: skips.append(skip) or read(path, skip=skip)
    )
    summary = aus.pack(shard, out)
    assert skips == [20]
    assert len(summary.skipped) == 25
    with PackedFile(out) as ours, PackedFile(tmp_path / "whole.h5") as theirs:
        assert ours.video_ids() == theirs.video_ids()
        np.testing.assert_array_equal(ours.read().x, theirs.read().x)


def test_changed_sources_are_not_mixed_with_what_was_done(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    interrupt(shards, out)
    write_shard(shards / "ab" / "9.tfrecord", make_clips(3))
    with pytest.raises(StorageError, match=r"a.h5.part was left by a run over other sources"):
        aus.pack(shards, out)
    (shards / "ab" / "9.tfrecord").unlink()
    assert aus.pack(shards, out).clips == 115


def test_two_processes_do_not_pack_into_one_file(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    with (
        PartFile(out, "whatever"),
        pytest.raises(StorageError, match="Another process is packing into"),
    ):
        aus.pack(shards, out)


@pytest.mark.parametrize("content", [b"this is no database" * 99, None])
def test_a_part_file_of_something_else_is_refused(
    shards: Path, tmp_path: Path, content: bytes | None
) -> None:
    part = tmp_path / "a.h5.part"
    if content is None:
        with sqlite3.connect(part) as database:
            database.execute("CREATE TABLE something (a)")
        database.close()
    else:
        part.write_bytes(content)
    before = part.read_bytes()
    with pytest.raises(StorageError, match="Delete it to start anew"):
        aus.pack(shards, tmp_path / "a.h5")
    assert part.read_bytes() == before


# Runs in a process of its own: a commit after each item, slowly; "stage" says where it dies.
PACKING = """
import os, signal, sys, time
import audiosearch as aus
from audiosearch.datasets import packed_writer, part_file
from audiosearch.library import packing

source, out, stage = sys.argv[1:]
packing._GROUP_STEPS = 1
packing._RECORDS_AT_ONCE = 10

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(what, before):
    def wrapped(*args, **options):
        if before:
            die()
        what(*args, **options)
        die()
    return wrapped

if stage == "in a commit":
    calls, add = [], part_file.PartFile._add
    def add_some(self, step):
        add(self, step)
        calls.append(1)
        if len(calls) == 4:
            die()
    part_file.PartFile._add = add_some
elif stage == "while writing":
    recut = packed_writer._recut
    def some(blocks):
        for count, block in enumerate(recut(blocks)):
            yield block
            die()
    packed_writer._recut = some
elif stage == "before renaming":
    part_file.PartFile.write.__globals__["write_packed_file"] = dying(
        packed_writer.write_packed_file, False)
elif stage == "after renaming":
    part_file.PartFile.remove = dying(None, True)

def show(progress):
    print(progress.done, flush=True)
    if stage == "slowly":
        time.sleep(0.03)

aus.pack(source, out, workers=1, on_progress=show)
"""


def start_packing(source: Path, out: Path, stage: str) -> subprocess.Popen[str]:
    places = os.pathsep.join(place for place in sys.path if place)
    return subprocess.Popen(
        [sys.executable, "-c", PACKING, str(source), str(out), stage],
        env=os.environ | {"PYTHONPATH": places},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "stage", ["in a commit", "while writing", "before renaming", "after renaming"]
)
def test_a_kill_at_any_stage_is_survived(shards: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "a.h5"
    aus.pack(shards, tmp_path / "whole.h5")
    process = start_packing(shards, out, stage)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert out.exists() == (stage == "after renaming")
    seen: list[Progress] = []
    summary = aus.pack(shards, out, on_progress=seen.append)
    assert summary.clips == 115
    assert seen[0].done == (2 if stage == "in a commit" else 5)
    with PackedFile(out) as ours, PackedFile(tmp_path / "whole.h5") as theirs:
        assert ours.video_ids() == theirs.video_ids()
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert_no_leftovers(out)


@pytest.mark.parametrize(("kind", "wanted_kills"), [("shards", 4), ("sounds", 2)])
def test_kills_at_random_moments_lose_nothing(kind: str, wanted_kills: int, tmp_path: Path) -> None:
    chance = random.Random(kind)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        if kind == "shards":
            write_shard(source / f"{number:02}.tfrecord", make_clips(20, seed=number))
        else:
            noise = np.random.default_rng(number).normal(0, 0.1, 16000 * (1 + number % 3))
            soundfile.write(source / f"{number:02}.wav", noise, 16000)
    aus.pack(source, tmp_path / "whole.h5")
    out = tmp_path / "a.h5"
    done = kills = 0
    while kills < wanted_kills:
        process = start_packing(source, out, "slowly")
        assert process.stdout is not None
        wanted = done + chance.randint(1, 8)
        for line in process.stdout:
            reported = int(line)
            if reported >= wanted:
                break
        chance_pause = chance.uniform(0, 0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(chance_pause)
        process.kill()
        process.communicate()
        kills += 1
        with pytest.MonkeyPatch.context() as patch:
            # Look at what was committed, without going on.
            patch.setattr(packing._Packer, "pack_shards", stop_here)
            patch.setattr(packing._Packer, "pack_sounds", stop_here)
            seen: list[Progress] = []
            with pytest.raises(KeyboardInterrupt):
                aus.pack(source, out, on_progress=seen.append)
        assert seen[0].done >= reported, "what was reported is on the disk"
        done = seen[0].done
    assert wanted_kills <= done < 30
    aus.pack(source, out)
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert_no_leftovers(out)


def stop_here(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_sentence_and_the_run_goes_on(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.h5"
    # The database fits, the file of 150 kB does not; then neither.
    for limit in (1, 130):
        code = (
            "import resource, signal, sys\n"
            "from audiosearch.cli import main\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit} * 1024, {limit} * 1024))\n"
            "main(sys.argv[1:])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "pack", str(shards), "--out", str(out)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert "a.h5" in done.stderr
        assert "could not be written" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not out.exists()
    assert aus.pack(shards, out).clips == 115
    assert_no_leftovers(out)
