"""Comparison of models by cross-validation, on splits that are honest.

Nothing is chosen on what is tested: networks are trained for a fixed number of epochs, and the
curves that are drawn for the tested fold play no part. Every sound is tested once a seed; accuracy
is the mean over sounds and seeds, with a 95 % bootstrap interval over what hangs together: groups,
and copies of a sound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import metrics
from audiosearch.errors import InvalidArgumentError, StorageError, printable
from audiosearch.lab.feature_cache import FeatureCache, FeatureSet
from audiosearch.lab.fits import Fit
from audiosearch.lab.fitting import fit_model
from audiosearch.lab.inspection import find_copies
from audiosearch.lab.measures import Measures, accuracy_interval, measure
from audiosearch.lab.models import get_model
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import LabelledSound, SoundSet
from audiosearch.lab.splits import Split, SplitPlan, plan_splits, related
from audiosearch.lab.tracking import Tracked, check_trackers, tracked
from audiosearch.lab.training import clip_length, scores_of
from audiosearch.lab.usage import Usage, UsageSample
from audiosearch.own.features import get_feature
from audiosearch.storage import storage_errors, write_json
from audiosearch.version import __version__

__all__ = ["Comparison", "FoldResult", "ModelResult", "compare", "cross_validated_scores"]

_TIMED_CLIPS = 16
_CURVES = ("loss", "validation_loss", "validation_accuracy", "learning_rate")


@dataclass(frozen=True)
class FoldResult:
    """One training and its test."""

    split: str
    seed: int
    accuracy: float
    seconds: float
    epochs: list[dict[str, Any]]


@dataclass(frozen=True)
class ModelResult:
    """A model's results over all splits and seeds.

    Attributes
    ----------
    model : str
        Its name.
    measures : Measures
        Over all tested sounds; where there are several seeds, of their mean scores.
    accuracy : float
        Mean over sounds and seeds.
    interval : (float, float)
        95 % bootstrap interval of it over groups of sounds that hang together.
    seed_accuracies : list of float
        Of each seed; one where nothing depends on it.
    folds : list of FoldResult
        Each training.
    feature_seconds, train_seconds : float
        Time to compute what features were not there yet, and to train all folds of all seeds.
    score_ms : float
        Time to score one clip's features, in a batch of 16, with ONNX Runtime.
    parameters : int
        How many numbers the model has.
    layers : list of dict
        Layers, shapes, parameters.
    usage : list of UsageSample
        Cores and memory of the process during the training, over time.
    scores : float32 (sounds, classes)
        The mean over seeds of the scores that each sound had when it was tested.
    """

    model: str
    measures: Measures
    accuracy: float
    interval: tuple[float, float]
    seed_accuracies: list[float]
    folds: list[FoldResult]
    feature_seconds: float
    train_seconds: float
    score_ms: float
    parameters: int
    layers: list[dict[str, Any]]
    usage: list[UsageSample]
    scores: npt.NDArray[np.float32]

    @property
    def peak_mb(self) -> float:
        """The most memory that was taken during the training."""
        return max(each.memory_mb for each in self.usage)

    @property
    def cores(self) -> float:
        """How many cores were busy on average."""
        spans = np.diff([0.0, *(each.seconds for each in self.usage)])
        return float(np.average([each.cores for each in self.usage], weights=spans + 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without the scores of each sound."""
        return {
            "model": self.model,
            "accuracy": round(self.accuracy, 6),
            "interval": [round(value, 6) for value in self.interval],
            "seed_accuracies": [round(value, 6) for value in self.seed_accuracies],
            "measures": self.measures.to_dict(),
            "feature_seconds": round(self.feature_seconds, 2),
            "train_seconds": round(self.train_seconds, 2),
            "score_ms": round(self.score_ms, 4),
            "parameters": self.parameters,
            "peak_mb": round(self.peak_mb),
            "usage": [
                {name: round(value, 2) for name, value in asdict(each).items()}
                for each in self.usage
            ],
            "layers": self.layers,
            "folds": [asdict(fold) for fold in self.folds],
        }


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    folder : Path
        Where the report lies.
    sounds : SoundSet
        What was tested on, without what could not be read.
    plan : SplitPlan
        How it was divided.
    seeds : tuple of int
        The seeds.
    results : tuple of ModelResult
        Of each model, best accuracy first.
    untested : tuple of str
        Models that are not tested yet; in the report of a comparison that was stopped.
    """

    folder: Path
    sounds: SoundSet
    plan: SplitPlan
    seeds: tuple[int, ...]
    results: tuple[ModelResult, ...]
    untested: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """Which model to take and why, in a sentence or two."""
        best = self.results[0]
        # Whatever cannot be told from the best by its interval, and is quicker to train.
        equals = [each for each in self.results if each.accuracy >= best.interval[0]]
        chosen = min(equals, key=lambda each: each.train_seconds)
        if chosen is best:
            text = f"Take {best.model}: it is the most accurate here ({best.accuracy:.1%})"
            return text + (", and none as good trains faster." if len(equals) > 1 else ".")
        return (
            f"Take {chosen.model} ({chosen.accuracy:.1%}): the most accurate, {best.model} "
            f"({best.accuracy:.1%}), is not better by more than chance (95 % interval "
            f"{best.interval[0]:.1%} to {best.interval[1]:.1%}), and takes "
            f"{best.train_seconds / max(chosen.train_seconds, 1e-3):,.0f} times as long to train."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "audiosearch": __version__,
            "data": Path(self.sounds.name).name,
            "sounds": len(self.sounds),
            "classes": self.sounds.counts(),
            "split": self.plan.kind,
            "optimistic": self.plan.optimistic,
            "split_description": self.plan.description,
            "seeds": list(self.seeds),
            "advice": self.advice,
            "models": [each.to_dict() for each in self.results],
            "untested": list(self.untested),
            "skipped": [list(each) for each in self.sounds.skipped],
        }


def compare(
    sounds: SoundSet,
    models: Sequence[str],
    out: str | os.PathLike[str],
    *,
    config: LabConfig | None = None,
    split: str = "auto",
    folds: int = 5,
    optimistic: bool = False,
    seeds: Sequence[int] = (0,),
    cache: str | os.PathLike[str] | None = None,
    track: Sequence[str] = (),
    on_sound: Callable[[int, int], None] | None = None,
    on_fold: Callable[[str, FoldResult], None] | None = None,
) -> Comparison:
    """Test models by cross-validation and write a report.

    ``report.json`` is written anew after each model, so that what was tested is kept whatever
    becomes of the next.

    Parameters
    ----------
    sounds : SoundSet
        Labelled sounds.
    models : sequence of str
        Names of models.
    out : path-like
        Folder for ``report.html`` and ``report.json``; it must not exist, or be empty.
    config : LabConfig, optional
        Settings of all trainings; its model, validation and seed play no part.
    split, folds, optimistic
        As `audiosearch.lab.plan_splits` takes them.
    seeds : sequence of int
        Train every network once with each; what is fitted at once does not depend on it.
    cache : path-like, optional
        Folder for features.
    track : sequence of str
        Tools that get a run for each model, of `audiosearch.lab.tracking.TRACKERS`.
    on_sound : callable, optional
        Called with how many sounds' features are there, and how many there are.
    on_fold : callable, optional
        Called with a model's name and each `FoldResult`.

    Raises
    ------
    DataError
        When the sounds are too few, or training diverges.
    InvalidArgumentError
        When there is no such model, or the split would not be honest.
    MissingDependencyError
        When a package is not installed.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    """
    if not models or not seeds:
        raise InvalidArgumentError("Name at least one model and one seed.")
    specs = [get_model(name) for name in dict.fromkeys(models)]
    check_trackers(track)
    sounds.check_trainable()
    folder = Path(out)
    with storage_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(
                f"{printable(str(folder))} exists already. Name a new folder with --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
    config = replace(config or LabConfig(), validation=0.0, patience=0)
    length = clip_length(sounds, config)
    results: list[ModelResult] = []
    with FeatureCache(cache) as store:
        keys: dict[str, dict[LabelledSound, str]] = {}
        seconds = dict.fromkeys((spec.name for spec in specs), 0.0)
        # What one feature cannot be computed of is left out for all models, so all features come
        # before the split.
        for spec in specs:
            if spec.feature not in keys:
                began = time.perf_counter()
                feature = get_feature(spec.feature)
                sounds, found_keys = store.fill(sounds, feature, length, on_sound=on_sound)
                keys[spec.feature] = dict(zip(sounds.sounds, found_keys, strict=True))
                seconds[spec.name] = time.perf_counter() - began
        sounds.check_trainable()
        together = [each.rows for each in find_copies(sounds)]
        groups = related(sounds, together)
        plan = plan_splits(
            sounds, split=split, folds=folds, optimistic=optimistic, together=together
        )
        for number, spec in enumerate(specs, start=1):
            own_keys = [keys[spec.feature][sound] for sound in sounds.sounds]
            features = FeatureSet(store, sounds, own_keys)
            own = replace(config, model=spec.name)
            # What is fitted at once does not depend on a seed.
            own_seeds = seeds if spec.kind == "network" else seeds[:1]
            with tracked(track, folder, spec.name, asdict(own)) as run:
                results.append(
                    _tested(features, plan, groups, own, own_seeds, seconds[spec.name], on_fold)
                )
                _follow(run, results[-1])
            results.sort(key=lambda each: -each.accuracy)
            untested = tuple(each.name for each in specs[number:])
            found = Comparison(folder, sounds, plan, tuple(seeds), tuple(results), untested)
            write_json(folder / "report.json", found.to_dict())
    from audiosearch.lab.report import write_report

    write_report(found)
    return found


def _follow(run: Tracked, result: ModelResult) -> None:
    """Log the mean over folds and seeds of each epoch, and what it all came to."""
    for step, epochs in enumerate(zip(*(fold.epochs for fold in result.folds), strict=True), 1):
        run.log(step, {name: np.mean([each[name] for each in epochs]) for name in _CURVES})
    run.summarise(result.measures.figures() | {"train_seconds": result.train_seconds})


def _tested(
    features: FeatureSet,
    plan: SplitPlan,
    groups: npt.NDArray[np.int64],
    config: LabConfig,
    seeds: Sequence[int],
    feature_seconds: float,
    on_fold: Callable[[str, FoldResult], None] | None,
) -> ModelResult:
    sounds, began = features.sounds, time.perf_counter()
    truth = sounds.targets()
    scores = np.zeros((len(seeds), len(sounds), len(sounds.classes)), np.float32)
    folds: list[FoldResult] = []
    fit: Fit | None = None
    with Usage() as usage:
        for place, seed in enumerate(seeds):
            for split in plan.splits:
                result, fit = _fold(features, split, replace(config, seed=seed), scores[place])
                folds.append(result)
                if on_fold:
                    on_fold(config.model, result)
    train_seconds = time.perf_counter() - began
    assert fit is not None
    right = np.stack([_rightness(truth, each, sounds) for each in scores])
    mean = scores.mean(axis=0)
    return ModelResult(
        config.model,
        measure(truth, mean, sounds),
        float(right.mean()),
        accuracy_interval(right.mean(axis=0), groups=groups),
        right.mean(axis=1).tolist(),
        folds,
        feature_seconds,
        train_seconds,
        _score_ms(fit, features),
        fit.parameters,
        fit.layers,
        usage.samples,
        mean,
    )


def cross_validated_scores(
    features: FeatureSet, plan: SplitPlan, config: LabConfig
) -> npt.NDArray[np.float32]:
    """Return the scores of each sound by a model that did not hear it, float32 (sounds, classes).

    Parameters
    ----------
    features : FeatureSet
        What the model takes.
    plan : SplitPlan
        Splits in which every sound is tested once.
    config : LabConfig
        The model, with a validation of 0.
    """
    scores = np.zeros((len(features), len(features.sounds.classes)), np.float32)
    for split in plan.splits:
        _fold(features, split, config, scores)
    return scores


def _fold(
    features: FeatureSet, split: Split, config: LabConfig, scores: npt.NDArray[np.float32]
) -> tuple[FoldResult, Fit]:
    """Train on a split, fill in the scores of what it tests on, and return both."""
    began = time.perf_counter()
    fit = fit_model(features, split.train, split.test, config)
    scores[split.test] = scores_of(fit, features, split.test)
    truth = features.sounds.targets()[split.test]
    right = _rightness(truth, scores[split.test], features.sounds)
    seconds = time.perf_counter() - began
    epochs = [asdict(each) for each in fit.epochs]
    return FoldResult(split.name, config.seed, float(right.mean()), seconds, epochs), fit


def _rightness(
    truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], sounds: SoundSet
) -> npt.NDArray[np.float64]:
    """Return whether each sound was right; of several classes the share of right decisions."""
    wanted, given = metrics.validate(truth, scores)
    if sounds.multi_label:
        return ((given >= 0.5) == wanted).mean(axis=1)
    return wanted[np.arange(len(wanted)), given.argmax(axis=1)].astype(np.float64)


def _score_ms(fit: Fit, features: FeatureSet) -> float:
    """Return how long one clip takes, as the median of several batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        fit.write().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    clips = features.take(np.arange(_TIMED_CLIPS) % len(features))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        session.run(None, {"clip": clips})
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) / _TIMED_CLIPS * 1000
