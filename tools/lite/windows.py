"""The sounds as 10 s windows of waveform on the disk: what everything after is computed from.

A folder of windows:

================= ==============================================================================
``waveform.i16``  all windows one after another: mono, 16 kHz, 16-bit
``windows.csv``   a row a window: package, sha1, window, path, offset and length in samples
================= ==============================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiosearch import audio
from audiosearch.errors import AudioError, DataError
from audiosearch.storage import atomic_path
from tools.lite.catalogue import WINDOW_SECONDS, Sound, read_rows, write_rows
from tools.lite.collection import SoundStore

__all__ = ["WINDOW_SAMPLES", "Window", "Windows", "cut_windows"]

WINDOW_SAMPLES = WINDOW_SECONDS * audio.SAMPLE_RATE
_FULL_SCALE = 32767.0
_SAY_EVERY = 2000


@dataclass(frozen=True)
class Window:
    """One row of ``windows.csv``; `sha1` and `window` together are its key."""

    package: str
    sha1: str
    window: int
    path: str
    offset: int
    length: int


class Windows:
    """Windows on the disk, read where they are asked for.

    Parameters
    ----------
    folder : path-like
        As `cut_windows` wrote it.

    Raises
    ------
    DataError
        When there are none.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.rows = [
            Window(**(row | {name: int(row[name]) for name in ("window", "offset", "length")}))
            for row in read_rows(self.folder / "windows.csv", Window)
        ]
        if not self.rows:
            raise DataError(f"{folder} holds no windows.")
        self._path = self.folder / "waveform.i16"

    def __len__(self) -> int:
        return len(self.rows)

    def waveform(self, index: int) -> npt.NDArray[np.float32]:
        """Return a window's samples, (n,), n at most 160,000, nominally in [-1, 1]."""
        row = self.rows[index]
        # Read, not mapped: mapped pages would count as this process's memory.
        part = np.fromfile(self._path, "<i2", count=row.length, offset=2 * row.offset)
        return part.astype(np.float32) / np.float32(_FULL_SCALE)


def cut_windows(
    sounds: Iterable[Sound],
    store: SoundStore,
    folder: str | os.PathLike[str],
    *,
    say: Callable[[str], None] = print,
) -> Windows:
    """Decode sounds and write their windows, in the order of the list.

    Parameters
    ----------
    sounds : iterable of Sound
        What to decode.
    store : SoundStore
        Where it lies; what it does not hold is left out and said.
    folder : path-like
        Where to write.
    say : callable
        Called with a line a file that is left out, and one at the end.
    """
    target = Path(folder)
    rows: list[Window] = []
    left_out = 0
    with atomic_path(target / "waveform.i16") as temporary, temporary.open("wb") as file:
        offset = 0
        for number, sound in enumerate(sounds, start=1):
            if not number % _SAY_EVERY:
                say(f"{number:,} sounds, {len(rows):,} windows")
            waveform = _decode(sound, store, say)
            left_out += waveform is None
            for window in range(sound.windows if waveform is not None else 0):
                assert waveform is not None
                part = waveform[window * WINDOW_SAMPLES : (window + 1) * WINDOW_SAMPLES]
                if not len(part):
                    break
                file.write(_encode(part))
                rows.append(
                    Window(sound.package, sound.sha1, window, sound.path, offset, len(part))
                )
                offset += len(part)
    write_rows(target / "windows.csv", rows, Window)
    hours = sum(row.length for row in rows) / audio.SAMPLE_RATE / 3600
    say(f"{len(rows):,} windows, {hours:.1f} hours; {left_out} sounds left out")
    return Windows(target)


def _decode(
    sound: Sound, store: SoundStore, say: Callable[[str], None]
) -> npt.NDArray[np.float32] | None:
    path = store.find(sound.sha1)
    if path is None:
        say(f"{sound.package}: {sound.path} is not there; collect it first")
        return None
    try:
        return audio.load(path, end=float(sound.windows * WINDOW_SECONDS))
    except AudioError as error:
        say(str(error))
        return None


def _encode(part: npt.NDArray[np.float32]) -> bytes:
    return np.rint(np.clip(part, -1.0, 1.0) * _FULL_SCALE).astype("<i2").tobytes()
