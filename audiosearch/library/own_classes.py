"""Classes of the user's own in an open library, beside AudioSet's.

The library's manifest lists its classifiers with name, hash and classes, under ``own_classifiers``.
Their classes are numbered behind AudioSet's in that order, and searches see them as more columns of
every block. `audiosearch.library.own_scores` says where their scores are, and
`audiosearch.library.own_keeping` which classifiers a library keeps.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch.labels import name_key
from audiosearch.library.blocks import Block
from audiosearch.library.own_block import OwnBlock
from audiosearch.library.own_scores import (
    Codes,
    OwnClassifier,
    OwnCodes,
    OwnMaker,
    own_folder,
    unheard_codes,
)

if TYPE_CHECKING:
    from audiosearch.library.corrections import Corrections
    from audiosearch.library.snapshot import Snapshot

__all__ = ["OwnClasses"]


class OwnClasses:
    """The user's own classes in an open library.

    Parameters
    ----------
    folder : Path
        The library's folder.
    manifest : dict
        Its manifest.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.classifiers = tuple(
            OwnClassifier(
                folder / own_folder(str(entry["sha256"])),
                str(entry["name"]),
                str(entry["sha256"]),
                tuple(map(str, entry["classes"])),
                int(entry["since"]),
                bool(entry.get("scores_only")),
            )
            for entry in manifest.get("own_classifiers", [])
        )
        self.names = tuple(name for each in self.classifiers for name in each.classes)
        self._by_key = {name_key(name): name for name in self.names}
        self._unheard: tuple[int, int] | None = None
        self._kept: tuple[int, dict[int, tuple[Block, Block, OwnBlock]]] = (0, {})

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the classifiers are, as `audiosearch.jobs.AnalyzerSettings` takes them."""
        return tuple(str(each.folder) for each in self.classifiers if not each.scores_only)

    @property
    def makers(self) -> tuple[OwnMaker, ...]:
        """The classifiers as scores that travel name them."""
        return tuple(each.maker for each in self.classifiers)

    def heard(self, clips: npt.NDArray[np.int64], stop: int) -> npt.NDArray[np.bool_]:
        """Return which classifier has heard which clips below number `stop`, bool (m, n).

        What was there before a classifier, or came from another library, was not heard.
        """
        found = [each.heard(clips, stop) for each in self.classifiers]
        return np.array(found, np.bool_).reshape(len(found), len(clips))

    def unheard(self, now: Snapshot) -> int:
        """Return how many clips of a snapshot not all of the classifiers have heard."""
        if not self.classifiers:
            return 0
        if self._unheard is None or self._unheard[0] != now.changes:
            count = 0
            for part in now.parts:
                rows = np.arange(part.block.rows)
                if part.removed is not None:
                    rows = rows[part.removed.live]
                heard = self.heard(part.block.clip_ids(rows), now.lengths["clips"])
                count += len(rows) - int(heard.all(axis=0).sum())
            self._unheard = now.changes, count
        return self._unheard[1]

    def name_of(self, name: str) -> str | None:
        """Return an own class as it was called in training; None where there is none."""
        return self._by_key.get(name_key(name))

    def classifier_of(self, name: str) -> str:
        """Return the name of the classifier that an own class is of."""
        return next(each.name for each in self.classifiers if name in each.classes)

    def write(self, first: int, heard: OwnCodes | None, count: int) -> None:
        """Write what all classifiers say of `count` new clips; None for nothing."""
        start = 0
        for each in self.classifiers:
            stop = start + len(each.classes)
            codes = unheard_codes(count, len(each.classes))
            if heard is not None:
                codes = OwnCodes(heard.clips[:, start:stop], heard.frames[:, :, start:stop])
            each.write(first, codes)
            start = stop

    def read(self, clips: npt.NDArray[np.int64], stop: int) -> OwnCodes:
        """Return what all classifiers say of clips below number `stop`."""
        none = unheard_codes(len(clips), 0)
        parts = [
            (each.read(clips, stop).T, each.read_frames(clips, stop)) for each in self.classifiers
        ]
        return OwnCodes(
            np.concatenate([none.clips, *(codes for codes, _ in parts)], axis=1),
            np.concatenate([none.frames, *(codes for _, codes in parts)], axis=2),
        )

    def applied(self, stored: Snapshot, now: Snapshot, corrections: Corrections) -> Snapshot:
        """Return a snapshot in which the own classes are columns too.

        Parameters
        ----------
        stored : Snapshot
            As the library is stored.
        now : Snapshot
            The same with the user's labels in its scores.
        corrections : Corrections
            These labels.
        """
        if not self.classifiers:
            return now
        said = corrections.own_codes(self.names)
        known = self._kept[1] if self._kept[0] == corrections.version else {}
        parts, kept = [], {}
        for before, part in zip(stored.parts, now.parts, strict=True):
            found = known.get(id(before.block))
            if found is None or found[1] is not part.block:
                made = OwnBlock(part.block, self.names, self._reader(now.lengths["clips"]), said)
                # Both are kept with it, so that no other block gets their ids.
                found = before.block, part.block, made
            kept[id(before.block)] = found
            parts.append(dataclasses.replace(part, block=found[2]))
        self._kept = corrections.version, kept
        return dataclasses.replace(now, parts=tuple(parts), own=self.names)

    def _reader(self, stop: int) -> Any:
        def read(clips: npt.NDArray[np.int64]) -> Codes:
            return np.concatenate([each.read(clips, stop) for each in self.classifiers])

        return read
