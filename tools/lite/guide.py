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

from audiosearch.storage import read_json, sha256_file
from tools.lite.network import build_adaptor, config_from_dict
from tools.lite.run import load_parts

__all__ = ["Guide"]


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
        self.name = sha256_file(Path(folder) / "student.npz")[:16]

    def values(self, embedding: Any) -> Any:
        """Return what the student shall give, (n, 128), of the teacher's embeddings (n, 1024)."""
        return self._network(embedding, training=False)

    def lead(self, adaptor: Any) -> None:
        """Set a student's adaptor to the guide: the trunk guesses what the guide was taught on.

        Parameters
        ----------
        adaptor : keras.Model
            The student's; its hidden layers must be as wide as the guide's.
        """
        adaptor.set_weights(self._network.get_weights())
