"""A stage's folder, and the loop that all stages share: epochs, checkpoints, metrics, resuming.

================== ===========================================================================
``config.json``    stage, settings, what it was started from, versions
``metrics.csv``    a row an epoch
``checkpoint.npz`` everything that training changes, after the last finished epoch
``student.npz``    weights of the student's parts after the last finished epoch, by part
================== ===========================================================================

A run that was stopped is gone on with by the same command; the result is that of a run that was
not stopped, to the bit on one machine with one number of threads.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.network import import_keras
from audiosearch.classifier.run import git_revision
from audiosearch.errors import DataError, InvalidArgumentError, printable
from audiosearch.storage import atomic_path, read_json, sha256_file, write_json
from tools.lite.network import StudentConfig, build_adaptor, config_from_dict

__all__ = [
    "StageFolder",
    "check_steps",
    "load_adaptor",
    "load_parts",
    "run_stage",
    "student_of",
    "weights_digest",
]

Parts = Mapping[str, Any]
"""Keras models by the name of the student's part: ``trunk``, ``adaptor``."""


class StageFolder:
    """The folder of one stage of training.

    Parameters
    ----------
    path : path-like
        Its place; made when something is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write what the stage is, or check that what is there is the same stage.

        Raises
        ------
        InvalidArgumentError
            When the folder holds a stage with other settings.
        """
        wanted = json.loads(json.dumps(dict(facts)))
        path = self.path / "config.json"
        if path.exists():
            described = read_json(path)
            other = [key for key, value in wanted.items() if described.get(key) != value]
            if other:
                raise InvalidArgumentError(
                    f"{printable(str(self.path))} was started with another {', '.join(other)}. Go "
                    "on with the same settings, or name a new folder."
                )
            return
        write_json(path, {**wanted, "git": git_revision(), "environment": _environment()})

    def save(self, arrays: list[np.ndarray], rows: list[dict[str, float]]) -> None:
        """Write the metrics of all epochs so far, and the checkpoint."""
        with (
            atomic_path(self.path / "metrics.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
            table.writeheader()
            table.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
        with atomic_path(self.path / "checkpoint.npz") as temporary, temporary.open("wb") as file:
            named = {f"array_{number}": array for number, array in enumerate(arrays)}
            np.savez(file, rows=np.array(json.dumps(rows)), **named)  # type: ignore[arg-type]

    def load(self) -> tuple[list[np.ndarray], list[dict[str, float]]] | None:
        """Read the checkpoint; None where no epoch was finished yet."""
        path = self.path / "checkpoint.npz"
        if not path.exists():
            return None
        with np.load(path) as data:
            rows = json.loads(str(data["rows"]))
            return [data[f"array_{n}"] for n in range(len(data.files) - 1)], rows

    def save_parts(self, parts: Parts) -> None:
        """Write the weights of the student's parts."""
        arrays = {
            f"{name}/{number:03d}": np.asarray(value)
            for name, model in parts.items()
            for number, value in enumerate(model.get_weights())
        }
        with atomic_path(self.path / "student.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def _environment() -> dict[str, str]:
    """Return the versions that a stage was trained with."""
    keras = import_keras()
    return {
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def load_parts(folder: str | os.PathLike[str], parts: Parts) -> None:
    """Set the weights of parts to those that a finished stage wrote.

    Raises
    ------
    DataError
        When a part is not there, or is of another shape.
    """
    path = Path(folder) / "student.npz"
    try:
        with np.load(path) as data:
            for name, model in parts.items():
                keys = sorted(key for key in data.files if key.startswith(f"{name}/"))
                model.set_weights([data[key] for key in keys])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{printable(str(path))} does not hold the weights that are needed: {error}"
        ) from error


def run_stage(
    folder: StageFolder,
    trainer: Any,
    parts: Parts,
    *,
    epochs: int,
    batches: Callable[[int], Iterable[tuple[Any, Any]]],
    judge: Callable[[], Mapping[str, float]] | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Train a stage, from its last checkpoint on where there is one.

    Parameters
    ----------
    folder : StageFolder
        Where it is kept; `StageFolder.begin` has been called.
    trainer : keras.Model
        Compiled, built, and taught by ``train_on_batch``; its logs are what is recorded.
    parts : mapping of str to keras.Model
        What is kept of it.
    epochs : int
        How many epochs there shall be.
    batches : callable
        Gives the inputs and targets of an epoch, counted from 1, the same ones each time.
    judge : callable, optional
        Gives further figures after an epoch.
    say : callable
        Called with a line an epoch.

    Returns
    -------
    list of dict
        A row an epoch.

    Raises
    ------
    DataError
        When training diverges.
    """
    keras = import_keras()
    # Metrics have variables too; what training is, is weights and optimiser.
    trainer.optimizer.build(trainer.trainable_variables)
    variables = [*trainer.variables, *trainer.optimizer.variables]
    saved = folder.load()
    rows: list[dict[str, float]] = []
    if saved is not None:
        arrays, rows = saved
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
    for epoch in range(len(rows) + 1, epochs + 1):
        began = time.perf_counter()
        sums: dict[str, float] = {}
        trainer.reset_metrics()
        logs: Mapping[str, Any] = {}
        for inputs, targets in batches(epoch):
            logs = trainer.train_on_batch(inputs, targets, return_dict=True)
        for name, value in logs.items():
            sums[name] = float(value)
        if not all(math.isfinite(value) for value in sums.values()):
            raise DataError(f"Training diverged in epoch {epoch}. Lower the learning rate.")
        rate = float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))
        row = {"epoch": epoch, **sums, **(judge() if judge else {}), "learning_rate": rate}
        row["seconds"] = time.perf_counter() - began
        rows.append(row)
        # The checkpoint comes last: stopped before it, the epoch is made again.
        folder.save_parts(parts)
        folder.save([keras.ops.convert_to_numpy(variable) for variable in variables], rows)
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        say(f"epoch {epoch} of {epochs}: {figures}")
    return rows


def check_steps(steps: Sequence[int], patches: int) -> None:
    """Check that each epoch has a step to learn from, before the first one begins.

    Parameters
    ----------
    steps : sequence of int
        How many steps each epoch has.
    patches : int
        How many patches a step has.

    Raises
    ------
    InvalidArgumentError
        When an epoch has none.
    """
    if not min(steps):
        raise InvalidArgumentError(
            f"The shard of epoch {steps.index(0) + 1} has fewer patches than the {patches} of a "
            "step. Name smaller steps (--batch in stage 1, --patches in the others), or make "
            "larger shards (shards --clips)."
        )


def weights_digest(folder: Path) -> str:
    """Return what tells a stage's weights from all others.

    Raises
    ------
    DataError
        When the stage has written none.
    """
    try:
        return sha256_file(folder / "student.npz")[:16]
    except OSError as error:
        raise DataError(
            f"{printable(str(folder))} holds no weights of a stage: {error}. Run its step first."
        ) from error


def student_of(folder: Path) -> StudentConfig:
    """Return the shape that a finished stage was trained with.

    Raises
    ------
    DataError
        When the folder holds no stage, or one that was stopped.
    """
    return config_from_dict(_finished(folder)["student"])


def load_adaptor(folder: Path) -> Any:
    """Return the adaptor of a finished stage 2 or 3, or of a guide.

    Raises
    ------
    DataError
        When the folder holds no stage, one that was stopped, or one without an adaptor.
    """
    described = _finished(folder)
    scale = described.get("values")
    if scale is None:
        raise DataError(
            f"{printable(str(folder))} is a stage without an adaptor; name one of stage 2 or 3, or "
            "a guide."
        )
    config = config_from_dict(described["student"])
    adaptor = build_adaptor(config, mean=scale["mean"], deviation=scale["deviation"])
    load_parts(folder, {"adaptor": adaptor})
    return adaptor


def _finished(folder: Path) -> dict[str, Any]:
    """Return what a stage says of itself."""
    name = printable(str(folder))
    try:
        described = read_json(folder / "config.json")
        epochs, _ = int(described.get("epochs", 0)), described["student"]
        metrics = folder / "metrics.csv"
        done = (
            len(metrics.read_text("utf-8").splitlines()) - 1 if epochs and metrics.exists() else 0
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{name} holds no finished stage: {error}.") from error
    if not epochs and not (folder / "student.npz").exists():
        raise DataError(f"{name} was stopped before its weights were written. Run its step again.")
    if done < epochs:
        raise DataError(
            f"{name} was stopped after epoch {done} of {epochs}. Run its own step again: it "
            "goes on."
        )
    return described
