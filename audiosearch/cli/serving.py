"""What ``demo`` and ``serve`` share: one page to stdout, or the web app until it is stopped."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from audiosearch.library import Library
    from audiosearch.server.limits import Limits

__all__ = ["TOKEN_VARIABLE", "print_page", "serve_library", "token_for"]

TOKEN_VARIABLE = "AUDIOSEARCH_TOKEN"


def print_page(library: Library, path: str) -> int:
    """Print the body of one page of the web app, and return the exit code."""
    from audiosearch.server import fetch_page

    status, _, body = fetch_page(library, path)
    click.echo(body.encode("utf-8"), nl=not body.endswith("\n"))
    return EXIT_FAILED if status >= 400 else EXIT_OK


def token_for(
    host: str, token: str | None, *, users: Path | None = None, proxy: str | None = None
) -> str | None:
    """Return the token that a server on `host` asks for; None where it needs none.

    The token is the one given, else ``AUDIOSEARCH_TOKEN``, else a new one if others can reach
    the server and there are no users to sign in.
    """
    from audiosearch.server import is_loopback

    if token is not None:
        return token
    chosen = os.environ.get(TOKEN_VARIABLE) or None
    if chosen is None and users is None and (proxy is not None or not is_loopback(host)):
        chosen = secrets.token_urlsafe(24)
        click.echo(
            f"Other machines can reach {host if proxy is None else 'the proxy'}, so visitors need "
            "a token. None was set in "
            f"{TOKEN_VARIABLE}; this new one holds until the server stops: {chosen}"
        )
    return chosen


def enter_user(users: Path | None, name: str, *, listener: bool) -> int:
    """Add a user to a users file with a password that is asked for, and return the exit code."""
    from audiosearch.server.users import add_user

    if users is None:
        raise click.UsageError("--add-user needs --users FILE, the file to add to.")
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    is_new = add_user(users, name, password, listener=listener)
    click.echo(f"{name} {'was added to' if is_new else 'has a new password in'} {users}.")
    return EXIT_OK


def serve_library(
    library: Library,
    *,
    host: str,
    port: int,
    token: str | None,
    open_browser: bool,
    users: Path | None = None,
    proxy: str | None = None,
    limits: Limits | None = None,
    classifiers: Sequence[str] = (),
) -> None:
    """Serve the web app until Ctrl-C or SIGTERM, and print its address."""
    from audiosearch.server import serve

    def announce(url: str) -> None:
        click.echo(f"Serving {library.folder} at {url} (Ctrl-C stops it)")

    serve(
        library,
        host=host,
        port=port,
        token=token,
        users=users,
        proxy=proxy,
        limits=limits,
        classifiers=classifiers,
        open_browser=open_browser,
        announce=announce,
    )
