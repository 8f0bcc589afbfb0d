"""``audiosearch verify``: check a library, and put right what can be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.options import json_option, library_option
from audiosearch.cli.output import clock, count, echo_json, one_line, size, warn

if TYPE_CHECKING:
    from audiosearch.library.findings import Verification

__all__ = ["command"]

_SHOWN = 20


@click.command(short_help="Check a library, and repair what can be made again.")
@library_option()
@click.option("--no-repair", is_flag=True, help="Change nothing; only say what is wrong.")
@click.option("--no-sounds", is_flag=True, help="Do not look for the sound files.")
@json_option
def command(library: Path | None, no_repair: bool, no_sounds: bool, as_json: bool) -> int:
    """Check every file of the library against its checksum and against the others.

    What follows from the rest (the index of the vectors, lists and counts) is made again where it
    is wrong. What is lost is named and left as it is.

    Exit codes: 0 the library is whole, or is now; 1 something is lost or was not repaired; 3 the
    library is whole, but sound files are missing or were changed.
    """
    import audiosearch as aus

    result = aus.verify(
        library or aus.default_library(), repair=not no_repair, sounds=not no_sounds
    )
    if as_json:
        echo_json(result.to_dict())
    else:
        _print(result)
    if not result.whole:
        return EXIT_FAILED
    gone = any(finding.kind.endswith("sound") for finding in result.findings)
    return EXIT_SKIPPED if gone else EXIT_OK


def _print(result: Verification) -> None:
    looked_at = [
        count(result.recordings, "recording"),
        count(result.clips, "clip"),
        count(result.segments, "segment"),
    ]
    state = "whole" if result.whole else "NOT whole"
    click.echo(
        f"{one_line(result.library)}: {state}. {', '.join(looked_at)}, {result.sounds:,} sounds "
        f"looked for, {size(result.bytes_read)} read in {clock(result.elapsed)}."
    )
    kinds = dict.fromkeys(finding.kind for finding in result.findings)
    for kind in kinds:
        found = [finding for finding in result.findings if finding.kind == kind]
        for finding in found[:_SHOWN]:
            done = " Repaired." if finding.repaired else ""
            warn(f"  {kind}: {finding.path}: {finding.problem}{done}")
        if len(found) > _SHOWN:
            warn(f"  {kind}: and {count(len(found) - _SHOWN, 'more file')}")
