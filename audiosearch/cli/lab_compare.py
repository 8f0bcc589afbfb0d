"""``audiosearch lab compare``: test models by cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.lab_options import (
    SoundProgress,
    data_argument,
    fitting_options,
    quiet_keras,
    read_data,
    show_skipped,
    split_options,
)
from audiosearch.cli.options import json_option
from audiosearch.cli.output import echo_json, one_line, warn

if TYPE_CHECKING:
    from audiosearch.lab.comparison import FoldResult

__all__ = ["command"]


@click.command("compare", short_help="Test models on your sounds and say which to take.")
@data_argument
@click.option(
    "--models",
    default="linear-lite,transfer",
    metavar="NAME,...",
    help="Which ones: see docs/lab.md.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for report.html and report.json; it must not exist yet.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, help="Train networks with so many seeds."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    show_default="one a core; 1 on a GPU",
    help="So many trainings of networks at once, in processes of their own.",
)
@click.option(
    "--devices",
    metavar="NAME,...",
    show_default="none",
    help="In the end, take the time of an epoch of each network on these, of cpu and gpu.",
)
@split_options
@fitting_options
@json_option
def command(
    data: Path | None,
    models: str,
    out: Path,
    seeds: int,
    jobs: int | None,
    devices: str | None,
    split: str,
    folds: int,
    optimistic: bool,
    cache: Path | None,
    track: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Test models on the sounds of DATA by cross-validation, and write a report.

    Sounds that belong together never stand on both sides of a split. Exit code 3 says that sounds
    were left out.
    """
    quiet_keras()
    from audiosearch.lab import LabConfig, compare

    sounds = read_data(data, options)

    def show(model: str, fold: FoldResult) -> None:
        warn(
            f"{model}, seed {fold.seed}, {fold.split}: accuracy {fold.accuracy:.3f}, "
            f"{fold.seconds:.1f} s"
        )

    with SoundProgress("computed", noun="feature") as progress:
        found = compare(
            sounds,
            _names(models),
            out,
            config=LabConfig(**options),
            split=split,
            folds=folds,
            optimistic=optimistic,
            seeds=range(seeds),
            jobs=jobs,
            devices=_names(devices or ""),
            cache=cache,
            track=track,
            on_sound=progress,
            on_fold=show,
        )
    code = EXIT_SKIPPED if found.sounds.skipped else EXIT_OK
    if as_json:
        echo_json(found.to_dict())
        return code
    click.echo(f"split: {found.plan.description}")
    width = max(len(each.model) for each in found.results)
    for each in found.results:
        low, high = each.interval
        mark = "  OPTIMISTIC" if found.plan.optimistic else ""
        click.echo(
            f"{each.model:<{width}}  accuracy {each.accuracy:.3f} ({low:.3f} to {high:.3f})  "
            f"macro F1 {each.measures.macro_f1:.3f}  training {each.train_seconds:,.0f} s{mark}"
        )
    if found.epoch_times is not None:
        for line in found.epoch_times.lines():
            click.echo(line)
    click.echo(found.advice)
    click.echo(f"Report: {one_line(str(found.folder / 'report.html'))}")
    show_skipped(found.sounds.skipped)
    return code


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
