"""``audiosearch lab``: train, compare and use classifiers of one's own classes."""

from __future__ import annotations

import importlib

import click

__all__ = ["COMMANDS", "command"]

# In the order of the help: the way one goes.
COMMANDS = ("inspect", "preview", "compare", "train", "predict", "review")


class _LabGroup(click.Group):
    """A group whose command NAME is the attribute `command` of ``audiosearch.cli.lab_NAME``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(f"audiosearch.cli.lab_{cmd_name}").command
        if not isinstance(found, click.Command):
            raise TypeError(f"audiosearch.cli.lab_{cmd_name}.command is no click command")
        return found


@click.group("lab", cls=_LabGroup, short_help="Train and use classifiers of classes of your own.")
def command() -> None:
    """Train, compare and use classifiers of your own classes.

    DATA is a folder with a folder for each class, a CSV or TSV table, or a data set laid out as
    ESC-50, UrbanSound8K or FSDD: see docs/lab.md.
    """
