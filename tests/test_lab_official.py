"""The official data sets by name, fetched from a server of this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from lab_fixtures import esc50_layout, write_sound
from test_downloads import Server, server

from audiosearch.errors import DataError, DownloadError, InvalidArgumentError
from audiosearch.lab import OFFICIAL_SETS, official, read_official

__all__ = ["server"]


@pytest.fixture
def datasets(tmp_path, monkeypatch, server):
    """The folder for data sets, and a mirror at the local server; publishers cannot be reached."""
    folder = tmp_path / "datasets"
    monkeypatch.setenv("AUDIOSEARCH_DATASETS", str(folder))
    mirror = server.url.rpartition("/")[0]
    monkeypatch.setenv("AUDIOSEARCH_DATASET_MIRRORS", mirror)
    monkeypatch.setattr(official, "_ESC50", "http://127.0.0.1:9")
    for name, archive in official._ARCHIVES.items():
        changed = type(archive)(archive.file, (), archive.wanted)
        monkeypatch.setitem(official._ARCHIVES, name, changed)
    return folder


def serve_esc50(server: Server, folder: Path) -> list[str]:
    """Serve a set laid out as ESC-50, of which two classes are in ESC-10; return its clips."""
    esc50_layout(folder)
    table = folder / "meta" / "esc50.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines = [line.replace("TRUE", "FALSE") if ",noise," in line else line for line in lines]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    clips = sorted((folder / "audio").iterdir())
    server.files = {"esc50.csv": table} | {clip.name: clip for clip in clips}
    return [clip.name for clip in clips]


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_of_esc10_only_its_clips_come_and_once(datasets, server, tmp_path):
    clips = serve_esc50(server, tmp_path / "there")
    counts = []
    sounds = read_official("esc10", on_file=lambda *state: counts.append(state))
    assert sounds.classes == ("high", "low")
    assert (len(sounds), sounds.layout, sounds.skipped) == (12, "esc50", ())
    assert {sound.fold for sound in sounds.sounds} == {"1", "2", "3"}
    asked = {path.rpartition("/")[2] for path, _ in server.requests}
    assert asked == {"esc50.csv"} | {clip for clip in clips if not clip.endswith("-2.wav")}
    assert counts == [(n, 12) for n in range(12)]
    before = len(server.requests)
    read_official("esc10")
    assert len(server.requests) == before
    assert len(read_official("esc50")) == 18
    assert len(server.requests) == before + 6, "what was missing"


def test_only_chosen_classes_are_fetched(datasets, server, tmp_path):
    serve_esc50(server, tmp_path / "there")
    sounds = read_official("esc50", classes=["noise"])
    assert (sounds.classes, len(sounds), sounds.skipped) == (("noise",), 6, ())
    assert len(server.requests) == 7
    with pytest.raises(DataError, match="ESC-10 has no class 'noise'"):
        read_official("esc10", classes=["noise"])


def test_archives_are_unpacked_as_far_as_they_are_wanted(datasets, server, tmp_path):
    wav = write_sound(tmp_path / "x.wav", "low", 1).read_bytes()
    server.content = archive(
        tmp_path / "fsdd.tar.gz",
        {
            "free-1.0.10/recordings/0_ann_0.wav": wav,
            "free-1.0.10/recordings/1_bob_0.wav": wav,
            "free-1.0.10/../../recordings/../evil.wav": wav,
            "free-1.0.10/README.md": b"no sound",
        },
    ).read_bytes()
    sounds = read_official("fsdd")
    assert [(sound.labels, sound.group) for sound in sounds.sounds] == [
        (("0",), "ann"),
        (("1",), "bob"),
    ]
    files = sorted(path.name for path in datasets.rglob("*") if path.is_file())
    assert files == ["0_ann_0.wav", "1_bob_0.wav", "lock", "unpacked.json"]
    before = len(server.requests)
    read_official("fsdd")
    assert len(server.requests) == before


def test_urbansound8k_keeps_its_folds(datasets, server, tmp_path):
    wav = write_sound(tmp_path / "x.wav", "low", 1).read_bytes()
    table = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    table += "1-0-0-0.wav,1,0,4,1,5,0,siren\n2-0-0-0.wav,2,0,4,1,10,0,drilling\n"
    server.content = archive(
        tmp_path / "us8k.tar.gz",
        {
            "UrbanSound8K/audio/fold5/1-0-0-0.wav": wav,
            "UrbanSound8K/audio/fold10/2-0-0-0.wav": wav,
            "UrbanSound8K/metadata/UrbanSound8K.csv": table.encode(),
        },
    ).read_bytes()
    sounds = read_official("urbansound8k")
    assert {(sound.labels[0], sound.fold) for sound in sounds.sounds} == {
        ("siren", "5"),
        ("drilling", "10"),
    }


def test_a_wrong_archive_is_refused_and_not_kept(datasets, server, tmp_path, monkeypatch):
    known = official._ARCHIVES["urbansound8k"]
    right = archive(tmp_path / "a.tar.gz", {"UrbanSound8K/audio/fold1/1.wav": b"RIFF"}).read_bytes()
    digest = hashlib.md5(right).hexdigest()
    changed = type(known)(known.file, (), known.wanted, digest)
    monkeypatch.setitem(official._ARCHIVES, "urbansound8k", changed)
    server.content = archive(tmp_path / "b.tar.gz", {"other/x.wav": b"RIFF"}).read_bytes()
    with pytest.raises(DownloadError, match=f"not {digest}"):
        read_official("urbansound8k")
    assert not list(datasets.rglob("*.gz"))
    with pytest.raises(DataError, match="no sounds of this data set"):
        read_official("fsdd")
    assert not list(datasets.rglob("*.gz"))


def test_offline_nothing_is_asked_for(datasets, server, tmp_path, monkeypatch):
    serve_esc50(server, tmp_path / "there")
    monkeypatch.setenv("AUDIOSEARCH_OFFLINE", "1")
    for name in OFFICIAL_SETS:
        with pytest.raises(DownloadError, match="AUDIOSEARCH_OFFLINE forbids"):
            read_official(name)
    assert server.requests == []
    monkeypatch.delenv("AUDIOSEARCH_OFFLINE")
    read_official("esc10")
    monkeypatch.setenv("AUDIOSEARCH_OFFLINE", "1")
    assert len(read_official("esc10")) == 12, "what is here can be used"


def test_unknown_sets_are_refused(datasets):
    with pytest.raises(InvalidArgumentError, match="esc10, esc50, urbansound8k, fsdd"):
        read_official("mnist")


def test_the_commands_take_them_by_name(datasets, server, tmp_path, invoke):
    serve_esc50(server, tmp_path / "there")
    done = invoke("lab", "inspect", "--data", "esc10")
    assert done.code == 0, done.err
    assert "12 sounds of 2 classes, layout esc50" in done.out
    assert invoke("lab", "inspect").code == 2
    assert invoke("lab", "inspect", tmp_path, "--data", "esc10").code == 2
    assert invoke("lab", "inspect", "--data", "esc10", "--layout", "esc50").code == 2


def test_the_option_knows_all_sets():
    from audiosearch.cli.lab_train import command

    (option,) = [each for each in command.params if each.name == "official"]
    assert tuple(option.type.choices) == OFFICIAL_SETS
