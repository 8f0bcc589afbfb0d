"""The guide: the way from the teacher's embedding into VGGish's space.

It is an adaptor behind the teacher instead of behind the student's trunk: of the teacher's answer
to any patch it makes the values that the student shall give. So the student has a target in the
space itself for every patch, not only for the few clips whose released embedding is known. It is
no part of what is shipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiosearch.storage import read_json, sha256_file
from tools.lite.network import NORM_EPSILON, StudentConfig, build_adaptor, config_from_dict
from tools.lite.run import load_parts

__all__ = ["Guide"]

Floats = npt.NDArray[np.float32]


class Guide:
    """A trained guide.

    Parameters
    ----------
    folder : path-like
        Folder of the finished stage.

    Attributes
    ----------
    name : str
        Checksum of its weights.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        described = read_json(Path(folder) / "config.json")
        config = config_from_dict(described["student"])
        scale = described["values"]
        self._network = build_adaptor(config, mean=scale["mean"], deviation=scale["deviation"])
        load_parts(folder, {"adaptor": self._network})
        self._network.trainable = False
        self._config: StudentConfig = config
        self.name = sha256_file(Path(folder) / "student.npz")[:16]

    def values(self, embedding: Any) -> Any:
        """Return what the student shall give, (n, 128), of the teacher's embeddings (n, 1024)."""
        return self._network(embedding, training=False)

    def lead(
        self, adaptor: Any, head: Any, teacher: tuple[Floats, Floats], features: Floats
    ) -> None:
        """Set a student's adaptor to the guide behind the student's guess of the embedding.

        The guess is linear in the features, so that the guide's first layer takes it in.

        Parameters
        ----------
        adaptor : keras.Model
            The student's; its hidden layers must be as wide as the guide's.
        head : keras.Model
            Features to the standardised embedding.
        teacher : tuple of float32 (1024,)
            Mean and deviation by which the embedding is standardised.
        features : float32 (n, width)
            What the trunk gives of real patches.
        """
        gamma, beta, mean, variance = self._network.get_layer("standardised").get_weights()
        scale = gamma / np.sqrt(variance + np.float32(NORM_EPSILON))
        kernel, bias = head.get_layer("answer").get_weights()
        kernel, bias = kernel * teacher[1], bias * teacher[1] + teacher[0]
        kernel, bias = kernel * scale, (bias - mean) * scale + beta
        names = [f"hidden_{number}" for number in range(1, len(self._config.hidden) + 1)]
        first, *others = [*names, "standard_embedding"]
        weights, offset = self._network.get_layer(first).get_weights()
        kernel, bias = kernel @ weights, bias @ weights + offset
        centre, spread = features.mean(axis=0), features.var(axis=0)
        one = np.ones_like(centre)
        adaptor.get_layer("standardised").set_weights([one, 0 * one, centre, spread])
        wide = np.sqrt(spread + np.float32(NORM_EPSILON))
        adaptor.get_layer(first).set_weights([kernel * wide[:, None], bias + centre @ kernel])
        for name in others:
            adaptor.get_layer(name).set_weights(self._network.get_layer(name).get_weights())
