"""Write the reference part of ``docs/cli.md`` from the commands themselves.

Usage: python tools/build_cli_docs.py

What stands above the marker is written by hand and kept. A test compares the file with what this
script would write.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from audiosearch.cli import cli

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
MARKER = "<!-- Below: written by tools/build_cli_docs.py. -->"


def build_reference() -> str:
    """Return the reference of all commands as Markdown."""
    context = click.Context(cli, info_name="audiosearch", **cli.context_settings)
    return "\n".join(_sections(cli, context))


def _sections(command: click.Command, context: click.Context) -> list[str]:
    """Return the section of a command, and of the commands in it."""
    parts = [_section(command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is None:
                raise SystemExit(f"The command {name} is listed and does not exist.")
            parts += _sections(inner, click.Context(inner, info_name=name, parent=context))
    return parts


def build_document(current: str) -> str:
    """Return the whole document: the hand-written part of `current`, then the reference."""
    return current.partition(MARKER)[0] + MARKER + "\n\n" + build_reference()


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"## {context.command_path}", "", f"`{usage}`", ""]
    lines += [inspect.cleandoc(command.help or ""), ""]
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    lines += ["| option | type | default | what it does |", "|---|---|---|---|"]
    lines += [_row(option, context) for option in options]
    return "\n".join(lines) + "\n"


def _row(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        default = "off"
    elif option.required:
        default = "required"
    else:
        default = str(option.get_help_extra(context).get("default", "")).strip("()")
    return f"| {names} | {_kind(option)} | {default} | {option.help} |"


def _kind(option: click.Option) -> str:
    """Return in words what an option takes."""
    kind = option.type
    if option.is_flag:
        return "flag"
    if isinstance(kind, click.Choice):
        return " or ".join(str(choice) for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        word = "whole number" if isinstance(kind, click.IntRange) else "number"
        low = "" if kind.min is None else f"{kind.min:g} {'<' if kind.min_open else '<='} "
        high = "" if kind.max is None else f" {'<' if kind.max_open else '<='} {kind.max:g}"
        return f"{word}, {low}x{high}"
    if isinstance(kind, click.types.IntParamType):
        return "whole number"
    return f"`{option.metavar or 'TEXT'}`"


def main() -> int:
    """Write the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(build_document(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
