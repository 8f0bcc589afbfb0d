"""Options of ``serve`` that say what an upload may be."""

from __future__ import annotations

from typing import Any

import click

from audiosearch.cli.options import together

__all__ = ["limit_options", "limits_from"]

# A test compares the defaults with those of `audiosearch.server.limits.Limits`.
_OPTIONS = (
    click.option(
        "--upload-size",
        type=click.IntRange(min=1),
        default=200,
        metavar="MB",
        help="The largest file that may be sent.",
    ),
    click.option(
        "--upload-length",
        type=click.FloatRange(min=0, min_open=True),
        default=3600.0,
        metavar="SECONDS",
        help="The longest sound that may be sent.",
    ),
    click.option(
        "--upload-time",
        type=click.FloatRange(min=0, min_open=True),
        default=120.0,
        metavar="SECONDS",
        help="How long a file may take to be analysed.",
    ),
    click.option(
        "--upload-memory",
        type=click.IntRange(min=1),
        default=1024,
        metavar="MB",
        help="How much memory decoding a file may take (Linux).",
    ),
    click.option(
        "--uploads-at-once",
        type=click.IntRange(min=1),
        default=4,
        metavar="N",
        help="How many files are analysed at the same time; more are turned away.",
    ),
    click.option(
        "--uploads-a-minute",
        type=click.IntRange(min=1),
        default=30,
        metavar="N",
        help="How many files a client may send in a minute; more are turned away.",
    ),
)


limit_options = together(*_OPTIONS)
"""Gives a command the options; it gets their values by their names."""


def limits_from(values: dict[str, Any]) -> Any:
    """Return the `audiosearch.server.limits.Limits` that the options say."""
    from audiosearch.server.limits import Limits

    return Limits(
        upload_bytes=values["upload_size"] * 10**6,
        upload_seconds=values["upload_length"],
        upload_time=values["upload_time"],
        upload_memory=values["upload_memory"],
        uploads_at_once=values["uploads_at_once"],
        uploads_a_minute=values["uploads_a_minute"],
    )
