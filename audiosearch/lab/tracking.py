"""Tracking of trainings by tools beside the run folder, which is always written.

``wandb``        Weights & Biases; with ``WANDB_MODE=offline`` or ``AUDIOSEARCH_OFFLINE=1`` nothing
                 leaves the machine: the run lies in ``wandb/`` of the run's folder
``mlflow``       MLflow, at ``MLFLOW_TRACKING_URI``; else in ``mlruns/`` of the run's folder
``tensorboard``  event files in the run's folder
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from audiosearch.errors import InvalidArgumentError, MissingDependencyError, StorageError, printable
from audiosearch.model_cache import is_offline

__all__ = ["TRACKERS", "Tracked", "check_trackers", "tracked"]

TRACKERS = ("wandb", "mlflow", "tensorboard")

_PROJECT = "audiosearch"


class _Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take what a step gave."""

    def end(self, values: Mapping[str, float]) -> None:
        """Take what it all came to, and close the run."""


class Tracked:
    """One run in several tools.

    Parameters
    ----------
    trackers : sequence
        One of each tool.
    """

    def __init__(self, trackers: Sequence[_Tracker] = ()) -> None:
        self._trackers = trackers
        self._summary: dict[str, float] = {}

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Log values of a step, those that are None left out."""
        known = {name: float(value) for name, value in values.items() if value is not None}
        for each in self._trackers:
            with _as_storage_errors(each):
                each.log(step, known)

    def summarise(self, values: Mapping[str, float]) -> None:
        """Say what the run came to."""
        self._summary |= {name: float(value) for name, value in values.items()}

    def close(self) -> None:
        """End the run in every tool."""
        for each in self._trackers:
            with _as_storage_errors(each):
                each.end(self._summary)


@contextlib.contextmanager
def _as_storage_errors(tracker: _Tracker) -> Iterator[None]:
    """Say in one sentence that a tool cannot go on; each raises classes of its own."""
    try:
        yield
    except Exception as error:
        name = type(tracker).__name__.strip("_").lower()
        raise StorageError(f"{name} cannot go on tracking this run: {error}") from error


def check_trackers(names: Sequence[str]) -> None:
    """Make sure that all tools are known and installed, before anything is trained.

    Raises
    ------
    InvalidArgumentError
        When one is not known.
    MissingDependencyError
        When one is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InvalidArgumentError(
                f"track must be of {', '.join(TRACKERS)}, not '{printable(name)}'."
            )
        _package(name)


@contextlib.contextmanager
def tracked(
    names: Sequence[str], folder: Path, run: str, settings: Mapping[str, Any]
) -> Iterator[Tracked]:
    """Track a run while the block runs.

    Parameters
    ----------
    names : sequence of str
        Of `TRACKERS`.
    folder : Path
        The run's folder.
    run : str
        What the run is called.
    settings : mapping
        Its settings; what is no number, text or truth value is kept as text.

    Raises
    ------
    InvalidArgumentError, MissingDependencyError
        As `check_trackers`.
    StorageError
        When a tool cannot begin the run, or go on with it.
    """
    check_trackers(names)
    plain = {
        key: value if isinstance(value, int | float | str | None) else str(value)
        for key, value in settings.items()
    }
    trackers = []
    for name in dict.fromkeys(names):
        try:
            trackers.append(_MAKERS[name](_package(name), folder, run, plain))
        except Exception as error:  # the tools raise classes of their own
            raise StorageError(
                f"{name} cannot track this run in {printable(str(folder))}: {error}"
            ) from error
    found = Tracked(trackers)
    try:
        yield found
    finally:
        found.close()


def _package(name: str) -> Any:
    try:
        if name == "wandb":
            import wandb

            return wandb
        if name == "mlflow":
            import mlflow

            return mlflow
        from tensorboard.summary import writer

        return writer
    except ImportError as error:
        raise MissingDependencyError(
            name,
            extra="tensorflow" if name == "tensorboard" else "track",
            purpose="Tracking a training",
        ) from error


class _Wandb:
    def __init__(self, wandb: Any, folder: Path, run: str, settings: dict[str, Any]) -> None:
        mode = "offline" if is_offline() else os.environ.get("WANDB_MODE")
        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        options = {"dir": str(folder), "config": settings, "reinit": "finish_previous"}
        self._run = wandb.init(project=project, name=run, mode=mode, **options)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def end(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))
        self._run.finish()


class _Mlflow:
    def __init__(self, mlflow: Any, folder: Path, run: str, settings: dict[str, Any]) -> None:
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            # Plain files: a database would need more packages than a few figures are worth.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((folder.absolute() / "mlruns").as_uri())
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
        self._mlflow = mlflow
        mlflow.start_run(run_name=run)
        mlflow.log_params(settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def end(self, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values))
        self._mlflow.end_run()


class _Tensorboard:
    def __init__(self, writer: Any, folder: Path, run: str, settings: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder / "tensorboard" / run))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        found = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.add_event(self._event(step=step, summary=self._summary(value=found)))

    def end(self, values: Mapping[str, float]) -> None:
        self.log(0, values)
        self._writer.close()


_MAKERS: dict[str, Any] = {"wandb": _Wandb, "mlflow": _Mlflow, "tensorboard": _Tensorboard}
