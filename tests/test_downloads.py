"""Downloads: broken connections are gone on with, wrong files refused, failures explained."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiosearch import downloads
from audiosearch.downloads import DownloadProgress, download
from audiosearch.errors import DownloadError, ModelError, StorageError

CONTENT = np.random.default_rng(0).bytes(1_500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """A server of one file at every address, with faults.

    Attributes
    ----------
    breaks : list of int
        After how many bytes each of the next answers breaks off.
    answers : list
        Codes that the next requests get in place of the file, as (code, headers).
    dies_after : int, optional
        How many requests it answers at all.
    files : dict
        What it serves in place of `content`, by the last part of the address.
    """

    url: str = ""
    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    breaks: list[int] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    dies_after: int | None = None
    files: dict[str, Path] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        if self.dies_after is not None and len(self.requests) > self.dies_after:
            handler.close_connection = True
            return
        if self.answers:
            code, headers = self.answers.pop(0)
            handler.send_response(code)
            for name, value in ({"Content-Length": "0"} | headers).items():
                handler.send_header(name, value)
            handler.end_headers()
            return
        if self.files:
            self.content = self.files[handler.path.rpartition("/")[2]].read_bytes()
        first = 0
        same = handler.headers.get("If-Range") in (None, *self.headers.values())
        if asked and self.ranges and same:
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            assert match
            first = int(match[1])
        if first and first >= len(self.content):
            handler.send_error(416)
            return
        handler.send_response(206 if first else 200)
        if first:
            size = len(self.content)
            handler.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        body = self.content[first:]
        for name, value in ({"Content-Length": str(len(body))} | self.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        if self.breaks:
            body = body[: self.breaks.pop(0)]
            handler.close_connection = True
        handler.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "_PAUSES", (0.0,) * 4)
    monkeypatch.setattr(downloads, "_FIRST_PAUSES", (0.0,) * 2)
    with serving() as state:
        yield state


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                state.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_address[1]}/file.bin"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_brings_the_file_and_says_how_far_it_is(server: Server, tmp_path: Path) -> None:
    seen: list[DownloadProgress] = []
    found = download([server.url], tmp_path / "new" / "file.bin", on_progress=seen.append)
    assert found.path.read_bytes() == CONTENT
    assert (found.url, found.sha256) == (server.url, SHA256)
    assert left(found.path.parent) == ["file.bin"]
    assert {(item.name, item.total) for item in seen} == {("file.bin", len(CONTENT))}
    done = [item.done for item in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(CONTENT))


def test_a_broken_connection_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.breaks = [400_000, 1, 700_000]
    found = download([server.url], tmp_path / "file.bin", sha256=SHA256)
    assert found.path.read_bytes() == CONTENT
    asked = [asked for _, asked in server.requests]
    assert asked == [None, "bytes=400000-", "bytes=400001-", "bytes=1100001-"]
    assert left(tmp_path) == ["file.bin"]


def test_a_later_call_goes_on_where_an_earlier_one_failed(server: Server, tmp_path: Path) -> None:
    server.breaks = [500_000]
    server.dies_after = 1
    with pytest.raises(DownloadError, match=r"500,000 bytes are kept") as caught:
        download([server.url], tmp_path / "file.bin", by_hand="Or ask a friend.")
    message = str(caught.value)
    assert server.url in message
    assert str(tmp_path / "file.bin") in message
    assert message.endswith("Or ask a friend.")
    assert isinstance(caught.value, ModelError)
    assert left(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    server.requests.clear()
    server.dies_after = None
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT
    assert server.requests == [("/file.bin", "bytes=500000-")]


def test_another_file_at_the_same_address_is_loaded_from_its_start(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"old" * 1000)
    note = {"url": server.url, "validator": '"zero"', "total": 9000, "md5": None}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(note))
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT
    assert server.requests == [("/file.bin", "bytes=3000-")]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks = [600_000]
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["none", "weak ETag"])
def test_without_a_validator_nothing_is_gone_on_with(
    server: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    server.headers = headers
    server.breaks = [600_000]
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, None]


def test_a_date_is_a_validator_too(server: Server, tmp_path: Path) -> None:
    server.headers = {"Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}
    server.breaks = [600_000]
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=600000-"]


def test_more_here_than_the_server_has_is_loaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    note = {"url": server.url, "validator": '"one"', "total": len(CONTENT), "md5": None}
    (tmp_path / "file.bin.part.json").write_text(json.dumps(note))
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_stays(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"SHA-256 is {SHA256}, not 0000") as caught:
        download([server.url], tmp_path / "file.bin", sha256="0" * 64)
    assert server.url in str(caught.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("right", [True, False])
def test_the_servers_own_checksum_is_heeded(server: Server, tmp_path: Path, right: bool) -> None:
    digest = hashlib.md5(CONTENT if right else b"other").digest()
    server.headers |= {"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(digest).decode()}"}
    server.breaks = [500_000]
    if right:
        assert download([server.url], tmp_path / "file.bin").sha256 == SHA256
        return
    with pytest.raises(DownloadError, match="not what the server says"):
        download([server.url], tmp_path / "file.bin")
    assert left(tmp_path) == []


def test_the_next_address_is_asked_where_one_has_nothing(server: Server, tmp_path: Path) -> None:
    server.answers = [(404, {})]
    mirror = server.url.replace("file.bin", "mirror/file.bin")
    found = download([mirror, server.url], tmp_path / "file.bin")
    assert (found.url, found.path.read_bytes()) == (server.url, CONTENT)
    assert [path for path, _ in server.requests] == ["/mirror/file.bin", "/file.bin"]


def test_a_mirror_with_a_wrong_file_is_passed_over(server: Server, tmp_path: Path) -> None:
    with serving() as mirror:
        mirror.content = b"something else"
        found = download([mirror.url, server.url], tmp_path / "file.bin", sha256=SHA256)
    assert (found.url, found.path.read_bytes()) == (server.url, CONTENT)


def test_a_web_page_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    with serving() as portal:
        portal.content = b"<html>Log in first</html>"
        found = download([portal.url, server.url], tmp_path / "file.bin", begins=CONTENT[:2])
        assert found.url == server.url
        with pytest.raises(DownloadError, match="begins with b'<html'"):
            download([portal.url], tmp_path / "other.bin", begins=CONTENT[:5])


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [(503, {"Retry-After": "0"}), (500, {})]
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT


def test_all_failures_are_named(server: Server, tmp_path: Path) -> None:
    server.answers = [(404, {}), (403, {})]
    other = server.url.replace("file.bin", "b/file.bin")
    with pytest.raises(DownloadError) as caught:
        download([server.url, other, "ftp://host/file.bin"], tmp_path / "file.bin")
    message = str(caught.value)
    for part in (server.url, "404", other, "403", "ftp://host/file.bin", "Only http"):
        assert part in message


def test_no_connection_is_said(tmp_path: Path, server: Server) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="No connection"):
        download([url], tmp_path / "file.bin")


def test_an_encrypted_address_may_not_lead_to_an_open_one() -> None:
    with pytest.raises(Exception, match="not encrypted"):
        downloads._refuse_downgrade("https://a/x", "http://b/x")
    downloads._refuse_downgrade("https://a/x", "https://b/x")
    downloads._refuse_downgrade("http://a/x", "http://b/x")


def test_too_little_room_is_said_before_anything_comes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"too little room for file\.bin: 1,500,000 bytes"):
        download([server.url], tmp_path / "file.bin")


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        download([server.url], tmp_path / "file" / "file.bin")


def test_ctrl_c_keeps_what_came(server: Server, tmp_path: Path) -> None:
    def stop(progress: DownloadProgress) -> None:
        if progress.done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.url], tmp_path / "file.bin", on_progress=stop)
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert kept > 500_000
    server.requests.clear()
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == CONTENT
    assert server.requests == [("/file.bin", f"bytes={kept}-")]


def note_texts() -> st.SearchStrategy[bytes]:
    keys = st.sampled_from(["url", "validator", "total", "md5"])
    leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just('"one"')
    values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=2), max_leaves=4)
    notes = st.dictionaries(keys, values, max_size=4).map(json.dumps).map(str.encode)
    return notes | st.binary(max_size=40)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=note_texts(), ours=st.booleans(), part=st.binary(max_size=50))
def test_whatever_lies_beside_the_target_the_file_is_right(
    server: Server, tmp_path: Path, text: bytes, ours: bool, part: bytes
) -> None:
    server.content = b"the content of the file"
    if ours:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            text = json.dumps(json.loads(text) | {"url": server.url}).encode()
    (tmp_path / "file.bin.part.json").write_bytes(text)
    # What was loaded before is a beginning of the file; anything else the validator rules out.
    begun = server.content[: len(part)] if b'\\"one\\"' in text else part
    (tmp_path / "file.bin.part").write_bytes(begun)
    assert download([server.url], tmp_path / "file.bin").path.read_bytes() == server.content


def collected(call: Callable[[], object]) -> str:
    with pytest.raises(DownloadError) as caught:
        call()
    return str(caught.value)


def test_messages_are_text_whatever_the_folder_is_called(server: Server, tmp_path: Path) -> None:
    server.answers = [(404, {})]
    target = tmp_path / "caf\udce9" / "file.bin"
    collected(lambda: download([server.url], target)).encode()
