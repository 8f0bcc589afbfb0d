"""A look at labelled sounds before anything is learned from them.

Every file is read once, completely: what cannot be read, how long the sounds are, which are copies
of each other, and whether copies or groups stand on both sides of the split that would be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from audiosearch import audio
from audiosearch.errors import AudioError, DataError, printable
from audiosearch.lab.sounds import LabelledSound, SoundSet
from audiosearch.lab.splits import SplitPlan, plan_splits
from audiosearch.storage import sha256_file

__all__ = ["Copies", "Inspection", "find_copies", "inspect_sounds"]


@dataclass(frozen=True)
class Copies:
    """Sounds whose files are the same to the byte.

    Attributes
    ----------
    rows : tuple of int
        Rows of the set.
    names : tuple of str
        The same as files.
    crosses : bool
        Whether they stand in several folds, or in several groups: leakage.
    contradicts : bool
        Whether they have different labels.
    """

    rows: tuple[int, ...]
    names: tuple[str, ...]
    crosses: bool
    contradicts: bool


@dataclass(frozen=True)
class Inspection:
    """What `inspect_sounds` found.

    Attributes
    ----------
    sounds : SoundSet
        The set, without what could not be read.
    classes : dict of str to int
        Sounds of each class.
    seconds : tuple of float
        Length of the shortest, the median and the longest sound.
    copies : tuple of Copies
        Sounds that are there several times.
    torn_groups : tuple of str
        Groups that stand in several of the makers' folds.
    plan : SplitPlan or None
        The split that would be made; None where none can.
    problems : tuple of str
        What a user should look at, each a sentence.
    """

    sounds: SoundSet
    classes: dict[str, int]
    seconds: tuple[float, float, float]
    copies: tuple[Copies, ...]
    torn_groups: tuple[str, ...]
    plan: SplitPlan | None
    problems: tuple[str, ...]

    @property
    def leaks(self) -> bool:
        """Whether something stands on both sides of the makers' folds."""
        return bool(self.torn_groups) or any(each.crosses for each in self.copies)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        plan = self.plan
        return {
            "name": self.sounds.name,
            "layout": self.sounds.layout,
            "sounds": len(self.sounds),
            "multi_label": self.sounds.multi_label,
            "classes": self.classes,
            "seconds": dict(zip(("shortest", "median", "longest"), self.seconds, strict=True)),
            "copies": [asdict(each) for each in self.copies],
            "torn_groups": list(self.torn_groups),
            "leaks": self.leaks,
            "split": plan
            and {
                "kind": plan.kind,
                "optimistic": plan.optimistic,
                "description": plan.description,
                "splits": [
                    {"name": s.name, "train": len(s.train), "test": len(s.test)}
                    for s in plan.splits
                ],
            },
            "problems": list(self.problems),
            "skipped": [{"path": path, "reason": reason} for path, reason in self.sounds.skipped],
        }


def inspect_sounds(
    sounds: SoundSet, *, on_sound: Callable[[int, int], None] | None = None
) -> Inspection:
    """Read every sound once and report what a training should know.

    Parameters
    ----------
    sounds : SoundSet
        The set.
    on_sound : callable, optional
        Called with how many sounds are done, and how many there are.

    Raises
    ------
    DataError
        When no sound can be read.
    MissingDependencyError
        When scikit-learn is needed for the split and not installed.
    """
    lengths, unreadable = [], []
    for row, sound in enumerate(sounds.sounds):
        try:
            lengths.append(_seconds(sound))
        except AudioError as error:
            unreadable.append((row, error.reason))
        if on_sound:
            on_sound(row + 1, len(sounds))
    sounds = sounds.without(unreadable)
    if not len(sounds):
        raise DataError(f"{printable(sounds.name)}: none of its sounds can be read.")
    copies = find_copies(sounds)
    folds: dict[str, set[str | None]] = {}
    for sound in sounds.sounds:
        if sound.group is not None:
            folds.setdefault(sound.group, set()).add(sound.fold)
    torn = tuple(sorted(group for group, found in folds.items() if len(found) > 1))
    problems = _problems(sounds, copies, torn)
    plan = None
    try:
        plan = plan_splits(sounds, together=[each.rows for each in copies])
    except DataError as error:
        problems.append(str(error))
    shortest, median, longest = np.percentile(lengths, [0, 50, 100]).tolist()
    return Inspection(
        sounds,
        sounds.counts(),
        (shortest, median, longest),
        tuple(copies),
        torn,
        plan,
        tuple(problems),
    )


def find_copies(sounds: SoundSet) -> list[Copies]:
    """Find sounds whose files are the same to the byte; files that cannot be read are left out."""
    hashes: dict[str, str] = {}
    found: dict[tuple[str, float, float | None], list[int]] = {}
    for row, sound in enumerate(sounds.sounds):
        if sound.path not in hashes:
            try:
                hashes[sound.path] = sha256_file(sound.path)
            except OSError:
                hashes[sound.path] = sound.path
        found.setdefault((hashes[sound.path], sound.start, sound.end), []).append(row)
    return [_copies(sounds, rows) for rows in found.values() if len(rows) > 1]


def _copies(sounds: SoundSet, rows: list[int]) -> Copies:
    same = [sounds.sounds[row] for row in rows]
    # With the makers' folds, groups play no part in the split.
    sides = {sound.fold if sounds.has_folds else sound.group for sound in same}
    return Copies(
        tuple(rows),
        tuple(sound.name for sound in same),
        crosses=len(sides) > 1,
        contradicts=len({frozenset(sound.labels) for sound in same}) > 1,
    )


def _problems(sounds: SoundSet, copies: Sequence[Copies], torn: Sequence[str]) -> list[str]:
    problems = []
    counts = sounds.counts()
    for label, count in counts.items():
        if not count:
            problems.append(f"The class '{label}' has no sound that can be read.")
        elif count == 1:
            problems.append(
                f"The class '{label}' has one sound: it can be learned or tested, not both."
            )
    filled = [count for count in counts.values() if count]
    if len(filled) == 1 and not sounds.multi_label:
        problems.append("There is one class only; a classifier needs at least two.")
    if filled and max(filled) >= 10 * min(filled):
        problems.append(
            f"The largest class has {max(filled):,} sounds, the smallest {min(filled):,}: rare "
            "classes weigh more in training, unless --balance none is said."
        )
    crossing = [each for each in copies if each.crosses]
    if crossing:
        kind = "folds" if sounds.has_folds else "groups"
        problems.append(
            f"Leakage: {len(crossing)} sounds are there several times, in different {kind}: "
            f"{_some([each.names[0] for each in crossing])}."
        )
    contradicting = [each for each in copies if each.contradicts]
    if contradicting:
        problems.append(
            f"{len(contradicting)} sounds are there several times with different labels: "
            f"{_some([each.names[0] for each in contradicting])}."
        )
    if torn:
        problems.append(f"Leakage: {len(torn)} groups stand in several folds: {_some(list(torn))}.")
    return problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _seconds(sound: LabelledSound) -> float:
    """Return the length of a sound; reads all of it."""
    blocks = audio.stream(sound.path, start=sound.start, end=sound.end)
    return sum(len(block) for block in blocks) / audio.SAMPLE_RATE
