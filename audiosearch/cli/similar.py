"""``audiosearch similar``: find recordings by example."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import json_option, library_option, limit_option, offset_option
from audiosearch.cli.output import echo_json, result_lines

__all__ = ["command"]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--clip",
    type=click.IntRange(min=0),
    metavar="ID",
    show_default="none",
    help="Use this clip of the library as the example, in place of FILE.",
)
@library_option(falls_back=True)
@limit_option
@offset_option
@json_option
def command(
    file: Path | None,
    clip: int | None,
    library: Path | None,
    limit: int,
    offset: int,
    as_json: bool,
) -> None:
    """Find the recordings that sound like FILE, nearest first."""
    if (file is None) == (clip is None):
        raise click.UsageError("Give one example: a FILE, or --clip ID.")
    with opened(library) as lib:
        example = file if file is not None else clip
        assert example is not None  # one of the two was given
        result = lib.similar(example, limit=limit, offset=offset)
        if as_json:
            echo_json(result.to_dict())
            return
        subject = f"{file}" if clip is None else f"clip {clip}"
        for line in result_lines(result, subject=f"the sound of {subject}"):
            click.echo(line)
