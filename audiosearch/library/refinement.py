"""Where in a clip it is like an example, frame by frame.

Each frame is compared with the example's mean embedding; the stretch is the run of frames whose
cosines rise most, in sum, above their mean over the clip. ``bench/pooling.py`` measures it on clips
into which another recording was cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["stretch"]

_EVEN = 0.8  # a clip whose poorest frame is so much of its best is like the example all through


def stretch(frames: npt.NDArray[np.uint8], direction: npt.NDArray[np.floating]) -> tuple[int, int]:
    """Return the run of frames that is most like an example.

    Parameters
    ----------
    frames : uint8 (n, 128)
        A clip's embedding frames, n at least 1.
    direction : float (128,)
        Where the example's mean embedding points.

    Returns
    -------
    start, stop : int
        Numbers of the first frame, and of the one after the last.
    """
    values = (np.asarray(frames, np.float32) - 128.0) / 128.0
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(direction)
    cosines = values @ np.asarray(direction, np.float32) / np.maximum(lengths, 1e-12)
    if cosines.min() >= _EVEN * cosines.max():
        return 0, len(cosines)
    sums = np.concatenate([[0.0], np.cumsum(cosines - cosines.mean())])
    gain = np.where(np.tri(len(sums), k=-1, dtype=bool), sums[:, None] - sums, -np.inf)
    stop, start = divmod(int(gain.argmax()), len(sums))
    return start, stop
