"""Who may ask, from where, and what a browser may do with the answer; docs/security.md explains it.

* Without token and users the app serves this machine only. A web page elsewhere could still point
  its own name at 127.0.0.1 (DNS rebinding), so the Host header must be an address, ``localhost`` or
  the name that was bound.
* Otherwise every page but ``/health``, the sign-in form and the static files needs a sign-in
  (`audiosearch.server.access`).
* What changes something is refused from another site, and needs the page's token
  (`audiosearch.server.csrf`).
* The content security policy lets a page load from this server only, and frame YouTube's
  no-cookie player.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, Response, abort, g, request
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.server import csrf, limits
from audiosearch.server.access import COOKIE, Access

__all__ = ["COOKIE", "HEADERS", "is_loopback", "protect"]

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-src https://www.youtube-nocookie.com; img-src 'self' data:; "
        # What was recorded or dropped is played from memory before it is sent.
        "media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # YouTube's player answers with error 153 to a page that hides its origin.
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self), payment=(), usb=()",
}
"""Sent with every answer."""

_OPEN_ENDPOINTS = frozenset(
    {"api.health", "pages.health", "pages.favicon", "static", "security.sign_in"}
)

# What concerns nobody but whoever asks.
_OWN_ENDPOINTS = frozenset({"security.sign_in", "security.sign_out"})


def is_loopback(host: str) -> bool:
    """Tell whether `host` can be reached from this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def protect(app: Flask, access: Access, *, host: str | None) -> None:
    """Put the checks and the headers on every request of `app`.

    Parameters
    ----------
    app : Flask
        The application.
    access : Access
        Who may use it.
    host : str or None
        The name that the server was bound to, which a client may call it by.
    """
    access.register(app)
    csrf.register(app, cookie=COOKIE)

    @app.before_request
    def check() -> BaseResponse | None:
        limits.limit_body()
        if access.is_open and not _is_own_host(host):
            abort(
                403,
                "This server answers only to its own address. Open it by the address that it "
                "printed when it started.",
            )
        changes = request.method not in ("GET", "HEAD", "OPTIONS")
        if changes and _is_cross_site():
            abort(403, "This request came from another web site, so it was refused.")
        if not access.is_open and request.endpoint not in _OPEN_ENDPOINTS:
            sent_on = access.check()
            if sent_on is not None:
                return sent_on
        if changes and request.endpoint not in _OWN_ENDPOINTS and access.listens_only():
            abort(
                403,
                "You may search and listen here, but not send sounds or change labels. Ask whoever "
                "runs this server.",
            )
        limits.limit_uploads()
        # Without a view there is nothing to protect, and a better answer: 404 or 405.
        if changes and request.endpoint and "bearer" not in g:
            csrf.check()
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _is_own_host(bound: str | None) -> bool:
    """Tell whether the Host header is an address, ``localhost`` or the bound name.

    An address cannot be rebound: only a name can be made to point elsewhere.
    """
    try:
        name = (urlsplit(f"//{request.host}").hostname or "").rstrip(".")
        if name == "localhost" or (bound is not None and name == bound.lower()):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_cross_site() -> bool:
    """Tell whether a browser sent this request for a page of another origin.

    Browsers say so in ``Sec-Fetch-Site``; older ones send ``Origin``. A program sends neither, and
    cannot be made to send one by a page.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.host
