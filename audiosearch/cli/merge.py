"""``audiosearch merge``: bring several libraries together in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.options import classifier_option, folder_type, json_option
from audiosearch.cli.output import clock, count, echo_json, one_line

if TYPE_CHECKING:
    from audiosearch.library.transfer import ImportSummary

__all__ = ["command", "mix_option", "own_option", "print_summary"]

mix_option = click.option(
    "--mix-embedders",
    is_flag=True,
    help="Allow embeddings of two origins in one library.",
)
own_option = click.option(
    "--no-own-classes",
    is_flag=True,
    help="Leave classes of your own, and their classifiers, behind.",
)


@click.command(short_help="Bring several libraries together in one.")
@click.argument("sources", nargs=-1, required=True, type=folder_type, metavar="LIBRARY...")
@click.option(
    "--out",
    required=True,
    type=folder_type,
    metavar="DIR",
    help="Folder of the library to make, or of one to add to.",
)
@mix_option
@classifier_option
@own_option
@json_option
def command(
    sources: tuple[Path, ...],
    out: Path,
    mix_embedders: bool,
    classifiers: tuple[Path, ...],
    no_own_classes: bool,
    as_json: bool,
) -> None:
    """Copy what each LIBRARY holds into another; they are left as they are.

    Of a file that two of them hold, that of the newer file is taken, else that of the first, with
    what a classifier of yours heard of the same file in the others. Files
    that `audiosearch export` wrote may stand in place of libraries.

    Classes of your own come along, with what was heard of them. Two classifiers that both have a
    class of one name are refused.
    """
    import audiosearch as aus

    done = aus.merge(
        sources,
        out,
        mix_embedders=mix_embedders,
        own_classes=not no_own_classes,
        classifier=classifiers,
    )
    print_summary(done, as_json=as_json)


def print_summary(summary: ImportSummary, *, as_json: bool) -> None:
    """Print what an import or a merge did."""
    if as_json:
        echo_json(summary.to_dict())
        return
    click.echo(
        f"{one_line(summary.library)}: {summary.added:,} added, {summary.updated:,} updated, "
        f"{summary.unchanged:,} unchanged; {count(summary.clips, 'clip')} in "
        f"{clock(summary.elapsed)}."
    )
    if summary.own_classifiers:
        names = ", ".join(map(one_line, summary.own_classifiers))
        click.echo(f"Classes of your own came along, by: {names}.")
    if summary.unheard:
        click.echo(
            f"{count(summary.unheard, 'sound')} not heard yet by every classifier of your own. "
            "Index their folders to let them be heard."
        )
