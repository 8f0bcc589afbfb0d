"""Decode any audio file as a bounded-memory stream of mono 16 kHz float32 blocks.

libsndfile reads a file first; FFmpeg's libraries (PyAV) read what it refuses: MPEG-4, WMA, WebM,
the sound of videos, and some valid Opus files. MPEG audio (mp3) goes to FFmpeg alone, because the
mp3 decoder behind libsndfile writes its doubts to stderr and trusts a header's wrong length.

Whatever the file holds, a sample leaves here as finite float32: channels are averaged with equal
weights, other rates are resampled with soxr's high-quality setting as one continuous stream, so
that reading in blocks equals reading whole, and samples that are no sound (NaN, infinity, or over
1e10) become 0. Values beyond [-1, 1] are kept.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audiosearch.errors import (
    AudioDecodeError,
    AudioNotFoundError,
    EmptyAudioError,
    InvalidArgumentError,
    printable,
)

__all__ = ["AUDIO_EXTENSIONS", "SAMPLE_RATE", "find_audio", "load", "stream"]

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

# A block is at most 10 s and about a megabyte, whatever the rate and the number of channels.
_BLOCK_SECONDS = 10
_BLOCK_VALUES = 1 << 18
# Rates outside this range are damaged headers; DSD at its highest reads as about 6 MHz.
_LOWEST_RATE, _HIGHEST_RATE = 100, 12_288_000
# Wrongly scaled integers reach 2**31; what lies beyond is a float's bits read from something else.
_LOUDEST = np.float32(1e10)
# Within this many seconds decoding from the start is cheap and exact to the sample.
_SEEK_BEYOND = 10.0
# What decoders need to hear before a seek's target to be settled (Opus 80 ms, AAC 2 frames).
_PREROLL = 0.5
# Packets in a row that give nothing before a decoder is taken to be lost.
_BAD_PACKETS = 1000
# Sample formats that PyAV gives as arrays, interleaved or (with a p) planar.
_NUMPY_FORMATS = frozenset(["u8", "s16", "s32", "flt", "dbl"])
_MPEG_EXTENSIONS = (".mp1", ".mp2", ".mp3", ".mpa")


class _RefusedError(Exception):
    """A decoder cannot read the file from its start; the next one may."""


_Block = tuple[int, np.ndarray]
"""Sample rate in hertz and mono float32 samples at that rate."""


def stream(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
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

    Yields
    ------
    np.ndarray
        Mono samples, shape (n,), float32, n > 0.

    Raises
    ------
    AudioNotFoundError
        When there is no such file, or it is a folder.
    AudioDecodeError
        When no decoder can read it, it has 0 bytes, or it may not be read.
    EmptyAudioError
        When it holds no samples, or none between `start` and `end`.
    InvalidArgumentError
        When `start` is negative, `end` not after `start`, one of them not finite, or `rate` is
        not a whole number from 100 to 12,288,000.

    Notes
    -----
    A file that is cut off gives what is there. Where libsndfile fails in the middle of a file,
    FFmpeg goes on from that second, skipping the damaged packets as players do; what neither can
    decode is left out. A file of which nothing can be decoded raises.

    `start` is exact to the sample, except in files that only FFmpeg reads and whose time stamps
    are coarser (WebM: 1 ms), beyond the first 10 s.
    """
    _check_window(start, end)
    if not isinstance(rate, int) or not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise InvalidArgumentError(
            f"rate must be a whole number from {_LOWEST_RATE} to {_HIGHEST_RATE}, not {rate!r}."
        )
    name = os.fsdecode(path)
    _check_file(name)
    return _resampled(_decoded(name, float(start), None if end is None else float(end)), rate)


def load(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    end: float | None = None,
    rate: int = SAMPLE_RATE,
) -> np.ndarray:
    """Decode a file, or a part of it, into one array.

    Takes 64 kB of memory a second at 16 kHz; prefer `stream` for files of unknown length.

    Parameters
    ----------
    path, start, end, rate
        As in `stream`, which also documents the errors.

    Returns
    -------
    np.ndarray
        Mono samples, shape (n,), float32, n > 0.
    """
    return np.concatenate(list(stream(path, start=start, end=end, rate=rate)))


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


def _decoded(name: str, start: float, end: float | None) -> Iterator[_Block]:
    """Blocks from the first decoder that gives any."""
    readers = [_read_libav] if _is_mpeg_audio(name) else [_read_soundfile, _read_libav]
    refused: list[str] = []
    for reader in readers:
        blocks = reader(name, start, end)
        try:
            first = next(blocks, None)
        except _RefusedError as error:
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


def _is_mpeg_audio(name: str) -> bool:
    if os.path.splitext(name)[1].lower() in _MPEG_EXTENSIONS:  # noqa: PTH122
        return True
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            head = file.read(3)
    except OSError:
        return False
    return head == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def _check_rate(rate: int) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise _RefusedError(f"a sample rate of {rate} Hz cannot be right")


def _block_frames(rate: int, channels: int) -> int:
    return max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // channels))


def _downmixed(samples: np.ndarray) -> np.ndarray:
    """Average float32 samples (frames, channels) with equal weights; clear what is no sound."""
    with np.errstate(over="ignore", invalid="ignore"):
        mono = _mean(samples)
        # NaN fails every comparison, so this also finds it.
        if mono.size and not max(mono.max(), -mono.min()) <= _LOUDEST:
            mono = _mean(np.where(np.abs(samples) <= _LOUDEST, samples, np.float32(0)))
    return mono


def _mean(samples: np.ndarray) -> np.ndarray:
    """Mean over channels, column by column.

    Some 30 times as fast as ``mean(axis=1)``, and unlike a product with the weights it never waits
    for the threads of a linear algebra library.
    """
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    weight = np.float32(1 / channels)
    mono = samples[:, 0] * weight
    for channel in range(1, channels):
        mono += samples[:, channel] * weight
    return mono


def _read_soundfile(name: str, start: float, end: float | None) -> Iterator[_Block]:
    """Blocks of a file as libsndfile reads it."""
    import soundfile

    # Bytes reach names that are not valid text; Windows wants text.
    target = name if sys.platform == "win32" else os.fsencode(name)
    given = 0
    try:
        file = soundfile.SoundFile(target)
    except Exception as error:  # a decoder on foreign bytes: whatever it raises is a refusal
        raise _RefusedError(f"libsndfile: {_reason(error)}") from error
    with file:
        rate, channels = file.samplerate, file.channels
        _check_rate(rate)
        position = round(start * rate)
        last = None if end is None else round(end * rate)
        if position:
            if position >= file.frames:
                return
            try:
                file.seek(position)
            except Exception as error:
                raise _RefusedError(f"libsndfile: {_reason(error)}") from error
        size = _block_frames(rate, channels)
        while last is None or position < last:
            wanted = size if last is None else min(size, last - position)
            try:
                block = file.read(wanted, dtype="float32", always_2d=True)
            except Exception as error:
                if not given:
                    raise _RefusedError(f"libsndfile: {_reason(error)}") from error
                break
            if not len(block):
                return
            position += len(block)
            given += len(block)
            yield rate, _downmixed(block)
        else:
            return
    # Damaged or cut off in the middle: FFmpeg takes over from here, if it can.
    try:
        yield from _read_libav(name, position / rate, end)
    except _RefusedError:
        return


def _read_libav(name: str, start: float, end: float | None) -> Iterator[_Block]:
    """Blocks of a file as FFmpeg's libraries read it: its first sound track."""
    seek = start > _SEEK_BEYOND
    while True:
        try:
            yield from _libav_blocks(name, start, end, seek=seek)
            return
        except _SeekFailedError:
            seek = False


class _SeekFailedError(Exception):
    """The container cannot seek there; decode from the start instead."""


class _Source:
    """What PyAV reads from; PyAV prints the traceback of an exception in a seek, so none leaves."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name  # its extension helps FFmpeg to tell formats apart
        self.read = file.read
        self.tell = file.tell
        self._file = file

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # a damaged file points outside itself
            return -1


def _libav_blocks(name: str, start: float, end: float | None, *, seek: bool) -> Iterator[_Block]:
    import av

    pending: list[np.ndarray] = []
    pending_size = 0
    pending_rate = 0
    try:
        source = open(name, "rb")  # noqa: PTH123, SIM115 - closed by the next statement
    except OSError as error:  # it was there a moment ago
        raise _RefusedError(f"FFmpeg: {_reason(error)}") from error
    with source as file:
        # A file object is never taken for a URL, and the empty whitelist keeps playlists inside a
        # file from opening other files or the network.
        try:
            container = av.open(
                _Source(file, printable(name)),
                metadata_errors="replace",
                buffer_size=1 << 17,
                options={"protocol_whitelist": "none"},
            )
        except Exception as error:
            raise _RefusedError(f"FFmpeg: {_reason(error)}") from error
        with container:
            frames = _libav_frames(container, start, seek=seek)
            clock, count, clock_rate = 0.0, 0, 0
            for moment, rate, samples in frames:
                if moment is not None or rate != clock_rate:
                    clock = moment if moment is not None else clock + count / max(clock_rate, 1)
                    count, clock_rate = 0, rate
                length = len(samples)
                low = max(0, round((start - clock) * rate) - count)
                high = length if end is None else round((end - clock) * rate) - count
                count += length
                if high <= 0:
                    break
                if low >= min(high, length):
                    continue
                if pending and rate != pending_rate:
                    yield pending_rate, np.concatenate(pending)
                    pending, pending_size = [], 0
                pending_rate = rate
                pending.append(_downmixed(samples[low:high]))
                pending_size += pending[-1].size
                if pending_size >= _block_frames(rate, 1):
                    yield rate, np.concatenate(pending)
                    pending, pending_size = [], 0
            if pending:
                yield pending_rate, np.concatenate(pending)


_Decoded = tuple[float | None, int, np.ndarray]
"""Time in seconds by the container's clock, rate in hertz, samples (n, channels) float32."""


def _libav_frames(container: Any, start: float, *, seek: bool) -> Iterator[_Decoded]:
    """Decoded frames; only the first has a time, which counts from the first sample of the file.

    Damaged packets are skipped. Raises `_RefusedError` when nothing at all can be decoded.
    """
    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    if not tracks:
        raise _RefusedError("FFmpeg: no sound track that it can decode")
    track = tracks[0]
    track.codec_context.thread_count = 1
    frames = _decodable(container, track)
    first = next(frames, None)
    if first is None:
        raise _RefusedError("FFmpeg: nothing in it can be decoded")
    moment = 0.0
    if seek:
        begin = first[0]
        if begin is None:
            raise _SeekFailedError
        try:
            container.seek(int((begin + start - _PREROLL) / track.time_base), stream=track)
        except Exception as error:
            raise _SeekFailedError from error
        frames = _decodable(container, track)
        first = next(frames, None)
        if first is None:
            return  # beyond the end
        if first[0] is None or first[0] - begin > start:
            raise _SeekFailedError
        moment = first[0] - begin
    yield moment, *first[1:]
    for _, rate, samples in frames:
        yield None, rate, samples


def _decodable(container: Any, track: Any) -> Iterator[_Decoded]:
    """Frames of a track; packets that cannot be decoded are left out."""
    packets = container.demux(track)
    converters: dict[Any, Any] = {}
    bad = 0
    while bad < _BAD_PACKETS:
        try:
            packet = next(packets, None)
        except Exception:  # cut off, or a damaged container: what came before stands
            return
        if packet is None:
            return
        try:
            frames = [_as_float(frame, converters) for frame in packet.decode()]
        except Exception:
            bad += 1
            continue
        bad = 0 if frames else bad + 1
        yield from (frame for frame in frames if len(frame[2]))


def _as_float(frame: Any, converters: dict[Any, Any]) -> _Decoded:
    """Time, rate and samples of a PyAV frame; integers are scaled to [-1, 1)."""
    moment = None if frame.pts is None else float(frame.pts * frame.time_base)
    rate, channels = frame.sample_rate, frame.layout.nb_channels
    _check_rate(rate)
    # PyAV counts planes up to a null pointer that is not there with 8 channels or more: it would
    # read memory that is not the frame's. FFmpeg's converter interleaves such frames first.
    planar = frame.format.is_planar
    if (planar and channels >= 8) or frame.format.name.rstrip("p") not in _NUMPY_FORMATS:
        key = (frame.format.name, frame.layout.name, channels, rate)
        if key not in converters:
            import av

            converters.clear()  # one at a time, as formats seldom change
            converters[key] = av.AudioResampler(format="flt", layout=frame.layout, rate=rate)
        parts = [
            part.to_ndarray().reshape(-1, channels) for part in converters[key].resample(frame)
        ]
        values = np.concatenate(parts) if parts else np.empty((0, channels), dtype=np.float32)
    else:
        values = frame.to_ndarray()
        values = values.T if planar else values.reshape(-1, channels)
    if values.dtype == np.uint8:
        return moment, rate, (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        scale = np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
        return moment, rate, values.astype(np.float32) * scale
    with np.errstate(over="ignore"):
        return moment, rate, values.astype(np.float32)


def _reason(error: Exception) -> str:
    """A decoder's own words, without the file's name and the trailing stop."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".") or type(error).__name__


def _resampled(blocks: Iterator[_Block], rate: int) -> Iterator[np.ndarray]:
    """Blocks at `rate`, as if each stretch of one source rate were resampled whole."""
    import soxr

    nothing = np.empty(0, dtype=np.float32)
    source_rate = 0
    resampler: Any = None
    given = 0
    total, level = 0, 0.0
    for block_rate, block in blocks:
        if block_rate != source_rate:
            if resampler is not None:
                tail = resampler.resample_chunk(nothing, last=True)
                if tail.size:
                    given += tail.size
                    yield tail
            source_rate = block_rate
            resampler = None
            if source_rate != rate:
                resampler = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality="HQ")
        if not given:
            total += block.size
            level += float(block.sum(dtype=np.float64))
        out = block if resampler is None else resampler.resample_chunk(block)
        if out.size:
            given += out.size
            yield out
    if resampler is not None:
        tail = resampler.resample_chunk(nothing, last=True)
        if tail.size:
            given += tail.size
            yield tail
    if not given and total:
        # Shorter than half a sample of the result; it still is a sound.
        yield np.array([level / total], dtype=np.float32)
