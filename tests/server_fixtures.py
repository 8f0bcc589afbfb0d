"""Libraries for the web app's tests: one scripted, one of real small sounds; the API's client."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
from conftest import write_packed
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import audiosearch
from audiosearch.errors import LibraryError, QueryError
from audiosearch.library.completion import Completion
from audiosearch.library.diagnosis import QueryPart
from audiosearch.library.examples import Examples, listed
from audiosearch.library.facets import Facet, Facets
from audiosearch.library.hits import Clip, Hit, Moment, SearchResult, Tag
from audiosearch.library.timeline import Curve, Timeline
from audiosearch.server import create_app, serve
from audiosearch.server.limits import Limits
from audiosearch.server.schemas import SCHEMAS
from audiosearch.server.state import state_of

PROBLEM = "application/problem+json"

TAGS = [
    Tag("Vehicle", "/m/07yv9", 0.97),
    Tag("Car", "/m/0k4j", 0.93),
    Tag("Car passing by", "/t/dd00134", 0.71),
    Tag("Race car, auto racing", "/m/0ltv", 0.333),
    Tag("Rock and roll", "/m/06by7", 0.08),
]


def video(number: int, *, score: float = 0.9, recording: str | None = None) -> Hit:
    """A hit in an AudioSet clip, from 0:30 to 0:40."""
    return Hit(
        recording=recording or f"-0abcdef{number:03d}",
        source="audioset",
        recording_id=number,
        clip=number,
        start=30.0,
        end=40.0,
        score=score,
        label="Car",
        tags=TAGS,
        labels=["Car", "Traffic noise, roadway noise"],
    )


def sound(number: int, recording: str, *, moments: int = 0, score: float = 0.8) -> Hit:
    """A hit in a file, from 0:09.6 to 0:19.2."""
    return Hit(
        recording=recording,
        source="file",
        recording_id=number,
        clip=number,
        start=9.6,
        end=19.2,
        score=score,
        label="Car",
        tags=TAGS,
        moments=[
            Moment(1000 + n, 30 + 9.6 * n, 39.6 + 9.6 * n, 0.7 - n / 1000, "Car")
            for n in range(moments)
        ],
    )


@dataclass
class Facts:
    """What `ScriptedLibrary.info` returns."""

    clips: int
    recordings: int
    seconds: float
    folder: str = "/music/library"
    bytes: int = 14_200_000

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Skipped:
    """A file that could not be indexed."""

    path: str
    reason: str


class ScriptedLibrary:
    """Finds the hits it was made with, for every query but two.

    "Carr" is an unknown class; "Zither" is a known one that no clip holds.
    """

    shipped = False
    writable = False

    def __init__(
        self,
        hits: list[Hit],
        files: dict[int, Path] | None = None,
        lengths: dict[int, float] | None = None,
    ) -> None:
        self.hits = hits
        self.files = files or {}
        self.lengths = lengths or {}
        self.not_indexed: list[Skipped] = []

    def info(self) -> Facts:
        return Facts(len(self.hits), len(self.hits), 10.0 * len(self.hits))

    def revision(self) -> str:
        return f"{len(self.hits)}"

    def skipped(self) -> list[Skipped]:
        return self.not_indexed

    def search(
        self,
        query: str,
        *,
        limit: int = 20,
        offset: int = 0,
        fold: bool = False,
        grouped: bool = True,
        order: str = "score",
    ) -> SearchResult:
        if query == "Carr":
            raise QueryError(
                "No class is called 'Carr'.",
                query=query,
                position=0,
                suggestions=["Car", "Race car, auto racing"],
            )
        hits = [] if "Zither" in query else self.hits
        if fold:  # every other one is a copy of that before
            hits = [
                replace(hit, copies=[other.recording])
                for hit, other in zip(hits[::2], hits[1::2], strict=False)
            ]
        if order == "path":
            hits = sorted(hits, key=lambda hit: hit.recording)
        return self._page(query, hits, limit, offset)

    def facets(self, query: str, *, fold: bool = False) -> Facets:
        def facet(text: str, piece: str, count: int) -> Facet:
            return Facet(text, piece, f"{query} {piece}", count)

        return Facets(
            [facet("above 0.1", "score:>0.1", 30)],
            [facet("<b>Speech</b>", 'label:"Speech"', 31), facet("Music", 'label:"Music"', 7)],
            [facet("holiday", 'path:"/music/holiday/*"', 3)],
            [facet("under 2 s", "duration:<2", 2)],
            [],
        )

    def query_parts(self, query: str) -> list[QueryPart]:
        if " " not in query:
            return []
        first, second = query.split()
        return [QueryPart(first, 4, second, 0), QueryPart(second, 0, first, 4)]

    def complete(self, query: str, *, limit: int = 8) -> list[Completion]:
        known = [("Car", "Car", 45), ("carro", "Car", 45), ("Car alarm", "Car alarm", 3)]
        return [
            Completion(text, label, count, text if " " not in text else f'"{text}"')
            for text, label, count in known
            if query and text.lower().startswith(query.lower())
        ][:limit]

    def beside(self, clip_id: int, *, count: int = 3) -> tuple[list[Clip], list[Clip]]:
        self.clip(clip_id)
        return [], []

    def outline(self, clip_id: int, *, top: int = 4, most: int = 300) -> Timeline:
        clip = self.clip(clip_id)
        length = self.lengths.get(clip.recording_id, clip.end)
        start = 0.0 if clip.source == "file" else clip.start
        steps = math.ceil(length / 9.6)
        return Timeline(
            clip.recording_id, start, length, 9.6, [Curve("Car", "/m/0k4j", [0.9] * steps)]
        )

    def packed_frames_at_hand(self) -> bool:
        return False

    def timeline(
        self, clip_id: int, *, start: float | None = None, end: float | None = None, top: int = 6
    ) -> Timeline:
        clip = self.clip(clip_id)
        start, end = start or 0.0, self.duration(clip.recording_id) if end is None else end
        if clip.source != "file":
            return Timeline(clip.recording_id, start, end, 0.96, [])
        scores = [number % 10 / 10 for number in range(math.ceil((end - start) / 0.96))]
        curves = [Curve("Car", "/m/0k4j", scores), Curve("<i>Dog</i>", "/m/0bt9lr", scores[::-1])]
        return Timeline(clip.recording_id, start, end, 0.96, curves)

    def duration(self, recording_id: int) -> float:
        self.audio_path(recording_id)
        return self.lengths.get(recording_id, 19.2)

    def similar(
        self, examples: Examples, *, limit: int = 20, offset: int = 0, **_: object
    ) -> SearchResult:
        for example in listed(examples):
            self.clip(example.source)
        return self._page(None, self.hits, limit, offset)

    def clip(self, clip_id: int, *, top: int = 5) -> Clip:
        for hit in self.hits:
            if hit.clip == clip_id:
                return Clip(
                    recording=hit.recording,
                    source=hit.source,
                    recording_id=hit.recording_id,
                    clip=hit.clip,
                    start=hit.start,
                    end=hit.end,
                    duration=None,
                    tags=hit.tags[:top],
                    labels=hit.labels,
                )
        raise LibraryError(f"There is no clip {clip_id} in this library.")

    def audio_path(self, recording_id: int) -> Path | None:
        if recording_id not in {hit.recording_id for hit in self.hits}:
            raise LibraryError(f"There is no recording {recording_id} in this library.")
        return self.files.get(recording_id)

    def leads_elsewhere(self, recording_id: int) -> bool:
        return False

    @staticmethod
    def _page(query: str | None, hits: list[Hit], limit: int, offset: int) -> SearchResult:
        return SearchResult(
            query=query,
            total=len(hits),
            total_clips=sum(1 + len(hit.moments) for hit in hits),
            offset=offset,
            limit=limit,
            hits=hits[offset : offset + limit],
        )


def make_own_library(folder: Path) -> Path:
    """Index four sounds, one broken file and forty packed clips; return `folder`.

    It gets ``sounds/`` and ``library/``.
    """
    sounds = folder / "sounds"
    sounds.mkdir()
    random = np.random.default_rng(5)
    for name, seconds in (("noise.wav", 25), ("<b>tone<b>.flac", 3), ("old.aiff", 12)):
        soundfile.write(sounds / name, random.normal(0, 0.1, 16_000 * seconds), 16_000)
    time = np.arange(16_000 * 4) / 16_000
    soundfile.write(sounds / "Büro 音.wav", 0.4 * np.sin(2 * np.pi * 440 * time), 16_000)
    (sounds / "broken.wav").write_bytes(b"no sound at all" * 100)
    packed = write_packed(folder / "packed.h5")
    audiosearch.index([sounds, packed], folder / "library", mix_embedders=True)
    return folder


@contextmanager
def served(library: Any, **options: object) -> Iterator[str]:
    """Serve in a thread that ends with the test run, and yield the URL once it listens."""
    ready = threading.Event()
    urls: list[str] = []

    def announce(url: str) -> None:
        urls.append(url)
        ready.set()

    thread = threading.Thread(
        target=serve, args=(library,), kwargs={"announce": announce, **options}, daemon=True
    )
    thread.start()
    assert ready.wait(20)
    yield urls[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_own_library(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[audiosearch.Library]:
    with audiosearch.open_library(folder / "library") as library:
        yield library


@pytest.fixture(scope="module")
def app(library: audiosearch.Library) -> Iterator[Flask]:
    app = create_app(library, limits=Limits(uploads_a_minute=100_000))
    yield app
    state_of(app).close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def valid(value: Any, schema: str) -> None:
    """Hold a value against one of the document's schemas."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": SCHEMAS}}
    jsonschema.Draft202012Validator(whole).validate(value)


def a_clip_of(library: audiosearch.Library, name: str) -> int:
    """The first clip of a file."""
    clips = range(library.info().clips)
    return next(number for number in clips if library.clip(number).recording.endswith(name))


def upload(client: FlaskClient, path: Path, to: str, **values: Any) -> TestResponse:
    return client.post(to, data={"file": (io.BytesIO(path.read_bytes()), path.name), **values})
