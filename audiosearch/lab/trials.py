"""Trials of a comparison, each a training and its test: in turn, or several at once.

A process holds one trial at a time and as many threads as leave no core idle: the cores divided
by the processes. A small network keeps one core busy and hardly a second one, so several at once
take less time than several threads in one. The processes are joblib's, so a script that uses the
API needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.devices import has_gpu
from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError, MissingDependencyError, OtherProcessError
from audiosearch.jobs.pool import core_count
from audiosearch.lab.feature_cache import IN_MEMORY, FeatureCache, FeatureSet
from audiosearch.lab.fits import Fit
from audiosearch.lab.fitting import fit_model
from audiosearch.lab.measures import rightness
from audiosearch.lab.results import FoldResult
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import SoundSet
from audiosearch.lab.splits import Split, SplitPlan
from audiosearch.lab.training import scores_of
from audiosearch.lab.usage import Usage, UsageSample, free_memory_mb
from audiosearch.storage import Closing

__all__ = [
    "FeatureSource",
    "Trial",
    "TrialResult",
    "cross_validated_scores",
    "job_count",
    "run_trials",
    "score_ms",
]

_TIMED_CLIPS = 16
_PROCESS_MB = 2000
"""What a process may come to: a backend of Keras, a network in training, its share of features."""


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Where a process finds the features of a set.

    Attributes
    ----------
    folder : Path
        Of the cache.
    sounds : SoundSet
        The set.
    keys : list of str
        What the cache finds each sound's feature by.
    """

    folder: Path
    sounds: SoundSet
    keys: list[str]


@dataclass(frozen=True)
class Trial:
    """A training to be done, and what it is tested on.

    Attributes
    ----------
    source : FeatureSource
        The features.
    split : Split
        What to learn from, and what to test on.
    config : LabConfig
        Settings.
    keeps_graph : bool
        Whether the fitted model is wanted, too.
    """

    source: FeatureSource
    split: Split
    config: LabConfig
    keeps_graph: bool = False


@dataclass(frozen=True)
class TrialResult:
    """What a training gave.

    Attributes
    ----------
    fold : FoldResult
        Its figures.
    scores : float32 (tested sounds, classes)
        Of the sounds it was tested on.
    graph : bytes
        The fitted model as ONNX, where it is wanted.
    layers : list of dict
        Layers, shapes, parameters.
    began : float
        When it began, in seconds of the system's clock.
    usage : list of UsageSample
        Cores and memory of its process over time.
    """

    fold: FoldResult
    scores: npt.NDArray[np.float32]
    graph: bytes
    layers: list[dict[str, Any]]
    began: float
    usage: list[UsageSample]


def job_count(jobs: int | None, config: LabConfig, networks: int) -> int:
    """Return how many trainings run at once.

    Parameters
    ----------
    jobs : int or None
        What was asked for. Where None: one a core, as far as there is memory for them, or one alone
        where a GPU trains.
    config : LabConfig
        Settings of the trainings.
    networks : int
        How many trainings of networks there are; what is fitted at once takes no process.

    Raises
    ------
    InvalidArgumentError
        When less than one is asked for.
    """
    if jobs is not None and jobs < 1:
        raise InvalidArgumentError(f"jobs must be at least 1, not {jobs}.")
    if networks < 2:
        return 1
    if jobs is None:
        on_gpu = config.device == "gpu" or (config.device == "auto" and has_gpu())
        jobs = 1 if on_gpu else core_count()
        free = free_memory_mb()
        if free is not None:
            jobs = max(1, min(jobs, int(free / _PROCESS_MB)))
    return min(jobs, networks)


def run_trials(trials: Sequence[Trial], *, jobs: int) -> Generator[TrialResult, None, None]:
    """Yield what each trial gives, in their order.

    Parameters
    ----------
    trials : sequence of Trial
        What to train and test. Networks are trained in processes where `jobs` is above 1.
    jobs : int
        How many at once. joblib's shared processes are ended afterwards.

    Raises
    ------
    DataError
        When a training diverges.
    MissingDependencyError
        When joblib is not installed.
    OtherProcessError
        When a process is lost.
    """
    apart = [each for each in trials if jobs > 1 and each.config.spec.kind == "network"]
    with _Opened(IN_MEMORY) as opened, contextlib.closing(_in_processes(apart, jobs)) as others:
        for trial in trials:
            if jobs > 1 and trial.config.spec.kind == "network":
                yield next(others)
            else:
                yield _run(opened.features(trial.source), trial)


def _tested(
    features: FeatureSet, split: Split, config: LabConfig
) -> tuple[FoldResult, Fit, npt.NDArray[np.float32]]:
    """Train on a split; return the figures, the model, and the scores of what it is tested on.

    Raises
    ------
    KeyboardInterrupt
        When Ctrl-C ended the training: half of one says nothing of a model.
    """
    began = time.perf_counter()
    fit = fit_model(features, split.train, split.test, config)
    if fit.interrupted:
        raise KeyboardInterrupt
    scores = scores_of(fit, features, split.test)
    truth = features.sounds.targets()[split.test]
    right = rightness(truth, scores, features.sounds)
    seconds = time.perf_counter() - began
    epochs = [asdict(each) for each in fit.epochs]
    return FoldResult(split.name, config.seed, float(right.mean()), seconds, epochs), fit, scores


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
        _, _, scores[split.test] = _tested(features, split, config)
    return scores


def score_ms(graph: bytes, features: FeatureSet) -> float:
    """Return how long a model, as ONNX, takes for one clip: the median of several batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    clips = features.take(np.arange(_TIMED_CLIPS) % len(features))
    times = []
    for _ in range(6):
        began = time.perf_counter()
        session.run(None, {"clip": clips})
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:])) / _TIMED_CLIPS * 1000


class _Opened(Closing):
    """The features that were last asked for, kept open.

    Parameters
    ----------
    memory : int
        Bytes that they may take; what is more stays on the disk.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._source: FeatureSource | None = None
        self._cache: FeatureCache | None = None
        self._features: FeatureSet | None = None

    def features(self, source: FeatureSource) -> FeatureSet:
        """Return the features of a source."""
        if self._features is None or not _same(source, self._source):
            self.close()
            self._source, self._cache = source, FeatureCache(source.folder)
            self._features = FeatureSet(
                self._cache, source.sounds, source.keys, memory=self._memory
            )
        return self._features

    def close(self) -> None:
        """Close what is open."""
        if self._cache is not None:
            self._cache.close()
        self._source = self._cache = self._features = None


def _same(a: FeatureSource, b: FeatureSource | None) -> bool:
    return b is not None and (a is b or (a.folder == b.folder and a.keys == b.keys))


def _run(features: FeatureSet, trial: Trial) -> TrialResult:
    began = time.time()
    with Usage() as usage:
        fold, fit, scores = _tested(features, trial.split, trial.config)
    graph = fit.write().SerializeToString() if trial.keeps_graph else b""
    return TrialResult(fold, scores, graph, fit.layers, began, usage.samples)


_here: list[_Opened] = []
"""In a process of its own: what it has open."""


def _in_processes(trials: Sequence[Trial], jobs: int) -> Generator[TrialResult, None, None]:
    if not trials:
        return
    try:
        import joblib
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import TerminatedWorkerError
    except ImportError as error:
        raise MissingDependencyError("joblib", extra="lab", purpose="Several jobs") from error

    threads = max(1, core_count() // jobs)
    with joblib.parallel_config("loky", inner_max_num_threads=threads, max_nbytes=None):
        pool = joblib.Parallel(n_jobs=jobs, return_as="generator", pre_dispatch=jobs, batch_size=1)
    # Outside of that setting, as the caller's own work goes on between two results.
    found = pool(joblib.delayed(_run_apart)(each, threads, IN_MEMORY // jobs) for each in trials)
    try:
        yield from found
    except TerminatedWorkerError as error:
        raise OtherProcessError(
            "A process that trained a network ended unexpectedly: memory may have run out. Run "
            "the same command again with fewer --jobs."
        ) from error
    finally:
        found.close()
        # They would wait for more, with all that they have in memory.
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _run_apart(trial: Trial, threads: int, memory: int) -> TrialResult:
    """Do a trial in a process of its own."""
    if not _here:
        # Ctrl-C goes to all processes of a terminal; the one that leads ends these.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _limit_threads(threads)
        _here.append(_Opened(memory))
    return _run(_here[0].features(trial.source), trial)


def _limit_threads(threads: int) -> None:
    """Have the backend take so many threads, before it begins."""
    backend = import_keras().backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)
