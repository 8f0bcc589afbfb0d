"""Adding a packed HDF5 file to a library; its rows keep their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audiosearch.datasets.packed import RELEASED, PackedFile
from audiosearch.library.columns import search_vector
from audiosearch.library.recordings import NewRecording
from audiosearch.library.scoring import clip_scorer, packed_by
from audiosearch.library.sources import absolute
from audiosearch.library.writer import Writer

__all__ = ["index_packed"]

_ROWS = 512  # are scored and committed at once
_REMOVED_AT_ONCE = 10_000  # while they are committed, readers wait for names


def index_packed(writer: Writer, path: Path) -> None:
    """Add the rows of a packed file, going on where an earlier run was stopped.

    A file that changed replaces what was indexed from it.

    Raises
    ------
    DataError
        When the file cannot be read.
    StorageError
        When the disk is full; what was reported is safe.
    """
    catalogue, summary = writer.library.catalogue, writer.summary
    name, status = absolute(path), path.stat()
    with PackedFile(path) as file:
        scorer = clip_scorer(writer.library.manifest, packed_by(file))
        ids, times = file.video_ids(), file.times()
        source = "audioset" if packed_by(file)[0] == RELEASED else "packed"
        known = catalogue.packed_file(name)
        replaced = 0
        if known is None or known[1:3] != (status.st_size, status.st_mtime_ns):
            if known is not None:
                replaced = known[3]
                removed = replaced
                while removed:
                    with catalogue.transaction():
                        removed = catalogue.forget_rows(known[0], _REMOVED_AT_ONCE)
            with catalogue.transaction():
                number = catalogue.add_packed_file(name, status.st_size, status.st_mtime_ns)
            done = 0
        else:
            number, _, _, done = known
        summary.unchanged += done
        summary.removed += max(replaced - len(file), 0)
        writer.meter.expect(len(file) - done, earlier=done)
        for start in range(done, len(file), _ROWS):
            stop = min(start + _ROWS, len(file))
            rows = file.read(start, stop)
            recordings = []
            for row in range(start, stop):
                begin, end = times[row].tolist()
                labels = None if rows.y is None else np.flatnonzero(rows.y[row - start]).tolist()
                recordings.append(
                    NewRecording(
                        source=source,
                        name=ids[row].encode("utf-8", "surrogateescape"),
                        start=begin,
                        duration=end - begin,
                        clips=1,
                        packed_file=number,
                        packed_row=row,
                        labels=labels,
                    )
                )
            vectors = [search_vector(x[:n]) for x, n in zip(rows.x, rows.n_frames, strict=True)]
            scores = scorer.score(rows.x, rows.n_frames)
            updated = min(max(replaced - start, 0), stop - start)
            summary.updated += updated
            summary.added += stop - start - updated
            writer.add_rows(recordings, scores, np.stack(vectors))
