"""The options of ``audiosearch tag`` that say which tags are wanted and how a job is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.job_options import limit_options, progress_options
from audiosearch.cli.options import together
from audiosearch.errors import DataError, InvalidArgumentError, printable

if TYPE_CHECKING:
    from audiosearch.tagging.rules import TagRules

__all__ = ["JOB_OPTIONS", "chosen_rules", "job_options", "only_classes", "rule_options"]

JOB_OPTIONS = {
    "format_name": "--format",
    "include": "--include",
    "exclude": "--exclude",
    "restart": "--restart",
    "retry_errors": "--retry-errors",
    "time_limit": "--time-limit",
    "memory_limit": "--memory-limit",
    "write_tags": "--write-tags",
    "sidecars": "--sidecars",
    "cut": "--cut",
}
"""Parameters that need ``--out``, and how they are written."""


rule_options = together(
    click.option(
        "--per",
        type=click.Choice(["file", "clip", "segment"]),
        default="file",
        help="What a row is about: a file, each clip of 9.6 seconds, or each event.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1),
        show_default="none; 0.5 for segments",
        help="Only scores from here on.",
    ),
    click.option(
        "--only",
        metavar="CLASSES",
        show_default="all",
        help='Only these classes, for example "Dog,Siren".',
    ),
    click.option(
        "--classes",
        "classes_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        show_default="all",
        help="Only the classes named in this file, one a line.",
    ),
    click.option(
        "--hop",
        type=float,
        default=9.6,
        metavar="SECONDS",
        help="From one clip's start to the next's; less than 9.6 lets clips overlap.",
    ),
    click.option(
        "--min-length",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Shortest segment.",
    ),
    click.option(
        "--merge-gap",
        type=click.FloatRange(min=0),
        default=1.0,
        metavar="SECONDS",
        help="Segments of one class with no more between them are one.",
    ),
    click.option(
        "--median",
        type=click.IntRange(min=1),
        default=3,
        metavar="FRAMES",
        help="Frames of the median filter of segments, odd; a frame is 0.96 seconds.",
    ),
    click.option(
        "--hysteresis",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.7,
        metavar="PART",
        help="A segment ends when its score falls below this part of the threshold.",
    ),
)
"""Adds the options that say which tags are wanted."""


job_options = together(
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="FILE",
        show_default="print",
        help="Write the tags to this file (for audacity and m3u: folder). Run again, the "
        "command goes on where it stopped.",
    ),
    click.option(
        "--format",
        "format_name",
        # A test compares the choices with `audiosearch.tagging.formats.FORMATS`.
        type=click.Choice(["csv", "jsonl", "parquet", "raven", "audacity", "m3u"]),
        show_default="by the ending of --out",
        help="Format of the output.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        show_default="all",
        help='Only files like this, for example "*.wav".',
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        show_default="none",
        help="No files and folders like this.",
    ),
    click.option(
        "--restart",
        is_flag=True,
        help="Forget what was done, and replace the output.",
    ),
    click.option("--retry-errors", is_flag=True, help="Try the skipped files again."),
    limit_options,
    click.option(
        "--write-tags",
        is_flag=True,
        help="Also write the classes into the comment of each sound file.",
    ),
    click.option("--sidecars", is_flag=True, help="Also write FILE.json beside each sound file."),
    click.option(
        "--cut",
        type=click.Path(path_type=Path),
        metavar="DIR",
        show_default="none",
        help="Also write the clips or segments as files, a folder for each class.",
    ),
    progress_options,
)
"""Adds the options of a job that writes a file."""


def chosen_rules(values: dict[str, Any], *, top: int, own: Sequence[str] = ()) -> TagRules:
    """Take the values of `rule_options` out of a command's parameters, as rules.

    `own` are the names of the user's own classes that there are.
    """
    from audiosearch.tagging.events import EventRules
    from audiosearch.tagging.rules import TagRules, class_keys

    names: list[str] = []
    only, classes_file = values.pop("only"), values.pop("classes_file")
    if only is not None:
        names.extend(only_classes(only, own))
    if classes_file is not None:
        names.extend(_file_classes(classes_file))
    return TagRules(
        per=values.pop("per"),
        top=top,
        threshold=values.pop("threshold"),
        classes=class_keys(names, own) if only is not None or classes_file is not None else None,
        hop=values.pop("hop"),
        events=EventRules(
            low=values.pop("hysteresis"),
            median=values.pop("median"),
            min_length=values.pop("min_length"),
            merge_gap=values.pop("merge_gap"),
        ),
    )


def only_classes(text: str, own: Sequence[str] = ()) -> list[str]:
    """Split names of classes at commas, where the names have commas of their own.

    `own` are the names of the user's own classes that there are.

    Raises
    ------
    InvalidArgumentError
        When a part is no class; the message names the nearest.
    """
    from audiosearch.tagging.rules import class_keys

    parts, names = [part.strip() for part in text.split(",")], []
    while parts:
        for count in range(len(parts), 0, -1):
            name = ", ".join(parts[:count])
            try:
                class_keys([name], own)
            except InvalidArgumentError:
                if count == 1:
                    raise
            else:
                names.append(name)
                parts = parts[count:]
                break
    return names


def _file_classes(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(
            f"{printable(str(path))} cannot be read as a list of classes: {why}. It has one name "
            "or mid a line."
        ) from error
    names = [line.strip() for line in text.splitlines()]
    return [name for name in names if name and not name.startswith("#")]
