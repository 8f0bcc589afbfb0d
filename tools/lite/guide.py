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

from audiosearch.errors import InvalidArgumentError, printable
from tools.lite.run import load_adaptor, weights_digest

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

    Raises
    ------
    DataError
        When the folder holds no finished stage with an adaptor.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._network = load_adaptor(self._folder)
        self._network.trainable = False
        self.name = weights_digest(self._folder)

    def values(self, embedding: Any) -> Any:
        """Return what the student shall give, (n, 128), of the teacher's embeddings (n, 1024)."""
        return self._network(embedding, training=False)

    def lead(self, adaptor: Any) -> None:
        """Set a student's adaptor to the guide: the trunk guesses what the guide was taught on.

        Parameters
        ----------
        adaptor : keras.Model
            The student's; its hidden layers must be as wide as the guide's.

        Raises
        ------
        InvalidArgumentError
            When they are not.
        """
        weights = self._network.get_weights()
        if [value.shape for value in weights] != [value.shape for value in adaptor.get_weights()]:
            raise InvalidArgumentError(
                f"The guide in {printable(str(self._folder))} has not the hidden layers of the "
                "student's adaptor. Train a guide with the student's --hidden."
            )
        adaptor.set_weights(weights)
