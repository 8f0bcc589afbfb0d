"""``audiosearch lab predict``: classify files with a classifier that the lab trained."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.output import clock, echo_json, one_line, warn_skipped

__all__ = ["command"]


@click.command("predict", short_help="Classify files with a classifier of your own.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=3, help="How many classes to show.")
@click.option(
    "--windows", "show_windows", is_flag=True, help="Show each window of a long file as well."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a file, a line each.")
def command(
    folder: Path, files: tuple[Path, ...], top: int, show_windows: bool, as_json: bool
) -> int:
    """Classify FILES, or all sounds in folders, with the classifier in FOLDER.

    A file's scores are the means over its windows. Exit code 3 says that some files could not be
    read, 1 that none could.
    """
    from audiosearch import audio
    from audiosearch.lab import predict

    listed: list[Path] = []
    for path in files:
        listed += audio.find_audio(path) if path.is_dir() else [path]
    skipped, done = [], 0
    for found in predict(folder, listed):
        if as_json:
            echo_json(found.to_dict(), indent=None)
        if found.reason is not None:
            skipped.append((found.path, found.reason))
            continue
        done += 1
        if as_json:
            continue
        click.echo(f"{one_line(found.path)}  {_labels(found.labels[:top])}")
        if show_windows:
            names = [label for label, _ in sorted(found.labels)]
            for window in found.windows:
                best = sorted(zip(names, window.scores, strict=True), key=lambda each: -each[1])
                times = f"{clock(window.start)}-{clock(window.end)}"
                click.echo(f"  {times}  {_labels(tuple(best[:top]))}")
    if skipped:
        warn_skipped(skipped)
        return EXIT_SKIPPED if done else EXIT_FAILED
    return EXIT_OK if done else EXIT_FAILED


def _labels(labels: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{one_line(label)} {score:.2f}" for label, score in labels)
