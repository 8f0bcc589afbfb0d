"""``audiosearch relocate``: tell a library where its sounds are now."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.failures import EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.options import json_option, library_option
from audiosearch.cli.output import count, echo_json, one_line

__all__ = ["command"]


@click.command(short_help="Tell a library that its sounds were moved.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@library_option()
@click.option("--force", is_flag=True, help="Also where none of the files is at the new place.")
@json_option
def command(old: Path, new: Path, library: Path | None, force: bool, as_json: bool) -> int:
    """Tell the library that the sounds of the folder OLD lie in the folder NEW now.

    Nothing is moved on the disk, and nothing is analysed again. Exit code 3 says that some of the
    files are not at the new place.
    """
    import audiosearch as aus

    done = aus.relocate(library or aus.default_library(), old, new, force=force)
    if as_json:
        echo_json(done.to_dict())
    else:
        missing = done.moved - done.found
        click.echo(
            f"{one_line(done.library)}: {count(done.moved, 'file')} relocated, "
            f"{missing:,} of them not there."
        )
    return EXIT_OK if done.found == done.moved else EXIT_SKIPPED
