"""What a training leaves for use: the classifier, its manifest, its model card."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.export import write_model
from audiosearch.errors import DataError
from audiosearch.lab.card import CARD_NAME, write_card
from audiosearch.lab.feature_cache import FeatureSet
from audiosearch.lab.fits import Fit
from audiosearch.lab.settings import LabConfig
from audiosearch.own.features import LIBROSA26, get_feature
from audiosearch.own.waveforms import ClipLength
from audiosearch.storage import atomic_path
from audiosearch.version import __version__

__all__ = ["write_parameters", "write_result"]

# How far ONNX Runtime's scores may be from those of the model that was trained.
_CLOSE = 1e-3


def write_result(
    folder: Path,
    fit: Fit,
    features: FeatureSet,
    length: ClipLength,
    config: LabConfig,
    facts: dict[str, Any],
) -> None:
    """Write classifier, manifest and model card, after a check that ONNX Runtime agrees.

    Raises
    ------
    DataError
        When it does not.
    """
    import onnxruntime

    model = fit.write()
    clips = features.take(np.arange(min(8, len(features))))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.run(None, {"clip": clips})
    away = float(np.abs(given - fit.score(clips)).max())
    if not away <= _CLOSE:
        raise DataError(
            f"The exported classifier's scores are {away:.2g} from those of the trained one. "
            "Please report this; nothing was written."
        )
    manifest = {
        "kind": "lab",
        "model": config.model,
        "classes": list(features.sounds.classes),
        "multi_label": features.sounds.multi_label,
        "feature": {
            "name": config.spec.feature,
            "identity": get_feature(config.spec.feature).identity,
            "shape": list(features.shape),
        },
        "length": length.to_dict(),
        "audiosearch": __version__,
        **facts,
    }
    try:
        write_model(model, folder, {"name": folder.name or config.model, **manifest})
        write_card(folder, manifest)
    except BaseException:
        # Half of it, or this one's half beside another's, is of no use.
        for name in ("classifier.json", "classifier.onnx", CARD_NAME):
            (folder / name).unlink(missing_ok=True)
        raise


def write_parameters(path: Path, features: FeatureSet) -> None:
    """Write the 26 parameters of each sound as CSV."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        out = csv.writer(file)
        out.writerow(["path", "start", "end", "label", *LIBROSA26])
        for row, sound in enumerate(features.sounds.sounds):
            (values,) = features.take(np.array([row]))
            end = "" if sound.end is None else sound.end
            facts = [sound.path, sound.start, end, ";".join(sound.labels)]
            out.writerow([*facts, *(f"{value:.6g}" for value in values)])
