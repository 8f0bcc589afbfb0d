"""The user's word on what is heard in a library: the part of `Library` that takes and tells it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from audiosearch.labels import name_key
from audiosearch.library.hits import UserLabel
from audiosearch.library.labelling import LabelChange, Labelling, Target, clip_of, user_labels
from audiosearch.library.opened import OpenedLibrary

__all__ = ["LabelledLibrary"]


class LabelledLibrary(OpenedLibrary):
    """An open library that can be labelled; parameters are those of `Library`."""

    def __init__(
        self, folder: str | os.PathLike[str], *, writable: bool = False, shipped: bool = False
    ) -> None:
        super().__init__(folder, writable=writable, shipped=shipped)
        self._labelling = Labelling(self)

    def close(self) -> None:
        """Close its files."""
        self._labelling.close()
        super().close()

    def confirm(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Say that a class, or a label of your own, is heard in a clip.

        A search knows it at once: there the clip's score for it is the highest that there is. It
        is kept in the library, belongs to the sound by its content, and so to its exact copies.

        Parameters
        ----------
        clip : int, Hit, Moment or Clip
            The clip.
        label : str
            A class by name or mid, or a label of your own that was added before.
        start, end : float, optional
            A stretch of the clip's recording, in seconds as hits give them, also beyond the clip.
            Where one of both is None, the clip's own.

        Returns
        -------
        bool
            Whether that was new.

        Raises
        ------
        LibraryError
            When there is no such clip, or it is the library that comes with audiosearch.
        LibraryBusyError
            When another process keeps the library locked.
        QueryError
            When no class and no label is called so; with suggestions.
        InvalidArgumentError
            When the stretch does not lie in the recording.
        StorageError
            When the library cannot be written to.
        """
        return self._said([LabelChange(clip_of(clip), label, "confirmed", start, end)])

    def reject(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Say that a class, or a label of your own, is not heard in a clip, nor any kind of it.

        As `confirm` in everything else; the newer of both counts.
        """
        return self._said([LabelChange(clip_of(clip), label, "rejected", start, end)])

    def add_label(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Give a clip a label of your own, used before or not; a class is confirmed.

        As `confirm` in everything else.

        Raises
        ------
        InvalidArgumentError
            When a label cannot be called so.
        """
        return self._said([LabelChange(clip_of(clip), label, "confirmed", start, end, new=True)])

    def remove_label(
        self, clip: Target, label: str, *, start: float | None = None, end: float | None = None
    ) -> bool:
        """Take back what was said of a label, confirmed or rejected, in a clip or stretch.

        As `confirm` in everything else.
        """
        return self._said([LabelChange(clip_of(clip), label, None, start, end)])

    def change_labels(self, changes: Sequence[LabelChange]) -> int:
        """Make several such changes at once, all or none; return how many changed anything."""
        return self._labelling.apply(list(changes)) if changes else 0

    def labels(self, clip: Target | None = None, *, label: str | None = None) -> list[UserLabel]:
        """Return what was confirmed, rejected and added, in the order of the clips.

        Parameters
        ----------
        clip : int, Hit, Moment or Clip, optional
            Only of the recording that this clip is of.
        label : str, optional
            Only this class or label.
        """
        _, corrections = self.labelled(self.snapshot())
        found = [each for each, _, _ in user_labels(self.catalogue, corrections)]
        if clip is not None:
            part, row = self.snapshot().find(clip_of(clip))
            recording = int(part.block.recordings[row])
            found = [each for each in found if each.recording_id == recording]
        if label is not None:
            key = name_key(label)
            found = [each for each in found if key in (each.mid, name_key(each.label))]
        return found

    def _said(self, changes: Sequence[LabelChange]) -> bool:
        return self._labelling.apply(changes) > 0
