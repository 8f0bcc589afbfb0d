"""Pictures and sounds of what augmentation does, to look and listen before training."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch.audio import SAMPLE_RATE
from audiosearch.classifier.plots import import_figure
from audiosearch.errors import AudioError, DataError, InvalidArgumentError, printable
from audiosearch.lab.augmentation import augment
from audiosearch.lab.folders import new_folder
from audiosearch.lab.settings import LabConfig
from audiosearch.lab.sounds import SoundSet
from audiosearch.lab.training import clip_length
from audiosearch.lab.waveforms import load_clip
from audiosearch.own.features import channels_of, get_feature, levelled
from audiosearch.storage import atomic_path

__all__ = ["preview"]

_BLOCK = 8192

Floats = npt.NDArray[np.float32]


def preview(
    sounds: SoundSet,
    out: str | os.PathLike[str],
    *,
    config: LabConfig | None = None,
    each: int = 1,
    variants: int = 3,
) -> list[Path]:
    """Write what training hears and sees of sounds of each class.

    In stereo where the model hears left and right.

    Parameters
    ----------
    sounds : SoundSet
        Labelled sounds.
    out : path-like
        Folder to make; it must not exist, or be empty.
    config : LabConfig, optional
        Model, clip length, augmentations and seed.
    each : int
        How many sounds of each class.
    variants : int
        How many augmented variants of each sound.

    Returns
    -------
    list of Path
        For sound N ``N.wav`` as it is, ``N-V.wav`` as augmented, both brought to one level, and
        ``N.png`` with the spectrograms, the original first; in stereo the right channel's below.

    Raises
    ------
    DataError
        When no sound can be read.
    InvalidArgumentError
        When a number is below 1.
    MissingDependencyError
        When matplotlib is not installed.
    StorageError
        When the folder exists and is not empty, or cannot be written.
    """
    if each < 1 or variants < 1:
        raise InvalidArgumentError("each and variants must be at least 1.")
    with new_folder(out) as folder:
        return _previewed(sounds, folder, config or LabConfig(), each, variants)


def _previewed(
    sounds: SoundSet, folder: Path, config: LabConfig, each: int, variants: int
) -> list[Path]:
    length = clip_length(sounds, config)
    channels = channels_of(config.spec.feature)
    mel_of = get_feature("log-mel-stereo" if channels == 2 else "log-mel")
    random = np.random.default_rng(config.seed)
    written: list[Path] = []
    taken = dict.fromkeys(sounds.classes, 0)
    number = 0
    behind: dict[str, Floats] = {}
    for sound in sounds.sounds:
        wanting = [label for label in sound.labels if taken[label] < each]
        if not wanting:
            continue
        try:
            clip = load_clip(sound, length, channels=channels)
        except AudioError:
            continue  # training lists it
        for label in wanting:
            taken[label] += 1
        number += 1
        wave, mel = levelled(clip), mel_of.compute(clip)
        names = config.wanted_augmentations
        waves = _variants(random, wave, "waveform", behind, names, variants)
        mels = _variants(random, mel, mel_of.name, behind, names, variants)
        behind = {"waveform": wave, mel_of.name: mel}
        files = [f"{number}.wav", *(f"{number}-{v}.wav" for v in range(1, variants + 1))]
        for name, values in zip(files, [wave, *waves], strict=True):
            written.append(_write_sound(folder / name, values))
        title = f"{', '.join(sound.labels)}: {Path(sound.name).name}"
        written.append(_draw(folder / f"{number}.png", title, [mel, *mels]))
    if not written:
        raise DataError(f"{printable(sounds.name)}: none of its sounds can be read.")
    return written


def _variants(
    random: np.random.Generator,
    clip: Floats,
    feature: str,
    behind: dict[str, Floats],
    names: tuple[str, ...],
    count: int,
) -> Floats:
    """Return variants of a clip, one below the other, with the sound before it as background."""
    if not names:
        return np.repeat(clip[None], count, axis=0)
    batch = np.stack([clip, behind.get(feature, clip)])
    return np.stack([augment(random, batch, feature, names)[0] for _ in range(count)])


def _write_sound(path: Path, wave: np.ndarray) -> Path:
    import soundfile

    channels = 1 if wave.ndim == 1 else wave.shape[1]
    # In memory first: libsndfile does not say that a disk is full.
    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", SAMPLE_RATE, channels, "PCM_16", format="WAV") as file:
        for start in range(0, len(wave), _BLOCK):
            file.write(np.clip(wave[start : start + _BLOCK], -1, 1))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.getvalue())
    return path


def _draw(path: Path, title: str, mels: list[np.ndarray]) -> Path:
    sides = ("",) if mels[0].ndim == 2 else ("left", "right")
    size = (3 * len(mels), 0.6 + 2 * len(sides))
    figure = import_figure()(figsize=size, layout="constrained")
    # Escaped, so that a label is no formula.
    figure.suptitle(title.replace("$", r"\$"), fontsize="small")
    low, high = float(mels[0].min()), float(mels[0].max())
    places = figure.subplots(len(sides), len(mels), squeeze=False)
    for (row, column), axes in np.ndenumerate(places):
        mel = mels[column] if mels[column].ndim == 2 else mels[column][..., row]
        axes.imshow(mel.T, origin="lower", aspect="auto", vmin=low, vmax=high)
        if row == len(sides) - 1:
            axes.set_xlabel("frames of 10 ms")
        if column == 0:
            axes.set_ylabel(sides[row])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return path
