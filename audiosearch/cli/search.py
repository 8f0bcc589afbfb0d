"""``audiosearch search``: find recordings by keyword."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.libraries import opened
from audiosearch.cli.options import (
    json_option,
    library_option,
    limit_option,
    offset_option,
    ungrouped_option,
)
from audiosearch.cli.output import count, echo_json, result_lines
from audiosearch.errors import printable

if TYPE_CHECKING:
    from audiosearch.library.library import Library

__all__ = ["QueryCommand", "command"]


class QueryCommand(click.Command):
    """A command whose words may start with a minus: ``car -music`` excludes music.

    Words are what is not one of the command's own options. What starts with two dashes stays an
    option, so that a mistyped ``--limt`` is reported and not searched for; after a bare ``--``
    everything is a word.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move the words behind ``--``, where click takes them as they are."""
        takes_value = {
            name: not option.is_flag
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            for name in option.opts
        }
        options: list[str] = []
        words: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                words.extend(rest)
            elif arg in takes_value:
                options.append(arg)
                if takes_value[arg]:
                    options.extend([value] if (value := next(rest, None)) is not None else [])
            elif arg.startswith("--"):
                options.append(arg)
            else:
                words.append(arg)
        return super().parse_args(ctx, [*options, "--", *words])


@click.command(cls=QueryCommand, short_help="Find the recordings in which QUERY is heard.")
@click.argument("query", nargs=-1, required=True)
@library_option(falls_back=True)
@limit_option
@offset_option
@click.option(
    "--order",
    # A test compares the choices with those of `Library.search`.
    type=click.Choice(["score", "newest", "path", "longest", "shortest"]),
    default="score",
    help="What comes first: the best score, the file changed last, the path, the length.",
)
@click.option("--fold", is_flag=True, help="Show recordings that are exact copies once.")
@ungrouped_option
@json_option
def command(
    query: tuple[str, ...],
    library: Path | None,
    limit: int,
    offset: int,
    order: str,
    fold: bool,
    ungrouped: bool,
    as_json: bool,
) -> None:
    """Find the recordings in which QUERY is heard, best first or as --order says.

    QUERY is words for sounds ("car", "dogs", "police car"), all of which must be heard. -music
    leaves music out; OR, (brackets) and "quotes" join; path:, duration:, year:, score:, label: and
    confirmed: narrow. It may begin with a minus. Put it in single quotes where it holds what the
    shell reads itself: 'dog OR (cat -music) duration:>30'.
    """
    from audiosearch.library.facets import WEAK_SCORE

    text = " ".join(query)
    with opened(library) as lib:
        result = lib.search(
            text, limit=limit, offset=offset, fold=fold, grouped=not ungrouped, order=order
        )
        if as_json:
            echo_json(result.to_dict())
            return
        for line in result_lines(result, subject=text if '"' in text else f'"{text}"'):
            click.echo(line)
        if not result.total:
            for line in _why_nothing(lib, text):
                click.echo(line)
        if any(hit.score < WEAK_SCORE for hit in result.hits):
            click.echo(f"Scores below {WEAK_SCORE:g} are weak evidence.")
            for surer in lib.facets(text, fold=fold).scores[-1:]:
                recordings = count(surer.count, "recording")
                click.echo(f"Without them {recordings}, by the query {shlex.quote(surer.query)}")


def _why_nothing(library: Library, query: str) -> list[str]:
    """Return what to try where a query finds nothing."""
    clips, folder = library.info().clips, printable(str(library.folder))
    if not clips:
        return [f"The library {folder} is empty: add sounds with `audiosearch index FOLDER`."]
    lines = [
        f"  without {part.text}: {count(part.count_without, 'recording')}"
        for part in library.query_parts(query)
        if part.count_without
    ]
    if lines:
        return [f"Of the {clips:,} clips of {folder} none has it all:", *lines]
    return [
        (
            f"None of the {clips:,} clips of {folder} matches. Try a wider word, such as "
            "Speech, Music, Animal or Vehicle; `audiosearch classes` lists what can be found."
        )
    ]
