"""``audiosearch classes``: the class names that can be searched for."""

from __future__ import annotations

import click

from audiosearch.cli.options import json_option
from audiosearch.cli.output import echo_json
from audiosearch.errors import QueryError

__all__ = ["command"]


@click.command(short_help="List the class names that can be searched for.")
@click.argument("word", nargs=-1)
@json_option
def command(word: tuple[str, ...], as_json: bool) -> None:
    """List the 527 classes of AudioSet, or those that WORD stands for.

    WORD is understood as one term of a search: "vehicle" lists every kind of vehicle, "puppy" the
    class Dog and its kinds.
    """
    from audiosearch.labels import load_labels

    labels = load_labels()
    text = " ".join(word)
    if text:
        from audiosearch.query import load_vocabulary

        vocabulary = load_vocabulary()
        term = vocabulary.term(text)
        if term is None:
            raise QueryError(
                f"No sound is called '{text}'.", query=text, suggestions=vocabulary.suggest(text)
            )
        chosen = [labels[index] for index in term.classes]
    else:
        chosen = list(labels)
    if as_json:
        echo_json(
            [{"index": label.index, "mid": label.mid, "label": label.name} for label in chosen]
        )
        return
    for label in chosen:
        click.echo(f"{label.index:>3}  {label.mid:<12} {label.name}")
