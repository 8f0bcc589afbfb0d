"""Options that several commands share, so that they are called and explained alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "classifier_option",
    "embedder_option",
    "get_option",
    "host_option",
    "json_option",
    "library_option",
    "limit_option",
    "offset_option",
    "open_option",
    "port_option",
    "together",
    "top_option",
    "ungrouped_option",
]

F = TypeVar("F", bound=Callable[..., Any])

LIBRARY_DEFAULT = "AUDIOSEARCH_LIBRARY, else the user data folder"

folder_type = click.Path(file_okay=True, path_type=Path)


def together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Return what adds several options to a command, in the order in which help lists them."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def library_option(*, falls_back: bool = False) -> Callable[[F], F]:
    """Return ``--library DIR``; `falls_back` says that the shipped library is used without one."""
    default = LIBRARY_DEFAULT + (", else the shipped demo" if falls_back else "")
    return click.option(
        "--library",
        type=folder_type,
        metavar="DIR",
        show_default=default,
        help="Folder of the library.",
    )


limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=20, help="How many hits to show."
)
offset_option = click.option(
    "--offset",
    type=click.IntRange(min=0),
    default=0,
    help="How many hits to leave out first.",
)
ungrouped_option = click.option(
    "--ungrouped", is_flag=True, help="List clips, not recordings with their best clips."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON (UTF-8) instead of text."
)
top_option = click.option(
    "--top", type=click.IntRange(1, 527), default=5, help="How many classes to show."
)
embedder_option = click.option(
    "--embedder",
    # A test compares the choices with `audiosearch.embedders.available_embedders`.
    type=click.Choice(["lite", "vggish", "vggish-int8"]),
    default="lite",
    help="What turns sound into embeddings.",
)
classifier_option = click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="none",
    help="A classifier of your own classes, the folder that `lab train` wrote; may be repeated.",
)
host_option = click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address to listen on. Any other than this machine's own needs a token.",
)
port_option = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8484,
    help="Port to listen on; 0 picks a free one.",
)
open_option = click.option(
    "--open", "open_browser", is_flag=True, help="Open the page in the web browser."
)
get_option = click.option(
    "--get",
    "get_path",
    metavar="PATH",
    show_default="serve",
    help='Print one page, for example "/?q=Car", and exit.',
)
