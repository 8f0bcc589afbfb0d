"""Decode any audio file as a bounded-memory stream of 16 kHz float32 blocks, mono or stereo.

libsndfile reads a file first; FFmpeg's libraries (PyAV) read what it refuses: MPEG-4, WMA, WebM,
the sound of videos, and some valid Opus files. MPEG audio (mp3) goes to FFmpeg alone, because the
mp3 decoder behind libsndfile writes its doubts to stderr and trusts a header's wrong length.

Whatever the file holds, a sample leaves here as finite float32: channels are averaged with equal
weights, or mixed to left and right (`audiosearch.channels`); other rates are resampled with soxr's
high-quality setting as one continuous stream, so that reading in blocks equals reading whole; and
samples that are no sound (NaN, infinity, or over 1e10) become 0. Values beyond [-1, 1] are kept.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.channels import Mix, mono_and_stereo_of, mono_of, stereo_of
from audiosearch.decoders import (
    HIGHEST_RATE,
    LOWEST_RATE,
    Block,
    RefusedError,
    is_mpeg_audio,
    read_libav,
    read_soundfile,
)
from audiosearch.errors import (
    AudioDecodeError,
    AudioNotFoundError,
    EmptyAudioError,
    InvalidArgumentError,
)

__all__ = ["AUDIO_EXTENSIONS", "SAMPLE_RATE", "find_audio", "load", "stream", "stream_both"]

SAMPLE_RATE = 16000
"""The rate, in hertz, of all audio inside audiosearch."""

_READ_BY_LIBSNDFILE = (
    "aif aifc aiff au avr caf flac htk iff ircam mp1 mp2 mp3 mpa nist oga ogg opus paf pvf rf64 "
    "sd2 sds sf snd sph svx 8svx voc w64 wav wave wve xi"
)
_READ_BY_FFMPEG = (
    "aa3 aac ac3 adts adx amr ape asf at3 awb dff dsf dts eac3 f4a loas m4a m4b m4r mka mlp mpc "
    "oma qoa ra rm shn spx tak thd tta wma wv weba"
)
# Not .ts: such files are far more often TypeScript.
_VIDEOS_READ_BY_FFMPEG = (
    "3g2 3gp avi f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ogx vob webm wmv"
)
AUDIO_EXTENSIONS: frozenset[str] = frozenset(
    f".{name}"
    for names in (_READ_BY_LIBSNDFILE, _READ_BY_FFMPEG, _VIDEOS_READ_BY_FFMPEG)
    for name in names.split()
)
"""Lower-case file name endings, with the dot, that a decoder may read."""


def stream(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
    channels: int = 1,
) -> Iterator[np.ndarray]:
    """Decode a file, or a part of it, in blocks of at most about 10 s.

    The arguments and the file's existence are checked at once; decoding happens while iterating,
    in memory that does not depend on the length of the file.

    Parameters
    ----------
    path : path-like
        Any audio file, or a video with a sound track: its first one is taken.
    start : float
        Where to begin, in seconds.
    end : float, optional
        Where to stop, in seconds. The end of the file where it lies beyond it.
    rate : int
        Sample rate of the result in hertz.
    channels : int
        1 for mono, the mean of all channels. 2 for stereo: the first two channels; a single one is
        both, and of more than two, each further one goes to both sides alike.

    Yields
    ------
    np.ndarray
        Samples, float32, n > 0: of shape (n,) where mono, (n, 2) where stereo.

    Raises
    ------
    AudioNotFoundError
        When there is no such file, or it is a folder.
    AudioDecodeError
        When no decoder can read it, it has 0 bytes, or it may not be read.
    EmptyAudioError
        When it holds no samples, or none between `start` and `end`.
    InvalidArgumentError
        When `start` is negative, `end` not after `start`, one of them not finite, `rate` is not
        a whole number from 100 to 12,288,000, or `channels` neither 1 nor 2.

    Notes
    -----
    A file that is cut off gives what is there. Where libsndfile fails in the middle of a file,
    FFmpeg goes on from that second, skipping the damaged packets as players do; what neither can
    decode is left out. A file of which nothing can be decoded raises.

    `start` is exact to the sample, except in files that only FFmpeg reads and whose time stamps
    are coarser (WebM: 1 ms), beyond the first 10 s.
    """
    if channels not in _MIXES:
        raise InvalidArgumentError(f"channels must be 1 or 2, not {channels!r}.")
    return _mixed_stream(path, start, end, rate, _MIXES[channels])


def stream_both(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode a file once, for those who want it mono and those who want it stereo.

    Parameters
    ----------
    path, start, end, rate
        As in `stream`, which also documents the errors.

    Yields
    ------
    mono, stereo : np.ndarray
        Samples (n,) and (n, 2), float32, n > 0: to the bit what `stream` gives.
    """
    blocks = _mixed_stream(path, start, end, rate, mono_and_stereo_of)
    return (
        (np.ascontiguousarray(block[:, 0]), np.ascontiguousarray(block[:, 1:])) for block in blocks
    )


_MIXES: dict[int, Mix] = {1: mono_of, 2: stereo_of}


def _mixed_stream(
    path: str | os.PathLike[str], start: float, end: float | None, rate: int, mix: Mix
) -> Iterator[np.ndarray]:
    """Check everything at once, and decode later."""
    _check_window(start, end)
    if not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InvalidArgumentError(
            f"rate must be a whole number from {LOWEST_RATE} to {HIGHEST_RATE}, not {rate!r}."
        )
    name = os.fsdecode(path)
    _check_file(name)
    return _resampled(_decoded(name, float(start), None if end is None else float(end), mix), rate)


def load(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
    channels: int = 1,
) -> np.ndarray:
    """Decode a file, or a part of it, into one array.

    Takes 64 kB of memory a second and channel at 16 kHz; prefer `stream` for files of unknown
    length.

    Parameters
    ----------
    path, start, end, rate, channels
        As in `stream`, which also documents the errors.

    Returns
    -------
    np.ndarray
        Samples, float32, n > 0: of shape (n,) where mono, (n, 2) where stereo.
    """
    blocks = stream(path, start=start, end=end, rate=rate, channels=channels)
    return np.concatenate(list(blocks))


def find_audio(
    folder: str | os.PathLike[str], *, on_error: Callable[[OSError], None] | None = None
) -> list[Path]:
    """List the audio files in a folder and its subfolders, sorted.

    A file counts by its extension (`AUDIO_EXTENSIONS`), in any case. Hidden files and folders
    (leading dot) are skipped. Links to folders are followed, each folder is visited once, and a
    folder's real place is preferred to a link's.

    Parameters
    ----------
    folder : path-like
        Where to look.
    on_error : callable, optional
        Called with the ``OSError`` of each subfolder that cannot be listed; it is then skipped.

    Returns
    -------
    list of Path
        Paths that begin with `folder`, sorted by their parts.

    Raises
    ------
    AudioNotFoundError
        When there is no such folder, or it is a file.
    AudioDecodeError
        When the folder itself may not be listed.
    """
    root = os.fsdecode(folder)
    try:
        found = os.stat(root)  # noqa: PTH116 - Path.stat would refuse what fsdecode accepts
    except (OSError, ValueError):
        raise AudioNotFoundError(root, "There is no such folder.") from None
    if not stat.S_ISDIR(found.st_mode):
        raise AudioNotFoundError(root, "This is a file, not a folder.")
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    real: list[Path] = [Path(root)]
    linked: list[Path] = []
    while real or linked:
        place = real.pop() if real else linked.pop(0)
        try:
            info = place.stat()
            # Both are 0 on file systems without such numbers: then the resolved name serves.
            key = (info.st_dev, info.st_ino) if info.st_ino else (0, hash(place.resolve()))
            if key in visited:
                continue
            visited.add(key)
            with os.scandir(place) as entries:
                listing = sorted(entries, key=lambda entry: entry.name)
        except (OSError, RuntimeError) as error:
            if place == Path(root):
                raise AudioDecodeError(root, f"The folder cannot be listed: {error}.") from error
            if on_error is not None and isinstance(error, OSError):
                on_error(error)
            continue
        for entry in listing:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    (linked if entry.is_symlink() else real).append(place / entry.name)
                elif (
                    os.path.splitext(entry.name)[1].lower() in AUDIO_EXTENSIONS  # noqa: PTH122
                    and entry.is_file()
                ):
                    files.append(place / entry.name)
            except OSError as error:
                if on_error is not None:
                    on_error(error)
    return sorted(files, key=lambda path: path.parts)


def _check_window(start: float, end: float | None) -> None:
    if not math.isfinite(start) or start < 0:
        raise InvalidArgumentError(f"start must be 0 or more seconds, not {start!r}.")
    if end is not None and (not math.isfinite(end) or end <= start):
        raise InvalidArgumentError(f"end must be later than start ({start!r} s), not {end!r}.")


def _check_file(name: str) -> None:
    try:
        found = os.stat(name)  # noqa: PTH116
        if stat.S_ISDIR(found.st_mode):
            raise AudioNotFoundError(name, "This is a folder, not a file.")
        if not stat.S_ISREG(found.st_mode):
            # Opening a pipe would wait for a writer that may never come.
            raise AudioDecodeError(name, "This is not a regular file.")
        with open(name, "rb"):  # noqa: PTH123
            pass
    except (PermissionError, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOENT, errno.ENOTDIR) or isinstance(error, ValueError):
            raise AudioNotFoundError(name, "There is no such file.") from None
        if isinstance(error, PermissionError):
            raise AudioDecodeError(name, "No permission to read the file.") from error
        reason = getattr(error, "strerror", None) or error
        raise AudioDecodeError(name, f"The file cannot be opened: {reason}.") from error
    if found.st_size == 0:
        raise AudioDecodeError(name, "The file is empty (0 bytes).")


def _decoded(name: str, start: float, end: float | None, mix: Mix) -> Iterator[Block]:
    """Blocks from the first decoder that gives any."""
    readers = [read_libav] if is_mpeg_audio(name) else [read_soundfile, read_libav]
    refused: list[str] = []
    for reader in readers:
        blocks = reader(name, start, end, mix)
        try:
            first = next(blocks, None)
        except RefusedError as error:
            refused.append(str(error))
            continue
        if first is not None:
            yield first
            yield from blocks
            return
    if len(refused) == len(readers):
        raise AudioDecodeError(
            name, f"No decoder could read it; it is damaged or not audio ({'; '.join(refused)})."
        )
    if start > 0:
        raise EmptyAudioError(name, f"There is no sound after {start:g} s.")
    raise EmptyAudioError(name, "The file holds no sound (zero samples).")


def _resampled(blocks: Iterator[Block], rate: int) -> Iterator[np.ndarray]:
    """Blocks at `rate`, as if each stretch of one source rate were resampled whole."""
    import soxr

    source_rate = 0
    resampler: Any = None
    given = 0
    total = 0
    level: Any = 0.0
    for block_rate, block in blocks:
        if block_rate != source_rate:
            if resampler is not None:
                tail = resampler.resample_chunk(block[:0], last=True)
                if tail.size:
                    given += tail.size
                    yield tail
            source_rate = block_rate
            resampler = None
            if source_rate != rate:
                channels = 1 if block.ndim == 1 else block.shape[1]
                resampler = soxr.ResampleStream(
                    source_rate, rate, channels, dtype="float32", quality="HQ"
                )
        if not given:
            total += len(block)
            level = level + block.sum(axis=0, dtype=np.float64)
        out = block if resampler is None else resampler.resample_chunk(block)
        if out.size:
            given += out.size
            yield out
    if resampler is not None:
        tail = resampler.resample_chunk(block[:0], last=True)
        if tail.size:
            given += tail.size
            yield tail
    if not given and total:
        # Shorter than half a sample of the result; it still is a sound.
        yield np.array([level / total], dtype=np.float32)
