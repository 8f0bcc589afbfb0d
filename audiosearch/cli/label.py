"""``audiosearch label``: confirm and reject classes of clips, and add labels of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from audiosearch.cli.options import folder_type, json_option
from audiosearch.cli.output import count, echo_json, one_line, tenths

__all__ = ["command"]


@click.command(short_help="Confirm or reject what is heard in a clip; add labels of your own.")
@click.argument("library", type=folder_type)
@click.argument("clip", required=False, type=click.IntRange(min=0))
@click.option(
    "--confirm",
    multiple=True,
    metavar="LABEL",
    show_default="none",
    help="Say that this is heard.",
)
@click.option(
    "--reject",
    multiple=True,
    metavar="LABEL",
    show_default="none",
    help="Say that this is not heard.",
)
@click.option(
    "--add",
    multiple=True,
    metavar="LABEL",
    show_default="none",
    help="Give a label of your own.",
)
@click.option(
    "--remove",
    multiple=True,
    metavar="LABEL",
    show_default="none",
    help="Take back what was said of this.",
)
@click.option(
    "--from",
    "start",
    type=float,
    metavar="SECONDS",
    show_default="the clip's start",
    help="Where in the recording a stretch begins.",
)
@click.option(
    "--to",
    "end",
    type=float,
    metavar="SECONDS",
    show_default="the clip's end",
    help="Where it ends.",
)
@click.option("--list", "listed", is_flag=True, help="List the labels of the recording, or all.")
@json_option
def command(
    library: Path,
    clip: int | None,
    confirm: tuple[str, ...],
    reject: tuple[str, ...],
    add: tuple[str, ...],
    remove: tuple[str, ...],
    start: float | None,
    end: float | None,
    listed: bool,
    as_json: bool,
) -> None:
    """Say what is heard in CLIP of LIBRARY, and what is not.

    CLIP is the number that `search --json` prints. A search knows it at once: `search
    confirmed:dog`, `search 'label:"My machine"'`. Each option may be given several times; all of
    them are done, or none.
    """
    import audiosearch as aus

    wanted: list[tuple[Literal["confirmed", "rejected"] | None, str, bool]] = [
        *(("confirmed", label, False) for label in confirm),
        *(("rejected", label, False) for label in reject),
        *(("confirmed", label, True) for label in add),
        *((None, label, False) for label in remove),
    ]
    if not wanted and not listed:
        raise click.UsageError("Say --confirm, --reject, --add, --remove or --list.")
    if wanted and clip is None:
        raise click.UsageError("Name the CLIP that it is about.")
    with aus.open_library(library) as lib:
        changed = 0
        if clip is not None:
            changed = lib.change_labels(
                [
                    aus.LabelChange(clip, label, verdict, start, end, new=new)
                    for verdict, label, new in wanted
                ]
            )
        labels = lib.labels(clip)
    if as_json:
        echo_json({"changed": changed, "labels": [each.to_dict() for each in labels]})
        return
    if wanted:
        click.echo(f"{count(changed, 'label')} changed.")
    if listed and not labels:
        click.echo("No labels.")
    for each in labels:
        click.echo(
            f"{each.clip:>8}  {each.verdict}  {one_line(each.label)}  "
            f"{tenths(each.start)}-{tenths(each.end)}  {one_line(each.recording)}"
        )
