"""Splits of labelled sounds into what is learned from and what is tested on.

The honest way is found out: the makers' folds where a set has them; else no group (a speaker, the
recording that clips were cut from) stands on both sides. Sounds cut from one recording resemble
each other more than two recordings of one kind do, so a random split that tears groups apart
measures how well a classifier remembers, and says a network is better than it will prove to be
(UrbanSound8K: 98 % in place of 84 %). It is refused where folds or groups are known, unless asked
for, and then it is called optimistic.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.errors import (
    DataError,
    InvalidArgumentError,
    MissingDependencyError,
    printable,
)
from audiosearch.lab.sounds import SoundSet

__all__ = ["SPLITS", "Split", "SplitPlan", "hold_out", "plan_splits", "related"]

SPLITS = ("auto", "folds", "groups", "random")
# With so few groups each is left out once; with more, several form a fold.
_MOST_LEFT_OUT = 10

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One way to divide a set.

    Attributes
    ----------
    name : str
        What is tested on: a fold, a group, or a number.
    train, test : int64 (n,)
        Rows of the set, ascending.
    """

    name: str
    train: Rows
    test: Rows


@dataclass(frozen=True)
class SplitPlan:
    """The splits of a cross-validation, and how honest they are.

    Attributes
    ----------
    kind : str
        ``folds`` (the makers'), ``groups`` or ``random``.
    optimistic : bool
        Whether sounds of one group stand on both sides, so that results flatter.
    description : str
        The same as a sentence.
    splits : tuple of Split
        Every sound is tested on once.
    """

    kind: str
    optimistic: bool
    description: str
    splits: tuple[Split, ...]


def plan_splits(
    sounds: SoundSet,
    *,
    split: str = "auto",
    folds: int = 5,
    optimistic: bool = False,
    together: Sequence[Sequence[int]] = (),
    seed: int = 0,
) -> SplitPlan:
    """Divide a set for a cross-validation.

    Parameters
    ----------
    sounds : SoundSet
        The set.
    split : str
        ``auto``, ``folds``, ``groups`` or ``random``. ``auto`` takes the makers' folds, else
        groups, else random.
    folds : int
        How many folds groups and random splits have. Up to ten groups are left out one by one.
    optimistic : bool
        Allow a random split although folds or groups are known.
    together : sequence of sequence of int
        Rows that are copies of one sound: they are kept on one side as well, but for official
        folds, which stay as they are.
    seed : int
        Seed of what is random.

    Raises
    ------
    DataError
        When the set has not what is asked for, is too small, or what a split learns from is of one
        class only.
    InvalidArgumentError
        When a random split would not be honest, or an argument is none.
    MissingDependencyError
        When scikit-learn is needed and not installed.
    """
    if split not in SPLITS:
        raise InvalidArgumentError(f"split must be one of {', '.join(SPLITS)}, not '{split}'.")
    if folds < 2:
        raise InvalidArgumentError(f"folds must be at least 2, not {folds}.")
    name = printable(sounds.name)
    known = "folds" if sounds.has_folds else "groups" if sounds.has_groups else None
    kind = (known or "random") if split == "auto" else split
    if kind == "folds":
        if not sounds.has_folds:
            raise DataError(f"{name} does not say for every sound in which fold it is.")
        return _learnable(sounds, _official(sounds))
    if kind == "groups" and not sounds.has_groups:
        raise DataError(f"{name} knows no groups. Name them, for example in a column 'group'.")
    torn = kind == "random" and known is not None
    if torn and not optimistic:
        raise InvalidArgumentError(
            f"{name} has {known}: a random split would put sounds that belong together on both "
            "sides, and measure too well. Leave --split out, or ask for it with --optimistic."
        )
    groups = related(sounds, together, torn=torn)
    if kind == "groups" and len(set(groups.tolist())) <= _MOST_LEFT_OUT:
        return _learnable(sounds, _one_by_one(sounds, groups))
    return _learnable(sounds, _folded(sounds, groups, kind, folds, torn, seed))


def _learnable(sounds: SoundSet, plan: SplitPlan) -> SplitPlan:
    """Refuse a plan of which a split has fewer than two classes to learn from."""
    wanted = sounds.targets()
    for split in plan.splits:
        if not sounds.multi_label and wanted[split.train].any(axis=0).sum() < 2:
            raise DataError(
                f"{printable(sounds.name)}: without '{printable(split.name)}', which would be "
                "tested on, fewer than two classes are left to learn from. Add sounds of each "
                "class that were recorded apart from those that are there."
            )
    return plan


def _official(sounds: SoundSet) -> SplitPlan:
    owners = np.array([sound.fold for sound in sounds.sounds])
    names = sorted(set(owners.tolist()), key=lambda fold: (len(fold), fold))
    splits = tuple(
        Split(f"fold {fold}", np.flatnonzero(owners != fold), np.flatnonzero(owners == fold))
        for fold in names
    )
    torn = [group for group, folds in _folds_of_groups(sounds).items() if len(folds) > 1]
    text = f"{len(names)} folds of the data set's makers"
    if torn:
        text += f", of which {len(torn)} groups stand in several"
    return SplitPlan("folds", bool(torn), text + ".", splits)


def _folds_of_groups(sounds: SoundSet) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for sound in sounds.sounds:
        if sound.group is not None:
            found.setdefault(sound.group, set()).add(sound.fold)
    return found


def related(
    sounds: SoundSet, together: Sequence[Sequence[int]] = (), *, torn: bool = False
) -> Rows:
    """Return a number for each sound, int64 (n,): what hangs together has the same.

    Parameters
    ----------
    sounds : SoundSet
        The set.
    together : sequence of sequence of int
        Rows that are copies of one sound.
    torn : bool
        Whether the set's groups play no part.
    """
    parents = list(range(len(sounds)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    first: dict[str, int] = {}
    if not torn:
        for row, sound in enumerate(sounds.sounds):
            if sound.group is not None:
                parents[root(row)] = root(first.setdefault(sound.group, row))
    for rows in together:
        for row in rows[1:]:
            parents[root(row)] = root(rows[0])
    return np.array([root(row) for row in range(len(sounds))], np.int64)


def _one_by_one(sounds: SoundSet, groups: Rows) -> SplitPlan:
    splits = []
    for number in dict.fromkeys(groups.tolist()):
        test = np.flatnonzero(groups == number)
        names = sorted({sounds.sounds[row].group or "" for row in test.tolist()})
        splits.append(Split(" + ".join(names), np.flatnonzero(groups != number), test))
    if len(splits) < 2:
        raise DataError(f"{printable(sounds.name)} is one group: there is nothing to test on.")
    splits.sort(key=lambda each: each.name)
    text = f"{len(splits)} groups, each left out once."
    return SplitPlan("groups", False, text, tuple(splits))


def _folded(
    sounds: SoundSet, groups: Rows, kind: str, folds: int, torn: bool, seed: int
) -> SplitPlan:
    count = len(set(groups.tolist()))
    if count < folds:
        raise DataError(
            f"{printable(sounds.name)} has {count} sounds or groups that can be told apart, too "
            f"few for {folds} folds. Lower --folds."
        )
    strata = _strata(sounds)
    if np.bincount(strata).max() < folds:
        raise DataError(
            f"{printable(sounds.name)}: every class has fewer than {folds} sounds, too few for "
            f"{folds} folds. Lower --folds."
        )
    tests = _stratified(strata, groups, folds, seed)
    everything = np.arange(len(sounds))
    splits = tuple(
        Split(f"part {number}", np.setdiff1d(everything, test), test)
        for number, test in enumerate(tests, start=1)
    )
    if kind == "groups":
        text = f"{folds} parts that no group is shared between."
    elif torn:
        text = f"{folds} random parts. OPTIMISTIC: sounds that belong together stand on both sides."
    else:
        text = (
            f"{folds} random parts: nothing is known of which sounds belong together. If several "
            "were cut from one recording, results are too good."
        )
    return SplitPlan(kind, torn, text, splits)


def hold_out(
    sounds: SoundSet, rows: Rows, share: float, *, together: Sequence[Sequence[int]] = (), seed: int
) -> tuple[Rows, Rows]:
    """Divide rows into what is trained on and what the best epoch is chosen on.

    No group, and where there are more than two of them no fold, stands on both sides.

    Parameters
    ----------
    sounds : SoundSet
        The set.
    rows : int64 (n,)
        Rows that may be used.
    share : float
        Which part of them to hold out, about, more than 0 and less than 1.
    together : sequence of sequence of int
        Rows of the set that are copies of one sound.
    seed : int
        Seed of what is random.

    Returns
    -------
    train, validation : int64 (n,)

    Raises
    ------
    DataError
        When the rows cannot be divided.
    """
    if not 0 < share < 1:
        raise InvalidArgumentError(f"The share held out must be from 0 to 1, not {share}.")
    groups = related(sounds, together)[rows]
    strata = _strata(sounds)[rows]
    most = int(np.bincount(strata).max())
    parts = min(max(2, round(1 / share)), len(set(groups.tolist())), most)
    if parts < 2:
        raise DataError(
            f"{len(rows)} sounds that belong together cannot be divided for validation. Train "
            "without it: --validation 0."
        )
    # Of all the parts, that with the most classes in it.
    tests = _stratified(strata, groups, parts, seed)
    held_out = max(tests, key=lambda part: len(set(strata[part].tolist())))
    return np.delete(rows, held_out), rows[held_out]


def _strata(sounds: SoundSet) -> Rows:
    """Return the class of each sound; of several the rarest; the count of classes for none."""
    wanted = sounds.targets()
    counts = np.where(wanted, wanted.sum(axis=0), len(sounds) + 1)
    rarest: Rows = counts.argmin(axis=1).astype(np.int64)
    rarest[~wanted.any(axis=1)] = len(sounds.classes)
    return rarest


def _stratified(strata: Rows, groups: Rows, folds: int, seed: int) -> list[Rows]:
    """Return the rows of each part, with about the same share of each class in all."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise MissingDependencyError(
            "scikit-learn", extra="lab", purpose="Splitting sounds"
        ) from error
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer sounds than folds is in fewer of them; the inspection says so.
        warnings.simplefilter("ignore", UserWarning)
        return [np.sort(test) for _, test in splitter.split(strata, strata, groups)]
