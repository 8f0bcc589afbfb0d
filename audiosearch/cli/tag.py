"""``audiosearch tag``: say what is heard in sound files."""

from __future__ import annotations

import os
from pathlib import Path

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED, interrupted
from audiosearch.cli.options import embedder_option, json_option, top_option
from audiosearch.cli.output import count, echo_json, one_line, span, tags_text, warn, youtube_link
from audiosearch.errors import AudioDecodeError, AudioError, AudioNotFoundError, printable

__all__ = ["command"]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str), metavar="FILE...")
@top_option
@click.option(
    "--clip",
    type=click.IntRange(min=0),
    metavar="N",
    show_default="none",
    help="Tag row N of a packed data set (FILE.h5).",
)
@embedder_option
@json_option
def command(
    files: tuple[str, ...], top: int, clip: int | None, embedder: str, as_json: bool
) -> int:
    """Print the best classes of each FILE, one line a file.

    A file's score for a class is the highest of its clips of 9.6 seconds. A folder stands for
    all sound files in it. Files that cannot be read are skipped and listed at the end.
    """
    from audiosearch.library.sources import PACKED_SUFFIXES

    packed = [name for name in files if name.lower().endswith(PACKED_SUFFIXES)]
    if clip is not None:
        if len(files) != 1 or not packed:
            raise click.UsageError("--clip N takes exactly one packed data set (FILE.h5).")
        _tag_row(files[0], clip, top=top, as_json=as_json)
        return EXIT_OK
    if packed:
        raise click.UsageError(
            f"{printable(packed[0])} is a packed data set: say which clip of it, "
            "for example --clip 0."
        )
    return _tag_files(files, top=top, embedder=embedder, as_json=as_json)


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


def _tag_files(files: tuple[str, ...], *, top: int, embedder: str, as_json: bool) -> int:
    import audiosearch as aus

    skipped: list[AudioError] = []
    done = 0
    try:
        paths = _expanded(files, skipped)
        for result in aus.tag_files(paths, top=top, embedder=embedder):
            if isinstance(result, AudioError):
                _skip(result, skipped)
                continue
            done += 1
            if as_json:
                # The path as it was given, even where it is no valid text.
                echo_json(result.to_dict() | {"path": result.path}, indent=None)
            else:
                click.echo(f"{one_line(result.path)}: {tags_text(result.tags)}")
    except KeyboardInterrupt:
        _report(done, skipped)
        return interrupted("Interrupted.")
    _report(done, skipped)
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

        found = find_audio(name, on_error=lambda error: _skip(_unlisted(error), skipped))
        if not found:
            _skip(AudioNotFoundError(name, "There are no sound files in this folder."), skipped)
        paths.extend(str(path) for path in found)
    return paths


def _unlisted(error: OSError) -> AudioError:
    return AudioDecodeError(os.fsdecode(error.filename or ""), f"{error.strerror}.")


def _skip(error: AudioError, skipped: list[AudioError]) -> None:
    warn(f"Skipped {error}")
    skipped.append(error)


def _report(done: int, skipped: list[AudioError]) -> None:
    """Say at the end which files were left out; one alone was just reported."""
    if not skipped or done + len(skipped) == 1:
        return
    warn(f"{count(done, 'file')} tagged, {count(len(skipped), 'file')} skipped:")
    for error in skipped:
        warn(f"  {error}")
