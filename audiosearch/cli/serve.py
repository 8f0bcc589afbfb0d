"""``audiosearch serve``: the web app on a library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.limit_options import limit_options, limits_from
from audiosearch.cli.options import (
    classifier_option,
    get_option,
    host_option,
    library_option,
    open_option,
    port_option,
)
from audiosearch.cli.serving import (
    TOKEN_VARIABLE,
    enter_user,
    print_page,
    serve_library,
    token_for,
)

__all__ = ["command"]


@click.command()
@library_option(falls_back=True)
@host_option
@port_option
@open_option
@click.option(
    "--token",
    metavar="SECRET",
    show_default=f"{TOKEN_VARIABLE}, else a new one where others can reach the server",
    help="What a visitor must show. Better set in the environment: others on this machine can "
    "read a command line.",
)
@click.option(
    "--users",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    show_default="none",
    help="Who may sign in, by name and password.",
)
@click.option(
    "--add-user",
    metavar="NAME",
    show_default="none",
    help="Add a user to --users, or give one a new password, and exit. The password is asked for, "
    "or read from stdin.",
)
@click.option(
    "--listener",
    is_flag=True,
    help="With --add-user: one who may search and listen, and not send sounds or change labels.",
)
@click.option(
    "--proxy",
    metavar="ADDRESS",
    show_default="none",
    help="A reverse proxy in front of the server, whose X-Forwarded-For, -Host and -Proto are "
    "believed.",
)
@classifier_option
@limit_options
@get_option
def command(
    library: Path | None,
    host: str,
    port: int,
    open_browser: bool,
    token: str | None,
    users: Path | None,
    add_user: str | None,
    listener: bool,
    proxy: str | None,
    get_path: str | None,
    classifiers: tuple[Path, ...],
    **limits: Any,
) -> int:
    """Serve the web app: search, listen, tag, more like this.

    Only this machine can reach it unless --host says otherwise. Sounds that are sent are tagged
    with --classifier too, and with the classifiers that the library keeps.
    """
    if add_user is not None:
        return enter_user(users, add_user, listener=listener)
    if listener:
        raise click.UsageError("--listener goes with --add-user NAME.")
    with opened(library) as lib:
        if get_path is not None:
            return print_page(lib, get_path)
        serve_library(
            lib,
            host=host,
            port=port,
            token=token_for(host, token, users=users, proxy=proxy),
            open_browser=open_browser,
            users=users,
            proxy=proxy,
            limits=limits_from(limits),
            classifiers=[str(folder) for folder in classifiers],
        )
    return 0
