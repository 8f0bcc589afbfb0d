"""Sound files of any container and number of channels, and the pitch of what comes out."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import soundfile

from audiosearch import audio


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def pitch(samples: np.ndarray) -> float:
    middle = samples[len(samples) // 4 :][: len(samples) // 2] * np.hanning(len(samples) // 2)
    return float(np.argmax(np.abs(np.fft.rfft(middle))) * audio.SAMPLE_RATE / len(middle))


def write(path: Path, samples: np.ndarray, rate: int, **options: str) -> Path:
    samples = samples[:, None] if samples.ndim == 1 else samples
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], **options) as file:
        # In blocks: libsndfile's Vorbis writer overruns its stack on long arrays.
        for first in range(0, len(samples), 4096):
            file.write(samples[first : first + 4096])
    return path


def write_libav(path: Path, samples: np.ndarray, rate: int, codec: str, layout: str) -> Path:
    """Write planar float samples (channels, n) with FFmpeg's encoders."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout=layout, bit_rate=128_000)
        # Interleaved: PyAV miscounts the planes of eight channels.
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        fit = av.AudioResampler(
            format=track.format, layout=layout, rate=rate, frame_size=track.frame_size or 960
        )
        for part in (*fit.resample(frame), *fit.resample(None), None):
            for packet in track.encode(part):
                container.mux(packet)
    return path
