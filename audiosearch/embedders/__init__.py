"""Log-mel patches to embeddings of 128 bytes in the released VGGish space.

- `get_embedder` makes an embedder by name: ``"lite"`` is bundled and needs no network, ``"vggish"``
  and its int8 variant are fetched (see `audiosearch.embedders.vggish`).
- `embedder_hash` says which weights it has, without loading them.
- `Embedder` is what it makes; `quantize` and `dequantize` go between bytes and values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from audiosearch.embedders.base import EMBEDDING_SIZE, SPACE, Embedder, dequantize, quantize
from audiosearch.errors import ModelError, printable

__all__ = [
    "EMBEDDING_SIZE",
    "SPACE",
    "Embedder",
    "available_embedders",
    "dequantize",
    "embedder_hash",
    "get_embedder",
    "quantize",
]


def _lite(threads: int | None) -> Embedder:
    from audiosearch.embedders.lite import LiteEmbedder

    return LiteEmbedder(threads=threads)


def _vggish(threads: int | None, *, variant: str = "vggish") -> Embedder:
    from audiosearch.embedders.vggish.embedder import VggishEmbedder
    from audiosearch.embedders.vggish.install import ensure_installed

    ensure_installed()
    return VggishEmbedder(variant, threads=threads)


# Each maker imports its own runtime, so that a name costs nothing until it is used.
_MAKERS: dict[str, Callable[[int | None], Embedder]] = {
    "lite": _lite,
    "vggish": _vggish,
    "vggish-int8": functools.partial(_vggish, variant="vggish-int8"),
}


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
    return _MAKERS[_known(name)](threads)


def embedder_hash(name: str) -> str:
    """Return what identifies an embedder's weights: its `Embedder.weights_hash`.

    Raises
    ------
    ModelError
        As `get_embedder`.
    """
    if _known(name) == "lite":
        from audiosearch.models import bundled_model

        return bundled_model(name).sha256
    from audiosearch.embedders.vggish.install import ensure_installed
    from audiosearch.embedders.vggish.store import installed

    ensure_installed()
    return installed(name).weights_hash


def _known(name: str) -> str:
    if name not in _MAKERS:
        raise ModelError(
            f"There is no embedder '{printable(name)}'. There is: "
            f"{', '.join(available_embedders())}."
        )
    return name
