"""Making a packed HDF5 file, from AudioSet's TFRecords or from sounds.

Rows follow the sorted sources; a sound gives one row for each 9.6 s of it (`clip_frames`). What is
done is committed about once a second (`audiosearch.datasets.part_file`), so a run that is killed
at any moment is taken up by the next, and the file is the same to the byte as without the kill.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.scorer import clip_frames
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, RELEASED
from audiosearch.datasets.packed_writer import ClipRows
from audiosearch.datasets.part_file import Done, PartFile, already_there
from audiosearch.datasets.tfrecord import ReleasedClip, read_clips
from audiosearch.embedders import available_embedders, embedder_hash
from audiosearch.errors import AudioError, DataError, InvalidArgumentError, printable
from audiosearch.jobs import (
    Analysis,
    AnalyzerSettings,
    Progress,
    Segment,
    WorkerPool,
    core_count,
)
from audiosearch.library.pack_sources import PackItem, PackPlan, find_items
from audiosearch.library.recordings import Skipped

__all__ = ["PackSummary", "pack"]

_GROUP_SECONDS = 1.0
_GROUP_STEPS = 200
_RECORDS_AT_ONCE = 1024


@dataclass
class PackSummary:
    """What a run did.

    Attributes
    ----------
    file : str
        The packed file.
    clips : int
        Its rows; 0 where nothing could be packed and no file was made.
    files : int
        Shards or sounds that were packed, by this run and by earlier ones that it went on with.
    skipped : list of Skipped
        What could not be used, and why.
    seconds : float
        Seconds of sound that this run packed.
    elapsed : float
        How long the run took, in seconds.
    """

    file: str
    clips: int = 0
    files: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0
    elapsed: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def pack(
    sources: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    embedder: str = "lite",
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> PackSummary:
    """Make a packed HDF5 file, as `train`, `evaluate` and `index` take them.

    Until it is finished, what is done stands in ``OUT.part`` beside it; the same call goes on
    there.

    Parameters
    ----------
    sources : path-like, or several
        AudioSet's TFRecord files or folders of them; or sound files, folders of them, and CSV
        tables that list them (see `audiosearch.datasets.clip_table`).
    out : path-like
        The file to make; it must not exist.
    embedder : str
        What embeds sounds. TFRecords hold embeddings already.
    workers : int, optional
        How many processes analyse sounds; one a core where None.
    on_progress : callable, optional
        Called with a `Progress` at the start, and whenever something was committed.

    Returns
    -------
    PackSummary
        Its ``skipped`` lists damaged shards, clips of TFRecords without frames, and sounds that
        cannot be used.

    Raises
    ------
    AudioNotFoundError
        When a source does not exist, or there is nothing to pack.
    DataError
        When a table is not as it must be.
    InvalidArgumentError
        When the sources cannot stand in one file.
    StorageError
        When `out` exists, another process is making it, an interrupted run with other sources
        left its ``.part``, or the disk is full; what was reported is safe.
    """
    began = time.monotonic()
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not listed:
        raise InvalidArgumentError("Name at least one file or folder to pack.")
    if embedder not in available_embedders():
        raise InvalidArgumentError(
            f"There is no embedder '{embedder}'; there is: {', '.join(available_embedders())}."
        )
    if workers is not None and workers < 1:
        raise InvalidArgumentError(f"workers must be at least 1, not {workers}.")
    target = Path(out)
    part_exists = target.with_name(target.name + ".part").exists()
    if target.exists() and not part_exists:
        raise already_there(target)
    plan = find_items([Path(source) for source in listed])
    facts = {"embedder": RELEASED}
    if not plan.released:
        facts = {"embedder": embedder, "embedder_sha256": embedder_hash(embedder)}
    summary = PackSummary(printable(str(target)))
    with PartFile(target, plan.fingerprint(str(facts))) as part:
        if target.exists() and not (part.finished == len(plan.items) and part.is_written()):
            raise already_there(target)
        packer = _Packer(part, plan, summary, on_progress)
        if plan.released:
            packer.pack_shards()
        else:
            packer.pack_sounds(AnalyzerSettings(embedder=embedder), workers)
        summary.clips, summary.files = part.clips, part.packed
        skipped = [Skipped(printable(name), printable(why)) for name, why in part.skipped()]
        if target.exists() or not summary.clips:
            part.remove()
        else:
            part.write(labelled=plan.labelled, facts=facts)
    summary.skipped = [
        *(Skipped(printable(error.path), error.reason) for error in plan.unreadable),
        *skipped,
    ]
    summary.elapsed = round(time.monotonic() - began, 3)
    return summary


class _Packer:
    """Does the items that are not done, and commits in groups."""

    def __init__(
        self,
        part: PartFile,
        plan: PackPlan,
        summary: PackSummary,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._part, self._plan, self._summary = part, plan, summary
        self._on_progress = on_progress
        self._pending: list[Done] = []
        self._last = time.monotonic()
        self._done = part.finished
        self._skipped = len(part.skipped())
        self._report()

    def pack_shards(self) -> None:
        """Pack the TFRecords."""
        try:
            records = self._part.records  # of a shard that an earlier run did not finish
            for number in range(self._done, len(self._plan.items)):
                self._pack_shard(number, records)
                records = 0
        finally:
            self._flush()

    def pack_sounds(self, settings: AnalyzerSettings, workers: int | None) -> None:
        """Pack the sounds, in worker processes."""
        first, items = self._done, self._plan.items
        if first == len(items):
            return
        workers = min(core_count(), len(items) - first) if workers is None else workers
        with WorkerPool(settings, workers=workers) as pool:
            tasks = (Segment(item.path, item.start, item.end) for item in items[first:])
            results = pool.map(tasks)
            try:
                for number, result in enumerate(results, start=first):
                    self._put(_sound_step(number, items[number], result))
            finally:
                # Also after Ctrl-C: what was done is kept.
                self._flush()

    def _pack_shard(self, number: int, records: int) -> None:
        item = self._plan.items[number]
        given = 0.0
        clips: list[ReleasedClip] = []
        skipped: list[tuple[str, str]] = []

        def put(*, finished: bool) -> None:
            nonlocal given
            rows = _released_rows(clips)
            seconds = sum(clip.end - clip.start for clip in clips)
            given += seconds
            self._put(Done(number, records, finished, rows, seconds, tuple(skipped)))
            clips.clear()
            skipped.clear()

        try:
            for clip in read_clips(item.path, skip=records):
                if len(clip.frames):
                    clips.append(clip)
                else:
                    name = f"{item.name}, record {records}"
                    skipped.append((name, f"The clip {clip.video_id} has no frames."))
                records += 1
                if len(clips) + len(skipped) >= _RECORDS_AT_ONCE:
                    put(finished=False)
        except DataError as error:
            # A file that cannot be trusted is left out as a whole.
            reason = str(error).removeprefix(f"{printable(item.path)}: ")
            reason = reason[0].upper() + reason[1:]
            step = Done(
                number, records, seconds=-given, skipped=((item.name, reason),), failed=True
            )
            self._put(step)
            return
        if not records:
            skipped.append((item.name, "It holds no records."))
        put(finished=True)

    def _put(self, step: Done) -> None:
        self._pending.append(step)
        late = time.monotonic() - self._last >= _GROUP_SECONDS
        if late or len(self._pending) >= _GROUP_STEPS:
            self._flush()

    def _flush(self) -> None:
        self._last = time.monotonic()
        if not self._pending:
            return
        self._part.commit(self._pending)
        pending, self._pending = self._pending, []
        for step in pending:
            self._done += step.finished
            self._skipped += len(step.skipped)
            self._summary.seconds += step.seconds
        self._report()

    def _report(self) -> None:
        if self._on_progress:
            seconds = round(self._summary.seconds, 3)
            total = len(self._plan.items)
            self._on_progress(Progress(self._done, total, seconds, self._skipped))


def _released_rows(clips: Sequence[ReleasedClip]) -> ClipRows:
    x = np.zeros((len(clips), CLIP_FRAMES, FRAME_VALUES), np.uint8)
    for row, clip in enumerate(clips):
        x[row, : len(clip.frames)] = clip.frames[:CLIP_FRAMES]
    return ClipRows(
        x,
        np.array([min(len(clip.frames), CLIP_FRAMES) for clip in clips], np.uint8),
        [clip.video_id.encode() for clip in clips],
        np.array([(clip.start, clip.end) for clip in clips], np.float32).reshape(-1, 2),
        [sorted(set(clip.labels)) for clip in clips],
    )


def _sound_step(number: int, item: PackItem, result: Analysis | AudioError) -> Done:
    if isinstance(result, AudioError):
        return Done(number, skipped=((item.name, result.reason),))
    x, n_frames = clip_frames(result.frames)
    times = np.array([result.clip_times(clip) for clip in range(len(x))]) + item.start
    rows = ClipRows(
        x,
        n_frames.astype(np.uint8),
        [printable(item.name).encode()] * len(x),
        times.astype(np.float32),
        None if item.labels is None else [item.labels] * len(x),
    )
    return Done(number, rows=rows, seconds=result.duration)
