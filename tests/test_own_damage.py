"""Own classes whose scores or classifier are damaged, lost or dropped: found, and put right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile
from lab_fixtures import sound
from own_fixtures import classifier, found, master, recordings

import audiosearch as aus
from audiosearch.errors import LibraryDamagedError
from audiosearch.library.library import Library
from audiosearch.library.verification import verify

__all__ = ["classifier", "master", "recordings"]


def test_a_classifier_that_was_lost_can_be_given_again(master, classifier, recordings, tmp_path):
    folder = Path(shutil.copytree(master, tmp_path / "lib"))
    (own,) = folder.glob("own-*")
    (own / "classifier.onnx").unlink()
    assert aus.index(recordings, folder, classifier=classifier, workers=1).unchanged == 3
    assert verify(folder, sounds=False).whole


def test_damaged_scores_are_found(master, recordings, classifier, tmp_path):
    folder = Path(shutil.copytree(master, tmp_path / "lib"))
    (own,) = folder.glob("own-*")
    for name in ("scores.rows", "frames.rows", "sums.rows"):
        whole = (own / name).read_bytes()
        (own / name).write_bytes(whole[:-3])
        (finding,) = verify(folder, sounds=False).findings
        assert finding.kind == "damaged"
        assert f"{name} has {len(whole) - 3:,} of {len(whole):,} bytes" in finding.problem
        (own / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
        (finding,) = verify(folder, sounds=False).findings
        assert "scores of 1 clips differ" in finding.problem
        (own / name).write_bytes(whole)
    assert verify(folder, sounds=False).findings == []
    (own / "scores.rows").write_bytes(b"\0" * 7)
    options = {"classifier": classifier, "drop_classifier": ["machines"], "workers": 1}
    assert aus.index(recordings, folder, **options).updated == 3, "as the finding says"
    assert verify(folder, sounds=False).findings == []
    assert found(folder) == found(master)


@pytest.mark.parametrize("extended", [False, True])
def test_sounds_whose_scores_alone_were_kept_are_heard_again(
    extended, master, recordings, tmp_path
):
    folder = Path(shutil.copytree(master, tmp_path / "lib"))
    (own,) = folder.glob("own-*")
    for name in ("frames.rows", "sums.rows"):  # as a version left it that did not write them
        size = (own / name).stat().st_size
        (own / name).unlink()
        if extended:
            (own / name).write_bytes(bytes(size))
    assert verify(folder, sounds=False).findings == []
    with Library(folder) as library:
        assert library.info().unheard_clips == library.info().clips
        assert library.search('label:"my machine" score:>0.5').total == 0
        assert library.timeline(library.search("path:a-low").hits[0].clip).unheard_by
    done = aus.index(recordings, folder, workers=1)
    assert (done.updated, done.unchanged) == (3, 0)
    assert verify(folder, sounds=False).findings == []
    assert found(folder) == found(master)
    assert aus.index(recordings, folder, workers=1).unchanged == 3


@pytest.mark.parametrize("name", ["scores.rows", "sums.rows"])
def test_a_lost_file_of_own_scores_is_damage(name, master, tmp_path):
    folder = Path(shutil.copytree(master, tmp_path / "lib"))
    (own,) = folder.glob("own-*")
    (own / name).unlink()
    with Library(folder) as library, pytest.raises(LibraryDamagedError, match=f"{name} is missing"):
        library.search("label:noise")
    (finding,) = verify(folder, sounds=False).findings
    assert f"{name} has 0 of" in finding.problem
    soundfile.write(tmp_path / "new.wav", sound("low", 90, seconds=1.0), 16000)
    with pytest.raises(LibraryDamagedError, match="Restore"):
        aus.index(tmp_path / "new.wav", folder, workers=1)
    assert not (own / name).exists(), "nothing was written over it"


def test_a_classifier_that_is_dropped_meanwhile_finds_nothing_more(master, recordings, tmp_path):
    folder = Path(shutil.copytree(master, tmp_path / "lib"))
    with Library(folder) as library:
        aus.index(recordings, folder, drop_classifier=["machines"], workers=1)
        assert library.search("label:noise score:>0.01").total == 0
