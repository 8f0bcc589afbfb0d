"""``audiosearch train``: train the classifier on labelled embeddings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audiosearch.cli.failures import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, interrupted
from audiosearch.cli.launching import devices_option, leads
from audiosearch.cli.output import clock
from audiosearch.errors import OtherProcessError

if TYPE_CHECKING:
    from audiosearch.classifier.training import EpochResult

__all__ = ["NETWORK_OPTIONS", "command"]

# Options that are fields of the network's configuration; all others but --data, --out,
# --teacher, --resume and --devices are fields of the training's. A test compares names and
# defaults with the two classes.
NETWORK_OPTIONS = (
    "architecture",
    "units",
    "layers",
    "levels",
    "attention",
    "residual",
    "dropout",
)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}' is no list of numbers such as 2,3.") from None


@click.command(short_help="Train the classifier on labelled embeddings.")
@click.option(
    "--data",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.h5",
    help="Packed data set with labels, for example AudioSet's bal_train.h5; several are one set.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder for the result; it must not exist yet.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    show_default="none",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Distil this classifier into the new one; give it several times for an ensemble.",
)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped.")
@devices_option
@click.option("--epochs", type=click.IntRange(min=1), default=32, help="How many epochs.")
@click.option("--batch-size", type=click.IntRange(min=2), default=256, help="Clips a step.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    help="Peak of the learning rate's schedule.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "constant", "step"]),
    default="cosine",
    help="How the learning rate falls: to 0, not at all, or by 10 after half and 3/4.",
)
@click.option(
    "--warmup",
    type=click.FloatRange(min=0),
    default=1.0,
    help="Epochs over which the learning rate rises to its peak.",
)
@click.option(
    "--weight-decay", type=click.FloatRange(min=0), default=0.0, help="Decoupled weight decay."
)
@click.option(
    "--mixup",
    type=click.FloatRange(min=0),
    default=0.5,
    help="Parameter of the beta distribution that mixes two clips; 0 for none.",
)
@click.option(
    "--splice",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Share of the mixed clips that take each frame whole from one of the two.",
)
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Standard deviation of noise on the embedding, whose values lie in -1 to 1.",
)
@click.option(
    "--frame-dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Share of a clip's frames left out in training.",
)
@click.option(
    "--parents",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Target of unlabelled classes above a true one in the ontology.",
)
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="How much rare classes are preferred, from 0 (not) to 1 (fully).",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 0.5),
    default=0.0,
    help="Share by which targets are drawn towards 0.5.",
)
@click.option(
    "--distillation",
    type=click.FloatRange(0, 1),
    default=0.9,
    help="With --teacher: weight of its scores in the targets, beside the labels.",
)
@click.option(
    "--ema",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.99,
    help="Momentum of the moving average of the weights; 0 for none.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=0,
    help="Stop after so many epochs without a better validation mAP; 0 for never.",
)
@click.option(
    "--snapshots",
    type=click.IntRange(min=0),
    default=0,
    help="Export each of the last so many epochs as well, to average their scores.",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    help="Share of the clips held out to choose the best epoch.",
)
@click.option("--seed", type=int, default=0, help="Seed of everything random.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]),
    default="float32",
    help="Arithmetic; the mixed ones are for GPUs.",
)
@click.option(
    "--architecture",
    type=click.Choice(
        [
            "max-pooling",
            "average-pooling",
            "single-attention",
            "multi-level-attention",
            "feature-level-attention",
        ]
    ),
    default="multi-level-attention",
    help="How a clip's frames become its scores.",
)
@click.option("--units", type=click.IntRange(min=1), default=1024, help="Width of a hidden layer.")
@click.option("--layers", type=click.IntRange(min=1), default=3, help="Hidden layers.")
@click.option(
    "--levels",
    default="2,3",
    metavar="N,...",
    callback=lambda _context, _parameter, value: _numbers(value),
    help="After which hidden layers an attention pool stands.",
)
@click.option(
    "--attention",
    type=click.Choice(["sigmoid", "softmax"]),
    default="sigmoid",
    help="Attention before it is normalised over time; softmax is over the classes.",
)
@click.option("--residual", is_flag=True, default=False, help="Hidden layers add to their input.")
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    help="Share of a layer's values left out in training.",
)
def command(
    data: tuple[Path, ...],
    out: Path,
    teachers: tuple[Path, ...],
    resume: bool,
    devices: int | None,
    **settings: Any,
) -> int:
    """Train a classifier of the attention family, with a validation split of its own.

    RUN gets the best epoch so far, which `evaluate --classifier RUN` takes, a table of all epochs,
    and a checkpoint that --resume goes on from. Training needs audiosearch[tensorflow].

    Several devices are GPUs of this machine. With PyTorch torchrun starts a process for each, on
    one machine or several: torchrun --standalone --nproc-per-node 2 -m audiosearch train ...
    """
    # TensorFlow's own start-up notes say nothing to a user; its errors stay.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    import audiosearch as aus
    from audiosearch.classifier.network import NetworkConfig
    from audiosearch.classifier.training import TrainingConfig

    network = {name: settings.pop(name) for name in NETWORK_OPTIONS}
    config = TrainingConfig(**settings, network=NetworkConfig(**network))
    try:
        run = aus.train(
            data,
            out,
            config=config,
            teachers=teachers,
            resume=resume,
            devices=devices,
            on_epoch=lambda result: click.echo(_epoch_line(result, config.epochs)),
            on_step=_step_line() if sys.stderr.isatty() else None,
        )
    except OtherProcessError:
        # The process that failed says why, once.
        return EXIT_FAILED
    except KeyboardInterrupt:
        if not leads():
            return EXIT_INTERRUPTED
        return interrupted(
            f"Interrupted. The best epoch so far is kept in {out}; --resume goes on."
        )
    if not leads():
        return EXIT_OK
    click.echo(
        f"Best epoch: {run.best.epoch}, validation mAP {run.best.validation_mAP:.4f}. "
        f"Trained on {run.train_clips:,} clips, chosen on {run.validation_clips:,}. "
        f"Written to {run.folder}."
    )
    return EXIT_OK


def _epoch_line(result: EpochResult, epochs: int) -> str:
    return (
        f"epoch {result.epoch:>{len(str(epochs))}}/{epochs}  loss {result.loss:.4f}  "
        f"validation mAP {result.validation_mAP:.4f}  AUC {result.validation_AUC:.4f}  "
        f"{clock(result.seconds)}"
    )


def _step_line() -> Callable[[int, int, int], None]:
    """Return a callback that rewrites one line on the terminal while an epoch runs."""

    def show(epoch: int, step: int, steps: int) -> None:
        end = "\r" if step < steps else "\r\033[K"
        click.echo(f"epoch {epoch}: step {step} of {steps}{end}", nl=False, err=True)

    return show
