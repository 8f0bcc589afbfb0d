"""A real Chromium for tests, driven without a screen, and servers for it to look at."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from audiosearch.server import serve

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A microphone that gives a beep, without asking.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--window-size=1280,900",
)


def start_browser(profile: Path, *, scripts: bool = True) -> Chrome:
    """Start Chromium with a profile of its own."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        # The project's own check refuses this skip; a newcomer's first run should not fail on it.
        pytest.skip("no Chromium and driver; on Debian: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    if not scripts:
        options.add_experimental_option(
            "prefs", {"profile.managed_default_content_settings.javascript": 2}
        )
    browser = Chrome(options=options, service=Service(driver))
    browser.set_page_load_timeout(120)
    browser.set_script_timeout(120)
    return browser


def resize(browser: Chrome, width: int, height: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def scheme(browser: Chrome, name: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": name}]},
    )


def requested(browser: Chrome) -> list[str]:
    """Every URL that pages have asked for since the last call."""
    urls = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
    return urls


def wait(browser: Chrome, condition: Callable[[], object], seconds: float = 20) -> None:
    waiting = WebDriverWait(
        browser, seconds, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException]
    )
    waiting.until(lambda _: condition())


def wait_for_focus(browser: Chrome, name: str) -> None:
    """Wait until the field with this id has the focus: browsers give it after the page loaded."""
    wait(browser, lambda: browser.switch_to.active_element.get_attribute("id") == name)


def listening(library: object) -> str:
    """Serve a library in a thread that ends with the test run; return its URL without a slash."""
    ready = threading.Event()
    urls: list[str] = []

    def announce(url: str) -> None:
        urls.append(url)
        ready.set()

    threading.Thread(
        target=serve, args=(library,), kwargs={"port": 0, "announce": announce}, daemon=True
    ).start()
    assert ready.wait(20)
    return urls[0].rstrip("/")


def press(browser: Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def focus(browser: Chrome) -> dict[str, str]:
    return browser.execute_script(
        "const e = document.activeElement;"
        "return {tag: e.tagName, id: e.id, text: e.textContent.trim(), type: e.type || '',"
        " outline: getComputedStyle(e.type === 'file' ? e.parentElement : e).outlineStyle};"
    )
