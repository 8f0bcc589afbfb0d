"""Searching by a sound: its waveform, parts of it, clips by reference, and keeping one for good."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from flask.testing import FlaskClient

import audiosearch as aus
from audiosearch.errors import LibraryError, StorageError
from audiosearch.jobs.peaks import PeaksOf
from audiosearch.library.additions import add_sound, added_folder
from audiosearch.server import create_app
from audiosearch.server.state import state_of


@pytest.fixture
def library(library_folder: Path) -> Iterator[aus.Library]:
    with aus.open_library(library_folder) as opened:
        yield opened


@pytest.fixture
def client(library: aus.Library) -> Iterator[FlaskClient]:
    app = create_app(library)
    yield app.test_client()
    state_of(app).close()


def sound(seconds: float = 4.0, *, loud_from: float = 2.0, rate: int = 16_000) -> bytes:
    """A WAV file: quiet, then loud noise."""
    noise = np.random.default_rng(6).normal(0, 0.2, round(seconds * rate))
    noise[: round(loud_from * rate)] *= 0.05
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="WAV")
    return file.getvalue()


def sent(data: bytes, name: str = "my sound.wav", **fields: str) -> dict[str, object]:
    return {"file": (io.BytesIO(data), name), **fields}


def test_the_page_has_everything_without_scripts(client: FlaskClient, library: aus.Library) -> None:
    page = client.get("/example").text
    assert str(added_folder(library)) in page
    assert page.count("<h1") == 1
    form = page[
        page.index('id="by-example"') : page.index("</form>", page.index('id="by-example"'))
    ]
    for name in ("file", "from", "to", "add", "csrf_token"):
        assert f'name="{name}"' in form
    assert 'formaction="/examples/add"' in form
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)


@pytest.mark.parametrize(
    "given",
    ["7", "clip:7", "/clip/7", "http://127.0.0.1:8000/clip/7?at=3#view", "/similar/7?q=dog"],
)
def test_a_clip_is_pasted_by_number_or_address(client: FlaskClient, given: str) -> None:
    answer = client.get("/example", query_string={"clip": given, "from": "1", "to": "2.5"})
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/similar/7?from=1&to=2.5"


@pytest.mark.parametrize("given", ["cat", "clip:", "https://example.org/", "7 8"])
def test_what_is_no_clip_is_refused(client: FlaskClient, given: str) -> None:
    answer = client.get("/example", query_string={"clip": given})
    assert answer.status_code == 400
    assert "clip:123" in answer.text


def test_peaks_follow_the_sound(client: FlaskClient) -> None:
    answer = client.post("/examples/peaks.json", data=sent(sound()))
    assert answer.status_code == 200
    peaks = answer.json["peaks"]
    assert answer.json["duration"] == pytest.approx(4.0, abs=0.01)
    assert max(peaks) == 1
    assert max(peaks[: len(peaks) // 2 - 2]) < 0.15
    assert min(peaks[len(peaks) // 2 + 2 : -2]) > 0.3
    broken = client.post("/examples/peaks.json", data=sent(b"no sound" * 100, "bad.wav"))
    assert broken.status_code == 422
    assert "bad.wav" in broken.json["error"]
    assert client.post("/examples/peaks.json").status_code == 400


def test_peaks_of_a_long_sound_are_few(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.full(16_000 * 120, 0.25, np.float32), 16_000)
    found = PeaksOf(str(path), longest=1000, count=300).perform()
    assert found.duration == pytest.approx(120, abs=0.05)
    assert len(found.values) == 300
    assert found.values == pytest.approx(1)
    cut = PeaksOf(str(path), longest=30, count=300).perform()
    assert 30 <= cut.duration <= 45


def test_only_a_part_is_searched_by(client: FlaskClient) -> None:
    def nearest(**part: str) -> list[tuple[int, float]]:
        answer = client.post("/examples.json", data=sent(sound(), **part))
        assert answer.status_code == 200
        return [(hit["clip"], hit["score"]) for hit in answer.json["hits"]]

    assert nearest() != nearest(**{"from": "2", "to": "3.5"})
    answer = client.post("/examples", data=sent(sound(), **{"from": "3", "to": "9"}))
    assert answer.status_code == 400
    assert "does not lie in it" in answer.text


def test_nothing_that_was_sent_is_kept(client: FlaskClient, library: aus.Library) -> None:
    before = library.info().recordings
    client.post("/examples/peaks.json", data=sent(sound()))
    client.post("/examples.json", data=sent(sound()))
    assert library.info().recordings == before
    assert not added_folder(library).exists()


def test_a_sound_is_added_for_good(client: FlaskClient, library: aus.Library) -> None:
    before = library.info().recordings
    data = sound()
    answer = client.post("/examples/add.json", data=sent(data))
    assert answer.status_code == 201
    path = added_folder(library) / "my sound.wav"
    assert answer.json["recording"] == str(path)
    assert path.read_bytes() == data
    assert library.info().recordings == before + 1
    hits = client.get("/search.json", query_string={"q": 'path:"my sound"'}).json["hits"]
    assert [hit["clip"] for hit in hits] == [answer.json["clip"]]
    # The same name again gets a number; without scripts the answer leads to the clip.
    answer = client.post("/examples/add", data=sent(sound(2.0)))
    assert answer.status_code == 303
    page = client.get(answer.headers["Location"]).text
    assert "my sound 2.wav" in page


def test_what_is_no_sound_is_not_added(client: FlaskClient, library: aus.Library) -> None:
    before = library.info()
    answer = client.post("/examples/add", data=sent(b"no sound" * 100, "bad.wav"))
    assert answer.status_code == 422
    assert "bad.wav" in answer.text
    assert library.info().recordings == before.recordings
    assert not (added_folder(library) / "bad.wav").exists()


def test_a_name_cannot_leave_the_folder(library: aus.Library, tmp_path: Path) -> None:
    source = tmp_path / "sound.wav"
    source.write_bytes(sound(1.5))
    clip = add_sound(library, source, name="../../..\\evil<>\n.wav")
    assert Path(clip.recording) == added_folder(library) / "evil.wav"
    assert source.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("狗" * 200 + ".wav", "狗" * 50 + ".wav"), ("a.h5", "a.wav"), ("dog", "dog.wav")],
)
def test_any_name_becomes_that_of_a_sound_file(
    library: aus.Library, tmp_path: Path, name: str, expected: str
) -> None:
    source = tmp_path / "upload.wav"
    source.write_bytes(sound(1.5))
    clip = add_sound(library, source, name=name)
    assert Path(clip.recording) == added_folder(library) / expected


def test_what_was_indexed_before_something_failed_keeps_its_file(
    library: aus.Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("The disk is full.")

    source = tmp_path / "late.wav"
    source.write_bytes(sound(1.5))
    monkeypatch.setattr("audiosearch.library.indexing.tidy", full)
    with pytest.raises(StorageError):
        add_sound(library, source, name="late.wav")
    assert [hit.recording for hit in library.search("path:late").hits] == [
        str(added_folder(library) / "late.wav")
    ]
    assert (added_folder(library) / "late.wav").exists()


def test_the_shipped_library_takes_no_sounds(tmp_path: Path) -> None:
    source = tmp_path / "sound.wav"
    source.write_bytes(sound(1.5))
    with aus.open_library(aus.shipped_library()) as library:
        with pytest.raises(LibraryError, match="takes no sounds"):
            add_sound(library, source, name="sound.wav")
        client = create_app(library).test_client()
        page = client.get("/example").text
        assert 'name="add"' not in page
        assert "takes no sounds" in page
        answer = client.post("/examples/add.json", data=sent(sound(1.5)))
        assert answer.status_code == 403
        assert "takes no sounds" in answer.json["error"]


def test_another_site_cannot_add(client: FlaskClient, library: aus.Library) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-origin"}):
        answer = client.post("/examples/add", data=sent(sound(1.5)), headers=headers)
        assert answer.status_code == 403
    assert not added_folder(library).exists()


@pytest.mark.parametrize("field", ["also", "unlike"])
def test_an_example_that_names_no_clip_is_not_found(client: FlaskClient, field: str) -> None:
    answer = client.post("/examples", data=sent(sound(1.5)) | {field: "999999"})
    assert answer.status_code == 404
    assert "999999" in answer.text
