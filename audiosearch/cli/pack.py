"""``audiosearch pack``: make a packed data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED, interrupted
from audiosearch.cli.options import embedder_option, json_option
from audiosearch.cli.output import count, echo_json, speed_line, warn, warn_skipped
from audiosearch.cli.progress import JobProgress
from audiosearch.errors import printable

if TYPE_CHECKING:
    from audiosearch.library.packing import PackSummary

__all__ = ["command"]


@click.command(short_help="Make a packed data set from AudioSet's TFRecords or sounds.")
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE..."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.h5",
    help="File to make; it must not exist yet.",
)
@embedder_option
@json_option
def command(sources: tuple[Path, ...], out: Path, embedder: str, as_json: bool) -> int:
    """Make a packed data set (FILE.h5), as `train`, `evaluate` and `index` take them.

    SOURCE is a TFRecord file of AudioSet's released features or a folder of them; or a sound
    file, a folder of sounds, or a CSV with the columns path and, if wanted, start, end (seconds)
    and labels (class names or mids, separated by semicolons).

    It may be stopped at any time; the same command goes on where it was. Until the file is
    finished, what is done stands in FILE.h5.part.
    """
    import audiosearch as aus

    with JobProgress() as progress:
        try:
            summary = aus.pack(sources, out, embedder=embedder, on_progress=progress)
        except KeyboardInterrupt:
            progress.close()
            return interrupted("Interrupted. What was done is kept; run the same command to go on.")
    if as_json:
        echo_json(summary.to_dict())
    else:
        _print_summary(summary, out)
    if not summary.clips:
        return EXIT_FAILED
    return EXIT_SKIPPED if summary.skipped else EXIT_OK


def _print_summary(summary: PackSummary, out: Path) -> None:
    name = printable(str(out))
    if summary.clips:
        click.echo(
            f"{name}: {count(summary.clips, 'clip')} from {count(summary.files, 'file')}, "
            f"{len(summary.skipped):,} skipped."
        )
    else:
        warn(f"{name} was not made: none of the sources could be used.")
    if summary.seconds and summary.elapsed:
        click.echo(speed_line(summary.seconds, summary.elapsed))
    if summary.skipped:
        warn_skipped([(item.path, item.reason) for item in summary.skipped])
