"""Keeping a library fast: the tail becomes a segment, segments are merged, removed clips dropped.

Everything is written aside and swapped in by one transaction of the catalogue; see
`audiosearch.library.segments`. Only the process that holds the library's lock may call this.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from audiosearch.library.blocks import Block
from audiosearch.library.index_building import build_index
from audiosearch.library.index_files import index_paths
from audiosearch.library.library import Library
from audiosearch.library.manifest import AUTO_FACTORY
from audiosearch.library.neighbours import EXACT_CLIPS
from audiosearch.library.recordings import State
from audiosearch.library.score_columns import current_columns
from audiosearch.library.segment_writer import write_segment
from audiosearch.library.segments import MERGE_COUNT, SEAL_CLIPS, Segment, segment_path
from audiosearch.library.snapshot import Part, part_of
from audiosearch.library.tail import TailBlock, tail_columns

__all__ = ["delete_unlisted", "refresh_neighbours", "seal", "tidy", "unlisted_files"]

_OURS = re.compile(r"(?:segment-\d+\.seg|tail-\d+\.(?:rows|frames)|neighbours-\d+\.(?:faiss|json))")
_TEMPORARY = re.compile(r"\.(?:segment-|tail-|neighbours-|map\.npz\.).*\.tmp")
# A segment is written again without what was removed when that is so much of it.
_MOST_REMOVED = 0.2


def tidy(library: Library) -> None:
    """Seal and merge what is due, and bring the index of the vectors up to date."""
    seal(library)
    _drop_removed(library)
    _roll_up(library)
    refresh_neighbours(library)
    delete_unlisted(library)


def seal(library: Library) -> None:
    """Turn a tail that is long enough into segments, and merge segments that are many enough."""
    while library.catalogue.lengths()["tail_rows"] >= SEAL_CLIPS:
        _seal_once(library)
        _merge(library)
        refresh_neighbours(library)
        delete_unlisted(library)


def refresh_neighbours(library: Library) -> None:
    """Make or extend the index of the vectors where that is due."""
    factory = str(library.manifest["vectors"].get("factory", AUTO_FACTORY))
    now = library.snapshot()
    number = now.lengths["neighbours"]
    search = library.neighbours(now)
    facts = search.facts
    stop = 0 if facts is None else facts.stop
    late = now.live_clips > EXACT_CLIPS and now.lengths["clips"] - stop > EXACT_CLIPS
    lost = number > 0 and facts is None
    chosen = (
        factory != AUTO_FACTORY
        and now.live_clips > 0
        and (facts is None or facts.factory != factory)
    )
    unwanted = factory == AUTO_FACTORY and facts is not None and facts.chosen
    if not (late or lost or chosen or unwanted):
        return
    made = None
    if now.live_clips > EXACT_CLIPS or factory != AUTO_FACTORY:
        made = build_index(library.folder, number + 1, now, factory)
    with library.catalogue.transaction():
        library.catalogue.set_lengths(neighbours=0 if made is None else number + 1)


def delete_unlisted(library: Library) -> None:
    """Delete files that the catalogue does not list, which a killed writer may have left."""
    for path in unlisted_files(library.folder, library.catalogue.state()):
        # A reader may hold it where the system does not allow that; the next writer deletes it.
        with contextlib.suppress(OSError):
            path.unlink()


def unlisted_files(folder: Path, state: State) -> list[Path]:
    """Return the files of a library that its catalogue does not list, by name."""
    listed = {segment_path(folder, n).name for n, _, _ in state.segments}
    listed |= {column.path.name for column in tail_columns(folder, state.lengths["tail"])}
    listed |= {path.name for path in index_paths(folder, state.lengths["neighbours"])}
    return [
        path
        for path in sorted(folder.iterdir())
        if (_OURS.fullmatch(path.name) or _TEMPORARY.fullmatch(path.name))
        and path.name not in listed
    ]


def _seal_once(library: Library) -> None:
    """Turn the first `SEAL_CLIPS` clips of the tail, and what belongs to the last, into a segment.

    The same clips make the same segments, however they were committed.
    """
    lengths = library.catalogue.lengths()
    first = lengths["tail"]
    rows_file, frames_file = tail_columns(library.folder, first)
    data = rows_file.read(lengths["tail_rows"])
    frames = frames_file.read(lengths["tail_frames"])
    recordings = np.ascontiguousarray(data["recording"])
    later = np.flatnonzero(recordings[SEAL_CLIPS:] != recordings[SEAL_CLIPS - 1])
    count = SEAL_CLIPS + int(later[0]) if len(later) else len(data)
    used = int(data["frames"][:count].sum(dtype=np.int64))
    block = TailBlock(first, data[:count], frames=frames[:used])
    # The rest begins the new tail.
    rest = tail_columns(library.folder, first + count)
    rest[0].append(0, data[count:])
    rest[1].append(0, frames[used:])
    new_tail = {
        "tail": first + count,
        "tail_rows": len(data) - count,
        "tail_frames": len(frames) - used,
    }
    _replace(library, [], [block], first, first + count, new_tail)


def _merge(library: Library) -> None:
    """Merge the last segments while `MERGE_COUNT` of them are of one size."""
    while True:
        segments = library.catalogue.state().segments
        due: list[tuple[int, int, int]] = []
        for level in range(8):
            run: list[tuple[int, int, int]] = []
            for segment in reversed(segments):
                if _level(segment[2]) > level:
                    break
                run.insert(0, segment)
            if len(run) >= MERGE_COUNT:
                due = run
                break
        if not due:
            return
        _rewrite(library, due)


def _drop_removed(library: Library) -> None:
    """Write segments again of which a good part was removed."""
    if not library.catalogue.removed_clips():
        return
    for number, first, clips in library.catalogue.state().segments:
        block = Segment(segment_path(library.folder, number))
        part = _part(library, block)
        if part.removed is not None and len(part.removed.rows) > _MOST_REMOVED * clips:
            _rewrite(library, [(number, first, clips)])


def _roll_up(library: Library) -> None:
    """Write segments again whose groups were rolled up as an earlier version did."""
    for number, first, clips in library.catalogue.state().segments:
        if Segment(segment_path(library.folder, number)).columns is not current_columns():
            _rewrite(library, [(number, first, clips)])


def _rewrite(library: Library, segments: Sequence[tuple[int, int, int]]) -> None:
    blocks = [Segment(segment_path(library.folder, number)) for number, _, _ in segments]
    _replace(library, [n for n, _, _ in segments], blocks, blocks[0].first, blocks[-1].stop, {})


def _replace(
    library: Library,
    old: Sequence[int],
    blocks: Sequence[Block],
    first: int,
    stop: int,
    lengths: dict[str, int],
) -> None:
    """Let one new segment take the place of some blocks, without what was removed of them."""
    catalogue = library.catalogue
    parts = [_part(library, block) for block in blocks]
    kept = [
        (part.block, None if part.removed is None else np.flatnonzero(part.removed.live))
        for part in parts
    ]
    kept = [(block, rows) for block, rows in kept if rows is None or len(rows)]
    dropped = catalogue.removals_between(first, stop)
    number = catalogue.next_segment()
    path = segment_path(library.folder, number)
    if kept:
        write_segment(path, kept)
        written = Segment(path)
    with catalogue.transaction():
        catalogue.forget_segments(old)
        if kept:
            catalogue.add_segment(number, written.first, written.rows)
        catalogue.forget_removals(dropped[:, 0].tolist())
        if lengths:
            catalogue.set_lengths(**lengths)


def _part(library: Library, block: Block) -> Part:
    return part_of(block, library.catalogue.removals_between(block.first, block.stop))


def _level(clips: int) -> int:
    """Return how often segments of `SEAL_CLIPS` were merged to make one of this size."""
    return max(round(math.log(max(clips, 1) / SEAL_CLIPS, MERGE_COUNT)), 0)
