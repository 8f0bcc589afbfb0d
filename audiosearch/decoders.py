"""The two decoders behind `audiosearch.audio`: libsndfile, and FFmpeg's libraries through PyAV.

Each is a generator of float32 blocks at the file's own rate, whose channels a function of
`audiosearch.channels` mixes. It raises `RefusedError` before its first block when it cannot read
the file, gives nothing for a file without sound, and raises nothing later: what is damaged after
the first block is left out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from audiosearch.channels import Mix, mono_of
from audiosearch.errors import printable

__all__ = [
    "HIGHEST_RATE",
    "LOWEST_RATE",
    "Block",
    "RefusedError",
    "is_mpeg_audio",
    "read_libav",
    "read_soundfile",
]

# A block is at most 10 s and about a megabyte, whatever the rate and the number of channels.
_BLOCK_SECONDS = 10
_BLOCK_VALUES = 1 << 18
# FFmpeg's frames (26 ms of mp3) are mixed so many values at a time: one by one, that costs as
# much as decoding them.
_MIX_VALUES = 1 << 15
LOWEST_RATE, HIGHEST_RATE = 100, 12_288_000
"""Rates outside are damaged headers; DSD at its highest reads as about 6 MHz."""
# Within this many seconds decoding from the start is cheap and exact to the sample.
_SEEK_BEYOND = 10.0
# What decoders need to hear before a seek's target to be settled (Opus 80 ms, AAC 2 frames).
_PREROLL = 0.5
# Packets in a row that give nothing before a decoder is taken to be lost.
_BAD_PACKETS = 1000
# Sample formats that PyAV gives as arrays, interleaved or (with a p) planar.
_NUMPY_FORMATS = frozenset(["u8", "s16", "s32", "flt", "dbl"])
_MPEG_EXTENSIONS = (".mp1", ".mp2", ".mp3", ".mpa")

Block = tuple[int, np.ndarray]
"""Sample rate in hertz and float32 samples at that rate, as mixed: (n,) or (n, k)."""


class RefusedError(Exception):
    """A decoder cannot read the file from its start; the next one may. Never leaves `audio`."""


def is_mpeg_audio(name: str) -> bool:
    """Whether a file is, or by its name claims to be, an mp3 or one of its relatives."""
    if os.path.splitext(name)[1].lower() in _MPEG_EXTENSIONS:  # noqa: PTH122
        return True
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            head = file.read(3)
    except OSError:
        return False
    return head == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def _check_rate(rate: int) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise RefusedError(f"a sample rate of {rate} Hz cannot be right")


def _block_frames(rate: int, channels: int) -> int:
    return max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // channels))


def read_soundfile(
    name: str, start: float, end: float | None, mix: Mix = mono_of
) -> Iterator[Block]:
    """Blocks of a file as libsndfile reads it."""
    import soundfile

    # Bytes reach names that are not valid text; Windows wants text.
    target = name if sys.platform == "win32" else os.fsencode(name)
    given = 0
    try:
        file = soundfile.SoundFile(target)
    except Exception as error:  # a decoder on foreign bytes: whatever it raises is a refusal
        raise RefusedError(f"libsndfile: {_reason(error)}") from error
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
                raise RefusedError(f"libsndfile: {_reason(error)}") from error
        size = _block_frames(rate, channels)
        while last is None or position < last:
            wanted = size if last is None else min(size, last - position)
            try:
                block = file.read(wanted, dtype="float32", always_2d=True)
            except Exception as error:
                if not given:
                    raise RefusedError(f"libsndfile: {_reason(error)}") from error
                break
            if not len(block):
                return
            position += len(block)
            given += len(block)
            yield rate, mix(block)
        else:
            return
    # Damaged or cut off in the middle: FFmpeg takes over from here, if it can.
    try:
        yield from read_libav(name, position / rate, end, mix)
    except RefusedError:
        return


def read_libav(name: str, start: float, end: float | None, mix: Mix = mono_of) -> Iterator[Block]:
    """Blocks of a file as FFmpeg's libraries read it: its first sound track."""
    seek = start > _SEEK_BEYOND
    while True:
        try:
            yield from _libav_blocks(name, start, end, mix, seek=seek)
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


def _libav_blocks(
    name: str, start: float, end: float | None, mix: Mix, *, seek: bool
) -> Iterator[Block]:
    import av

    mixer = _Mixer(mix)
    try:
        source = open(name, "rb")  # noqa: PTH123, SIM115 - closed by the next statement
    except OSError as error:  # it was there a moment ago
        raise RefusedError(f"FFmpeg: {_reason(error)}") from error
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
            raise RefusedError(f"FFmpeg: {_reason(error)}") from error
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
                if mixer.size and rate != mixer.rate:
                    yield mixer.block()
                mixer.rate = rate
                mixer.add(samples[low:high])
                if mixer.size >= _block_frames(rate, 1):
                    yield mixer.block()
            if mixer.size:
                yield mixer.block()


class _Mixer:
    """Collects short pieces (n, channels) of one rate to a mixed block."""

    def __init__(self, mix: Mix) -> None:
        self._to_mixed = mix
        self.rate = self.size = 0
        self._pieces: list[np.ndarray] = []
        self._mixed: list[np.ndarray] = []
        self._values = 0

    def add(self, samples: np.ndarray) -> None:
        if self._pieces and samples.shape[1] != self._pieces[0].shape[1]:
            self._mix()
        self._pieces.append(samples)
        self._values += samples.size
        self.size += len(samples)
        if self._values >= _MIX_VALUES:
            self._mix()

    def block(self) -> Block:
        """Return what was collected, and begin anew."""
        self._mix()
        mixed, self._mixed, self.size = self._mixed, [], 0
        return self.rate, np.concatenate(mixed)

    def _mix(self) -> None:
        if self._pieces:
            self._mixed.append(self._to_mixed(np.concatenate(self._pieces)))
            self._pieces, self._values = [], 0


_Decoded = tuple[float | None, int, np.ndarray]
"""Time in seconds by the container's clock, rate in hertz, samples (n, channels) float32."""


def _libav_frames(container: Any, start: float, *, seek: bool) -> Iterator[_Decoded]:
    """Decoded frames; only the first has a time, which counts from the first sample of the file.

    Damaged packets are skipped. Raises `RefusedError` when nothing at all can be decoded.
    """
    tracks = [track for track in container.streams.audio if track.codec_context is not None]
    if not tracks:
        raise RefusedError("FFmpeg: no sound track that it can decode")
    track = tracks[0]
    track.codec_context.thread_count = 1
    frames = _decodable(container, track)
    first = next(frames, None)
    if first is None:
        raise RefusedError("FFmpeg: nothing in it can be decoded")
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
    """Frames of a track, the first with its time; packets that cannot be decoded are left out."""
    timed = True  # working a time out takes as long as decoding an mp3's frame
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
            frames = [
                (_moment(frame) if timed else None, *_as_float(frame, converters))
                for frame in packet.decode()
            ]
        except Exception:
            bad += 1
            continue
        bad = 0 if frames else bad + 1
        for each in frames:
            if len(each[2]):
                timed = False
                yield each


def _moment(frame: Any) -> float | None:
    return None if frame.pts is None else float(frame.pts * frame.time_base)


def _as_float(frame: Any, converters: dict[Any, Any]) -> tuple[int, np.ndarray]:
    """Rate and samples (n, channels) of a PyAV frame; integers are scaled to [-1, 1)."""
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
    if values.dtype == np.float32:
        return rate, values
    if values.dtype == np.uint8:
        return rate, (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        scale = np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
        return rate, values.astype(np.float32) * scale
    with np.errstate(over="ignore"):
        return rate, values.astype(np.float32)


def _reason(error: Exception) -> str:
    """A decoder's own words, without the file's name and the trailing stop."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".") or type(error).__name__
