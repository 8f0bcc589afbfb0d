"""Which scores a library holds: the classifier's, rescored by what else a clip holds.

A library's manifest names what made its scores, by a hash over classifier, calibration and
rescorer. Libraries that were made without a rescorer go on without: scores of one kind only can be
compared.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.rescoring import load_rescorer, rescored_identity
from audiosearch.classifier.scorer import classifier_identity
from audiosearch.library.opened import OpenedLibrary
from audiosearch.models import bundled_model

__all__ = ["known_scorers", "library_scorer", "library_scores"]


def library_scorer() -> tuple[str, str]:
    """Return name and hash of what scores the clips of a new library."""
    classifier = bundled_model("classifier")
    identity = rescored_identity() or classifier_identity(classifier)
    return str(classifier.manifest["name"]), identity


def known_scorers() -> tuple[str, ...]:
    """Return the hashes of all that this version can score clips with."""
    plain = classifier_identity(bundled_model("classifier"))
    rescored = rescored_identity()
    return (plain,) if rescored is None else (rescored, plain)


def library_scores(
    library: OpenedLibrary,
    scores: npt.NDArray[np.float32],
    x: npt.NDArray[np.uint8],
    n_frames: npt.NDArray[np.integer],
) -> npt.NDArray[np.float32]:
    """Return the scores of clips as a library stores them.

    Parameters
    ----------
    library : Library
        Where they will be stored.
    scores : float32 (n, 527)
        Calibrated scores of the bundled classifier.
    x, n_frames : uint8 (n, 10, 128), int (n,)
        The clips' embedding frames, and how many each has.
    """
    if library.manifest["classifier"]["sha256"] != rescored_identity():
        return scores
    return load_rescorer().rescore(scores, x, n_frames)
