"""The folder of a result: made anew, gone on with, or taken back."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiosearch.classifier.run import RunFolder
from audiosearch.errors import DataError, InvalidArgumentError, StorageError, printable
from audiosearch.lab.fits import Checkpoint, LabEpoch
from audiosearch.lab.settings import LabConfig
from audiosearch.storage import read_json, storage_errors, write_json

__all__ = ["begin_run", "new_folder", "taken_back"]


@contextlib.contextmanager
def taken_back(folder: Path, *, unless: str | None = None) -> Iterator[None]:
    """Take back what a block that fails has written into a new folder.

    Parameters
    ----------
    folder : Path
        The folder; one that had something in it before stays as it is.
    unless : str, optional
        Name of the file in it with which what was done is worth keeping.
    """
    was_there = folder.is_dir()
    was_empty = not was_there or not any(folder.iterdir())
    try:
        yield
    except BaseException:
        is_kept = unless is not None and (folder / unless).exists()
        if was_empty and folder.is_dir() and not is_kept:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
                if was_there:
                    folder.mkdir()
        raise


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], *, unless: str | None = None) -> Iterator[Path]:
    """Make a folder for what a block writes, which is taken back when the block fails.

    Parameters
    ----------
    path : path-like
        The folder; it must not exist, or be empty.
    unless : str, optional
        As `taken_back` takes it.

    Raises
    ------
    StorageError
        When there is something in it, or it cannot be written.
    """
    folder = Path(path)
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(
                f"{printable(str(folder))} exists already. Name a new folder with --out."
            )
    with taken_back(folder, unless=unless):
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder


def begin_run(
    folder: RunFolder, described: dict[str, Any], config: LabConfig, *, resume: bool
) -> Checkpoint | None:
    """Make a run's folder, or take up what is in it.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    described : dict
        Data and settings.
    config : LabConfig
        The settings.
    resume : bool
        Whether to go on with what is there.

    Returns
    -------
    Checkpoint or None
        Where to go on; None at the beginning.

    Raises
    ------
    DataError, InvalidArgumentError
        When there is nothing to resume, or it had other settings.
    StorageError
        When there is something in a folder that should be new, or it cannot be written.
    """
    name = printable(str(folder.path))
    if not resume:
        folder.make()
        write_json(folder.path / "config.json", described)
        return None
    if config.spec.kind != "network":
        raise InvalidArgumentError(f"'{config.model}' is fitted at once: there is no resuming it.")
    try:
        before = read_json(folder.path / "config.json")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} holds no run that could be resumed. Leave --resume out."
        ) from error
    # On which device it goes on makes no difference.
    other = [
        key for key, value in described.items() if key != "device" and before.get(key) != value
    ]
    if other:
        raise InvalidArgumentError(
            f"{name} was started with another {', '.join(other)}. Resume with the same settings "
            "and sounds, or train into a new folder."
        )
    saved = folder.load()
    if saved is None:
        return None
    arrays, state = saved
    return Checkpoint(arrays, [LabEpoch(**each) for each in state["epochs"]])
