"""What a library knows of one clip and of its recording: the part of `Library` that tells it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import InvalidArgumentError, LibraryError
from audiosearch.library.answers import clip_span, label_names
from audiosearch.library.examples import StoredFrames, packed_files_there
from audiosearch.library.hits import Clip
from audiosearch.library.opened import OpenedLibrary
from audiosearch.library.snapshot import Snapshot, tags_of
from audiosearch.library.tail import TailBlock, tail_columns
from audiosearch.library.timeline import Timeline, frame_timeline, outline

__all__ = ["ClipDetails"]


class ClipDetails(OpenedLibrary):
    """An open library of which single clips can be read; parameters are those of `Library`."""

    def clip(self, clip_id: int, *, top: int = 5) -> Clip:
        """Return one clip with its `top` best classes.

        Raises
        ------
        LibraryError
            When there is no such clip.
        """
        if top < 1:
            raise InvalidArgumentError(f"top must be at least 1, not {top}.")
        now, corrections = self.labelled(self.snapshot())
        part, row = now.find(clip_id)
        number = int(part.block.recordings[row])
        recording = self.catalogue.recordings([number]).get(number)
        if recording is None:
            raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
        start, end = clip_span(recording, clip_id)
        return Clip(
            recording=recording.name,
            source=recording.source,
            recording_id=recording.id,
            clip=int(clip_id),
            start=start,
            end=end,
            duration=recording.duration if recording.source == "file" else None,
            tags=tags_of(part.block, np.array([row]), top)[0],
            labels=label_names(recording),
            corrections=corrections.of_clip(recording.id, recording.start, clip_id),
        )

    def random_clips(self, count: int, *, seed: int) -> list[Clip]:
        """Return different clips that are drawn by chance from all.

        Parameters
        ----------
        count : int
            How many; fewer where the library has fewer.
        seed : int
            The same draws the same, as long as the library does not change; 0 or more.

        Raises
        ------
        InvalidArgumentError
            When `count` or `seed` is negative.
        """
        if count < 0 or seed < 0:
            raise InvalidArgumentError(f"count and seed must not be negative: {count} and {seed}.")
        now = self.snapshot()
        live = [
            part.block.rows if part.removed is None else int(part.removed.live.sum())
            for part in now.parts
        ]
        drawn = np.random.default_rng(seed).choice(sum(live), min(count, sum(live)), replace=False)
        stops = np.cumsum(live)
        found = []
        for place in drawn.tolist():
            number = int(np.searchsorted(stops, place, side="right"))
            part, row = now.parts[number], place - int(stops[number]) + live[number]
            if part.removed is not None:
                row = int(np.flatnonzero(part.removed.live)[row])
            # Another process may have removed it meanwhile.
            try:
                found.append(self.clip(int(part.block.clip_ids(np.array([row]))[0])))
            except LibraryError as error:
                if type(error) is not LibraryError:
                    raise
        return found

    def timeline(
        self, clip_id: int, *, start: float | None = None, end: float | None = None, top: int = 6
    ) -> Timeline:
        """Return the scores of the frames of a clip's recording, or of a part of it, over time.

        Parameters
        ----------
        clip_id : int
            Any clip of the recording.
        start, end : float, optional
            The part, in seconds as hits give them; at most ten minutes.
        top : int
            How many classes: those that are heard most surely in the part.

        Returns
        -------
        Timeline
            Without curves where the frames are not at hand, as in the library that comes with
            audiosearch. Own classes are among them where they were heard.

        Raises
        ------
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When the part does not lie in the recording or is too long, or there are not `top`
            classes.
        """
        return frame_timeline(self, clip_id, start=start, end=end, top=top)

    def packed_frames_at_hand(self) -> bool:
        """Tell whether there is a timeline of clips that come from a packed file.

        Their embedding frames are in that file alone, which may have been moved or deleted.
        """
        return packed_files_there(self)

    def outline(self, clip_id: int, *, top: int = 4, most: int = 300) -> Timeline:
        """Return the stored scores of all clips of a clip's recording, over time.

        Parameters
        ----------
        clip_id : int
            Any clip of the recording.
        top : int
            How many classes: those that are heard most in it.
        most : int
            How many steps there are at most; of a longer recording several clips share one, which
            has the best of their scores.

        Raises
        ------
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When there are not `top` classes, or `most` is below 1.
        """
        return outline(self, clip_id, top=top, most=most)

    def beside(self, clip_id: int, *, count: int = 3) -> tuple[list[Clip], list[Clip]]:
        """Return the clips before and after one in its recording, each in the order of time.

        Parameters
        ----------
        clip_id : int
            The clip.
        count : int
            How many of each at most.

        Raises
        ------
        LibraryError
            When there is no such clip.
        InvalidArgumentError
            When `count` is negative.
        """
        if count < 0:
            raise InvalidArgumentError(f"count must not be negative, but is {count}.")
        part, row = self.snapshot().find(clip_id)
        owner = part.block.recordings[row]
        rows = np.arange(max(row - count, 0), min(row + count + 1, part.block.rows))
        rows = rows[part.block.recordings[rows] == owner]
        clips = part.block.clip_ids(rows).tolist()
        place = clips.index(int(clip_id))
        return (
            [self.clip(each) for each in clips[:place]],
            [self.clip(each) for each in clips[place + 1 :]],
        )

    def frames(self, clip_id: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames of a clip, uint8 (n, 128).

        Those of a row of a packed file are read from that file; n is 0 where it is no longer there,
        or was changed.

        Raises
        ------
        LibraryError
            When there is no such clip.
        LibraryDamagedError
            When the file of the frames is missing or too short.
        """
        now = self.snapshot()
        part, row = now.find(clip_id)
        number = int(part.block.recordings[row])
        recording = self.catalogue.recordings([number]).get(number)
        if recording is None:
            raise LibraryError(f"Clip {clip_id} was removed from this library a moment ago.")
        with StoredFrames(self, now) as stored:
            return stored.of(clip_id, recording)

    def frames_at(self, now: Snapshot, clip_id: int) -> npt.NDArray[np.uint8]:
        """Return the embedding frames that the library itself holds of a clip of a snapshot."""
        part, row = now.find(clip_id)
        if part.block.frame_counts()[row] == 0:
            return np.empty((0, EMBEDDING_SIZE), np.uint8)
        if not isinstance(part.block, TailBlock):
            return part.block.frames(row, row + 1)
        column = tail_columns(self.folder, now.lengths["tail"])[1]
        try:
            frames = column.read(now.lengths["tail_frames"])
        except FileNotFoundError:
            raise column.damaged("is missing") from None
        counts = np.concatenate(
            [p.block.frame_counts() for p in now.parts if isinstance(p.block, TailBlock)]
        )
        place = clip_id - now.lengths["tail"]
        first = int(counts[:place].sum(dtype=np.int64))
        return frames[first : first + int(counts[place])]

    def audio_path(self, recording_id: int) -> Path | None:
        """Return the sound file of a recording; None for AudioSet's, which lie on YouTube.

        Raises
        ------
        LibraryError
            When there is no such recording.
        """
        found = self.catalogue.recordings([recording_id])
        if recording_id not in found:
            raise LibraryError(f"There is no recording {recording_id} in this library.")
        return found[recording_id].path

    def duration(self, recording_id: int) -> float:
        """Return the length of a recording in seconds.

        Raises
        ------
        LibraryError
            When there is no such recording.
        """
        found = self.catalogue.recordings([recording_id])
        if recording_id not in found:
            raise LibraryError(f"There is no recording {recording_id} in this library.")
        return found[recording_id].duration

    def leads_elsewhere(self, recording_id: int) -> bool:
        """Tell whether links lead from a recording's path to another file than was indexed.

        Links in an indexed folder are followed. Whoever may write there could make one that leads
        to any file of this machine, so what stands behind a link must have the size and the time of
        change that it had.
        """
        found = self.catalogue.indexed_state(recording_id)
        if found is None:
            return False
        root, name, size, mtime_ns = found
        try:
            real_root = os.path.realpath(root)
            path = os.path.join(real_root, name)  # noqa: PTH118
            if os.path.realpath(path) == os.path.normpath(path):
                return False
            state = os.stat(path)  # noqa: PTH116
        except OSError:
            return False  # it is not there at all
        return (state.st_size, state.st_mtime_ns) != (size, mtime_ns)
