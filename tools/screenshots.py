"""Take the pictures of the web app that the documents show.

    python tools/screenshots.py

It makes sounds, indexes them, serves them and the library that comes with audiosearch, and looks at
both with a headless Chromium (``apt-get install chromium chromium-driver``). Pictures go to
``docs/images``, each with as many colours as it takes to stay below `LARGEST` bytes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

import audiosearch
from audiosearch.library.library import Library
from audiosearch.server import serve

RATE = 22_050
LARGEST = 300_000
SHOWN = Path(tempfile.gettempdir()) / "Recordings"
"""Where the sounds lie, which pictures show."""
REPOSITORY = Path(__file__).resolve().parent.parent

Sound = npt.NDArray[np.float64]


def times(seconds: float) -> Sound:
    return np.arange(round(seconds * RATE)) / RATE


def fade(sound: Sound, seconds: float = 0.02) -> Sound:
    n = min(round(seconds * RATE), len(sound) // 2)
    ramp = np.linspace(0, 1, n)
    sound[:n] *= ramp
    sound[len(sound) - n :] *= ramp[::-1]
    return sound


def pluck(hertz: float, seconds: float, random: np.random.Generator) -> Sound:
    """A plucked string, after Karplus and Strong."""
    from scipy.signal import lfilter

    period = round(RATE / hertz)
    noise = np.zeros(round(seconds * RATE))
    noise[:period] = random.uniform(-1, 1, period)
    loop = np.zeros(period + 2)
    loop[0], loop[period], loop[period + 1] = 1.0, -0.498, -0.498
    return fade(lfilter([1.0], loop, noise))


def melody(random: np.random.Generator, seconds: float) -> Sound:
    sound = np.zeros(round(seconds * RATE))
    notes = 196.0 * 2 ** (np.array([0, 4, 7, 12, 9, 7, 4, 2, 5, 9, 12, 14, 11, 7, 4, 0]) / 12)
    for number in range(int((seconds - 1.6) / 0.24)):
        note = pluck(float(notes[number % len(notes)]), 1.5, random)
        at = round(number * 0.24 * RATE)
        sound[at : at + len(note)] += note
    return 0.3 * sound / np.abs(sound).max()


def rain(random: np.random.Generator, seconds: float) -> Sound:
    from scipy.signal import butter, sosfilt

    high = butter(2, 900, "high", fs=RATE, output="sos")
    sound = sosfilt(high, random.normal(0, 1, len(times(seconds))))
    drops = (random.random(len(sound)) < 0.002) * random.normal(0, 12, len(sound))
    return 0.06 * (np.asarray(sound) + drops)


def siren(random: np.random.Generator, seconds: float) -> Sound:
    at = times(seconds)
    hertz = 900 + 450 * np.sin(2 * np.pi * at / 3.2)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 6))
    return 0.22 * np.asarray(tone) + random.normal(0, 0.01, len(at))


def birds(random: np.random.Generator, seconds: float) -> Sound:
    sound = random.normal(0, 0.004, len(times(seconds)))
    start = 0.2
    while start < seconds - 1:
        for _ in range(int(random.integers(2, 6))):
            length = float(random.uniform(0.06, 0.14))
            at = times(length)
            low, high = random.uniform(2500, 3500), random.uniform(4000, 6500)
            hertz = np.linspace(high, low, len(at)) + 200 * np.sin(2 * np.pi * 35 * at)
            chirp = fade(np.sin(2 * np.pi * np.cumsum(hertz) / RATE), 0.015)
            place = round(start * RATE)
            if place + len(chirp) < len(sound):
                sound[place : place + len(chirp)] += 0.25 * chirp
            start += length + float(random.uniform(0.02, 0.08))
        start += float(random.uniform(0.25, 0.8))
    return sound


def bells(random: np.random.Generator, seconds: float) -> Sound:
    sound = np.zeros(len(times(seconds)))
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 3.01])[:, None]
    levels = np.array([0.5, 1.0, 0.7, 0.4, 0.6, 0.3, 0.2])[:, None]
    for number in range(int(seconds // 1.1)):
        at = times(min(3.5, seconds - number * 1.1))
        base = float(random.choice([392.0, 440.0, 523.25, 587.33]))
        waves = np.exp(-at * (0.8 + ratios)) * np.sin(2 * np.pi * base * ratios * at)
        tone = (levels * waves).sum(axis=0)
        place = round(number * 1.1 * RATE)
        sound[place : place + len(at)] += tone
    return 0.3 * sound / np.abs(sound).max()


KINDS: dict[str, Callable[[np.random.Generator, float], Sound]] = {
    "garden/birds": birds,
    "garden/rain": rain,
    "music/strings": melody,
    "town/bells": bells,
    "town/siren": siren,
}


def make_sounds(folder: Path) -> None:
    """Write two sounds of each kind, and one in which all of them follow each other."""
    random = np.random.default_rng(11)
    for name, kind in KINDS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            soundfile.write(folder / f"{name} {number}.flac", kind(random, 9.0 + number), RATE)
    order = (birds, rain, melody, bells, siren, birds, rain)
    walk = np.concatenate([fade(kind(random, 10.0), 0.5) for kind in order])
    soundfile.write(folder / "a walk.flac", walk, RATE)


def listening(library: Library) -> str:
    """Serve a library until the program ends; return its URL without a slash."""
    ready = threading.Event()
    urls: list[str] = []

    def announce(url: str) -> None:
        urls.append(url)
        ready.set()

    options: dict[str, Any] = {"port": 0, "announce": announce}
    threading.Thread(target=serve, args=(library,), kwargs=options, daemon=True).start()
    if not ready.wait(60):
        raise SystemExit("The server did not start.")
    return urls[0].rstrip("/")


def start_browser(profile: str) -> Any:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        raise SystemExit("No Chromium and driver: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    return Chrome(options=options, service=Service(driver))


def take(browser: Any, url: str, path: Path, *, size: tuple[int, int], dark: bool) -> None:
    """Look at a page and write what is seen."""
    import io

    from PIL import Image

    width, height = size
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(url)
    done = "return [...document.images].filter(i => i.getBoundingClientRect().top < innerHeight)"
    for _ in range(100):
        if browser.execute_script(f"{done}.every(i => i.complete)"):
            break
        time.sleep(0.1)
    time.sleep(2)  # tiles within drawings are no images of the document
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in (256, 128, 64, 32):
        picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            break
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audiosearch-") as name, ExitStack() as after:
        folder = Path(name)
        SHOWN.mkdir()  # refused where there is one
        after.callback(shutil.rmtree, SHOWN)
        make_sounds(SHOWN)
        audiosearch.index([SHOWN], folder / "library")
        with (
            audiosearch.open_library(folder / "library") as own,
            audiosearch.open_library(audiosearch.shipped_library()) as shipped,
        ):
            mine, theirs = listening(own), listening(shipped)
            walk = own.search('path:"a walk"', grouped=False, order="path").hits
            clip = min(hit.clip for hit in walk) + 2
            browser = start_browser(str(folder / "profile"))
            try:
                wide, phone = (1200, 860), (390, 844)
                pages: list[tuple[str, str, tuple[int, int], bool]] = [
                    ("search", f"{theirs}/?q=dog+-music", wide, False),
                    ("grid", f"{mine}/?q=music+OR+bird+OR+siren+OR+rain&view=grid", wide, True),
                    ("clip", f"{mine}/clip/{clip}", wide, False),
                    ("clip-phone", f"{mine}/clip/{clip}", phone, True),
                ]
                for page, url, size, dark in pages:
                    take(browser, url, arguments.out / f"{page}.png", size=size, dark=dark)
            finally:
                browser.quit()


if __name__ == "__main__":
    main()
