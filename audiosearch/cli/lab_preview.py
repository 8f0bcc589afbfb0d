"""``audiosearch lab preview``: pictures and sounds of what augmentation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from audiosearch.cli.failures import EXIT_OK
from audiosearch.cli.lab_options import augmentations_option, data_argument, data_options, read_data
from audiosearch.cli.output import count, one_line

__all__ = ["command"]


@click.command("preview", short_help="Write pictures and sounds of what augmentation does.")
@data_argument
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for them; it must not exist yet.",
)
@click.option("--each", type=click.IntRange(min=1), default=1, help="Sounds of each class.")
@click.option("--variants", type=click.IntRange(min=1), default=3, help="Variants of each sound.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of everything random."
)
@click.option(
    "--stereo", is_flag=True, help="Keep left and right apart, as cnn-logmel-stereo hears them."
)
@augmentations_option
@data_options
def command(
    data: Path | None,
    out: Path,
    each: int,
    variants: int,
    seed: int,
    stereo: bool,
    augmentations: str,
    **options: Any,
) -> int:
    """Write sounds of DATA as training hears and sees them, augmented and as they are."""
    from audiosearch.lab import LabConfig, preview

    sounds = read_data(data, options)
    model = "cnn-logmel-stereo" if stereo else LabConfig.model
    config = LabConfig(model=model, seed=seed, augmentations=augmentations)
    written = preview(sounds, out, config=config, each=each, variants=variants)
    click.echo(f"{count(len(written), 'file')} written to {one_line(str(out))}.")
    return EXIT_OK
