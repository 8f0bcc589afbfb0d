"""Filling a library: what is found, added, skipped, changed, removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import BAD_SOUNDS, GOOD_SOUNDS, write_packed
from library_fixtures import (
    BAD,
    GOOD,
    analysed,
    contents,
    counts,
    rescored,
    sound_scores,
    write_sounds,
)

import audiosearch as aus
from audiosearch.labels import load_labels

__all__ = ["analysed"]


def names(library: Path) -> set[str]:
    return {Path(name).name for name in contents(library)}


# what is found


def test_a_folder_is_indexed_and_what_could_not_be_used_is_listed(
    sound_folder: Path, tmp_path: Path
) -> None:
    summary = aus.index(sound_folder, tmp_path / "lib")
    assert counts(summary) == {"added": GOOD, "skipped": BAD}
    assert summary.seconds == pytest.approx(sum(s for _, _, s in GOOD_SOUNDS.values()), abs=0.01)
    assert {skipped.path for skipped in summary.skipped} == {
        str(sound_folder / name) for name in BAD_SOUNDS
    }
    assert all(skipped.reason.endswith(".") for skipped in summary.skipped)
    with aus.open_library(tmp_path / "lib") as library:
        assert library.skipped() == sorted(summary.skipped, key=lambda s: s.path)
        clips = [library.clip(number) for number in range(library.info().clips)]
    # Rows follow the sorted paths.
    found = list(dict.fromkeys(clip.recording for clip in clips))
    assert found == sorted(str(sound_folder / name) for name in GOOD_SOUNDS)
    assert {clip.recording: clip.duration for clip in clips} == pytest.approx(
        {str(sound_folder / name): seconds for name, (_, _, seconds) in GOOD_SOUNDS.items()},
        abs=0.001,
    )


def test_what_is_stored_is_what_the_models_say(good_folder: Path, tmp_path: Path) -> None:
    from audiosearch.library.columns import encode_scores

    aus.index(good_folder, tmp_path / "lib")
    for name, (scores, _, frames) in contents(tmp_path / "lib").items():
        embedded = aus.embed(name)
        assert frames == embedded.tobytes()
        assert scores == encode_scores(sound_scores(embedded)).tobytes()


def test_names_that_are_not_text(tmp_path: Path, analysed: list[str]) -> None:
    source = tmp_path / os.fsdecode(b"f\xfflder")
    source.mkdir()
    sound = source / os.fsdecode(b"kl\xe4nge.wav")
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    (tmp_path / "a.wav").rename(sound)
    (source / os.fsdecode(b"bro\xffken.wav")).write_bytes(b"no sound")
    summary = aus.index(source, tmp_path / "lib")
    assert counts(summary) == {"added": 1, "skipped": 1}
    assert counts(aus.index(source, tmp_path / "lib")) == {"unchanged": 1, "skipped": 1}
    with aus.open_library(tmp_path / "lib") as library:
        hit = library.similar(0).to_dict()
        clip = library.clip(0)
        path = library.audio_path(clip.recording_id)
        skipped = library.skipped()
    assert hit["hits"] == []
    assert clip.recording.endswith(r"f\udcfflder/kl\udce4nge.wav")
    assert skipped[0].path.endswith(r"bro\udcffken.wav")
    for text in (clip.recording, skipped[0].path, skipped[0].reason, summary.skipped[0].reason):
        text.encode("utf-8")
    assert path == sound  # the file itself, byte for byte


def test_a_library_in_a_folder_whose_name_is_not_text(
    tmp_path: Path, sound_master: Path, analysed: list[str]
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xffb"))
    aus.index(sound_master / "tone.wav", folder)
    with aus.open_library(folder) as library:
        assert library.info().folder.endswith(r"l\udcffb")
        assert library.info().clips == 1


def test_files_and_several_sources_and_relative_paths(
    sound_folder: Path,
    tmp_path: Path,
    analysed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(sound_folder)
    sources = ["tone.wav", Path("nested", "deep"), sound_folder / "tone.wav", "./nested/deep"]
    assert counts(aus.index(sources, tmp_path / "lib")) == {"added": 2}
    assert analysed == ["Büro 音.ogg", "tone.wav"]
    # A file that is named is tried, whatever its ending.
    shutil.copy("tone.wav", "tone.bin")
    assert counts(aus.index("tone.bin", tmp_path / "lib")) == {"added": 1}
    assert counts(aus.index(".", tmp_path / "lib")) == {
        "added": GOOD - 2,
        "unchanged": 2,
        "removed": 1,  # a folder's files count by their ending
        "skipped": BAD,
    }


@pytest.mark.parametrize(
    "order", [("nested", "."), (".", "nested"), ("nested/deep", "nested", ".")]
)
def test_a_folder_and_its_parent_hold_each_file_once(
    good_folder: Path, tmp_path: Path, analysed: list[str], order: tuple[str, ...]
) -> None:
    for source in order:
        aus.index(good_folder / source, tmp_path / "lib")
    assert sorted(analysed) == sorted(Path(name).name for name in GOOD_SOUNDS)
    assert set(contents(tmp_path / "lib")) == {str(good_folder / name) for name in GOOD_SOUNDS}
    (good_folder / "nested" / "noise.flac").unlink()
    shutil.copy(good_folder / "tone.wav", good_folder / "nested" / "deep" / "new.wav")
    assert counts(aus.index(good_folder, tmp_path / "lib")) == {
        "added": 1,
        "removed": 1,
        "unchanged": GOOD - 1,
    }
    shutil.copy(good_folder / "click.wav", good_folder / "nested" / "deep" / "new.wav")
    assert counts(aus.index(good_folder / "nested", tmp_path / "lib")) == {
        "updated": 1,
        "unchanged": 1,
    }
    assert len(contents(tmp_path / "lib")) == GOOD


def test_a_neighbour_whose_name_begins_alike_is_another_folder(
    tmp_path: Path, analysed: list[str]
) -> None:
    write_sounds(tmp_path / "a", 1, seconds=1)
    write_sounds(tmp_path / "ab", 1, seconds=1)
    aus.index([tmp_path / "a", tmp_path / "ab"], tmp_path / "lib")
    (tmp_path / "a" / "000.wav").rename(tmp_path / "a" / "001.wav")
    assert counts(aus.index(tmp_path / "a", tmp_path / "lib")) == {"added": 1, "removed": 1}
    assert set(contents(tmp_path / "lib")) == {
        str(tmp_path / "a" / "001.wav"),
        str(tmp_path / "ab" / "000.wav"),
    }


# again


def test_only_what_is_new_or_changed_is_done_again(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    library = tmp_path / "lib"
    aus.index(good_folder, library)
    analysed.clear()
    assert counts(aus.index(good_folder, library)) == {"unchanged": GOOD}
    assert analysed == []
    # Another size, another time, a new file, one that is gone.
    shutil.copy(good_folder / "click.wav", good_folder / "tone.wav")
    os.utime(good_folder / "silence.wav", ns=(1, 1))
    soundfile.write(good_folder / "nested" / "new.wav", np.zeros(4000), 16000)
    (good_folder / "nested" / "noise.flac").unlink()
    before = contents(library)
    assert counts(aus.index(good_folder, library)) == {
        "added": 1,
        "updated": 2,
        "unchanged": GOOD - 3,
        "removed": 1,
    }
    assert analysed == ["new.wav", "silence.wav", "tone.wav"]
    after = contents(library)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed == {str(good_folder / "tone.wav")}
    with aus.open_library(library) as opened:
        assert opened.info().recordings == GOOD
        assert opened.info().clips == GOOD


def test_what_is_gone_is_kept_where_asked(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    aus.index(good_folder, tmp_path / "lib")
    (good_folder / "tone.wav").unlink()
    kept = aus.index(good_folder, tmp_path / "lib", keep_missing=True)
    assert counts(kept) == {"unchanged": GOOD - 1}
    assert "tone.wav" in names(tmp_path / "lib")
    assert counts(aus.index(good_folder, tmp_path / "lib")) == {
        "unchanged": GOOD - 1,
        "removed": 1,
    }
    assert "tone.wav" not in names(tmp_path / "lib")


def test_indexing_one_folder_leaves_another_alone(tmp_path: Path, analysed: list[str]) -> None:
    write_sounds(tmp_path / "one", 2, seconds=1)
    write_sounds(tmp_path / "two", 2, seconds=1)
    aus.index([tmp_path / "one", tmp_path / "two"], tmp_path / "lib")
    shutil.rmtree(tmp_path / "two")
    assert counts(aus.index(tmp_path / "one", tmp_path / "lib")) == {"unchanged": 2}
    assert len(contents(tmp_path / "lib")) == 4


def test_skipped_files_are_tried_again_when_they_change_or_on_request(
    sound_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    library = tmp_path / "lib"
    first = aus.index(sound_folder, library)
    analysed.clear()
    again = aus.index(sound_folder, library)
    assert counts(again) == {"unchanged": GOOD, "skipped": BAD}
    assert sorted(again.skipped, key=str) == sorted(first.skipped, key=str)
    assert analysed == []
    assert counts(aus.index(sound_folder, library, retry_skipped=True)) == counts(again)
    assert sorted(analysed) == sorted(Path(name).name for name in BAD_SOUNDS)
    analysed.clear()
    shutil.copy(sound_folder / "tone.wav", sound_folder / "broken.wav")
    assert counts(aus.index(sound_folder, library)) == {
        "added": 1,
        "unchanged": GOOD,
        "skipped": BAD - 1,
    }
    assert analysed == ["broken.wav"]
    (sound_folder / "empty.wav").unlink()
    aus.index(sound_folder, library)
    with aus.open_library(library) as opened:
        assert [Path(s.path).name for s in opened.skipped()] == ["no_samples.wav"]
        assert opened.info().skipped == 1


def test_a_sound_that_broke_is_no_longer_found(
    good_folder: Path, tmp_path: Path, analysed: list[str]
) -> None:
    aus.index(good_folder, tmp_path / "lib")
    (good_folder / "tone.wav").write_bytes(b"overwritten")
    assert counts(aus.index(good_folder, tmp_path / "lib")) == {
        "unchanged": GOOD - 1,
        "skipped": 1,
    }
    assert "tone.wav" not in names(tmp_path / "lib")


# packed files


def test_rows_of_a_packed_file_keep_their_number(packed_h5: Path, tmp_path: Path) -> None:
    summary = aus.index(packed_h5, tmp_path / "lib")
    assert counts(summary) == {"added": 40}
    assert summary.seconds == 400
    with aus.open_library(tmp_path / "lib") as library:
        for row in range(40):
            clip = library.clip(row)
            assert clip.recording == f"clip-{row:06d}"
            tagged = aus.tag_packed(packed_h5, row)
            assert clip.labels == tagged.labels
            expected = rescored(packed_h5, row)
            assert [tag.score for tag in clip.tags] == pytest.approx(
                np.sort(expected)[: -len(clip.tags) - 1 : -1].tolist(), abs=0.008
            )
            for tag in clip.tags:
                assert tag.score == pytest.approx(
                    expected[load_labels().by_name(tag.label).index], abs=0.008
                )
            assert (clip.start, clip.end) == (tagged.start, tagged.end)
        assert library.audio_path(library.clip(3).recording_id) is None
    assert counts(aus.index(packed_h5, tmp_path / "lib")) == {"unchanged": 40}


def test_a_packed_file_without_labels_and_times(tmp_path: Path) -> None:
    write_packed(tmp_path / "bare.h5", clips=3, extras=False, labels=False)
    aus.index(tmp_path / "bare.h5", tmp_path / "lib")
    with aus.open_library(tmp_path / "lib") as library:
        clip = library.clip(2)
        assert (clip.start, clip.end, clip.labels) == (0.0, 10.0, None)


def test_a_changed_packed_file_is_replaced(tmp_path: Path) -> None:
    path = write_packed(tmp_path / "a.h5", clips=30, seed=1)
    write_packed(tmp_path / "b.h5", clips=5, seed=9)
    aus.index([path, tmp_path / "b.h5"], tmp_path / "lib")
    write_packed(path, clips=34, seed=2)
    assert counts(aus.index(path, tmp_path / "lib")) == {"updated": 30, "added": 4}
    write_packed(path, clips=10, seed=3)
    assert counts(aus.index(path, tmp_path / "lib")) == {"updated": 10, "removed": 24}
    with aus.open_library(tmp_path / "lib") as library:
        assert library.info().recordings == 15
        ids = library.catalogue.recordings(range(1, 200))
        rows = sorted((r.packed_row, r.name) for r in ids.values())
    fresh = [(row, f"clip-{row:06d}") for row in range(10)]
    assert rows == sorted(fresh + fresh[:5])
