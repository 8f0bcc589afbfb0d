"""``audiosearch pack``: what a packed file holds, what is skipped, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import BAD_SOUNDS, Outcome
from released_fixtures import (
    Clip,
    assert_no_leftovers,
    framed,
    int_feature,
    make_clips,
    payload,
    shards,
    write_shard,
)

import audiosearch as aus
from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import AudioNotFoundError, DataError, InvalidArgumentError
from audiosearch.jobs import Analyzer, Progress
from audiosearch.labels import load_labels
from audiosearch.library import packing

__all__ = ["shards"]


Invoke = Callable[..., Outcome]


def shard_clips() -> list[Clip]:
    return [c for n in range(5) for c in make_clips(1 + 11 * n, seed=n, frames=(10, 10, 6))]


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


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


def test_where_nothing_can_be_used_no_file_is_made(tmp_path: Path, invoke: Invoke) -> None:
    shard = tmp_path / "a.tfrecord"
    shard.write_bytes(framed(payload(make_clips(1)[0], labels=int_feature(527))))
    done = invoke("pack", shard, "--out", tmp_path / "a.h5")
    assert done.code == 1
    assert "was not made" in done.err
    assert "the label 527" in done.err
    assert list(tmp_path.glob("a.h5*")) == []


@pytest.mark.data
def test_the_released_shards(data_dir: Path, tmp_path: Path) -> None:
    summary = aus.pack(data_dir / "audioset" / "unbal_train_tfrecord", tmp_path / "a.h5")
    assert (summary.clips, summary.files, summary.skipped) == (975, 3, [])
    with PackedFile(tmp_path / "a.h5", labels=True) as file:
        rows = file.read()
        assert (rows.n_frames == 10).sum() == 968
        assert rows.y.any(axis=1).all()
        assert (np.diff(file.times(), axis=1) > 0).all()
