"""Options of the commands that analyse many files: processes, limits, progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["limit_options", "progress_options"]

F = TypeVar("F", bound=Callable[..., Any])

_workers = click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    show_default="one a core",
    help="Processes that analyse.",
)
_time_limit = click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    metavar="SECONDS",
    help="Give a file up after this time.",
)
_memory_limit = click.option(
    "--memory-limit",
    type=click.IntRange(min=1),
    default=2048,
    metavar="MB",
    help="Memory that a process may take for a file (Linux).",
)
_progress = click.option(
    "--progress",
    type=click.Choice(["auto", "lines", "json", "none"]),
    default="auto",
    help="How progress is shown on stderr.",
)
_quiet = click.option("--quiet", is_flag=True, help="Show no progress and no closing lines.")


def limit_options(command: F) -> F:
    """Add ``--workers``, ``--time-limit`` and ``--memory-limit``."""
    return _workers(_time_limit(_memory_limit(command)))


def progress_options(command: F) -> F:
    """Add ``--progress`` and ``--quiet``."""
    return _progress(_quiet(command))
