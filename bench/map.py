"""How smoothly the map of a library moves in Chromium: the times between frames.

    python bench/map.py --library DIR

The map is laid out first where it is not yet, and kept in the library's folder. The page is driven
as by hand, one step before each frame: zooming in and out, dragging, and pointing at clips, in a
headless Chromium that draws without a graphics card.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import audiosearch as aus
from audiosearch.library.collection_map import collection_map
from web import served, start_chromium

FRAMES = 240
DRIVER = """
const [kind, frames, done] = arguments;
const canvas = document.getElementById('map');
canvas.scrollIntoView({block: 'center'});
const box = canvas.getBoundingClientRect();
const middle = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2};
const send = (type, where, more) => canvas.dispatchEvent(new (type === 'wheel' ? WheelEvent
  : PointerEvent)(type, {bubbles: true, cancelable: true, pointerId: 1, ...where, ...more}));
canvas.setPointerCapture = () => {};
const steps = {
  zooming: (n) => send('wheel', middle, {deltaY: n < frames / 2 ? -30 : 30}),
  dragging: (n) => {
    const turn = 2 * Math.PI * n / 60;
    const where = {clientX: middle.clientX + 150 * Math.cos(turn),
                   clientY: middle.clientY + 150 * Math.sin(turn)};
    if (n === 0) send('pointerdown', where);
    send('pointermove', where);
    if (n === frames - 1) send('pointercancel', where);
  },
  pointing: (n) => send('pointermove', {clientX: box.left + (n * 37) % box.width,
                                        clientY: box.top + (n * 23) % box.height}),
};
document.getElementById('map-plays').checked = false;
const between = [];
let last = 0;
let number = 0;
function frame(now) {
  if (last) between.push(now - last);
  last = now;
  if (number === frames) { done(between); return; }
  steps[kind](number);
  number += 1;
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
"""


def moved(browser: Any, url: str) -> tuple[int, dict[str, np.ndarray]]:
    """Return how many points the map has, and the milliseconds between frames of each movement."""
    browser.get(url + "browse/map")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready = browser.execute_script("return document.getElementById('map').dataset.ready")
        if ready:
            break
        time.sleep(0.1)
    else:
        raise SystemExit("The map was not drawn in a minute.")
    found = {}
    for kind in ("zooming", "dragging", "pointing"):
        times = browser.execute_async_script(DRIVER, kind, FRAMES)
        found[kind] = np.array(times[5:])
    return int(ready), found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--library", type=Path, help="library folder (the shipped one)")
    arguments = parser.parse_args()
    with aus.open_library(arguments.library or aus.shipped_library()) as library:
        began = time.process_time()
        collection_map(library)
        print(f"the map was there after {time.process_time() - began:.1f} s of processor time")
    with served(arguments.library) as url, tempfile.TemporaryDirectory() as profile:
        browser = start_chromium(profile)
        if browser is None:
            raise SystemExit("No Chromium and driver: apt-get install chromium chromium-driver")
        try:
            browser.set_script_timeout(120)
            points, found = moved(browser, url)
        finally:
            browser.quit()
    print(f"{points:,} points, {FRAMES} frames of each movement; ms between frames")
    for kind, times in found.items():
        marks = np.percentile(times, [50, 95, 100])
        line = " ".join(f"{n} {m:.1f}" for n, m in zip(("p50", "p95", "max"), marks, strict=True))
        print(f"{kind:<10} {line}; {1000 / times.mean():.0f} frames a second")


if __name__ == "__main__":
    main()
