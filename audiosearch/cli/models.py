"""``audiosearch models``: list, fetch, verify and find the models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_OK, interrupted
from audiosearch.cli.options import json_option
from audiosearch.cli.output import echo_json, one_line, size
from audiosearch.cli.progress import FetchProgress
from audiosearch.errors import printable

if TYPE_CHECKING:
    from audiosearch.embedders.vggish.checks import Agreement, SmokeTest

__all__ = ["command"]

# A test compares them with what `audiosearch.weights` knows.
_NAMES = ("lite", "classifier", "vggish", "vggish-int8")
_SOURCES = ("hub", "checkpoint")

name_argument = click.argument("name", type=click.Choice(_NAMES))
path_type = click.Path(path_type=Path)


@click.group("models", short_help="List, fetch and verify models, such as the real VGGish.")
def command() -> None:
    """List, fetch and verify the models.

    `lite` (the default embedder) and the classifier come with audiosearch. The real VGGish is
    fetched once: `audiosearch models fetch vggish`.
    """


@command.command("list", short_help="List the models and say where they lie.")
@json_option
def list_command(as_json: bool) -> None:
    """List the models: state, size, file, origin, licence."""
    import audiosearch as aus

    models = aus.list_models()
    if as_json:
        echo_json([model.to_dict() for model in models])
        return
    width = max(len(model.name) for model in models)
    for model in models:
        space = f"  {size(model.bytes)}" if model.bytes else ""
        click.echo(f"{model.name:<{width}}  {model.state}{space}")
        for text in (model.path, model.origin, model.licence):
            if text:
                click.echo(f"{'':<{width}}  {one_line(text)}")


@command.command("fetch", short_help="Fetch a model and install it.")
@name_argument
@click.option(
    "--source",
    type=click.Choice(_SOURCES),
    default="hub",
    help="Which of Google's publications: TensorFlow Hub's google/vggish/1, or the original "
    "checkpoint vggish_model.ckpt.",
)
@click.option(
    "--from",
    "path",
    type=path_type,
    metavar="PATH",
    show_default="download",
    help="Take the weights from here: a SavedModel's folder or .tar.gz, or a checkpoint.",
)
@click.option(
    "--pca",
    type=path_type,
    metavar="FILE.npz",
    show_default="beside PATH, else download",
    help="The PCA parameters, vggish_pca_params.npz.",
)
@click.option(
    "--sha256",
    metavar="HEX",
    show_default="what was accepted before",
    help="What the checksum of the downloaded weights must be.",
)
@click.option("--offline", is_flag=True, help="Download nothing, as AUDIOSEARCH_OFFLINE=1 does.")
@click.option("--force", is_flag=True, help="Install again what is installed.")
def fetch_command(
    name: str,
    source: str,
    path: Path | None,
    pca: Path | None,
    sha256: str | None,
    offline: bool,
    force: bool,
) -> int:
    """Fetch the model NAME, convert it, and check it with its publisher's own test.

    A download that was interrupted goes on where it was. Converting VGGish, once, needs
    audiosearch[tensorflow]; using it does not. The environment variables AUDIOSEARCH_MODELS (the
    folder), AUDIOSEARCH_OFFLINE=1 and AUDIOSEARCH_MODEL_MIRRORS (addresses that are asked first)
    are heeded.
    """
    import audiosearch as aus

    with FetchProgress() as progress:
        try:
            fetched = aus.fetch_model(
                name,
                source=source,
                path=path,
                pca=pca,
                sha256=sha256,
                offline=offline,
                force=force,
                on_progress=progress,
                on_step=progress.step,
            )
        except KeyboardInterrupt:
            progress.close()
            return interrupted(
                "Interrupted. What was downloaded is kept; run the same command to go on."
            )
    what = "is installed" if fetched else "was there already"
    click.echo(f"{name} {what}: {one_line(printable(str(aus.model_path(name))))}")
    return EXIT_OK


@command.command("verify", short_help="Verify a model's checksum, and VGGish by its smoke test.")
@name_argument
@click.option(
    "--quantised",
    is_flag=True,
    help="Make VGGish's int8 variant where it is missing, measure how far it agrees with VGGish "
    "on this machine, and accept or refuse it as the embedder vggish-int8.",
)
@click.option(
    "--sounds",
    type=path_type,
    metavar="PATH",
    multiple=True,
    show_default="made sounds only",
    help="A file or folder of your own to measure the agreement on, too; may be given again.",
)
@json_option
def verify_command(name: str, quantised: bool, sounds: tuple[Path, ...], as_json: bool) -> int:
    """Verify that the model NAME is whole and what it claims to be.

    The checksum of every model is compared with the recorded one. VGGish also has to pass the
    smoke test that Google published with it. Exit code 1 says that something is wrong.
    """
    import audiosearch as aus

    with FetchProgress() as progress:
        found = aus.verify_model(name, quantised=quantised, sounds=sounds, on_step=progress.step)
    if as_json:
        echo_json(found.to_dict())
        return EXIT_OK if found.passed else EXIT_FAILED
    click.echo(f"{found.name}  {one_line(printable(str(found.path)))}")
    click.echo(f"SHA-256 {found.sha256}, as recorded")
    if found.smoke_test is not None:
        _print_smoke_test(found.smoke_test)
    if found.agreement is not None:
        _print_agreement(found.agreement)
    return EXIT_OK if found.passed else EXIT_FAILED


@command.command("path", short_help="Print where a model's file lies.")
@name_argument
def path_command(name: str) -> None:
    """Print the path of the ONNX file of the model NAME, whose checksum was verified."""
    import audiosearch as aus

    click.echo(printable(str(aus.model_path(name))))


def _print_smoke_test(test: SmokeTest) -> None:
    click.echo(f"Google's smoke test: {'passed' if test.passed else 'FAILED'}")
    for figure in test.figures:
        verdict = "" if figure.passed else "  <- more than 10 % off"
        click.echo(
            f"  {figure.name:<29} {figure.measured:>10.6g}  published {figure.expected:g}{verdict}"
        )


def _print_agreement(agreement: Agreement) -> None:
    most = agreement.to_dict()["at_most"]
    click.echo(
        f"The int8 variant is {'accepted' if agreement.accepted else 'REFUSED'}: compared with "
        f"VGGish on {agreement.frames:,} frames,"
    )
    for name, value, key in (
        ("median", agreement.median_error, "median_error"),
        ("95th percentile", agreement.high_error, "high_error"),
    ):
        click.echo(f"  error of a byte, {name:<16} {value:6.2f}  at most {most[key]:g}")
    click.echo(f"  cosine of the embeddings, median  {agreement.median_cosine:.4f}")
    click.echo(
        f"  speed {agreement.speed_ratio:.1f} times, size {agreement.size_ratio:.2f} times VGGish's"
    )
