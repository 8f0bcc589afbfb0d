"""``audiosearch export``: write a library to a file that other programs read."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import folder_type, json_option
from audiosearch.cli.output import count, echo_json, one_line, size

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
@click.option(
    "--labels",
    is_flag=True,
    help="Write what you confirmed, rejected and added instead, to a .csv file.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it exists.")
@json_option
def command(
    library: Path | None,
    to: Path,
    threshold: float | None,
    labels: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write all clips of LIBRARY, a row a clip: recording, start, end, scores, vector, frames.

    LIBRARY is a folder; the default is that of `search`. `audiosearch import` reads the file again.

    With --labels: a row a label, of path, start, end, label, verdict (confirmed or rejected), mid
    and content. `audiosearch import --labels` reads it again.
    """
    import audiosearch as aus

    if labels:
        if threshold is not None:
            raise click.UsageError("--labels and --threshold do not go together.")
        with opened(library) as lib:
            written = aus.export_labels(lib, to, overwrite=overwrite)
        if as_json:
            echo_json(written.to_dict())
            return
        click.echo(
            f"{one_line(written.file)}: {count(written.labels, 'label')} of "
            f"{count(written.recordings, 'recording')}."
        )
        if written.waiting:
            click.echo(
                f"{count(written.waiting, 'label')} of sounds that are not in the library now "
                "left out."
            )
        return
    with opened(library) as lib:
        summary = aus.export(lib, to, threshold=threshold, overwrite=overwrite)
    if as_json:
        echo_json(summary.to_dict())
        return
    click.echo(
        f"{one_line(summary.file)}: {count(summary.clips, 'clip')} of "
        f"{count(summary.recordings, 'recording')}, {size(summary.bytes)}."
    )
