"""The web app in a real browser: Chromium, driven without a screen."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser_fixtures import (
    focus,
    listening,
    press,
    requested,
    resize,
    scheme,
    start_browser,
    wait,
    wait_for_focus,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from server_fixtures import ScriptedLibrary, make_own_library, sound, video

import audiosearch

pytestmark = pytest.mark.browser

_PAGES = ("/", "/?q=Car", "/?q=Carr", "/?q=Zither", "/similar/2", "/clip/1", "/clip/2", "/about",
          "/nowhere")  # fmt: skip


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a library with videos, long and awkward names, and sounds of 90 seconds."""
    folder = tmp_path_factory.mktemp("sounds")
    rate = 8000
    noise = np.random.default_rng(3).normal(0, 0.05, 90 * rate)
    files = {2: folder / "long.wav", 3: folder / "an aiff inside.wav", 4: folder / "gone.wav"}
    soundfile.write(files[2], noise, rate)
    soundfile.write(files[3], noise, rate, format="AIFF")
    hits = [video(n, score=1 - n / 100) for n in range(1, 46)]
    hits[1] = sound(2, str(files[2]), moments=10)
    hits[2] = sound(3, str(files[3]))
    hits[3] = sound(4, str(files[4]))
    hits[4] = sound(5, "/music/" + 50 * "no_space_in_this_name_" + ".flac", moments=100)
    library = ScriptedLibrary(hits, files)
    return listening(library)


# --- Search and play --------------------------------------------------------------------------


def test_search_and_play_a_video_that_nothing_was_asked_for_before(
    browser: Chrome, scripted: str
) -> None:
    browser.get(scripted + "/")
    wait_for_focus(browser, "q")
    browser.switch_to.active_element.send_keys("Car", Keys.ENTER)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".hit"))
    assert browser.current_url == scripted + "/?q=Car"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".hit")) == 20
    assert browser.find_elements(By.TAG_NAME, "iframe") == []
    outside = [url for url in requested(browser) if not url.startswith((scripted, "data:"))]
    assert outside == []
    violations = [entry for entry in browser.get_log("browser") if "Security" in entry["message"]]
    assert violations == []

    browser.find_element(By.CSS_SELECTOR, "#clip-1 .play").click()
    frame = browser.find_element(By.CSS_SELECTOR, "#clip-1 iframe")
    assert frame.get_attribute("src") == (
        "https://www.youtube-nocookie.com/embed/-0abcdef001?start=30&end=40&autoplay=1"
    )
    assert frame.get_attribute("referrerpolicy") == "strict-origin-when-cross-origin"
    assert "autoplay" in frame.get_attribute("allow")
    wait(browser, lambda: any("youtube-nocookie.com" in url for url in requested(browser)))

    # One video at a time: the first gives its place back.
    browser.find_element(By.CSS_SELECTOR, "#clip-6 .play").click()
    assert len(browser.find_elements(By.TAG_NAME, "iframe")) == 1
    assert browser.find_element(By.CSS_SELECTOR, "#clip-1 .play").is_displayed()


def audio_state(browser: Chrome, hit: str) -> dict[str, object]:
    return browser.execute_script(
        "const a = document.querySelector(arguments[0] + ' audio');"
        "return {time: a.currentTime, paused: a.paused, src: a.currentSrc};",
        hit,
    )


def press_play(browser: Chrome, hit: str) -> None:
    """Click the play button in the strip of a hit."""
    button = browser.find_element(By.CSS_SELECTOR, f"{hit} .strip .play")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def test_sound_plays_from_the_hit_and_jumps_to_its_other_moments(
    browser: Chrome, scripted: str
) -> None:
    browser.get(scripted + "/?q=Car")
    press_play(browser, "#clip-2")
    wait(browser, lambda: audio_state(browser, "#clip-2")["time"] > 9.6)
    assert audio_state(browser, "#clip-2")["time"] < 19.2

    # The moments of this file start at 0:30.
    browser.find_element(By.CSS_SELECTOR, "#clip-2 .moments [data-play]").click()
    wait(browser, lambda: audio_state(browser, "#clip-2")["time"] > 30)
    state = audio_state(browser, "#clip-2")
    assert state["time"] < 39.6
    assert state["paused"] is False
    assert browser.current_url == scripted + "/?q=Car"

    # A second sound silences the first.
    press_play(browser, "#clip-3")
    wait(browser, lambda: audio_state(browser, "#clip-2")["paused"])


def test_file_that_the_browser_cannot_decode_is_rendered(browser: Chrome, scripted: str) -> None:
    browser.get(scripted + "/?q=Car")
    press_play(browser, "#clip-3")
    wait(browser, lambda: audio_state(browser, "#clip-3")["time"] > 0)
    assert audio_state(browser, "#clip-3")["src"] == scripted + "/clips/3/audio.wav"


def test_file_that_is_gone_is_told(browser: Chrome, scripted: str) -> None:
    browser.get(scripted + "/?q=Car")
    press_play(browser, "#clip-4")
    wait(browser, lambda: browser.find_element(By.ID, "status").text)
    assert "cannot be played" in browser.find_element(By.ID, "status").text


# --- The shipped library ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Iterator[str]:
    """The URL of the library that comes with audiosearch."""
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        yield listening(library)


def test_car_is_found_on_the_shipped_library_and_plays(browser: Chrome, shipped: str) -> None:
    browser.get(shipped + "/")
    assert "10,148 clips" in browser.find_element(By.ID, "holds").text
    browser.find_element(By.ID, "q").send_keys("Car", Keys.ENTER)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".hit"))
    with urllib.request.urlopen(shipped + "/search.json?q=Car") as answer:
        hits = json.load(answer)["hits"]
    names = [item.text for item in browser.find_elements(By.CSS_SELECTOR, ".hit h2")]
    assert names == [hit["recording"] for hit in hits]
    shown = [float(item.text) for item in browser.find_elements(By.CSS_SELECTOR, ".match .score")]
    assert shown == pytest.approx([hit["score"] for hit in hits], abs=0.0051)
    assert all(url.startswith((shipped, "data:")) for url in requested(browser))
    browser.find_element(By.CSS_SELECTOR, ".hit .play").click()
    frame = browser.find_element(By.CSS_SELECTOR, ".hit iframe")
    best = hits[0]
    assert frame.get_attribute("src") == (
        f"https://www.youtube-nocookie.com/embed/{best['recording']}"
        f"?start={best['start']:.0f}&end={best['end']:.0f}&autoplay=1"
    )


# --- Keyboard ---------------------------------------------------------------------------------


def test_keyboard_alone_searches_plays_and_moves_on(browser: Chrome, scripted: str) -> None:
    browser.get(scripted + "/about")
    press(browser, "/")
    assert focus(browser)["id"] == "q"
    press(browser, "Car", Keys.ENTER)
    wait(browser, lambda: browser.current_url.endswith("/?q=Car"))
    # The first Tab offers the way past the bar; then every stop shows where it is.
    press(browser, Keys.TAB)
    assert focus(browser)["text"] == "Skip to the content"
    # From hit to hit, and one is played, without the pointer.
    press(browser, Keys.ENTER, "j")
    assert focus(browser)["text"] == "-0abcdef001"
    press(browser, "j", "j", "k", "k", "p")
    assert browser.find_elements(By.CSS_SELECTOR, "#clip-1 iframe")

    browser.get(scripted + "/?q=Car")
    seen = []
    for _ in range(40):
        press(browser, Keys.TAB)
        stop = focus(browser)
        assert stop["outline"] != "none", stop
        seen.append(stop["text"] or stop["type"])
    assert seen[:5] == ["Skip to the content", "audiosearch", "search", "Search", "file"]
    assert seen[5:7] == ["Browse", "Library"]
    assert "More like this" in seen
    assert "Grid" in seen
    assert "Car passing by" in seen


def test_slash_in_the_box_is_a_letter(browser: Chrome, scripted: str) -> None:
    browser.get(scripted + "/")
    press(browser, "a/b")
    assert browser.find_element(By.ID, "q").get_attribute("value") == "a/b"


# --- Screens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_page_scrolls_sideways(browser: Chrome, scripted: str, width: int) -> None:
    resize(browser, width, 800)
    for path in _PAGES:
        browser.get(scripted + path)
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, path


_CONTRASTS = """
function parts(color) { return color.match(/[\\d.]+/g).map(Number); }
function luminance(rgb) {
  const [r, g, b] = rgb.slice(0, 3).map(v => {
    v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const low = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  let ground = element;
  while (ground && (parts(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0)
    ground = ground.parentElement;
  const a = luminance(parts(getComputedStyle(element).color));
  const b = luminance(parts(getComputedStyle(ground || document.body).backgroundColor));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) low.push(element.tagName + ' ' + element.className + ' ' + ratio.toFixed(2));
}
return low;
"""


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_stands_out_in_both_schemes(browser: Chrome, scripted: str, name: str) -> None:
    scheme(browser, name)
    grounds = set()
    for path in _PAGES:
        browser.get(scripted + path)
        assert browser.execute_script(_CONTRASTS) == [], path
        grounds.add(
            browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    (ground,) = grounds
    red = int(ground.removeprefix("rgb(").split(",")[0])
    assert red < 64 if name == "dark" else red > 192


def test_everything_has_a_name_for_assistive_technology(browser: Chrome, scripted: str) -> None:
    for path in _PAGES:
        browser.get(scripted + path)
        nameless = browser.execute_script(
            "return [...document.querySelectorAll('a, button, input:not([type=hidden]), audio')]"
            ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') ||"
            " (e.labels && e.labels.length && e.labels[0].textContent.trim())))"
            ".map(e => e.outerHTML)"
        )
        assert nameless == [], path
        headings = browser.execute_script("return document.querySelectorAll('h1').length")
        assert headings == 1, path


# --- Without scripts --------------------------------------------------------------------------


def test_search_works_without_scripts(tmp_path: Path, scripted: str) -> None:
    browser = start_browser(tmp_path / "profile", scripts=False)
    try:
        browser.get(scripted + "/")
        box = browser.find_element(By.ID, "q")
        box.send_keys("Car", Keys.ENTER)
        wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".hit"))
        assert browser.find_element(By.CSS_SELECTOR, "#clip-1 h2").text == "-0abcdef001"
        assert not browser.find_element(By.CSS_SELECTOR, "#clip-1 .play").is_displayed()
        assert browser.find_element(By.LINK_TEXT, "On YouTube").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, ".example button").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, ".example input").is_displayed()
        browser.find_element(By.LINK_TEXT, "More like this").click()
        wait(browser, lambda: "/similar/1" in browser.current_url)
        assert len(browser.find_elements(By.CSS_SELECTOR, ".hits .hit")) == 20
    finally:
        browser.quit()


# --- Search by a sound file -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_library(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def own(folder: Path) -> Iterator[str]:
    """The URL of a library of real small sounds."""
    with audiosearch.open_library(folder / "library") as library:
        yield listening(library)


_DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1]));
const fire = name => document.querySelector('main').dispatchEvent(
  new DragEvent(name, {bubbles: true, cancelable: true, dataTransfer: data}));
fire('dragenter');
const shown = !document.getElementById('drop').hidden;
fire('dragover'); fire('drop');
return shown;
"""


def test_dropped_file_is_tagged(browser: Chrome, own: str, folder: Path) -> None:
    content = (folder / "sounds" / "Büro 音.wav").read_bytes()
    browser.get(own + "/?q=Car")
    shown = browser.execute_script(_DROP, base64.b64encode(content).decode(), "Büro 音.wav")
    assert shown is True
    wait(browser, lambda: browser.current_url == own + "/examples")
    assert browser.find_element(By.TAG_NAME, "h1").text == "Büro 音.wav"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".example-card .tags li")) == 5
    nearest = browser.find_element(By.CSS_SELECTOR, ".hits .hit h2").text
    assert nearest == "Büro 音.wav"
    outside = [url for url in requested(browser) if not url.startswith((own, "data:"))]
    assert outside == []
    # Going back leaves no message of being busy behind.
    browser.back()
    wait(browser, lambda: browser.current_url == own + "/?q=Car")
    assert browser.find_element(By.ID, "status").text == ""


def test_chosen_file_is_tagged(browser: Chrome, own: str, folder: Path) -> None:
    browser.get(own + "/")
    chooser = browser.find_element(By.CSS_SELECTOR, "form.example input[type=file]")
    chooser.send_keys(str(folder / "sounds" / "noise.wav"))
    wait(browser, lambda: browser.current_url == own + "/examples")
    assert browser.find_element(By.TAG_NAME, "h1").text == "noise.wav"
    browser.get(own + "/")
    chooser = browser.find_element(By.CSS_SELECTOR, "form.example input[type=file]")
    chooser.send_keys(str(folder / "sounds" / "broken.wav"))
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "[role=alert]"))
    assert "broken.wav" in browser.find_element(By.CSS_SELECTOR, "[role=alert]").text


def test_file_beyond_the_limit_is_not_even_sent(browser: Chrome, own: str, folder: Path) -> None:
    browser.get(own + "/")
    browser.execute_script("document.body.dataset.uploadLimit = 1000")
    chooser = browser.find_element(By.CSS_SELECTOR, "form.example input[type=file]")
    chooser.send_keys(str(folder / "sounds" / "noise.wav"))
    wait(browser, lambda: browser.find_element(By.ID, "status").text)
    assert "larger than 0.001 MB" in browser.find_element(By.ID, "status").text
    assert browser.current_url == own + "/"


def test_file_is_tagged_without_scripts(tmp_path: Path, own: str, folder: Path) -> None:
    browser = start_browser(tmp_path / "profile", scripts=False)
    try:
        browser.get(own + "/")
        chooser = browser.find_element(By.CSS_SELECTOR, "form.example input[type=file]")
        chooser.send_keys(str(folder / "sounds" / "noise.wav"))
        browser.find_element(By.CSS_SELECTOR, "form.example button").click()
        wait(browser, lambda: browser.current_url == own + "/examples")
        assert browser.find_element(By.TAG_NAME, "h1").text == "noise.wav"
    finally:
        browser.quit()
