"""``audiosearch info``: what is in a library, and what made it."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import json_option, library_option
from audiosearch.cli.output import clock, count, echo_json, one_line, size

__all__ = ["command"]

_SHOWN_SKIPPED = 20


@click.command(short_help="Say what is in a library and what made it.")
@library_option(falls_back=True)
@json_option
def command(library: Path | None, as_json: bool) -> None:
    """Say what is in the library, and which versions and weights made it."""
    with opened(library) as lib:
        values = lib.info().to_dict()
        if as_json:
            echo_json(values)
            return
        width = max(len(name) for name in values)
        for name, value in values.items():
            click.echo(f"{name.replace('_', ' '):<{width}}  {_shown(name, value)}")
        skipped = lib.skipped()
        for item in skipped[:_SHOWN_SKIPPED]:
            click.echo(f"  skipped {one_line(item.path)}: {one_line(item.reason)}")
        if len(skipped) > _SHOWN_SKIPPED:
            click.echo(f"  and {count(len(skipped) - _SHOWN_SKIPPED, 'more file')}")


def _shown(name: str, value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        names = ", ".join(one_line(str(each)) for each in value)
        return f"{len(value):,}: {names}" if name == "own_classes" else names
    if name == "seconds" and isinstance(value, int | float):
        return f"{value:,.0f} ({clock(value)})"
    if name == "bytes" and isinstance(value, int):
        return f"{value:,} ({size(value)})"
    return f"{value:,}" if type(value) is int else one_line(str(value))
