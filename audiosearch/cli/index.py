"""``audiosearch index``: add sounds to a library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED, interrupted
from audiosearch.cli.job_options import limit_options, progress_options
from audiosearch.cli.options import (
    classifier_option,
    embedder_option,
    json_option,
    library_option,
)
from audiosearch.cli.output import echo_json, speed_line, warn_skipped
from audiosearch.cli.progress import JobProgress
from audiosearch.cli.watch import watched
from audiosearch.errors import printable

if TYPE_CHECKING:
    from audiosearch.library.indexing import IndexSummary

__all__ = ["command"]


@click.command(short_help="Add sounds to a library.")
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE..."
)
@library_option()
@click.option(
    "--keep-missing",
    is_flag=True,
    help="Keep what was indexed from files that are no longer there.",
)
@click.option(
    "--retry-skipped",
    is_flag=True,
    help="Try again the unchanged files that an earlier run skipped.",
)
@click.option(
    "--mix-embedders",
    is_flag=True,
    help="Allow embeddings of two origins in one library, such as AudioSet's and the bundled "
    "embedder's.",
)
@embedder_option
@classifier_option
@click.option(
    "--drop-classifier",
    multiple=True,
    metavar="NAME",
    show_default="none",
    help="Let the library forget a classifier of your own, and what it heard; may be repeated.",
)
@click.option(
    "--vector-index",
    metavar="FACTORY",
    show_default="as before, at first auto",
    help="FAISS's factory string of the index for search by example, such as IVF1024,SQ8; auto "
    "leaves it to the library.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Go on: index again whenever something in SOURCE changes, until Ctrl-C.",
)
@limit_options
@progress_options
@json_option
def command(
    sources: tuple[Path, ...],
    library: Path | None,
    keep_missing: bool,
    retry_skipped: bool,
    mix_embedders: bool,
    embedder: str,
    classifiers: tuple[Path, ...],
    drop_classifier: tuple[str, ...],
    vector_index: str | None,
    watch: bool,
    workers: int | None,
    time_limit: float,
    memory_limit: int,
    progress: str,
    quiet: bool,
    as_json: bool,
) -> int:
    """Add the sounds of SOURCE to the library: a folder, a sound file, or a packed FILE.h5.

    Running it again does only what is new or changed, and removes what is gone from the folders
    named. It may be stopped at any time; the next run goes on. Files that cannot be read are
    skipped and listed at the end.

    The library keeps each --classifier, and later runs go on with it: its classes are searched
    beside AudioSet's. Files of SOURCE that it has not heard yet are analysed again.
    """
    import audiosearch as aus

    folder = library or aus.default_library()
    options: dict[str, Any] = {
        "keep_missing": keep_missing,
        "retry_skipped": retry_skipped,
        "mix_embedders": mix_embedders,
        "embedder": embedder,
        "classifier": classifiers,
        "drop_classifier": drop_classifier,
        "vector_index": vector_index,
        "workers": workers,
        "time_limit": time_limit,
        "memory_limit": memory_limit,
    }
    how = "none" if quiet else progress

    def show(summary: IndexSummary) -> None:
        if as_json:
            echo_json(summary.to_dict(), indent=None if watch else 2)
        elif not quiet:
            _print_summary(summary, folder)

    if watch:
        return watched(sources, folder, options, show, how)
    with JobProgress(how) as shown:
        try:
            summary = aus.index(sources, folder, on_progress=shown, **options)
        except KeyboardInterrupt:
            shown.close()
            return interrupted("Interrupted. What was done is kept; run the same command to go on.")
    show(summary)
    if not summary.skipped:
        return EXIT_OK
    return EXIT_SKIPPED if summary.added + summary.updated + summary.unchanged else EXIT_FAILED


def _print_summary(summary: IndexSummary, folder: Path) -> None:
    click.echo(
        f"{printable(str(folder))}: {summary.added:,} added, {summary.updated:,} updated, "
        f"{summary.unchanged:,} unchanged, {summary.removed:,} removed, "
        f"{len(summary.skipped):,} skipped."
    )
    if summary.seconds and summary.elapsed:
        click.echo(speed_line(summary.seconds, summary.elapsed))
    if summary.skipped:
        warn_skipped([(item.path, item.reason) for item in summary.skipped])
