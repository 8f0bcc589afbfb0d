"""The lab: train, compare and use classifiers of the user's own classes.

Names are imported when they are first used; none of them needs Keras or scikit-learn to be there
before it trains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiosearch.lab.comparison import Comparison, compare
    from audiosearch.lab.fits import LabEpoch
    from audiosearch.lab.inspection import Inspection, inspect_sounds
    from audiosearch.lab.measures import Measures
    from audiosearch.lab.models import MODELS
    from audiosearch.lab.official import OFFICIAL_SETS, read_official
    from audiosearch.lab.prediction import LabClassifier, Prediction, predict
    from audiosearch.lab.previewing import preview
    from audiosearch.lab.reading import read_sounds
    from audiosearch.lab.review import Doubt, Hesitation, doubted_labels, worth_labelling
    from audiosearch.lab.settings import LabConfig
    from audiosearch.lab.sounds import LabelledSound, SoundSet
    from audiosearch.lab.splits import Split, SplitPlan, plan_splits
    from audiosearch.lab.training import LabRun, train_lab

_HOMES = {
    "MODELS": "models",
    "OFFICIAL_SETS": "official",
    "Comparison": "comparison",
    "Doubt": "review",
    "Hesitation": "review",
    "Inspection": "inspection",
    "LabClassifier": "prediction",
    "LabConfig": "settings",
    "LabEpoch": "fits",
    "LabRun": "training",
    "LabelledSound": "sounds",
    "Measures": "measures",
    "ModelResult": "results",
    "Prediction": "prediction",
    "SoundSet": "sounds",
    "Split": "splits",
    "SplitPlan": "splits",
    "compare": "comparison",
    "doubted_labels": "review",
    "inspect_sounds": "inspection",
    "plan_splits": "splits",
    "predict": "prediction",
    "preview": "previewing",
    "read_official": "official",
    "read_sounds": "reading",
    "train_lab": "training",
    "worth_labelling": "review",
}

__all__ = [
    "MODELS",
    "OFFICIAL_SETS",
    "Comparison",
    "Doubt",
    "Hesitation",
    "Inspection",
    "LabClassifier",
    "LabConfig",
    "LabEpoch",
    "LabRun",
    "LabelledSound",
    "Measures",
    "ModelResult",
    "Prediction",
    "SoundSet",
    "Split",
    "SplitPlan",
    "compare",
    "doubted_labels",
    "inspect_sounds",
    "plan_splits",
    "predict",
    "preview",
    "read_official",
    "read_sounds",
    "train_lab",
    "worth_labelling",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'audiosearch.lab' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"audiosearch.lab.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
