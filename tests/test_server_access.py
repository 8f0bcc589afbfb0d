"""Who is let in: users, sessions, guesses, and what the logs keep."""

from __future__ import annotations

import io
import logging
import re
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import werkzeug.security
from conftest import Outcome
from flask.testing import FlaskClient
from server_fixtures import ScriptedLibrary, served, sound, video

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError, ServerError
from audiosearch.server import create_app, serve
from audiosearch.server.access import access_of
from audiosearch.server.limits import Limits
from audiosearch.server.sessions import LIFETIME, Sessions
from audiosearch.server.throttle import Throttle, network_of
from audiosearch.server.users import Users, add_user

TOKEN = "a long random text"
PASSWORD = "correct horse battery"


@pytest.fixture
def library() -> ScriptedLibrary:
    return ScriptedLibrary([video(1), sound(2, "/music/a.wav")])


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    add_user(path, "ada", PASSWORD)
    return path


@pytest.fixture
def client(library: ScriptedLibrary, users: Path) -> FlaskClient:
    return create_app(library, users=users).test_client()


def sign_in(client: FlaskClient, user: str = "ada", password: str = PASSWORD) -> int:
    """Fill in the form as a browser does, and return the status of the answer."""
    token = re.search(
        r'name="csrf_token" type="hidden" value="([^"]+)"', client.get("/sign-in").text
    )
    assert token
    form = {"user": user, "password": password, "next": "/", "csrf_token": token[1]}
    return client.post("/sign-in", data=form).status_code


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


# --- Users ------------------------------------------------------------------------------------


def test_user_signs_in_by_password(client: FlaskClient) -> None:
    assert client.get("/").status_code == 401
    page = client.get("/").text
    assert 'autocomplete="username"' in page
    assert 'name="token"' not in page
    assert sign_in(client) == 303
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/search?q=Car").json["total"] == 2


@pytest.mark.parametrize(
    ("user", "password"),
    [("ada", "wrong"), ("ada", ""), ("eve", PASSWORD), ("", PASSWORD), ("ada", "x" * 100_000)],
)
def test_wrong_name_and_wrong_password_look_alike(
    client: FlaskClient, user: str, password: str
) -> None:
    answer = client.post("/sign-in", data={"user": user, "password": password})
    assert answer.status_code == 401
    assert "That is not the name and password of a user." in answer.text
    assert "Set-Cookie" not in answer.headers


def test_wrong_name_costs_what_a_wrong_password_costs(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    original = werkzeug.security.check_password_hash

    def counted(known: str, given: str) -> bool:
        hashed.append(known.rpartition("$")[0].partition("$")[0])
        return original(known, given)

    monkeypatch.setattr("audiosearch.server.users.check_password_hash", counted)
    sign_in(client, password="wrong password")
    sign_in(client, user="nobody")
    assert len(hashed) == 2
    assert hashed[0] == hashed[1]


def test_passwords_are_kept_as_scrypt_hashes_in_a_private_file(users: Path) -> None:
    add_user(users, "bob", "another good one")
    text = users.read_text()
    assert PASSWORD not in text
    assert re.findall(r"^(\w+):scrypt:(\d+):8:1\$", text, re.MULTILINE) == [
        ("ada", "32768"),
        ("bob", "32768"),
    ]
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    # The same password has another hash each time.
    before = text.splitlines()[0]
    assert add_user(users, "ada", PASSWORD) is False
    assert before not in users.read_text()
    assert Users(users).check("ada", PASSWORD)
    assert Users(users).check("bob", "another good one")


def test_letters_that_keyboards_write_differently_are_one_password(users: Path) -> None:
    add_user(users, "zoe", "Zoe\u0301 Zoe\u0301 Zoe\u0301")
    assert Users(users).check("zoe", "Zo\u00e9 Zo\u00e9 Zo\u00e9")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "a\n", "-a", "x" * 65, "é"])
def test_names_that_cannot_be_are_refused(users: Path, name: str) -> None:
    before = users.read_text()
    with pytest.raises(InvalidArgumentError, match="name"):
        add_user(users, name, PASSWORD)
    with pytest.raises(InvalidArgumentError, match="password"):
        add_user(users, "eve", "short")
    assert users.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "ada:plain text\n",
        "ada\n",
        "a b:scrypt:32768:8:1$12345678$" + "0" * 128,
        "ada:scrypt:1048576:64:1$12345678$" + "0" * 128,
        "ada:scrypt:32768:8:1$12345678$"
        + "0" * 128
        + "\nada:scrypt:32768:8:1$12345678$"
        + "0" * 128,
    ],
)
def test_broken_users_file_is_one_clear_sentence(
    library: ScriptedLibrary, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(ServerError, match=r"broken, line \d"):
        create_app(library, users=path)
    path.write_text("# nobody yet\n")
    with pytest.raises(ServerError, match="names no user"):
        create_app(library, users=path)
    with pytest.raises(ServerError, match="no such users file"):
        create_app(library, users=tmp_path / "nowhere")


def test_token_and_users_go_together(library: ScriptedLibrary, users: Path) -> None:
    client = create_app(library, users=users, token=TOKEN).test_client()
    page = client.get("/").text
    assert 'name="token"' in page
    assert 'name="password"' in page
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/v1/search?q=Car", headers=headers).status_code == 200
    assert sign_in(client) == 303


# --- Listeners --------------------------------------------------------------------------------


def test_listener_may_search_and_hear_and_nothing_else(library_folder: Path, users: Path) -> None:
    add_user(users, "eve", PASSWORD, listener=True)
    with aus.open_library(library_folder) as library:
        app = create_app(library, users=users)
        client = app.test_client()
        assert sign_in(client, "eve") == 303
        file = next(hit for hit in library.search("path:tone.wav").hits)
        assert client.get(f"/clips/{file.clip}/audio.wav").status_code == 200
        for path in ("/", "/?q=Speech", "/clip/1", "/example", "/corrections"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            # Nothing is offered that would be refused.
            assert 'type="file"' not in answer.text, path
            assert 'form="say"' not in answer.text, path
        token = re.search(r'csrf-token" content="([^"]+)"', client.get("/").text)
        assert token
        headers = {"X-CSRF-Token": token[1]}
        refused = set()
        for rule in app.url_map.iter_rules():
            path = re.sub(r"<[^>]*>", "1", rule.rule)
            for method in (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}:
                if rule.rule not in ("/sign-in", "/sign-out"):
                    answer = client.open(path, method=method, headers=headers)
                    assert answer.status_code == 403, path
                    assert "not send sounds" in answer.text.replace("&#39;", "'")
                    refused.add(rule.rule)
        assert {"/labels", "/examples/add", "/examples", "/api/v1/labels"} <= refused
        # Who is no listener any more may label with the next request.
        add_user(users, "eve", PASSWORD)
        assert sign_in(client, "eve") == 303
        assert 'form="say"' in client.get("/clip/1").text
        token = re.search(r'csrf-token" content="([^"]+)"', client.get("/").text)
        assert token
        headers = {"X-CSRF-Token": token[1]}
        answer = client.post("/labels.json", data={"confirm": "1:::Car"}, headers=headers)
        assert answer.status_code == 200


def test_listener_is_written_by_the_command(
    tmp_path: Path, command_environment: dict[str, str], invoke: Callable[..., Outcome]
) -> None:
    path = tmp_path / "people"
    command = [sys.executable, "-m", "audiosearch", "serve", "--users", path, "--add-user", "eve"]
    done = subprocess.run(
        [*command, "--listener"],
        input=f"{PASSWORD}\n",
        env=command_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text(encoding="utf-8").endswith(":listener\n")
    users = Users(path)
    assert users.listens("eve")
    assert users.check("eve", PASSWORD)
    assert invoke("serve", "--listener").code == 2


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


# --- The command ------------------------------------------------------------------------------


def test_user_is_added_by_the_command(
    tmp_path: Path, command_environment: dict[str, str], invoke: Callable[..., Outcome]
) -> None:
    path = tmp_path / "people"
    command = [sys.executable, "-m", "audiosearch", "serve", "--users", path, "--add-user", "ada"]
    for said in ("was added to", "has a new password in"):
        done = subprocess.run(
            command,
            input=f"{PASSWORD}\n",
            env=command_environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout
        assert PASSWORD not in done.stdout
    assert Users(path).check("ada", PASSWORD)
    short = subprocess.run(
        command,
        input="short\n",
        env=command_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert short.returncode == 1
    assert "10 to 1,024 characters" in short.stderr
    assert invoke("serve", "--add-user", "ada").code == 2


def test_limits_of_the_command_are_those_of_the_server() -> None:
    from audiosearch.cli.limit_options import limits_from
    from audiosearch.cli.serve import command

    names = ("upload_size", "upload_length", "upload_time", "upload_memory", "uploads_at_once",
             "uploads_a_minute")  # fmt: skip
    defaults = {each.name: each.default for each in command.params if each.name in names}
    assert len(defaults) == 6
    assert limits_from(defaults) == Limits()


def test_limits_of_the_command_reach_the_server(
    monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Outcome], users: Path
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(
        "audiosearch.server.serve", lambda library, **options: asked.update(options)
    )
    done = invoke(
        *("serve", "--upload-size", 5, "--upload-length", 60, "--upload-time", 20),
        *("--upload-memory", 300, "--uploads-at-once", 2, "--uploads-a-minute", 7),
        *("--users", users, "--host", "0.0.0.0", "--proxy", "127.0.0.1"),
    )
    assert done.code == 0
    assert asked["limits"] == Limits(5_000_000, 60.0, 300, 20.0, 2, 7)
    assert (asked["users"], asked["proxy"], asked["token"]) == (users, "127.0.0.1", None)
