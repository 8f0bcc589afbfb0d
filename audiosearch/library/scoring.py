"""Which scores a library holds: the classifier's, rescored by what else a clip holds.

Which rescorer a clip gets depends on what embedded it. A library's manifest names what made its
scores, for each embedder by a hash over classifier, calibration and rescorer: under ``classifier``
for the library's own embedder, and as ``scored_by`` for one that was mixed in. Libraries that were
made without a rescorer go on without: scores of one kind only can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from audiosearch.classifier.clip_scorer import ClipScorer, load_clip_scorer
from audiosearch.classifier.rescoring import rescored_identity
from audiosearch.classifier.scorer import classifier_identity
from audiosearch.datasets.packed import RELEASED, PackedFile
from audiosearch.models import bundled_model

__all__ = [
    "Maker",
    "are_comparable",
    "clip_scorer",
    "is_rescored",
    "known_scorers",
    "library_scorer",
    "new_scorer",
    "packed_by",
    "scored_by",
    "sound_maker",
]

Maker: TypeAlias = tuple[str, str | None]
"""Name of a model, and the SHA-256 of its weights where it has such."""


def library_scorer(embedder: Maker) -> tuple[str, str]:
    """Return name and hash of what scores an embedder's clips in a new library."""
    name = str(bundled_model("classifier").manifest["name"])
    return name, known_scorers(embedder)[0]


def known_scorers(embedder: Maker) -> tuple[str, ...]:
    """Return the hashes of all that this version can score an embedder's clips with, best first."""
    plain = classifier_identity(bundled_model("classifier"))
    rescored = rescored_identity(*embedder)
    return (plain,) if rescored is None else (rescored, plain)


def scored_by(manifest: Mapping[str, Any]) -> dict[Maker, str]:
    """Return the hash of what scored the clips of each of a library's embedders, its own first."""
    own = str(manifest["classifier"]["sha256"])
    embedders = [manifest["embedder"], *manifest.get("mixed_with", [])]
    return {
        (str(model["name"]), model["sha256"]): str(model.get("scored_by", own))
        for model in embedders
    }


def is_rescored(manifest: Mapping[str, Any], embedder: Maker) -> bool:
    """Tell whether an embedder's clips are rescored in a library.

    Those of an embedder that the library does not hold yet are if those of its own are.
    """
    scorers = scored_by(manifest)
    known = embedder if embedder in scorers else next(iter(scorers))
    return scorers[known] == rescored_identity(*known)


def new_scorer(manifest: Mapping[str, Any], embedder: Maker) -> str:
    """Return the hash of what scores the clips of an embedder that a library does not hold yet."""
    return known_scorers(embedder)[0 if is_rescored(manifest, embedder) else -1]


def clip_scorer(manifest: Mapping[str, Any], embedder: Maker) -> ClipScorer:
    """Load what scores an embedder's clips as a library stores them."""
    return load_clip_scorer(*embedder, rescored=is_rescored(manifest, embedder))


def are_comparable(scorers: Iterable[tuple[Maker, str]]) -> bool:
    """Tell whether clips of these embedders, scored by what has these hashes, go together.

    They do when one hash scored all, or when each is what this version rescores with.
    """
    listed = list(scorers)
    if len({digest for _, digest in listed}) == 1:
        return True
    return all(digest == library_scorer(embedder)[1] for embedder, digest in listed)


def packed_by(file: PackedFile) -> Maker:
    """Return what embedded a packed file."""
    return file.attribute("embedder") or RELEASED, file.attribute("embedder_sha256")


def sound_maker(manifest: Mapping[str, Any], source: str) -> Maker:
    """Return what embedded the recordings of a source, ``"audioset"`` or another, of a library."""
    embedders = list(scored_by(manifest))
    is_released = source == "audioset"
    return next((one for one in embedders if (one[0] == RELEASED) == is_released), embedders[0])
