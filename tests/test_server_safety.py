"""Who may ask the web app, from where, and how it listens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from server_fixtures import ScriptedLibrary, served, sound, video

from audiosearch.errors import InvalidArgumentError, ServerError
from audiosearch.server import create_app, serve
from audiosearch.server.csrf import FIELD, HEADER

TOKEN = "a long random text"
PAGES = ("/", "/?q=Car", "/search.json?q=Car", "/clip/1", "/similar/1.json", "/about",
         "/recordings/2/audio", "/clips/2/audio.wav", "/nowhere")  # fmt: skip


@pytest.fixture
def library() -> ScriptedLibrary:
    return ScriptedLibrary([video(1), sound(2, "/music/a.wav")])


@pytest.fixture
def client(library: ScriptedLibrary) -> FlaskClient:
    return create_app(library).test_client()


@pytest.fixture
def guarded(library: ScriptedLibrary) -> FlaskClient:
    return create_app(library, token=TOKEN).test_client()


# --- Headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/health", "/static/app.css", "/?q=Carr"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'self'",
        "frame-src": "https://www.youtube-nocookie.com",
        "img-src": "'self' data:",
        "media-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"


def test_refusals_carry_the_security_headers_too(client: FlaskClient) -> None:
    for response in (
        client.get("/", headers={"Host": "evil.example"}),
        client.post("/examples", headers={"Sec-Fetch-Site": "cross-site"}),
        client.post("/"),
    ):
        assert response.status_code in (403, 405)
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


# --- Host header (DNS rebinding) --------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8484", "127.0.0.1:8484", "[::1]:8484", "192.168.1.5"]
)
def test_own_addresses_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8484",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1",
        "[",
        "",
    ],
)
def test_other_names_are_refused(client: FlaskClient, host: str) -> None:
    for path in PAGES:
        assert client.get(path, headers={"Host": host}).status_code == 403


def test_bound_name_is_answered(library: ScriptedLibrary) -> None:
    client = create_app(library, host="Studio").test_client()
    assert client.get("/", headers={"Host": "studio:8484"}).status_code == 200
    assert client.get("/", headers={"Host": "other:8484"}).status_code == 403


def test_with_a_token_any_name_may_be_used(guarded: FlaskClient) -> None:
    headers = {"Host": "sounds.example", "Authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/", headers=headers).status_code == 200


# --- Token ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_told_without_the_token(guarded: FlaskClient, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        response = guarded.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert "-0abcdef001" not in response.text
        assert "/music" not in response.text


def test_upload_needs_the_token(guarded: FlaskClient) -> None:
    assert guarded.post("/examples").status_code == 401
    assert guarded.post("/examples.json").json["status"] == 401


def test_health_stays_open(guarded: FlaskClient) -> None:
    assert guarded.get("/health").json == {"status": "ok"}


def test_bearer_token_opens_everything(guarded: FlaskClient) -> None:
    response = guarded.get("/search.json?q=Car", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.json["total"] == 2


def test_token_in_the_url_becomes_a_cookie_and_leaves_the_url(guarded: FlaskClient) -> None:
    response = guarded.get("/", query_string={"q": "Car", "token": TOKEN, "offset": "0"})
    assert response.status_code == 303
    assert response.headers["Location"] == "/?q=Car&offset=0"
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/?q=Car").status_code == 200


def test_wrong_token_in_the_url_is_refused(guarded: FlaskClient) -> None:
    response = guarded.get("/?token=wrong")
    assert response.status_code == 401
    assert "Set-Cookie" not in response.headers
    assert guarded.get("/").status_code == 401


def test_forged_cookie_is_refused(guarded: FlaskClient) -> None:
    for value in ("", TOKEN, "0" * 64, "é"):
        guarded.set_cookie("audiosearch_session", value)
        assert guarded.get("/").status_code == 401


def test_sign_in_form_leads_back_to_the_page(guarded: FlaskClient) -> None:
    page = guarded.get("/?q=Car").text
    target = re.search(r'name="next" type="hidden" value="([^"]*)"', page)
    assert target
    assert target[1] == "/?q=Car"
    wrong = guarded.post("/sign-in", data={"token": "wrong", "next": target[1]})
    assert wrong.status_code == 401
    assert "That is not the token" in wrong.text
    right = guarded.post("/sign-in", data={"token": f" {TOKEN} ", "next": target[1]})
    assert right.status_code == 303
    assert right.headers["Location"] == "/?q=Car"
    assert guarded.get("/?q=Car").status_code == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/a\r\nX: y", "", "x"]
)
def test_sign_in_leads_nowhere_else(guarded: FlaskClient, target: str) -> None:
    response = guarded.post("/sign-in", data={"token": TOKEN, "next": target})
    assert response.headers["Location"] == "/"


def test_url_with_two_slashes_and_a_token_stays_here(guarded: FlaskClient) -> None:
    response = guarded.get("//evil.example/x", query_string={"token": TOKEN})
    assert not response.headers.get("Location", "/").startswith("//")


def test_empty_token_is_refused(library: ScriptedLibrary) -> None:
    for token in ("", "  "):
        with pytest.raises(InvalidArgumentError, match="token is empty"):
            create_app(library, token=token)


# --- Requests from other sites ----------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:9999"},
    ],
)
def test_post_of_another_site_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    for path in ("/examples", "/examples.json", "/sign-in"):
        assert client.post(path, headers=headers).status_code == 403


BROWSERS = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://localhost"},
    {"Referer": "http://localhost/"},
]


def csrf_token(page: str) -> str:
    """The token that a page carries."""
    found = re.search(r'<meta name="csrf-token" content="([^"]+)">', page)
    assert found
    return found[1]


def test_post_of_a_program_needs_no_page(client: FlaskClient) -> None:
    # It comes as far as finding that no file is in it.
    assert client.post("/examples").status_code == 400


@pytest.mark.parametrize("headers", BROWSERS)
def test_post_of_a_page_needs_its_token(client: FlaskClient, headers: dict[str, str]) -> None:
    page = client.get("/").text
    assert f'name="{FIELD}" type="hidden" value="' in page
    for wrong in (
        "",
        "x",
        "é",
        "A" * 86,
        csrf_token(create_app(ScriptedLibrary([])).test_client().get("/").text),
    ):
        for sent in (
            {"headers": headers, "data": {FIELD: wrong}},
            {"headers": {**headers, HEADER: wrong}},
        ):
            response = client.post("/examples", **sent)
            assert response.status_code == 403
            assert "Reload the page" in response.text
    token = csrf_token(page)
    assert client.post("/examples", headers=headers, data={FIELD: token}).status_code == 400
    assert client.post("/examples", headers={**headers, HEADER: token}).status_code == 400


def test_token_of_a_page_is_masked_anew_each_time(client: FlaskClient) -> None:
    tokens = {csrf_token(client.get("/").text) for _ in range(5)}
    assert len(tokens) == 5
    for token in tokens:
        headers = {"Sec-Fetch-Site": "same-origin", HEADER: token}
        assert client.post("/examples", headers=headers).status_code == 400


def test_token_of_a_page_belongs_to_its_session(library: ScriptedLibrary) -> None:
    app = create_app(library, token=TOKEN)
    first, second = app.test_client(), app.test_client()
    for each in (first, second):
        each.post("/sign-in", data={"token": TOKEN})
    headers = {"Sec-Fetch-Site": "same-origin", HEADER: csrf_token(first.get("/").text)}
    assert first.post("/examples", headers=headers).status_code == 400
    assert second.post("/examples", headers=headers).status_code == 403


def test_cookie_alone_is_no_consent(guarded: FlaskClient) -> None:
    """A browser too old to say where a request comes from sends the cookie all the same."""
    guarded.post("/sign-in", data={"token": TOKEN})
    assert guarded.post("/examples").status_code == 403
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    guarded.delete_cookie("audiosearch_session")
    assert guarded.post("/examples", headers=bearer).status_code == 400


# --- Listening --------------------------------------------------------------------------------


def test_any_free_port_is_announced_and_answers(library: ScriptedLibrary) -> None:
    with served(library, port=0) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        with urllib.request.urlopen(url + "search.json?q=Car", timeout=10) as response:
            assert json.load(response)["total"] == 2


def test_other_machines_need_a_token(library: ScriptedLibrary) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "studio.example"):
        with pytest.raises(ServerError, match="needs a token"):
            serve(library, host=host, port=0)


def test_every_address_with_a_token(library: ScriptedLibrary) -> None:
    with served(library, host="0.0.0.0", port=0, token=TOKEN) as url:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url + "health", timeout=10) as response:
            assert json.load(response) == {"status": "ok"}
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200


def test_port_in_use_is_one_clear_sentence(library: ScriptedLibrary) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} .* in use.*--port"):
            serve(library, port=port)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_port_that_cannot_be_is_refused(library: ScriptedLibrary, port: int) -> None:
    with pytest.raises(InvalidArgumentError, match="65535"):
        serve(library, port=port)


def test_address_of_another_machine_cannot_be_bound(library: ScriptedLibrary) -> None:
    # 192.0.2.0/24 is reserved for documentation: no machine has it.
    with pytest.raises(ServerError, match="not an address of this machine"):
        serve(library, host="192.0.2.1", port=0, token=TOKEN)
    with pytest.raises(ServerError, match="No address is known"):
        serve(library, host="no-such-host.invalid", port=0, token=TOKEN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_ends_cleanly(number: signal.Signals, command_environment: dict[str, str]) -> None:
    program = """
from server_fixtures import ScriptedLibrary, video
from audiosearch.server import serve
serve(ScriptedLibrary([video(1)]), port=0, announce=lambda url: print(url, flush=True))
print("ended", flush=True)
"""
    environment = dict(command_environment)
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "ended\n"
    assert err == ""


def test_browser_is_opened_signed_in(
    library: ScriptedLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    seen = threading.Event()

    def open_url(url: str) -> bool:
        opened.append(url)
        seen.set()
        return True

    monkeypatch.setattr("webbrowser.open", open_url)
    with served(library, port=0, open_browser=True, token=TOKEN) as url:
        assert seen.wait(10)
        # Others on this machine can read the browser's command line: the ticket is good once.
        assert re.fullmatch(re.escape(url) + r"sign-in\?ticket=[\w-]{32}", opened[0])
        jar = urllib.request.HTTPCookieProcessor()
        with urllib.request.build_opener(jar).open(opened[0], timeout=10) as response:
            assert response.url == url
            assert "Sign out" in response.read().decode()
        with urllib.request.urlopen(opened[0], timeout=10) as response:
            assert "<h1>Sign in</h1>" in response.read().decode()
