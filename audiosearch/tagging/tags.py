"""The best classes of sound files, and of rows of packed files.

A file's score for a class is the maximum over its clips.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.clip_scorer import load_clip_scorer
from audiosearch.datasets.packed import PackedFile
from audiosearch.embedders import embedder_hash
from audiosearch.errors import AudioError, InvalidArgumentError, printable
from audiosearch.jobs import Analysis, Analyzer, AnalyzerSettings, WorkerPool, core_count
from audiosearch.labels import CLASS_COUNT, load_labels
from audiosearch.library.hits import Tag, tags_to_dicts
from audiosearch.library.scoring import packed_by
from audiosearch.own.classifier import load_classifiers
from audiosearch.tagging.rules import TagRules, name_of

__all__ = ["TagResult", "tag", "tag_files", "tag_packed"]


@dataclass(frozen=True)
class TagResult:
    """What is heard in a file, or in one row of a packed file.

    Attributes
    ----------
    path : str
        The file as the caller named it.
    start, end : float
        In seconds: the whole file, or where the row's clip lies in its video.
    tags : list of Tag
        Best first.
    recording : str or None
        YouTube id of a packed row.
    clip : int or None
        The packed row.
    labels : list of str or None
        True classes of a packed row, where known.
    """

    path: str
    start: float
    end: float
    tags: list[Tag]
    recording: str | None = None
    clip: int | None = None
    labels: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values; the keys of a packed row only where it is one."""
        result: dict[str, Any] = {
            "path": printable(self.path),
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "tags": tags_to_dicts(self.tags),
        }
        if self.clip is not None:
            result |= {"recording": self.recording, "clip": self.clip, "labels": self.labels}
        return result


Folders: TypeAlias = Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None


def tag(
    path: str | os.PathLike[str],
    *,
    top: int = 5,
    embedder: str = "lite",
    classifier: Folders = None,
) -> TagResult:
    """Return the `top` best classes of a sound file.

    Parameters
    ----------
    path : path-like
        The file.
    top : int
        How many classes.
    embedder : str
        What embeds it.
    classifier : path-like, or several, optional
        Folders that `audiosearch lab train` wrote: their classes are tags too, beside AudioSet's.

    Raises
    ------
    AudioError
        When the file is missing, unreadable or empty.
    InvalidArgumentError
        When `top` is not from 1 to 527, or two classifiers have a class of one name.
    ModelError
        When a folder holds no classifier, or one that this version cannot use.
    """
    _check_top(top)
    settings = AnalyzerSettings(embedder=embedder, own=folder_names(classifier))
    return from_analysis(Analyzer(settings).analyze(path), top=top)


def tag_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    top: int = 5,
    embedder: str = "lite",
    workers: int | None = None,
    rules: TagRules | None = None,
    classifier: Folders = None,
) -> Iterator[TagResult | AudioError]:
    """Tag files in worker processes that survive a broken decoder.

    Parameters
    ----------
    paths : iterable of path-like
        Sound files.
    top : int
        How many classes a file gets.
    embedder : str
        What embeds them.
    workers : int, optional
        How many processes; one a core where None.
    rules : TagRules, optional
        Which tags, in place of `top`: also per clip or per segment, a threshold, some classes only.
    classifier : path-like, or several, optional
        Folders that `audiosearch lab train` wrote: their classes are tags too, beside AudioSet's.

    Returns
    -------
    iterator of TagResult or AudioError
        In the order of `paths`: the tags, or why there are none; several results a file where
        `rules` ask for clips or segments.

    Raises
    ------
    InvalidArgumentError
        When `top` is not from 1 to 527, `workers` is less than 1, or two classifiers have a class
        of one name.
    ModelError
        When a folder holds no classifier; while iterating, when there is no such embedder.
    """
    _check_top(top)
    if workers is not None and workers < 1:
        raise InvalidArgumentError(f"workers must be at least 1, not {workers}.")
    names = [os.fspath(path) for path in paths]
    count = min(core_count(), len(names)) if workers is None else workers
    own = folder_names(classifier)
    load_classifiers(own)  # here, where it raises
    settings = AnalyzerSettings(embedder=embedder, own=own, reduction=rules or TagRules(top=top))
    return _tag_files(names, settings, count)


def _tag_files(
    names: list[str], settings: AnalyzerSettings, workers: int
) -> Iterator[TagResult | AudioError]:
    if not names:
        return
    # Once here, where it raises, and where it converts a model that was just fetched.
    embedder_hash(settings.embedder)
    with WorkerPool(settings, workers=workers) as pool:
        result: Any
        for result in pool.map(names):
            if isinstance(result, AudioError):
                yield result
                continue
            for start, end, tags in result.value:
                named = [Tag(*name_of(key), score) for key, score in tags]
                yield TagResult(result.path, start, end, named)


def tag_packed(path: str | os.PathLike[str], row: int, *, top: int = 5) -> TagResult:
    """Return the `top` best classes of one row of a packed file.

    Raises
    ------
    DataError
        When the file is not as it must be.
    InvalidArgumentError
        When there is no such row, or `top` is not from 1 to 527.
    """
    _check_top(top)
    with PackedFile(path) as file:
        if not 0 <= row < len(file):
            raise InvalidArgumentError(
                f"{printable(os.fspath(path))} has no row {row}; its rows are 0 to {len(file) - 1}."
            )
        rows = file.read(row, row + 1)
        start, end = file.times()[row]
        recording = file.video_ids()[row]
        scorer = load_clip_scorer(*packed_by(file))
    scores = scorer.score(rows.x, rows.n_frames)[0]
    labels = None
    if rows.y is not None:
        labels = [load_labels()[int(i)].name for i in np.flatnonzero(rows.y[0])]
    return TagResult(
        os.fspath(path), float(start), float(end), best_tags(scores, top), recording, row, labels
    )


def from_analysis(analysis: Analysis, *, top: int = 5) -> TagResult:
    """Return the `top` best classes of an analysed file."""
    _check_top(top)
    own = [
        pair
        for track in analysis.own
        for pair in zip(track.classes, track.best().tolist(), strict=True)
    ]
    tags = best_tags(analysis.scores.max(axis=0), top, own)
    return TagResult(analysis.path, 0.0, analysis.duration, tags)


def best_tags(
    scores: npt.NDArray[np.floating], top: int, own: Iterable[tuple[str, float]] = ()
) -> list[Tag]:
    """Return the `top` best classes of scores (527,) and of own classes, best first.

    Of equals the first class comes first.
    """
    return [Tag(*name_of(key), score) for key, score in TagRules(top=top).best(scores, own)]


def folder_names(folders: Folders) -> tuple[str, ...]:
    """Return folders that may be given as one, as several or as none."""
    if folders is None:
        return ()
    listed = [folders] if isinstance(folders, str | os.PathLike) else folders
    return tuple(os.fspath(folder) for folder in listed)


def _check_top(top: int) -> None:
    if not 1 <= top <= CLASS_COUNT:
        raise InvalidArgumentError(f"top must be from 1 to {CLASS_COUNT}, not {top}.")
