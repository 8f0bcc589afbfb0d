"""Looking around, correcting, and searching by a sound, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from axe_core_python.selenium import Axe
from browser_fixtures import listening, press, requested, resize, scheme, start_browser, wait
from library_fixtures import make_library
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import audiosearch
from audiosearch.library.collection_map import MAP, collection_map
from audiosearch.library.library import Library
from audiosearch.picture_cache import PICTURES_VARIABLE

pytestmark = pytest.mark.browser

_PAGES = ("/browse", "/browse/map", "/browse/random?seed=1", "/browse/recent",
          "/browse/duplicates", "/browse/statistics", "/corrections", "/example",
          "/similar/1?from=1&to=3")  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Library, Path]]:
    """A server, its library of twelve small sounds of which two are equal, and its folder."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(8)
    sounds = folder / "sounds"
    sounds.mkdir()
    time = np.arange(8000 * 5) / 8000
    for number in range(11):
        noise = random.normal(0, 0.02 * number, len(time))
        tone = 0.3 * np.sin(2 * np.pi * 110 * (number + 1) * time)
        soundfile.write(sounds / f"sound {number:02d}.wav", tone + noise, 8000)
    (sounds / "the copy.wav").write_bytes((sounds / "sound 03.wav").read_bytes())
    audiosearch.index([sounds], folder / "library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PICTURES_VARIABLE, str(folder / "pictures"))
        with audiosearch.open_library(folder / "library") as library:
            collection_map(library)
            yield listening(library), library, sounds


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    browser = start_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def browser(shared_browser: Chrome) -> Chrome:
    resize(shared_browser, 1280, 900)
    scheme(shared_browser, "light")
    shared_browser.get("about:blank")
    shared_browser.get_log("performance")
    shared_browser.get_log("browser")
    return shared_browser


def ready(browser: Chrome, url: str) -> None:
    """Open a page; one that is still being made comes again by itself."""
    browser.get(url)
    wait(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, "[data-again]"), 60)


def said(browser: Chrome) -> str:
    return browser.find_element(By.ID, "status").text


# --- Everywhere -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "name"), [(1280, "light"), (1280, "dark"), (360, "light")], ids=str
)
def test_axe_finds_nothing_and_nothing_scrolls_sideways(
    browser: Chrome, own: tuple[str, Library, Path], width: int, name: str
) -> None:
    resize(browser, width, 800)
    scheme(browser, name)
    for page in _PAGES:
        ready(browser, own[0] + page)
        found = [
            (each["id"], [node["html"] for node in each["nodes"]])
            for each in Axe().run(browser)["violations"]
        ]
        assert found == [], page
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, page
        blocked = [each for each in browser.get_log("browser") if "Security Policy" in str(each)]
        assert blocked == [], page


# --- The map ----------------------------------------------------------------------------------

_PLACE = """
const canvas = document.getElementById('map');
canvas.scrollIntoView({block: 'center'});
return fetch(canvas.dataset.points).then(r => r.json()).then(data => {
  const side = Math.min(canvas.clientWidth, canvas.clientHeight) / 2 * 0.94;
  return [data.clips[arguments[0]], data.x[arguments[0]] / 1e4 * side,
          -data.y[arguments[0]] / 1e4 * side];
});
"""


def test_pointing_at_the_map_names_and_plays_and_a_click_opens(
    browser: Chrome, own: tuple[str, Library, Path]
) -> None:
    url, library, _ = own
    browser.get(url + "/browse/map")
    canvas = browser.find_element(By.ID, "map")
    wait(browser, lambda: canvas.get_attribute("data-ready"))
    assert int(canvas.get_attribute("data-ready")) == library.info().clips
    clip, x, y = browser.execute_script(_PLACE, 4)
    ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).perform()
    nameplate = browser.find_element(By.ID, "map-name")
    about = library.clip(clip)
    expected = f"{about.tags[0].label} · {Path(about.recording).name}"
    wait(browser, lambda: nameplate.text == expected)
    wait(browser, lambda: any(f"/clips/{clip}/audio.wav" in each for each in requested(browser)))
    ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).click().perform()
    wait(browser, lambda: browser.current_url == f"{url}/clip/{clip}")


def test_the_map_by_keyboard(browser: Chrome, own: tuple[str, Library, Path]) -> None:
    url = own[0]
    browser.get(url + "/browse/map")
    canvas = browser.find_element(By.ID, "map")
    wait(browser, lambda: canvas.get_attribute("data-ready"))
    browser.execute_script("arguments[0].focus()", canvas)
    heard = set()
    for key in (Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_UP):
        press(browser, key)
        wait(browser, lambda: browser.find_element(By.ID, "map-said").get_attribute("textContent"))
        heard.add(browser.find_element(By.ID, "map-name").text)
    assert len(heard) > 1
    press(browser, "+")
    wait(browser, lambda: "#at=" in browser.current_url)
    press(browser, Keys.ENTER)
    wait(browser, lambda: "/clip/" in browser.current_url)


def test_a_group_is_hidden_and_shown(browser: Chrome, own: tuple[str, Library, Path]) -> None:
    browser.get(own[0] + "/browse/map")
    canvas = browser.find_element(By.ID, "map")
    wait(browser, lambda: canvas.get_attribute("data-ready"))
    for pressed in ("false", "true"):
        for button in browser.find_elements(By.CSS_SELECTOR, ".legend button"):
            button.click()
            assert button.get_attribute("aria-pressed") == pressed
        drawn = (
            "const c = document.getElementById('map'), d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; return d.some(v => v > 0)"
        )
        wait(browser, lambda p=pressed, d=drawn: browser.execute_script(d) is (p == "true"))


_LISTEN_IN = """
window.heard = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  this.addEventListener('playing', () => window.heard.push(this.src), {once: true});
  return play.call(this);
};
"""
_DRAWN = """
const c = document.getElementById('map');
const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
let drawn = 0;
for (let i = 3; i < d.length; i += 4) drawn += d[i] > 0;
return drawn;
"""


def test_a_map_of_twenty_thousand_points(browser: Chrome, tmp_path: Path) -> None:
    """Points lie on a lattice of 160 by 125, so that each has a place that is known."""
    clips = 20_000
    codes = np.zeros((clips, 527), np.uint8)
    codes[np.arange(clips), np.arange(clips) % 500] = 200
    make_library(tmp_path / "library", [50] * 400, codes, root=str(tmp_path))
    noise = np.random.default_rng(2).normal(0, 0.1, 8000 * 477)
    soundfile.write(tmp_path / "201.wav", noise, 8000)
    across, up = np.arange(clips) % 160, np.arange(clips) // 160
    places = np.stack([across / 79.5 - 1, up / 79.5 - 62 / 79.5], axis=1)
    np.savez(
        tmp_path / "library" / MAP,
        version=1,
        clips=np.arange(clips, dtype=np.uint32),
        places=np.rint(places * 32_767).astype(np.int16),
    )
    with Library(tmp_path / "library") as library:
        first = library.search("path:201.wav", grouped=False, order="path").hits[0].clip
        clip = first + 30
        kept = browser.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": _LISTEN_IN}
        )
        browser.get(listening(library) + "/browse/map")
        canvas = browser.find_element(By.ID, "map")
        wait(browser, lambda: canvas.get_attribute("data-ready") == "20000", 60)
        wait(browser, lambda: browser.execute_script(_DRAWN) > 4 * 20_000)  # each is seen
        browser.find_element(By.TAG_NAME, "h1").click()  # a browser plays nothing unasked
        # Zoom by the wheel at the clip until its neighbours are far from it: it stays in place.
        _, x, y = browser.execute_script(_PLACE, clip)
        at = ScrollOrigin.from_element(canvas, round(x), round(y))
        ActionChains(browser).scroll_from_origin(at, 0, -1200).perform()
        wait(browser, lambda: browser.current_url.count(",") == 2)
        zoom = float(browser.current_url.rpartition(",")[2])
        assert zoom == pytest.approx(np.exp(2.4), rel=0.01)

        ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).perform()
        nameplate = browser.find_element(By.ID, "map-name")
        wait(browser, lambda: nameplate.text == f"{library.clip(clip).tags[0].label} · 201.wav")
        # It is heard.
        wait(browser, lambda: browser.execute_script("return window.heard"))
        assert f"/clips/{clip}/audio.wav" in browser.execute_script("return window.heard[0]")
        # Dragged by three places, the pointer names the third beside it.
        side = min(canvas.size["width"], canvas.size["height"]) / 2 * 0.94
        step = round(3 * side / 79.5 * zoom)
        ActionChains(browser).move_to_element_with_offset(
            canvas, round(x), round(y)
        ).click_and_hold().move_by_offset(-step, 0).release().perform()
        ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).perform()
        third = library.clip(clip + 3).tags[0].label
        wait(browser, lambda: nameplate.text == f"{third} · 201.wav")
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", kept)


# --- Corrections ------------------------------------------------------------------------------


def test_a_tag_is_confirmed_by_keyboard_and_found(
    browser: Chrome, own: tuple[str, Library, Path]
) -> None:
    url, library, _ = own
    tag = library.clip(2).tags[0].label
    browser.get(url + "/clip/2")
    link = browser.find_element(By.CSS_SELECTOR, ".tags li a")
    assert link.text == tag
    browser.execute_script("arguments[0].focus()", link)
    press(browser, "y")
    wait(browser, lambda: said(browser) == f"{tag}: confirmed.")
    first = browser.find_element(By.CSS_SELECTOR, ".tags li .verdicts button")
    assert first.get_attribute("aria-pressed") == "true"
    assert browser.current_url == url + "/clip/2"
    browser.get(f'{url}/?q=confirmed:"{tag}"')
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, ".hits h2")] == [
        Path(library.clip(2).recording).name
    ]
    # In the list of all it is undone.
    browser.get(url + "/corrections")
    browser.find_element(By.CSS_SELECTOR, ".corrections tbody button").click()
    wait(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, ".corrections tbody tr"))
    assert library.labels() == []


def test_what_is_ones_own_is_completed_and_marked(
    browser: Chrome, own: tuple[str, Library, Path]
) -> None:
    url, library, _ = own
    library.add_label(2, "my kiln")
    browser.get(url + "/")
    browser.find_element(By.ID, "q").click()
    press(browser, "my kil")
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#completions li"))
    first = browser.find_element(By.CSS_SELECTOR, "#completions li")
    texts = [each.text for each in first.find_elements(By.TAG_NAME, "span")]
    assert texts == ["my kiln", "your own", "1"]
    press(browser, Keys.ARROW_DOWN, Keys.ENTER)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".hit"))
    assert browser.find_element(By.ID, "q").get_attribute("value") == 'label:"my kiln"'
    library.remove_label(2, "my kiln")


def test_a_label_of_ones_own_without_scripts(
    tmp_path: Path, own: tuple[str, Library, Path]
) -> None:
    url, library, _ = own
    browser = start_browser(tmp_path / "profile", scripts=False)
    try:
        browser.get(url + "/clip/3")
        browser.find_element(By.CSS_SELECTOR, ".own summary").click()
        browser.find_element(By.ID, "own-3").send_keys("workshop", Keys.ENTER)
        wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".said li"))
        assert browser.find_element(By.CSS_SELECTOR, ".said li span").text == "workshop"
        assert library.search("label:workshop").hits[0].clip == 3
        browser.find_element(By.CSS_SELECTOR, ".said button").click()
        wait(browser, lambda: not browser.find_elements(By.CSS_SELECTOR, ".said li"))
        assert library.labels() == []
        # The tree opens, and every class is a link.
        browser.get(url + "/browse")
        assert browser.find_elements(By.CSS_SELECTOR, ".tree a")
    finally:
        browser.quit()


# --- By example -------------------------------------------------------------------------------


def test_a_part_of_a_file_is_chosen_on_its_waveform(
    browser: Chrome, own: tuple[str, Library, Path]
) -> None:
    url, library, sounds = own
    browser.get(url + "/example")
    form = browser.find_element(By.ID, "by-example")
    chooser = form.find_element(By.NAME, "file")
    chooser.send_keys(str(sounds / "sound 05.wav"))
    wait(browser, lambda: form.get_attribute("data-ready"), 60)
    assert browser.find_element(By.ID, "chosen-name").text == "sound 05.wav, 5.0 s"
    wave = browser.find_element(By.ID, "wave")
    width = wave.size["width"]
    ActionChains(browser).move_to_element_with_offset(
        wave, -round(width * 0.3), 0
    ).click_and_hold().move_by_offset(round(width * 0.4), 0).release().perform()
    start = float(form.find_element(By.NAME, "from").get_attribute("value"))
    end = float(form.find_element(By.NAME, "to").get_attribute("value"))
    assert start == pytest.approx(1.0, abs=0.1)
    assert end == pytest.approx(3.0, abs=0.1)
    form.find_element(By.CSS_SELECTOR, ".send button").click()
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#results .hits .hit"), 60)
    heading = browser.find_element(By.CSS_SELECTOR, "#results h2").text
    assert heading == "What sounds like 1.0 s to 3.0 s of it"
    # By keyboard: the fields are the same part. A part that is not there is refused in place.
    field = form.find_element(By.NAME, "to")
    browser.execute_script("arguments[0].removeAttribute('max')", field)
    field.clear()
    field.send_keys("99", Keys.ENTER)
    wait(browser, lambda: "does not lie in it" in said(browser), 60)
    before = library.info().recordings
    form.find_element(By.NAME, "add").click()
    wait(browser, lambda: "was added to the library" in said(browser), 90)
    assert library.info().recordings == before + 1


def test_a_recording_from_the_microphone_is_searched_by(
    browser: Chrome, own: tuple[str, Library, Path]
) -> None:
    browser.get(own[0] + "/example")
    record = browser.find_element(By.ID, "record")
    wait(browser, record.is_displayed)
    record.click()
    wait(browser, lambda: record.get_attribute("aria-pressed") == "true")
    browser.execute_async_script("setTimeout(arguments[0], 2500)")
    record.click()
    form = browser.find_element(By.ID, "by-example")
    wait(browser, lambda: form.get_attribute("data-ready"), 60)
    assert browser.find_element(By.ID, "chosen-name").text.startswith("recording.webm, ")
    form.find_element(By.CSS_SELECTOR, ".send button").click()
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#results .hits .hit"), 60)
    outside = [
        each for each in requested(browser) if not each.startswith((own[0], "data:", "blob:"))
    ]
    assert outside == []
