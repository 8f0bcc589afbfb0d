"""``audiosearch import-weights``: a published network as a classifier of ours."""

from __future__ import annotations

import os
from pathlib import Path

import click

from audiosearch.errors import printable

__all__ = ["command"]


@click.command("import-weights", short_help="Import IBM's or Kong's trained network.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.h5")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the classifier; it must not exist yet.",
)
def command(file: Path, out: Path) -> None:
    """Make a classifier from the weights that IBM's or Kong's AudioSet code saved.

    FILE.h5 is the final_weights.h5 of their decision_level_multi_attention network, as Keras 2
    writes it. `evaluate --classifier DIR` takes the result. Full clips score as in their code; the
    padding of shorter ones, which it takes for sound, is left out. Needs audiosearch[tensorflow].
    """
    # TensorFlow's own start-up notes say nothing to a user; its errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import audiosearch as aus

    found = aus.import_weights(file, out)
    click.echo(
        f"{found.parameters:,} weights of a network of {found.units:,} units written to "
        f"{printable(str(found.folder))}"
    )
