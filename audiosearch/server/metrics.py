"""Figures of a running server in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Flask, Response, current_app, g, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["MEDIA_TYPE", "exposition", "register"]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_EXTENSION = "audiosearch.metrics"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_OUTCOMES = {413: "too_large", 422: "unusable", 429: "too_often", 503: "busy"}


class _LibrarySizes(Collector):
    """What the library holds, asked for when the figures are read."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def collect(self) -> Iterator[Metric]:
        info = self._library.info()
        for name, text, value in (
            ("recordings", "Recordings in the library.", info.recordings),
            ("clips", "Clips in the library.", info.clips),
            ("sound_seconds", "Length of all recordings.", info.seconds),
            ("bytes", "Size of the library on disk.", info.bytes),
        ):
            yield GaugeMetricFamily(f"audiosearch_library_{name}", text, value=value)

    def describe(self) -> list[Metric]:
        return []


class _Figures:
    def __init__(self, library: Library) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "audiosearch_http_requests",
            "Requests by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "audiosearch_http_request_seconds",
            "Time from a request's arrival in the application to its answer.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.uploads = Counter(
            "audiosearch_uploads",
            "Files that were sent, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        self.registry.register(_LibrarySizes(library))
        ProcessCollector(registry=self.registry)


def register(app: Flask, library: Library) -> None:
    """Count the requests of `app`; call it before anything else asks to see them."""
    figures = app.extensions[_EXTENSION] = _Figures(library)

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        # Labels come from a fixed set: a client cannot fill the memory with new ones.
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.method in _METHODS else "other"
        status = response.status_code
        figures.requests.labels(method, route, str(status)).inc()
        if "began" in g:
            figures.seconds.labels(route).observe(time.perf_counter() - g.began)
        view = app.view_functions.get(request.endpoint or "")
        if method == "POST" and getattr(view, "takes_upload", False):
            outcome = "analysed" if status < 400 else _OUTCOMES.get(status, "refused")
            figures.uploads.labels(outcome).inc()
        return response


def exposition() -> bytes:
    """Return the figures as text."""
    figures: _Figures = current_app.extensions[_EXTENSION]
    return generate_latest(figures.registry)
