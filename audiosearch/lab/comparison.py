"""Comparison of models by cross-validation, on splits that are honest.

Nothing is chosen on what is tested: networks are trained for a fixed number of epochs, and the
curves that are drawn for the tested fold play no part. Every sound is tested once a seed; accuracy
is the mean over sounds and seeds, with a 95 % bootstrap interval over what hangs together: groups,
and copies of a sound.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.errors import InvalidArgumentError
from audiosearch.lab.devices import refuse_processes
from audiosearch.lab.epoch_times import (
    EpochTimes,
    check_device_names,
    seconds_per_epoch,
    usable_devices,
)
from audiosearch.lab.feature_cache import FeatureCache, FeatureSet
from audiosearch.lab.folders import new_folder
from audiosearch.lab.inspection import find_copies
from audiosearch.lab.measures import accuracy_interval, measure, rightness
from audiosearch.lab.models import ModelSpec, get_model
from audiosearch.lab.networks import prepare_network
from audiosearch.lab.results import FoldResult, ModelResult
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import LabelledSound, SoundSet
from audiosearch.lab.splits import SplitPlan, plan_splits, related
from audiosearch.lab.tracking import Tracked, check_trackers, tracked
from audiosearch.lab.training import clip_length
from audiosearch.lab.trials import (
    FeatureSource,
    Trial,
    TrialResult,
    job_count,
    run_trials,
    score_ms,
)
from audiosearch.lab.usage import combined
from audiosearch.own.features import get_feature
from audiosearch.own.waveforms import ClipLength
from audiosearch.storage import write_json
from audiosearch.version import __version__

__all__ = ["Comparison", "compare"]

_WORTH_SECONDS = 60.0  # saved in training, for which a model is taken that is no worse
_MOST_WORSE = 0.05  # what it may be less accurate by
_ENOUGH_GROUPS = 5  # with fewer, what is chance cannot be told
_CURVES = ("loss", "validation_loss", "validation_accuracy", "learning_rate")


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
    groups : int64 (sounds,)
        What hangs together, and so is right or wrong together.
    untested : tuple of str
        Models that are not tested yet; in the report of a comparison that was stopped.
    epoch_times : EpochTimes or None
        How long an epoch takes on the devices that were asked for.
    """

    folder: Path
    sounds: SoundSet
    plan: SplitPlan
    seeds: tuple[int, ...]
    results: tuple[ModelResult, ...]
    groups: npt.NDArray[np.int64]
    untested: tuple[str, ...] = ()
    epoch_times: EpochTimes | None = None

    @property
    def advice(self) -> str:
        """Which model to take and why, in a sentence or two."""
        best = self.results[0]
        equals = [each for each in self.results if self._is_equal(each)]
        chosen = min(equals, key=lambda each: each.train_seconds)
        saved = best.train_seconds - chosen.train_seconds
        if saved < max(_WORTH_SECONDS, best.train_seconds / 2):
            text = f"Take {best.model}: it is the most accurate here ({best.accuracy:.1%})"
            others = [each.model for each in equals if each is not best]
            if others:
                text += f", though not by more than chance before {', '.join(others)}"
            return f"{text}."
        low, high = self.behind(chosen)
        return (
            f"Take {chosen.model} ({chosen.accuracy:.1%}): the most accurate, {best.model} "
            f"({best.accuracy:.1%}), is not better by more than chance (by {low:.1%} to "
            f"{high:.1%} of the sounds, 95 % interval), and takes "
            f"{best.train_seconds / max(chosen.train_seconds, 1e-3):,.0f} times as long to train."
        )

    def behind(self, result: ModelResult) -> tuple[float, float]:
        """Return the 95 % interval of how much less accurate a model is than the best one.

        It is that of the difference sound by sound, over the same groups: two models err on the
        same hard sounds, so this tells them apart where their own intervals overlap.
        """
        if result is self.results[0]:
            return 0.0, 0.0
        if len(np.unique(self.groups)) < 2:
            return -1.0, 1.0
        return accuracy_interval(self.results[0].right - result.right, groups=self.groups)

    def _is_equal(self, result: ModelResult) -> bool:
        """Tell whether a model may be as good as the best, and is not much worse if it is not."""
        low, high = self.behind(result)
        enough = len(np.unique(self.groups)) >= _ENOUGH_GROUPS
        return result is self.results[0] or (enough and low <= 0 and high <= _MOST_WORSE)

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
            "models": [
                each.to_dict() | {"behind": [round(value, 6) for value in self.behind(each)]}
                for each in self.results
            ],
            "untested": list(self.untested),
            "epoch_times": None if self.epoch_times is None else self.epoch_times.to_dict(),
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
    jobs: int | None = None,
    devices: Sequence[str] = (),
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
    jobs : int, optional
        How many trainings of networks run at once, each in a process of its own; where None, one a
        core, or one alone where a GPU trains.
    devices : sequence of str
        Of ``cpu`` and ``gpu``: in the end, take the time of an epoch of each network on each of
        these; one that is not there is said and left out.
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
        When there is no such model or device, or the split would not be honest.
    MissingDependencyError
        When a package is not installed.
    OtherProcessError
        When a process that trains is lost.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    """
    if not models or not seeds:
        raise InvalidArgumentError("Name at least one model and one seed.")
    refuse_processes("A comparison")
    # What is fitted at once comes first, while nothing else takes the processor.
    specs = sorted(map(get_model, dict.fromkeys(models)), key=lambda spec: spec.kind == "network")
    config = replace(config or LabConfig(), validation=0.0, patience=0)
    job_count(jobs, config, 0)
    devices = check_device_names(devices)
    check_trackers(track)
    sounds.check_trainable()
    results: list[ModelResult] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(new_folder(out, unless="report.json"))
        length = clip_length(sounds, config)
        store = stack.enter_context(FeatureCache(cache))
        sounds, keys, seconds = _filled(store, sounds, specs, length, on_sound)
        sounds.check_trainable()
        together = [each.rows for each in find_copies(sounds)]
        groups = related(sounds, together)
        plan = plan_splits(
            sounds, split=split, folds=folds, optimistic=optimistic, together=together
        )
        sources = {
            name: FeatureSource(
                store.path.parent, sounds, [known[sound] for sound in sounds.sounds]
            )
            for name, known in keys.items()
        }
        planned = [
            Trial(
                sources[spec.feature],
                each,
                replace(config, model=spec.name, seed=seed),
                keeps_graph=seed == seeds[0] and each is plan.splits[0],
            )
            for spec in specs
            # What is fitted at once does not depend on a seed.
            for seed in (seeds if spec.kind == "network" else seeds[:1])
            for each in plan.splits
        ]
        for spec in specs:
            prepare_network(spec.network)  # once, and not in each of several processes
        graphs: dict[str, bytes] = {}
        networks = sum(each.config.spec.kind == "network" for each in planned)
        answers = run_trials(planned, jobs=job_count(jobs, config, networks))
        stack.enter_context(contextlib.closing(answers))
        for number, spec in enumerate(specs, start=1):
            own = [each for each in planned if each.config.model == spec.name]
            with tracked(track, folder, spec.name, asdict(replace(config, model=spec.name))) as run:
                found_each = []
                for each in islice(answers, len(own)):
                    found_each.append(each)
                    if on_fold:
                        on_fold(spec.name, each.fold)
                graphs[spec.name] = found_each[0].graph
                results.append(_result(sounds, own, found_each, groups, seconds[spec.name]))
                _follow(run, results[-1])
            results.sort(key=lambda each: -each.accuracy)
            untested = tuple(each.name for each in specs[number:])
            found = Comparison(folder, sounds, plan, tuple(seeds), tuple(results), groups, untested)
            write_json(folder / "report.json", found.to_dict())
        # Times are taken alone on the machine: what trained for the comparison is ended.
        answers.close()
        speeds = {
            spec.name: score_ms(
                graphs[spec.name],
                FeatureSet(store, sounds, sources[spec.feature].keys, memory=0),
            )
            for spec in specs
        }
        timed = tuple(replace(each, score_ms=speeds[each.model]) for each in results)
        times = (
            _epoch_times(store, sources, plan, specs, config, devices)
            if devices
            else found.epoch_times
        )
        found = replace(found, results=timed, epoch_times=times)
        write_json(folder / "report.json", found.to_dict())
    from audiosearch.lab.report import write_report

    write_report(found)
    return found


def _filled(
    store: FeatureCache,
    sounds: SoundSet,
    specs: Sequence[ModelSpec],
    length: ClipLength,
    on_sound: Callable[[int, int], None] | None,
) -> tuple[SoundSet, dict[str, dict[LabelledSound, str]], dict[str, float]]:
    """Compute all features; return what sounds are left, by feature their keys, and the times.

    What one feature cannot be computed of is left out for all models, so this comes before the
    split.
    """
    keys: dict[str, dict[LabelledSound, str]] = {}
    seconds = dict.fromkeys((spec.name for spec in specs), 0.0)
    features = len({spec.feature for spec in specs})

    def show(done: int, total: int) -> None:
        if on_sound:
            on_sound(len(keys) * total + done, features * total)

    for spec in specs:
        if spec.feature not in keys:
            began = time.perf_counter()
            sounds, found = store.fill(sounds, get_feature(spec.feature), length, on_sound=show)
            keys[spec.feature] = dict(zip(sounds.sounds, found, strict=True))
            seconds[spec.name] = time.perf_counter() - began
    return sounds, keys, seconds


def _epoch_times(
    store: FeatureCache,
    sources: dict[str, FeatureSource],
    plan: SplitPlan,
    specs: Sequence[ModelSpec],
    config: LabConfig,
    asked: tuple[str, ...],
) -> EpochTimes:
    """Take the time of an epoch of each network, on the sounds that the first split trains on."""
    networks = [spec for spec in specs if spec.kind == "network"]
    usable = usable_devices(asked) if networks else ()
    seconds = {}
    for spec in networks:
        source = sources[spec.feature]
        features = FeatureSet(store, source.sounds, source.keys)
        own = replace(config, model=spec.name)
        seconds[spec.name] = seconds_per_epoch(features, plan.splits[0].train, own, usable)
    return EpochTimes(asked, usable, seconds)


def _follow(run: Tracked, result: ModelResult) -> None:
    """Log the mean over folds and seeds of each epoch, and what it all came to."""
    for step, epochs in enumerate(zip(*(fold.epochs for fold in result.folds), strict=True), 1):
        run.log(step, {name: np.mean([each[name] for each in epochs]) for name in _CURVES})
    run.summarise(result.measures.figures() | {"train_seconds": result.train_seconds})


def _result(
    sounds: SoundSet,
    planned: Sequence[Trial],
    trained: Sequence[TrialResult],
    groups: npt.NDArray[np.int64],
    feature_seconds: float,
) -> ModelResult:
    truth = sounds.targets()
    seeds = list(dict.fromkeys(each.config.seed for each in planned))
    scores = np.zeros((len(seeds), len(sounds), len(sounds.classes)), np.float32)
    for wanted, given in zip(planned, trained, strict=True):
        scores[seeds.index(wanted.config.seed), wanted.split.test] = given.scores
    right = np.stack([rightness(truth, each, sounds) for each in scores])
    mean = scores.mean(axis=0)
    folds = [each.fold for each in trained]
    layers = trained[-1].layers
    return ModelResult(
        planned[0].config.model,
        measure(truth, mean, sounds),
        float(right.mean()),
        accuracy_interval(right.mean(axis=0), groups=groups),
        right.mean(axis=1).tolist(),
        folds,
        feature_seconds,
        sum(each.seconds for each in folds),
        None,
        sum(int(layer["parameters"]) for layer in layers),
        layers,
        combined([(each.began, each.usage) for each in trained]),
        mean,
        right.mean(axis=0),
    )
