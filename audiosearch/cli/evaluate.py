"""``audiosearch evaluate``: how good the classifier is on labelled clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.options import json_option
from audiosearch.cli.output import count, echo_json
from audiosearch.errors import printable

if TYPE_CHECKING:
    from audiosearch.classifier.evaluation import Evaluation
    from audiosearch.library.search_evaluation import SearchEvaluation

__all__ = ["command"]

_KINDS = {"class": "X", "parent": "X with kinds", "and": "X Y", "and not": "X -Y"}
_METHODS = {"search": "search", "all": "by score, all clips", "top5": "among the best 5"}


@click.command(short_help="Measure the classifier on labelled clips.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    show_default="the bundled one",
    help="Folder of a trained classifier, as `audiosearch train` writes it; the scores of several "
    "are averaged.",
)
@click.option(
    "--per-class",
    "per_class",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    show_default="none",
    help="Also write a table with one row a class.",
)
@click.option(
    "--intervals",
    type=click.IntRange(min=2),
    metavar="N",
    show_default="none",
    help="Also give 95 % confidence intervals, from N resamples of the clips; 200 will do.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="none",
    help="Also draw precision-recall curves and reliability; needs audiosearch[lab].",
)
@click.option(
    "--search",
    "search",
    is_flag=True,
    help="Measure the order of the search instead: how good the first hits are, for all classes "
    "and for pairs of classes.",
)
@json_option
def command(
    file: Path,
    classifier: tuple[Path, ...],
    per_class: Path | None,
    intervals: int | None,
    plots: Path | None,
    search: bool,
    as_json: bool,
) -> None:
    """Score every clip of a packed data set and compare with its true labels.

    Prints mean average precision (mAP), the mean area under the ROC curve (AUC), d-prime, and
    label-weighted label-ranking average precision (lwlrap); then how far scores are from
    frequencies, raw and calibrated: expected calibration error (ECE) and Brier score. Classes
    that no clip has are left out of the means.

    With --search it prints two tables of average precision, precision at 10 and nDCG@10: of
    label:"X" against the labels as they are, and of the bare name X against X and all that is
    below it in the ontology; beside the search stand all clips ordered by the class's score, and
    those that have the class among their best five.
    """
    import audiosearch as aus

    if search:
        if classifier or per_class is not None or intervals is not None or plots is not None:
            raise click.UsageError("--search goes with --json only: it measures what is bundled.")
        quality = aus.evaluate_search(file)
        if as_json:
            echo_json(quality.to_dict())
            return
        for line in _search_lines(quality):
            click.echo(line)
        return

    result = aus.evaluate(
        file, classifier=classifier or None, intervals=intervals or 0, plots=plots
    )
    if per_class is not None:
        result.write_per_class(per_class)
    if as_json:
        echo_json(result.to_dict())
        return
    for line in _lines(result):
        click.echo(line)
    if per_class is not None:
        rows = count(len(result.per_class), "class", "classes")
        click.echo(f"{rows} written to {printable(str(per_class))}")
    for path in result.plots:
        click.echo(f"plot written to {printable(str(path))}")


def _search_lines(result: SearchEvaluation) -> list[str]:
    lines = [f"{count(result.clips, 'clip')}, {count(result.classes, 'class', 'classes')}"]
    tables = (
        ('label:"X", and the labels as they are', result.exact),
        ("X, and every clip that is labelled X or with a kind of it", result.closed),
    )
    for title, measures in tables:
        lines += ["", title, f"{'':39}{'queries':>8}{'AP':>9}{'P@10':>9}{'nDCG@10':>9}"]
        for row in measures:
            name = f"  {_KINDS[row.kind]:<16}{_METHODS[row.method]:<21}"
            lines.append(
                f"{name}{row.queries:>8,}{row.average_precision:>9.4f}{row.precision_at_10:>9.4f}"
                f"{row.ndcg_at_10:>9.4f}"
            )
    return lines


def _lines(result: Evaluation) -> list[str]:
    intervals = result.intervals or {}

    def figure(name: str, title: str, digits: int) -> str:
        line = f"{title:<9}{getattr(result, name):.{digits}f}"
        if name in intervals:
            low, high = intervals[name]
            line += f"  ({low:.{digits}f} to {high:.{digits}f})"
        return line

    def error(name: str) -> str:
        line = f"{name:<9}{getattr(result.raw, name):.5f} raw"
        if result.calibrated is None:
            return line
        return f"{line}, {getattr(result.calibrated, name):.5f} calibrated"

    left_out = f"; {result.left_out:,} without a clip left out" if result.left_out else ""
    lines = [
        figure("mAP", "mAP", 4),
        figure("AUC", "AUC", 4),
        figure("d_prime", "d-prime", 3),
        f"clips    {result.clips:,}",
        figure("lwlrap", "lwlrap", 4),
        f"classes  {result.classes:,}{left_out}",
        error("ECE"),
        error("Brier"),
    ]
    if intervals:
        lines.append(f"(in brackets: 95 % intervals from {result.resamples:,} resamples of clips)")
    return lines
