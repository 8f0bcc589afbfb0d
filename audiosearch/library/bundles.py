"""Recordings with all that a library holds of them: what is exported, imported and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import CLASS_COUNT
from audiosearch.library.library import Library
from audiosearch.library.own_scores import OwnCodes, OwnMaker
from audiosearch.library.recordings import Origin
from audiosearch.library.scoring import Maker, scored_by
from audiosearch.library.snapshot import Part
from audiosearch.library.tail import TailBlock, tail_columns

__all__ = [
    "Bundle",
    "Makers",
    "Source",
    "bundles_of",
    "makers_of",
    "read_bundles",
    "scorers_of",
]

_RECORDINGS_AT_ONCE = 1000
_ATTEMPTS = 5


@dataclass(frozen=True)
class Makers:
    """What made the scores and vectors of a library.

    Attributes
    ----------
    embedders : list of (name, hash)
        Whose embeddings it holds.
    classifier : (name, hash)
        What scored the clips; where that differs from embedder to embedder, all hashes in their
        order, joined by ``+``.
    own : tuple of OwnMaker
        The user's own classifiers, in the order of their classes.
    """

    embedders: list[Maker]
    classifier: Maker
    own: tuple[OwnMaker, ...] = ()

    @property
    def own_names(self) -> list[str]:
        """The user's own classes."""
        return [name for each in self.own for name in each.classes]


@dataclass(frozen=True)
class Bundle:
    """Some whole recordings.

    Attributes
    ----------
    origins : list of Origin
        Where they come from; their numbers and those of their clips are of another library.
    codes : uint8 (clips, 527)
        Score codes, see `audiosearch.library.columns`.
    vectors : int8 (clips, 128)
        Search vectors.
    frame_counts : uint8 (clips,)
        How many embedding frames each clip brings.
    frames : uint8 (frames, 128)
        All of them.
    own : OwnCodes
        What the user's own classifiers say of the clips.
    """

    origins: list[Origin]
    codes: npt.NDArray[np.uint8]
    vectors: npt.NDArray[np.int8]
    frame_counts: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.uint8]
    own: OwnCodes

    def times(self) -> list[tuple[Origin, int, float, float]]:
        """Return for each clip its recording, its number there, and start and end in seconds."""
        found = []
        for origin in self.origins:
            for number in range(origin.clips):
                start = origin.start + number * CLIP_SPAN
                last = number == origin.clips - 1
                end = origin.start + (origin.duration if last else (number + 1) * CLIP_SPAN)
                found.append((origin, number, start, max(end, start)))
        return found


@dataclass(frozen=True)
class Source:
    """What is to be added to a library: who made it, and the recordings, to go through once."""

    makers: Makers
    bundles: Iterator[Bundle]


def makers_of(library: Library) -> Makers:
    """Return what made a library."""
    scorers = scored_by(library.manifest)
    digests = list(scorers.values())
    joined = digests[0] if len(set(digests)) == 1 else "+".join(digests)
    classifier = str(library.manifest["classifier"]["name"]), joined
    return Makers(list(scorers), classifier, library.own.makers)


def scorers_of(makers: Makers) -> list[tuple[Maker, str]]:
    """Return each embedder with the hash of what scored its clips."""
    digests = str(makers.classifier[1] or "").split("+")
    if len(digests) != len(makers.embedders):
        digests = [digests[0]] * len(makers.embedders)
    return list(zip(makers.embedders, digests, strict=True))


def read_bundles(library: Library) -> Iterator[Bundle]:
    """Give everything that a library holds, in the order of its clips.

    What others add or remove meanwhile may or may not be among it; no recording comes in part.
    """
    read, first = _reader(library), 0
    while origins := library.catalogue.origins(first, _RECORDINGS_AT_ONCE):
        first = origins[-1].first_clip + 1
        yield from read(origins)


def bundles_of(library: Library, origins: Sequence[Origin]) -> Iterator[Bundle]:
    """Give what a library holds of some of its recordings, which stand in the order of clips."""
    yield from _reader(library)(origins)


def _reader(library: Library) -> Callable[[Sequence[Origin]], Iterator[Bundle]]:
    """Return what reads recordings of a library as it is now."""
    for attempt in range(_ATTEMPTS):
        now = library.snapshot()
        column = tail_columns(library.folder, now.lengths["tail"])[1]
        try:
            tail_frames = column.read(now.lengths["tail_frames"])
            break
        except FileNotFoundError:  # the tail became a segment a moment ago
            if attempt == _ATTEMPTS - 1:
                raise column.damaged("is missing") from None
    tail_counts = [p.block.frame_counts() for p in now.parts if isinstance(p.block, TailBlock)]
    counts = np.concatenate([np.zeros(1, np.uint8), *tail_counts]).cumsum(dtype=np.int64)

    def frames_of(part: Part, row: int, stop: int) -> npt.NDArray[np.uint8]:
        if not isinstance(part.block, TailBlock):
            return part.block.frames(row, stop)
        place = part.block.first - now.lengths["tail"]
        return tail_frames[counts[place + row] : counts[place + stop]]

    def read(origins: Sequence[Origin]) -> Iterator[Bundle]:
        for part in now.parts:
            block = part.block
            here = [o for o in origins if block.first <= o.first_clip < block.stop]
            starts = block.rows_of(np.array([o.first_clip for o in here], np.int64))
            kept = [
                (origin, row)
                for origin, row in zip(here, starts.tolist(), strict=True)
                if row >= 0 and part.is_live(row)
            ]
            if not kept:
                continue
            rows = np.concatenate([np.arange(row, row + origin.clips) for origin, row in kept])
            codes = [block.column(number)[rows] for number in range(CLASS_COUNT)]
            frames = [frames_of(part, row, row + origin.clips) for origin, row in kept]
            yield Bundle(
                [origin for origin, _ in kept],
                np.stack(codes, axis=1),
                np.ascontiguousarray(block.vectors[rows]),
                block.frame_counts()[rows],
                np.concatenate([np.empty((0, EMBEDDING_SIZE), np.uint8), *frames]),
                library.own.read(block.clip_ids(rows), now.lengths["clips"]),
            )

    return read
