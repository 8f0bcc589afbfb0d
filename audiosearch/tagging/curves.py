"""Tags over time: those of each clip of a sound, and the scores of classes frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from audiosearch.classifier.clip_scorer import load_clip_scorer
from audiosearch.datasets.packed import CLIP_FRAMES, FRAME_VALUES
from audiosearch.embedders import embedder_hash
from audiosearch.errors import InvalidArgumentError
from audiosearch.frontend import PATCH_SECONDS
from audiosearch.jobs import Analysis
from audiosearch.labels import load_labels
from audiosearch.library.hits import Tag
from audiosearch.tagging.tags import TagResult, best_tags

__all__ = ["FrameScores", "clip_tags", "frame_scores"]


@dataclass(frozen=True)
class FrameScores:
    """Scores of some classes in each frame of a sound.

    Attributes
    ----------
    step : float
        Seconds from one frame to the next; the first begins at 0.
    classes : list of (Tag, list of float)
        Each class with its highest score, and its score in every frame.
    """

    step: float
    classes: list[tuple[Tag, list[float]]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, scores with four digits."""
        return {
            "step": self.step,
            "classes": [
                {
                    "label": tag.label,
                    "mid": tag.mid,
                    "score": round(tag.score, 4),
                    "scores": [round(score, 4) for score in scores],
                }
                for tag, scores in self.classes
            ],
        }


def clip_tags(analysis: Analysis, *, top: int) -> list[TagResult]:
    """Return the `top` best classes of each clip of an analysed sound."""
    names = [name for track in analysis.own for name in track.classes]
    rows = enumerate(zip(analysis.scores, analysis.own_scores().tolist(), strict=True))
    return [
        TagResult(
            analysis.path,
            *analysis.clip_times(number),
            best_tags(scores, top, zip(names, own, strict=True)),
        )
        for number, (scores, own) in rows
    ]


def frame_scores(analysis: Analysis, *, top: int) -> FrameScores:
    """Score every frame of an analysed sound as a sound of its own.

    Parameters
    ----------
    analysis : Analysis
        The sound; its frames are scored by the bundled classifier, and rescored. Classifiers of the
        user's own that heard it have said how surely they hear theirs.
    top : int
        How many classes: those that reach the highest scores.

    Raises
    ------
    InvalidArgumentError
        When `top` is not above 0.
    """
    if top < 1:
        raise InvalidArgumentError(f"top must be at least 1, not {top}.")
    x = np.zeros((len(analysis.frames), CLIP_FRAMES, FRAME_VALUES), np.uint8)
    x[:, 0] = analysis.frames
    scorer = load_clip_scorer(analysis.embedder, embedder_hash(analysis.embedder))
    scores = scorer.score(x, np.ones(len(x), np.int64))
    scores = np.concatenate([scores, analysis.own_frame_scores()], axis=1)
    best = scores.max(axis=0)
    names = [(label.name, label.mid) for label in load_labels()]
    names += [(name, "") for track in analysis.own for name in track.classes]
    order = np.argsort(-best, kind="stable")[:top].tolist()
    classes = []
    for index in order:
        name, mid = names[index]
        classes.append((Tag(name, mid, float(best[index])), scores[:, index].tolist()))
    return FrameScores(PATCH_SECONDS, classes)
