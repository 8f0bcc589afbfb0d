"""``audiosearch duplicates``: recordings that a library holds more than once."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import json_option, library_option
from audiosearch.cli.output import count, echo_json, one_line, size

__all__ = ["command"]


@click.command(short_help="List recordings that a library holds more than once.")
@library_option(falls_back=True)
@click.option("--exact", is_flag=True, help="Only files that are equal to the byte.")
@click.option(
    "--similarity",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.98,
    help="The least cosine of near duplicates, clip by clip.",
)
@json_option
def command(library: Path | None, exact: bool, similarity: float, as_json: bool) -> None:
    """List groups of recordings that are one sound; nothing is changed.

    Exact duplicates are files of equal content. Near duplicates sound the same from beginning to
    end: another format, another loudness.
    """
    import audiosearch as aus

    with opened(library) as lib:
        groups = aus.duplicates(lib, near=not exact, similarity=similarity)
    if as_json:
        echo_json([group.to_dict() for group in groups])
        return
    spare = sum(group.bytes for group in groups if group.kind == "exact")
    click.echo(f"{count(len(groups), 'group')} of duplicates; exact copies take {size(spare)}.")
    for group in groups:
        click.echo(f"{group.kind} ({group.similarity:.3f}):")
        for name in group.recordings:
            click.echo(f"  {one_line(name)}")
