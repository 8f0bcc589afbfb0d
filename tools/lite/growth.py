"""A deeper trunk that begins as a trained one: new blocks change nothing much at first.

A block adds what it computes to what it was given (network.py). New ones begin with a small scale,
so that the trunk still answers nearly as the one it was grown from (Chen et al., "Net2Net",
ICLR 2016).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audiosearch.errors import InvalidArgumentError
from audiosearch.storage import read_json
from tools.lite.network import StudentConfig, build_head, build_trunk, config_from_dict
from tools.lite.run import load_parts

__all__ = ["grow"]

_NEW_SCALE = 0.1


def grow(folder: str | os.PathLike[str], config: StudentConfig, parts: dict[str, Any]) -> None:
    """Set trunk and head to a finished stage's, which may have fewer blocks a stage.

    Parameters
    ----------
    folder : path-like
        The finished stage.
    config : StudentConfig
        Shape of the parts.
    parts : dict of str to keras.Model
        ``trunk`` and ``head``; layers that the finished stage has get its weights, new blocks keep
        their first weights but for a small scale.

    Raises
    ------
    InvalidArgumentError
        When the shapes differ in more than the number of blocks, or there are fewer of them.
    """
    before = config_from_dict(read_json(Path(folder) / "config.json")["student"])
    same = (before.channels, before.block, before.features, len(before.depths)) == (
        config.channels,
        config.block,
        config.features,
        len(config.depths),
    )
    if not same or any(old > new for old, new in zip(before.depths, config.depths, strict=True)):
        raise InvalidArgumentError(
            f"A student of {before} cannot grow into one of {config}: only blocks can be added."
        )
    grown = {"trunk": build_trunk(before), "head": build_head(before)}
    load_parts(folder, grown)
    for name, part in grown.items():
        known = {layer.name: layer for layer in part.layers}
        for layer in parts[name].layers:
            if layer.name in known:
                layer.set_weights(known[layer.name].get_weights())
            elif layer.name.endswith("_norm"):
                layer.gamma.assign(layer.gamma * _NEW_SCALE)
