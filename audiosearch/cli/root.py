"""The root command, and the group that imports a command's module only when it is needed."""

from __future__ import annotations

import difflib
import importlib
import keyword
from collections.abc import Sequence
from typing import Any

import click

__all__ = ["COMMANDS", "LazyGroup", "cli"]

# In the order in which `audiosearch --help` lists them: the way a newcomer goes.
COMMANDS = (
    "demo",
    "index",
    "search",
    "similar",
    "label",
    "tag",
    "serve",
    "info",
    "verify",
    "export",
    "import",
    "merge",
    "relocate",
    "duplicates",
    "classes",
    "pack",
    "evaluate",
    "train",
    "import-weights",
    "lab",
    "models",
)


class LazyGroup(click.Group):
    """A group whose command NAME is the attribute `command` of a module.

    A hyphen in the name is an underscore in the module's; a word of Python gets one at its end.

    Parameters
    ----------
    names : sequence of str
        The commands, in the order of the help.
    prefix : str
        What the modules' names begin with.
    """

    def __init__(
        self,
        *args: Any,
        names: Sequence[str] = COMMANDS,
        prefix: str = "audiosearch.cli.",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._names, self._prefix = names, prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of the help."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None where there is none of that name."""
        if cmd_name not in self._names:
            return None
        module = self._prefix + cmd_name.replace("-", "_")
        if keyword.iskeyword(cmd_name):
            module += "_"
        command = importlib.import_module(module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.command is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none, name the one that was meant."""
        name = args[0]
        if not name.startswith("-") and name not in self._names:
            near = difflib.get_close_matches(name, self._names, 1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{name}'.{meant}", ctx)
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from audiosearch import __version__

    click.echo(f"audiosearch {__version__}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
    epilog="Start with: audiosearch demo. Exit codes: 0 done, 1 nothing could be done, 2 wrong "
    "usage, 3 some files were skipped, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Find and tag sounds by what is in them.

    audiosearch indexes your recordings, finds the moments where a sound is heard (by keyword or
    by example), and tags files with the 527 classes of AudioSet. It works offline.
    """
