"""Users and listeners: their file, what they may do; what the `serve` command takes."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import werkzeug.security
from access_fixtures import PASSWORD, TOKEN, client, library, sign_in, users
from conftest import Outcome
from flask.testing import FlaskClient
from server_fixtures import ScriptedLibrary

import audiosearch as aus
from audiosearch.errors import InvalidArgumentError, ServerError
from audiosearch.server import create_app
from audiosearch.server.limits import Limits
from audiosearch.server.users import Users, add_user

__all__ = ["client", "library", "users"]


def add_by_command(
    path: Path, user: str, password: str, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Run ``serve --add-user`` with the password as its input."""
    command = [sys.executable, "-m", "audiosearch", "serve", "--users", path, "--add-user", user]
    return subprocess.run(
        [*command, *options],
        input=f"{password}\n",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


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
    done = add_by_command(path, "eve", PASSWORD, command_environment, "--listener")
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text(encoding="utf-8").endswith(":listener\n")
    users = Users(path)
    assert users.listens("eve")
    assert users.check("eve", PASSWORD)
    assert invoke("serve", "--listener").code == 2


# --- The command ------------------------------------------------------------------------------


def test_user_is_added_by_the_command(
    tmp_path: Path, command_environment: dict[str, str], invoke: Callable[..., Outcome]
) -> None:
    path = tmp_path / "people"
    for said in ("was added to", "has a new password in"):
        done = add_by_command(path, "ada", PASSWORD, command_environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout
        assert PASSWORD not in done.stdout
    assert Users(path).check("ada", PASSWORD)
    short = add_by_command(path, "ada", "short", command_environment)
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
