"""Training of a classifier of the user's own classes, into one folder.

==================== ==========================================================================
``classifier.onnx``  the classifier, from a clip's feature to its scores
``classifier.json``  its manifest: classes, feature, clip length, settings, results
``MODEL_CARD.md``    the same for people
``config.json``      settings and data of the run
``metrics.csv``      one row an epoch, and ``events.*`` the same for TensorBoard
``parameters.csv``   of ``ann-librosa26``: the 26 parameters of each sound
``checkpoint.npz``   of a network: where ``resume`` goes on
==================== ==========================================================================
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.classifier.devices import Devices
from audiosearch.classifier.run import RunFolder
from audiosearch.errors import AudioError, DataError, printable
from audiosearch.lab.devices import training_devices
from audiosearch.lab.feature_cache import FeatureCache, FeatureSet
from audiosearch.lab.fits import Checkpoint, Fit, LabEpoch
from audiosearch.lab.fitting import fit_model
from audiosearch.lab.folders import begin_run, taken_back
from audiosearch.lab.inspection import find_copies
from audiosearch.lab.measures import Measures, measure
from audiosearch.lab.result import write_parameters, write_result
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import SoundSet
from audiosearch.lab.splits import hold_out
from audiosearch.lab.tracking import Tracked, check_trackers, tracked
from audiosearch.own.features import get_feature
from audiosearch.own.waveforms import ClipLength

__all__ = ["LabRun", "clip_length", "train_lab"]

_LONGEST, _SHORTEST = 10.0, 0.1
_AT_ONCE = 64

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabRun:
    """A finished training.

    Attributes
    ----------
    folder : Path
        Where the result lies.
    sounds : SoundSet
        What it was trained and chosen on, without what could not be read.
    train, validation : int
        How many sounds were learned from, and held out.
    measures : Measures or None
        Results on those held out; as the best epoch was chosen on them, somewhat too good.
    epochs : list of LabEpoch
        Of a network.
    best : int
        The epoch that was kept.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    folder: Path
    sounds: SoundSet
    train: int
    validation: int
    measures: Measures | None
    epochs: list[LabEpoch]
    best: int
    interrupted: bool


def train_lab(
    sounds: SoundSet,
    out: str | os.PathLike[str],
    *,
    config: LabConfig | None = None,
    cache: str | os.PathLike[str] | None = None,
    resume: bool = False,
    devices: int | None = None,
    track: Sequence[str] = (),
    on_sound: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[LabEpoch], None] | None = None,
) -> LabRun:
    """Train a classifier on labelled sounds and write it to a folder.

    Whatever fails before there is something to go on from leaves no folder behind.

    Parameters
    ----------
    sounds : SoundSet
        As `audiosearch.lab.read_sounds` returns them.
    out : path-like
        Folder to make; it must not exist, or be empty, unless `resume`.
    config : LabConfig, optional
        Settings.
    cache : path-like, optional
        Folder for features; see `audiosearch.lab.feature_cache.default_cache`.
    resume : bool
        Go on with the training of a network that was stopped, after its last finished epoch.
    devices : int, optional
        Of a network: on how many devices each step is made, which must divide the batch; one where
        None, or as many as ``torchrun`` started processes. The result is that of one device, up to
        rounding, so that a run may be resumed on another number. Of several processes all get the
        result, but only the first one writes and calls `on_sound` and `on_epoch`.
    track : sequence of str
        Tools that follow the training, of `audiosearch.lab.tracking.TRACKERS`.
    on_sound : callable, optional
        Called with how many sounds' features are there, and how many there are.
    on_epoch : callable, optional
        Called with each `LabEpoch`.

    Raises
    ------
    DataError
        When there are too few sounds or classes, training diverges, there is nothing to resume, or
        several processes do not read the same sounds.
    InvalidArgumentError
        When a run is resumed with other settings, or the devices are not there.
    MissingDependencyError
        When a package is not installed.
    OtherProcessError
        When another of ``torchrun``'s processes failed.
    StorageError
        When the folder exists and is not empty, or something cannot be written.
    """
    config = config or LabConfig()
    check_trackers(track)
    with training_devices(config, devices) as used, contextlib.ExitStack() as stack:
        folder = RunFolder(out)
        if used.leads:
            stack.enter_context(taken_back(folder.path, unless="checkpoint.npz"))
        stack.enter_context(contextlib.closing(folder))
        with used.agree():
            sounds.check_trainable()
            length = clip_length(sounds, config)
            store = stack.enter_context(FeatureCache(cache))
        described = {"data": _description(sounds), "length": length.to_dict(), **asdict(config)}
        checkpoint = used.lead(lambda: begin_run(folder, described, config, resume=resume))
        features = _features(store, sounds, config, length, used, on_sound)
        with used.agree():
            features.sounds.check_trainable()
            train, validation = _divided(features.sounds, config)
        run = Tracked()
        if used.leads:
            name = folder.path.name
            run = stack.enter_context(tracked(track, folder.path, name, asdict(config)))

        def finished(epoch: LabEpoch, state: Checkpoint) -> None:
            run.log(epoch.epoch, epoch.figures())
            folder.record(state.epochs)
            folder.save(state.arrays, {"epochs": [asdict(each) for each in state.epochs]})
            if on_epoch:
                on_epoch(epoch)

        began = time.perf_counter()
        fit = fit_model(
            features,
            train,
            validation,
            config,
            checkpoint=checkpoint,
            on_epoch=finished,
            devices=used,
        )

        def write() -> Measures | None:
            scores = scores_of(fit, features, validation)
            found = None
            if len(validation):
                found = measure(features.sounds.targets()[validation], scores, features.sounds)
                run.summarise(found.figures())
            facts = {
                "trained_on": _description(features.sounds),
                "train_sounds": len(train),
                "validation_sounds": len(validation),
                "epoch": fit.best,
                "epochs": len(fit.epochs),
                "seconds": round(time.perf_counter() - began, 2),
                "device": fit.device,
                "devices": used.count,
                "layers": fit.layers,
                "parameters": fit.parameters,
                "validation": None if found is None else found.to_dict(),
                "config": asdict(config),
            }
            if config.spec.feature == "librosa26":
                write_parameters(folder.path / "parameters.csv", features)
            write_result(folder.path, fit, features, length, config, facts)
            return found

        found = used.lead(write)
    return LabRun(
        folder.path,
        features.sounds,
        len(train),
        len(validation),
        found,
        fit.epochs,
        fit.best,
        fit.interrupted,
    )


def _features(
    store: FeatureCache,
    sounds: SoundSet,
    config: LabConfig,
    length: ClipLength,
    used: Devices,
    on_sound: Callable[[int, int], None] | None,
) -> FeatureSet:
    """Return the features of a set, the same ones in all processes."""
    feature = get_feature(config.spec.feature)
    # On each machine one process computes what the others then find in the cache.
    for turn in (True, False):
        with used.agree():
            if used.leads_here == turn:
                features = store.features(
                    sounds, feature, length, on_sound=on_sound if used.leads else None
                )
    identity = used.lead(lambda: features.identity)
    with used.agree():
        if identity != features.identity:
            raise DataError(
                f"{printable(sounds.name)}: this process does not read the same sounds as the "
                "first one. All machines need the same data at the same path."
            )
    return features


def clip_length(sounds: SoundSet, config: LabConfig) -> ClipLength:
    """Return the clip length that the settings ask for, or that suits the sounds.

    That is the 95th percentile of the lengths of up to 500 of them, from 0.1 to 10 s.

    Raises
    ------
    DataError
        When none of the sounds can be read.
    """
    if config.seconds is not None:
        return ClipLength(config.seconds, config.short)
    lengths = []
    for sound in sounds.sounds[:: -(-len(sounds) // 500)]:
        with contextlib.suppress(AudioError):
            longest = sound.start + _LONGEST
            end = longest if sound.end is None else min(sound.end, longest)
            blocks = audio.stream(sound.path, start=sound.start, end=end)
            lengths.append(sum(map(len, blocks)) / audio.SAMPLE_RATE)
    if not lengths:
        raise DataError(f"{printable(sounds.name)}: none of its sounds can be read.")
    usual = float(np.percentile(lengths, 95))
    return ClipLength(round(min(max(usual, _SHORTEST), _LONGEST), 2), config.short)


def scores_of(fit: Fit, features: FeatureSet, rows: Rows) -> npt.NDArray[np.float32]:
    """Return the scores of rows of a set, float32 (rows, classes)."""
    parts = [
        fit.score(features.take(rows[start : start + _AT_ONCE]))
        for start in range(0, len(rows), _AT_ONCE)
    ]
    empty = np.empty((0, len(features.sounds.classes)), np.float32)
    return np.concatenate([empty, *parts])


def _divided(sounds: SoundSet, config: LabConfig) -> tuple[Rows, Rows]:
    rows = np.arange(len(sounds))
    if not config.validation:
        return rows, rows[:0]
    together = [each.rows for each in find_copies(sounds)]
    # What a set's makers put in one fold belongs together where nothing else is known.
    known = sounds
    if sounds.has_folds and not sounds.has_groups:
        known = replace(
            sounds, sounds=tuple(replace(each, group=each.fold) for each in sounds.sounds)
        )
    train, held_out = hold_out(known, rows, config.validation, together=together, seed=config.seed)
    learned = sounds.targets()[train].any(axis=0)
    if learned.sum() < 2 and not sounds.multi_label:
        raise DataError(
            f"{printable(sounds.name)} has too few sounds to hold some out: fewer than two classes "
            "would be left. Train with --validation 0."
        )
    return train, held_out


def _description(sounds: SoundSet) -> dict[str, Any]:
    return {
        "name": Path(sounds.name).name,
        "layout": sounds.layout,
        "sounds": len(sounds),
        "classes": sounds.counts(),
        "skipped": len(sounds.skipped),
    }
