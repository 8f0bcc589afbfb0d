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
import csv
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.classifier.export import write_model
from audiosearch.classifier.run import RunFolder
from audiosearch.errors import AudioError, DataError, InvalidArgumentError, printable
from audiosearch.lab.card import write_card
from audiosearch.lab.feature_cache import FeatureCache, FeatureSet
from audiosearch.lab.fits import Checkpoint, Fit, LabEpoch
from audiosearch.lab.fitting import fit_model
from audiosearch.lab.inspection import find_copies
from audiosearch.lab.measures import Measures, measure
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import SoundSet
from audiosearch.lab.splits import hold_out
from audiosearch.lab.tracking import check_trackers, tracked
from audiosearch.own.features import LIBROSA26, get_feature
from audiosearch.own.waveforms import ClipLength
from audiosearch.storage import atomic_path, read_json, write_json
from audiosearch.version import __version__

__all__ = ["LabRun", "clip_length", "train_lab"]

_LONGEST, _SHORTEST = 10.0, 0.1
_AT_ONCE = 64
# How far ONNX Runtime's scores may be from those of the model that was trained.
_CLOSE = 1e-3

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
    track: Sequence[str] = (),
    on_sound: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[LabEpoch], None] | None = None,
) -> LabRun:
    """Train a classifier on labelled sounds and write it to a folder.

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
    track : sequence of str
        Tools that follow the training, of `audiosearch.lab.tracking.TRACKERS`.
    on_sound : callable, optional
        Called with how many sounds' features are there, and how many there are.
    on_epoch : callable, optional
        Called with each `LabEpoch`.

    Raises
    ------
    DataError
        When there are too few sounds or classes, training diverges, or there is nothing to resume.
    InvalidArgumentError
        When a run is resumed with other settings, or the device is not there.
    MissingDependencyError
        When a package is not installed.
    StorageError
        When the folder exists and is not empty, or something cannot be written.
    """
    config = config or LabConfig()
    check_trackers(track)
    sounds.check_trainable()
    with (
        contextlib.closing(RunFolder(out)) as folder,
        FeatureCache(cache) as store,
        contextlib.ExitStack() as stack,
    ):
        length = clip_length(sounds, config)
        described = {"data": _description(sounds), "length": length.to_dict(), **asdict(config)}
        checkpoint = _begin(folder, described, config, resume=resume)
        features = store.features(
            sounds, get_feature(config.spec.feature), length, on_sound=on_sound
        )
        features.sounds.check_trainable()
        train, validation = _divided(features.sounds, config)
        if config.spec.feature == "librosa26":
            _write_parameters(folder.path / "parameters.csv", features)

        run = stack.enter_context(tracked(track, folder.path, folder.path.name, asdict(config)))

        def finished(epoch: LabEpoch, state: Checkpoint) -> None:
            run.log(epoch.epoch, epoch.figures())
            folder.record(state.epochs)
            folder.save(state.arrays, {"epochs": [asdict(each) for each in state.epochs]})
            if on_epoch:
                on_epoch(epoch)

        began = time.perf_counter()
        fit = fit_model(
            features, train, validation, config, checkpoint=checkpoint, on_epoch=finished
        )
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
            "layers": fit.layers,
            "parameters": fit.parameters,
            "validation": None if found is None else found.to_dict(),
            "config": asdict(config),
        }
        write_result(folder.path, fit, features, length, config, facts)
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


def write_result(
    folder: Path,
    fit: Fit,
    features: FeatureSet,
    length: ClipLength,
    config: LabConfig,
    facts: dict[str, Any],
) -> None:
    """Write classifier, manifest and model card, after a check that ONNX Runtime agrees.

    Raises
    ------
    DataError
        When it does not.
    """
    import onnxruntime

    model = fit.write()
    clips = features.take(np.arange(min(8, len(features))))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.run(None, {"clip": clips})
    away = float(np.abs(given - fit.score(clips)).max())
    if not away <= _CLOSE:
        raise DataError(
            f"The exported classifier's scores are {away:.2g} from those of the trained one. "
            "Please report this; nothing was written."
        )
    manifest = {
        "kind": "lab",
        "model": config.model,
        "classes": list(features.sounds.classes),
        "multi_label": features.sounds.multi_label,
        "feature": {
            "name": config.spec.feature,
            "identity": get_feature(config.spec.feature).identity,
            "shape": list(features.shape),
        },
        "length": length.to_dict(),
        "audiosearch": __version__,
        **facts,
    }
    write_model(model, folder, {"name": folder.name or config.model, **manifest})
    write_card(folder, manifest)


def _begin(
    folder: RunFolder, described: dict[str, Any], config: LabConfig, *, resume: bool
) -> Checkpoint | None:
    """Make the folder, or take up what is in it."""
    name = printable(str(folder.path))
    if not resume:
        folder.make()
        write_json(folder.path / "config.json", described)
        return None
    if config.spec.kind != "network":
        raise InvalidArgumentError(f"'{config.model}' is fitted at once: there is no resuming it.")
    try:
        before = read_json(folder.path / "config.json")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} holds no run that could be resumed. Leave --resume out."
        ) from error
    other = [key for key, value in described.items() if before.get(key) != value]
    if other:
        raise InvalidArgumentError(
            f"{name} was started with another {', '.join(other)}. Resume with the same settings "
            "and sounds, or train into a new folder."
        )
    saved = folder.load()
    if saved is None:
        return None
    arrays, state = saved
    return Checkpoint(arrays, [LabEpoch(**each) for each in state["epochs"]])


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


def _write_parameters(path: Path, features: FeatureSet) -> None:
    """Write the 26 parameters of each sound as CSV."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        out = csv.writer(file)
        out.writerow(["path", "start", "end", "label", *LIBROSA26])
        for row, sound in enumerate(features.sounds.sounds):
            (values,) = features.take(np.array([row]))
            end = "" if sound.end is None else sound.end
            facts = [sound.path, sound.start, end, ";".join(sound.labels)]
            out.writerow([*facts, *(f"{value:.6g}" for value in values)])
