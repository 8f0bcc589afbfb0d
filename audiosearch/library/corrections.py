"""What the user's labels change in an answer.

In a clip where a class is confirmed its score is the highest that there is, where it is rejected
the lowest, and with it the scores of all classes below: what is no dog does not bark either. They
are the user's word, which outweighs what any model says, and two ends of the scale that all of the
ranking understands: the groups above a confirmed class rise with it, and neither needs a rule of
its own in AND, OR, NOT or ``score:``. What a library stores is left as it is. A label counts where
it was given, however it changes the order of the rest: the scores of other clips stay.

A stretch is confirmed for the clips in which a good part of it lies: half a second, or half of it.
A clip is rejected where nothing but half a second of it is left that was not rejected, because a
sound that is not heard in one part of a clip may be heard in another.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError
from audiosearch.jobs.analysis import CLIP_SPAN
from audiosearch.labels import CLASS_COUNT, load_labels, name_key
from audiosearch.library.blocks import Block
from audiosearch.library.catalogue import Catalogue
from audiosearch.library.corrected_block import CorrectedBlock, stored_codes
from audiosearch.library.hits import Correction
from audiosearch.library.label_table import Linked, Statement, Verdict
from audiosearch.library.snapshot import Snapshot
from audiosearch.query import All, Confirmed, Either, Node, OwnLabel

__all__ = ["Corrections"]

Clips = npt.NDArray[np.int64]

_ENOUGH = 0.5  # seconds
_TOUCH = 1e-3
_CONFIRMED, _REJECTED = 255, 0
_VERDICTS: tuple[tuple[Verdict, int], ...] = (("rejected", _REJECTED), ("confirmed", _CONFIRMED))


class Corrections:
    """The labels of a library at one moment, by clip.

    Parameters
    ----------
    catalogue : Catalogue
        Where they are.
    version : int
        The snapshot's ``lengths["labels"]``; 0 for none, and then nothing is read.
    """

    def __init__(self, catalogue: Catalogue, version: int) -> None:
        self.version = version
        self._said: dict[bytes, list[Statement]] = defaultdict(list)
        self._clips: dict[tuple[str, Verdict], list[int]] = defaultdict(list)
        self._linked: list[Linked] = []
        names: dict[str, str] = {}
        if version:
            with catalogue.reading():
                said, self._linked = catalogue.labels.statements(), catalogue.labels.linked()
            for each in said:
                self._said[each.content].append(each)
                if each.mid is None:
                    names.setdefault(each.key, each.label)
            for place in self._linked:
                for key, verdict, clips in _covered(self._said[place.content], place):
                    self._clips[key, verdict] += clips
        self.own_labels = tuple(sorted(names.values()))
        self._by_recording = {place.recording: place for place in self._linked}
        self._blocks: dict[int, tuple[Block, CorrectedBlock | None]] = {}

    def applied(self, now: Snapshot) -> Snapshot:
        """Return a snapshot in which the labels count; blocks of an earlier one are kept."""
        if not self._clips:
            return now
        codes = self._class_codes()
        clips = np.array(sorted(codes), np.int64)
        parts, blocks = [], {}
        for part in now.parts:
            block = part.block
            kept = self._blocks.get(id(block))
            # The block is kept with it, so that its id is not given to another.
            made = kept[1] if kept is not None else _corrected(block, clips, codes)
            blocks[id(block)] = block, made
            parts.append(part if made is None else dataclasses.replace(part, block=made))
        self._blocks = blocks
        return dataclasses.replace(now, parts=tuple(parts))

    def clips(self, node: Confirmed | OwnLabel) -> Clips:
        """Return the clips, ascending, for which a filter holds."""
        keys: Iterable[str]
        wanted = node if isinstance(node, OwnLabel) else node.term
        if wanted is None:
            keys = {key for key, _ in self._clips}
        elif isinstance(wanted, OwnLabel):
            keys = [name_key(wanted.name)]
        else:
            keys = [load_labels()[index].mid for index in wanted.classes if index < CLASS_COUNT]
        found = [np.array(self._clips.get((key, "confirmed"), ()), np.int64) for key in keys]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))

    def own_codes(self, names: Sequence[str]) -> dict[int, dict[int, int]]:
        """Return what was said of the user's own classes: by clip, codes by place in `names`.

        A class that is called as one of AudioSet's shares what was said of that.
        """
        codes: dict[int, dict[int, int]] = defaultdict(dict)
        if not self._clips:
            return codes
        labels = load_labels()
        for place, name in enumerate(names):
            keys = [name_key(name)]
            with contextlib.suppress(InvalidArgumentError):
                keys.append(labels.by_name(name).mid)
            for verdict, code in _VERDICTS:
                for key in keys:
                    for clip in self._clips.get((key, verdict), ()):
                        codes[clip][place] = code
        return codes

    def asked_for(self, node: Node, said: Sequence[Correction]) -> str | None:
        """Return the first label, of those that were confirmed, that a query asks for."""
        wanted = list(_label_filters(node))
        for each in said:
            if each.verdict == "confirmed" and any(_names(one, each) for one in wanted):
                return each.label
        return None

    def of_clip(self, recording: int, start: float, clip: int) -> list[Correction]:
        """Return what was said of any part of a clip, by time.

        Parameters
        ----------
        recording : int
            Its recording.
        start : float
            Where the recording begins, as hits count time.
        clip : int
            The clip.
        """
        place = self._by_recording.get(recording)
        if place is None:
            return []
        first, stop = _clip_times(place)[clip - place.first_clip]
        return [
            Correction(
                each.label,
                each.mid,
                each.verdict,
                start + each.start,
                start + min(each.stop, place.duration),
            )
            for each in sorted(self._said[place.content], key=lambda each: each.start)
            if each.start < stop - _TOUCH and each.stop > first + _TOUCH
        ]

    def all(self) -> Iterator[tuple[Linked, int, Statement]]:
        """Give every label with each recording that it is of, and its first clip there."""
        for place in self._linked:
            for each in sorted(self._said[place.content], key=lambda each: each.start):
                number = min(int((each.start + _TOUCH) / CLIP_SPAN), place.clips - 1)
                yield place, place.first_clip + number, each

    def waiting(self) -> int:
        """Return how many labels are of sounds that are not in the library now."""
        here = {place.content for place in self._linked}
        return sum(len(said) for content, said in self._said.items() if content not in here)

    def _class_codes(self) -> dict[int, dict[int, int]]:
        """Return for each clip the codes of classes of which the user said something."""
        labels = load_labels()
        mids = {label.mid: label.index for label in labels}
        codes: dict[int, dict[int, int]] = defaultdict(dict)
        for verdict, code in _VERDICTS:
            for (key, said), clips in self._clips.items():
                if said == verdict and key in mids:
                    below = labels.below(key) if verdict == "rejected" else (mids[key],)
                    for clip in clips:
                        codes[clip].update(dict.fromkeys(below, code))
        return codes


def _label_filters(node: Node) -> Iterator[Confirmed | OwnLabel]:
    """Give the filters for labels in a query that do not stand under a NOT."""
    if isinstance(node, Confirmed | OwnLabel):
        yield node
    elif isinstance(node, All | Either):
        for part in node.parts:
            yield from _label_filters(part)


def _names(node: Confirmed | OwnLabel, said: Correction) -> bool:
    wanted = node if isinstance(node, OwnLabel) else node.term
    if wanted is None:
        return True
    if isinstance(wanted, OwnLabel):
        return said.mid is None and name_key(said.label) == name_key(wanted.name)
    known = (index for index in wanted.classes if index < CLASS_COUNT)
    return any(load_labels()[index].mid == said.mid for index in known)


def _corrected(
    block: Block, clips: Clips, codes: dict[int, dict[int, int]]
) -> CorrectedBlock | None:
    """Return a block with the corrections in it; None where there are none."""
    here = clips[(clips >= block.first) & (clips < block.stop)]
    rows = block.rows_of(here)
    here, rows = here[rows >= 0], rows[rows >= 0]  # the others were removed, and dropped
    if not len(rows):
        return None
    whole = stored_codes(block, rows)
    for place, clip in enumerate(here.tolist()):
        whole[place, list(codes[clip])] = list(codes[clip].values())
    return CorrectedBlock(block, rows, whole)


def _covered(said: Sequence[Statement], place: Linked) -> Iterator[tuple[str, Verdict, list[int]]]:
    """Give for each label and verdict the clips of a recording that it counts for."""
    times = _clip_times(place)
    spans: dict[tuple[str, Verdict], list[tuple[float, float]]] = defaultdict(list)
    for each in said:
        spans[each.key, each.verdict].append((each.start, each.stop))
    for (key, verdict), stretches in spans.items():
        clips = set()
        for number, (start, stop) in _touched(times, stretches):
            if verdict == "confirmed":
                counts = any(
                    min(b, stop) - max(a, start) + _TOUCH
                    >= min(_ENOUGH, (b - a) / 2, (stop - start) / 2)
                    for a, b in stretches
                )
            else:
                left = (stop - start) - _length(
                    [(max(a, start), min(b, stop)) for a, b in stretches]
                )
                counts = left <= min(_ENOUGH, (stop - start) / 2) + _TOUCH
            if counts:
                clips.add(place.first_clip + number)
        if clips:
            yield key, verdict, sorted(clips)


def _touched(
    times: Sequence[tuple[float, float]], stretches: Sequence[tuple[float, float]]
) -> Iterator[tuple[int, tuple[float, float]]]:
    """Give the clips that the stretches may lie in."""
    numbers: set[int] = set()
    for start, stop in stretches:
        last = min(int(stop / CLIP_SPAN), len(times) - 1)
        numbers.update(range(min(int(start / CLIP_SPAN), last), last + 1))
    for number in sorted(numbers):
        yield number, times[number]


def _clip_times(place: Linked) -> list[tuple[float, float]]:
    """Return where each clip of a recording lies, in seconds from its beginning."""
    starts = [number * CLIP_SPAN for number in range(place.clips)]
    return list(zip(starts, [*starts[1:], max(place.duration, starts[-1])], strict=True))


def _length(stretches: Iterable[tuple[float, float]]) -> float:
    """Return how long stretches are together, what they share once."""
    total, done = 0.0, -1.0
    for start, stop in sorted(stretches):
        total += max(stop - max(start, done), 0.0)
        done = max(done, stop)
    return total
