"""How fast the web app answers: many users, saturation, a soak with uploads, and the first paint.

python bench/web.py
python bench/web.py --library DIR --seconds 60 --soak 120

The server is a process of its own, as `audiosearch serve` starts it; the load comes from this one,
over loopback. It is an open loop: every user asks at times that are fixed beforehand, and a time is
counted from when a request was due, so that a slow answer delays no question.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urljoin, urlsplit

import numpy as np

from audiosearch.labels import load_labels

USERS = 50
STATIC = re.compile(r'(?:href|src)="(/static/[^"]+)"')
STRIP = re.compile(r'src="(/clips/\d+/strip\.png)"')


@dataclass
class Times:
    """Answers to one kind of request: seconds by status, and what never came."""

    seconds: list[float] = field(default_factory=list)
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    lost: int = 0

    def add(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        self.seconds.append(seconds)

    def line(self) -> str:
        """Return the figures as one line."""
        if not self.seconds:
            return f"no answer; {self.lost} lost"
        marks = np.percentile(np.array(self.seconds) * 1000, [50, 95, 99, 100])
        texts = (
            f"{name} {mark:.1f}"
            for name, mark in zip(("p50", "p95", "p99", "max"), marks, strict=True)
        )
        statuses = ", ".join(f"{number} x {count}" for number, count in self.statuses.items())
        return f"{' '.join(texts)} ms; {statuses}; {self.lost} lost"


class Connection:
    """One connection that is kept open, for one request after another."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return status and body; raise OSError where no answer comes."""
        if self._ends is None:
            self._ends = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._ends
        try:
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(None, 2)[1])
            length = re.search(r"(?i)^content-length: *(\d+)", head, re.MULTILINE)
            if length is None:
                raise OSError(f"an answer without a length: {head!r}")
            body = await reader.readexactly(int(length[1]))
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise OSError(str(error)) from error
        if re.search(r"(?im)^connection: *close", head):
            self.close()
        return status, body

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


@contextlib.contextmanager
def served(library: Path | None) -> Iterator[str]:
    """Serve a library, the shipped one where None, and give the server's address."""
    command = [sys.executable, "-u", "-m", "audiosearch", "serve", "--port", "0"]
    if library is not None:
        command += ["--library", str(library)]
    with tempfile.TemporaryDirectory() as home:
        # Whoever runs this may have a library: the shipped one is what is measured then, too.
        environment = {**os.environ, "XDG_DATA_HOME": home}
        environment.pop("AUDIOSEARCH_LIBRARY", None)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                found = re.search(r"http://[\w.:\[\]]+/", line)
                if found:
                    break
            else:
                raise SystemExit("The server did not start.")
            yield found[0]
        finally:
            process.terminate()
            process.wait(30)


def page_request(host: str, query: str) -> bytes:
    """Return the request for a page of hits, as a browser sends it."""
    return (
        f"GET /?q={quote_plus(query)} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n"
        "Accept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n"
    ).encode()


def upload_request(host: str, sound: bytes) -> bytes:
    """Return a request for what is like a sound file."""
    edge = "edge-of-a-part"
    body = (
        f"--{edge}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"noise.wav\"\r\n"
        "Content-Type: audio/wav\r\n\r\n"
    ).encode() + sound + f"\r\n--{edge}--\r\n".encode()  # fmt: skip
    head = (
        f"POST /api/v1/similar HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: multipart/form-data; boundary={edge}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
    )
    return head.encode() + body


def queries(seed: int) -> Callable[[], str]:
    """Return what gives one query after another: classes, now and then two of them."""
    names, chance = load_labels().names, random.Random(seed)

    def one() -> str:
        first, second = (f'"{name}"' for name in chance.sample(names, 2))
        return chance.choice([first, first, first, f"{first} -{second}", f"{first} OR {second}"])

    return one


def noise(seconds: float, seed: int) -> bytes:
    """Return a wav file of noise, 16 kHz."""
    samples = np.random.default_rng(seed).normal(0, 3000, int(seconds * 16_000))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


async def open_loop(
    url: str, ask: Callable[[], bytes], *, users: int, every: float, seconds: float, times: Times
) -> None:
    """Let each user ask every `every` seconds, from times that are spread evenly."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    start = time.perf_counter() + 0.2

    async def user(number: int) -> None:
        connection = Connection(host, port)
        due = start + every * number / users
        while due < start + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                status, _ = await connection.ask(ask())
                times.add(status, time.perf_counter() - due)
            except OSError:
                times.lost += 1
            due += every
        connection.close()

    await asyncio.gather(*(user(number) for number in range(users)))


async def closed_loop(
    url: str, ask: Callable[[], bytes], *, clients: int, seconds: float
) -> tuple[float, Times]:
    """Let each client ask as soon as it was answered; return answers a second."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    times, start = Times(), time.perf_counter()

    async def client() -> None:
        connection = Connection(host, port)
        while (began := time.perf_counter()) < start + seconds:
            try:
                status, _ = await connection.ask(ask())
                times.add(status, time.perf_counter() - began)
            except OSError:
                times.lost += 1
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return len(times.seconds) / (time.perf_counter() - start), times


async def weigh(url: str, query: str) -> list[tuple[str, int, int]]:
    """Return the parts of a page of hits with their bytes, plain and as they are sent."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    connection = Connection(host, port)

    async def body(path: str, *, packed: bool = False) -> bytes:
        accepts = "Accept-Encoding: gzip\r\n" if packed else ""
        request = f"GET {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n{accepts}\r\n"
        status, found = await connection.ask(request.encode())
        if status != 200:
            raise SystemExit(f"{path} answers {status}.")
        return found

    async def both(name: str, paths: Iterable[str]) -> tuple[str, int, int]:
        plain = [len(await body(path)) for path in paths]
        sent = [len(await body(path, packed=True)) for path in paths]
        return name, sum(plain), sum(sent)

    page = f"/?q={quote_plus(query)}"
    text = (await body(page)).decode()
    parts = [await both("page", [page])]
    for path in dict.fromkeys(STATIC.findall(text)):
        parts.append(await both(urlsplit(path).path, [path]))
    strips = STRIP.findall(text)
    if strips:
        parts.append(await both(f"{len(strips)} strips", strips))
    connection.close()
    return parts


def start_chromium(profile: str) -> Any | None:
    """Start Chromium without a screen, None where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        return None
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
                 "--no-first-run", "--disable-background-networking", "--disable-sync",
                 "--disable-component-update", "--window-size=1280,900",
                 f"--user-data-dir={profile}"):  # fmt: skip
        options.add_argument(flag)
    return Chrome(options=options, service=Service(driver))


def first_paint(url: str, repeats: int) -> list[float] | None:
    """Return the milliseconds to the first paint of pages of hits in Chromium, None without it."""
    with tempfile.TemporaryDirectory() as profile:
        browser = start_chromium(profile)
        if browser is None:
            return None
        try:
            found = []
            for query in ("Car", "Dog", "Music", "Rain", "Siren")[:repeats]:
                browser.get(urljoin(url, f"/?q={query}"))
                deadline = time.perf_counter() + 10
                paint = None
                while paint is None and time.perf_counter() < deadline:
                    paint = browser.execute_script(
                        "const [first] = performance.getEntriesByName('first-contentful-paint');"
                        "return first ? first.startTime : null;"
                    )
                    time.sleep(0.05)
                if paint is not None:
                    found.append(float(paint))
            return found
        finally:
            browser.quit()


async def measure(url: str, options: argparse.Namespace) -> None:
    host = urlsplit(url).netloc
    query = queries(options.seed)

    def ask() -> bytes:
        return page_request(host, query())

    warm = Times()
    await open_loop(url, ask, users=options.users, every=1.0, seconds=5, times=warm)
    times = Times()
    await open_loop(url, ask, users=options.users, every=1.0, seconds=options.seconds, times=times)
    print(f"{options.users} users, one page a second each, {options.seconds:g} s: {times.line()}")
    for clients in (1, 8):
        rate, times = await closed_loop(url, ask, clients=clients, seconds=10)
        print(f"saturation, {clients} at once: {rate:.0f} pages a second; {times.line()}")
    if options.soak:
        pages, uploads = Times(), Times()
        sounds = [noise(5, seed) for seed in range(20)]
        chance = random.Random(options.seed)

        def send() -> bytes:
            return upload_request(host, chance.choice(sounds))

        await asyncio.gather(
            open_loop(url, ask, users=options.users, every=1.0, seconds=options.soak, times=pages),
            open_loop(url, send, users=2, every=4.0, seconds=options.soak, times=uploads),
        )
        print(f"soak of {options.soak:g} s, pages: {pages.line()}")
        print(f"soak of {options.soak:g} s, uploads of 5 s of sound: {uploads.line()}")
    parts = await weigh(url, options.weigh)
    for name, plain, packed in parts:
        print(f"{name:<32} {plain / 1000:8.1f} kB {packed / 1000:8.1f} kB as sent")
    plain, packed = sum(part[1] for part in parts), sum(part[2] for part in parts)
    print(f"{'all':<32} {plain / 1000:8.1f} kB {packed / 1000:8.1f} kB as sent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, help="library folder (the shipped one)")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--soak", type=float, default=120.0, help="seconds; 0 for none")
    parser.add_argument("--weigh", default="Car", help="the query whose page is weighed (Car)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with served(options.library) as url:
        asyncio.run(measure(url, options))
        paints = first_paint(url, 5)
        if paints:
            print(f"first paint: {min(paints):.0f} to {max(paints):.0f} ms")
        else:
            print("first paint: not measured, there is no Chromium")


if __name__ == "__main__":
    main()
