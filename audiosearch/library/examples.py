"""Examples: what a search by example starts from, and what is made of each."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.scorer import clip_frames
from audiosearch.datasets.packed import CLIP_FRAMES, PackedFile
from audiosearch.embedders import available_embedders, embedder_hash
from audiosearch.embedders.base import EMBEDDING_SIZE
from audiosearch.errors import DataError, InvalidArgumentError, LibraryError, printable
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.library.hits import Clip, Hit, Moment
from audiosearch.library.likeness import Probe, clip_probe, probe_of, traits_of
from audiosearch.library.scoring import clip_scorer, is_rescored, scored_by, sound_maker
from audiosearch.library.snapshot import Snapshot

if TYPE_CHECKING:
    from audiosearch.library.clip_details import ClipDetails
    from audiosearch.library.recordings import Recording

__all__ = [
    "Example",
    "Examples",
    "Resolved",
    "Source",
    "StoredFrames",
    "listed",
    "packed_files_there",
    "resolve",
]

Source: TypeAlias = "int | str | os.PathLike[str] | npt.NDArray[np.uint8] | Hit | Moment | Clip"
"""A clip of the library by number or as a search returns it, a sound file, or embedding frames."""

Examples: TypeAlias = "Source | Example | Sequence[Source | Example]"


@dataclass(frozen=True)
class Example:
    """A sound that is searched by, or a part of it.

    Attributes
    ----------
    source : int, path-like, uint8 (n, 128), Hit, Moment or Clip
        A clip of the library, a sound file, or embedding frames.
    start, end : float or None
        Which part, in seconds from the start of the file or of the clip's recording (as a hit
        gives them); of frames in steps of 0.96 s. All of it where both are None.
    weight : float
        How much it counts beside other examples, above 0.

    Raises
    ------
    InvalidArgumentError
        When the part or the weight makes no sense.
    """

    source: Source
    start: float | None = None
    end: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        start = 0.0 if self.start is None else self.start
        end = math.inf if self.end is None else self.end
        if not (math.isfinite(start) and 0 <= start < end and (self.end is None or end < math.inf)):
            raise InvalidArgumentError(
                "A part of an example begins at 0 s or later and ends after its beginning, not "
                f"from {start:g} to {'the end' if self.end is None else format(end, 'g')}."
            )
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InvalidArgumentError(
                f"The weight of an example is a number above 0, not {self.weight}. What is not "
                "wanted goes into 'unlike'."
            )

    @property
    def is_part(self) -> bool:
        """Whether it is a part of its source."""
        return self.start is not None or self.end is not None


@dataclass(frozen=True)
class Resolved:
    """What was made of an example.

    Attributes
    ----------
    probe : float32 (SIZE,)
        What it looks for.
    weight : float
        As given.
    clips : tuple of int
        Clips of the library that it is made of; these are not among the hits.
    """

    probe: Probe
    weight: float
    clips: tuple[int, ...] = ()


def listed(examples: Examples) -> list[Example]:
    """Return one or several examples as a list of `Example`."""
    if isinstance(examples, list | tuple):
        return [one if isinstance(one, Example) else Example(one) for one in examples]
    return [examples if isinstance(examples, Example) else Example(examples)]  # type: ignore[arg-type]


def resolve(library: ClipDetails, now: Snapshot, examples: Sequence[Example]) -> list[Resolved]:
    """Make a probe of each example.

    Raises
    ------
    AudioError
        When a sound file cannot be used.
    LibraryError
        When there is no such clip, or a part of one is asked for whose frames are not at hand.
    InvalidArgumentError
        When frames are of another shape or type, or a part lies outside.
    """
    return [_resolved(library, now, example) for example in examples]


class StoredFrames:
    """Embedding frames of clips, wherever they are: in the library, or in a packed file.

    Packed files are opened once, and closed with it; one that is not there any more, or has
    changed, has no frames to give.

    Parameters
    ----------
    library : Library
        The library.
    now : Snapshot
        What it holds.
    """

    def __init__(self, library: ClipDetails, now: Snapshot) -> None:
        self._library = library
        self._now = now
        self._files: dict[tuple[bytes, int, int], PackedFile | None] = {}
        self._none_there: bool | None = None

    def __enter__(self) -> StoredFrames:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            if file is not None:
                file.close()

    def of(self, clip: int, recording: Recording) -> npt.NDArray[np.uint8]:
        """Return the frames of a clip of a recording, uint8 (n, 128); n is 0 without them."""
        frames = self._library.frames_at(self._now, clip)
        if len(frames) or recording.packed_row is None:
            return frames
        if self._none_there is None:
            self._none_there = not packed_files_there(self._library)
        if self._none_there:
            return frames
        for origin in self._library.catalogue.origins(recording.first_clip, 1):
            file = None if origin.packed_file is None else self._opened(origin.packed_file)
            if file is not None and origin.id == recording.id and origin.packed_row is not None:
                rows = file.read(origin.packed_row, origin.packed_row + 1, labels=False)
                return rows.x[0][: int(rows.n_frames[0])]
        return frames

    def _opened(self, known: tuple[bytes, int, int]) -> PackedFile | None:
        if known not in self._files:
            self._files[known] = None
            path = Path(os.fsdecode(known[0]))
            try:
                status = path.stat()
                if _is_there(known[0]) and (status.st_size, status.st_mtime_ns) == known[1:]:
                    self._files[known] = PackedFile(path)
            except (OSError, ValueError, DataError):
                pass
        return self._files[known]


def packed_files_there(library: ClipDetails) -> bool:
    """Tell whether any packed file of a library is where it was indexed."""
    return any(_is_there(path) for path in library.catalogue.packed_paths().values())


def _is_there(path: bytes) -> bool:
    # The shipped library names its file, which is not installed, by its name alone.
    return os.path.isabs(path) and os.path.exists(path)  # noqa: PTH110, PTH117 - bytes


def _resolved(library: ClipDetails, now: Snapshot, example: Example) -> Resolved:
    source = example.source
    if isinstance(source, Hit | Moment | Clip):
        source = source.clip
    if isinstance(source, int | np.integer) and not isinstance(source, bool):
        return _of_clip(library, now, example, int(source))
    if isinstance(source, str | os.PathLike):
        return Resolved(_of_file(library, example, source), example.weight)
    frames = np.asarray(source)
    if frames.ndim != 2 or frames.shape[1] != EMBEDDING_SIZE or frames.dtype != np.uint8:
        raise InvalidArgumentError(
            f"An example is uint8 (n, {EMBEDDING_SIZE}) embedding frames, not {frames.dtype} "
            f"{frames.shape}."
        )
    if not len(frames):
        raise InvalidArgumentError("The example holds no frames.")
    if example.is_part:
        first, stop = _window(len(frames), example, "The example")
        frames = frames[first:stop]
    return Resolved(_of_frames(library, frames, "file"), example.weight)


def _of_clip(library: ClipDetails, now: Snapshot, example: Example, clip: int) -> Resolved:
    part, row = now.find(clip)
    if not example.is_part:
        traits = traits_of(part.block, np.array([row]))
        return Resolved(clip_probe(traits, 0), example.weight, (clip,))
    number = int(part.block.recordings[row])
    recording = library.catalogue.recordings([number]).get(number)
    if recording is None:
        raise LibraryError(f"Clip {clip} was removed from this library a moment ago.")
    last = recording.clips - 1
    with StoredFrames(library, now) as stored:
        count = last * CLIP_FRAMES + len(stored.of(recording.first_clip + last, recording))
        name = f"The recording {printable(recording.name)}"
        first, stop = _window(count, example, name, recording.start, recording.duration)
        here = range(
            recording.first_clip + first // CLIP_FRAMES,
            recording.first_clip + (stop - 1) // CLIP_FRAMES + 1,
        )
        pieces = [stored.of(one, recording) for one in here]
    if not all(len(piece) for piece in pieces):
        raise LibraryError(
            f"The embedding frames of clip {clip} are not at hand, so no part of it can be an "
            "example: its packed file is not there. Leave start and end out, or give a sound file."
        )
    begin = first // CLIP_FRAMES * CLIP_FRAMES
    frames = np.concatenate(pieces)[first - begin : stop - begin]
    return Resolved(_of_frames(library, frames, recording.source), example.weight, tuple(here))


def _of_file(library: ClipDetails, example: Example, path: str | os.PathLike[str]) -> Probe:
    from audiosearch.jobs.analysis import Analyzer, AnalyzerSettings, Segment

    # AudioSet's released embeddings have no embedder here; any of ours shares their space.
    names = [name for name, _ in scored_by(library.manifest) if name in available_embedders()]
    embedder = names[0] if names else AnalyzerSettings.embedder
    rescored = is_rescored(library.manifest, (embedder, embedder_hash(embedder)))
    part = Segment(os.fspath(path), example.start or 0.0, example.end)
    analysis = Analyzer(AnalyzerSettings(embedder=embedder, rescored=rescored)).analyze(part)
    return probe_of(analysis.scores, analysis.frames)


def _of_frames(library: ClipDetails, frames: npt.NDArray[np.uint8], source: str) -> Probe:
    """Return the probe of frames from a source, scored as the library's clips of it are."""
    scorer = clip_scorer(library.manifest, sound_maker(library.manifest, source))
    return probe_of(scorer.score(*clip_frames(frames)), frames)


def _window(
    count: int, example: Example, name: str, begins: float = 0.0, duration: float = 0.0
) -> tuple[int, int]:
    """Return which of some frames a part touches.

    The first frame begins at `begins` seconds; a sound may last a little longer than its frames.
    """
    length = max(count * PATCH_SECONDS, duration)
    start = begins if example.start is None else example.start
    end = begins + length if example.end is None else example.end
    if not begins <= start < end <= begins + length + 0.01:
        raise InvalidArgumentError(
            f"{name} runs from {begins:g} to {begins + length:g} s; the part from {start:g} to "
            f"{end:g} s does not lie in it."
        )
    first = min(math.floor((start - begins) / PATCH_SECONDS + 1e-6), max(count - 1, 0))
    stop = max(math.ceil((end - begins) / PATCH_SECONDS - 1e-6), first + 1)
    return first, min(stop, max(count, first + 1))
