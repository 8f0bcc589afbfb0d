"""The lab: train, compare and use classifiers of the user's own classes.

Names are imported when they are first used; none of them needs Keras or scikit-learn to be there
before it trains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiosearch.lab.inspection import Inspection, inspect_sounds
    from audiosearch.lab.reading import read_sounds
    from audiosearch.lab.sounds import LabelledSound, SoundSet
    from audiosearch.lab.splits import Split, SplitPlan, plan_splits

_HOMES = {
    "Inspection": "inspection",
    "LabelledSound": "sounds",
    "SoundSet": "sounds",
    "Split": "splits",
    "SplitPlan": "splits",
    "inspect_sounds": "inspection",
    "plan_splits": "splits",
    "read_sounds": "reading",
}

__all__ = [
    "Inspection",
    "LabelledSound",
    "SoundSet",
    "Split",
    "SplitPlan",
    "inspect_sounds",
    "plan_splits",
    "read_sounds",
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
