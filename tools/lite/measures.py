"""How good an embedder is: the bars of the bundled one, beside YAMNet on the same clips.

Nothing here trains, tunes or selects: the tests are read only by this module.

=========== ====================================================================================
top 5       sounds of known class: how often one of the right classes is among the five best of
            527, by the scores that users get; by those of the classifier alone; and by YAMNet's
            mean score
AP          the same sounds, in the order of their score for a class: average precision, the mean
            over the classes that at least two of them have
ECE         the same scores beside YAMNet's: in 15 bins of equal width, how far the mean of a bin's
            scores is from the mean of YAMNet's, weighted by the bin's pairs of sound and class
R@10        clips of AudioSet whose released embedding is known: how often it is among the ten
            nearest of all released ones to the embedder's own, by the direction of the mean frame
probe       logistic regression on the mean frame, over the folds of the test set
=========== ====================================================================================
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch import audio, frontend
from audiosearch.classifier.clip_scorer import ClipScorer
from audiosearch.classifier.scorer import clip_frames
from audiosearch.embedders.base import quantize
from audiosearch.errors import DataError, printable
from audiosearch.labels import load_labels
from audiosearch.library.columns import search_vector
from audiosearch.metrics import average_precision
from audiosearch.models import onnx_session
from tools.lite.released import Pairs, Released
from tools.lite.teacher import Teacher

__all__ = [
    "Known",
    "NearestResult",
    "OnnxEmbedder",
    "TopResult",
    "calibration_error",
    "interval",
    "nearest_released",
    "order",
    "probe",
    "read_labelled",
    "top_classes",
    "wilson",
]

Embed = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]]
"""Patches (n, 96, 64) float32 to embeddings (n, 128) uint8."""

_TOP = 5
_NEAREST = 10
_YAMNET_HOP = 0.48
_RESAMPLES = 2000

ESC10_CLASSES: Mapping[str, tuple[str, ...]] = {
    "chainsaw": ("Chainsaw",),
    "clock_tick": ("Tick-tock", "Tick", "Clock"),
    "crackling_fire": ("Fire", "Crackle"),
    "crying_baby": ("Baby cry, infant cry", "Crying, sobbing"),
    "dog": ("Dog", "Bark"),
    "helicopter": ("Helicopter",),
    "rain": ("Rain", "Raindrop", "Rain on surface"),
    "rooster": ("Chicken, rooster", "Crowing, cock-a-doodle-doo"),
    "sea_waves": ("Waves, surf", "Ocean"),
    "sneezing": ("Sneeze",),
}
"""ESC-10's classes as AudioSet's."""


class OnnxEmbedder:
    """An embedder from any ONNX file with patches as input and values in [-1, 1] as output.

    Parameters
    ----------
    path : path-like
        The file.
    threads : int
        Threads for a batch.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 2) -> None:
        self._session = onnx_session(path, name=os.fspath(path), threads=threads)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, log_mel: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Embed patches (n, 96, 64); return (n, 128)."""
        parts = [
            quantize(self._session.run(None, {self._input: log_mel[begin : begin + 16]})[0])
            for begin in range(0, len(log_mel), 16)
        ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class Known:
    """A recording of known class.

    Attributes
    ----------
    path : Path
        The file.
    classes : tuple of int
        Indices of the classes that are right.
    group : str
        What it is called in the table.
    fold : int
        Official fold; 0 where there is none.
    """

    path: Path
    classes: tuple[int, ...]
    group: str
    fold: int = 0


def read_labelled(path: Path, folder: Path) -> list[Known]:
    """Read recordings from a CSV with the columns ``file`` and ``accepted_class``, a row a class.

    Raises
    ------
    DataError
        When the file cannot be read or names an unknown class.
    """
    labels = load_labels()
    classes: dict[str, list[int]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                index = labels.by_name(row["accepted_class"]).index
                classes.setdefault(row["file"], []).append(index)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error}") from error
    return [
        Known(folder / name, tuple(found), labels[found[0]].name) for name, found in classes.items()
    ]


def read_esc10(folder: Path) -> list[Known]:
    """Read ESC-10 in ESC-50's layout, with its classes as AudioSet's."""
    labels = load_labels()
    with (folder / "meta" / "esc50.csv").open(newline="", encoding="utf-8") as file:
        return [
            Known(
                folder / "audio" / row["filename"],
                tuple(labels.by_name(name).index for name in ESC10_CLASSES[row["category"]]),
                row["category"],
                int(row["fold"]),
            )
            for row in csv.DictReader(file)
            if row["category"] in ESC10_CLASSES
        ]


@dataclass(frozen=True)
class TopResult:
    """How often a right class was among the five best, by group.

    Attributes
    ----------
    ours, plain, theirs : dict of str to list of bool
        Hits of the embedder with the scores that users get, with those of the classifier alone, and
        of YAMNet, by group.
    order : dict of str to float
        Average precision of the recordings' order by class, of the same three by name.
    classes : int
        How many classes it is the mean over.
    error : dict of str to float
        Calibration error of ``ours`` and ``plain`` beside YAMNet's scores.
    """

    ours: dict[str, list[bool]] = field(default_factory=dict)
    plain: dict[str, list[bool]] = field(default_factory=dict)
    theirs: dict[str, list[bool]] = field(default_factory=dict)
    order: dict[str, float] = field(default_factory=dict)
    classes: int = 0
    error: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of recordings that the embedder got right."""
        return _share(self.ours)

    @property
    def plain_share(self) -> float:
        """Share of recordings that it got right without a rescorer."""
        return _share(self.plain)

    @property
    def their_share(self) -> float:
        """Share of recordings that YAMNet got right."""
        return _share(self.theirs)


def _share(hits: Mapping[str, Sequence[bool]]) -> float:
    every = [hit for group in hits.values() for hit in group]
    return float(np.mean(every)) if every else float("nan")


def top_classes(
    known: Sequence[Known], embed: Embed, scorer: ClipScorer, teacher: Teacher | None
) -> tuple[TopResult, npt.NDArray[np.float32]]:
    """Measure the top 5 on recordings, and return their mean frames for the probe.

    Of a recording longer than 10 s the mean over its clips counts; for the order by a class the
    largest, as in a search. YAMNet's scores are the mean over patches every 0.48 s, as its authors
    use it.

    Returns
    -------
    result : TopResult
    means : float32 (recordings, 128)
        Values (uint8 - 128) / 128.
    """
    found: dict[str, list[npt.NDArray[np.float32]]] = {"ours": [], "plain": [], "theirs": []}
    mean: dict[str, list[npt.NDArray[np.float32]]] = {"ours": [], "plain": []}
    result = TopResult()
    means = np.zeros((len(known), 128), np.float32)
    for place, item in enumerate(known):
        waveform = audio.load(item.path)
        frames = embed(np.concatenate(list(frontend.patches(waveform))))
        means[place] = ((frames.astype(np.float32) - 128) / 128).mean(axis=0)
        clips = clip_frames(frames)
        for name, hits, scores in (
            ("ours", result.ours, scorer.score(*clips)),
            ("plain", result.plain, scorer.scorer.score_calibrated(*clips)),
        ):
            mean[name].append(scores.mean(axis=0))
            hits.setdefault(item.group, []).append(_is_hit(mean[name][-1], item.classes))
            found[name].append(scores.max(axis=0))
        if teacher is not None:
            patches = np.concatenate(list(frontend.patches(waveform, hop=_YAMNET_HOP)))
            theirs = teacher.answer(patches)[1].mean(axis=0)
            result.theirs.setdefault(item.group, []).append(_is_hit(theirs, item.classes))
            found["theirs"].append(theirs)
    orders = {name: order(known, np.array(rows)) for name, rows in found.items() if rows}
    return (
        replace(
            result,
            order={name: value for name, (value, _) in orders.items()},
            classes=orders["ours"][1] if orders else 0,
            error={
                name: calibration_error(np.array(rows), np.array(found["theirs"]))
                for name, rows in mean.items()
                if found["theirs"]
            },
        ),
        means,
    )


def order(known: Sequence[Known], scores: npt.NDArray[np.float32]) -> tuple[float, int]:
    """Return how good the order of recordings by a class's score is, and of how many classes.

    Classes that are right for the same recordings count as one, by the highest of their scores.

    Parameters
    ----------
    known : sequence of Known
        The recordings.
    scores : float32 (recordings, 527)
        Their scores.

    Returns
    -------
    precision : float
        Average precision, the mean over classes that at least two recordings have; NaN without.
    classes : int
    """
    values = []
    for classes in sorted({item.classes for item in known}):
        right = np.array([bool(set(classes) & set(item.classes)) for item in known])
        if right.sum() >= 2:
            best = scores[:, list(classes)].max(axis=1)
            values.append(float(average_precision(right[:, None], best[:, None])[0]))
    return float(np.mean(values)) if values else float("nan"), len(values)


def _is_hit(scores: npt.NDArray[np.float32], classes: Sequence[int]) -> bool:
    return bool(set(np.argsort(-scores, kind="stable")[:_TOP].tolist()) & set(classes))


def calibration_error(
    scores: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], *, bins: int = 15
) -> float:
    """Return how far scores are from those of another, bin by bin; 0 where they are the same.

    Parameters
    ----------
    scores, theirs : float32 (recordings, classes)
        From 0 to 1.
    bins : int
        Bins of equal width that `scores` are put into.
    """
    places = np.minimum((scores * bins).astype(np.int64), bins - 1).ravel()
    off = np.bincount(places, weights=(scores - theirs).ravel().astype(np.float64), minlength=bins)
    return float(np.abs(off).sum() / scores.size)


@dataclass(frozen=True)
class NearestResult:
    """At which rank each pair's own released embedding was found; 1 is the nearest."""

    ranks: npt.NDArray[np.int64]

    @property
    def recall(self) -> float:
        """Share of pairs whose own embedding is among the ten nearest."""
        return float((self.ranks <= _NEAREST).mean())

    @property
    def median(self) -> float:
        """Median rank."""
        return float(np.median(self.ranks))


def nearest_released(
    pairs: Pairs, released: Released, embed: Embed | Sequence[Embed]
) -> NearestResult:
    """Measure at which rank each pair finds its own released embedding.

    Parameters
    ----------
    pairs : Pairs
        The clips.
    released : Released
        What is searched, all of it.
    embed : callable, or five of them
        The embedder; or one a fold, that was not trained on the fold's pairs.
    """
    embedders = list(embed) if isinstance(embed, Sequence) else [embed] * 5
    vectors = released.vectors()
    ranks = np.empty(len(pairs), np.int64)
    for index in range(len(pairs)):
        log_mel, _ = pairs.patches(index)
        cosines = vectors @ search_vector(embedders[int(pairs.fold[index])](log_mel))
        ranks[index] = 1 + int((cosines > cosines[pairs.row[index]]).sum())
    return NearestResult(ranks)


def probe(means: npt.NDArray[np.float32], known: Sequence[Known]) -> tuple[float, dict[str, float]]:
    """Return the accuracy of a linear probe over the official folds, in all and by group.

    Logistic regression (C = 1) on standardised mean frames; nothing of it is tuned.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    groups = np.array([item.group for item in known])
    folds = np.array([item.fold for item in known])
    right = np.zeros(len(known), bool)
    for fold in np.unique(folds):
        held_out = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(means[~held_out], groups[~held_out])
        right[held_out] = model.predict(means[held_out]) == groups[held_out]
    by_group = {str(group): float(right[groups == group].mean()) for group in np.unique(groups)}
    return float(right.mean()), by_group


def wilson(hits: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's confidence interval (95 %) of a share."""
    if not total:
        return 0.0, 1.0
    share = hits / total
    centre = share + z * z / (2 * total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return float((centre - half) / scale), float((centre + half) / scale)


def interval(ours: Sequence[bool], theirs: Sequence[bool], *, seed: int = 0) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the ratio of two shares on the same recordings."""
    both = np.array([ours, theirs], float)
    drawn = np.random.default_rng(seed).integers(0, both.shape[1], (_RESAMPLES, both.shape[1]))
    shares = both[:, drawn].mean(axis=2)
    ratios = shares[0] / np.maximum(shares[1], 1e-9)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
