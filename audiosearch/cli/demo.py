"""``audiosearch demo``: the first hits of the shipped library, then its web page."""

from __future__ import annotations

import click

from audiosearch.cli.options import get_option, host_option, open_option, port_option
from audiosearch.cli.output import result_lines
from audiosearch.cli.serving import print_page, serve_library, token_for

__all__ = ["command"]

QUERY = "Car"
HITS = 5


@click.command()
@host_option
@port_option
@open_option
@get_option
def command(host: str, port: int, open_browser: bool, get_path: str | None) -> int:
    """Try it: search the shipped library, then serve it.

    The library holds half of AudioSet's evaluation clips, scored by the bundled classifier.
    """
    import audiosearch as aus

    with aus.open_library(aus.shipped_library()) as library:
        if get_path is not None:
            return print_page(library, get_path)
        for line in result_lines(library.search(QUERY, limit=HITS), subject=f'"{QUERY}"'):
            click.echo(line)
        click.echo()
        token = token_for(host, None)
        serve_library(library, host=host, port=port, token=token, open_browser=open_browser)
    return 0
