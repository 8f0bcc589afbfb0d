"""Who is let in: sessions, guesses, proxies, and what the logs keep."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from access_fixtures import PASSWORD, TOKEN, client, library, sign_in, users
from flask.testing import FlaskClient
from server_fixtures import ScriptedLibrary, served

from audiosearch.errors import InvalidArgumentError, ServerError
from audiosearch.server import create_app, serve
from audiosearch.server.access import access_of
from audiosearch.server.sessions import LIFETIME, Sessions
from audiosearch.server.throttle import Throttle, network_of
from audiosearch.server.users import add_user

__all__ = ["client", "library", "users"]


def cookie(client: FlaskClient) -> str | None:
    found = client.get_cookie("audiosearch_session")
    return found.value if found else None


class Stays(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *args: object) -> None:
        return None


class Clock:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- Every route ------------------------------------------------------------------------------


def test_every_route_but_the_open_ones_needs_a_sign_in(
    library: ScriptedLibrary, users: Path
) -> None:
    app = create_app(library, users=users, token=TOKEN)
    client = app.test_client()
    opened = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]*>", "1", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if client.open(path, method=method).status_code != 401:
                opened.add((method, rule.rule))
    assert opened <= {
        ("GET", "/health"),
        ("GET", "/api/v1/health"),
        ("GET", "/favicon.ico"),
        ("GET", "/static/<path:filename>"),
        ("GET", "/sign-in"),
    }
    assert ("GET", "/health") in opened


# --- Sessions ---------------------------------------------------------------------------------


def test_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(client: FlaskClient) -> None:
    answer = client.post("/sign-in", data={"user": "ada", "password": PASSWORD})
    parts = {part.strip() for part in answer.headers["Set-Cookie"].split(";")}
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= parts
    assert "Secure" not in parts  # plain http
    assert answer.headers["Cache-Control"] == "no-store"


def test_cookie_is_secure_behind_https(client: FlaskClient) -> None:
    answer = client.post(
        "/sign-in", data={"user": "ada", "password": PASSWORD}, base_url="https://sounds.example"
    )
    assert "Secure" in {part.strip() for part in answer.headers["Set-Cookie"].split(";")}


def test_sign_in_begins_a_new_session(client: FlaskClient) -> None:
    client.set_cookie("audiosearch_session", "chosen by somebody else")
    page = client.get("/").text
    token = re.search(r'name="csrf_token" type="hidden" value="([^"]+)"', page)
    assert token
    form = {"user": "ada", "password": PASSWORD, "csrf_token": token[1]}
    assert client.post("/sign-in", data=form).status_code == 303
    first = cookie(client)
    assert first
    assert first != "chosen by somebody else"


def test_signing_out_ends_the_session_on_the_server(client: FlaskClient) -> None:
    sign_in(client)
    kept = cookie(client)
    assert kept
    page = client.get("/").text
    assert "Sign out" in page
    token = re.search(r'name="csrf-token" content="([^"]+)"', page)
    assert token
    assert client.post("/sign-out").status_code == 403  # another site could send it
    answer = client.post("/sign-out", headers={"X-CSRF-Token": token[1]})
    assert answer.status_code == 303
    assert cookie(client) is None
    client.set_cookie("audiosearch_session", kept)
    assert client.get("/").status_code == 401


def test_new_password_or_removed_user_ends_sessions(client: FlaskClient, users: Path) -> None:
    sign_in(client)
    assert client.get("/").status_code == 200
    add_user(users, "bob", "another good one")
    assert client.get("/").status_code == 200
    add_user(users, "ada", "a new password")
    assert client.get("/").status_code == 401
    assert sign_in(client) == 401
    assert sign_in(client, password="a new password") == 303
    users.write_text(
        "".join(
            line + "\n" for line in users.read_text().splitlines() if not line.startswith("ada:")
        )
    )
    assert client.get("/").status_code == 401
    users.unlink()
    assert sign_in(client, user="bob", password="another good one") == 401


def test_sessions_end_after_a_week_unused_and_after_a_month() -> None:
    clock = Clock()
    sessions = Sessions(clock=clock)
    idle = sessions.start("ada", "proof")
    clock.now += 7 * 24 * 3600 - 1
    assert sessions.find(idle)
    clock.now += 7 * 24 * 3600 + 1
    assert sessions.find(idle) is None
    busy = sessions.start("ada", "proof")
    began = clock.now
    while clock.now - began < LIFETIME - 24 * 3600:
        clock.now += 24 * 3600
        assert sessions.find(busy)
    clock.now = began + LIFETIME + 1
    assert sessions.find(busy) is None


def test_server_keeps_no_cookie_that_could_be_stolen_from_it(client: FlaskClient) -> None:
    sign_in(client)
    value = cookie(client)
    assert value
    assert len(value) >= 43  # 256 bits
    kept = repr(vars(access_of(client.application).sessions))
    assert value not in kept


# --- Guessing ---------------------------------------------------------------------------------


def test_too_many_wrong_secrets_have_to_wait(library: ScriptedLibrary, users: Path) -> None:
    app = create_app(library, users=users, token=TOKEN)
    inside = app.test_client()
    sign_in(inside)
    client = app.test_client()
    for number in range(10):
        how = number % 3
        if how == 0:
            status = client.get("/", headers={"Authorization": f"Bearer {number}"}).status_code
        elif how == 1:
            status = client.get(f"/?token={number}").status_code
        else:
            status = client.post("/sign-in", data={"token": str(number)}).status_code
        assert status == 401
    # Now not even the right one is looked at.
    for refused in (
        client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}),
        client.get(f"/?token={TOKEN}"),
        client.post("/sign-in", data={"token": TOKEN}),
        client.post("/sign-in", data={"user": "ada", "password": PASSWORD}),
        client.get("/sign-in?ticket=x"),
    ):
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
    # Who is inside stays, and other addresses are not kept out.
    assert inside.get("/").status_code == 200
    other = {"REMOTE_ADDR": "192.0.2.7"}
    answer = client.get("/", headers={"Authorization": f"Bearer {TOKEN}"}, environ_overrides=other)
    assert answer.status_code == 200


def test_throttle_lets_through_what_it_says() -> None:
    clock = Clock()
    throttle = Throttle(3, 60.0, clock=clock)
    assert [throttle.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert throttle.take("a") == pytest.approx(20.0)
    assert throttle.wait("a") == pytest.approx(20.0)
    assert throttle.take("b") == 0.0
    clock.now += 19.9
    assert throttle.take("a") > 0
    clock.now += 0.2
    assert throttle.take("a") == 0.0
    assert throttle.take("a") > 0
    clock.now += 3600
    assert [throttle.take("a") == 0.0 for _ in range(4)] == [True, True, True, False]


def test_throttle_forgets_no_more_clients_than_it_must() -> None:
    throttle = Throttle(1, 60.0)
    for number in range(10_001):
        assert throttle.take(str(number)) == 0.0
    assert throttle.take("10000") > 0
    assert throttle.take("0") == 0.0  # forgotten: memory is bounded
    with pytest.raises(InvalidArgumentError):
        Throttle(0, 60.0)


def test_one_client_has_many_addresses_of_ipv6() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8:0:2::1")
    assert network_of("::ffff:192.0.2.7") == network_of("192.0.2.7") == "192.0.2.7"


# --- Behind a proxy ---------------------------------------------------------------------------


def test_proxy_needs_a_token_or_users(library: ScriptedLibrary) -> None:
    with pytest.raises(ServerError, match="token or users"):
        serve(library, port=0, proxy="127.0.0.1")


def test_only_the_word_of_the_proxy_is_taken(library: ScriptedLibrary) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    for proxy, is_secure in ((None, False), ("127.0.0.1", True), ("192.0.2.1", False)):
        with served(library, port=0, token=TOKEN, proxy=proxy) as url:
            request = urllib.request.Request(f"{url}?token={TOKEN.replace(' ', '+')}")
            for name, value in forwarded.items():
                request.add_header(name, value)
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.build_opener(Stays).open(request, timeout=20)
            assert answer.value.code == 303
            assert ("Secure" in answer.value.headers["Set-Cookie"]) is is_secure


# --- Logs -------------------------------------------------------------------------------------


def test_no_secret_is_logged(
    library: ScriptedLibrary, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    app = create_app(library, users=users, token=TOKEN)
    app.logger.addHandler(handler)
    client = app.test_client()

    def broken(*args: object, **options: object) -> None:
        from flask import request

        raise RuntimeError(
            f"{request.url} {request.headers} {dict(request.cookies)} {TOKEN} password=hunter22222"
        )

    monkeypatch.setattr(library, "search", broken)
    client.post("/sign-in", data={"user": "ada", "password": PASSWORD})
    value = cookie(client)
    assert value
    sent_on = client.get("/?q=Car&token=guessed-token")
    assert (sent_on.status_code, sent_on.headers["Location"]) == (303, "/?q=Car")
    headers = {"Authorization": "Bearer other-secret", "Referer": "/?token=guessed-token"}
    answer = client.get("/?q=Car", headers=headers)
    assert answer.status_code == 500
    app.logger.error("GET /?token=%s&q=x", "another-token")
    app.logger.removeHandler(handler)
    text = stream.getvalue()
    assert "RuntimeError" in text
    assert "q=x" in text
    for secret in (TOKEN, "guessed-token", "other-secret", "hunter22222", value, "another-token"):
        assert secret not in text
    assert "guessed-token" not in answer.text


def test_running_server_prints_no_secret(
    users: Path, command_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = command_environment | {"AUDIOSEARCH_TOKEN": TOKEN}
    command = [sys.executable, "-m", "audiosearch", "serve", "--port", "0", "--users", str(users)]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        printed = ""
        while "Serving" not in printed:
            printed += process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+/", printed)
        assert found
        url = found[0]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        try:
            with pytest.raises(urllib.error.HTTPError, match="401"):
                opener.open(f"{url}?token=wrong-token", timeout=20)
            with opener.open(f"{url}about?token={TOKEN.replace(' ', '+')}", timeout=20) as response:
                assert response.url == f"{url}about"
        finally:
            process.terminate()
            printed += process.communicate(timeout=20)[0]
    assert TOKEN not in printed
    assert "wrong-token" not in printed
