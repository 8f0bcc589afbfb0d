"""The devices of a lab training: one, several GPUs, or several processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from audiosearch.classifier.devices import Devices, open_devices
from audiosearch.classifier.processes import torchrun_launch
from audiosearch.errors import InvalidArgumentError
from audiosearch.lab.settings import LabConfig

__all__ = ["refuse_processes", "training_devices"]


@contextlib.contextmanager
def training_devices(config: LabConfig, count: int | None) -> Iterator[Devices]:
    """Take the devices that a model is trained on.

    Parameters
    ----------
    config : LabConfig
        Settings; `device` says of which kind they are.
    count : int, optional
        How many; where None, one, or under ``torchrun`` as many as it started processes.

    Raises
    ------
    InvalidArgumentError
        When there are not as many, or a model that is fitted at once should be on several.
    MissingDependencyError
        When a network is to be trained and keras is not installed.
    """
    if config.spec.kind == "network":
        with open_devices(count, batch_size=config.batch_size, kind=config.device) as used:
            yield used
        return
    refuse_processes(f"'{config.model}'")
    if count not in (None, 1):
        raise InvalidArgumentError(
            f"'{config.model}' is fitted at once, on the CPU: it cannot be divided among {count} "
            "devices. Leave --devices out."
        )
    yield Devices()


def refuse_processes(what: str) -> None:
    """Refuse to do something in several processes of ``torchrun`` that is made for one.

    Raises
    ------
    InvalidArgumentError
        When there are several.
    """
    launch = torchrun_launch()
    if launch is not None and launch.count > 1:
        raise InvalidArgumentError(
            f"{what} takes one process, and torchrun started {launch.count}. Start audiosearch "
            "without torchrun."
        )
