"""``audiosearch export``: write a library to a file that other programs read."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import folder_type, json_option
from audiosearch.cli.output import count, echo_json, one_line

__all__ = ["command"]


@click.command(short_help="Write a library to a CSV, JSON lines, Parquet or HDF5 file.")
@click.argument("library", required=False, type=folder_type, metavar="[LIBRARY]")
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to make; .csv, .jsonl, .parquet or .h5 says what it becomes.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    show_default="all scores are written",
    help="Leave out scores below this.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@json_option
def command(
    library: Path | None, to: Path, threshold: float | None, overwrite: bool, as_json: bool
) -> None:
    """Write all clips of LIBRARY, a row a clip: recording, start, end, scores, vector, frames.

    LIBRARY is a folder; the default is that of `search`. `audiosearch import` reads the file again.
    """
    import audiosearch as aus

    with opened(library) as lib:
        summary = aus.export(lib, to, threshold=threshold, overwrite=overwrite)
    if as_json:
        echo_json(summary.to_dict())
        return
    click.echo(
        f"{one_line(summary.file)}: {count(summary.clips, 'clip')} of "
        f"{count(summary.recordings, 'recording')}, {summary.bytes / 1e6:,.1f} MB."
    )
