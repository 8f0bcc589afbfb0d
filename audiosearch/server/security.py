"""Who may ask, from where, and what a browser may do with the answer.

* Without a token the app serves this machine only. A web page elsewhere could still point its own
  name at 127.0.0.1 (DNS rebinding), so the Host header must be an address, ``localhost`` or the
  name that was bound.
* With a token every page but ``/health``, the sign-in form and the static files needs it: as
  ``Authorization: Bearer``, as ``?token=`` once, or typed into the form. A browser then carries a
  cookie made from it, which is no use for learning the token.
* A POST from another site is refused.
* The content security policy lets a page load from this server only, and frame YouTube's
  no-cookie player.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import quote, urlencode, urlsplit

from flask import Blueprint, Flask, Response, abort, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Response as BaseResponse

__all__ = ["COOKIE", "HEADERS", "is_loopback", "protect"]

COOKIE = "audiosearch_session"
"""Name of the cookie that a signed-in browser carries."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-src https://www.youtube-nocookie.com; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # YouTube's player answers with error 153 to a page that hides its origin.
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent with every answer."""

_OPEN_ENDPOINTS = frozenset({"pages.health", "pages.favicon", "static", "security.sign_in"})
_COOKIE_SECONDS = 30 * 24 * 3600


def is_loopback(host: str) -> bool:
    """Tell whether `host` can be reached from this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def protect(app: Flask, *, token: str | None, host: str | None) -> None:
    """Put the checks and the headers on every request of `app`.

    Parameters
    ----------
    app : Flask
        The application.
    token : str or None
        What a client must know; None lets everybody in who reaches the server.
    host : str or None
        The name that the server was bound to, which a client may call it by.
    """
    blueprint = Blueprint("security", __name__)

    @app.before_request
    def check() -> BaseResponse | None:
        if token is None and not _is_own_host(host):
            abort(
                403,
                "This server answers only to its own address. Open it by the address that it "
                "printed when it started.",
            )
        if request.method not in ("GET", "HEAD", "OPTIONS") and _is_cross_site():
            abort(403, "This request came from another web site, so it was refused.")
        if token is None or request.endpoint in _OPEN_ENDPOINTS:
            return None
        if _is_known(token):
            return None
        if request.method in ("GET", "HEAD") and _equal(request.args.get("token", ""), token):
            arguments = MultiDict(request.args)
            del arguments["token"]
            query = urlencode(list(arguments.items(multi=True)))
            target = quote(request.script_root + request.path) + (f"?{query}" if query else "")
            return _welcome(_local(target), token)
        raise Unauthorized("This server needs a token, and this request has none or a wrong one.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @blueprint.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> BaseResponse | tuple[str, int]:
        target = _local(request.values.get("next", ""))
        if token is None:
            return redirect(target, 303)
        if request.method == "GET":
            return render_template("sign_in.html", next=target, wrong=False), 200
        if _equal(request.form.get("token", "").strip(), token):
            return _welcome(target, token)
        return render_template("sign_in.html", next=target, wrong=True), 401

    app.register_blueprint(blueprint)


def _is_known(token: str) -> bool:
    """Tell whether the request carries the token, or the cookie made from it."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _equal(value.strip(), token):
        return True
    return _equal(request.cookies.get(COOKIE, ""), _cookie_of(token))


def _welcome(target: str, token: str) -> BaseResponse:
    """Send the browser to `target` with the cookie that keeps it signed in."""
    response = redirect(target, 303)
    response.set_cookie(
        COOKIE,
        _cookie_of(token),
        max_age=_COOKIE_SECONDS,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _cookie_of(token: str) -> str:
    key = token.encode("utf-8", "surrogatepass")
    return hmac.new(key, b"audiosearch browser session", hashlib.sha256).hexdigest()


def _equal(given: str, wanted: str) -> bool:
    """Compare two secrets in a time that tells nothing about where they differ."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass")
    )


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


def _local(target: str) -> str:
    """Return `target` where it is a path of this server, else the first page.

    Browsers read a backslash as a slash, and "//name" as another server.
    """
    if target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable():
        return target
    return url_for("pages.search")
