"""What a user sees when a command fails: one clear sentence, never a traceback.

``AUDIOSEARCH_DEBUG=1`` lets every exception through for those who want the traceback.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import unicodedata
from collections.abc import Sequence

import click

from audiosearch.cli.output import one_line
from audiosearch.errors import AudioSearchError, QueryError, printable

__all__ = [
    "EXIT_BUG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_SKIPPED",
    "EXIT_USAGE",
    "describe",
    "interrupted",
    "run_guarded",
]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SKIPPED = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

# How much of a long query is shown on each side of the character that is wrong.
_QUERY_WINDOW = 36


def run_guarded(command: click.Command, args: Sequence[str] | None) -> int:
    """Run a click command and return the process's exit code; failures go to stderr."""
    tolerate_any_terminal()
    arguments = None if args is None else list(args)
    try:
        result = command.main(args=arguments, prog_name="audiosearch", standalone_mode=False)
        # The last buffered bytes may be what does not fit on a full disk.
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return interrupted("Interrupted.")
    except BrokenPipeError:
        return _leave_quietly()
    except Exception as error:
        if os.environ.get("AUDIOSEARCH_DEBUG", "") not in ("", "0"):
            raise
        lines, code = describe(error)
        if code == EXIT_BUG and _follows_an_interrupt(error):
            return interrupted("Interrupted.")
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _discard_output()
        for line in lines:
            click.echo(line, err=True)
        return code


def describe(error: BaseException) -> tuple[list[str], int]:
    """Return the lines that tell a user about `error`, and the exit code that goes with it."""
    if isinstance(error, QueryError):
        lines = [f"Error: {_one_line(str(error))}", *_point_at(error)]
        if error.suggestions and not any(name in str(error) for name in error.suggestions):
            # Quoted, because names have commas of their own.
            names = ", ".join(f'"{name}"' for name in error.suggestions)
            lines.append(f"Did you mean: {names}?")
        return lines, EXIT_FAILED
    if isinstance(error, AudioSearchError):
        return [f"Error: {_one_line(str(error))}"], EXIT_FAILED
    if isinstance(error, MemoryError):
        return ["Error: There is not enough memory for this."], EXIT_FAILED
    if isinstance(error, OSError) and error.errno is not None:
        return [f"Error: {_os_sentence(error)}"], EXIT_FAILED
    return [
        (
            "Error: Something unexpected happened "
            f"({type(error).__name__}: {_one_line(str(error))}). This is a fault of audiosearch; "
            "set AUDIOSEARCH_DEBUG=1 to see the traceback."
        )
    ], EXIT_BUG


def interrupted(sentence: str) -> int:
    """Say that the user stopped the command, and return the exit code for it."""
    click.echo(sentence, err=True)
    return EXIT_INTERRUPTED


def _follows_an_interrupt(error: BaseException) -> bool:
    """Return whether `error` came up while Ctrl-C was being handled.

    Ctrl-C can fall between any two steps, also of a library that is not made for it; what then
    fails on the way out is a consequence, not a fault.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def tolerate_any_terminal() -> None:
    """Let stdout and stderr show what their encoding cannot: escaped, never as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _os_sentence(error: OSError) -> str:
    name = printable(os.fsdecode(error.filename)) if error.filename else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"{name} could not be written" if name else "the output could not be written"
        return f"The disk is full: {what}. Free some space and run the same command again."
    reason = error.strerror or _one_line(str(error))
    return f"{name}: {reason}." if name else f"{reason}."


def _point_at(error: QueryError) -> list[str]:
    """Return the query and a caret under the character that is wrong, cut to one line."""
    if error.position is None or not error.query:
        return []
    position = min(max(error.position, 0), len(error.query))
    first = max(0, position - _QUERY_WINDOW)
    last = position + _QUERY_WINDOW
    shown = "".join(c if c.isprintable() else " " for c in error.query[first:last])
    before = shown[: position - first]
    head, tail = ("..." if first else ""), ("..." if last < len(error.query) else "")
    return [f"  {head}{shown}{tail}", f"  {' ' * (len(head) + _columns(before))}^"]


def _columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _one_line(text: str) -> str:
    return one_line(" ".join(text.split()))


def _leave_quietly() -> int:
    """The reader of our output went away (`| head`): nothing to say, nothing more to write."""
    _discard_output()
    return EXIT_FAILED


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail once more."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        # Not a real file (a test's capture): there is no last flush to fail.
        return
