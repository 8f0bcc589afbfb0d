"""Log-mel patches to embeddings of 128 bytes in the released VGGish space.

- `get_embedder` makes an embedder by name; ``"lite"`` is bundled and needs no network.
- `Embedder` is what it makes; `quantize` and `dequantize` go between bytes and values.
"""

from __future__ import annotations

from collections.abc import Callable

from audiosearch.embedders.base import EMBEDDING_SIZE, SPACE, Embedder, dequantize, quantize
from audiosearch.errors import ModelError, printable

__all__ = [
    "EMBEDDING_SIZE",
    "SPACE",
    "Embedder",
    "available_embedders",
    "dequantize",
    "get_embedder",
    "quantize",
]


def _lite(threads: int | None) -> Embedder:
    from audiosearch.embedders.lite import LiteEmbedder

    return LiteEmbedder(threads=threads)


# Each maker imports its own runtime, so that a name costs nothing until it is used.
_MAKERS: dict[str, Callable[[int | None], Embedder]] = {"lite": _lite}


def available_embedders() -> tuple[str, ...]:
    """Return the names that `get_embedder` takes, sorted."""
    return tuple(sorted(_MAKERS))


def get_embedder(name: str = "lite", *, threads: int | None = None) -> Embedder:
    """Make an embedder.

    Parameters
    ----------
    name : str
        One of `available_embedders`.
    threads : int, optional
        Threads that it may use; by default, as many as the processor has cores. The result does
        not depend on it.

    Raises
    ------
    InvalidArgumentError
        When `threads` is less than 1.
    ModelError
        When there is no such embedder, or its weights are missing or damaged.
    """
    try:
        make = _MAKERS[name]
    except KeyError:
        raise ModelError(
            f"There is no embedder '{printable(name)}'. There is: "
            f"{', '.join(available_embedders())}."
        ) from None
    return make(threads)
