"""Rescoring: what a clip's other scores and its embedding say about each of its scores.

A classifier scores each class by itself. What else it heard says more: a clip that scores high for
"Vehicle" and "Road" is the surer car. A rescorer is a second ONNX file beside the classifier's that
turns calibrated scores into better ones.

Embedders err in different ways, so each rescorer is for the clips of some of them:

================= ================================ ============================================
``rescorer``      embeddings as AudioSet released  `audiosearch.classifier.rescoring_fit`
                  them, and VGGish's own
``rescorer-lite`` the bundled embedder's           ``tools/lite/rescoring.py``
================= ================================ ============================================
"""

from __future__ import annotations

import functools
import hashlib
import os

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.scorer import BATCH, classifier_identity
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES, RELEASED, frame_mask
from audiosearch.errors import InvalidArgumentError, printable
from audiosearch.labels import CLASS_COUNT
from audiosearch.models import BundledModel, bundled_model, onnx_session

__all__ = ["Rescorer", "load_rescorer", "logits_of", "rescored_identity", "rescorer_of"]

_LARGEST_LOGIT = 12.0  # of a score that float32 still tells from 1
_GENERAL = "rescorer"
_OWN = {"lite": "rescorer-lite"}
"""Rescorers that were fitted to what one embedder makes, by its name."""


class Rescorer:
    """Rescores what one classifier scored.

    Parameters
    ----------
    model : BundledModel
        The ONNX file: inputs ``logits``, float32 (n, 527), ``frames``, float32 (n, 10, 128), and
        ``mask``, float32 (n, 10); output ``scores``, float32 (n, 527).
    threads : int, optional
        How many threads a batch may use; all cores where None.

    Raises
    ------
    ModelError
        When the file cannot be loaded.
    """

    def __init__(self, model: BundledModel, *, threads: int | None = None) -> None:
        name = f"The rescorer {printable(os.fspath(model.path))}"
        self._session = onnx_session(model.path, name=name, threads=threads)

    def rescore(
        self,
        scores: npt.NDArray[np.floating],
        x: npt.NDArray[np.uint8],
        n_frames: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.float32]:
        """Return better scores of clips.

        As scoring does, it works in batches of one fixed size, so that a clip's scores do not
        depend on the clips beside it.

        Parameters
        ----------
        scores : float (n, 527)
            Calibrated scores of the classifier that the rescorer belongs to.
        x : uint8 (n, 10, 128)
            Embedding frames; what stands beyond a clip's frames is ignored.
        n_frames : int (n,)
            How many frames each clip has, 1 to 10.

        Returns
        -------
        float32 (n, 527)
            Calibrated, from 0 to 1.

        Raises
        ------
        InvalidArgumentError
            When a shape or a frame count is another.
        """
        counts = np.asarray(n_frames)
        count = len(x)
        if (
            np.shape(scores) != (count, CLASS_COUNT)
            or x.shape != (count, CLIP_FRAMES, FRAME_VALUES)
            or counts.shape != (count,)
            or (count and not (counts.min() >= 1 and counts.max() <= CLIP_FRAMES))
        ):
            raise InvalidArgumentError(
                f"A rescorer takes scores (n, {CLASS_COUNT}), frames (n, {CLIP_FRAMES}, "
                f"{FRAME_VALUES}) and counts from 1 to {CLIP_FRAMES} (n,), not "
                f"{np.shape(scores)}, {x.shape} and {counts.shape}."
            )
        result = np.empty((count, CLASS_COUNT), np.float32)
        logits = np.zeros((BATCH, CLASS_COUNT), np.float32)
        frames = np.zeros((BATCH, CLIP_FRAMES, FRAME_VALUES), np.float32)
        mask = np.ones((BATCH, CLIP_FRAMES), np.float32)
        for start in range(0, count, BATCH):
            rows = slice(start, min(start + BATCH, count))
            here = rows.stop - start
            mask[:here] = frame_mask(counts[rows])
            frames[:here] = (x[rows].astype(np.float32) - 128.0) / 128.0
            frames[:here] *= mask[:here, :, None]
            logits[:here] = logits_of(scores[rows])
            inputs = {"logits": logits, "frames": frames, "mask": mask}
            result[rows] = self._session.run(None, inputs)[0][:here]
        return result


def logits_of(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the logits of scores, as far as float32 tells a score from 0 and 1."""
    tiny = 1 / (1 + np.exp(_LARGEST_LOGIT))
    safe = np.clip(np.asarray(scores, np.float64), tiny, 1 - tiny)
    return (np.log(safe) - np.log1p(-safe)).astype(np.float32)


def rescorer_of(embedder: str = RELEASED, digest: str | None = None) -> BundledModel | None:
    """Return the rescorer of clips that an embedder made, where one fits.

    Parameters
    ----------
    embedder : str
        The embedder's name.
    digest : str or None
        SHA-256 of its weights. A rescorer that was fitted to one embedder is of use with the same
        weights only.

    Returns
    -------
    BundledModel or None
        None where the installed rescorer was fitted to another classifier than the one installed,
        as after training a new one, or to other weights of the embedder: scores are then used as
        they are.

    Raises
    ------
    ModelError
        When files of classifier or rescorer are missing or damaged.
    """
    rescorer = bundled_model(_OWN.get(embedder, _GENERAL))
    identity = classifier_identity(bundled_model("classifier"))
    fits = rescorer.manifest.get("classifier_identity") == identity
    if embedder in _OWN:
        fits = fits and rescorer.manifest.get("embedder_sha256") == digest
    return rescorer if fits else None


@functools.lru_cache(maxsize=8)
def load_rescorer(
    embedder: str = RELEASED, digest: str | None = None, *, threads: int | None = None
) -> Rescorer | None:
    """Load `rescorer_of`, once a process; None where there is none.

    Raises
    ------
    ModelError
        When its files are missing or damaged.
    """
    model = rescorer_of(embedder, digest)
    return None if model is None else Rescorer(model, threads=threads)


@functools.cache
def rescored_identity(embedder: str = RELEASED, digest: str | None = None) -> str | None:
    """Return a SHA-256 over what rescored scores depend on: classifier, calibration, rescorer.

    None where `rescorer_of` is None.

    Raises
    ------
    ModelError
        When files of either are missing or damaged.
    """
    rescorer = rescorer_of(embedder, digest)
    if rescorer is None:
        return None
    identity = classifier_identity(bundled_model("classifier"))
    return hashlib.sha256(f"{identity} {rescorer.sha256}".encode()).hexdigest()
