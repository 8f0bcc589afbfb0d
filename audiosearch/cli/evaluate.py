"""``audiosearch evaluate``: how good the classifier is on labelled clips."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.options import json_option
from audiosearch.cli.output import count, echo_json
from audiosearch.errors import printable

__all__ = ["command"]


@click.command(short_help="Measure the classifier on labelled clips.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="the bundled one",
    help="Folder of a trained classifier, as `audiosearch train` writes it.",
)
@click.option(
    "--per-class",
    "per_class",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    show_default="none",
    help="Also write a table with one row a class.",
)
@json_option
def command(file: Path, classifier: Path | None, per_class: Path | None, as_json: bool) -> None:
    """Score every clip of a packed data set and compare with its true labels.

    Prints mean average precision (mAP), the mean area under the ROC curve (AUC) and d-prime.
    """
    import audiosearch as aus

    result = aus.evaluate(file, classifier=classifier)
    if per_class is not None:
        result.write_per_class(per_class)
    if as_json:
        echo_json(result.to_dict())
        return
    click.echo(f"mAP      {result.mAP:.4f}")
    click.echo(f"AUC      {result.AUC:.4f}")
    click.echo(f"d-prime  {result.d_prime:.3f}")
    click.echo(f"clips    {result.clips:,}")
    if per_class is not None:
        rows = count(len(result.per_class), "class", "classes")
        click.echo(f"{rows} written to {printable(str(per_class))}")
