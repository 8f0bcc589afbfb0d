"""Options that the lab's commands share, and what they print alike."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from audiosearch.cli.options import together
from audiosearch.cli.output import count, warn, warn_skipped
from audiosearch.cli.progress import FetchProgress
from audiosearch.storage import Closing

if TYPE_CHECKING:
    from audiosearch.lab.sounds import SoundSet

__all__ = [
    "SoundProgress",
    "augmentations_option",
    "cache_option",
    "data_argument",
    "data_options",
    "fitting_options",
    "quiet_keras",
    "read_data",
    "show_problems",
    "show_skipped",
    "split_options",
    "track_option",
    "training_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 20
_LINE_SECONDS = 10.0

_data = click.argument("data", required=False, type=click.Path(path_type=Path), metavar="[DATA]")
_official = click.option(
    "--data",
    "official",
    # A test compares the choices with `audiosearch.lab.official.OFFICIAL_SETS`.
    type=click.Choice(["esc10", "esc50", "urbansound8k", "fsdd"]),
    show_default="none",
    help="In place of DATA: an official data set, fetched where it is not here yet.",
)


def data_argument(command: F) -> F:
    """Add DATA, and the option that takes its place."""
    return _data(_official(command))


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
    columns = (
        click.option(
            f"--{role}-column",
            metavar="NAME",
            show_default="the usual names",
            help=f"Of a table: the column with the {role}.",
        )
        for role in _COLUMNS
    )
    return together(_layout, _pattern, _classes, *columns)(command)


track_option = click.option(
    "--track",
    multiple=True,
    # A test compares the choices with `audiosearch.lab.tracking.TRACKERS`.
    type=click.Choice(["wandb", "mlflow", "tensorboard"]),
    show_default="none",
    help="Let this tool follow too; may be repeated. The run folder is written in any case.",
)
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="AUDIOSEARCH_CACHE, else the user cache folder",
    help="Where computed features are kept.",
)

augmentations_option = click.option(
    "--augmentations",
    metavar="NAME,...",
    # A test compares the default with that of `audiosearch.lab.settings.LabConfig`.
    default="shift,gain,noise,mask",
    help="How: of shift, gain, noise, mask, pitch, stretch, background.",
)

_TRAINING = (
    click.option(
        "--seconds",
        type=click.FloatRange(0.05, 60),
        show_default="95 % of the sounds fit, up to 10",
        help="Length of a clip; longer sounds are cut.",
    ),
    click.option(
        "--short",
        type=click.Choice(["repeat", "pad"]),
        default="repeat",
        help="What happens to shorter sounds: repeated, or followed by silence.",
    ),
    click.option(
        "--epochs", type=click.IntRange(min=1), show_default="the model's own", help="Epochs."
    ),
    click.option(
        "--batch-size", type=click.IntRange(min=2), default=32, help="Clips a step of a network."
    ),
    click.option(
        "--learning-rate",
        type=click.FloatRange(min=0, min_open=True),
        show_default="the model's own",
        help="Peak of the learning rate.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["cosine", "constant", "step"]),
        default="cosine",
        help="How the learning rate falls: to 0, not at all, or by 10 after half and 3/4.",
    ),
    click.option(
        "--mixup",
        type=click.FloatRange(min=0),
        show_default="the model's own",
        help="Parameter of the beta distribution that mixes two clips; 0 for none.",
    ),
    click.option(
        "--augment/--no-augment",
        default=True,
        help="Change spectrograms and waveforms anew in each epoch of a training.",
    ),
    augmentations_option,
    click.option(
        "--balance",
        type=click.Choice(["weights", "none"]),
        default="weights",
        help="Whether rare classes weigh more in the loss.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        help="Where networks are trained.",
    ),
)


training_options = together(*_TRAINING)
"""Adds the options that are settings of a training, by their names in `LabConfig`."""


def fitting_options(command: F) -> F:
    """Add what `lab train` and `lab compare` have in common: settings, data, cache, tracking."""
    return together(training_options, data_options, cache_option, track_option)(command)


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
    return together(split, folds, optimistic)(command)


def read_data(data: Path | None, options: dict[str, Any]) -> SoundSet:
    """Read DATA with the values of `data_options`, which are taken out of `options`."""
    from audiosearch.lab import read_sounds
    from audiosearch.lab.tables import TableColumns

    columns = {role: options.pop(f"{role}_column") for role in _COLUMNS}
    layout, pattern = options.pop("layout"), options.pop("pattern")
    official, classes = options.pop("official"), options.pop("classes")
    if (data is None) == (official is None):
        raise click.UsageError("Name either DATA, your labelled sounds, or an official --data set.")
    if data is not None:
        return read_sounds(
            data,
            layout=layout,
            pattern=pattern,
            columns=TableColumns(**columns) if any(columns.values()) else None,
            classes=classes,
        )
    if layout or pattern or any(columns.values()):
        raise click.UsageError("How DATA is laid out is known of an official set.")
    return _fetched(official, classes)


def _fetched(official: str, classes: tuple[str, ...]) -> SoundSet:
    from audiosearch.lab import read_official

    with SoundProgress("fetched") as sounds, FetchProgress() as archive:
        return read_official(official, classes=classes, on_file=sounds, on_progress=archive)


def show_skipped(skipped: tuple[tuple[str, str], ...]) -> None:
    """List on stderr what was left out."""
    if skipped:
        warn_skipped(skipped[:_SHOWN], total=len(skipped))


def show_problems(problems: tuple[str, ...]) -> None:
    """Print on stderr what a user should look at, a line each."""
    for problem in problems:
        warn(problem)


def quiet_keras() -> None:
    """Keep TensorFlow's start-up notes from the terminal; its errors stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


class SoundProgress(Closing):
    """Shows on stderr how many sounds are read, or what else is counted: a line now and then."""

    def __init__(self, verb: str = "read", *, noun: str = "sound") -> None:
        self._verb, self._noun = verb, noun
        self._last = time.monotonic()
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        """Take the state."""
        terminal, now = sys.stderr.isatty(), time.monotonic()
        if now - self._last < (0.2 if terminal else _LINE_SECONDS):
            return
        self._last, self._open = now, terminal
        end = "\r" if terminal else "\n"
        click.echo(f"{done:,} of {count(total, self._noun)} {self._verb}{end}", nl=False, err=True)

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._open:
            click.echo("\033[K", nl=False, err=True)
            self._open = False
