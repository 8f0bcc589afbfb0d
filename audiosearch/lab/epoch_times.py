"""How long an epoch takes on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.devices import has_gpu
from audiosearch.errors import InvalidArgumentError, printable
from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.fits import Checkpoint, LabEpoch
from audiosearch.lab.fitting import fit_model
from audiosearch.lab.settings import LabConfig

__all__ = ["EpochTimes", "check_device_names", "seconds_per_epoch", "usable_devices"]

_KINDS = ("cpu", "gpu")
_EPOCHS = 4


@dataclass(frozen=True)
class EpochTimes:
    """Seconds that an epoch of each network takes, on each device.

    Attributes
    ----------
    asked : tuple of str
        The devices that were asked for, of ``cpu`` and ``gpu``.
    devices : tuple of str
        Those of them that are there.
    seconds : dict of str to dict of str to float
        By model, then by device; models that are fitted at once are not in it.
    """

    asked: tuple[str, ...]
    devices: tuple[str, ...]
    seconds: dict[str, dict[str, float]]

    def ratio(self, model: str) -> float | None:
        """Return how many times as long an epoch takes on the CPU; None without both devices."""
        found = self.seconds[model]
        return found["cpu"] / found["gpu"] if set(_KINDS) <= set(found) else None

    @property
    def note(self) -> str:
        """What is to be said of the devices, in a sentence or two; empty where there are both."""
        if not self.seconds:
            return "No model here is trained in epochs, so that there is no time per epoch."
        if "gpu" in self.asked and "gpu" not in self.devices:
            return (
                "There is one device only: Keras can use no GPU on this machine. "
                + ("The times are those of the CPU, and " if self.devices else "So ")
                + "there is no ratio of two."
            )
        if len(self.devices) == 1:
            return f"One device only was asked for, the {self.devices[0].upper()}: no ratio."
        return ""

    def lines(self) -> list[str]:
        """Return it as text, a line for each model and the note."""
        width = max(map(len, self.seconds), default=0)
        lines = []
        for model, found in self.seconds.items() if self.devices else ():
            parts = [f"{device} {seconds:.3g} s" for device, seconds in found.items()]
            ratio = self.ratio(model)
            if ratio is not None:
                parts.append(f"cpu / gpu {ratio:.2f}")
            lines.append(f"{model:<{width}}  time per epoch: {', '.join(parts)}")
        return [*lines, *filter(None, [self.note])]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "asked": list(self.asked),
            "devices": list(self.devices),
            "seconds": {
                model: {device: round(seconds, 6) for device, seconds in found.items()}
                for model, found in self.seconds.items()
            },
            "cpu_to_gpu": {model: self.ratio(model) for model in self.seconds},
            "note": self.note,
        }


def check_device_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of devices, each once.

    Raises
    ------
    InvalidArgumentError
        When one is neither ``cpu`` nor ``gpu``.
    """
    for name in names:
        if name not in _KINDS:
            raise InvalidArgumentError(f"devices must be of cpu, gpu, not '{printable(name)}'.")
    return tuple(dict.fromkeys(names))


def usable_devices(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of some devices that Keras can use on this machine.

    Raises
    ------
    MissingDependencyError
        When keras is not installed.
    """
    gpu = has_gpu()
    return tuple(name for name in names if name == "cpu" or gpu)


def seconds_per_epoch(
    features: FeatureSet, rows: npt.NDArray[np.int64], config: LabConfig, devices: Sequence[str]
) -> dict[str, float]:
    """Return the seconds that an epoch of a network takes on each device.

    That is the median of three epochs of training alone, after one that does not count, in which a
    network is compiled.

    Parameters
    ----------
    features : FeatureSet
        The features and their labels.
    rows : int64 (n,)
        Rows to learn from.
    config : LabConfig
        The network and its settings.
    devices : sequence of str
        Of ``cpu`` and ``gpu``.

    Raises
    ------
    DataError
        When training diverges.
    InvalidArgumentError
        When a device is not there.
    """
    found = {}
    for device in devices:
        seconds: list[float] = []

        def take(epoch: LabEpoch, _: Checkpoint, seconds: list[float] = seconds) -> None:
            seconds.append(epoch.seconds)

        own = replace(config, device=device, epochs=_EPOCHS, validation=0.0, patience=0)
        fit_model(features, rows, rows[:0], own, on_epoch=take)
        found[device] = float(np.median(seconds[1:]))
    return found
