"""Options that the lab's commands share, and what they print alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from audiosearch.cli.output import warn, warn_skipped

if TYPE_CHECKING:
    from audiosearch.lab.sounds import SoundSet

__all__ = [
    "data_argument",
    "data_options",
    "read_data",
    "show_problems",
    "show_skipped",
    "split_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 20

data_argument = click.argument("data", type=click.Path(path_type=Path))

_layout = click.option(
    "--layout",
    # A test compares the choices with `audiosearch.lab.reading.LAYOUTS`.
    type=click.Choice(
        ["folders", "pattern", "table", "corrections", "esc50", "urbansound8k", "fsdd"]
    ),
    show_default="found out",
    help="How DATA is laid out.",
)
_pattern = click.option(
    "--pattern",
    metavar="PATTERN",
    show_default="none",
    help="Take labels from file names: where {label}, {group} and {fold} stand in them, and {} "
    "for the rest, for example {label}_{group}_{}.",
)
_classes = click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    show_default="all",
    help="Take this class alone; give it several times for several.",
)
_COLUMNS = ("path", "label", "start", "end", "fold", "group")


def data_options(command: F) -> F:
    """Add the options that say how DATA is to be read."""
    for role in reversed(_COLUMNS):
        command = click.option(
            f"--{role}-column",
            metavar="NAME",
            show_default="the usual names",
            help=f"Of a table: the column with the {role}.",
        )(command)
    return _layout(_pattern(_classes(command)))


def split_options(command: F) -> F:
    """Add the options that say how a cross-validation divides the sounds."""
    split = click.option(
        "--split",
        # A test compares the choices with `audiosearch.lab.splits.SPLITS`.
        type=click.Choice(["auto", "folds", "groups", "random"]),
        default="auto",
        help="What is kept apart: the makers' folds, groups, or nothing; auto takes the first "
        "that there is.",
    )
    folds = click.option(
        "--folds", type=click.IntRange(min=2), default=5, help="Parts, where there are no folds."
    )
    optimistic = click.option(
        "--optimistic",
        is_flag=True,
        help="Allow --split random where folds or groups are known; results are marked.",
    )
    return split(folds(optimistic(command)))


def read_data(data: Path, options: dict[str, Any]) -> SoundSet:
    """Read DATA with the values of `data_options`, which are taken out of `options`."""
    from audiosearch.lab import read_sounds
    from audiosearch.lab.tables import TableColumns

    columns = {role: options.pop(f"{role}_column") for role in _COLUMNS}
    return read_sounds(
        data,
        layout=options.pop("layout"),
        pattern=options.pop("pattern"),
        columns=TableColumns(**columns) if any(columns.values()) else None,
        classes=options.pop("classes"),
    )


def show_skipped(skipped: tuple[tuple[str, str], ...]) -> None:
    """List on stderr what was left out."""
    if skipped:
        warn_skipped(skipped[:_SHOWN], total=len(skipped))


def show_problems(problems: tuple[str, ...]) -> None:
    """Print on stderr what a user should look at, a line each."""
    for problem in problems:
        warn(problem)
