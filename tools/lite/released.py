"""AudioSet's released embeddings, and the few clips of which the features are known as well."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from audiosearch.datasets.packed import PackedFile
from audiosearch.errors import DataError, printable

__all__ = ["AudioSetClips", "Pairs", "Released", "fold_of"]

FOLDS = 5
_SPAN, _LOWEST = 12.7, -4.7

Floats = npt.NDArray[np.float32]


class AudioSetClips:
    """Real clips of AudioSet as log-mel patches, with class scores by teachers.

    Parameters
    ----------
    path : path-like
        npz with ``log_mel_u8``, ``n_patches``, ``bal_train_row``, ``video_id`` and ``teacher``.

    Attributes
    ----------
    rows : int64 (clips,)
        Which row of the balanced training set has the clip's released embedding; -1 for none.
    teacher : uint8 (clips, 527)
        Scores times 255.

    Raises
    ------
    DataError
        When the file is missing or no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            with np.load(path) as data:
                self._codes = data["log_mel_u8"]
                counts = data["n_patches"]
                self.rows: npt.NDArray[np.int64] = data["bal_train_row"]
                self.video_ids: list[str] = data["video_id"].tolist()
                self.teacher: npt.NDArray[np.uint8] = data["teacher"]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{printable(os.fspath(path))} holds no clips: {error}.") from error
        self._start = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self.rows)

    def log_mel(self, clip: int) -> Floats:
        """Return a clip's patches, float32 (n, 96, 64)."""
        codes = self._codes[self._start[clip] : self._start[clip + 1]]
        return codes.astype(np.float32) * np.float32(_SPAN / 255) + np.float32(_LOWEST)


class Released:
    """The released embeddings of a packed file, and what their values are like.

    Parameters
    ----------
    path : path-like
        ``bal_train.h5``.

    Attributes
    ----------
    x : uint8 (clips, 10, 128)
        Embedding frames.
    n_frames : int64 (clips,)
        How many of them exist.
    mean, deviation : float32 (128,)
        Of the values (uint8 - 128) / 128 of all frames.
    covariance : float32 (128, 128)
        Of the values, standardised.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with PackedFile(path) as file:
            clips = file.read()
        self.x = clips.x
        self.n_frames = np.asarray(clips.n_frames, np.int64)
        exists = np.arange(self.x.shape[1]) < self.n_frames[:, None]
        values = (self.x[exists].astype(np.float32) - 128) / 128
        self.mean = values.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.deviation = values.std(axis=0, dtype=np.float64).astype(np.float32)
        standard = (values - self.mean) / self.deviation
        self.covariance = (standard.T @ standard / len(standard)).astype(np.float32)

    def vectors(self) -> Floats:
        """Return the search vector of each clip, (clips, 128), of length 1."""
        exists = (np.arange(self.x.shape[1]) < self.n_frames[:, None]).astype(np.float32)
        values = (self.x.astype(np.float32) - 128) / 128
        means = np.einsum("cfv,cf->cv", values, exists) / exists.sum(axis=1, keepdims=True)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        result: Floats = (means / np.maximum(lengths, 1e-12)).astype(np.float32)
        return result


class Pairs:
    """The clips whose features and released embedding are both known.

    Parameters
    ----------
    clips : AudioSetClips
        The features.
    released : Released
        The embeddings.

    Attributes
    ----------
    clip : int64 (pairs,)
        Index among `clips`.
    row : int64 (pairs,)
        Row among `released`.
    fold : int64 (pairs,)
        Which of the five folds holds the pair out.
    """

    def __init__(self, clips: AudioSetClips, released: Released) -> None:
        self._clips, self._released = clips, released
        self.clip = np.flatnonzero(clips.rows >= 0)
        self.row = clips.rows[self.clip]
        self.fold = fold_of([clips.video_ids[clip] for clip in self.clip])

    def __len__(self) -> int:
        return len(self.clip)

    def patches(self, pair: int) -> tuple[Floats, Floats]:
        """Return a pair's log-mel (n, 96, 64) and released values (n, 128), frame by frame."""
        log_mel = self._clips.log_mel(self.clip[pair])
        row = self.row[pair]
        count = min(len(log_mel), int(self._released.n_frames[row]))
        values = (self._released.x[row, :count].astype(np.float32) - 128) / 128
        return log_mel[:count], values.astype(np.float32)


def fold_of(names: list[str]) -> npt.NDArray[np.int64]:
    """Return which of five folds each name belongs to: turn by turn in the order of the names."""
    folds = np.empty(len(names), np.int64)
    folds[np.argsort(np.array(names), kind="stable")] = np.arange(len(names)) % FOLDS
    return folds
