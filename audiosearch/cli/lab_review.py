"""``audiosearch lab review``: labels that are likely wrong, and sounds worth labelling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.lab_options import (
    SoundProgress,
    cache_option,
    data_argument,
    data_options,
    quiet_keras,
    read_data,
    show_skipped,
)
from audiosearch.cli.options import json_option
from audiosearch.cli.output import echo_json, one_line

if TYPE_CHECKING:
    from audiosearch.lab.review import Hesitation

__all__ = ["command"]


@click.command("review", short_help="List likely label errors and what to label next.")
@data_argument
@click.option(
    "--model",
    # Those that are fitted at once; a test compares them with `audiosearch.lab.models.MODELS`.
    type=click.Choice(["linear-lite", "prototypes", "transfer", "linear-vggish"]),
    default="linear-lite",
    help="What contradicts the labels.",
)
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, help="Parts, where there are no folds."
)
@click.option(
    "--classifier",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="none",
    help="With --unlabelled: a classifier that `lab train` wrote.",
)
@click.option(
    "--unlabelled",
    type=click.Path(path_type=Path),
    metavar="PATH",
    show_default="none",
    help="A sound, or a folder of sounds, without labels: which are most worth labelling.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, help="How many to show of each.")
@data_options
@cache_option
@json_option
def command(
    data: Path | None,
    model: str,
    folds: int,
    classifier: Path | None,
    unlabelled: Path | None,
    limit: int,
    cache: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """List the labels in DATA that are likely wrong, the likeliest first.

    A label is doubted where a model trained on the other folds contradicts it.
    """
    if (classifier is None) != (unlabelled is None):
        raise click.UsageError("--classifier and --unlabelled go together.")
    quiet_keras()
    from audiosearch import audio
    from audiosearch.lab import LabConfig, doubted_labels, worth_labelling

    sounds = read_data(data, options)
    with SoundProgress() as progress:
        doubts = doubted_labels(
            sounds, config=LabConfig(model=model), folds=folds, cache=cache, on_sound=progress
        )
    hesitations: list[Hesitation] = []
    skipped: list[tuple[str, str]] = []
    if classifier is not None and unlabelled is not None:
        files = audio.find_audio(unlabelled) if unlabelled.is_dir() else [unlabelled]
        hesitations, skipped = worth_labelling(classifier, files)
    if as_json:
        echo_json(
            {
                "doubts": [each.to_dict() for each in doubts[:limit]],
                "doubted": len(doubts),
                "worth_labelling": [each.to_dict() for each in hesitations[:limit]],
            }
        )
    else:
        click.echo(f"{len(doubts):,} of {len(sounds):,} labels are doubted:")
        for doubt in doubts[:limit]:
            click.echo(
                f"  {doubt.lead:.2f}  {one_line(doubt.path)}: {one_line(doubt.label)}, or rather "
                f"{one_line(doubt.suggestion)}?"
            )
        if hesitations:
            click.echo("Most worth labelling:")
        for each in hesitations[:limit]:
            click.echo(
                f"  {each.margin:.2f}  {one_line(each.path)}: {one_line(each.first)} or "
                f"{one_line(each.second)}?"
            )
    show_skipped(tuple(skipped))
    return EXIT_SKIPPED if skipped else EXIT_OK
