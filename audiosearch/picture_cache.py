"""Pictures that were made before, on disk and bounded.

A picture is a file of its own, named by what it shows: the sound file with its size and time of
change, the part, the size, and `PICTURE_VERSION`. So no picture is ever out of date, and any may be
deleted at any time. The folder is ``AUDIOSEARCH_PICTURES``, by default one in the user's cache.
Where it cannot be written to, pictures are made anew each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from audiosearch import pictures
from audiosearch.errors import AudioNotFoundError, InvalidArgumentError, StorageError
from audiosearch.storage import atomic_path

__all__ = ["PICTURES_VARIABLE", "PictureCache", "picture_folder"]

PICTURES_VARIABLE = "AUDIOSEARCH_PICTURES"

_LIMIT = 256 * 2**20
_KEPT_SHARE = 0.8
_LEVELS = 4096


def picture_folder() -> Path:
    """Return the folder of pictures; it need not exist."""
    import platformdirs

    named = os.environ.get(PICTURES_VARIABLE)
    if named:
        return Path(named)
    return Path(platformdirs.user_cache_dir("audiosearch", appauthor=False)) / "pictures"


class PictureCache:
    """Makes spectrograms of sound files, and keeps them.

    Safe to use from several threads and processes.

    Parameters
    ----------
    folder : Path, optional
        Where they are kept; `picture_folder` where None.
    limit : int
        Most bytes on disk. What was not looked at for the longest time goes first.

    Raises
    ------
    InvalidArgumentError
        When the limit is not above 0.
    """

    def __init__(self, folder: Path | None = None, *, limit: int = _LIMIT) -> None:
        if limit < 1:
            raise InvalidArgumentError(f"limit must be at least 1 byte, not {limit}.")
        self._folder = picture_folder() if folder is None else folder
        self._limit = limit
        self._lock = threading.Lock()
        self._size: int | None = None
        self._levels: dict[tuple[str, int, int], float] = {}

    def spectrogram(
        self,
        path: str | os.PathLike[str],
        *,
        start: float,
        end: float,
        duration: float,
        width: int,
        height: int,
        colours: int = 32,
        whole: bool = False,
    ) -> bytes:
        """Return a part of a sound file as a PNG picture.

        Parameters
        ----------
        path, start, end, width, height
            As for `audiosearch.pictures.spectrogram`.
        duration : float
            The length of the recording in seconds.
        colours : int
            As for `audiosearch.pictures.png`.
        whole : bool
            Whether the brightness is that of the whole recording, so that neighbouring parts fit
            together; else that of the part.

        Raises
        ------
        AudioError
            When the file is missing or cannot be decoded.
        InvalidArgumentError
            When the part or the size cannot be.
        """
        name = os.fspath(path)
        try:
            status = os.stat(name)  # noqa: PTH116 - the name need not be text
        except OSError:
            raise AudioNotFoundError(name, "There is no such file.") from None
        stamp = (name, status.st_size, status.st_mtime_ns)
        shown = (start, end, width, height, colours, whole, pictures.PICTURE_VERSION)
        # A file name need not be valid text.
        key = hashlib.sha256(repr((stamp, shown)).encode("utf-8", "backslashreplace")).hexdigest()

        def draw() -> bytes:
            top = self._level(stamp, duration) if whole else None
            values = pictures.spectrogram(
                name, start=start, end=end, width=width, height=height, top=top
            )
            return pictures.png(values, colours=colours)

        return self._kept(key, draw)

    def _level(self, stamp: tuple[str, int, int], duration: float) -> float:
        level = self._levels.get(stamp)
        if level is None:
            level = pictures.level(stamp[0], duration=duration)
            with self._lock:
                while len(self._levels) >= _LEVELS:
                    self._levels.pop(next(iter(self._levels)))
                self._levels[stamp] = level
        return level

    def _kept(self, key: str, draw: Callable[[], bytes]) -> bytes:
        path = self._folder / key[:2] / f"{key[2:]}.png"
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            os.utime(path)
            return data
        data = draw()
        with contextlib.suppress(OSError, StorageError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
            self._grown(len(data))
        return data

    def _grown(self, size: int) -> None:
        """Delete what was not looked at for long where there is too much by now."""
        with self._lock:
            if self._size is not None and self._size + size <= self._limit:
                self._size += size
                return
            found = []
            for file in self._folder.glob("??/*.png"):
                with contextlib.suppress(OSError):
                    status = file.stat()
                    found.append((status.st_mtime_ns, status.st_size, file))
            self._size = sum(each[1] for each in found)
            if self._size <= self._limit:
                return
            for _, freed, file in sorted(found):
                if self._size <= self._limit * _KEPT_SHARE:
                    break
                with contextlib.suppress(OSError):
                    file.unlink()
                    self._size -= freed
