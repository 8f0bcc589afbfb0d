"""Labelled sounds: what the lab learns from, whatever layout they came in."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from audiosearch.errors import DataError, printable

__all__ = ["LabelledSound", "SoundSet", "class_name"]


@dataclass(frozen=True, slots=True)
class LabelledSound:
    """A sound file, or a part of one, and its classes.

    Attributes
    ----------
    path : str
        The file.
    labels : tuple of str
        Names of its classes; empty for a sound that has none of them.
    start : float
        Where the sound begins in the file, in seconds.
    end : float or None
        Where it ends, in seconds; None for the end of the file.
    fold : str or None
        The fold that the data set's makers put it in.
    group : str or None
        What it shares with other sounds that must stay on its side of a split: the speaker, the
        recording that it was cut from.
    """

    path: str
    labels: tuple[str, ...]
    start: float = 0.0
    end: float | None = None
    fold: str | None = None
    group: str | None = None

    @property
    def name(self) -> str:
        """The file, and the part of it, as messages show them."""
        part = "" if self.end is None and not self.start else f" at {self.start:g} s"
        return printable(self.path) + part


@dataclass(frozen=True)
class SoundSet:
    """Labelled sounds and their classes.

    Attributes
    ----------
    name : str
        What to call the set.
    layout : str
        How it was read: see `audiosearch.lab.reading`.
    sounds : tuple of LabelledSound
        Sorted by path and start.
    classes : tuple of str
        Names of the classes; a class's place is its index.
    multi_label : bool
        Whether a sound may have several classes, or none.
    skipped : tuple of (path, reason)
        What was left out.
    notes : tuple of str
        What a user should know of the set, each a sentence.
    """

    name: str
    layout: str
    sounds: tuple[LabelledSound, ...]
    classes: tuple[str, ...]
    multi_label: bool = False
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.sounds)

    @property
    def has_folds(self) -> bool:
        """Whether every sound has a fold, and there are at least two."""
        folds = {sound.fold for sound in self.sounds}
        return None not in folds and len(folds) > 1

    @property
    def has_groups(self) -> bool:
        """Whether sounds share groups, so that a random split would not be honest."""
        groups = [sound.group for sound in self.sounds if sound.group is not None]
        return len(set(groups)) < len(groups)

    def targets(self) -> npt.NDArray[np.bool_]:
        """Return which classes each sound has, bool (sounds, classes)."""
        places = {name: index for index, name in enumerate(self.classes)}
        wanted = np.zeros((len(self.sounds), len(self.classes)), bool)
        for row, sound in enumerate(self.sounds):
            for label in sound.labels:
                wanted[row, places[label]] = True
        return wanted

    def counts(self) -> dict[str, int]:
        """Return how many sounds each class has."""
        return dict(zip(self.classes, self.targets().sum(axis=0).tolist(), strict=True))

    def selected(self, rows: Iterable[int]) -> SoundSet:
        """Return the set with these sounds alone, and all of its classes."""
        return replace(self, sounds=tuple(self.sounds[row] for row in rows))

    def without(self, skipped: Sequence[tuple[int, str]]) -> SoundSet:
        """Return the set without sounds that turned out useless, each (row, reason)."""
        out = {row for row, _ in skipped}
        kept = self.selected(row for row in range(len(self)) if row not in out)
        reasons = tuple((self.sounds[row].name, reason) for row, reason in skipped)
        return replace(kept, skipped=self.skipped + reasons)

    def check_trainable(self) -> None:
        """Refuse a set that nothing can be learned from.

        Raises
        ------
        DataError
            When there are no sounds, or there is one class only.
        """
        name = printable(self.name)
        if not self.sounds:
            raise DataError(f"{name} holds no sound that could be used.")
        filled = [label for label, count in self.counts().items() if count]
        if len(filled) < 2 and not self.multi_label:
            raise DataError(
                f"{name} has one class only ('{printable(filled[0])}'). A classifier needs at "
                "least two: add sounds of something else, for example a class 'other'."
            )


def class_name(text: str) -> str:
    """Return the name of a class as the lab writes it.

    White space at its ends is dropped, that inside becomes single blanks, and characters that are
    written in several ways become one (NFC), so that one class has one name.
    """
    return " ".join(unicodedata.normalize("NFC", printable(text)).split())
