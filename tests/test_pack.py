"""``audiosearch pack``: what a packed file holds, what is skipped, and what survives a kill."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from conftest import BAD_SOUNDS, Outcome
from released_fixtures import Clip, framed, int_feature, make_clips, payload, write_shard

import audiosearch as aus
from audiosearch.datasets.packed import PackedFile
from audiosearch.datasets.part_file import PartFile
from audiosearch.errors import (
    AudioNotFoundError,
    DataError,
    InvalidArgumentError,
    StorageError,
)
from audiosearch.jobs import Analyzer, Progress
from audiosearch.labels import load_labels
from audiosearch.library import packing

Invoke = Callable[..., Outcome]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five shards of 1, 12, 23, 34 and 45 clips, one folder down."""
    for number in range(5):
        clips = make_clips(1 + 11 * number, seed=number, frames=(10, 10, 6))
        write_shard(tmp_path / "released" / "ab" / f"{number}.tfrecord", clips)
    return tmp_path / "released"


def shard_clips() -> list[Clip]:
    return [c for n in range(5) for c in make_clips(1 + 11 * n, seed=n, frames=(10, 10, 6))]


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def assert_no_leftovers(out: Path) -> None:
    assert not list(out.parent.glob(f"{out.name}?*")), "only the packed file stays"


def test_tfrecords_become_rows(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "a.h5"
    seen: list[Progress] = []
    summary = aus.pack(shards, out, on_progress=seen.append)
    clips = shard_clips()
    assert (summary.clips, summary.files, summary.skipped) == (115, 5, [])
    assert summary.seconds == pytest.approx(1150)
    assert seen[0] == Progress(0, 5, 0.0, 0)
    assert seen[-1] == Progress(5, 5, 1150.0, 0)
    with PackedFile(out, labels=True) as file:
        rows = file.read()
        assert file.video_ids() == [clip.video_id for clip in clips]
        assert file.times().tolist() == [[clip.start, clip.start + 10] for clip in clips]
    for row, clip in enumerate(clips):
        count = len(clip.frames)
        assert rows.n_frames[row] == count
        np.testing.assert_array_equal(rows.x[row, :count], clip.frames)
        assert not rows.x[row, count:].any()
        assert np.flatnonzero(rows.y[row]).tolist() == clip.labels
    with h5py.File(out) as raw:
        assert raw["video_id_list"].dtype == "S11"
        assert raw["y"].dtype == bool
        assert raw.attrs["embedder"] == "audioset-release"
    assert_no_leftovers(out)
    assert aus.evaluate(out).clips == 115


def test_files_and_folders_give_the_same_rows_in_one_order(shards: Path, tmp_path: Path) -> None:
    files = sorted(shards.rglob("*.tfrecord"))
    aus.pack(shards, tmp_path / "a.h5")
    aus.pack([*reversed(files), shards], tmp_path / "b.h5")
    with PackedFile(tmp_path / "a.h5") as a, PackedFile(tmp_path / "b.h5") as b:
        assert a.video_ids() == b.video_ids()
        np.testing.assert_array_equal(a.read().x, b.read().x)


def test_clips_with_too_few_or_too_many_frames(tmp_path: Path, invoke: Invoke) -> None:
    clips = make_clips(6, frames=(10, 0, 14))
    shard = write_shard(tmp_path / "odd.tfrecord", clips)
    done = invoke("pack", shard, "--out", tmp_path / "a.h5")
    assert done.code == 3
    assert "4 clips from 1 file, 2 skipped." in done.out
    for row in (1, 4):
        assert f"odd.tfrecord, record {row}: The clip {clips[row].video_id} has no" in done.err
    with PackedFile(tmp_path / "a.h5") as file:
        assert file.video_ids() == [clips[i].video_id for i in (0, 2, 3, 5)]
        rows = file.read()
    assert rows.n_frames.tolist() == [10] * 4
    np.testing.assert_array_equal(rows.x[1], clips[2].frames[:10])


def test_a_damaged_shard_is_left_out_whole(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows of the damaged shard are committed before the damage is met.
    monkeypatch.setattr(packing, "_RECORDS_AT_ONCE", 4)
    monkeypatch.setattr(packing, "_GROUP_STEPS", 1)
    damaged = shards / "ab" / "3.tfrecord"
    data = bytearray(damaged.read_bytes())
    data[-100] ^= 255
    damaged.write_bytes(data)
    (shards / "ab" / "5.tfrecord").write_bytes(b"")
    summary = aus.pack(shards, tmp_path / "a.h5")
    assert (summary.clips, summary.files, summary.seconds) == (81, 4, pytest.approx(810))
    assert [item.path for item in summary.skipped] == ["ab/3.tfrecord", "ab/5.tfrecord"]
    assert summary.skipped[0].reason.startswith("Record 33 does not match its checksum")
    with PackedFile(tmp_path / "a.h5") as file:
        names = file.video_ids()
    assert names == [c.video_id for c in shard_clips() if not c.video_id.startswith("v03")]


def test_sounds_become_rows_of_ten_frames(
    sound_folder: Path, tmp_path: Path, invoke: Invoke
) -> None:
    out = tmp_path / "a.h5"
    done = invoke("pack", sound_folder, "--out", out, "--json")
    assert done.code == 3
    values = json.loads(done.out)
    assert (values["clips"], values["files"]) == (6, 5)
    assert sorted(item["path"] for item in values["skipped"]) == sorted(BAD_SOUNDS)
    with PackedFile(out) as file:
        assert not file.has_labels
        names, rows, times = file.video_ids(), file.read(), file.times()
        assert file.attribute("embedder") == "lite"
    assert names == [
        "click.wav",
        "nested/deep/Büro 音.ogg",
        "nested/noise.flac",
        "nested/noise.flac",
        "silence.wav",
        "tone.wav",
    ]
    assert rows.n_frames.tolist() == [1, 3, 10, 2, 1, 2]
    noise = aus.embed(sound_folder / "nested" / "noise.flac")
    assert len(noise) == 12
    np.testing.assert_array_equal(np.concatenate([rows.x[2], rows.x[3, :2]]), noise)
    np.testing.assert_allclose(times[2:4], [[0, 9.6], [9.6, 12]], atol=1e-6)
    assert aus.index(out, tmp_path / "library").added == 6


def test_a_table_names_parts_and_classes(good_folder: Path, tmp_path: Path, invoke: Invoke) -> None:
    table = write_table(
        good_folder / "list.csv",
        [
            {"path": "nested/noise.flac", "start": 0.5, "end": 3.5, "labels": "Rain; /m/09x0r"},
            {"path": "tone.wav", "start": "", "end": "", "labels": "Gunshot, gunfire"},
            {"path": "nested/noise.flac", "start": 11, "end": 99, "labels": ""},
            {"path": "missing.wav", "start": 0, "end": 1, "labels": "car"},
            {"path": "tone.wav", "start": 5, "end": 6, "labels": "car"},
        ],
    )
    done = invoke("pack", table, "--out", tmp_path / "a.h5")
    assert done.code == 3
    assert "missing.wav: There is no such file" in done.err
    assert "tone.wav: There is no sound after 5 s" in done.err
    with PackedFile(tmp_path / "a.h5", labels=True) as file:
        rows, names, times = file.read(), file.video_ids(), file.times()
    assert names == ["nested/noise.flac", "tone.wav", "nested/noise.flac"]
    labels = load_labels()
    assert [[labels[i].name for i in np.flatnonzero(row)] for row in rows.y] == [
        ["Speech", "Rain"],
        ["Gunshot, gunfire"],
        [],
    ]
    np.testing.assert_allclose(times, [[0.5, 3.5], [0, 2], [11, 12]], atol=0.01)
    expected, _ = Analyzer().embed(good_folder / "nested" / "noise.flac", start=0.5, end=3.5)
    np.testing.assert_array_equal(rows.x[0, : rows.n_frames[0]], expected)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no column 'path'"),
        ("file,start\na.wav,0\n", "no column 'path'"),
        ("path,label,labels\n", "two columns 'labels'"),
        ("path\n\n", "lists no sounds"),
        ("path,labels\na.wav,Raain\n", r"line 2: No class is called 'Raain'. Nearest:.* Rain"),
        ("path,labels\na.wav,Gunshot, gunfire\n", "line 2 has 3 values, but there are 2 columns"),
        ("path,start\na.wav,0\nb.wav,soon\n", "line 3: start must be seconds from 0, not 'soon'"),
        ("path,end\na.wav,-1\n", "line 2: end must be seconds"),
        ("path,start,end\na.wav,3,3\n", "line 2: end must be later than start"),
        ("path,end\na.wav,nan\n", "line 2: end must be seconds"),
        ("path,end\n,3\n", "line 2 names no file"),
        ('path\n"a.wav\n', "line"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_line(tmp_path: Path, text: str, match: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        aus.pack(table, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == [table]


def test_a_table_of_another_encoding_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_bytes("path\nBüro.wav\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        aus.pack(table, tmp_path / "a.h5")


def test_what_cannot_stand_in_one_file_is_refused(
    shards: Path, good_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.h5"
    table = write_table(tmp_path / "list.csv", [{"path": "sounds/tone.wav", "labels": "Rain"}])
    for sources in ([shards, good_folder], [shards, table]):
        with pytest.raises(InvalidArgumentError, match="TFRecords and sounds"):
            aus.pack(sources, out)
    with pytest.raises(InvalidArgumentError, match="Some of these sounds have labels"):
        aus.pack([table, good_folder], out)
    with pytest.raises(AudioNotFoundError, match=r"no such file"):
        aus.pack(tmp_path / "nowhere.tfrecord", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioNotFoundError, match="nothing to pack"):
        aus.pack(tmp_path / "empty", out)
    packed = tmp_path / "packed.h5"
    packed.touch()
    with pytest.raises(InvalidArgumentError, match="packed file already"):
        aus.pack(packed, out)
    for arguments in ({"embedder": "none"}, {"workers": 0}):
        with pytest.raises(InvalidArgumentError):
            aus.pack(good_folder, out, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="at least one"):
        aus.pack([], out)
    assert not out.exists()
    assert_no_leftovers(out)


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


def test_where_nothing_can_be_used_no_file_is_made(tmp_path: Path, invoke: Invoke) -> None:
    shard = tmp_path / "a.tfrecord"
    shard.write_bytes(framed(payload(make_clips(1)[0], labels=int_feature(527))))
    done = invoke("pack", shard, "--out", tmp_path / "a.h5")
    assert done.code == 1
    assert "was not made" in done.err
    assert "the label 527" in done.err
    assert list(tmp_path.glob("a.h5*")) == []


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


@pytest.mark.data
def test_the_released_shards(data_dir: Path, tmp_path: Path) -> None:
    summary = aus.pack(data_dir / "audioset" / "unbal_train_tfrecord", tmp_path / "a.h5")
    assert (summary.clips, summary.files, summary.skipped) == (975, 3, [])
    with PackedFile(tmp_path / "a.h5", labels=True) as file:
        rows = file.read()
        assert (rows.n_frames == 10).sum() == 968
        assert rows.y.any(axis=1).all()
        assert (np.diff(file.times(), axis=1) > 0).all()
