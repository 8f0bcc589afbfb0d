"""What to look at next: labels that are likely wrong, and sounds that are most worth labelling.

A label is doubted where a model that never heard the sound, trained on the other folds, gives
another class a higher score: the larger the lead, the likelier the label is wrong (cross-validated
disagreement). A sound without a label is worth one where its two best scores are close (margin
sampling): the model learns most from what it hesitates about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from audiosearch.errors import InvalidArgumentError
from audiosearch.lab.devices import refuse_processes
from audiosearch.lab.feature_cache import FeatureCache
from audiosearch.lab.inspection import find_copies
from audiosearch.lab.prediction import predict
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import SoundSet
from audiosearch.lab.splits import plan_splits
from audiosearch.lab.training import clip_length
from audiosearch.lab.trials import cross_validated_scores
from audiosearch.own.features import get_feature

__all__ = ["Doubt", "Hesitation", "doubted_labels", "worth_labelling"]


@dataclass(frozen=True)
class Doubt:
    """A label that is likely wrong.

    Attributes
    ----------
    path : str
        The sound.
    label, suggestion : str
        What it is labelled, and what the model heard; with several classes a sound, a label that
        is there and should not be, or ("no" before its name) the other way round.
    lead : float
        By how much the suggestion's score is higher, 0 to 1.
    """

    path: str
    label: str
    suggestion: str
    lead: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class Hesitation:
    """A sound that a model hesitates about, its two best classes, and the margin of the scores."""

    path: str
    first: str
    second: str
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def doubted_labels(
    sounds: SoundSet,
    *,
    config: LabConfig | None = None,
    folds: int = 5,
    cache: str | os.PathLike[str] | None = None,
    on_sound: Callable[[int, int], None] | None = None,
) -> list[Doubt]:
    """Return the labels that a cross-validated model contradicts, the likeliest errors first.

    Parameters
    ----------
    sounds : SoundSet
        Labelled sounds.
    config : LabConfig, optional
        The model and its settings; its validation plays no part.
    folds : int
        As `audiosearch.lab.plan_splits` takes it.
    cache : path-like, optional
        Folder for features.
    on_sound : callable, optional
        Called with how many sounds' features are there, and how many there are.

    Raises
    ------
    DataError
        When the sounds are too few.
    InvalidArgumentError
        When there are several processes of ``torchrun``.
    MissingDependencyError
        When a package is not installed.
    """
    refuse_processes("A review")
    config = replace(config or LabConfig(), validation=0.0, patience=0)
    sounds.check_trainable()
    with FeatureCache(cache) as store:
        length = clip_length(sounds, config)
        features = store.features(
            sounds, get_feature(config.spec.feature), length, on_sound=on_sound
        )
        sounds = features.sounds
        together = [each.rows for each in find_copies(sounds)]
        plan = plan_splits(sounds, folds=folds, together=together)
        scores = cross_validated_scores(features, plan, config)
    doubts = []
    truth = sounds.targets()
    for sound, wanted, given in zip(sounds.sounds, truth, scores, strict=True):
        if sounds.multi_label:
            # Of each decision the distance beyond 0.5, on the wrong side.
            wrong = np.where(wanted, 0.5 - given, given - 0.5)
            index = int(wrong.argmax())
            label = sounds.classes[index]
            names = (label, f"no {label}") if wanted[index] else (f"no {label}", label)
            lead = 2 * float(wrong[index])
        else:
            own, best = int(wanted.argmax()), int(given.argmax())
            names = (sounds.classes[own], sounds.classes[best])
            lead = float(given[best] - given[own])
        if lead > 0:
            doubts.append(Doubt(sound.name, *names, round(lead, 6)))
    return sorted(doubts, key=lambda each: (-each.lead, each.path))


def worth_labelling(
    folder: str | os.PathLike[str], files: Iterable[str | os.PathLike[str]]
) -> tuple[list[Hesitation], list[tuple[str, str]]]:
    """Return which files a classifier hesitates about, the closest margin first.

    Parameters
    ----------
    folder : path-like
        The classifier, as `audiosearch.lab.train_lab` wrote it.
    files : iterable of path-like
        Sounds without labels.

    Returns
    -------
    hesitations : list of Hesitation
    skipped : list of (path, reason)
        What could not be read.

    Raises
    ------
    InvalidArgumentError
        When the classifier has one class only.
    ModelError
        When it cannot be loaded.
    """
    found, skipped = [], []
    for each in predict(folder, files):
        if each.reason is not None:
            skipped.append((each.path, each.reason))
            continue
        if len(each.labels) < 2:
            raise InvalidArgumentError("A classifier of one class has no margin.")
        (first, high), (second, low) = each.labels[:2]
        found.append(Hesitation(each.path, first, second, round(high - low, 6)))
    return sorted(found, key=lambda each: (each.margin, each.path)), skipped
