"""``audiosearch similar``: find recordings by example."""

from __future__ import annotations

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
from audiosearch.cli.output import echo_json, result_lines

if TYPE_CHECKING:
    from audiosearch.library.examples import Example

__all__ = ["command"]


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option(
    "--clip",
    "clips",
    type=click.IntRange(min=0),
    metavar="ID",
    multiple=True,
    show_default="none",
    help="A clip of the library as an example; may be repeated.",
)
@click.option(
    "--from",
    "start",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    show_default="the beginning",
    help="Where the example begins, if there is one only.",
)
@click.option(
    "--to",
    "end",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    show_default="the end",
    help="Where the example ends.",
)
@click.option(
    "--weight",
    "weights",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    multiple=True,
    show_default="1 for each",
    help="How much an example counts: once for each, FILEs first, then --clip.",
)
@click.option(
    "--unlike",
    "unlike",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    show_default="none",
    help="A sound that hits should not be like; may be repeated.",
)
@click.option(
    "--unlike-clip",
    "unlike_clips",
    type=click.IntRange(min=0),
    metavar="ID",
    multiple=True,
    show_default="none",
    help="The same, a clip of the library.",
)
@click.option(
    "--query",
    metavar="TEXT",
    show_default="everything",
    help='Only hits that match it, as in search: "dog -music path:holiday".',
)
@library_option(falls_back=True)
@limit_option
@offset_option
@ungrouped_option
@json_option
def command(
    files: tuple[Path, ...],
    clips: tuple[int, ...],
    start: float | None,
    end: float | None,
    weights: tuple[float, ...],
    unlike: tuple[Path, ...],
    unlike_clips: tuple[int, ...],
    query: str | None,
    library: Path | None,
    limit: int,
    offset: int,
    ungrouped: bool,
    as_json: bool,
) -> None:
    """Find the recordings that sound like FILE, nearest first.

    Several FILEs and clips are averaged. What is given by --unlike counts against a hit.
    """
    likes = _examples(files, clips, start, end, weights)
    unlikes: list[Path | int] = [*unlike, *unlike_clips]
    with opened(library) as lib:
        result = lib.similar(
            likes,
            unlike=unlikes,
            query=query,
            limit=limit,
            offset=offset,
            grouped=not ungrouped,
        )
        if as_json:
            echo_json(result.to_dict())
            return
        subject = f"the sound of {_listed(files, clips)}"
        if unlikes:
            subject += f", unlike {_listed(unlike, unlike_clips)}"
        if query is not None:
            subject += f', with "{query}"'
        for line in result_lines(result, subject=subject, by_example=True):
            click.echo(line)


def _examples(
    files: tuple[Path, ...],
    clips: tuple[int, ...],
    start: float | None,
    end: float | None,
    weights: tuple[float, ...],
) -> list[Example]:
    """Return the examples, or say what does not go together."""
    sources: list[Path | int] = [*files, *clips]
    if not sources:
        raise click.UsageError("Give an example: a FILE, or --clip ID.")
    if (start is not None or end is not None) and len(sources) > 1:
        raise click.UsageError(
            f"--from and --to are for one example; here are {len(sources)}. Cut the sounds first, "
            "or use the Python API, where each example has its own part."
        )
    if start is not None and end is not None and end <= start:
        raise click.UsageError(f"--to {end:g} does not lie after --from {start:g}.")
    if weights and len(weights) != len(sources):
        raise click.UsageError(
            f"--weight is given {len(weights)} times for {len(sources)} examples. Give it once "
            "for each, FILEs first, or not at all."
        )
    from audiosearch.library.examples import Example

    pairs = zip(sources, weights or (1.0,) * len(sources), strict=True)
    return [Example(source, start, end, weight) for source, weight in pairs]


def _listed(files: tuple[Path, ...], clips: tuple[int, ...]) -> str:
    names = [*map(str, files), *(f"clip {number}" for number in clips)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
