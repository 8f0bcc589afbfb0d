"""What need not be sent again, and what is sent compressed.

An answer of the API depends on the request and on what the library holds, so its ETag is made of
these two, before anything is searched.
"""

from __future__ import annotations

import functools
import gzip
import hashlib

from flask import Flask, Response, current_app, request

from audiosearch.server.state import library_of
from audiosearch.version import __version__

__all__ = ["compress", "is_known", "register", "tag_of_request"]

_LEVEL = 4
_LEAST = 1000
_TEXTS = frozenset(
    {
        "application/javascript",
        "application/json",
        "application/problem+json",
        "image/svg+xml",
    }
)


def register(app: Flask) -> None:
    """Compress the answers of `app`."""
    app.after_request(compress)


def tag_of_request() -> str:
    """Return the ETag of what this request is answered with now."""
    facts = (__version__, library_of(current_app).revision(), request.full_path)
    return hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace")).hexdigest()[:20]


def is_known(tag: str) -> bool:
    """Tell whether the client has that answer already."""
    known = request.if_none_match
    return not known.star_tag and known.contains_weak(tag)


def compress(response: Response) -> Response:
    """Compress a text with gzip where the client takes that; sound is never touched."""
    kind = response.mimetype or ""
    if not (kind.startswith("text/") or kind in _TEXTS):
        return response
    response.vary.add("Accept-Encoding")
    if (
        response.status_code in (204, 206, 304)
        or "Content-Encoding" in response.headers
        or not request.accept_encodings["gzip"]
        or (response.is_streamed and request.endpoint != "static")
    ):
        return response
    response.direct_passthrough = False
    data = response.get_data()
    if len(data) < _LEAST:
        return response
    # A static file is the same each time.
    packed = _kept(data) if request.endpoint == "static" else _packed(data)
    response.set_data(packed)
    response.headers["Content-Encoding"] = "gzip"
    tag, is_weak = response.get_etag()
    if tag is not None and not is_weak:
        # Other bytes than what the tag was made for.
        response.set_etag(tag, weak=True)
    return response


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, _LEVEL, mtime=0)


@functools.lru_cache(maxsize=32)
def _kept(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)
