"""Opening the library that a command works on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from audiosearch.cli.output import warn

if TYPE_CHECKING:
    from audiosearch.library import Library

__all__ = ["opened"]


@contextlib.contextmanager
def opened(folder: Path | None) -> Iterator[Library]:
    """Open the library of ``--library`` for reading, and say so when it is the shipped one."""
    import audiosearch as aus

    with aus.open_library(folder) as library:
        if folder is None and library.shipped:
            warn(
                "No library of your own yet: this is the shipped one, AudioSet's evaluation clips. "
                "`audiosearch index FOLDER` makes yours."
            )
        yield library
