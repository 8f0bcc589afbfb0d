"""What the search page and the clip's page offer beside hits: orders, facets, pictures, time."""

from __future__ import annotations

import gzip
import html
import io
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from flask.testing import FlaskClient
from library_fixtures import make_library
from PIL import Image
from server_fixtures import ScriptedLibrary, make_own_library, sound, video
from werkzeug.test import TestResponse

import audiosearch
from audiosearch.library.library import Library
from audiosearch.picture_cache import PICTURES_VARIABLE, PictureCache
from audiosearch.server import create_app


@pytest.fixture(autouse=True)
def _pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PICTURES_VARIABLE, str(tmp_path / "pictures"))


@pytest.fixture
def library(tmp_path: Path) -> ScriptedLibrary:
    """45 hits: videos, a file of 25 seconds, one of 300, and one that is gone."""
    files = {2: tmp_path / "long.wav", 3: tmp_path / "hour.flac", 4: tmp_path / "gone.wav"}
    noise = np.random.default_rng(1).normal(0, 0.1, 8000 * 300)
    soundfile.write(files[2], noise[: 8000 * 25], 8000)
    soundfile.write(files[3], noise, 8000)
    hits = [video(n, score=1 - n / 100) for n in range(1, 46)]
    for number in (2, 3, 4):
        hits[number - 1] = sound(number, str(files[number]))
    return ScriptedLibrary(hits, files, {2: 25.0, 3: 300.0, 4: 25.0})


@pytest.fixture
def client(library: ScriptedLibrary) -> FlaskClient:
    return create_app(library).test_client()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = make_own_library(tmp_path_factory.mktemp("own"))
    with audiosearch.open_library(folder / "library") as library:
        yield library


def links(page: str) -> list[str]:
    return [html.unescape(url) for url in re.findall(r'<a\b[^>]*?href="([^"]*)"', page)]


def dense(seed: int) -> np.ndarray:
    """Sound that fills a spectrogram with detail: notes of noise, on and off in every band."""
    random = np.random.default_rng(seed)
    spectra = random.normal(size=(420, 257)) + 1j * random.normal(size=(420, 257))
    spectra *= random.choice([0.003, 0.03, 0.3, 1.0], (420, 257))
    samples = np.fft.irfft(spectra, axis=1).reshape(-1)
    return 0.5 * samples / np.abs(samples).max()


def test_a_page_of_twenty_strips_is_small(tmp_path: Path) -> None:
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", dense(number), 16_000)
    codes = np.random.default_rng(4).integers(120, 250, (20, 527)).astype(np.uint8)
    make_library(tmp_path / "library", [1] * 20, codes, root=str(tmp_path))
    with Library(tmp_path / "library") as library:
        client = create_app(library).test_client()

        def sent(url: str) -> bytes:
            answer = client.get(url, headers={"Accept-Encoding": "gzip"})
            assert answer.status_code == 200
            return answer.data

        page = sent("/?q=Speech")
        text = gzip.decompress(page).decode()
        parts = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', text))
        strips = re.findall(r'src="(/clips/\d+/strip.png)"', text)
        assert len(strips) == 20
        drawn = [sent(url) for url in strips]
        assert len(set(drawn)) == 20
        assert all(each.startswith(b"\x89PNG") for each in drawn)
        assert len(page) + sum(len(sent(url)) for url in parts) + sum(map(len, drawn)) < 150_000


def test_a_sound_that_is_elsewhere_is_drawn_as_the_scores_of_what_matched(
    own: Library, library_folder: Path
) -> None:
    client = create_app(own).test_client()
    hit = next(hit for hit in own.search("label:Music").hits if hit.source == "audioset")
    page = client.get("/?q=label:Music&limit=100").text
    (shown,) = re.findall(rf'src="(/clips/{hit.clip}/scores.png\?label=/m/04rlf)"', page)
    assert "<figcaption>Music: score over time</figcaption>" in page
    # The bars are as high as the API says that the scores are.
    answer = client.get(shown)
    assert (answer.status_code, answer.mimetype) == (200, "image/png")
    image = np.asarray(Image.open(io.BytesIO(answer.data)).convert("L")).astype(int)
    assert image.shape == (24, 320)
    lit = image > image.min()
    said = own.timeline(hit.clip, start=hit.start, end=hit.end, top=527)
    (curve,) = [each for each in said.curves if each.mid == "/m/04rlf"]
    for number, score in enumerate(curve.scores):
        column = round((number + 0.5) * 320 / len(curve.scores))
        assert lit[:, column].sum() == round(24 * score)
    # What cannot be drawn is not drawn, and not promised where the frames are not at hand.
    assert client.get(f"/clips/{hit.clip}/scores.png?label=Musik").status_code == 404
    assert client.get("/clips/999999/scores.png?label=/m/04rlf").status_code == 404
    with audiosearch.open_library(audiosearch.shipped_library()) as shipped:
        assert "scores.png" not in create_app(shipped).test_client().get("/?q=Music").text


def test_what_to_type_is_shown_as_code_and_the_rest_as_text() -> None:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        page = create_app(library).test_client().get("/?q=<b>dogg</b>").text
    assert "<code>audiosearch classes</code>" in page
    assert "`" not in page
    assert "<b>dogg" not in page


# --- Search -----------------------------------------------------------------------------------


def test_facets_are_links_that_narrow_the_query(client: FlaskClient) -> None:
    page = client.get("/?q=Car&order=path&view=grid").text
    found = links(page)
    assert "/?q=Car+label:%22Speech%22&order=path&view=grid" in [
        url.replace("%3A", ":") for url in found
    ]
    assert "&lt;b&gt;Speech&lt;/b&gt;" in page
    assert "<b>Speech" not in page
    assert re.search(r'holiday</span> <span class="n">3<', page)
    assert re.search(r"<h2[^>]*>Year<", page) is None


def test_every_choice_keeps_the_others(client: FlaskClient) -> None:
    page = client.get("/?q=Car&order=path&view=grid&fold=1&limit=5&offset=10").text
    found = links(page)
    assert "/?q=Car&view=grid&fold=1&limit=5" in found  # best first
    assert "/?q=Car&order=path&fold=1&limit=5&offset=10" in found  # as a list, the same hits
    assert "/?q=Car&order=path&view=grid&limit=5" in found  # every copy
    assert "/?q=Car&order=path&view=grid&fold=1&limit=5&offset=15" in found  # next
    assert "/?q=Car&order=path&view=grid&fold=1&limit=5&offset=5" in found  # previous
    assert page.count('aria-current="true"') == 2
    assert '<ol class="hits grid" start="11">' in page


def test_twin_is_of_the_same_state(client: FlaskClient, library: ScriptedLibrary) -> None:
    page = client.get("/?q=Car&order=path&limit=3&offset=3").text
    (twin,) = re.findall(r'type="application/json" href="([^"]*)"', page)
    found = client.get(html.unescape(twin)).json
    assert found == library.search("Car", order="path", limit=3, offset=3).to_dict()
    with_facets = client.get(html.unescape(twin) + "&facets=1").json
    assert with_facets.pop("facets") == library.facets("Car").to_dict()
    assert with_facets == found


@pytest.mark.parametrize("wrong", ["order=loudest", "view=wall", "fold=2"])
def test_state_that_cannot_be_is_refused(client: FlaskClient, wrong: str) -> None:
    name = wrong.split("=")[0]
    for path in ("/", "/search.json"):
        response = client.get(f"{path}?q=Car&{wrong}")
        assert response.status_code == 400
        assert f"'{name}'" in html.unescape(response.text)
    assert client.get("/search.json?q=Car&facets=yes").status_code == 400


def test_no_results_says_which_part_finds_nothing(
    client: FlaskClient,
) -> None:
    page = client.get("/?q=dog+Zither").text
    row = re.search(r'<tr><th scope="row">Zither</th>(.*?)</tr>', page, re.DOTALL)
    assert row
    assert "nothing" in row[1]
    assert "/?q=dog" in links(row[1])


def test_no_results_of_a_real_library_leads_to_results(own: Library) -> None:
    client = create_app(own).test_client()
    page = client.get("/?q=path:wav+path:nowhere").text
    assert "path:nowhere" in page
    (other,) = {url for url in links(page) if url.startswith("/?q=path%3Awav")}
    assert '<li class="hit"' in client.get(other).text


def test_operators_are_explained_with_queries_that_work(client: FlaskClient) -> None:
    shipped = audiosearch.open_library(audiosearch.shipped_library())
    with shipped:
        real = create_app(shipped).test_client()
        page = real.get("/").text
        explained = page.split('<details class="help">')[1].split("</details>")[0]
        assert len(links(explained)) == 10
        for url in links(explained):
            assert real.get(url).status_code == 200, url
    assert '<details class="help"' in client.get("/?q=Car").text
    assert '<details class="help" open>' in client.get("/?q=Carr").text


def test_completions_come_with_counts_and_may_be_kept(client: FlaskClient) -> None:
    response = client.get("/complete.json?q=car")
    assert response.json == {
        "query": "car",
        "completions": [
            {"text": "Car", "label": "Car", "count": 45, "query": "Car", "own": False},
            {"text": "carro", "label": "Car", "count": 45, "query": "carro", "own": False},
            {
                "text": "Car alarm",
                "label": "Car alarm",
                "count": 3,
                "query": '"Car alarm"',
                "own": False,
            },
        ],
    }
    assert "max-age" in response.headers["Cache-Control"]
    assert client.get("/complete.json").json["completions"] == []
    assert client.get("/complete.json", query_string={"q": "car" * 300}).json["completions"] == []


def test_matched_classes_stand_first_with_bars(own: Library) -> None:
    client = create_app(own).test_client()
    query = own.search("path:wav", limit=1).hits[0].tags[2].label
    hit = own.search(f'label:"{query}"', limit=1).hits[0]
    page = client.get("/", query_string={"q": f'label:"{query}"'}).text
    tags = page.split('<ol class="tags"')[1].split("</ol>")[0]
    first = tags.split("<li")[1]
    assert 'class="matched"' in first
    assert html.escape(query) in first
    assert f'<span class="score">{hit.score:.2f}</span>' in first


def test_shipped_search_page_is_small() -> None:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        client = create_app(library).test_client()
        page = client.get("/?q=Car")
        total = len(page.data)
        for url in re.findall(r'"(/static/[^"]*)"', page.text):
            total += len(client.get(html.unescape(url)).data)
    assert total < 150_000


# --- Pictures ---------------------------------------------------------------------------------


def test_strip_is_a_picture_that_may_be_kept(client: FlaskClient, tmp_path: Path) -> None:
    response = client.get("/clips/2/strip.png")
    assert response.status_code == 200
    assert response.mimetype == "image/png"
    assert response.data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(response.data) < 8_000
    assert "private, max-age=" in response.headers["Cache-Control"]
    assert len(list((tmp_path / "pictures").glob("??/*.png"))) == 1
    assert client.get("/clips/2/strip.png").data == response.data


def test_tiles_cover_a_recording_and_no_more(client: FlaskClient) -> None:
    tiles = [client.get(f"/recordings/2/spectrogram/{n}.png") for n in range(3)]
    assert [tile.status_code for tile in tiles] == [200, 200, 200]
    assert len({tile.data for tile in tiles}) == 3
    for number in (3, 99, 10**9):
        response = client.get(f"/recordings/2/spectrogram/{number}.png")
        assert response.status_code == 404
        assert "ends before it" in response.text
    assert client.get("/recordings/3/spectrogram/31.png").status_code == 200


def test_what_has_no_sound_has_no_picture(client: FlaskClient, library: ScriptedLibrary) -> None:
    for path in ("/clips/1/strip.png", "/recordings/1/spectrogram/0.png"):
        response = client.get(path)
        assert response.status_code == 404
        assert "no sound file" in response.text
    for path in ("/clips/4/strip.png", "/recordings/4/spectrogram/0.png"):
        assert "is gone" in client.get(path).text
    for path in ("/clips/999/strip.png", "/recordings/999/spectrogram/0.png"):
        assert client.get(path).status_code == 404
    library.files[2].write_bytes(b"no sound at all" * 100)
    assert client.get("/clips/2/strip.png").status_code == 422


def test_videos_have_no_picture_that_could_be_broken(client: FlaskClient) -> None:
    page = client.get("/?q=Car").text
    assert set(re.findall(r'<img src="([^"]*)"', page)) == {
        "/clips/2/strip.png",
        "/clips/3/strip.png",
        "/clips/4/strip.png",
    }
    assert "<img" not in client.get("/clip/1").text.split("More like this")[0]


# --- A clip's page ----------------------------------------------------------------------------


def test_clip_page_draws_the_recording_over_time(client: FlaskClient) -> None:
    page = client.get("/clip/2").text
    assert re.findall(r'<image href="([^"]*)" x="([^"]*)"', page) == [
        ("/recordings/2/spectrogram/0.png", "0.0"),
        ("/recordings/2/spectrogram/1.png", "480.0"),
        ("/recordings/2/spectrogram/2.png", "960.0"),
    ]
    assert '<svg viewBox="0 0 1250.0 128"' in page
    assert '<rect class="own" x="480.0" width="480.0"' in page
    lanes = re.findall(r'data-scores="([^"]*)" data-label="([^"]*)"', page)
    assert [html.unescape(label) for _, label in lanes] == ["Car", "<i>Dog</i>"]
    assert lanes[0][0].startswith("0,10,20,30")
    assert len(lanes[0][0].split(",")) == 27
    assert "<i>Dog" not in page
    # The path falls from 1 at the top (0) to 0 (100), a step of 0.96 s being 48 units.
    assert 'd="M0 100V100H48V90H96V80H144' in page
    assert re.search(r'href="\?from=0&amp;at=8.64#view"[^>]*>0:08.6</a> <span[^>]*>0.90<', page)
    for seconds in ("0:00", "0:05", "0:20"):
        assert f">{seconds}</text>" in page


def test_clip_page_plays_the_whole_recording_from_the_clip(client: FlaskClient) -> None:
    page = client.get("/clip/2").text
    assert '<audio id="sound" controls preload="metadata" src="/recordings/2/audio#t=9.6"' in page
    assert 'src="/recordings/2/audio#t=12.5"' in client.get("/clip/2?at=12.5").text
    assert 'href="/recordings/2/audio" download="long.wav"' in page
    assert client.get("/clip/2?at=soon").status_code == 400


def test_long_recording_is_shown_in_parts(client: FlaskClient) -> None:
    page = client.get("/clip/3").text
    assert page.count("<image ") == 10
    assert "0:00 – 1:36 of 5:00" in page
    assert re.findall(r'rel="(prev|next)" href="([^"]*)"', page) == [
        ("next", "/clip/3?from=96#view")
    ]
    page = client.get("/clip/3?from=100").text
    assert 'href="/recordings/3/spectrogram/10.png" x="0.0"' in page
    assert "1:36 – 3:12 of 5:00" in page
    assert "/clip/3?from=192#view" in page
    assert "/clip/3?from=0#view" in page
    last = client.get("/clip/3?from=299").text
    assert last.count("<image ") == 1
    assert 'rel="next"' not in last
    # The outline covers the whole; each step opens its part.
    steps = re.findall(r'<a href="/clip/3\?from=([\d.]+)#view" tabindex="-1"><rect', page)
    assert [float(step) for step in steps] == pytest.approx([9.6 * n for n in range(32)])
    for wrong in ("300", "-1", "x", "1e99"):
        assert client.get(f"/clip/3?from={wrong}").status_code == 400


def test_clip_without_frames_says_so(client: FlaskClient) -> None:
    page = client.get("/clip/1").text
    assert "There is no score for each moment" in page
    assert "<image" not in page
    assert 'id="timeline"' not in page


def test_timeline_is_json(client: FlaskClient, own: Library) -> None:
    found = client.get("/clip/2/timeline.json?from=0&to=9.6").json
    assert found["step"] == 0.96
    assert [curve["label"] for curve in found["curves"]] == ["Car", "<i>Dog</i>"]
    assert client.get("/clip/999/timeline.json").status_code == 404
    real = create_app(own).test_client()
    hit = next(hit for hit in own.search("path:noise").hits)
    assert real.get(f"/clip/{hit.clip}/timeline.json").json == own.timeline(hit.clip).to_dict()
    response = real.get(f"/clip/{hit.clip}/timeline.json?from=90&to=99")
    assert response.status_code == 400
    assert "does not lie in it" in response.text


def test_clip_page_shows_what_is_near(own: Library) -> None:
    client = create_app(own).test_client()
    hits = own.search("path:noise", grouped=False).hits
    clips = sorted(hit.clip for hit in hits)
    assert len(clips) == 3
    page = client.get(f"/clip/{clips[1]}").text
    near = page.split("Before and after")[1].split("</section>")[0]
    assert [url for url in links(near) if url.startswith("/clip/")] == [
        f"/clip/{clips[0]}",
        f"/clip/{clips[2]}",
    ]
    alike = page.split('id="alike-title"')[1]
    assert alike.count('<li class="hit"') == 6
    assert "<h1>noise.wav</h1>" in page


def test_other_formats_are_rendered_clip_by_clip(own: Library) -> None:
    client = create_app(own).test_client()
    hit = own.search("path:aiff").hits[0]
    page = client.get(f"/clip/{hit.clip}").text
    assert f'src="/clips/{hit.clip}/audio.wav#t=0.0"' in page
    assert 'data-rendered="1"' in page


@pytest.mark.parametrize("path", ["/clip/1", "/clip/2", "/clip/3", "/?q=Car&view=grid"])
def test_pages_have_nothing_inline(client: FlaskClient, path: str) -> None:
    page = client.get(path).text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script>", page)


def test_long_folders_are_shortened_on_cards(library: ScriptedLibrary) -> None:
    library.hits = [sound(1, "/home/me/Recordings/2024/June/dog.wav"), sound(2, "/music/cat.wav")]
    client = create_app(library).test_client()
    assert '<span class="folder">/home/me/Recordings/2024/June<' in client.get("/?q=Car").text
    cards = client.get("/?q=Car&view=grid").text
    assert '<span class="folder">…/2024/June<' in cards
    assert '<span class="folder">/music<' in cards


def test_many_pictures_leave_the_server_free(
    library_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some wait, and what is more is turned away for a moment, instead of holding every thread."""
    go = threading.Event()

    def draw(*arguments: object, **options: object) -> bytes:
        assert go.wait(30)
        return b"picture"

    monkeypatch.setattr(PictureCache, "spectrogram", draw)
    with audiosearch.open_library(library_folder) as library:
        app = create_app(library)
        (clip, *_) = (hit.clip for hit in library.search("path:wav").hits)
        answers: list[TestResponse] = []

        def ask() -> None:
            answers.append(app.test_client().get(f"/clips/{clip}/strip.png"))

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(answers) < 18 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [answer.status_code for answer in answers] == [503] * 18
        assert {answer.headers["Retry-After"] for answer in answers} == {"3"}
        go.set()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 12 + [503] * 18
