"""What tests of who is let in share: a user, a client, how it signs in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from server_fixtures import ScriptedLibrary, sound, video

from audiosearch.server import create_app
from audiosearch.server.users import add_user

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
