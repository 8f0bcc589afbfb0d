"""A classifier that the lab trained, and what it hears in a sound."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.errors import InvalidArgumentError, ModelError, printable
from audiosearch.labels import name_key, name_problem
from audiosearch.models import onnx_session, read_model
from audiosearch.own.features import FEATURES, get_feature
from audiosearch.own.waveforms import ClipLength, Window, Windows

__all__ = ["LabClassifier", "Listener", "Track", "load_classifiers"]

_BATCH = 16
_ROUNDING = 1e-6  # seconds


class LabClassifier:
    """A classifier in a folder.

    Parameters
    ----------
    folder : path-like
        What `audiosearch.lab.train_lab` wrote.

    Attributes
    ----------
    classes : tuple of str
        Its classes.
    manifest : mapping
        What its manifest says.
    name : str
        What it is called: as the folder that it was trained into.
    identity : str
        A hash of all that its scores depend on beside the sound.
    length : ClipLength
        Of the windows that it hears.
    channels : int
        1 where it hears mono, 2 where it hears left and right.

    Raises
    ------
    ModelError
        When files are missing or damaged, it is no classifier of the lab, or its embedder has
        changed since.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        remedy = "Name the folder that `audiosearch lab train --out` wrote."
        model = read_model(Path(folder), "classifier", remedy=remedy)
        name = printable(os.fspath(model.path))
        self.manifest = model.manifest
        if model.manifest.get("kind") != "lab":
            raise ModelError(f"{name} is no classifier of the lab. {remedy}")
        self.classes = tuple(str(label) for label in model.manifest["classes"])
        self.name = str(model.manifest["name"])
        self.folder = Path(folder)
        self.length = ClipLength(**model.manifest["length"])
        feature = model.manifest["feature"]
        if feature["name"] not in FEATURES:
            raise ModelError(
                f"{name} was trained on the feature '{printable(str(feature['name']))}', which "
                "this version of audiosearch does not have. Train it again."
            )
        self._feature = get_feature(feature["name"])
        self.channels = self._feature.channels
        if feature["identity"] != self._feature.identity:
            raise ModelError(
                f"{name} was trained on another version of the feature '{self._feature.name}'. "
                "Train it again."
            )
        facts = [model.sha256, self.classes, self.length.to_dict(), self._feature.identity]
        self.identity = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self._session = onnx_session(model.path, name=name)

    def score(self, clips: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores of features, float32 (n, classes)."""
        scores = np.empty((len(clips), len(self.classes)), np.float32)
        for start in range(0, len(clips), _BATCH):
            batch = clips[start : start + _BATCH]
            # One batch size, so that a score never depends on what else is scored.
            padded = np.zeros((_BATCH, *batch.shape[1:]), np.float32)
            padded[: len(batch)] = batch
            (given,) = self._session.run(None, {"clip": padded})
            scores[start : start + len(batch)] = given[: len(batch)]
        return scores

    def track(self, path: str | os.PathLike[str]) -> Track:
        """Return the scores of a file's windows, in memory that grows by those alone.

        Raises
        ------
        AudioError
            When it cannot be read.
        """
        listener = Listener(self)
        for block in audio.stream(os.fspath(path), channels=self.channels):
            listener.add(block)
        return listener.finish()

    def compute(self, waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the feature of a window, float32 (n,), or (n, 2) where it hears two channels."""
        return self._feature.compute(waveform)


@dataclass(frozen=True)
class Track:
    """What a classifier says of a sound, window by window.

    Attributes
    ----------
    classes : tuple of str
        Its classes.
    starts, ends : float64 (windows,)
        Where each window lies, in seconds; they follow one another.
    scores : float32 (windows, classes)
        Their scores.
    """

    classes: tuple[str, ...]
    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]

    def over(
        self, starts: npt.NDArray[np.floating], ends: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float32]:
        """Return the scores of stretches of the sound, float32 (n, classes).

        That of a stretch is the highest of the windows that share a good part of it: half of the
        window, or half of the stretch. Where none does, it is that of the nearest one.

        Parameters
        ----------
        starts, ends : float (n,)
            Where they lie, in seconds.
        """
        result = np.zeros((len(starts), len(self.classes)), np.float32)
        if not len(self.starts):
            return result
        firsts = np.searchsorted(self.ends, starts, side="right")
        stops = np.searchsorted(self.starts, ends, side="left")
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            first = min(int(firsts[row]), len(self.starts) - 1)
            stop = max(int(stops[row]), first + 1)
            begin, last = self.starts[first:stop], self.ends[first:stop]
            shared = np.minimum(last, end) - np.maximum(begin, start)
            enough = shared >= np.minimum(last - begin, end - start) / 2 - _ROUNDING
            enough[shared.argmax()] = True
            result[row] = self.scores[first:stop][enough].max(axis=0)
        return result

    def best(self) -> npt.NDArray[np.float32]:
        """Return each class's highest score, float32 (classes,)."""
        return self.scores.max(axis=0, initial=0.0)


class Listener:
    """Hears a sound as it is decoded.

    Parameters
    ----------
    classifier : LabClassifier
        Who hears.

    Attributes
    ----------
    channels : int
        How many channels it wants.
    """

    def __init__(self, classifier: LabClassifier) -> None:
        self._classifier = classifier
        self.channels = classifier.channels
        self._windows = Windows(classifier.length)
        self._times: list[tuple[float, float]] = []
        self._held: list[npt.NDArray[np.float32]] = []
        self._scores: list[npt.NDArray[np.float32]] = []

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Take the next samples at 16 kHz, float32: (n,), or (n, 2) where it hears two channels.

        Raises
        ------
        InvalidArgumentError
            When they have another number of channels.
        """
        if block.shape[1:] != ((2,) if self.channels == 2 else ()):
            wanted = "left and right, (n, 2)" if self.channels == 2 else "mono, (n,)"
            raise InvalidArgumentError(
                f"The classifier {printable(os.fspath(self._classifier.folder))} hears {wanted}, "
                f"and was given samples of the shape {block.shape}. Read the sound with "
                f"audiosearch.audio.stream(..., channels={self.channels})."
            )
        self._take(self._windows.add(block))

    def finish(self) -> Track:
        """Return what was heard."""
        self._take(self._windows.finish())
        self._flush()
        classes = self._classifier.classes
        times = np.array(self._times, np.float64).reshape(-1, 2)
        scores = np.concatenate([np.empty((0, len(classes)), np.float32), *self._scores])
        return Track(classes, times[:, 0], times[:, 1], scores)

    def _take(self, windows: Iterable[Window]) -> None:
        for start, end, waveform in windows:
            self._times.append((start, end))
            self._held.append(self._classifier.compute(waveform))
            if len(self._held) == _BATCH:
                self._flush()

    def _flush(self) -> None:
        if self._held:
            self._scores.append(self._classifier.score(np.stack(self._held)))
            self._held = []


def load_classifiers(
    folders: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None,
) -> tuple[LabClassifier, ...]:
    """Return the classifiers of some folders, whose classes must have different names.

    Raises
    ------
    InvalidArgumentError
        When two of them have a class of one name, or one has classes that queries cannot name.
    ModelError
        As `LabClassifier`.
    """
    if folders is None:
        return ()
    listed = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
    found = tuple(LabClassifier(folder) for folder in listed)
    owners: dict[str, LabClassifier] = {}
    for each in found:
        if problem := name_problem(each.classes):
            raise InvalidArgumentError(
                f"{printable(os.fspath(each.folder))}: {problem}, and train again."
            )
        for label in each.classes:
            other = owners.setdefault(name_key(label), each)
            if other is not each:
                raise InvalidArgumentError(
                    f"Both {printable(os.fspath(other.folder))} and "
                    f"{printable(os.fspath(each.folder))} have a class '{printable(label)}': a tag "
                    "could be either's. Take one of them, or train with another name."
                )
    return found
