"""``audiosearch tag``: say what is heard in sound files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED, interrupted
from audiosearch.cli.options import (
    classifier_option,
    embedder_option,
    json_option,
    top_option,
)
from audiosearch.cli.output import (
    count,
    echo_json,
    one_line,
    span,
    speed_line,
    tags_text,
    warn,
    warn_skipped,
    youtube_link,
)
from audiosearch.cli.progress import JobProgress
from audiosearch.cli.tag_options import JOB_OPTIONS, chosen_rules, job_options, rule_options
from audiosearch.errors import AudioDecodeError, AudioError, AudioNotFoundError, printable

if TYPE_CHECKING:
    from audiosearch.tagging.batch import TagSummary
    from audiosearch.tagging.rules import TagRules

__all__ = ["command"]


@click.command(short_help="Name the best classes of sound files.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str), metavar="FILE...")
@top_option
@click.option(
    "--clip",
    type=click.IntRange(min=0),
    metavar="N",
    show_default="none",
    help="Tag row N of a packed data set (FILE.h5).",
)
@rule_options
@job_options
@classifier_option
@embedder_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    files: tuple[str, ...],
    top: int,
    clip: int | None,
    out: Path | None,
    workers: int | None,
    classifiers: tuple[Path, ...],
    embedder: str,
    as_json: bool,
    progress: str,
    quiet: bool,
    **values: Any,
) -> int:
    """Print the best classes of each FILE, or write them to a file with --out.

    A file's score for a class is the highest of its clips of 9.6 seconds. A folder stands for
    all sound files in it. Files that cannot be read are skipped and listed at the end.

    With --out, FILE may also be a pattern in quotes, a playlist (.m3u), a table (.csv) with the
    columns path, start and end, or - for a list on the standard input. The job may be stopped at
    any time; the same command goes on.
    """
    from audiosearch.library.sources import PACKED_SUFFIXES
    from audiosearch.own.classifier import load_classifiers

    own = [name for each in load_classifiers(classifiers) for name in each.classes]
    rules = chosen_rules(values, top=top, own=own)
    packed = [name for name in files if name.lower().endswith(PACKED_SUFFIXES)]
    if clip is not None:
        if len(files) != 1 or not packed:
            raise click.UsageError("--clip N takes exactly one packed data set (FILE.h5).")
        if classifiers:
            raise click.UsageError(
                "A packed data set holds embeddings and no sound that --classifier could hear."
            )
        _tag_row(files[0], clip, top=top, as_json=as_json)
        return EXIT_OK
    if packed:
        raise click.UsageError(
            f"{printable(packed[0])} is a packed data set: say which clip of it, "
            "for example --clip 0."
        )
    if out is not None:
        how = "none" if quiet else progress
        job = values | {"workers": workers, "embedder": embedder, "rules": rules}
        job["classifier"] = classifiers
        return _run_job(files, out, job, how=how, quiet=quiet, as_json=as_json)
    for name, written in JOB_OPTIONS.items():
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{written} needs --out FILE.")
    return _tag_files(
        files,
        rules=rules,
        embedder=embedder,
        classifiers=classifiers,
        workers=workers,
        as_json=as_json,
    )


def _run_job(
    files: tuple[str, ...],
    out: Path,
    job: dict[str, Any],
    *,
    how: str,
    quiet: bool,
    as_json: bool,
) -> int:
    from audiosearch.jobs.inputs import InputRules
    from audiosearch.tagging.batch import tag_batch

    inputs = InputRules(include=job.pop("include"), exclude=job.pop("exclude"))
    with JobProgress(how) as progress:
        try:
            summary = tag_batch(
                files,
                out,
                format=job.pop("format_name"),
                inputs=inputs,
                on_progress=progress,
                **job,
            )
        except KeyboardInterrupt:
            progress.close()
            return interrupted("Interrupted. What was done is kept; run the same command to go on.")
    if as_json:
        echo_json(summary.to_dict())
    elif not quiet:
        _print_summary(summary)
    if not summary.skipped:
        return EXIT_OK
    return EXIT_SKIPPED if summary.tagged else EXIT_FAILED


def _print_summary(summary: TagSummary) -> None:
    earlier = f" ({summary.earlier:,} done earlier)" if summary.earlier else ""
    click.echo(
        f"{summary.output}: {summary.tagged:,} of {count(summary.files, 'file')} tagged{earlier}, "
        f"{summary.skipped:,} skipped."
    )
    if summary.redone:
        click.echo(f"{count(summary.redone, 'file')} done again, with other settings than before.")
    if summary.seconds and summary.elapsed:
        click.echo(speed_line(summary.seconds, summary.elapsed))
    if summary.skipped:
        warn_skipped(summary.first_skipped, total=summary.skipped)
        warn(f"They are listed in {summary.errors}.")


def _tag_row(path: str, row: int, *, top: int, as_json: bool) -> None:
    import audiosearch as aus

    result = aus.tag_packed(path, row, top=top)
    if as_json:
        echo_json(result.to_dict(), indent=None)
        return
    click.echo(f"{result.recording}  clip {row}  {span(result.start, result.end)}")
    click.echo(youtube_link(str(result.recording), result.start))
    for number, tag in enumerate(result.tags, start=1):
        click.echo(f"{number:>4}. {tag.score:.2f}  {tag.label}")
    if result.labels is not None:
        click.echo(f"True labels: {', '.join(result.labels) or 'none'}")


def _tag_files(
    files: tuple[str, ...],
    *,
    rules: TagRules,
    embedder: str,
    classifiers: tuple[Path, ...],
    workers: int | None,
    as_json: bool,
) -> int:
    import audiosearch as aus

    skipped: list[AudioError] = []
    done = 0
    try:
        paths = _expanded(files, skipped)
        for result in aus.tag_files(
            paths, embedder=embedder, workers=workers, rules=rules, classifier=classifiers
        ):
            if isinstance(result, AudioError):
                skipped.append(result)
                continue
            done += 1
            if as_json:
                # The path as it was given, even where it is no valid text.
                echo_json(result.to_dict() | {"path": result.path}, indent=None)
                continue
            where = "" if rules.per == "file" else f" {result.start:.2f}-{result.end:.2f}"
            click.echo(f"{one_line(result.path)}{where}: {tags_text(result.tags)}")
    except KeyboardInterrupt:
        _report(skipped)
        return interrupted("Interrupted.")
    _report(skipped)
    if not done:
        return EXIT_FAILED
    return EXIT_SKIPPED if skipped else EXIT_OK


def _expanded(files: tuple[str, ...], skipped: list[AudioError]) -> list[str]:
    """Return the files, and in place of a folder the sound files in it."""
    paths: list[str] = []
    for name in files:
        if not Path(name).is_dir():
            paths.append(name)
            continue
        from audiosearch.audio import find_audio

        found = find_audio(name, on_error=lambda error: skipped.append(_unlisted(error)))
        if not found:
            skipped.append(AudioNotFoundError(name, "There are no sound files in this folder."))
        paths.extend(str(path) for path in found)
    return paths


def _unlisted(error: OSError) -> AudioError:
    return AudioDecodeError(os.fsdecode(error.filename or ""), f"{error.strerror}.")


def _report(skipped: list[AudioError]) -> None:
    """Say at the end which files were left out."""
    if len(skipped) == 1:
        warn(f"Skipped {skipped[0]}")
    elif skipped:
        warn_skipped([(error.path, error.reason) for error in skipped])
