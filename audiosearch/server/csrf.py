"""Protection of what changes something against pages of other sites (CSRF).

A page of this server carries a token that another site cannot read. It comes back with whatever a
page sends that is not a GET: as the field ``csrf_token`` of a form, or as the header
``X-CSRF-Token``. Templates write ``{{ csrf_field() }}`` into a form; a script takes the token from
``<meta name="csrf-token">``.

The token belongs to the session, and to this run of the server. In a page it stands masked, anew
each time: compressed pages that repeat a visitor's text would tell it otherwise (BREACH).

A program has no page, and nothing that a page of another site could borrow: a request with
``Authorization: Bearer``, or without any mark of a browser, needs no token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from flask import Flask, abort, current_app, g, request
from markupsafe import Markup

__all__ = ["FIELD", "HEADER", "check", "field", "is_valid", "register", "token"]

FIELD = "csrf_token"
"""The field of a form that carries the token."""
HEADER = "X-CSRF-Token"
"""The header of a script's request that carries the token."""

_EXTENSION = "audiosearch.csrf"
_BYTES = 32


def register(app: Flask, *, cookie: str) -> None:
    """Give `app` a secret, and its templates ``csrf_token()`` and ``csrf_field()``.

    Parameters
    ----------
    app : Flask
        The application.
    cookie : str
        Name of the cookie that carries the session.
    """
    app.extensions[_EXTENSION] = secrets.token_bytes(_BYTES), cookie
    app.jinja_env.globals.update(csrf_token=token, csrf_field=field)


def token() -> str:
    """Return the token for the session of this request, masked; the same in all of a page."""
    if "csrf_token" not in g:
        mask = secrets.token_bytes(_BYTES)
        masked = base64.urlsafe_b64encode(mask + _mixed(mask, _wanted()))
        g.csrf_token = masked.decode("ascii").rstrip("=")
    made: str = g.csrf_token
    return made


def field() -> Markup:
    """Return the hidden field for a form."""
    return Markup('<input name="{}" type="hidden" value="{}">').format(FIELD, token())


def is_valid(given: str) -> bool:
    """Tell whether a token is that of this session."""
    try:
        raw = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return False
    if len(raw) != 2 * _BYTES:
        return False
    return hmac.compare_digest(_mixed(raw[:_BYTES], raw[_BYTES:]), _wanted())


def check() -> None:
    """Answer 403 where the request comes from a browser, and not from a page of this server."""
    if not _comes_from_a_browser():
        return
    if not is_valid(request.headers.get(HEADER) or request.form.get(FIELD, "")):
        abort(
            403,
            "This came from a page that is too old, or of another site. Reload the page and try "
            "again.",
        )


def _comes_from_a_browser() -> bool:
    """Tell whether the request has marks that browsers leave and programs do not."""
    cookie = current_app.extensions[_EXTENSION][1]
    marks = ("Origin", "Sec-Fetch-Site", "Referer")
    return cookie in request.cookies or any(name in request.headers for name in marks)


def _wanted() -> bytes:
    key, cookie = current_app.extensions[_EXTENSION]
    session = request.cookies.get(cookie, "").encode("utf-8", "surrogatepass")
    return hmac.new(key, session, hashlib.sha256).digest()


def _mixed(first: bytes, second: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(first, second, strict=True))
