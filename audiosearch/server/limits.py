"""What an upload may be, and how many a client may send: the limits of a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from flask import Flask, current_app, request
from werkzeug.exceptions import TooManyRequests

from audiosearch.errors import InvalidArgumentError
from audiosearch.server.throttle import Throttle, network_of, whole_seconds

__all__ = ["Limits", "limit_body", "limit_uploads", "register", "takes_upload"]

_LARGEST_FORM = 256 * 1024

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Limits:
    """What the server takes from those who use it.

    Attributes
    ----------
    upload_bytes : int
        The largest file that may be sent.
    upload_seconds : float
        The longest sound.
    upload_memory : int
        Megabytes that decoding one may take, beyond what the models take (Linux).
    upload_time : float
        Seconds after which decoding is given up.
    uploads_at_once : int
        How many files are analysed at the same time; more are turned away (503).
    uploads_a_minute : int
        How many files a client may send in a minute; more are turned away (429).

    Raises
    ------
    InvalidArgumentError
        When one is not above 0.
    """

    upload_bytes: int = 200 * 10**6
    upload_seconds: float = 3600.0
    upload_memory: int = 1024
    upload_time: float = 120.0
    uploads_at_once: int = 4
    uploads_a_minute: int = 30

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value < float("inf"):
                raise InvalidArgumentError(f"{each.name} must be above 0, not {value}.")


def takes_upload(view: View) -> View:
    """Mark a view that takes a file: how often a client may ask it is limited.

    The limit comes before the file is read.
    """
    view.takes_upload = True  # type: ignore[attr-defined]
    return view


def register(app: Flask, limits: Limits) -> None:
    """Make these the limits of `app`."""
    # The multipart framing around the file comes on top of it.
    app.config["MAX_CONTENT_LENGTH"] = limits.upload_bytes + 64 * 1024
    app.config["UPLOAD_LIMIT"] = limits.upload_bytes
    uploads = Throttle(limits.uploads_a_minute, 60.0)
    app.extensions["audiosearch.limits"] = limits, uploads


def limit_body() -> None:
    """Let only requests that send a file be long."""
    if not _sends_file():
        request.max_content_length = _LARGEST_FORM


def limit_uploads() -> None:
    """Answer 429 where the request sends a file and its client sent too many."""
    if not _sends_file():
        return
    limits, uploads = current_app.extensions["audiosearch.limits"]
    wait = uploads.take(network_of(request.remote_addr))
    if wait:
        seconds = whole_seconds(wait)
        raise TooManyRequests(
            f"More than {limits.uploads_a_minute} files a minute came from your address. "
            f"Send the next one in {seconds} s.",
            retry_after=int(seconds),
        )


def _sends_file() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return request.method == "POST" and getattr(view, "takes_upload", False)
