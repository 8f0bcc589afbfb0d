"""The pages of the web app and their JSON twins."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from page_fixtures import client, library
from server_fixtures import TAGS, ScriptedLibrary, Skipped, sound, video

import audiosearch
from audiosearch.errors import InvalidArgumentError, LibraryDamagedError
from audiosearch.server import create_app, fetch_page

__all__ = ["client", "library"]


def links(page: str) -> list[str]:
    """Every link of a page, as a browser reads it."""
    return [html.unescape(url) for url in re.findall(r'<a\b[^>]*?href="([^"]*)"', page)]


# --- Search -----------------------------------------------------------------------------------


def test_front_page_says_what_is_there_and_how_to_add_more(client: FlaskClient) -> None:
    page = client.get("/").text
    assert re.search(r'<input id="q"[^>]* autofocus', page)
    assert "45 clips of 45 recordings" in page
    assert "audiosearch index FOLDER" in page
    assert "audiosearch serve" in page
    assert "/?q=Car" in links(page)


def test_front_page_of_an_empty_library_says_so() -> None:
    page = create_app(ScriptedLibrary([])).test_client().get("/").text
    assert "This library is empty" in page


def test_hits_are_listed_in_order_with_score_class_tags_labels_and_time(
    client: FlaskClient,
) -> None:
    page = client.get("/?q=Car").text
    order = [int(number) for number in re.findall(r'<li class="hit" id="clip-(\d+)"', page)]
    assert order == list(range(1, 21))
    first = page.split('<li class="hit"')[1]
    assert '<b class="score">0.99</b>' in first
    assert '<rect width="99.0"' in first
    assert "0:30 – 0:40" in first
    assert "Car · Traffic noise, roadway noise" in first
    for tag in TAGS:
        assert f'<span class="score">{tag.score:.2f}</span>' in first
    assert "45 recordings" in page
    assert "55 clips" in page


def test_scores_are_never_shown_as_percent_or_probability(client: FlaskClient) -> None:
    for path in ("/?q=Car", "/clip/1", "/similar/1"):
        text = re.sub(r"<[^>]*>", " ", client.get(path).text)
        assert "%" not in text
        assert "probab" not in text.lower()


def test_every_tag_links_to_its_own_search(client: FlaskClient) -> None:
    found = {
        parse_qs(urlsplit(url).query)["q"][0]
        for url in links(client.get("/clip/1").text)
        if url.startswith("/?q=")
    }
    # More than one word stands in quotes: "and" is an operator elsewhere.
    assert found == {
        "Vehicle",
        "Car",
        '"Car passing by"',
        '"Race car, auto racing"',
        '"Rock and roll"',
    }


def test_video_is_framed_on_click_only_and_has_a_plain_link(client: FlaskClient) -> None:
    page = html.unescape(client.get("/?q=Car").text)
    first = page.split('<li class="hit"')[1]
    assert (
        'data-embed="https://www.youtube-nocookie.com/embed/-0abcdef001?start=30&end=40&autoplay=1"'
        in first
    )
    assert 'href="https://www.youtube.com/watch?v=-0abcdef001&t=30s"' in first
    assert "may be gone" in first
    assert "<iframe" not in page


def test_row_without_a_video_has_no_player() -> None:
    hit = video(1, recording='x" onload="')
    page = create_app(ScriptedLibrary([hit])).test_client().get("/?q=Car").text
    assert "data-embed" not in page
    assert "youtube" not in page
    assert "No sound to play" in page


def test_file_plays_from_the_hit_and_lists_its_other_moments(client: FlaskClient) -> None:
    second = client.get("/?q=Car").text.split('<li class="hit"')[2]
    assert 'preload="none" src="/recordings/2/audio#t=9.6,19.2"' in second
    assert 'data-play="/recordings/2/audio#t=30,39.6"' in second
    assert second.count("data-play=") == 11  # the strip's button, and ten moments
    assert '<img src="/clips/2/strip.png" alt=""' in second
    assert "4 more" in second
    assert "Büro – 音.wav" in second


def test_format_that_browsers_do_not_play_is_rendered(client: FlaskClient) -> None:
    third = client.get("/?q=Car").text.split('<li class="hit"')[3]
    assert 'src="/clips/3/audio.wav"' in third
    assert "/recordings/3/" not in third


def test_more_like_this_is_on_every_hit(client: FlaskClient) -> None:
    found = [url for url in links(client.get("/?q=Car").text) if url.startswith("/similar/")]
    assert found == [f"/similar/{n}" for n in range(1, 21)]


def test_pages_of_hits_lead_forward_and_back(client: FlaskClient) -> None:
    seen = []
    url = "/?q=Car"
    while url:
        page = client.get(url).text
        seen += [int(number) for number in re.findall(r'id="clip-(\d+)"', page)]
        after = re.search(r'<a rel="next" href="([^"]*)"', page)
        url = html.unescape(after[1]) if after else ""
    assert seen == list(range(1, 46))
    assert "41 – 45 of 45" in page
    back = re.search(r'<a rel="prev" href="([^"]*)"', page)
    assert back
    assert 'id="clip-21"' in client.get(html.unescape(back[1])).text


def test_copies_stand_once_where_asked(client: FlaskClient, library: ScriptedLibrary) -> None:
    plain = client.get("/?q=Car").get_data(as_text=True)
    assert "/?q=Car&amp;fold=1" in plain
    page = client.get("/?q=Car&fold=1").get_data(as_text=True)
    assert "22 recordings" in page
    assert page.count("1 copy</summary>") == 20
    assert f"<li>{library.hits[1].recording}</li>" in page
    assert "/?q=Car&amp;fold=1&amp;offset=20" in page
    found = client.get("/search.json?q=Car&fold=1&offset=20").get_json()
    assert [hit["copies"] for hit in found["hits"]] == [[h.recording] for h in library.hits[41::2]]
    assert client.get("/search.json?q=Car&fold=2").status_code == 400


def test_beyond_the_last_page_leads_back_to_the_best(client: FlaskClient) -> None:
    page = client.get("/?q=Car&offset=200").text
    assert "No more hits" in page
    assert "/?q=Car" in links(page)


def test_unknown_class_gets_suggestions_as_links(client: FlaskClient) -> None:
    response = client.get("/?q=Carr")
    assert response.status_code == 400
    assert "No class is called" in response.text
    assert "<mark>Carr</mark>" in response.text
    assert {"/?q=Car", "/?q=%22Race+car,+auto+racing%22"} <= set(links(response.text))


def test_nothing_found_says_why(client: FlaskClient) -> None:
    response = client.get("/?q=Zither")
    assert response.status_code == 200
    assert "no clip of this library fits" in response.text
    empty = create_app(ScriptedLibrary([])).test_client().get("/?q=Car")
    assert "This library is empty" in empty.text


@pytest.mark.parametrize(
    "window",
    [
        "offset=-1",
        "offset=x",
        "limit=0",
        "limit=101",
        "limit=1.5",
        "offset=99999999999999999999999",
        "offset=²",
    ],
)
def test_window_that_cannot_be_is_refused(client: FlaskClient, window: str) -> None:
    for path in ("/", "/search.json", "/similar/1"):
        response = client.get(f"{path}?q=Car&{window}")
        assert response.status_code == 400
        assert "must be a whole number" in html.unescape(response.text)


def test_query_without_end_is_refused() -> None:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        client = create_app(library).test_client()
        long = "dog OR " * 142 + "cat"
        assert len(long) == 997
        assert client.get("/", query_string={"q": long}).status_code == 200
        for path in ("/", "/search.json", "/similar/1", "/similar/1.json"):
            answer = client.get(path, query_string={"q": long + " OR owl"})
            assert answer.status_code == 400
            assert "at most 1,000 are read" in answer.text


# --- JSON twins -------------------------------------------------------------------------------


def test_json_twins_print_the_one_serializer(client: FlaskClient, library: ScriptedLibrary) -> None:
    assert client.get("/search.json?q=Car&limit=3&offset=1").json == (
        library.search("Car", limit=3, offset=1).to_dict()
    )
    assert client.get("/similar/2.json?limit=5").json == library.similar(2, limit=5).to_dict()
    assert client.get("/clip/3.json").json == library.clip(3).to_dict()
    assert client.get("/health").json == {"status": "ok"}


def test_pages_name_their_json_twin(client: FlaskClient) -> None:
    for path in ("/?q=Car&offset=20", "/similar/2", "/clip/3"):
        page = client.get(path).text
        twin = re.search(r'type="application/json" href="([^"]*)"', page)
        assert twin
        assert client.get(html.unescape(twin[1])).is_json
    assert client.get("/?q=Car&offset=20").text.count("/search.json?q=Car&amp;offset=20") == 1


def test_json_errors_are_json(client: FlaskClient) -> None:
    unknown = client.get("/search.json?q=Carr")
    assert unknown.status_code == 400
    assert unknown.json == {
        "error": "No class is called 'Carr'.",
        "status": 400,
        "query": "Carr",
        "position": 0,
        "suggestions": ["Car", "Race car, auto racing"],
    }
    assert client.get("/search.json").status_code == 400
    for path in ("/clip/999.json", "/similar/999.json", "/nowhere.json"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json["status"] == 404
        assert response.json["error"].endswith(".")


# --- One clip, and what is like it ------------------------------------------------------------


def test_clip_page_shows_the_row_its_tags_and_true_labels(client: FlaskClient) -> None:
    page = client.get("/clip/1").text
    assert "-0abcdef001" in page
    assert "Car · Traffic noise, roadway noise" in page
    tags = page.split('<ol class="tags"')[1].split("</ol>")[0]
    assert len(re.findall(r"<li[ >]", tags)) == 5
    assert "/similar/1" in links(page)


def test_similar_page_shows_the_example_and_the_nearest(client: FlaskClient) -> None:
    page = client.get("/similar/2").text
    assert page.index("Sounds like") < page.index('src="/recordings/2/audio#t=9.6,19.2"')
    assert page.count('<li class="hit"') == 20
    assert "/similar/2?offset=20" in links(page)


@pytest.mark.parametrize(
    "path",
    [
        "/clip/999",
        "/similar/999",
        "/clip/0",
        "/clip/-1",
        "/clip/x",
        "/clip/99999999999999999999999999",
        "/recordings/999/audio",
        "/clips/999/audio.wav",
        "/nowhere",
    ],
)
def test_what_is_not_there_gets_a_page_that_says_so(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.mimetype == "text/html"
    assert re.search(r'role="alert">There is no [^<]*\.<', response.text)


def test_library_page_lists_what_was_skipped(client: FlaskClient, library: ScriptedLibrary) -> None:
    library.not_indexed = [Skipped("/music/<b>.wav", "it decodes to zero samples")]
    page = client.get("/about").text
    assert "14.2 MB" in page
    assert "/music/&lt;b&gt;.wav" in page
    assert "it decodes to zero samples" in page


def test_damaged_library_is_told_in_its_own_words(
    client: FlaskClient, library: ScriptedLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise LibraryDamagedError("scores.bin is shorter than the catalogue says.")

    monkeypatch.setattr(library, "search", broken)
    monkeypatch.setattr(library, "clip", broken)
    for path in ("/?q=Car", "/clip/1"):
        response = client.get(path)
        assert response.status_code == 503
        assert "scores.bin is shorter" in response.text


def test_mistake_of_ours_shows_a_page_and_no_internals(
    client: FlaskClient, library: ScriptedLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(library, "search", broken)
    response = client.get("/?q=Car")
    assert response.status_code == 500
    assert "Something went wrong" in response.text
    assert "secret detail" not in response.text
    assert client.get("/search.json?q=Car").json["status"] == 500


# --- Hostile names ----------------------------------------------------------------------------


def test_names_are_shown_as_text_never_as_markup() -> None:
    evil = '<script>alert("1")</script>'
    hit = replace(sound(1, f"/music/{evil}'.wav", moments=1), labels=[evil], label=evil)
    client = create_app(ScriptedLibrary([hit])).test_client()
    for path in ("/?q=Car", "/clip/1", "/similar/1", f"/?q={evil}", f"/{evil}"):
        page = client.get(path).text
        assert "<script>" not in page
        assert "alert(&#34;1&#34;)" in page or path == f"/{evil}"


def test_name_that_is_not_valid_text_is_shown_escaped() -> None:
    hit = sound(1, "/music/caf\udce9.wav")
    client = create_app(ScriptedLibrary([hit])).test_client()
    for path in ("/?q=Car", "/clip/1", "/similar/1"):
        response = client.get(path)
        assert response.status_code == 200
        assert "caf\\udce9.wav" in response.text
    assert client.get("/search.json?q=Car").json["hits"][0]["recording"] == hit.recording


def test_pages_hold_no_inline_script_style_or_foreign_source(client: FlaskClient) -> None:
    for path in ("/", "/?q=Car", "/?q=Carr", "/clip/2", "/similar/1", "/about", "/nowhere"):
        page = client.get(path).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
        scripts = re.findall(r'<script src="([^"]*)"', page)
        assert all(src.startswith("/static/") for src in scripts)
        assert page.count("<script") == len(scripts) > 0
        for source in re.findall(r'(?:\ssrc|<link[^>]* href|<image href)="([^"]*)"', page):
            assert source.startswith("/")


def test_page_with_everything_it_needs_is_under_150_kilobytes(client: FlaskClient) -> None:
    page = client.get("/?q=Car")
    total = len(page.data)
    assets = re.findall(r'"(/static/[^"]*)"', page.text)
    assert len(assets) >= 4
    for url in assets:
        response = client.get(html.unescape(url))
        assert response.status_code == 200
        # What scripts import has no version in its URL, so the browser asks whether it changed.
        lasts = "immutable" if "?v=" in url else "no-cache"
        assert lasts in response.headers["Cache-Control"]
        assert "?v=" in url or response.headers["ETag"]
        total += len(response.data)
    assert total < 150_000


# --- One page without a server ----------------------------------------------------------------


def test_fetch_page_answers_one_request(library: ScriptedLibrary) -> None:
    status, headers, body = fetch_page(library, "/?q=Car")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert '<li class="hit" id="clip-1"' in body
    assert fetch_page(library, "/clip/999")[0] == 404
    with pytest.raises(InvalidArgumentError, match="starts with a slash"):
        fetch_page(library, "search.json")
