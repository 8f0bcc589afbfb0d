"""``audiosearch lab train``: train a classifier of one's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_SKIPPED
from audiosearch.cli.lab_options import (
    SoundProgress,
    data_argument,
    fitting_options,
    quiet_keras,
    read_data,
    show_skipped,
)
from audiosearch.cli.launching import devices_option, is_joined, leads
from audiosearch.cli.output import clock, count, one_line, warn
from audiosearch.errors import OtherProcessError

if TYPE_CHECKING:
    from audiosearch.lab.fits import LabEpoch

__all__ = ["command"]


@click.command("train", short_help="Train a classifier of your own classes.")
@data_argument
@click.option(
    "--model",
    # A test compares the choices with `audiosearch.lab.models.MODELS`.
    type=click.Choice(
        [
            "linear-lite",
            "mlp-lite",
            "attention-lite",
            "prototypes",
            "transfer",
            "transfer-tuned",
            "ann-librosa26",
            "cnn-logmel",
            "cnn-logmel-stereo",
            "resnet-logmel",
            "cnn-image",
            "cnn-wave",
            "lstm-wave",
            "mobilenet",
            "mobilenet-frozen",
            "linear-vggish",
            "mlp-vggish",
            "attention-vggish",
        ]
    ),
    default="linear-lite",
    help="What to train: see docs/lab.md.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the result; it must not exist yet.",
)
@click.option("--resume", is_flag=True, help="Go on with a network's training that was stopped.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.15,
    help="Share of the sounds held out to choose the best epoch; 0 for none.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=0,
    help="Stop after so many epochs without a better validation loss; 0 for never.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of everything random."
)
@devices_option
@fitting_options
def command(
    data: Path | None,
    model: str,
    out: Path,
    resume: bool,
    devices: int | None,
    cache: Path | None,
    track: tuple[str, ...],
    **options: Any,
) -> int:
    """Train a classifier of the classes in DATA and write it to DIR.

    DIR gets the classifier (ONNX), its manifest and a model card; `lab predict DIR` takes it.
    Ctrl-C ends the training and keeps the best epoch so far. Exit code 3 says that sounds were
    left out.

    Several devices are GPUs of this machine. With PyTorch torchrun starts a process for each, on
    one machine or several: torchrun --standalone --nproc-per-node 2 -m audiosearch lab train ...
    """
    quiet_keras()
    from audiosearch.lab import LabConfig, train_lab

    sounds = read_data(data, options)
    config = LabConfig(model=model, **options)
    try:
        with SoundProgress() as progress:
            run = train_lab(
                sounds,
                out,
                config=config,
                cache=cache,
                track=track,
                resume=resume,
                devices=devices,
                on_sound=progress,
                on_epoch=lambda epoch: click.echo(_epoch_line(epoch, config.wanted_epochs)),
            )
    except OtherProcessError:
        # The process that failed says why, once.
        return EXIT_FAILED
    except KeyboardInterrupt:
        if not leads():
            return EXIT_INTERRUPTED
        raise
    if not leads():
        return EXIT_OK
    click.echo(
        f"{model}: trained on {count(run.train, 'sound')} of "
        f"{count(len(run.sounds.classes), 'class', 'classes')}."
    )
    if run.epochs and not run.interrupted:
        click.echo(_kept_line(run.best, len(run.epochs), config.wanted_epochs))
    if run.measures is not None:
        click.echo(
            f"On {count(run.validation, 'sound')} held out: accuracy {run.measures.accuracy:.3f}, "
            f"macro F1 {run.measures.macro_f1:.3f}."
        )
    click.echo(f"Written to {one_line(str(run.folder))}.")
    show_skipped(run.sounds.skipped)
    if run.interrupted:
        warn(f"Interrupted: epoch {run.best} is kept. The same command with --resume goes on.")
        return EXIT_INTERRUPTED
    # To torchrun, whatever is not 0 is a failure.
    return EXIT_SKIPPED if run.sounds.skipped and not is_joined() else EXIT_OK


def _kept_line(best: int, done: int, wanted: int) -> str:
    line = f"Epoch {best} is kept."
    if done < wanted:
        after = count(done - best, "epoch")
        line = f"Stopped early: {after} brought no better validation loss. {line}"
    return line


def _epoch_line(epoch: LabEpoch, epochs: int) -> str:
    line = f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}  loss {epoch.loss:.4f}"
    if epoch.validation_loss is not None and epoch.validation_accuracy is not None:
        line += (
            f"  validation loss {epoch.validation_loss:.4f}  "
            f"accuracy {epoch.validation_accuracy:.3f}"
        )
    return f"{line}  {clock(epoch.seconds)}"
