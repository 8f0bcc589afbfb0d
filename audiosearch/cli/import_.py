"""``audiosearch import``: add what was exported to a library."""

from __future__ import annotations

from pathlib import Path

import click

from audiosearch.cli.merge import mix_option, own_option, print_summary
from audiosearch.cli.options import classifier_option, json_option, library_option
from audiosearch.cli.output import count, echo_json, one_line

__all__ = ["command"]


@click.command("import", short_help="Add an exported file, or another library, to a library.")
@click.argument("source", type=click.Path(path_type=Path))
@library_option()
@mix_option
@classifier_option
@own_option
@click.option("--labels", is_flag=True, help="SOURCE holds labels, as `export --labels` writes.")
@json_option
def command(
    source: Path,
    library: Path | None,
    mix_embedders: bool,
    classifiers: tuple[Path, ...],
    no_own_classes: bool,
    labels: bool,
    as_json: bool,
) -> None:
    """Add SOURCE to the library: a file that `audiosearch export` wrote, or another library.

    No sound is analysed again. A recording that the library has already is kept as it is, unless
    that of SOURCE was made from a newer file, or SOURCE holds what a classifier of yours heard of
    it, and the library does not: then these scores are added to it, and the rest stays.

    Classes of your own come along, with what was heard of them. A file holds no classifiers: give
    them with --classifier, and the library can let them hear new sounds.
    """
    import audiosearch as aus

    folder = library or aus.default_library()
    if labels:
        done = aus.import_labels(source, folder)
        if as_json:
            echo_json(done.to_dict())
            return
        click.echo(
            f"{one_line(done.library)}: {count(done.added, 'label')} added, {done.unchanged:,} "
            f"unchanged, {done.unknown:,} of sounds that are not in it."
        )
        return
    imported = aus.import_clips(
        source,
        folder,
        mix_embedders=mix_embedders,
        own_classes=not no_own_classes,
        classifier=classifiers,
    )
    print_summary(imported, as_json=as_json)
