"""The steps from packages to a measured embedder, each a command.

    python -m tools.lite collect  WORK            download the sounds of the lists
    python -m tools.lite prepare  WORK            windows, the teacher's scores, clean shards
    python -m tools.lite audit    WORK TEST...    name what is a copy of a test recording
    python -m tools.lite shards   WORK --mixed N  mixed shards
    python -m tools.lite distil   WORK RUN        stage 1
    python -m tools.lite guide    WORK RUN        the way from YAMNet's embedding to VGGish's
    python -m tools.lite adapt    WORK FROM RUN   stage 2
    python -m tools.lite tune     WORK FROM RUN   stage 3
    python -m tools.lite folds    WORK FROM RUN   stages 2 and 3, a fold of pairs held out
    python -m tools.lite restore  WORK FILE RUN   a stage's folder from an exported embedder
    python -m tools.lite export   RUN FILE        ONNX and manifest
    python -m tools.lite rescore  WORK FILE       the rescorer of the embedder's clips
    python -m tools.lite measure  FILE            the table of bars

WORK is a folder for sounds and what is computed from them (about 30 GB). Every step can be stopped
and goes on where it was when it is called again. Keras' backend is KERAS_BACKEND; on a processor
without a GPU, torch with --precision mixed_bfloat16 is the fastest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiosearch.errors import AudioSearchError
from tools.lite import commands
from tools.lite.optimizer import OPTIMIZERS

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.lite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")

    def step(name: str, run: Callable[[Any], None]) -> argparse.ArgumentParser:
        added = steps.add_parser(name, help=(run.__doc__ or "").strip().splitlines()[0])
        added.set_defaults(run=run)
        return added

    collect = step("collect", commands.collect_sounds)
    collect.add_argument("work", type=Path)
    collect.add_argument("--mirror", help="address of a Debian mirror (the machine's own)")
    collect.add_argument("--clones", type=Path, help="folder of clones, OWNER/NAME, of GitHub's")

    prepare = step("prepare", commands.prepare)
    prepare.add_argument("work", type=Path)
    prepare.add_argument("--yamnet", type=Path, required=True, help="folder of YAMNet's files")
    _add_released(prepare, needed=False)
    prepare.add_argument("--targets", type=Path, nargs=2, metavar=("CSV", "NPZ"),
                         help="known scores of windows: rows, and uint8 scores")  # fmt: skip
    prepare.add_argument("--threads", type=int, default=1)

    audit = step("audit", commands.audit)
    audit.add_argument("work", type=Path)
    audit.add_argument("tests", type=Path, nargs="+", help="folders of test recordings")
    _add_released(audit, needed=False)
    audit.add_argument("--yamnet", type=Path, required=True)
    audit.add_argument("--out", type=Path, help="CSV of the sounds to leave out")

    shards = step("shards", commands.make_shards)
    shards.add_argument("work", type=Path)
    shards.add_argument("--mixed", type=int, required=True, help="how many there shall be")
    shards.add_argument("--yamnet", type=Path, required=True)
    _add_released(shards, needed=False)
    shards.add_argument("--clips", type=int, default=8192)
    shards.add_argument("--rarity", type=float, default=0.5,
                        help="0 draws every window alike often, 1 every class")  # fmt: skip
    shards.add_argument("--seed", type=int, default=0)
    shards.add_argument("--threads", type=int, default=1)

    distil = step("distil", commands.distil_trunk)
    distil.add_argument("work", type=Path)
    distil.add_argument("run_folder", type=Path)
    distil.add_argument("--yamnet", type=Path, required=True, help="folder of YAMNet's files")
    distil.add_argument("--start", type=Path, help="a finished stage to begin with")
    _add_training(distil, epochs=40, rate=2e-3)
    distil.add_argument("--last-rate", type=float, default=0.01, help="of the rate, at the end")
    distil.add_argument("--batch", type=int, default=256)
    distil.add_argument("--apart", type=int, default=0,
                        help="epochs in which the parts learn side by side")  # fmt: skip
    distil.add_argument("--map-weight", type=float, default=1.0)
    distil.add_argument("--score-weight", type=float, default=20.0)
    distil.add_argument("--first", type=int, default=0, help="first mixed shard to read")
    distil.add_argument(
        "--clean", type=float, default=0.25, help="share of patches of clean sounds"
    )
    distil.add_argument("--threads", type=int, default=2, help="of the teacher")
    _add_student(distil)

    restore = step("restore", commands.restore_embedder)
    restore.add_argument("work", type=Path)
    restore.add_argument("embedder", type=Path, nargs="?", help="ONNX file (the bundled one)")
    restore.add_argument("run_folder", type=Path)
    restore.add_argument("--released", type=Path, required=True, help="bal_train.h5")

    for name, run, epochs, rate in (
        ("guide", commands.guide_student, 24, 1e-3),
        ("adapt", commands.adapt_student, 24, 1e-3),
        ("tune", commands.tune_student, 16, 3e-4),
        ("folds", commands.cross_validate, 12, 1e-3),
    ):
        stage = step(name, run)
        stage.add_argument("work", type=Path)
        if name != "guide":
            stage.add_argument("start", type=Path, help="the finished stage before it")
        stage.add_argument("run_folder", type=Path)
        _add_training(stage, epochs=epochs, rate=rate)
        _add_released(stage, needed=True)
        if name in ("guide", "folds"):
            stage.add_argument(
                "--yamnet", type=Path, required=True, help="folder of YAMNet's files"
            )
        stage.add_argument("--classifier", action="append", help="run folder; may be repeated")
        stage.add_argument("--raw", action="store_true", help="agree on scores before calibration")
        stage.add_argument("--pairs", type=float, default=0.5)
        stage.add_argument("--agreement", type=float, default=60.0)
        stage.add_argument("--moments", type=float, default=0.1)
        stage.add_argument("--distillation", type=float, default=0.3)
        stage.add_argument("--balance", type=float, default=0.0)
        if name == "guide":
            stage.add_argument("--hidden", default="512,512")
        else:
            stage.add_argument("--guide", type=Path, help="folder of the finished guide")
            stage.add_argument("--guidance", type=float, default=0.0)
        stage.add_argument("--clean", type=float, default=0.3, help="share of epochs of clean ones")
        stage.add_argument("--first", type=int, default=0, help="first mixed shard to read")
        stage.add_argument("--patches", type=int, default=256, help="patches of a step")
        stage.add_argument("--pairs-a-step", type=int, default=6)
        if name == "folds":
            stage.add_argument("--tune-epochs", type=int, default=0,
                               help="epochs of stage 3; 0 for the adaptor only")  # fmt: skip
            stage.add_argument("--tune-rate", type=float, default=3e-4)
            stage.add_argument("--tune-optimizer", choices=OPTIMIZERS, default="adam")
            stage.add_argument("--guide-epochs", type=int, default=0,
                               help="epochs of each fold's guide; 0 for none")  # fmt: skip
            stage.add_argument("--guide-pairs", type=float,
                               help="what pairs weigh in it (as in stage 2)")  # fmt: skip
        else:
            stage.add_argument("--held-out", type=int, help="fold of the pairs to hold out, 0 to 4")

    export = step("export", commands.export_run)
    export.add_argument("run_folder", type=Path)
    export.add_argument("target", type=Path, help="the ONNX file")

    rescore = step("rescore", commands.fit_rescorer)
    rescore.add_argument("work", type=Path)
    rescore.add_argument("target", type=Path, help="the ONNX file")
    rescore.add_argument("--yamnet", type=Path, required=True, help="folder of YAMNet's files")
    rescore.add_argument("--embedder", type=Path, help="ONNX file (the bundled one)")
    rescore.add_argument("--hidden", type=int, default=512)
    rescore.add_argument("--epochs", type=int, default=14)
    rescore.add_argument("--noise", type=float, default=0.5, help="put on the features")
    rescore.add_argument("--mixed", type=float, default=3.0, help="how much mixed clips count")
    rescore.add_argument("--share", type=float, default=0.75, help="of what is learnt that counts")
    rescore.add_argument("--frame-hidden", type=int, default=1024)
    rescore.add_argument("--frame-epochs", type=int, default=4)
    rescore.add_argument("--frame-noise", type=float, default=0.3, help="put on single frames")
    rescore.add_argument("--prior", type=float, default=0.8,
                         help="of a class's log frequency, taken from what is unsure")  # fmt: skip
    rescore.add_argument("--validation", type=float, default=0.0, help="share of the packages")
    rescore.add_argument("--seed", type=int, default=0)
    rescore.add_argument("--threads", type=int, default=1, help="of embedder and classifier")

    measure = step("measure", commands.measure_embedder)
    measure.add_argument("embedder", type=Path, nargs="?", help="ONNX file (the bundled one)")
    measure.add_argument("--data-dir", type=Path, required=True,
                         help="folder with esc10, samples, lite and audioset")  # fmt: skip
    measure.add_argument("--yamnet", type=Path, required=True)
    measure.add_argument("--work", type=Path, help="for the sounds of the held-out packages")
    measure.add_argument("--classifier", help="run folder (the bundled classifier)")
    measure.add_argument("--rescorer", type=Path, help="ONNX file (the bundled one)")
    measure.add_argument("--folds", type=Path, help="folder that the step folds wrote")
    measure.add_argument("--json", type=Path, help="where to keep the figures")
    return parser


def _add_released(parser: argparse.ArgumentParser, *, needed: bool) -> None:
    parser.add_argument("--audioset-clips", type=Path, required=needed,
                        help="npz of AudioSet clips as features")  # fmt: skip
    if needed:
        parser.add_argument("--released", type=Path, required=True, help="bal_train.h5")


def _add_training(parser: argparse.ArgumentParser, *, epochs: int, rate: float) -> None:
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam",
                        help="muon's rates are higher")  # fmt: skip
    parser.add_argument("--learning-rate", type=float, default=rate)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seed", type=int, default=0)


def _add_student(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", default="48,128,320,384", help="of each stage")
    parser.add_argument("--depths", default="3,1,4,2", help="residual blocks of each stage")
    parser.add_argument("--inner", default="0,0,128,160",
                        help="channels inside each stage's bottlenecks, 0 for none")  # fmt: skip
    parser.add_argument("--hidden", default="512,512")


def main(arguments: list[str] | None = None) -> int:
    """Run one step."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except AudioSearchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
