"""The command ``audiosearch``: one module a command, loaded when it is called.

Exit codes: 0 done, 1 nothing could be done, 2 wrong usage, 3 done but some files were skipped,
70 a bug in audiosearch, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from audiosearch.cli.failures import run_guarded
from audiosearch.cli.root import cli

__all__ = ["cli", "main"]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave the process with its exit code.

    Parameters
    ----------
    args : sequence of str, optional
        The command line without the program's name; ``sys.argv[1:]`` by default.
    """
    sys.exit(run_guarded(cli, args))
