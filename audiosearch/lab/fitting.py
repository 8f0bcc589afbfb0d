"""Fitting of a model to features: at once (linear, prototypes), or a network in epochs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.devices import Devices
from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.fits import Checkpoint, Fit, LabEpoch
from audiosearch.lab.linear import fit_at_once
from audiosearch.lab.network_fitting import NetworkFitting
from audiosearch.lab.settings import LabConfig

__all__ = ["fit_model"]

Rows = npt.NDArray[np.int64]


def fit_model(
    features: FeatureSet,
    train: Rows,
    validation: Rows,
    config: LabConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[LabEpoch, Checkpoint], None] | None = None,
    devices: Devices | None = None,
) -> Fit:
    """Fit a model to rows of a set of features.

    Parameters
    ----------
    features : FeatureSet
        The features and their labels.
    train : int64 (n,)
        Rows to learn from.
    validation : int64 (n,)
        Rows that each epoch is judged on. Where ``config.validation`` is not 0, the epoch with the
        lowest loss on them is kept, else the last.
    config : LabConfig
        Settings.
    checkpoint : Checkpoint, optional
        Of a network: go on from here.
    on_epoch : callable, optional
        Called after each epoch with what it gave, and a `Checkpoint` from which to go on; of
        several processes in the first.
    devices : Devices, optional
        Of a network: train on these; where None, on one of the kind that the settings ask for.

    Raises
    ------
    DataError
        When training diverges.
    InvalidArgumentError
        When the device is not there.
    MissingDependencyError
        When keras, scikit-learn or onnx is not installed.
    """
    if config.spec.kind == "network":
        return NetworkFitting(features, train, validation, config).run(
            checkpoint, on_epoch, devices
        )
    return fit_at_once(features, train, config)
