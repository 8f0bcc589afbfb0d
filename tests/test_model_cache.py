"""The cache of fetched models: where it is, mirrors, offline, what was accepted before."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_downloads import CONTENT, SHA256, Server, serving

from audiosearch import downloads, model_cache
from audiosearch.errors import DownloadError, InvalidArgumentError, ModelError
from audiosearch.model_cache import RemoteFile, accept, fetch_file


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "_PAUSES", (0.0,))
    monkeypatch.setattr(downloads, "_FIRST_PAUSES", ())
    with serving() as state:
        yield state


def remote(server: Server) -> RemoteFile:
    return RemoteFile("file.bin", (server.url,))


def test_the_folder_is_the_variables_or_the_users(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_home in model_cache.model_root().parents
    monkeypatch.setenv("AUDIOSEARCH_MODELS", str(tmp_path / "here"))
    assert model_cache.model_folder("vggish") == tmp_path / "here" / "vggish"
    assert not model_cache.model_root().exists()


@pytest.mark.parametrize(
    ("value", "offline"), [("", False), ("0", False), ("1", True), ("yes", True)]
)
def test_offline_is_what_the_variable_says(
    value: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSEARCH_OFFLINE", value)
    assert model_cache.is_offline() is offline


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_nothing_is_downloaded_offline(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "variable":
        monkeypatch.setenv("AUDIOSEARCH_OFFLINE", "1")
    with pytest.raises(DownloadError, match="offline") as caught:
        fetch_file(remote(server), tmp_path, offline=by == "argument", by_hand="Or else.")
    message = str(caught.value)
    assert server.url in message
    assert str(tmp_path / "file.bin") in message
    assert "Or else." in message
    assert server.requests == []


def test_a_file_that_lies_there_is_taken_offline_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"by hand")
    found = fetch_file(remote(server), tmp_path, offline=True)
    assert (found.url, found.sha256) == ("", hashlib.sha256(b"by hand").hexdigest())


def test_mirrors_are_asked_first_in_order(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = server.url.removesuffix("/file.bin")
    monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", f"{base}/one/  {base}/two")
    server.answers = [(404, {})]
    found = fetch_file(remote(server), tmp_path)
    assert found.url == f"{base}/two/file.bin"
    assert [path for path, _ in server.requests] == ["/one/file.bin", "/two/file.bin"]


@pytest.mark.parametrize("value", ["ftp://host/x", "/folder", "https://", "http:///x"])
def test_a_mirror_that_is_no_address_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AUDIOSEARCH_MODEL_MIRRORS", f"{server.url} {value}")
    with pytest.raises(InvalidArgumentError, match="AUDIOSEARCH_MODEL_MIRRORS"):
        fetch_file(remote(server), tmp_path)


def test_what_comes_later_must_be_what_was_accepted(server: Server, tmp_path: Path) -> None:
    accept(tmp_path, [fetch_file(remote(server), tmp_path)])
    (tmp_path / "file.bin").unlink()
    assert fetch_file(remote(server), tmp_path).sha256 == SHA256
    (tmp_path / "file.bin").unlink()
    server.content = b"changed"
    with pytest.raises(DownloadError, match=rf"{SHA256}.*removed.*accepted\.json") as caught:
        fetch_file(remote(server), tmp_path)
    assert hashlib.sha256(b"changed").hexdigest() in str(caught.value)
    assert not (tmp_path / "file.bin").exists()
    (tmp_path / "accepted.json").unlink()
    assert fetch_file(remote(server), tmp_path).path.read_bytes() == b"changed"


def test_a_checksum_that_is_asked_for_outweighs_what_was_accepted(
    server: Server, tmp_path: Path
) -> None:
    accept(tmp_path, [fetch_file(remote(server), tmp_path)])
    (tmp_path / "file.bin").unlink()
    server.content = b"changed"
    wanted = hashlib.sha256(b"changed").hexdigest().upper()
    assert fetch_file(remote(server), tmp_path, sha256=wanted).path.read_bytes() == b"changed"


def test_a_file_by_hand_with_a_wrong_checksum_is_left_to_its_owner(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.bin").write_bytes(b"by hand")
    with pytest.raises(DownloadError, match="Delete or replace it"):
        fetch_file(remote(server), tmp_path, sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == b"by hand"


@pytest.mark.parametrize("wrong", ["", "abc", "0" * 63, "g" * 64])
def test_what_is_no_checksum_is_refused(server: Server, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InvalidArgumentError, match="64 hexadecimal"):
        fetch_file(remote(server), tmp_path, sha256=wrong)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("0" * 64),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["file.bin", "sha256", "date"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(record=st.binary(max_size=30) | values.map(json.dumps).map(str.encode))
def test_a_record_of_any_content_is_no_crash(server: Server, tmp_path: Path, record: bytes) -> None:
    (tmp_path / "accepted.json").write_bytes(record)
    (tmp_path / "file.bin").write_bytes(CONTENT)
    refuses = b'"file.bin": {' in record and b'"sha256": "' + b"0" * 64 in record
    try:
        found = fetch_file(remote(server), tmp_path)
    except DownloadError:
        assert refuses
    else:
        assert found.sha256 == SHA256
        accept(tmp_path, [found])
        assert json.loads((tmp_path / "accepted.json").read_text())["file.bin"]["sha256"] == SHA256


def test_two_at_once_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "_LOCK_SECONDS", 0.05)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with model_cache.locked(tmp_path / "model"):
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    with (
        pytest.raises(ModelError, match="Another process"),
        model_cache.locked(tmp_path / "model"),
    ):
        pass
    done.set()
    thread.join()
    with model_cache.locked(tmp_path / "model"):
        pass
