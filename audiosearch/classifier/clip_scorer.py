"""Scores of clips as users see them: the classifier's, calibrated, and rescored.

Libraries hold these scores and tags show them. Both come from here, so that a clip has the same
scores wherever it is met.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.rescoring import Rescorer, load_rescorer
from audiosearch.classifier.scorer import Scorer, load_scorer
from audiosearch.datasets.packed import RELEASED

__all__ = ["ClipScorer", "load_clip_scorer"]


class ClipScorer:
    """A classifier, and the rescorer of what one embedder makes.

    Parameters
    ----------
    scorer : Scorer
        The classifier.
    rescorer : Rescorer or None
        What makes its scores better; they stay as they are where it is None.
    """

    def __init__(self, scorer: Scorer, rescorer: Rescorer | None) -> None:
        self.scorer, self.rescorer = scorer, rescorer

    def score(
        self, x: npt.NDArray[np.uint8], n_frames: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float32]:
        """Score clips.

        A clip's scores depend neither on the clips beside it nor on the number of threads.

        Parameters
        ----------
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
            When a shape, dtype or frame count is another.
        """
        scores = self.scorer.score_calibrated(x, n_frames)
        return scores if self.rescorer is None else self.rescorer.rescore(scores, x, n_frames)


def load_clip_scorer(
    embedder: str = RELEASED,
    digest: str | None = None,
    *,
    classifier: str | None = None,
    rescored: bool = True,
    threads: int | None = None,
) -> ClipScorer:
    """Load what scores the clips of an embedder.

    Parameters
    ----------
    embedder, digest : str, str or None
        The embedder's name and the SHA-256 of its weights, as
        `audiosearch.classifier.rescoring.rescorer_of` takes them.
    classifier : str, optional
        A training run's folder; its scores are used as they are. The bundled classifier where None.
    rescored : bool
        Whether scores are rescored, where there is a rescorer that fits.
    threads : int, optional
        How many threads a batch may use; all cores where None.

    Raises
    ------
    ModelError
        When files are missing or damaged.
    """
    wanted = rescored and classifier is None
    return ClipScorer(
        load_scorer(classifier, threads=threads),
        load_rescorer(embedder, digest, threads=threads) if wanted else None,
    )
