"""Batch tagging as a job: resume, kill -9, what bad files cost, extras, the command."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import BAD_SOUNDS, GOOD_SOUNDS, Outcome

from audiosearch import audio
from audiosearch.errors import InvalidArgumentError, JobError
from audiosearch.tagging import TagRules, tag_batch
from audiosearch.tagging.file_tags import FileTags, with_classes
from audiosearch.tagging.formats import FORMATS

Invoke = Callable[..., Outcome]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_a_folder_into_a_csv_and_again(invoke: Invoke, sound_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tags.csv"
    done = invoke("tag", sound_folder, "--out", out, "--top", 2)
    assert done.code == 3
    assert done.out.splitlines()[0] == f"{out}: 5 of 8 files tagged, 3 skipped."
    rows = table(out)
    assert list(rows[0]) == ["path", "start", "end", "rank", "label", "mid", "score"]
    paths = list(dict.fromkeys(row["path"] for row in rows))
    assert sorted(paths) == sorted(str(sound_folder / name) for name in GOOD_SOUNDS)
    assert paths == sorted(paths, key=lambda path: Path(path).parts)
    errors = table(tmp_path / "tags.errors.csv")
    assert {row["path"] for row in errors} == {str(sound_folder / name) for name in BAD_SOUNDS}
    assert all(row["reason"] for row in errors)
    for name in BAD_SOUNDS:
        assert done.err.count(name) == 1, "each skipped file is named once"
    # Again: nothing to do, the same bytes; then one more file, in the middle.
    before = out.read_bytes()
    again = invoke("tag", sound_folder, "--out", out, "--top", 2, "--progress", "json")
    assert (again.code, out.read_bytes()) == (3, before)
    first = json.loads(again.err.splitlines()[0])
    assert (first["done"], first["earlier"], first["seconds"]) == (8, 8, 0)
    shutil.copy(sound_folder / "tone.wav", sound_folder / "nested" / "more.wav")
    (sound_folder / "broken.wav").unlink()
    more = invoke("tag", sound_folder, "--out", out, "--top", 2, "--progress", "json")
    last = json.loads([line for line in more.err.splitlines() if line[0] == "{"][-1])
    assert (last["done"], last["earlier"], last["seconds"]) == (8, 7, 2.0)
    fresh = tmp_path / "fresh.csv"
    invoke("tag", sound_folder, "--out", fresh, "--top", 2, "--quiet")
    assert out.read_bytes() == fresh.read_bytes()


def test_exit_codes_without_a_file_done(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"no sound")
    done = invoke("tag", tmp_path / "in", "--out", tmp_path / "a.csv")
    assert done.code == 1
    assert (tmp_path / "a.csv").read_text() == "path,start,end,rank,label,mid,score\n"
    assert len(table(tmp_path / "a.errors.csv")) == 1


def test_what_is_missing_was_not_done_earlier(
    invoke: Invoke, good_folder: Path, tmp_path: Path
) -> None:
    (good_folder / "dead.wav").symlink_to(tmp_path / "nowhere.wav")
    out = tmp_path / "a.csv"
    for earlier in (0, len(GOOD_SOUNDS)):
        done = invoke("tag", good_folder, "--out", out, "--json", "--progress", "json")
        facts = json.loads(done.out)
        assert (facts["earlier"], facts["tagged"]) == (earlier, len(GOOD_SOUNDS))
        lines = [json.loads(line) for line in done.err.splitlines() if line[0] == "{"]
        assert {line["earlier"] for line in lines} == {earlier}
        last = lines[-1]
        assert (last["done"], last["total"], last["skipped"]) == (facts["files"],) * 2 + (1,)


def test_only_settings_that_change_results_count(
    invoke: Invoke, good_folder: Path, tmp_path: Path
) -> None:
    out, number = tmp_path / "a.csv", len(GOOD_SOUNDS)
    invoke("tag", good_folder, "--out", out)
    same = ("--workers", 1, "--time-limit", 99, "--memory-limit", 999, "--format", "jsonl")
    for options, redone in ((same, 0), (("--top", 3), number), (("--hop", 4.8), number)):
        done = invoke("tag", good_folder, "--out", out, *options, "--json", "--quiet")
        facts = json.loads(done.out)
        assert (facts["redone"], facts["earlier"]) == (redone, number - redone)
    done = invoke("tag", good_folder, "--out", out)
    assert f"{number} files done again, with other settings than before." in done.out


def test_options_of_a_job_need_a_file_to_write(invoke: Invoke, good_folder: Path) -> None:
    done = invoke("tag", good_folder, "--restart")
    assert done.code == 2
    assert "--restart needs --out" in done.err


def test_the_choices_are_the_formats(invoke: Invoke) -> None:
    assert f"[{'|'.join(FORMATS)}]" in "".join(invoke("tag", "--help").out.split())


def test_a_decoder_that_crashes_or_eats_memory_costs_one_file(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, time\n"
        "from audiosearch import audio\n"
        "original = audio.stream\n"
        "def stream(path, **options):\n"
        "    name = os.path.basename(path)\n"
        "    if name == 'tone.wav':\n"
        "        os.abort()\n"
        "    if name == 'noise.flac':\n"
        "        eaten = bytearray(900 << 20)\n"
        "    if name == 'click.wav':\n"
        "        time.sleep(60)\n"
        "    return original(path, **options)\n"
        "audio.stream = stream\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    out = tmp_path / "tags.csv"
    summary = tag_batch(good_folder, out, workers=1, time_limit=20, memory_limit=500)
    assert (summary.tagged, summary.skipped) == (2, 3)
    reasons = {Path(path).name: reason for path, reason in summary.first_skipped}
    assert reasons["tone.wav"] == "Its decoder crashed (SIGABRT)."
    assert reasons["noise.flac"] == "It needs more memory than 500 MB, the memory limit a file."
    assert "20 s, the time limit" in reasons["click.wav"]
    monkeypatch.undo()
    summary = tag_batch(good_folder, out, workers=1)
    assert (summary.tagged, summary.seconds) == (2, 0), "not tried again by itself"
    summary = tag_batch(good_folder, out, workers=1, retry_errors=True)
    assert (summary.tagged, summary.skipped, summary.errors) == (5, 0, None)
    assert not (tmp_path / "tags.errors.csv").exists()


def start(folder: Path, out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the command; what it says of its progress goes to a file beside the output."""
    command = [sys.executable, "-m", "audiosearch", "tag", folder, "--out", out, "--per", "clip"]
    with out.with_suffix(".progress").open("wb") as said:
        return subprocess.Popen(
            [*command, "--progress", "json"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def progress_of(out: Path) -> list[dict[str, float]]:
    # The last line may not be complete.
    lines = out.with_suffix(".progress").read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def make_many(source: Path, folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        shutil.copy(source / "tone.wav", folder / f"{number:03}.wav")
    shutil.copy(source / "nested" / "noise.flac", folder / "0.flac")
    shutil.copy(source / "broken.wav", folder / "100.wav")


@pytest.mark.parametrize("kills", [int(os.environ.get("AUDIOSEARCH_TEST_KILLS", "3"))])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_kill_9_at_random_moments(
    ending: str,
    kills: int,
    sound_master: Path,
    tmp_path: Path,
    command_environment: dict[str, str],
) -> None:
    """Set AUDIOSEARCH_TEST_KILLS for more of them."""
    folder = tmp_path / "in"
    make_many(sound_master, folder, 150)
    whole, parts = tmp_path / f"whole.{ending}", tmp_path / f"parts.{ending}"
    assert start(folder, whole, command_environment).wait(timeout=500) == 3
    chance, done = random.Random(6), 0
    for _ in range(kills):
        job = start(folder, parts, command_environment)
        goal = chance.randint(done, 151)
        while job.poll() is None and all(said["done"] < goal for said in progress_of(parts)):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.4))
        job.send_signal(signal.SIGKILL)
        job.wait()
        run = progress_of(parts)
        assert all(said["earlier"] >= done for said in run), "what was done is not done again"
        done = max([done, *(int(said["done"]) for said in run)])
    job = start(folder, parts, command_environment)
    assert job.wait(timeout=500) == 3
    assert parts.read_bytes() == whole.read_bytes()
    assert (tmp_path / "parts.errors.csv").read_bytes() == (
        tmp_path / "whole.errors.csv"
    ).read_bytes()
    assert done, "no kill came after the first files"


def test_ctrl_c_keeps_what_was_done(
    sound_master: Path, tmp_path: Path, command_environment: dict[str, str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "tags.jsonl"
    make_many(sound_master, folder, 120)
    job = start(folder, out, command_environment)
    deadline = time.monotonic() + 120
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    # Python ends itself by the signal where that came amid an import; a shell shows 130 too.
    assert job.wait(timeout=60) in (130, -signal.SIGINT)
    kept = out.read_bytes().splitlines()
    assert len(kept) > 0
    assert start(folder, out, command_environment).wait(timeout=500) == 3
    assert out.read_bytes().splitlines()[: len(kept)] == kept


# extras


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    if path.suffix == ".m4a":
        import av

        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=16000, layout="mono")
            time_ = np.arange(int(16000 * seconds)) / 16000
            tone = (0.3 * np.sin(2 * np.pi * 440 * time_)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate = 16000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                file.mux(packet)
        return path
    import soundfile

    time_ = np.arange(int(48000 * seconds)) / 48000
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    with soundfile.SoundFile(path, "w", 48000, 1, **options) as file:
        file.comment = "a field recording"
        for first in range(0, len(time_), 8192):
            file.write(0.3 * np.sin(2 * np.pi * 440 * time_[first : first + 8192]))
    return path


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg", "opus", "m4a"])
def test_tags_in_files_leave_the_sound_as_it_is(tmp_path: Path, ending: str) -> None:
    import av

    path = write_sound(tmp_path / f"tone.{ending}")
    before = audio.load(path)
    chore = FileTags(str(path), ("Dog", "Bark"))
    size, mtime = chore.perform()
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, mtime)
    assert np.array_equal(audio.load(path), before)
    assert chore.perform() == (size, mtime), "the same tags again leave the file alone"
    FileTags(str(path), ("Siren",)).perform()
    assert np.array_equal(audio.load(path), before)
    with av.open(str(path)) as file:
        texts = {**file.metadata, **file.streams.audio[0].metadata}
    (comment,) = [text for name, text in texts.items() if name.lower() == "comment"]
    kept = "" if ending == "m4a" else "a field recording "
    assert comment == f"{kept}[audiosearch: Siren]"
    assert sorted(tmp_path.iterdir()) == [path]


def test_chunks_of_a_wav_stay(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav")
    whole = path.read_bytes()
    cue = b"cue \x05\0\0\0abcde\0"
    size = len(whole) - 8 + len(cue)
    path.write_bytes(whole[:4] + size.to_bytes(4, "little") + whole[8:] + cue)
    FileTags(str(path), ("Dog",)).perform()
    after = path.read_bytes()
    assert cue in after
    data = whole.index(b"data")
    length = 8 + int.from_bytes(whole[data + 4 : data + 8], "little")
    assert whole[data : data + length] in after
    assert int.from_bytes(after[4:8], "little") == len(after) - 8


def test_a_file_that_cannot_carry_tags_is_left_alone(tmp_path: Path) -> None:
    from audiosearch.errors import AudioDecodeError

    path = tmp_path / "cut.wav"
    path.write_bytes(write_sound(tmp_path / "a.wav").read_bytes()[:5000])
    before = path.read_bytes()
    with pytest.raises(AudioDecodeError, match="not touched"):
        FileTags(str(path), ("Dog",)).perform()
    assert path.read_bytes() == before


def test_comments_keep_their_text() -> None:
    assert with_classes("", ("Dog",)) == "[audiosearch: Dog]"
    assert with_classes("mine [audiosearch: A; B]", ("Dog", "Bark")) == (
        "mine [audiosearch: Dog; Bark]"
    )


def test_extras_are_done_once_and_the_files_count_as_done(
    good_folder: Path, tmp_path: Path
) -> None:
    out, cut = tmp_path / "tags.jsonl", tmp_path / "cut"
    options = {"rules": TagRules(per="clip", top=1), "workers": 1}
    summary = tag_batch(good_folder, out, write_tags=True, sidecars=True, cut=cut, **options)
    assert summary.skipped == 0
    marks = {path: path.stat().st_mtime_ns for path in good_folder.rglob("*.*")}
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    sidecar = json.loads((good_folder / "tone.wav.json").read_text(encoding="utf-8"))
    tone = next(row for row in rows if row["path"].endswith("tone.wav"))
    assert sidecar["path"] == "tone.wav"
    assert sidecar["rows"] == [{key: tone[key] for key in ("start", "end", "tags")}]
    pieces = list(cut.rglob("*.wav"))
    assert len(pieces) == len(rows)
    (piece,) = (path for path in pieces if path.name.startswith("tone.wav-"))
    assert piece.parent.name == tone["tags"][0]["label"].replace("/", "_")
    assert np.array_equal(audio.load(piece), audio.load(good_folder / "tone.wav"))
    again = tag_batch(good_folder, out, write_tags=True, sidecars=True, cut=cut, **options)
    assert again.seconds == 0
    assert {path: path.stat().st_mtime_ns for path in good_folder.rglob("*.*")} == marks


def test_parts_of_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    write_sound(tmp_path / "tone.wav")
    folder = tmp_path / "in"
    folder.mkdir()
    os.rename(tmp_path / "tone.wav", os.path.join(os.fsencode(folder), b"\xff.wav"))  # noqa: PTH104, PTH118
    rules, cut = TagRules(per="clip", top=1), tmp_path / "cut"
    assert tag_batch(folder, tmp_path / "tags.csv", rules=rules, cut=cut).skipped == 0
    (piece,) = cut.rglob("*.wav")
    assert os.fsencode(piece.name).startswith(b"\xff.wav-")


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_the_same_cut_is_the_same_file(tmp_path: Path, subtype: str) -> None:
    import soundfile

    from audiosearch.tagging.cuts import Cuts

    path, cuts = tmp_path / "a.wav", []
    tone = 0.3 * np.sin(np.arange(8000) / 5)
    soundfile.write(path, tone, 8000, subtype=subtype)
    # A part that reaches beyond the end, as those of files whose headers promise more do.
    for folder in ("one", "two"):
        Cuts(str(path), str(tmp_path / folder), ((0.5, 9.0, "Dog"),)).perform()
        (cut,) = (tmp_path / folder / "Dog").iterdir()
        cuts.append(cut.read_bytes())
        time.sleep(1.1)  # libsndfile notes the second
    assert cuts[0] == cuts[1]
    assert np.abs(soundfile.read(cut)[0] - tone[4000:]).max() < 1e-4


def test_cuts_of_a_file_in_which_libsndfile_cannot_seek(tmp_path: Path) -> None:
    import soundfile

    path, cut = tmp_path / "gsm.wav", tmp_path / "cut"
    time_ = np.arange(12 * 8000) / 8000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time_), 8000, subtype="GSM610")
    rules = TagRules(per="clip", top=1)
    assert tag_batch(path, tmp_path / "tags.csv", rules=rules, cut=cut).skipped == 0
    lengths = sorted(round(soundfile.info(piece).duration, 1) for piece in cut.rglob("*.wav"))
    assert lengths == [2.4, 9.6]


def test_what_cannot_be_is_refused(good_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="ending"):
        tag_batch(good_folder, tmp_path / "tags.doc")
    with pytest.raises(InvalidArgumentError, match="per clip or per segment"):
        tag_batch(good_folder, tmp_path / "tags.csv", cut=tmp_path / "cut")
    rules = TagRules(per="clip")
    with pytest.raises(InvalidArgumentError, match="next run would tag"):
        tag_batch(good_folder, tmp_path / "tags.csv", rules=rules, cut=good_folder / "cut")
    with pytest.raises(JobError, match="is a folder"):
        tag_batch(good_folder, good_folder, format="csv")
    assert not list(tmp_path.glob("*.journal"))


@pytest.mark.data
def test_every_odd_file_is_tagged_or_listed(data_dir: Path, tmp_path: Path) -> None:
    odd = data_dir / "odd"
    index = table(odd / "INDEX.csv")
    out = tmp_path / "tags.csv"
    tag_batch([str(odd / row["file"]) for row in index], out)
    tagged = {Path(row["path"]).name for row in table(out)}
    listed = {Path(row["path"]).name for row in table(tmp_path / "tags.errors.csv")}
    assert tagged | listed == {row["file"] for row in index}
    assert not tagged & listed
    sane = {
        row["file"]
        for row in index
        if (row["libsndfile_decodes"] == "yes" and row["frames"] not in ("", "0"))
        or "ffmpeg-ok" in row["tags"]
        or "valid-opus" in row["tags"]
    }
    # Music modules need libopenmpt, which PyAV's FFmpeg is built without.
    modules = {name for name in sane if name.endswith((".mod", ".xm"))}
    assert modules <= listed
    sane -= modules
    assert len(sane) > 165
    assert sane <= tagged
