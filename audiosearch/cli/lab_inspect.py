"""``audiosearch lab inspect``: look at labelled sounds before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from audiosearch.cli.failures import EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.lab_options import (
    data_argument,
    data_options,
    read_data,
    show_problems,
    show_skipped,
)
from audiosearch.cli.options import json_option
from audiosearch.cli.output import count, echo_json, one_line

__all__ = ["command"]


@click.command("inspect", short_help="Look at labelled sounds before training.")
@data_argument
@data_options
@json_option
def command(data: Path | None, as_json: bool, **options: Any) -> int:
    """Read every sound of DATA once: classes, lengths, unreadable files, copies, leakage.

    It also says how a cross-validation would divide the sounds. Exit code 3 says that something
    was left out.
    """
    from audiosearch.lab import inspect_sounds

    found = inspect_sounds(read_data(data, options))
    sounds = found.sounds
    code = EXIT_SKIPPED if sounds.skipped else EXIT_OK
    if as_json:
        echo_json(found.to_dict())
        return code
    shortest, median, longest = found.seconds
    click.echo(
        f"{one_line(sounds.name)}: {count(len(sounds), 'sound')} of "
        f"{count(len(sounds.classes), 'class', 'classes')}, layout {sounds.layout}, "
        f"{shortest:.2f} to {longest:.2f} s long, half of them up to {median:.2f} s"
    )
    width = max(map(len, found.classes))
    for name, number in found.classes.items():
        click.echo(f"  {one_line(name):<{width}}  {number:>6,}")
    if found.plan is not None:
        click.echo(f"split: {found.plan.description}")
    for note in sounds.notes:
        click.echo(note)
    show_problems(found.problems)
    show_skipped(sounds.skipped)
    return code
