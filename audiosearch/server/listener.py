"""Listening: one address, one port, the application's own threads, and a clean end."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from audiosearch.errors import InvalidArgumentError, ServerError
from audiosearch.server import logs
from audiosearch.server.access import access_of
from audiosearch.server.app import create_app
from audiosearch.server.limits import Limits
from audiosearch.server.security import is_loopback
from audiosearch.server.state import state_of

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["is_loopback", "serve"]

# Pictures and uploads may wait in half of them; see `pictures` and `state`.
_THREADS = 24
_LARGEST_PORT = 65_535
# Flask refuses a file beyond the limit with a page that says so, but the page reaches a browser
# only when the browser could finish sending. What is larger by more than this is cut off at once.
_BEYOND_LIMIT = 16 * 10**6


def serve(
    library: Library,
    *,
    host: str = "127.0.0.1",
    port: int = 8484,
    token: str | None = None,
    users: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    classifiers: Sequence[str] = (),
    proxy: str | None = None,
    open_browser: bool = False,
    announce: Callable[[str], object] = lambda url: None,
) -> None:
    """Serve the web app on `library` until Ctrl-C or SIGTERM.

    Parameters
    ----------
    library : Library
        An open library.
    host : str
        Address or name to bind. Anything but this machine's own loopback needs a token.
    port : int
        0 takes any free port.
    token : str, optional
        What a client must know; see `audiosearch.server.access`.
    users : path-like, optional
        The file of those who may sign in; see `audiosearch.server.users`.
    limits : Limits, optional
        What is taken from clients.
    classifiers : sequence of str
        Folders of classifiers of the user's own (`audiosearch.lab`) that tag uploads too; those
        of the library do anyway.
    proxy : str, optional
        Address of a reverse proxy, whose word is taken for a client's address, host and protocol
        (the headers ``X-Forwarded-For``, ``-Host`` and ``-Proto``); ``*`` trusts everybody who can
        reach the server.
    open_browser : bool
        Open the page in the user's browser, signed in.
    announce : callable
        Called once with the URL when the server listens, before it answers requests.

    Raises
    ------
    InvalidArgumentError
        When the port or the token cannot be.
    ServerError
        When the port is taken, the address is not this machine's, or `host` needs a token.
    """
    if not 0 <= port <= _LARGEST_PORT:
        raise InvalidArgumentError(f"A port is a number from 0 to {_LARGEST_PORT}: {port}")
    if not is_loopback(host) and not token and users is None:
        raise ServerError(
            f"Serving on {host} lets other machines in, so it needs a token or users. "
            "Set AUDIOSEARCH_TOKEN to a long random text, give a users file, or serve on 127.0.0.1."
        )
    if proxy is not None and not token and users is None:
        raise ServerError(
            "A proxy lets other machines in, so the server needs a token or users. "
            "Set AUDIOSEARCH_TOKEN to a long random text, or give a users file."
        )
    import waitress

    # Requests that wait a moment for a thread are no news to the person at the terminal.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logs.scrub("waitress", secrets=[token] if token else [])
    limits = limits or Limits()
    app = create_app(
        library, token=token, users=users, host=host, limits=limits, classifiers=classifiers
    )
    trust: dict[str, object] = {}
    if proxy is not None:
        known = {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
        trust = {"trusted_proxy": proxy, "trusted_proxy_headers": known}
    address = _resolve(host)
    try:
        server = waitress.create_server(
            app,
            host=address,
            port=port,
            threads=_THREADS,
            ident=None,
            clear_untrusted_proxy_headers=True,
            max_request_body_size=limits.upload_bytes + _BEYOND_LIMIT,
            **trust,
        )
    except OSError as error:
        raise _cannot_listen(error, host, port) from error
    url = _url(host, server.effective_port)
    # What is loaded now stays: collections that looked at it again and again would take longer
    # than a search does.
    gc.collect()
    gc.freeze()
    with _terminated_as_interrupt():
        try:
            announce(url)
            if open_browser:
                webbrowser.open(
                    url + (f"sign-in?ticket={access_of(app).ticket()}" if token else "")
                )
            server.run()
        except KeyboardInterrupt:
            # It came before the server's own loop, which ends at Ctrl-C by itself.
            pass
        finally:
            server.close()
            state_of(app).close()


def _resolve(host: str) -> str:
    """Return one address of `host`, IPv4 where there is one: a name may have several."""
    if not host:
        raise InvalidArgumentError("The host is empty. Use 127.0.0.1, or 0.0.0.0 with a token.")
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ServerError(
            f"No address is known for the host '{host}'. Use an address of this machine, "
            "as in --host 127.0.0.1."
        ) from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def _cannot_listen(error: OSError, host: str, port: int) -> ServerError:
    """Return the error for a port that could not be bound, with what to do."""
    if error.errno == errno.EADDRINUSE:
        return ServerError(
            f"Port {port} of {host} is in use by another program. Choose another with --port, "
            "or --port 0 for any free one."
        )
    if error.errno == errno.EACCES:
        return ServerError(
            f"Port {port} may be used by the administrator only. Choose one above 1023 with --port."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ServerError(
            f"{host} is not an address of this machine. Use --host 127.0.0.1, or --host 0.0.0.0 "
            "for all its addresses."
        )
    return ServerError(f"The server cannot listen on {host}:{port}: {error.strerror or error}.")


def _url(host: str, port: int) -> str:
    """Return the address to open: "every address" is this machine for its own browser."""
    name = host.strip("[]")
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """Make SIGTERM end the server as Ctrl-C does.

    The first process of a container ignores a SIGTERM that nobody handles. Only the main thread
    may set a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
