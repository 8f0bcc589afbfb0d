"""Signing in and out: a token that programs and people share, or users with passwords.

A program sends ``Authorization: Bearer TOKEN``. A browser signs in by the form, or by ``?token=``
once, and then carries the cookie of a session. Who tries too many wrong ones has to wait.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from urllib.parse import quote, urlencode

from flask import (
    Blueprint,
    Flask,
    current_app,
    g,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as BaseResponse

from audiosearch.server.sessions import LIFETIME, Session, Sessions
from audiosearch.server.throttle import Throttle, network_of, whole_seconds
from audiosearch.server.users import Users

__all__ = ["COOKIE", "Access", "access_of", "blueprint", "sign_in_page"]

COOKIE = "audiosearch_session"
"""Name of the cookie that a signed-in browser carries."""

_TRIES, _TRIES_SECONDS = 10, 300.0
_TICKET_SECONDS = 60.0

blueprint = Blueprint("security", __name__)


class Access:
    """Who may use the application.

    Parameters
    ----------
    token : str, optional
        What a program sends, and what a person may sign in with.
    users : Users, optional
        Who may sign in by name and password.
    """

    def __init__(self, *, token: str | None = None, users: Users | None = None) -> None:
        self.token, self.users = token, users
        self.sessions = Sessions()
        self._lock = threading.Lock()
        self._ticket: tuple[str, float] | None = None
        self.failures = Throttle(_TRIES, _TRIES_SECONDS)

    @property
    def is_open(self) -> bool:
        """Whether everybody may use it who reaches it."""
        return self.token is None and self.users is None

    def ticket(self) -> str:
        """Return a secret that signs a browser in once, within a minute.

        It opens the browser of who starts the server: others can read that command line.
        """
        secret = secrets.token_urlsafe(24)
        self._ticket = secret, time.monotonic() + _TICKET_SECONDS
        return secret

    def take_ticket(self, given: str) -> bool:
        """Tell whether a ticket is good; it is so once.

        Raises
        ------
        TooManyRequests
            When the client tried too many wrong ones.
        """
        self._wait()
        with self._lock:
            ticket = self._ticket
            if ticket is not None and time.monotonic() < ticket[1] and _equal(given, ticket[0]):
                self._ticket = None
                return True
        self.failures.take(_client())
        return False

    def register(self, app: Flask) -> None:
        """Put the pages on `app`, and tell its templates who is signed in."""
        app.extensions["audiosearch.access"] = self
        app.jinja_env.globals.update(signed_in=signed_in, listens_only=self.listens_only)
        app.register_blueprint(blueprint)

    def check(self) -> BaseResponse | None:
        """Let the request pass, send its browser on, or refuse it.

        Raises
        ------
        Unauthorized
            When it shows nothing that lets it in.
        TooManyRequests
            When its client tried too many wrong ones.
        """
        session = self.session()
        if session is not None:
            g.session = session
            if request.method in ("GET", "HEAD") and "token" in request.args:
                return redirect(_without_token(), 303)
            return None
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self._is_token(value.strip()):
                g.bearer = True
                return None
        elif (
            request.method in ("GET", "HEAD")
            and "token" in request.args
            and self._is_token(request.args["token"])
        ):
            return self.welcome(None, _without_token())
        raise Unauthorized(
            "This server asks who you are: sign in, or send the header "
            "'Authorization: Bearer TOKEN' with the right token."
        )

    def session(self) -> Session | None:
        """Return the session of this request's cookie, where it still holds."""
        secret = request.cookies.get(COOKIE)
        found = self.sessions.find(secret) if secret else None
        if found is None or not secret:
            return None
        if found.user is None:
            holds = self.token is not None
        else:
            holds = self.users is not None and self.users.proof(found.user) == found.proof
        if not holds:
            self.sessions.end(secret)
            return None
        return found

    def listens_only(self) -> bool:
        """Tell whether this request's user may search and hear, and nothing more."""
        session: Session | None = g.get("session")
        return (
            session is not None
            and session.user is not None
            and self.users is not None
            and self.users.listens(session.user)
        )

    def sign_in(self, name: str, secret: str) -> tuple[str | None, str] | None:
        """Return user and proof of somebody who shows the right secret, else None.

        Raises
        ------
        TooManyRequests
            When the client tried too many wrong ones.
        """
        if self.token is not None and not name:
            return (None, "") if self._is_token(secret) else None
        if self.users is None:
            return None
        self._wait()
        proof = self.users.check(name, secret)
        if proof is None:
            self.failures.take(_client())
            return None
        return name, proof

    def welcome(self, found: tuple[str | None, str] | None, target: str) -> BaseResponse:
        """Send the browser to `target` with the cookie of a new session."""
        user, proof = found or (None, "")
        old = request.cookies.get(COOKIE)
        if old:
            self.sessions.end(old)
        response = redirect(target, 303)
        response.set_cookie(
            COOKIE,
            self.sessions.start(user, proof),
            max_age=LIFETIME,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    def _is_token(self, given: str) -> bool:
        if self.token is None:
            return False
        self._wait()
        if _equal(given, self.token):
            return True
        self.failures.take(_client())
        return False

    def _wait(self) -> None:
        wait = self.failures.wait(_client())
        if wait:
            raise TooManyRequests(
                "Too many wrong passwords or tokens came from your address. Wait, and try again.",
                retry_after=int(whole_seconds(wait)),
            )


def signed_in() -> bool:
    """Tell whether this request comes from a browser that signed in."""
    return "session" in g


def access_of(app: Flask) -> Access:
    """Return who may use `app`."""
    access: Access = app.extensions["audiosearch.access"]
    return access


@blueprint.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> BaseResponse:
    """Show the form, or let in who fills it in rightly."""
    access = access_of(current_app)
    target = local(request.values.get("next", ""))
    if access.is_open:
        return redirect(target, 303)
    if request.method == "GET":
        ticket = request.args.get("ticket")
        if ticket and access.take_ticket(ticket):
            return access.welcome(None, target)
        return sign_in_page(target)
    name = request.form.get("user", "").strip()
    secret = request.form.get("password", "") if name else request.form.get("token", "").strip()
    found = access.sign_in(name, secret)
    if found is None:
        return sign_in_page(target, wrong=True, status=401)
    return access.welcome(found, target)


@blueprint.post("/sign-out")
def sign_out() -> BaseResponse:
    """End the session."""
    secret = request.cookies.get(COOKIE)
    if secret:
        access_of(current_app).sessions.end(secret)
    response = redirect(url_for("security.sign_in"), 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="Lax", secure=request.is_secure)
    return response


def sign_in_page(target: str, *, wrong: bool = False, status: int = 200) -> BaseResponse:
    """Return the page that asks who somebody is."""
    access = access_of(current_app)
    page = render_template(
        "sign_in.html",
        next=target,
        wrong=wrong,
        by_token=access.token is not None,
        by_user=access.users is not None,
    )
    response = make_response(page, status)
    response.headers["Cache-Control"] = "no-store"
    return response


def local(target: str) -> str:
    """Return `target` where it is a path of this server, else the first page.

    Browsers read a backslash as a slash, and "//name" as another server.
    """
    if target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable():
        return target
    return url_for("pages.search")


def _without_token() -> str:
    """Return this request's URL without the token."""
    arguments = MultiDict(request.args)
    del arguments["token"]
    query = urlencode(list(arguments.items(multi=True)))
    return local(quote(request.script_root + request.path) + (f"?{query}" if query else ""))


def _client() -> str:
    return network_of(request.remote_addr)


def _equal(given: str, wanted: str) -> bool:
    """Compare two secrets in a time that tells nothing about where they differ, or how long."""
    first, second = (
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, wanted)
    )
    return hmac.compare_digest(first, second)
