"""``audiosearch lab``: train, compare and use classifiers of one's own classes."""

from __future__ import annotations

import click

from audiosearch.cli.root import LazyGroup

__all__ = ["COMMANDS", "command"]

# In the order of the help: the way one goes.
COMMANDS = ("inspect", "preview", "compare", "train", "predict", "review")


@click.group(
    "lab",
    cls=LazyGroup,
    names=COMMANDS,
    prefix="audiosearch.cli.lab_",
    short_help="Train and use classifiers of classes of your own.",
)
def command() -> None:
    """Train, compare and use classifiers of your own classes.

    DATA is a folder with a folder for each class, a CSV or TSV table, or a data set laid out as
    ESC-50, UrbanSound8K or FSDD: see docs/lab.md.
    """
