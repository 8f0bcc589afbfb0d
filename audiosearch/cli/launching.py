"""Commands that ``torchrun`` may start several times: one of the processes speaks for all."""

from __future__ import annotations

import click

__all__ = ["devices_option", "is_joined", "leads"]

devices_option = click.option(
    "--devices",
    type=click.IntRange(min=1),
    metavar="N",
    show_default="1",
    help="On how many devices each step runs; one, or under torchrun all of its processes.",
)


def leads() -> bool:
    """Tell whether this is the process that prints; torchrun starts others beside it."""
    from audiosearch.classifier.processes import torchrun_launch

    launch = torchrun_launch()
    return launch is None or launch.rank == 0


def is_joined() -> bool:
    """Tell whether there are others."""
    from audiosearch.classifier.processes import torchrun_launch

    launch = torchrun_launch()
    return launch is not None and launch.count > 1
