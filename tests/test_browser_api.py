"""The API's page, and signing in and out, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_core_python.selenium import Axe
from browser_fixtures import listening, resize, scheme, start_browser, wait, wait_for_focus
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from server_fixtures import ScriptedLibrary, make_own_library, served, video

import audiosearch as aus
from audiosearch.server.users import add_user

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    browser = start_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_library(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with aus.open_library(folder / "library") as library:
        yield listening(library)


def send(browser: Chrome, name: str) -> tuple[str, str]:
    """Send the form of an operation; return what was said of the answer, and the answer."""
    form = browser.find_element(By.CSS_SELECTOR, f"#{name} form")
    form.find_element(By.TAG_NAME, "button").click()
    said = form.find_element(By.CSS_SELECTOR, ".said")
    wait(browser, lambda: said.text and not said.text.endswith("…"), 60)
    return said.text, form.find_element(By.CSS_SELECTOR, "output code").text


def test_operations_are_tried_on_the_page(browser: Chrome, address: str, folder: Path) -> None:
    browser.get(f"{address}/api")
    browser.find_element(By.CSS_SELECTOR, "#search summary").click()
    box = browser.find_element(By.ID, "search-q")
    box.clear()
    box.send_keys("noise OR music")
    browser.find_element(By.ID, "search-limit").send_keys("2")
    said, answer = send(browser, "search")
    assert said.startswith("GET /api/v1/search?q=noise+OR+music&limit=2: 200")
    assert json.loads(answer)["limit"] == 2
    box.clear()
    box.send_keys("trumpett")
    said, answer = send(browser, "search")
    assert ": 400" in said
    assert json.loads(answer)["suggestions"]

    browser.find_element(By.CSS_SELECTOR, "#tag summary").click()
    sound = folder / "sounds" / "noise.wav"
    browser.find_element(By.ID, "tag-file").send_keys(str(sound))
    said, answer = send(browser, "tag")
    assert ": 200" in said
    assert json.loads(answer)["path"] == "noise.wav"

    change = browser.find_element(By.CSS_SELECTOR, "#change_label summary")
    # Else it may lie behind the header, where the driver takes it to be in view.
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", change)
    change.click()
    said, answer = send(browser, "change_label")
    assert ": 200" in said
    assert json.loads(answer)["corrections"][0]["label"] == "Dog"
    errors = [entry for entry in browser.get_log("browser") if "Content Security" in str(entry)]
    assert errors == []


@pytest.mark.parametrize("look", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_the_api(browser: Chrome, address: str, look: str) -> None:
    scheme(browser, look)
    for width in (1280, 390):
        resize(browser, width, 900)
        browser.get(f"{address}/api")
        for summary in browser.find_elements(By.CSS_SELECTOR, ".operation summary"):
            browser.execute_script("arguments[0].parentElement.open = true", summary)
        found = Axe().run(browser)["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
    scheme(browser, "light")
    resize(browser, 1280, 900)


def test_user_signs_in_and_out_by_keyboard(browser: Chrome, tmp_path: Path) -> None:
    add_user(tmp_path / "users", "ada", "a long password")
    with served(ScriptedLibrary([video(1)]), port=0, users=tmp_path / "users") as url:
        browser.get(f"{url}?q=Car")
        wait_for_focus(browser, "user")
        assert Axe().run(browser)["violations"] == []
        browser.switch_to.active_element.send_keys("ada", Keys.TAB)
        browser.switch_to.active_element.send_keys("a long password", Keys.ENTER)
        wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".hit"))
        assert browser.current_url == f"{url}?q=Car"
        browser.find_element(By.CSS_SELECTOR, ".sign-out button").click()
        wait(browser, lambda: browser.find_elements(By.ID, "user"))
        browser.get(f"{url}?q=Car")
        assert browser.find_elements(By.CSS_SELECTOR, ".hit") == []
