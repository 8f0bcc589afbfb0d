"""``audiosearch serve``: the web app on a library."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import (
    get_option,
    host_option,
    library_option,
    open_option,
    port_option,
)
from audiosearch.cli.serving import TOKEN_VARIABLE, print_page, serve_library, token_for

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
@get_option
def command(
    library: Path | None,
    host: str,
    port: int,
    open_browser: bool,
    token: str | None,
    get_path: str | None,
) -> int:
    """Serve the web app: search, listen, tag, more like this.

    Only this machine can reach it unless --host says otherwise.
    """
    with opened(library) as lib:
        if get_path is not None:
            return print_page(lib, get_path)
        serve_library(
            lib, host=host, port=port, token=token_for(host, token), open_browser=open_browser
        )
    return 0
