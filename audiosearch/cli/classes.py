"""``audiosearch classes``: the class names that can be searched for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.options import json_option, library_option
from audiosearch.cli.output import echo_json, one_line, warn
from audiosearch.errors import QueryError

if TYPE_CHECKING:
    from audiosearch.query import Vocabulary

__all__ = ["command"]


@click.command(short_help="List the class names that can be searched for.")
@click.argument("word", nargs=-1)
@library_option()
@json_option
def command(word: tuple[str, ...], library: Path | None, as_json: bool) -> None:
    """List the 527 classes of AudioSet and the library's own, or those that WORD stands for.

    WORD is understood as one term of a search: "vehicle" lists every kind of vehicle, "puppy" the
    class Dog and its kinds.
    """
    from audiosearch.labels import load_labels

    vocabulary, own = _known(library)
    labels = [(label.index, label.mid, label.name) for label in load_labels()]
    labels += [(len(labels) + number, "", name) for number, name in enumerate(own)]
    text = " ".join(word)
    if text:
        term = vocabulary.term(text)
        if term is None:
            raise QueryError(
                f"No sound is called '{text}'.", query=text, suggestions=vocabulary.suggest(text)
            )
        chosen = [labels[index] for index in term.classes]
    else:
        chosen = labels
    if as_json:
        echo_json([dict(zip(("index", "mid", "label"), each, strict=True)) for each in chosen])
        return
    for index, mid, name in chosen:
        click.echo(f"{index:>3}  {mid or 'own':<12} {one_line(name)}")


def _known(folder: Path | None) -> tuple[Vocabulary, tuple[str, ...]]:
    """Return the words and the own classes of a library.

    Where the default one is not there or cannot be read, they are AudioSet's alone.
    """
    import audiosearch as aus
    from audiosearch.errors import LibraryError, LibraryNotFoundError
    from audiosearch.query import load_vocabulary

    try:
        with aus.open_library(folder or aus.default_library()) as library:
            return library.vocabulary(), library.own.names
    except LibraryError as error:
        if folder is not None:
            raise
        if not isinstance(error, LibraryNotFoundError):
            warn(f"{error} These are the classes of AudioSet alone.")
        return load_vocabulary(), ()
