"""A run folder: what a training run was, how it went, and where it can go on.

==================== ========================================================================
``config.json``      settings, data, split, git revision, environment
``metrics.csv``      one row an epoch
``events.*``         the same for TensorBoard, where the package ``tensorboard`` is installed
``checkpoint.npz``   weights, optimiser and random state after the last epoch, to resume from
``classifier.onnx``  the best epoch's classifier, and ``classifier.json``, its manifest
``snapshots/NNNN/``  classifiers of the last epochs, where asked for
``curves.png``       loss and validation mAP by epoch, where ``matplotlib`` is installed; beside
                     it the plots of an evaluation on the validation split (`plots`), of which
                     ``train_counts.png`` shows each class's AP by its count of training clips
==================== ========================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.settings import TrainingConfig
from audiosearch.errors import DataError, InvalidArgumentError, StorageError, printable
from audiosearch.storage import atomic_path, read_json, storage_errors, write_json
from audiosearch.version import __version__

__all__ = ["EpochResult", "RunFolder"]


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave; seconds of training and validation together."""

    epoch: int
    loss: float
    validation_mAP: float
    validation_AUC: float
    learning_rate: float
    seconds: float


class RunFolder:
    """The folder of one run.

    Parameters
    ----------
    path : path-like
        Its place.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._name = printable(os.fspath(path))
        self._events: Any = None

    def make(self) -> None:
        """Make the folder.

        Raises
        ------
        StorageError
            When it exists and is not empty, or cannot be made.
        """
        with storage_errors(self.path):
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise StorageError(
                    f"{self._name} exists already. Name a new folder with --out, or go on with a "
                    "run that was stopped with --resume; nothing was overwritten."
                )
            self.path.mkdir(parents=True, exist_ok=True)

    def describe(self, facts: dict[str, Any], config: TrainingConfig, devices: str) -> None:
        """Write what the run is, and on which devices it starts."""
        made = {"git": git_revision(), "environment": environment(devices)}
        write_json(self.path / "config.json", {**facts, **made, **asdict(config)})

    def describe_resumption(self, epochs: int, devices: str) -> None:
        """Add where the run goes on after so many epochs."""
        described = read_json(self.path / "config.json")
        described.setdefault("resumed", []).append(
            {"epochs": epochs, "git": git_revision(), "environment": environment(devices)}
        )
        write_json(self.path / "config.json", described)

    def check_resumable(self, config: TrainingConfig, teachers: list[dict[str, str]]) -> None:
        """Refuse to resume with other settings, or where there is nothing to resume.

        Raises
        ------
        DataError, InvalidArgumentError
            Saying which.
        """
        try:
            described = read_json(self.path / "config.json")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self._name} holds no run that could be resumed. Leave --resume out."
            ) from error
        wanted = json.loads(json.dumps({"teachers": teachers, **asdict(config)}))
        other = [key for key, value in wanted.items() if described.get(key) != value]
        if other:
            raise InvalidArgumentError(
                f"{self._name} was started with another {', '.join(other)}. Resume with the same "
                "settings, or train into a new folder."
            )

    def save(self, arrays: list[np.ndarray], state: dict[str, Any]) -> None:
        """Write a checkpoint, replacing the last one."""
        with atomic_path(self.path / "checkpoint.npz") as temporary, temporary.open("wb") as file:
            named = {f"array_{number}": array for number, array in enumerate(arrays)}
            np.savez(file, state=np.array(json.dumps(state)), **named)  # type: ignore[arg-type]

    def load(self) -> tuple[list[np.ndarray], dict[str, Any]] | None:
        """Read the checkpoint; None where no epoch was finished yet.

        Raises
        ------
        DataError
            When the file is damaged.
        """
        path = self.path / "checkpoint.npz"
        if not path.exists():
            return None
        try:
            with np.load(path) as data:
                state = json.loads(str(data["state"]))
                return [data[f"array_{n}"] for n in range(len(data.files) - 1)], state
        except Exception as error:  # zip, JSON and NumPy each raise their own
            raise DataError(
                f"{printable(str(path))} is damaged ({error}). Train again into a new folder."
            ) from error

    def record(self, results: Sequence[Any]) -> None:
        """Write the metrics of all epochs so far, the last of them to TensorBoard as well.

        Each is an `EpochResult` or another dataclass of numbers with a field ``epoch``.
        """
        import pandas as pd

        with atomic_path(self.path / "metrics.csv") as temporary:
            frame = pd.DataFrame([asdict(result) for result in results])
            frame.to_csv(temporary, index=False, float_format="%.6g")
        self._record_event(results[-1])

    def draw_curves(self, results: list[EpochResult]) -> None:
        """Draw loss and validation mAP by epoch, where matplotlib is installed."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return
        figure = Figure(figsize=(8, 3.5), layout="constrained")
        epochs = [result.epoch for result in results]
        for axes, name, values in zip(
            figure.subplots(1, 2),
            ("training loss", "validation mAP"),
            ([r.loss for r in results], [r.validation_mAP for r in results]),
            strict=True,
        ):
            axes.plot(epochs, values)
            axes.set_xlabel("epoch")
            axes.set_title(name)
            axes.grid(alpha=0.3)
        with atomic_path(self.path / "curves.png") as temporary:
            figure.savefig(temporary, format="png", dpi=120)

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._events is not None:
            # Whatever could not be written was said when it was recorded.
            with contextlib.suppress(Exception):
                self._events.close()
            self._events = None

    def _record_event(self, result: Any) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            return
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in asdict(result).items()
            if name != "epoch" and value is not None
        ]
        event = Event(wall_time=time.time(), step=result.epoch, summary=Summary(value=values))
        try:
            if self._events is None:
                self._events = EventFileWriter(str(self.path))
            self._events.add_event(event)
            self._events.flush()
        except Exception as error:  # OSError, or TensorFlow's own where that is installed
            why = "The disk is full: " if "No space left" in str(error) else ""
            raise StorageError(
                f"{why}{self._name}: the events for TensorBoard could not be written. Free some "
                "space, or choose another folder, and run the same command again."
            ) from error


def environment(devices: str) -> dict[str, str]:
    """Return the versions and devices that a run was made with."""
    import keras

    return {
        "audiosearch": __version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "devices": devices,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def git_revision() -> str | None:
    """Return the revision of the checkout that this code runs from; None outside of one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
