"""The search page and the clip's page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from axe_core_python.selenium import Axe
from browser_fixtures import (
    focus,
    listening,
    press,
    requested,
    resize,
    scheme,
    start_browser,
    wait,
)
from library_fixtures import make_library
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import audiosearch
from audiosearch.library.library import Library
from audiosearch.picture_cache import PICTURES_VARIABLE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Library]]:
    """A server, and its library of a recording of 150 s, a short one, and one for no browser."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(8)
    sounds = folder / "sounds"
    (sounds / "field").mkdir(parents=True)
    level = np.repeat(random.uniform(0.01, 0.3, 150), 8000)
    soundfile.write(sounds / "field" / "walk.wav", random.normal(0, 1, 150 * 8000) * level, 8000)
    soundfile.write(sounds / "short.wav", random.normal(0, 0.1, 4 * 8000), 8000)
    soundfile.write(sounds / "other.aiff", random.normal(0, 0.1, 25 * 8000), 8000)
    audiosearch.index([sounds], folder / "library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PICTURES_VARIABLE, str(folder / "pictures"))
        with audiosearch.open_library(folder / "library") as library:
            yield listening(library), library


@pytest.fixture(scope="module")
def shipped() -> Iterator[str]:
    with audiosearch.open_library(audiosearch.shipped_library()) as library:
        yield listening(library)


def clip_of(library: Library, name: str, *, at: int = 0) -> int:
    hits = library.search(f"path:{name}", grouped=False, limit=50).hits
    return sorted(hit.clip for hit in hits)[at]


def loaded(browser: Chrome, selector: str) -> bool:
    """Whether every picture of these is there, with pixels in it."""
    return browser.execute_script(
        "const found = [...document.querySelectorAll(arguments[0])];"
        "return found.length > 0 && found.every(i => i.complete && i.naturalWidth > 0)",
        selector,
    )


# --- Completions ------------------------------------------------------------------------------


def options(browser: Chrome) -> list[str]:
    found = browser.find_elements(By.CSS_SELECTOR, "#completions [role=option] .text")
    return [item.text for item in found]


def test_query_is_completed_by_keyboard(browser: Chrome, shipped: str) -> None:
    browser.get(shipped + "/")
    box = browser.find_element(By.ID, "q")
    assert box.get_attribute("role") == "combobox"
    assert box.get_attribute("aria-expanded") == "false"
    press(browser, "rain thunde")
    wait(browser, lambda: box.get_attribute("aria-expanded") == "true")
    assert options(browser)[0] == "Thunder"
    assert browser.find_element(By.CSS_SELECTOR, "#completions .n").text.isdigit()
    press(browser, Keys.ARROW_DOWN)
    chosen = browser.find_element(By.ID, box.get_attribute("aria-activedescendant"))
    assert chosen.get_attribute("aria-selected") == "true"
    assert box.get_attribute("value") == "rain Thunder"
    # Up again to what was typed; Escape closes and keeps it.
    press(browser, Keys.ARROW_UP)
    assert box.get_attribute("value") == "rain thunde"
    assert box.get_attribute("aria-activedescendant") is None
    press(browser, Keys.ARROW_DOWN, Keys.ESCAPE)
    assert box.get_attribute("aria-expanded") == "false"
    assert box.get_attribute("value") == "rain thunde"
    # Tab takes one and goes on typing; Enter searches.
    press(browser, Keys.ARROW_DOWN)
    wait(browser, lambda: box.get_attribute("aria-expanded") == "true")
    press(browser, Keys.ARROW_DOWN, Keys.TAB)
    assert box.get_attribute("value") == "rain Thunder "
    assert browser.switch_to.active_element == box
    press(browser, "-spee")
    wait(browser, lambda: options(browser)[:1] == ["Speech"])
    press(browser, Keys.ARROW_DOWN, Keys.ENTER)
    wait(browser, lambda: "rain+Thunder+-Speech" in browser.current_url)
    assert browser.find_elements(By.CSS_SELECTOR, ".hit")


def test_completion_is_chosen_by_pointer_and_goes_with_the_focus(
    browser: Chrome, shipped: str
) -> None:
    browser.get(shipped + "/about")
    press(browser, "/", "pupp")
    wait(browser, lambda: "puppy" in options(browser))
    press(browser, Keys.TAB)  # nothing is chosen: it leads on
    assert not browser.find_element(By.ID, "completions").is_displayed()
    press(browser, "/", "pupp")
    wait(browser, lambda: "puppy" in options(browser))
    browser.find_element(By.CSS_SELECTOR, "#completions [role=option]").click()
    wait(browser, lambda: browser.current_url.endswith("/?q=puppy"))


# --- Results ----------------------------------------------------------------------------------


def test_facet_narrows_and_the_address_says_so(browser: Chrome, shipped: str) -> None:
    browser.get(shipped + "/?q=dog&view=grid")
    first = browser.find_element(By.CSS_SELECTOR, ".facets section:nth-child(2) a")
    name, count = (first.find_element(By.TAG_NAME, "span").text,
                   first.find_element(By.CLASS_NAME, "n").text)  # fmt: skip
    first.click()
    wait(browser, lambda: "label" in browser.current_url)
    assert f'dog label:"{name}"' == browser.find_element(By.ID, "q").get_attribute("value")
    assert browser.find_element(By.TAG_NAME, "h1").text.startswith(f"{count} recordings")
    assert browser.find_elements(By.CSS_SELECTOR, ".hits.grid")


def test_strips_are_drawn_and_take_the_sound_where_they_are_clicked(
    browser: Chrome, own: tuple[str, Library]
) -> None:
    url, _ = own
    browser.get(url + "/?q=duration:>0")
    wait(browser, lambda: loaded(browser, ".strip img"))
    assert not browser.find_element(By.CSS_SELECTOR, ".player audio").is_displayed()
    hit = next(
        hit
        for hit in browser.find_elements(By.CSS_SELECTOR, ".hit")
        if "short.wav" in hit.text
    )  # fmt: skip
    strip = hit.find_element(By.CSS_SELECTOR, ".strip")
    ActionChains(browser).move_to_element_with_offset(
        strip, strip.size["width"] // 4, 0
    ).click().perform()
    audio = hit.find_element(By.TAG_NAME, "audio")
    state = "return [arguments[0].currentTime, arguments[0].paused]"
    wait(browser, lambda: browser.execute_script(state, audio)[0] > 3)
    assert "playing" in strip.get_attribute("class")
    # The button pauses what it plays.
    hit.find_element(By.CSS_SELECTOR, ".play").click()
    wait(browser, lambda: browser.execute_script(state, audio)[1])


def test_picture_of_a_lost_file_is_not_shown_as_broken(
    browser: Chrome, own: tuple[str, Library], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "lost.wav", np.zeros(16000), 16000)
    audiosearch.index([tmp_path / "lost.wav"], tmp_path / "library")
    (tmp_path / "lost.wav").unlink()
    with audiosearch.open_library(tmp_path / "library") as library:
        browser.get(listening(library) + "/?q=duration:>0")
        image = browser.find_element(By.CSS_SELECTOR, ".strip img")
        wait(browser, lambda: image.get_property("complete"))
        assert image.get_attribute("alt") == ""
        assert image.get_property("naturalWidth") == 0


# --- The clip's page --------------------------------------------------------------------------


def sound_at(browser: Chrome) -> float:
    return browser.execute_script("return document.getElementById('sound').currentTime")


def ready(browser: Chrome) -> bool:
    return browser.execute_script("return document.getElementById('sound').readyState >= 1")


def test_timeline_shows_values_and_takes_the_sound_along(
    browser: Chrome, own: tuple[str, Library]
) -> None:
    url, library = own
    clip = clip_of(library, "walk", at=3)
    browser.get(f"{url}/clip/{clip}")
    wait(browser, lambda: ready(browser))
    assert sound_at(browser) == pytest.approx(28.8, abs=0.1)
    lane = browser.find_element(By.CSS_SELECTOR, ".lane")
    start, end = (float(lane.find_element(By.XPATH, "ancestor::section").get_attribute(name))
                  for name in ("data-start", "data-end"))  # fmt: skip
    width = lane.size["width"]
    ActionChains(browser).move_to_element_with_offset(lane, width // 4, 0).perform()
    seconds = start + (end - start) * (0.5 + (width // 4) / width)
    scores = library.timeline(clip, start=start, end=end).curves[0].scores
    value = browser.find_element(By.CSS_SELECTOR, ".lane + .value")
    near = [f"{scores[int((seconds - start + off) / 0.96)]:.2f}" for off in (-0.3, 0, 0.3)]
    wait(browser, lambda: value.text in near)
    assert browser.find_element(By.CSS_SELECTOR, ".now").text.startswith("1:")
    lane.click()
    wait(browser, lambda: sound_at(browser) > (start + end) / 2 - 1)
    assert sound_at(browser) < (start + end) / 2 + 10
    state = "return document.getElementById('sound').paused"
    wait(browser, lambda: not browser.execute_script(state))


def test_timeline_is_a_slider_for_the_keyboard(browser: Chrome, own: tuple[str, Library]) -> None:
    url, library = own
    browser.get(f"{url}/clip/{clip_of(library, 'walk', at=3)}")
    wait(browser, lambda: ready(browser))
    slider = browser.find_element(By.CSS_SELECTOR, "[role=slider]")
    browser.execute_script("arguments[0].focus()", slider)
    assert focus(browser)["outline"] != "none"
    before = sound_at(browser)
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, lambda: sound_at(browser) == pytest.approx(before + 1, abs=0.05))
    press(browser, Keys.PAGE_UP, Keys.ARROW_LEFT)
    wait(browser, lambda: sound_at(browser) == pytest.approx(before + 10, abs=0.05))
    assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(before + 10, abs=0.1)
    assert slider.get_attribute("aria-valuetext") == "0:38.8"
    press(browser, Keys.HOME)
    wait(browser, lambda: sound_at(browser) == float(slider.get_attribute("aria-valuemin")))
    press(browser, Keys.SPACE)
    wait(
        browser,
        lambda: not browser.execute_script("return document.getElementById('sound').paused"),
    )


def test_other_parts_of_a_long_recording_come_in_place(
    browser: Chrome, own: tuple[str, Library]
) -> None:
    url, library = own
    clip = clip_of(library, "walk", at=0)
    browser.get(f"{url}/clip/{clip}")
    wait(browser, lambda: ready(browser))
    browser.execute_script("window.same = true")
    browser.find_element(By.CSS_SELECTOR, "#view [rel=next]").click()
    wait(browser, lambda: browser.find_element(By.ID, "view-title").text.startswith("1:36"))
    assert "from=96" in browser.current_url
    assert browser.execute_script("return window.same") is True
    assert browser.find_element(By.CSS_SELECTOR, "#timeline").get_attribute("role") == "slider"
    browser.back()
    wait(browser, lambda: browser.find_element(By.ID, "view-title").text.startswith("0:00"))
    # The highest place of a class is a link that plays it.
    peak = browser.find_element(By.CSS_SELECTOR, ".peaks a")
    seconds = float(peak.get_attribute("data-at"))
    peak.click()
    wait(browser, lambda: seconds - 0.1 <= sound_at(browser) < seconds + 5)


def test_sound_that_no_browser_decodes_goes_clip_by_clip(
    browser: Chrome, own: tuple[str, Library]
) -> None:
    url, library = own
    first = clip_of(library, "other", at=0)
    browser.get(f"{url}/clip/{first}")
    wait(browser, lambda: ready(browser))
    lane = browser.find_element(By.CSS_SELECTOR, ".lane")
    offset = lane.size["width"] * 3 // 10  # 80 % of 25 s: 20 s, in the third clip
    ActionChains(browser).move_to_element_with_offset(lane, offset, 0).click().perform()
    source = "return document.getElementById('sound').src"
    wait(
        browser,
        lambda: browser.execute_script(source).endswith(f"/clips/{first + 2}/audio.wav"),
    )
    wait(browser, lambda: 0.3 < sound_at(browser) < 5)
    assert browser.find_element(By.CSS_SELECTOR, ".now").text.startswith("0:2")


def test_clip_page_without_scripts(tmp_path: Path, own: tuple[str, Library]) -> None:
    url, library = own
    browser = start_browser(tmp_path / "profile", scripts=False)
    try:
        browser.get(f"{url}/clip/{clip_of(library, 'walk', at=12)}")
        assert browser.find_element(By.ID, "sound").is_displayed()
        assert len(browser.find_elements(By.CSS_SELECTOR, ".lane path")) == 6
        assert browser.find_elements(By.CSS_SELECTOR, ".spectrogram image")
        browser.find_element(By.CSS_SELECTOR, "#view [rel=prev]").click()
        wait(browser, lambda: "from=" in browser.current_url)
        assert browser.find_element(By.ID, "view-title").text.startswith("0:00")
        browser.get(url + "/?q=duration:>0")
        assert browser.find_element(By.CSS_SELECTOR, ".player audio").is_displayed()
        assert not browser.find_element(By.CSS_SELECTOR, ".strip .play").is_displayed()
        browser.find_element(By.LINK_TEXT, "Longest").click()
        wait(browser, lambda: "order=longest" in browser.current_url)
        assert browser.find_element(By.CSS_SELECTOR, ".hit h2").text == "walk.wav"
        assert browser.find_element(By.CSS_SELECTOR, ".facets a").is_displayed()
    finally:
        browser.quit()


# --- A library of 20,000 clips ----------------------------------------------------------------


def test_twenty_thousand_clips(browser: Chrome, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    codes = np.zeros((20_000, 527), np.uint8)
    for column in range(527):
        codes[random.integers(0, 20_000, 900), column] = random.integers(80, 250, 900)
    codes[:, 0] = random.integers(100, 250, 20_000)
    folder = make_library(tmp_path / "library", [2] * 10_000, codes)
    with Library(folder) as library:
        url = listening(library)
        browser.get(url + "/?q=Speech")
        assert "10,000 recordings" in browser.find_element(By.TAG_NAME, "h1").text
        assert "20,000 clips" in browser.find_element(By.TAG_NAME, "h1").text
        browser.find_element(By.LINK_TEXT, "Next").click()
        wait(browser, lambda: "offset=20" in browser.current_url)
        names = {item.text for item in browser.find_elements(By.CSS_SELECTOR, ".hit h2")}
        browser.get(url + "/?q=Speech")
        assert not names & {i.text for i in browser.find_elements(By.CSS_SELECTOR, ".hit h2")}
        browser.get(url + "/?q=Speech&offset=9980&order=path")
        assert len(browser.find_elements(By.CSS_SELECTOR, ".hit")) == 20
        assert browser.find_elements(By.CSS_SELECTOR, ".hit h2")[-1].text == "9999.wav"


# --- Everybody --------------------------------------------------------------------------------

_PAGES = ("/", "/?q=duration:>0", "/?q=duration:>0&view=grid", "/?q=Zebbra", "/?q=path:nowhere+dog",
          "/about", "/nowhere", "CLIP", "AIFF", "SIMILAR")  # fmt: skip


def page_urls(own: tuple[str, Library]) -> list[str]:
    url, library = own
    walk, aiff = clip_of(library, "walk", at=9), clip_of(library, "other")
    own_pages = {"CLIP": f"/clip/{walk}", "AIFF": f"/clip/{aiff}", "SIMILAR": f"/similar/{walk}"}
    return [url + own_pages.get(page, page) for page in _PAGES]


def violations(browser: Chrome) -> list[tuple[str, list[str]]]:
    return [
        (each["id"], [f"{node['target']}: {node['failureSummary']}" for node in each["nodes"]])
        for each in Axe().run(browser)["violations"]
    ]


@pytest.mark.parametrize("name", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Chrome, own: tuple[str, Library], shipped: str, name: str
) -> None:
    scheme(browser, name)
    for url in (
        *page_urls(own),
        shipped + "/?q=Car",
        shipped + "/clip/5",
        shipped + "/?q=Car&view=grid",
    ):
        browser.get(url)
        assert violations(browser) == [], url


def test_axe_finds_nothing_on_a_phone_and_in_completions(
    browser: Chrome, own: tuple[str, Library], shipped: str
) -> None:
    resize(browser, 360, 740)
    for url in page_urls(own):
        browser.get(url)
        assert violations(browser) == [], url
    browser.get(shipped + "/")
    press(browser, "dog")
    wait(browser, lambda: options(browser))
    press(browser, Keys.ARROW_DOWN)
    assert violations(browser) == []


@pytest.mark.parametrize("width", [320, 390, 700, 1024])
def test_nothing_scrolls_sideways(browser: Chrome, own: tuple[str, Library], width: int) -> None:
    resize(browser, width, 800)
    for url in page_urls(own):
        browser.get(url)
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, url


def test_pages_ask_nobody_else_and_break_no_rule(browser: Chrome, own: tuple[str, Library]) -> None:
    url = own[0]
    for page in page_urls(own):
        browser.get(page)
    asked = requested(browser)
    assert [each for each in asked if not each.startswith((url, "data:"))] == []
    log = browser.get_log("browser")
    assert [entry for entry in log if "Content Security" in entry["message"]] == []
